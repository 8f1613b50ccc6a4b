"""Metadata of real files, as public loader logs show it, and small files that are made of it: facts only, no weights.

A line of LISTS: what the file is called; the keys below general.architecture as `key=value` (a float has a point, an array
brackets); the tokenizer's keys; and how many tensors of each type the log counts (`?` where it does not show them). The logs are in
issues, notes and commits of ggml-org/llama.cpp, ollama, lmstudio-bug-tracker, ik_llama.cpp, LlamaEdge and others.

`small` makes a file of a list: every key as the log has it, but fewer blocks, heads, experts, rows and tokens. What steers the
arithmetic stays: the size of a head, how many heads share keys, RoPE, epsilon, experts of a token, kinds of blocks, the types.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import tiny
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Q
from gguf import GGUFValueType as T
from many_keys import strings

from refmodel.arch import ARCHITECTURES, Keys
from refmodel.arch import nextn as prediction
from refmodel.gguf.metadata import Field, Metadata
from refmodel.gguf.reader import Tensor
from refmodel.gguf.writer import field, write
from refmodel.model.made import random_of

HYBRID = "attention.key_length=256 attention.value_length=256 rope.dimension_count=64 full_attention_interval=4 "
HYBRID += (
    "ssm.conv_kernel=4 ssm.state_size=128 ssm.group_count=16 attention.layer_norm_rms_epsilon=0.000001 rope.freq_base=10000000.0 "
)
SECTIONS = "context_length=262144 rope.dimension_sections=[11,11,10,0] " + HYBRID
QWEN35 = "gpt2 qwen35 add_bos_token=false"
QWEN3 = "context_length=40960 attention.key_length=128 attention.value_length=128 attention.layer_norm_rms_epsilon=0.000001 "
QWEN2 = "gpt2 qwen2 add_bos_token=false"
GEMMA = "attention.layer_norm_rms_epsilon=0.000001 rope.freq_base=1000000.0 "
GEMMA_SPM = "llama default add_bos_token=true add_eos_token=false add_space_prefix=false"
LLAMA = "attention.layer_norm_rms_epsilon=0.00001 "
LLAMA2_SPM = "llama - add_bos_token=true add_eos_token=false"

LISTS: dict[str, tuple[str, str, str, str]] = {  # name -> architecture, keys, tokenizer, types
    "Qwen3.5-9B Q4_K_M": (
        "qwen35",
        SECTIONS + "block_count=32 embedding_length=4096 feed_forward_length=12288 attention.head_count=16 "
        "attention.head_count_kv=4 ssm.time_step_rank=32 ssm.inner_size=4096",
        QWEN35,
        "f32 177, q4_K 204, q5_K 24, q6_K 22",
    ),
    "Qwen3.5-2B": (
        "qwen35",
        SECTIONS + "block_count=24 embedding_length=2048 feed_forward_length=6144 attention.head_count=8 "
        "attention.head_count_kv=2 ssm.time_step_rank=16 ssm.inner_size=2048",
        QWEN35,
        "?",
    ),
    "Qwen3.5-0.8B": (
        "qwen35",
        SECTIONS + "block_count=24 embedding_length=1024 feed_forward_length=3584 attention.head_count=8 "
        "attention.head_count_kv=2 ssm.time_step_rank=16 ssm.inner_size=2048",
        QWEN35,
        "?",
    ),
    "Qwen3.6-27B with its prediction block": (
        "qwen35",
        SECTIONS + "block_count=65 embedding_length=5120 feed_forward_length=17408 attention.head_count=24 "
        "attention.head_count_kv=4 ssm.time_step_rank=48 ssm.inner_size=6144 nextn_predict_layers=1",
        QWEN35,
        "?",
    ),
    "Qwen3.5-27B": (
        "qwen35",
        SECTIONS + "block_count=64 embedding_length=5120 feed_forward_length=17408 attention.head_count=24 "
        "attention.head_count_kv=4 ssm.time_step_rank=48 ssm.inner_size=6144",
        QWEN35,
        "?",
    ),
    "qwen3.5:0.8b, exported by Ollama": (
        "qwen35",
        "context_length=262144 rope.dimension_sections=[11,11,10] mrope_sections=[11,11,10] image_token_id=248056 "
        + HYBRID
        + "block_count=24 embedding_length=1024 feed_forward_length=3584 attention.head_count=8 "
        "attention.head_count_kv=[0,0,0,2,0,0,0,2,0,0,0,2,0,0,0,2,0,0,0,2,0,0,0,2] ssm.time_step_rank=16 ssm.inner_size=2048",
        QWEN35,
        "?",
    ),
    "Qwen3.5-35B-A3B UD-Q4_K_M": (
        "qwen35moe",
        SECTIONS + "block_count=40 embedding_length=2048 attention.head_count=16 attention.head_count_kv=2 ssm.time_step_rank=32 "
        "ssm.inner_size=4096 expert_count=256 expert_used_count=8 expert_feed_forward_length=512 "
        "expert_shared_feed_forward_length=512",
        QWEN35,
        "f32 301, q8_0 312, q4_K 78, q5_K 41, q6_K 1",
    ),
    "Qwen3-Next-80B-A3B": (
        "qwen3next",
        "context_length=262144 " + HYBRID + "block_count=48 embedding_length=2048 feed_forward_length=5120 attention.head_count=16 "
        "attention.head_count_kv=2 ssm.time_step_rank=32 ssm.inner_size=4096 expert_count=512 expert_used_count=10 "
        "expert_feed_forward_length=512 expert_shared_feed_forward_length=512",
        QWEN2,
        "?",
    ),
    "Qwen3-0.6B Q8_0": (
        "qwen3",
        QWEN3 + "block_count=28 embedding_length=1024 feed_forward_length=3072 attention.head_count=16 attention.head_count_kv=8 "
        "rope.freq_base=1000000.0",
        QWEN2,
        "f32 113, q8_0 197",
    ),
    "Qwen3-30B-A3B": (
        "qwen3moe",
        QWEN3 + "block_count=48 embedding_length=2048 feed_forward_length=6144 attention.head_count=32 attention.head_count_kv=4 "
        "rope.freq_base=1000000.0 expert_count=128 expert_used_count=8 expert_feed_forward_length=768",
        QWEN2,
        "?",
    ),
    "Qwen3-235B-A22B": (
        "qwen3moe",
        QWEN3 + "block_count=94 embedding_length=4096 feed_forward_length=12288 attention.head_count=64 attention.head_count_kv=4 "
        "rope.freq_base=1000000.0 expert_count=128 expert_used_count=8 expert_feed_forward_length=1536",
        QWEN2,
        "?",
    ),
    "Qwen3-Coder-480B-A35B BF16": (
        "qwen3moe",
        QWEN3.replace("40960", "262144") + "block_count=62 embedding_length=6144 feed_forward_length=8192 attention.head_count=96 "
        "attention.head_count_kv=8 rope.freq_base=10000000.0 expert_count=160 expert_used_count=8 "
        "expert_feed_forward_length=2560 expert_shared_feed_forward_length=0",
        QWEN2,
        "f32 311, bf16 436",
    ),
    "Qwen2.5-1.5B Q5_K_M": (
        "qwen2",
        "context_length=32768 block_count=28 embedding_length=1536 feed_forward_length=8960 attention.head_count=12 "
        "attention.head_count_kv=2 rope.freq_base=1000000.0 attention.layer_norm_rms_epsilon=0.000001",
        QWEN2,
        "f32 141, q5_K 169, q6_K 29",
    ),
    "Gemma 3 270M F16": (
        "gemma3",
        GEMMA + "context_length=32768 embedding_length=640 block_count=18 feed_forward_length=2048 attention.head_count=4 "
        "attention.key_length=256 attention.value_length=256 attention.sliding_window=512 attention.head_count_kv=1",
        GEMMA_SPM,
        "?",
    ),
    "Gemma 3 1B Q4_K_M": (
        "gemma3",
        GEMMA + "context_length=32768 embedding_length=1152 block_count=26 feed_forward_length=6912 attention.head_count=4 "
        "attention.key_length=256 attention.value_length=256 attention.sliding_window=512 attention.head_count_kv=1",
        GEMMA_SPM,
        "f32 157, q5_0 117, q8_0 14, q4_K 39, q6_K 13",
    ),
    "Gemma 3 4B": (
        "gemma3",
        GEMMA + "context_length=131072 embedding_length=2560 block_count=34 feed_forward_length=10240 attention.head_count=8 "
        "attention.key_length=256 attention.value_length=256 attention.sliding_window=1024 attention.head_count_kv=4 "
        "rope.scaling.type=linear rope.scaling.factor=8.0",
        GEMMA_SPM,
        "?",
    ),
    "Gemma 3 27B": (
        "gemma3",
        GEMMA + "context_length=131072 embedding_length=5376 block_count=62 feed_forward_length=21504 attention.head_count=32 "
        "attention.key_length=128 attention.value_length=128 attention.sliding_window=1024 attention.head_count_kv=16 "
        "rope.scaling.type=linear rope.scaling.factor=8.0",
        GEMMA_SPM,
        "?",
    ),
    "Llama 3 8B Q8_0": (
        "llama",
        LLAMA + "block_count=32 context_length=8192 embedding_length=4096 feed_forward_length=14336 attention.head_count=32 "
        "attention.head_count_kv=8 rope.freq_base=500000.0 vocab_size=128256 rope.dimension_count=128",
        "gpt2 llama-bpe",
        "?",
    ),
    "Llama 3.1 8B Q4_K_M": (
        "llama",
        LLAMA + "block_count=32 context_length=131072 embedding_length=4096 feed_forward_length=14336 attention.head_count=32 "
        "attention.head_count_kv=8 rope.freq_base=500000.0 vocab_size=128256 rope.dimension_count=128",
        "gpt2 llama-bpe",
        "rope_freqs, f32 66, q4_K 193, q6_K 33",
    ),
    "Llama 3.2 1B Q8_0": (
        "llama",
        LLAMA + "block_count=16 context_length=131072 embedding_length=2048 feed_forward_length=8192 attention.head_count=32 "
        "attention.head_count_kv=8 rope.freq_base=500000.0 attention.key_length=64 attention.value_length=64 vocab_size=128256 "
        "rope.dimension_count=64",
        "gpt2 llama-bpe",
        "rope_freqs, tied, ?",
    ),
    "TinyLlama 1.1B Q4_0": (
        "llama",
        LLAMA + "context_length=2048 embedding_length=2048 block_count=22 feed_forward_length=5632 rope.dimension_count=64 "
        "attention.head_count=32 attention.head_count_kv=4 rope.freq_base=10000.0",
        LLAMA2_SPM,
        "f32 45, q4_0 155, q6_K 1",
    ),
    "CodeLlama 7B Q8_0": (
        "llama",
        LLAMA + "context_length=16384 embedding_length=4096 block_count=32 feed_forward_length=11008 rope.dimension_count=128 "
        "attention.head_count=32 attention.head_count_kv=32 rope.freq_base=1000000.0",
        LLAMA2_SPM,
        "?",
    ),
    "GritLM (Mistral 7B) Q4_1": (
        "llama",
        LLAMA + "context_length=32768 embedding_length=4096 block_count=32 feed_forward_length=14336 rope.dimension_count=128 "
        "attention.head_count=32 attention.head_count_kv=8 rope.freq_base=10000.0",
        LLAMA2_SPM,
        "f32 65, q4_1 225, q6_K 1",
    ),
    "Mistral Small 24B": (
        "llama",
        LLAMA + "context_length=32768 embedding_length=5120 block_count=40 feed_forward_length=32768 attention.head_count=32 "
        "attention.head_count_kv=8 rope.freq_base=100000000.0 attention.key_length=128 attention.value_length=128 "
        "vocab_size=131072 rope.dimension_count=128",
        "gpt2 tekken add_bos_token=true",
        "?",
    ),
    "SmolLM2 1.7B Q4_K_M": (
        "llama",
        LLAMA + "block_count=24 context_length=8192 embedding_length=2048 feed_forward_length=8192 attention.head_count=32 "
        "attention.head_count_kv=32 rope.freq_base=130000.0 vocab_size=49152 rope.dimension_count=64",
        "gpt2 smollm add_space_prefix=false add_bos_token=false",
        "tied, f32 49, q4_K 144, q6_K 25",
    ),
    "Devstral Small 2 24B BF16": (
        "mistral3",
        LLAMA + "block_count=40 context_length=393216 embedding_length=5120 feed_forward_length=32768 attention.head_count=32 "
        "attention.head_count_kv=8 rope.freq_base=100000000.0 attention.key_length=128 attention.value_length=128 "
        "rope.dimension_count=128 rope.scaling.type=yarn rope.scaling.factor=48.0 rope.scaling.yarn_beta_fast=32.0 "
        "rope.scaling.yarn_beta_slow=1.0 rope.scaling.yarn_log_multiplier=1.0 rope.scaling.original_context_length=8192 "
        "attention.temperature_scale=0.1 vocab_size=131072",
        "gpt2 tekken add_bos_token=true add_eos_token=false",
        "f32 81, bf16 282",
    ),
    "LFM2.5 Audio 1.5B Q4_0, its language model": (
        "lfm2",
        LLAMA + "block_count=16 context_length=128000 embedding_length=2048 feed_forward_length=8192 attention.head_count=32 "
        "attention.head_count_kv=[0,0,8,0,0,8,0,0,8,0,8,0,8,0,8,0] rope.freq_base=1000000.0 vocab_size=65536 shortconv.l_cache=3",
        "gpt2 lfm2 add_bos_token=true add_sep_token=false add_eos_token=false",
        "tied, f32 55, q4_0 92, q6_K 1",
    ),
    "Mixtral 8x22B Q4_0": (
        "llama",
        LLAMA + "vocab_size=32000 context_length=32768 embedding_length=6144 block_count=56 feed_forward_length=16384 "
        "rope.dimension_count=128 attention.head_count=48 attention.head_count_kv=8 expert_count=8 expert_used_count=2 "
        "rope.freq_base=1000000.0",
        LLAMA2_SPM,
        "?",
    ),
}  # fmt: skip
SPECIAL = {"llama": ["<unk>", "<s>", "</s>"], "gpt2": tiny.SPECIAL}


def value(text: str) -> int | float | str | list[int]:
    if text.startswith("["):
        return [int(x) for x in text[1:-1].split(",")]
    if re.fullmatch(r"\d+", text):
        return int(text)
    return float(text) if re.fullmatch(r"[\d.]+", text) else text


def as_field(of: Any) -> Field:
    if isinstance(of, list):
        return field(T.ARRAY, of, T.UINT32 if 0 in of[:1] else T.INT32)
    kinds = {bool: T.BOOL, int: T.UINT32, float: T.FLOAT32, str: T.STRING}
    return field(kinds[type(of)], of)


@dataclass(frozen=True)
class Small:
    """The sizes of the small file, from those of the list."""

    arch: str
    keys: Mapping[str, Any]

    def sizes(self) -> dict[str, Any]:
        """The keys of the log, with fewer of everything that may be many."""
        k, hybrid = dict(self.keys), "ssm.state_size" in self.keys or "shortconv.l_cache" in self.keys
        heads, kv = k["attention.head_count"], k["attention.head_count_kv"]
        kv = max(kv) if isinstance(kv, list) else kv
        by_count = self.arch == "gemma3" and k["block_count"] == 62  # whose scale is another: more heads, so that rows fill blocks
        few = max(1, 2 if heads == kv or by_count else 1)
        H, G = few * heads // kv, few
        blocks = 62 if by_count else 6 if self.arch == "gemma3" else 4 + k.get("nextn_predict_layers", 0) if hybrid else 2
        E = k["embedding_length"] // heads * H if by_count or self.arch == "lfm2" or "attention.key_length" not in k else 256
        listed = (
            [G if n else 0 for n in k["attention.head_count_kv"][:blocks]] if isinstance(k["attention.head_count_kv"], list) else G
        )
        k |= {"block_count": blocks, "embedding_length": E, "attention.head_count": H, "attention.head_count_kv": listed}
        k |= {name: 256 for name in k if name.endswith("feed_forward_length") and k[name]}
        if "expert_count" in k:
            k["expert_count"] = min(k["expert_count"], 2 * k["expert_used_count"] + 4)
        if "ssm.state_size" in k:
            common = gcd(k["ssm.time_step_rank"], k["ssm.group_count"])
            per_head = k["ssm.time_step_rank"] // common
            k |= {"ssm.group_count": 2, "ssm.time_step_rank": 2 * per_head, "ssm.inner_size": 2 * per_head * k["ssm.state_size"]}
        if "attention.sliding_window" in k:
            k["attention.sliding_window"] = 8
        return k | ({"vocab_size": 271} if "vocab_size" in k else {})


def vocabulary(words: str) -> dict[str, Field]:
    """271 tokens of the list's kind of tokenizer, with its flags."""
    model, pre, *flags = words.split()
    tokens, merges = tiny.vocabulary()
    out = {"model": field(T.STRING, model)} | ({"pre": field(T.STRING, pre)} if pre != "-" else {})
    if model == "llama":
        tokens = [*SPECIAL["llama"], *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁t", "he", "▁the", "an", "▁a", "in", "er"]
        tokens += ["x" * n for n in range(2, 6)]
        kinds = [2, 3, 3, *[6] * 256, *[1] * 12]
        out |= {"scores": field(T.ARRAY, [0.0] * 259 + [-float(i) for i in range(12)], T.FLOAT32)}
    else:
        kinds = [1] * 268 + [3] * 3
        out |= {"merges": strings(merges)}
    out |= {"tokens": strings(tokens), "token_type": field(T.ARRAY, kinds, T.INT32)}
    ids = {"bos": 1, "eos": 2, "unknown": 0} if model == "llama" else {"eos": 270, "padding": 268}
    out |= {f"{name}_token_id": field(T.UINT32, i) for name, i in ids.items()}
    out |= {name: field(T.BOOL, flag == "true") for name, flag in (text.split("=") for text in flags)}
    return {f"tokenizer.ggml.{key}": one for key, one in out.items()}


def types_of(counts: str) -> list[Q]:
    """The types of matrices that the log counts, the most frequent first; F16 where it does not show them."""
    found = {name.upper(): int(n) for name, n in re.findall(r"(\w+) (\d+)", counts) if name != "f32"}
    return [Q[name] for name in sorted(found, key=lambda name: -found[name])] or [Q.F16]


def small(name: str, path: Path) -> Path:
    """Write the small file of a list; returns its path."""
    arch, words, tokenizer, counts = LISTS[name]
    keys = Small(arch, {key: value(text) for key, text in (word.split("=") for word in words.split())}).sizes()
    fields = {"general.architecture": field(T.STRING, arch), "general.name": field(T.STRING, name)}
    fields |= {f"{arch}.{key}": as_field(of) for key, of in keys.items()} | vocabulary(tokenizer)
    exported = "Ollama" in name
    module, plain = ARCHITECTURES[arch], dict(fields)
    if exported:
        plain[f"{arch}.attention.head_count_kv"] = field(T.UINT32, max(keys["attention.head_count_kv"]))
        plain[f"{arch}.rope.dimension_sections"] = field(T.ARRAY, [11, 11, 10, 0], T.INT32)
    hp = module.hparams(Keys(Metadata(path, plain), arch, largest=1 << 32))
    required, optional = module.globals(hp, 271)
    shapes = required | ({} if "tied" in counts else {"output.weight": optional["output.weight"]})
    shapes |= {"rope_freqs.weight": optional["rope_freqs.weight"]} if "rope_freqs" in counts else {}
    for i in range(hp.n_all):
        shapes |= {f"blk.{i}.{tensor}": shape for tensor, shape in module.shapes(hp, i).items()}
        shapes |= {f"blk.{i}.{tensor}": shape for tensor, shape in prediction.shapes(hp, 271)[0].items() if i >= hp.n_layer}
    if arch == "qwen2":
        shapes |= {f"{tensor[:-6]}bias": shape[:1] for tensor, shape in shapes.items() if re.search(r"attn_[qkv]\.weight", tensor)}
    if exported:
        shapes = {tensor.replace("ssm_dt.bias", "ssm_dt"): shape for tensor, shape in shapes.items()}
        shapes |= {"v.patch_embed.weight": (4, 8), "mtp.fc.weight": (4, 8)}
    return write(path, fields, [tensor_of(one, shape, types_of(counts), i, path) for i, (one, shape) in enumerate(shapes.items())])


def tensor_of(name: str, shape: tuple[int, ...], types: list[Q], number: int, path: Path) -> Tensor:
    """A random tensor; matrices take the list's types in turn, those that fit their rows, or Q8_0, or F16."""
    shape, kind = shape[len(shape) > 1 and shape[0] == 1 :], Q.F32  # a single row is a vector
    if len(shape) > 1 and not name.endswith(tiny.FLOATS) and "ffn_gate_inp" not in name:
        fitting = [one for one in types if shape[-1] % GGML_QUANT_SIZES[one][0] == 0]
        kind = fitting[number % len(fitting)] if fitting else Q.Q8_0 if shape[-1] % 32 == 0 else Q.F16
    data = random_of(name, kind, shape)
    if name == "rope_freqs.weight":
        data = (1.5 + abs(data.view("<f4"))).astype("<f4").view("u1")
    return Tensor(name, kind, shape, path, data)
