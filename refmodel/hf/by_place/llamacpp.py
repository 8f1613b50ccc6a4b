"""Facts that hang on a block's place, or on the number of blocks, in llama.cpp: in a GGUF, and in one that its converter makes.

Source: 0c1e570's src/models/*.cpp, llama-model.cpp load_swa_pattern, conversion/*.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .rules import CHUNKED, FULL, Rule, every

# Numbers below general.architecture from which llama.cpp works out what a block is by its place; a route would make them lie.
NUMBERS = {
    "attention.shared_kv_layers",
    "attention.sliding_window_pattern",
    "interleave_moe_layer_step",
    "leading_dense_block_count",
    "moe_every_n_layers",
    "n_layer_kv_from_start",
}


@dataclass(frozen=True)
class Counted:
    """What llama.cpp computes differently for certain numbers of blocks.

    least, most  the numbers of blocks, both included
    what         what differs then
    """

    least: int
    most: int
    what: str

    def __contains__(self, blocks: int) -> bool:
        return self.least <= blocks <= self.most


MANY = 1 << 31
SCALE = "queries are scaled by (embedding length / heads)^-0.5 instead of (head dimension)^-0.5, as in the 27B"

# By general.architecture.
COUNTED: dict[str, Counted] = {
    "baichuan": Counted(40, 40, "ALiBi takes the place of RoPE, as in the 13B"),
    "command-r": Counted(64, MANY, "queries and keys are normed"),
    "deepseek2": Counted(26, 27, "queries are not compressed, as in the Lite models"),
    "exaone4": Counted(64, 64, "three of four blocks see a window of 4096 tokens, as in the 32B"),
    "gemma2": Counted(46, 46, SCALE),
    "gemma3": Counted(62, 62, SCALE),
    "llama4": Counted(48, 48, "with 128 experts queries and keys are not normed"),
}

SCALED = {"gemma2", "gemma3"}  # where nothing changes if both scales are the same number


def miscounted(arch: str, before: int, after: int, widths: tuple[int, int] = (0, 1)) -> str:
    """What llama.cpp computes differently in a copy because its number of blocks is another one; empty if nothing is.

    before, after  numbers of blocks of the source and the copy
    widths         embedding length / heads, and head dimension
    """
    fact = COUNTED.get(arch)
    if fact is None or (before in fact) == (after in fact) or (arch in SCALED and widths[0] == widths[1]):
        return ""
    number = f"{fact.least} blocks" if fact.least == fact.most else f"{fact.least} to {fact.most} blocks"
    number = f"{fact.least} blocks and more" if fact.most == MANY else number
    lost = f"the source has {before}, the copy would have {after}"
    return f"llama.cpp knows by {number} only that {fact.what}; {lost} and would {'lose' if before in fact else 'get'} that"


@dataclass(frozen=True)
class Converted:
    """What convert_hf_to_gguf.py keeps of a folder's layer_types or no_rope_layers.

    arch   general.architecture of the file that it writes
    rule   by which llama.cpp then derives the kinds, because the file does not list them; None: it lists them
    """

    arch: str
    rule: Rule | None = None


# By model_type.
CONVERTED: dict[str, Converted] = {
    "afmoe": Converted("afmoe", every(4)),
    "cohere2": Converted("cohere2", every(4)),
    "exaone4": Converted("exaone4"),
    "exaone_moe": Converted("exaone-moe"),
    "gemma2": Converted("gemma2", every(2)),
    "gemma3_text": Converted("gemma3", every(6)),
    "gpt_oss": Converted("gpt-oss", every(2)),
    "lfm2": Converted("lfm2"),
    "llama4_text": Converted("llama4", every(4, miss=CHUNKED)),
    "mellum": Converted("mellum"),
    "olmo3": Converted("olmo2"),
    "qwen2": Converted("qwen2", lambda home, n: [FULL] * n),
    "qwen3": Converted("qwen3", lambda home, n: [FULL] * n),
    "qwen3_5_moe_text": Converted("qwen35moe"),
    "qwen3_5_text": Converted("qwen35"),
    "qwen3_next": Converted("qwen3next"),
    "smollm3": Converted("smollm3", every(4, miss=1, hit=0)),
}


def conversion(model_type: str, kinds: Sequence[Any], layers: tuple[int, int], widths: tuple[int, int]) -> tuple[bool, str] | None:
    """Whether a GGUF that the converter makes of a copy computes the same, and why; None if that is not known.

    kinds   of the copy's layers, or whether they rotate
    layers  how many the source has, and the copy
    widths  embedding length / heads, and head dimension
    """
    how = CONVERTED.get(model_type)
    if how is None:
        return None
    if lost := miscounted(how.arch, *layers, widths):
        return False, lost
    if how.rule is None:
        return True, "convert_hf_to_gguf.py lists the kinds of layers"
    by_place = how.rule({}, len(kinds))
    wrong = next((i for i, (found, right) in enumerate(zip(by_place, kinds, strict=True)) if found != right), None)
    if wrong is None:
        return True, "convert_hf_to_gguf.py drops the kinds; those that llama.cpp takes by place are the same"
    taken = f"by its place llama.cpp takes layer {wrong} for {by_place[wrong]!r}, not {kinds[wrong]!r}"
    return False, f"convert_hf_to_gguf.py drops the kinds; {taken}"
