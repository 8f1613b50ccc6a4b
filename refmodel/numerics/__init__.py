"""How a forward pass computes: a record of functions, and its values. No other place knows which policy runs."""

from .. import kernel_cache
from ..errors import RefmodelError
from ..profile import DEFAULT, profile_of

with kernel_cache.of_kernels():  # the first import of each of them
    from .fast import FAST
    from .ggml import ladder, llamacpp
    from .plain import ORACLE, REFERENCE, Numerics
    from .stored import as_stored

__all__ = ["FAST", "LLAMACPP", "NUMERICS", "ORACLE", "REFERENCE", "Numerics", "as_stored", "ladder", "llamacpp", "numerics_of"]

LLAMACPP = llamacpp(DEFAULT)
NUMERICS = {value.name: value for value in (FAST, REFERENCE, ORACLE, LLAMACPP)}


def numerics_of(value: Numerics | str) -> Numerics:
    """The policy of that name, or the policy itself; `llamacpp:` is followed by a profile. RefmodelError if there is none."""
    if isinstance(value, Numerics):
        return value
    if value in NUMERICS:
        return NUMERICS[value]
    if value.startswith("llamacpp:"):
        return llamacpp(profile_of(value.removeprefix("llamacpp:")))
    raise RefmodelError(f"--numerics {value}: not one of {', '.join(NUMERICS)}, llamacpp:fa=off,kv=f32")
