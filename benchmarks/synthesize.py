"""Write a file of random weights in the shape of Qwen3.5-4B or 27B: as large and as mixed as the real one, in seconds.

    python -m benchmarks.synthesize OUT.gguf [--shape 4b] [--layers 32] [--vocab 248320] [--mtp] [--seed 0]

Speed depends on shapes and types, not on values, so a matrix is a few hundred random packed rows over and over; no two
layers begin at the same row. Scales make activations stay of order one through any number of layers, so every logit is
finite. The vocabulary is the shortest byte strings, and every merge of it makes a token. Both refmodel and llama.cpp open it.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGUFValueType, TokenType
from gguf import GGMLQuantizationType as T
from numpy.typing import NDArray

from refmodel.gguf.metadata import Field
from refmodel.gguf.writer import field, nbytes, text, write
from refmodel.quants import LAYOUTS, dequantize

Bytes = NDArray[np.uint8]

DISTINCT = 256  # rows of a type and width that are drawn; a matrix repeats them
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that GPT-2's alphabet writes as themselves


@dataclass(frozen=True)
class Shape:
    """The sizes of a qwen35 model; the letters are those of refmodel.arrays, and

    V  the vocabulary     F  n_ff     S  Dk and Dv, which are equal
    interval  every interval-th block is full attention
    tied      whether the head is the embedding
    predicts  whether a prediction block (MTP) follows the last one; embedding and head are the trunk's

    The values are those of Qwen3.5-4B.
    """

    like: str = "Qwen3.5-4B"
    layers: int = 32
    V: int = 248_320
    E: int = 2560
    F: int = 9216
    H: int = 16
    G: int = 4
    D: int = 256
    n_rot: int = 64
    Hk: int = 16
    Hv: int = 32
    S: int = 128
    K: int = 4
    interval: int = 4
    tied: bool = True
    predicts: bool = False

    def more_bits(self, layer: int) -> bool:
        """Whether llama.cpp's mixes give this block a better type: the first and last eighth, and every third between."""
        eighth = self.layers // 8
        return layer < eighth or layer >= 7 * self.layers // 8 or (layer - eighth) % 3 == 2


SHAPES = {
    "4b": Shape(),
    "27b": Shape("Qwen3.5-27B", layers=64, E=5120, F=17408, H=24, Hv=48, tied=False),
}


def tensors(s: Shape) -> Iterator[tuple[str, T, tuple[int, ...]]]:
    """Name, type and shape of each tensor: the mix of UD-Q4_K_XL files.

    The attention and DeltaNet tensors have the types of Qwen3.5-4B-UD-Q4_K_XL. Those of the feed-forward matrices, the embedding
    and the head are not known; they are chosen so that the mix has all six types of such files and the size of a real one.
    """
    yield "token_embd.weight", T.Q6_K if s.tied else T.Q4_K, (s.V, s.E)
    yield "output_norm.weight", T.F32, (s.E,)
    if not s.tied:
        yield "output.weight", T.Q6_K, (s.V, s.E)
    key, value, queries, keys = s.Hk * s.S, s.Hv * s.S, s.H * s.D, s.G * s.D
    for i in range(s.layers + s.predicts):
        of_all: dict[str, tuple[T, tuple[int, ...]]] = {
            "attn_norm.weight": (T.F32, (s.E,)),
            "post_attention_norm.weight": (T.F32, (s.E,)),
            "ffn_gate.weight": (T.Q4_K, (s.F, s.E)),
            "ffn_up.weight": (T.Q4_K if s.more_bits(i) else T.IQ4_XS, (s.F, s.E)),
            "ffn_down.weight": (T.Q6_K if s.more_bits(i) else T.Q5_K, (s.E, s.F)),
        }
        attention = {
            "attn_q.weight": (T.Q4_K, (2 * queries, s.E)),
            "attn_k.weight": (T.Q4_K, (keys, s.E)),
            "attn_v.weight": (T.Q6_K, (keys, s.E)),
            "attn_output.weight": (T.Q4_K, (s.E, queries)),
            "attn_q_norm.weight": (T.F32, (s.D,)),
            "attn_k_norm.weight": (T.F32, (s.D,)),
        }
        delta = {
            "attn_qkv.weight": (T.Q5_K, (2 * key + value, s.E)),
            "attn_gate.weight": (T.Q4_K, (value, s.E)),
            "ssm_out.weight": (T.Q5_K, (s.E, value)),
            "ssm_alpha.weight": (T.Q8_0, (s.Hv, s.E)),
            "ssm_beta.weight": (T.Q8_0, (s.Hv, s.E)),
            "ssm_conv1d.weight": (T.F32, (2 * key + value, s.K)),
            "ssm_norm.weight": (T.F32, (s.S,)),
            "ssm_dt.bias": (T.F32, (s.Hv,)),
            "ssm_a": (T.F32, (s.Hv,)),
        }
        mixing = delta if i < s.layers and (i + 1) % s.interval else attention
        entry = {
            "nextn.eh_proj.weight": (T.Q8_0, (s.E, 2 * s.E)),
            **{f"nextn.{name}.weight": (T.F32, (s.E,)) for name in ("enorm", "hnorm", "shared_head_norm")},
        }
        named = of_all | mixing | (entry if i == s.layers else {})
        yield from ((f"blk.{i}.{name}", kind, shape) for name, (kind, shape) in named.items())


