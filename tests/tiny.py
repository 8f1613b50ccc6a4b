"""Small random models of each architecture, written by the gguf package: F32, deterministic from a seed, no two axes alike."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gguf
import gguf.quants
import magnitudes
import numpy as np

from refmodel.arch import ARCHITECTURES
from refmodel.arch import nextn as prediction
from refmodel.quants import LAYOUTS


@dataclass(frozen=True)
class Shape:
    """Sizes of a model; every field may be given to `build` by name. Letters as in refmodel.arrays.

    S is both key_dim and value_dim of the delta rule: `ssm.state_size` is one number for Dk and Dv in all three hybrids.
    """

    n_layer: int = 5
    E: int = 22
    F: int = 26
    H: int = 6
    G: int = 2
    D: int = 14
    n_rot: int = 10
    Hk: int = 3
    Hv: int = 9
    S: int = 8
    K: int = 4
    interval: int = 3
    sections: Sequence[int] = ()  # of rotated pairs: time, height, width
    recurrent: Sequence[bool] | None = None
    tied: bool = False
    n_nextn: int = 0
    own_head: bool = False  # the prediction block has its embedding and its head, but reads the trunk's norm
    rope_freqs: bool = False
    biases: Sequence[str] = ()  # the matrices that have one
    experts: int = 0
    used: int = 5
    Fx: int = 16  # of an expert
    Fs: int = 0  # of the shared expert
    window: int = 0
    softcap: float = 0.0
    temperature: float = 0.0
    scales: bool = False
    fused: Sequence[str] = ()  # of refmodel.arch.fused.PARTS; `.weight` behind one leaves the biases apart
    scaling: Mapping[str, Any] = field(default_factory=dict)  # keys below rope.scaling
    context: int = 512
    trained: bool = False  # norms, decays and their biases as a trained model has them

    def kinds(self, arch: str) -> list[str]:
        """The kind of each block of the trunk."""
        if arch == "gemma3":
            return [
                "sliding" if self.window and i % self.interval < self.interval - 1 else "attention" for i in range(self.n_layer)
            ]
        other = {"lfm2": "conv"}.get(arch, "delta" if arch in DELTA else "attention")
        recurrent = self.recurrent or [(i + 1) % self.interval != 0 for i in range(self.n_layer)]
        return [other if recurrent[i] else "attention" for i in range(self.n_layer)]


# Larger than in trained models: an epsilon in the wrong place shows, and heads that read almost nothing (their gated norm
# would blow up rounding a thousandfold) do not drown every other difference.
EPS = 1e-3
DELTA = {"qwen35", "qwen35moe", "qwen3next"}
QKV = ("attn_q", "attn_k", "attn_v")
DENSE = Shape(D=10, n_rot=10, n_layer=3)
SHAPES = {
    "llama": DENSE,
    "mistral3": replace(DENSE, temperature=0.5, scaling={"original_context_length": 4}),
    "qwen2": replace(DENSE, E=40, H=4, biases=QKV),  # H · D is E
    "qwen3": DENSE,
    "qwen3moe": replace(DENSE, experts=7),
    "qwen35": Shape(),
    "qwen35moe": Shape(experts=7, Fs=18),
    "qwen3next": Shape(experts=7, Fs=18),
    "lfm2": replace(DENSE, E=40, H=4, n_layer=4, K=3),
    "gemma3": replace(DENSE, n_layer=4, interval=3, window=4, tied=True),
}
FLOATS = ("conv1d.weight", "shortconv.conv.weight")  # llama.cpp convolves with floats only
PRE = {"llama": "smollm", "qwen35": "qwen35"}  # and qwen2
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


Types = Callable[[str], gguf.GGMLQuantizationType]


def build(path: Path, arch: str, seed: int = 0, types: Types | None = None, alike: str = "", **shape: Any) -> Path:
    """Write a random model of that architecture, one of SHAPES; fields of Shape may be given by name.

    types  the type of each matrix, by its name; without it all are F32
    alike  why some axes agree, where some do. Rows that are packed have few possible lengths: for them nobody has to say it
    """
    s = replace(SHAPES[arch], **shape)
    tokens, merges = vocabulary()
    agree = axes_that_agree(axes(arch, s, len(tokens)))
    assert types or alike or not agree, f"axes agree, and a test would not see them swapped: {', '.join(sorted(agree))}"
    w = gguf.GGUFWriter(path, arch)
    for key, value in metadata(arch, s).items():
        add(w, f"{arch}.{key}", value)
    w.add_name(f"tiny {arch}")
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(PRE.get(arch, "qwen2"))
    w.add_token_list(tokens)
    w.add_token_types([gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIAL)) + [gguf.TokenType.CONTROL] * len(SPECIAL))
    w.add_token_merges(merges)
    w.add_bos_token_id(len(tokens) - 3)
    w.add_eos_token_id(len(tokens) - 1)
    w.add_add_bos_token(False)
    r = np.random.default_rng(seed)
    for name, (rows, scale, shift) in tensors(arch, s, len(tokens)).items():
        alike = name.split(".", 2)[-1]
        known = s.trained and alike in magnitudes.report()["magnitudes"]
        floats = magnitudes.trained(alike, r, *rows) if known else special(name, r, rows, scale, shift)
        floats = floats.astype(np.float32)
        kind = types(name) if types and len(rows) > 1 and not name.endswith(FLOATS) else gguf.GGMLQuantizationType.F32
        if kind == gguf.GGMLQuantizationType.F32:
            w.add_tensor(name, floats)
        else:
            w.add_tensor(name, packed(kind, r, floats), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def axes(arch: str, s: Shape, V: int) -> dict[str, int]:
    """The length of every axis of the weights, the activations and the state; of those that one number gives, one.

    D is also n_rot but in the hybrids, and H·D of qwen2 and lfm2 is E: refmodel, as llama.cpp, refuses another number.
    """
    out = {"V": V, "E": s.E, "H": s.H, "G": s.G, "D": s.D, "G·D": s.G * s.D}
    out |= {} if arch in ("qwen2", "lfm2") else {"H·D": s.H * s.D}
    out |= {"X": s.experts, "U": s.used, "Fx": s.Fx} if s.experts else {"F": s.F}
    out |= {"Fs": s.Fs} if s.Fs else {}
    out |= {"window": s.window} if s.window else {}
    if arch == "lfm2":
        out |= {"K": s.K, "3·E": 3 * s.E}
    if arch in DELTA:
        out |= {"n_rot": s.n_rot, "2·H·D": 2 * s.H * s.D, "Hk": s.Hk, "Hv": s.Hv, "S": s.S, "K": s.K}
        out |= {"Hk·S": s.Hk * s.S, "Hv·S": s.Hv * s.S, "C": (2 * s.Hk + s.Hv) * s.S}
    return out | ({"2·E": 2 * s.E} if s.n_nextn else {})


def axes_that_agree(lengths: Mapping[str, int]) -> set[str]:
    """`H = G` for two axes of one length, and so on."""
    return {f"{a} = {b}" for a, b in itertools.combinations(lengths, 2) if lengths[a] == lengths[b]}


def add(w: gguf.GGUFWriter, key: str, value: Any) -> None:
    kinds = {str: w.add_string, bool: w.add_bool, int: w.add_uint32, float: w.add_float32, list: w.add_array}
    kinds[type(value)](key, value)


def metadata(arch: str, s: Shape) -> dict[str, Any]:
    common = {
        "context_length": s.context,
        "embedding_length": s.E,
        "block_count": s.n_layer + s.n_nextn,
        "feed_forward_length": s.F,
        "attention.head_count": s.H,
        "attention.head_count_kv": s.G,
        "attention.key_length": s.D,
        "attention.value_length": s.D,
        "attention.layer_norm_rms_epsilon": EPS,
        "rope.dimension_count": s.n_rot,
        "rope.freq_base": 10000.0,
    }
    if s.experts:
        common |= {"expert_count": s.experts, "expert_used_count": s.used}
        common |= {"feed_forward_length" if arch == "llama" else "expert_feed_forward_length": s.Fx}
    if s.Fs:
        common |= {"expert_shared_feed_forward_length": s.Fs}
    if s.window:
        common |= {
            "attention.sliding_window": s.window,
            "attention.sliding_window_pattern": s.interval,
            "rope.freq_base_swa": 500.0,
        }
    if s.softcap:
        common |= {"final_logit_softcapping": s.softcap}
    if s.temperature:
        common |= {"attention.temperature_scale": s.temperature}
    common |= {f"rope.scaling.{key}": value for key, value in s.scaling.items()}
    if arch == "lfm2":
        heads = [s.G if kind == "attention" else 0 for kind in s.kinds(arch)]
        common |= {"attention.head_count_kv": heads, "shortconv.l_cache": s.K}
    if arch not in DELTA:
        return common
    dealt = [(s.n_rot // 2 + 2 - k) // 3 for k in range(3)]  # as pairs are dealt out in turns, so that text turns them all
    hybrid = {
        **({} if arch == "qwen3next" else {"rope.dimension_sections": [*(s.sections or dealt), 0]}),
        "ssm.conv_kernel": s.K,
        "ssm.inner_size": s.S * s.Hv,
        "ssm.state_size": s.S,
        "ssm.time_step_rank": s.Hv,
        "ssm.group_count": s.Hk,
        "full_attention_interval": s.interval,
    }
    if s.recurrent is not None:
        hybrid["attention.recurrent_layers"] = [bool(x) for x in s.recurrent] + [False] * s.n_nextn
    if s.n_nextn:
        hybrid["nextn_predict_layers"] = s.n_nextn
    return common | hybrid


Rows = tuple[tuple[int, ...], float, float]  # shape, scale of the random part, constant part


def tensors(arch: str, s: Shape, V: int) -> dict[str, Rows]:
    """Name -> shape, scale and shift. Matrices are scaled so that activations stay of order one through many blocks."""

    def matrix(out: int, inputs: int, gain: float = 1.0) -> Rows:
        return (out, inputs), gain * inputs**-0.5, 0.0

    def near_one(n: int) -> Rows:
        return (n,), 0.2, 1.0

    Q, KV, key, value = s.H * s.D, s.G * s.D, s.Hk * s.S, s.Hv * s.S

    def matrices(out: int, inputs: int) -> Rows:
        return (s.experts, out, inputs), inputs**-0.5, 0.0

    ffn = {"ffn_gate.weight": matrix(s.F, s.E), "ffn_up.weight": matrix(s.F, s.E), "ffn_down.weight": matrix(s.E, s.F)}
    if s.experts:
        ffn = {
            "ffn_gate_inp.weight": matrix(s.experts, s.E, 2.0),
            "ffn_gate_exps.weight": matrices(s.Fx, s.E),
            "ffn_up_exps.weight": matrices(s.Fx, s.E),
            "ffn_down_exps.weight": matrices(s.E, s.Fx),
        }
    if s.Fs:
        ffn |= {
            "ffn_gate_inp_shexp.weight": ((s.E,), s.E**-0.5, 0.0),
            "ffn_gate_shexp.weight": matrix(s.Fs, s.E),
            "ffn_up_shexp.weight": matrix(s.Fs, s.E),
            "ffn_down_shexp.weight": matrix(s.E, s.Fs),
        }
    if arch == "gemma3":
        ffn |= {"post_attention_norm.weight": near_one(s.E), "post_ffw_norm.weight": near_one(s.E)}
    normed_heads = {"attn_q_norm.weight": near_one(s.D), "attn_k_norm.weight": near_one(s.D)}
    rows = {"attn_q": 2 * Q if arch in DELTA else Q, "attn_k": KV, "attn_v": KV, "attn_output": s.E}
    rows |= {"ffn_gate": s.F, "ffn_up": s.F, "ffn_down": s.E}
    attention = {
        "attn_norm.weight": near_one(s.E),
        "attn_q.weight": matrix(2 * Q if arch in DELTA else Q, s.E),
        "attn_k.weight": matrix(KV, s.E),
        "attn_v.weight": matrix(KV, s.E),
        **{f"{name}.bias": ((n,), 0.5, 0.0) for name, n in rows.items() if name in s.biases},
        "attn_output.weight": matrix(s.E, Q),
        **({} if arch in ("llama", "mistral3", "qwen2") else normed_heads),
        "post_attention_norm.weight" if arch in DELTA else "ffn_norm.weight": near_one(s.E),
        **ffn,
    }
    gates = {"ssm_beta.weight": matrix(s.Hv, s.E), "ssm_alpha.weight": matrix(s.Hv, s.E)}
    if arch == "qwen3next":
        gates = {"ssm_ba.weight": matrix(2 * s.Hv, s.E)}
    delta = {
        "attn_norm.weight": near_one(s.E),
        "attn_qkv.weight": matrix(2 * key + value, s.E),
        "attn_gate.weight": matrix(value, s.E),
        "ssm_conv1d.weight": ((2 * key + value, s.K), 0.5, 0.2),
        "ssm_dt.bias": ((s.Hv,), 1.0, 0.0),
        "ssm_a": ((s.Hv,), 1.0, 0.0),
        **gates,
        "ssm_norm.weight": near_one(s.S),
        "ssm_out.weight": matrix(s.E, value),
        "post_attention_norm.weight": near_one(s.E),
        **ffn,
    }
    conv = {
        "attn_norm.weight": near_one(s.E),
        "shortconv.in_proj.weight": matrix(3 * s.E, s.E),
        "shortconv.conv.weight": ((s.E, s.K), 0.5, 0.2),
        "shortconv.out_proj.weight": matrix(s.E, s.E),
        "ffn_norm.weight": near_one(s.E),
        **ffn,
    }
    of_kind = {"delta": delta, "conv": conv, "sliding": attention, "attention": attention}
    out: dict[str, Rows] = {"token_embd.weight": ((V, s.E), 1.0, 0.0)}
    if s.rope_freqs:
        out["rope_freqs.weight"] = ((s.n_rot // 2,), 1.0, 2.0)
    for i, kind in enumerate(s.kinds(arch)):
        out |= {f"blk.{i}.{name}": rows for name, rows in of_kind[kind].items()}
    for i in range(s.n_layer, s.n_layer + s.n_nextn):
        nextn = {
            "eh_proj": matrix(s.E, 2 * s.E),
            "enorm": near_one(s.E),
            "hnorm": near_one(s.E),
            **({} if s.own_head else {"shared_head_norm": near_one(s.E)}),
            **({"embed_tokens": ((V, s.E), 1.0, 0.0), "shared_head_head": matrix(V, s.E, 2.0)} if s.own_head else {}),
        }
        out |= {f"blk.{i}.{name}": rows for name, rows in attention.items()}
        out |= {f"blk.{i}.nextn.{name}.weight": rows for name, rows in nextn.items()}
    out["token_embd_norm.weight" if arch == "lfm2" else "output_norm.weight"] = near_one(s.E)
    if not s.tied:
        out["output.weight"] = matrix(V, s.E, 2.0)
    if "output" in s.biases:
        out["output.bias"] = (V,), 0.5, 0.0
    for i, kind in enumerate([*s.kinds(arch), *["attention"] * s.n_nextn]):
        for whole in s.fused:
            fuse(out, f"blk.{i}.", whole, kind)
    if s.scales:
        scaled = {*ARCHITECTURES[arch].SCALED, *prediction.SCALED, *({"attn_qkv"} if s.fused and arch not in DELTA else {})}
        names = [name for name in out if name.startswith("blk.") and name.split(".", 2)[2].removesuffix(".weight") in scaled]
        out |= {f"{name.removesuffix('weight')}scale": (out[name][0][:-2] or (1,), 0.5, 1.0) for name in names}
    return out


def fuse(out: dict[str, Rows], prefix: str, whole: str, kind: str) -> None:
    """Put random rows of the same number in place of the matrices that the one holds, if the block has them."""
    whole, _, only = whole.partition(".")
    parts, here = {
        "attn_qkv": (("attn_q", "attn_k", "attn_v"), kind != "delta"),
        "ffn_gate_up_exps": (("ffn_gate_exps", "ffn_up_exps"), True),
        "ssm_in": (("attn_qkv", "attn_gate"), kind == "delta"),
    }[whole]
    for what in [only] if only else ["weight", "bias"]:
        some = [out.pop(name) for part in parts if (name := f"{prefix}{part}.{what}") in out and here]
        if some:
            axis = -2 if what == "weight" else -1
            shape = list(some[0][0])
            shape[axis] = sum(rows[0][axis] for rows in some)
            out[f"{prefix}{whole}.{what}"] = tuple(shape), *some[0][1:]


def special(name: str, r: np.random.Generator, shape: tuple[int, ...], scale: float, shift: float) -> np.ndarray:
    """Random values; those with a meaning of their own in its range."""
    x = shift + scale * r.standard_normal(shape)
    if name.endswith("ssm_a"):
        return -np.exp(x)  # -exp(A_log)
    return np.abs(x) + 0.5 if name == "rope_freqs.weight" else x


def packed(kind: gguf.GGMLQuantizationType, r: np.random.Generator, like: np.ndarray) -> np.ndarray:
    """A packed matrix of the size of `like`: every byte random, and scales that give its weights nearly the size of those."""
    if kind in (gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.BF16):
        return gguf.quants.quantize(like, kind)
    per_block, size = gguf.GGML_QUANT_SIZES[kind]
    rows = r.integers(0, 256, (*like.shape[:-1], like.shape[-1] // per_block * size), np.uint8)
    blocks = rows.view(LAYOUTS[kind].BLOCK)
    halves = [name for name in blocks.dtype.names if blocks.dtype[name] == "<f2"]
    for name in halves:
        blocks[name] = 1.0
    if not halves:
        blocks["e"] = 128
    size_of_one = np.sqrt(np.mean(np.square(gguf.quants.dequantize(rows, kind)))) / np.sqrt(np.mean(np.square(like)))
    for name in halves:
        blocks[name] = r.uniform(0.5, 1.5, blocks.shape) / size_of_one
    if not halves:
        blocks["e"] = np.rint(128 - np.log2(size_of_one)) + r.integers(-1, 2, blocks.shape)
    return rows


def vocabulary() -> tuple[list[str], list[str]]:
    """The 256 bytes in GPT-2's alphabet, a few merges, and three control tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    alphabet = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
    merges = ["t h", "th e", "i n", "a n", "Ġ the", "e r", "o n", "an d", "Ġ and", "in g", "Ġ a", "l l"]
    return [*alphabet, *(merge.replace(" ", "") for merge in merges), *SPECIAL], merges
