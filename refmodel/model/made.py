"""Small files of an architecture: of zeros to compile kernels with, of random numbers to try another program with."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf import GGUFValueType

from ..arch import ARCHITECTURES, Keys
from ..arch.shapes import QKV
from ..arrays import F32, Bytes
from ..errors import MetadataError
from ..gguf.metadata import Field, Metadata
from ..gguf.reader import GgufFile
from ..gguf.tensor import Tensor
from ..gguf.writer import field, write
from ..quants import FLOATS, LAYOUTS, dequantize
from ..quants.types import SIZES

Fill = Callable[[str, Q, tuple[int, ...]], Bytes]

VOCABULARY = 96


def made(path: Path, architecture: str, types: Sequence[Q], fill: Fill) -> Path:
    """Write a file: one period of blocks, heads as wide as usual, the types in turn. Returns its path.

    path          of the new file
    architecture  a key of ARCHITECTURES
    types         tensor types, used in turn for the matrices whose rows are multiples of 256; all else is F32
    fill          name, type and shape of a tensor -> its packed bytes

    FileError if it cannot be written.
    """
    fields, tensors = parts(path, architecture, types, fill, {})
    return write(path, fields, tensors)


# Sizes that tell readings of a file apart, the first that an architecture takes: heads of another width than E/H, rotated in part;
# heads of another width; heads of width E/H
TELLING: Sequence[Mapping[str, int | float]] = (
    {"attention.head_count": 8, "rope.dimension_count": 32},
    {"attention.head_count": 8},
    {},
)
MORE: Mapping[str, int | float] = {
    "rope.freq_base": 3e6,
    "rope.scaling.factor": 4.0,
    "ssm.time_step_rank": 6,
    "ssm.inner_size": 768,
}


def small(architecture: str) -> GgufFile:
    """Such a file in memory, F32, whose sizes tell readings of a file apart: matrices of zeros, random vectors."""
    path = Path(f"{architecture}.gguf")
    for sizes in TELLING:
        try:
            fields, tensors = parts(path, architecture, [Q.F32], zero_matrices, {**MORE, **sizes})
        except MetadataError:
            continue
        break
    fields["tokenizer.ggml.bos_token_id"] = field(GGUFValueType.UINT32, 1)
    fields[f"{architecture}.rope.dimension_sections"] = field(GGUFValueType.ARRAY, [6, 5, 5, 0], GGUFValueType.INT32)
    tensors += biases(architecture, tensors)
    return GgufFile(path, 3, Metadata(path, fields), {tensor.name: tensor for tensor in tensors}, (path,))


def biases(architecture: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Random biases of queries, keys and values, where typical files of an architecture have them."""
    named = {f"{name}.weight" for name in QKV if ARCHITECTURES[architecture].FACTS.biased}
    own = [(t.name.removesuffix("weight") + "bias", t.shape[:1], t.file) for t in tensors if t.name.split(".", 2)[-1] in named]
    return [Tensor(name, Q.F32, shape, file, random_of(name, Q.F32, shape)) for name, shape, file in own]


