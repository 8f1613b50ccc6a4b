"""What can be wrong with a user's file, words or machine. Each message is one line a user can act on."""


class RefmodelError(Exception):
    """The root of all errors that a user can cause; the command line prints the message and exits with 2."""


class FileError(RefmodelError):
    """A file cannot be read as what it claims to be."""


class MetadataError(RefmodelError):
    """A metadata key is missing, has another type, or contradicts the tensors."""


class TensorError(RefmodelError):
    """A tensor is missing, has another shape, or a type that cannot be decoded."""


class RouteError(RefmodelError):
    """A route's words cannot be read, or do not fit the model."""


class TokenError(RefmodelError):
    """Text or token ids that the model's vocabulary cannot express."""


class TraceError(RefmodelError):
    """A recorded trace cannot be compared with this run."""


class MemoryLimitError(RefmodelError):
    """What a run would take does not fit into the memory of this machine."""


class OracleError(RefmodelError):
    """No llama.cpp can be driven, or the one that was found failed."""