@cache
def packed(kind: T, count: int, columns: int, seed: int) -> Bytes:
    """Rows of random packed weights [count, bytes of a row] with mean about zero and root mean square columns^-0.5."""
    r = np.random.default_rng([seed, int(kind), columns])
    if kind in (T.F32, T.F16, T.BF16):
        floats = (r.standard_normal((count, columns)) * columns**-0.5).astype(np.float32)
        if kind == T.BF16:
            return np.ascontiguousarray(floats.view(np.uint16)[:, 1::2]).view(np.uint8)  # the upper half of each float
        return floats.astype(np.float32 if kind == T.F32 else np.float16).view(np.uint8)
    weights, size = GGML_QUANT_SIZES[kind]
    rows = r.integers(0, 256, (count, columns // weights * size), np.uint8)
    blocks = rows.view(LAYOUTS[kind].BLOCK)
    halves = [name for name in blocks.dtype.names or () if blocks.dtype[name] == np.float16]
    if not halves:  # MXFP4: a power of two
        blocks["e"] = 128 - round(np.log2(6 * columns**0.5))
        return rows
    means = []
    for only in halves:  # the weights are linear in these: one part is made to outweigh the other on average
        for name in halves:
            blocks[name] = name == only
        means.append(float(dequantize(kind, rows).mean()))
    parts = [1.0] if len(halves) == 1 else [1.0, -means[0] / means[1]]
    for name, part in zip(halves, parts, strict=True):
        blocks[name] = part
    scale = columns**-0.5 / np.sqrt(np.mean(np.square(dequantize(kind, rows)))) * r.uniform(0.7, 1.3, blocks.shape)
    for name, part in zip(halves, parts, strict=True):
        blocks[name] = part * scale
    return rows


@dataclass(frozen=True)
class Repeated:
    """A block of bytes repeated up to `size` bytes. It has only what the writer needs of an array: its size, and slices."""

    pattern: Bytes
    size: int

    def __getitem__(self, piece: slice) -> Bytes:
        start, stop, _ = piece.indices(self.size)
        first = start % self.pattern.size
        return np.resize(np.roll(self.pattern, -first), stop - start)


@dataclass(frozen=True)
class Tensor:
    """A tensor as the writer takes it; `number` makes the data of each tensor different."""

    name: str
    type: T
    shape: tuple[int, ...]
    seed: int
    number: int

    @property
    def data(self) -> Any:
        """Its bytes, made on demand."""
        if self.type == T.F32:
            return vector(self.name, self.shape, self.seed + self.number).reshape(-1).view(np.uint8)
        rows = packed(self.type, DISTINCT, self.shape[-1], self.seed)
        return Repeated(np.roll(rows, self.number, axis=0).reshape(-1), nbytes(self))


def vector(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """The float32 values of a small tensor: norms near one, convolutions that pass half of their input, decays of all speeds."""
    x = np.random.default_rng([seed, prod(shape)]).standard_normal(shape)
    if name.endswith("ssm_a"):
        x = -np.exp(x)  # -exp(A_log)
    elif "conv1d" in name:
        x = 0.2 + 0.5 * x
    elif "norm" in name:
        x = 1 + 0.1 * x
    return x.astype(np.float32)


def vocabulary(size: int) -> tuple[list[str], list[str]]:
    """The `size` shortest byte strings in GPT-2's alphabet, the last ones special tokens; and the merges that make them."""
    others = (b for b in range(256) if b not in PRINTABLE)
    alphabet = [chr(b) for b in PRINTABLE] + [chr(256 + i) for i, _ in enumerate(others)]
    tokens, merges = list(alphabet), list[str]()

    def pairs() -> Iterator[tuple[str, str]]:
        for left in tokens:  # which grows
            yield from ((left, right) for right in alphabet)

    for left, right in islice(pairs(), max(0, size - len(SPECIAL) - len(alphabet))):
        tokens.append(left + right)
        merges.append(f"{left} {right}")
    return tokens + list(SPECIAL), merges


def strings(values: Sequence[str]) -> Field:
    """A metadata field that is an array of texts."""
    body = np.array([GGUFValueType.STRING], "<u4").tobytes() + np.array([len(values)], "<u8").tobytes()
    return Field(GGUFValueType.ARRAY, GGUFValueType.STRING, len(values), memoryview(body + b"".join(map(text, values))))


def metadata(s: Shape) -> dict[str, Field]:
    """The metadata of a file of that shape."""
    half = s.n_rot // 2
    numbers = {
        "context_length": 262_144,
        "embedding_length": s.E,
        "block_count": s.layers + s.predicts,
        "feed_forward_length": s.F,
        "attention.head_count": s.H,
        "attention.head_count_kv": s.G,
        "attention.key_length": s.D,
        "attention.value_length": s.D,
        "rope.dimension_count": s.n_rot,
        "ssm.conv_kernel": s.K,
        "ssm.inner_size": s.Hv * s.S,
        "ssm.state_size": s.S,
        "ssm.time_step_rank": s.Hv,
        "ssm.group_count": s.Hk,
        "full_attention_interval": s.interval,
        **({"nextn_predict_layers": 1} if s.predicts else {}),
    }
    sections = [(half + 2) // 3, (half + 1) // 3, half // 3, 0]
    tokens, merges = vocabulary(s.V)
    types = [TokenType.NORMAL] * (s.V - len(SPECIAL)) + [TokenType.CONTROL] * len(SPECIAL)
    return {
        "general.architecture": field(GGUFValueType.STRING, "qwen35"),
        "general.name": field(GGUFValueType.STRING, f"random weights shaped like {s.like}, {s.layers} layers"),
        **{f"qwen35.{key}": field(GGUFValueType.UINT32, value) for key, value in numbers.items()},
        "qwen35.rope.freq_base": field(GGUFValueType.FLOAT32, 1e7),
        "qwen35.attention.layer_norm_rms_epsilon": field(GGUFValueType.FLOAT32, 1e-6),
        "qwen35.rope.dimension_sections": field(GGUFValueType.ARRAY, sections, GGUFValueType.INT32),
        "tokenizer.ggml.model": field(GGUFValueType.STRING, "gpt2"),
        "tokenizer.ggml.pre": field(GGUFValueType.STRING, "qwen35"),
        "tokenizer.ggml.tokens": strings(tokens),
        "tokenizer.ggml.token_type": field(GGUFValueType.ARRAY, types, GGUFValueType.INT32),
        "tokenizer.ggml.merges": strings(merges),
        "tokenizer.ggml.bos_token_id": field(GGUFValueType.UINT32, s.V - 3),
        "tokenizer.ggml.eos_token_id": field(GGUFValueType.UINT32, s.V - 1),
        "tokenizer.ggml.add_bos_token": field(GGUFValueType.BOOL, False),
    }


def synthesize(path: Path, shape: Shape, seed: int = 0) -> Path:
    """Write a file of that shape with random weights, whole or not at all. Returns its path."""
    listed = [Tensor(name, kind, size, seed, i) for i, (name, kind, size) in enumerate(tensors(shape))]
    return write(path, metadata(shape), listed)


def main() -> None:
    """The command line: OUT.gguf and the shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.gguf")
    parser.add_argument("--shape", choices=SHAPES, default="4b")
    parser.add_argument("--layers", type=int, help="fewer or more than that shape has")
    parser.add_argument("--vocab", type=int, default=Shape.V, help="at least 259")
    parser.add_argument("--mtp", action="store_true", help="with a prediction block")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    shape = SHAPES[given.shape]
    path = synthesize(given.out, replace(shape, layers=given.layers or shape.layers, V=given.vocab, predicts=given.mtp), given.seed)
    print(f"{path}: {path.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