def parts(
    path: Path, architecture: str, types: Sequence[Q], fill: Fill, more: Mapping[str, int | float]
) -> tuple[dict[str, Field], list[Tensor]]:
    """The metadata and the tensors of `made`; `more` are keys below the architecture's name that it has besides."""
    numbers: dict[str, int | Sequence[int]] = {
        "block_count": 4, "context_length": 4096, "embedding_length": 512, "feed_forward_length": 512,
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 128, "attention.value_length": 128,
        "ssm.conv_kernel": 4, "ssm.inner_size": 512, "ssm.state_size": 128, "ssm.time_step_rank": 4, "ssm.group_count": 2,
    }  # fmt: skip
    a, arch, count = architecture, ARCHITECTURES[architecture], 0
    numbers |= arch.FACTS.typical
    fields = {"general.architecture": field(GGUFValueType.STRING, a), "tokenizer.ggml.model": field(GGUFValueType.STRING, "none")}
    for key, value in numbers.items():
        kind = GGUFValueType.UINT32 if isinstance(value, int) else GGUFValueType.ARRAY
        fields[f"{a}.{key}"] = field(kind, value, GGUFValueType.UINT32)
    fields[f"{a}.attention.layer_norm_rms_epsilon"] = field(GGUFValueType.FLOAT32, 1e-6)
    fields[f"{a}.rope.dimension_sections"] = field(GGUFValueType.ARRAY, [22, 22, 20, 0], GGUFValueType.INT32)
    fields[f"{a}.vocab_size"] = field(GGUFValueType.UINT32, VOCABULARY)
    for key, number in more.items():
        kind = GGUFValueType.UINT32 if isinstance(number, int) else GGUFValueType.FLOAT32
        fields[f"{a}.{key}"] = field(kind, number)
    hp = arch.hparams(Keys(Metadata(path, fields), a, largest=1 << 32))
    required, optional = arch.globals(hp, VOCABULARY)
    shapes = required | {name: shape for name, shape in optional.items() if name == "output.weight"}
    for i in range(hp.n_layer):
        shapes |= {f"blk.{i}.{name}": shape for name, shape in arch.shapes(hp, i).items()}
    tensors = []
    for name, shape in shapes.items():
        shape, kind = shape[len(shape) > 1 and shape[0] == 1 :], Q.F32  # a single row is a vector
        if len(shape) > 1 and shape[-1] % 256 == 0:
            kind, count = types[count % len(types)], count + 1
        tensors.append(Tensor(name, kind, shape, path, fill(name, kind, shape)))
    return fields, tensors


def zeros_of(name: str, kind: Q, shape: tuple[int, ...]) -> Bytes:
    """The packed bytes of a tensor of this type and shape, all zero; a `fill` for `made`."""
    weights, size = SIZES[kind]
    return np.zeros(int(np.prod(shape)) // weights * size, np.uint8)


def zero_matrices(name: str, kind: Q, shape: tuple[int, ...]) -> Bytes:
    """zeros_of a large matrix, random_of a vector or the taps of a convolution; a `fill` for `parts`."""
    return (zeros_of if len(shape) > 1 and "conv" not in name else random_of)(name, kind, shape)


def random_of(name: str, kind: Q, shape: tuple[int, ...]) -> Bytes:
    """A random tensor, the same for the same name: every byte of its codes random, its values as large as in a trained model.

    Returns the packed bytes; a `fill` for `made`.
    """
    r = np.random.default_rng([*name.encode(), int(kind)])
    size = 1.0 if len(shape) == 1 or "conv1d" in name else shape[-1] ** -0.5
    x = (size * r.standard_normal(shape)).astype(np.float32)
    if name.endswith("norm.weight"):
        x = 1 + x / 10
    if name.endswith("ssm_a"):
        x = -np.exp(x)
    if kind in FLOATS:
        return as_floats(kind, x)
    weights, bytes_ = SIZES[kind]
    rows = r.integers(0, 256, (int(np.prod(shape[:-1])), shape[-1] // weights * bytes_), np.uint8)
    blocks = rows.view(LAYOUTS[kind].BLOCK)
    scales = [part for part in blocks.dtype.names or () if blocks.dtype[part] == "<f2"]
    for part in scales:
        blocks[part] = 1.0
    if not scales:  # MXFP4: an exponent
        blocks["e"] = 128
    unit = float(np.sqrt(np.mean(np.square(dequantize(kind, rows[:64]))))) / size
    for part in scales:
        blocks[part] = r.uniform(0.5, 1.5, blocks.shape) / unit
    if not scales:
        blocks["e"] = np.rint(128 - np.log2(unit))
    return rows.reshape(-1)


def as_floats(kind: Q, x: F32) -> Bytes:
    """Numbers as packed bytes of F32, F16 or BF16 (cut off, not rounded)."""
    if kind == Q.BF16:
        return np.ascontiguousarray(x.view(np.uint16).reshape(*x.shape, 2)[..., 1]).reshape(-1).view(np.uint8)
    return np.ascontiguousarray(x.astype(np.float16 if kind == Q.F16 else np.float32)).reshape(-1).view(np.uint8)
