"""Tables of the GGUF format; no code. Source: docs/gguf.md of the ggml project, and gguf.cpp where the two differ."""

import numpy as np
from gguf import GGUFValueType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32  # where general.alignment is absent
MAX_ALIGNMENT = 1 << 24
MAX_DIMS = 4
MAX_KEY = 1 << 16  # bytes
MAX_NAME = 256  # bytes of a tensor's name; llama.cpp takes 63
MAX_DEPTH = 4  # arrays within arrays
OURS = "refmodel."  # prefix of the keys that say where a routed copy comes from

# What is walked one by one, and how much of it a file may have: many times what any model has, so that a file made to
# waste time is refused. A sparse file costs its maker nothing, so its size bounds nothing.
MAX_COUNT = {"strings": 1 << 23, "arrays": 1 << 18, "tensors": 1 << 18, "metadata keys": 1 << 18}

SCALARS: dict[GGUFValueType, np.dtype] = {
    GGUFValueType.UINT8: np.dtype("<u1"),
    GGUFValueType.INT8: np.dtype("<i1"),
    GGUFValueType.UINT16: np.dtype("<u2"),
    GGUFValueType.INT16: np.dtype("<i2"),
    GGUFValueType.UINT32: np.dtype("<u4"),
    GGUFValueType.INT32: np.dtype("<i4"),
    GGUFValueType.FLOAT32: np.dtype("<f4"),
    GGUFValueType.BOOL: np.dtype("<u1"),
    GGUFValueType.UINT64: np.dtype("<u8"),
    GGUFValueType.INT64: np.dtype("<i8"),
    GGUFValueType.FLOAT64: np.dtype("<f8"),
}
