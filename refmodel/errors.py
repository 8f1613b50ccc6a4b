"""What can be wrong with a user's file, words or machine. Each message is one line a user can act on."""

LONGEST = 4000


class RefmodelError(Exception):
    """The root of all errors that a user's file, words or machine can cause.

    The message is one line that says where, what was found, what was expected and what to do. The command line prints it and
    exits with 2. Of a message with more than LONGEST characters, such as one that names a long token, the two ends are kept.
    """

    def __init__(self, message: str = "") -> None:
        cut = LONGEST // 2
        super().__init__(message if len(message) <= LONGEST else f"{message[:cut]}[...]{message[-cut:]}")


class FileError(RefmodelError):
    """A file is not there, or cannot be read as what it claims to be."""


class MetadataError(RefmodelError):
    """A metadata key is missing, has another type, or contradicts the tensors."""


class TensorError(RefmodelError):
    """A tensor is missing, has another shape, or a type that cannot be decoded."""


class RouteError(RefmodelError):
    """A route's words cannot be read, or do not fit the model."""


class TokenError(RefmodelError):
    """Text or token ids that the model's vocabulary cannot express."""


class TraceError(RefmodelError):
    """A recorded trace cannot be read, or belongs to another file, other tokens or another route."""


class DumpError(RefmodelError):
    """Another program's dump cannot be read, or is not of this model."""


class GoldenError(RefmodelError):
    """A golden cannot be read, was changed after it was recorded, or is of something else than it is checked against."""


class MemoryLimitError(RefmodelError):
    """The keys and values of a run would not fit into the free memory of this machine."""


class OracleError(RefmodelError):
    """No llama.cpp was found that can be run here, or the one that was found failed."""


class OracleEndedError(OracleError):
    """A llama.cpp ended in the middle: an assertion of its own, a signal, a crash.

    how  such as "was ended by SIGILL"
    """

    def __init__(self, message: str, how: str) -> None:
        super().__init__(message)
        self.how = how


class SweepError(RefmodelError):
    """A plan, a probe or a ledger of a sweep cannot be read, or does not belong to this sweep."""
