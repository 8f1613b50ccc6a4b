"""How a forward pass computes: the values of forward.numerics.Numerics. No other place knows which policy runs."""

from ..errors import RefmodelError
from ..forward.numerics import Numerics
from ..machine import kernel_cache

with kernel_cache.of_kernels():  # the first import of each of them
    from .batches import for_batches
    from .companions import as_stored
    from .fast import FAST
    from .llamacpp import LLAMACPP, ladder, llamacpp, policy_of
    from .llamacpp_ops import llamacpp_by_ops
    from .numpy import NUMPY
    from .oracle import ORACLE
    from .reference import REFERENCE

__all__ = [
    "FAST",
    "LLAMACPP",
    "NUMERICS",
    "NUMPY",
    "ORACLE",
    "REFERENCE",
    "Numerics",
    "as_stored",
    "for_batches",
    "ladder",
    "llamacpp",
    "llamacpp_by_ops",
    "numerics_of",
]

NUMERICS = {value.name: value for value in (FAST, REFERENCE, NUMPY, ORACLE, LLAMACPP)}


def numerics_of(value: Numerics | str) -> Numerics:
    """The policy of that name, or the policy itself.

    value  fast, reference, numpy, oracle, llamacpp, or llamacpp: and a profile: `llamacpp:fa=off,kv=f32`

    RefmodelError if there is none of that name.
    """
    if isinstance(value, Numerics):
        return value
    if value in NUMERICS:
        return NUMERICS[value]
    name, colon, options = value.partition(":")
    if name == LLAMACPP.name and colon:
        return policy_of(options)
    raise RefmodelError(f"--numerics {value[:60]}: not one of {', '.join(NUMERICS)}, llamacpp:fa=off,kv=f32; choose one of these")
