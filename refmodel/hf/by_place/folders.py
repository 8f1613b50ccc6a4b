"""Facts that hang on a layer's place in a Hugging Face folder, by model_type: as transformers 5.23.0's classes derive them.

Source: the configuration_*.py and modeling_*.py of that release; tests/test_live_places.py holds each row against them.
Model types that are refused, and those whose layers are alike, are in model_types.py.
"""

from typing import Any

from .rules import (  # fmt: skip
    CHUNKED,
    DENSE,
    FULL,
    LINEAR,
    SLIDING,
    SPARSE,
    Fact,
    Home,
    Rule,
    alike,
    cycle,
    every,
    lead,
    leading,
    listed,
    number,
    numbers,
    sparse_steps,
    unsaid,
    windowed_from,
)

KINDS, MLP = "layer_types", "mlp_layer_types"


def kinds(rule: Rule, *keys: str) -> Fact:
    """The fact layer_types: the list, or what the rule makes; further keys that the rule reads."""
    return listed(KINDS, rule, *keys)


def full_or_linear(period: int) -> Fact:
    """Every period-th layer has full attention, the others linear; full_attention_interval may name another period."""
    return kinds(every(period, "full_attention_interval", miss=LINEAR), "full_attention_interval")


def olmo_hybrid(home: Home, n: int) -> list[Any]:
    """Every fourth layer has full attention, and the last one if none has."""
    found = every(4, miss=LINEAR)(home, n)
    return found if FULL in found else [*found[:-1], FULL]


def ministral(home: Home, n: int) -> list[Any]:
    """All layers slide, unless there is no window."""
    return [SLIDING if home.get("sliding_window", 4096) is not None else FULL] * n


def lfm2(home: Home, n: int) -> list[Any]:
    """Layers in full_attn_idxs have attention; all, if there is no such list."""
    some = home.get("full_attn_idxs")
    return [FULL if some is None or i in some else "conv" for i in range(n)]


def qwen2_moe(home: Home, n: int) -> list[Any]:
    """Every second of the first max_window_layers slides, if use_sliding_window says so."""
    most = number(home, "max_window_layers", 28, least=0)
    return [SLIDING if (i + 1) % 2 and i < most and home.get("use_sliding_window") else FULL for i in range(n)]


def smollm3(home: Home, n: int) -> list[Any]:
    """Layers that do not rotate slide, if a window is set."""
    slides = home.get("use_sliding_window") and home.get("sliding_window") is not None
    return [SLIDING if slides and not rotates else FULL for rotates in NO_ROPE.read(home, n)]


def cohere2_moe(home: Home, n: int) -> list[Any]:
    """The dense layers and those after them, each with its own pattern of windows."""
    dense = number(home, "first_k_dense_replace", 0, least=0)
    first = every(1, "prefix_dense_sliding_window_pattern")(home, dense)
    return first + every(4, "sliding_window_pattern")(home, n - dense)


def ernie_experts(home: Home, n: int) -> list[Any]:
    """Every moe_layer_interval-th layer from a first to a last one has experts."""
    step = number(home, "moe_layer_interval", 1)
    first, last = number(home, "moe_layer_start_index", 1, least=0), number(home, "moe_layer_end_index", -1, least=-1)
    last = n - 1 if last == -1 else last
    return [SPARSE if (i + 1) % step == 0 and first <= i <= last else DENSE for i in range(n)]


def by_offset(what: str, period: int, offset: int, hit: str, miss: str) -> Rule:
    """A rule: layers with number % period == offset are `hit`; the config's {what}_layer_period and _offset come first."""

    def rule(home: Home, n: int) -> list[Any]:
        p, o = number(home, f"{what}_layer_period", period), number(home, f"{what}_layer_offset", offset, least=0)
        return [hit if i % p == o else miss for i in range(n)]

    return rule


def axk1(home: Home, n: int) -> list[Any]:
    """After first_k_dense_replace layers, every moe_layer_freq-th has experts."""
    dense, step = number(home, "first_k_dense_replace", 1, least=0), number(home, "moe_layer_freq", 1)
    return [SPARSE if i >= dense and i % step == 0 else DENSE for i in range(n)]


def llama4_kinds(home: Home, n: int) -> list[Any]:
    """Layers that rotate attend in chunks, the others to everything."""
    return [CHUNKED if rotates else FULL for rotates in LLAMA4_NO_ROPE.read(home, n)]


def llama4_experts(home: Home, n: int) -> range:
    """The numbers of the layers with experts: every interleave_moe_layer_step-th."""
    step = number(home, "interleave_moe_layer_step", 1)
    return range(step - 1, n, step)


NO_ROPE = listed("no_rope_layers", every(4, "no_rope_layer_interval", miss=1, hit=0), "no_rope_layer_interval")
LLAMA4_NO_ROPE = Fact(  # an empty list counts for none
    NO_ROPE.name, lambda home, n: NO_ROPE.read({k: v for k, v in home.items() if v != []}, n), NO_ROPE.write, NO_ROPE.keys
)
PATTERN = "sliding_window_pattern"
WINDOW = ("max_window_layers",)
GLM_MLP = listed(MLP, lead("first_k_dense_replace", 1), "first_k_dense_replace")
GEMMA4 = listed(KINDS, every(6), last=FULL)

FACTS: dict[str, tuple[Fact, ...]] = {
    "afmoe": (kinds(every(4, "global_attn_every_n_layers"), "global_attn_every_n_layers"), leading("num_dense_layers", 1)),
    "axk1": (listed(MLP, axk1, "first_k_dense_replace", "moe_layer_freq"),),
    "bamba": (numbers("attn_layer_indices", lambda home, n: ()),),
    "cohere2": (kinds(every(4, PATTERN), PATTERN),),
    "cohere2_moe": (
        kinds(cohere2_moe, PATTERN, "prefix_dense_sliding_window_pattern"),
        listed(MLP, lead("first_k_dense_replace", 0), "first_k_dense_replace"),
    ),
    "cohere_compass_text": (kinds(alike(FULL)),),
    "cwm": (kinds(every(4, first=True)),),
    "deepseek_v2": (leading("first_k_dense_replace", 0),),
    "deepseek_v3": (leading("first_k_dense_replace", 3),),
    "dots1": (kinds(windowed_from(62, switch=False), *WINDOW), leading("first_k_dense_replace", 0)),
    "ernie4_5_moe": (unsaid("moe_layer_interval", ernie_experts, "moe_layer_start_index", "moe_layer_end_index"),),
    "deepseek_v32": (kinds(alike("indexed_attention")), listed(MLP, lead("first_k_dense_replace", 3), "first_k_dense_replace")),
    "exaone4": (kinds(every(4, PATTERN), PATTERN),),
    "exaone_moe": (kinds(every(4, PATTERN), PATTERN), GLM_MLP),
    "gemma2": (kinds(every(2)),),
    "gemma3_text": (kinds(every(6, PATTERN), PATTERN),),
    "gemma4_text": (GEMMA4,),
    "glm4_moe": (leading("first_k_dense_replace", 1),),
    "glm4v_moe_text": (leading("first_k_dense_replace", 1),),
    "glm4_moe_lite": (listed(MLP, lead("", 1)),),
    "gpt_oss": (kinds(every(2)),),
    "granite_swa": (kinds(every(4, first=True)),),
    "granitemoe_swa": (kinds(every(4, first=True)),),
    "granitemoehybrid": (kinds(alike(LINEAR)),),
    "hy_v3": (listed(MLP, lead("", 1)),),
    "jamba": (
        unsaid("attn_layer_period", by_offset("attn", 8, 4, "attention", "mamba"), "attn_layer_offset"),
        unsaid("expert_layer_period", by_offset("expert", 2, 1, SPARSE, DENSE), "expert_layer_offset"),
    ),
    "kolibri1": (kinds(every(5)),),
    "laguna": (kinds(alike(FULL)), listed(MLP, lead("", 1))),
    "lfm2": (kinds(lfm2, "full_attn_idxs"),),
    "lfm2_moe": (leading("num_dense_layers", 2),),
    "llama4_text": (
        LLAMA4_NO_ROPE,
        numbers("moe_layers", llama4_experts, "interleave_moe_layer_step"),
        kinds(llama4_kinds),
    ),
    "mellum": (kinds(alike(FULL)), listed(MLP, alike(SPARSE))),
    "mimo_v2_flash": (
        kinds(lambda home, n: [FULL if i == 0 or (i + 1) % 6 == 0 else SLIDING for i in range(n)]),
        listed(MLP, lead("", 1)),
    ),
    "ministral": (kinds(ministral),),
    "mistral4": (leading("first_k_dense_replace", 0),),
    "olmo3": (kinds(every(4)),),
    "olmo_hybrid": (kinds(olmo_hybrid),),
    "qwen2": (kinds(windowed_from(28), *WINDOW),),
    "qwen2_5_omni_text": (kinds(windowed_from(28, 32768), *WINDOW),),
    "qwen2_5_vl_text": (kinds(windowed_from(80), *WINDOW),),
    "qwen2_moe": (kinds(qwen2_moe, *WINDOW), sparse_steps()),
    "qwen2_vl_text": (kinds(windowed_from(80), *WINDOW),),
    "qwen3": (kinds(windowed_from(28), *WINDOW),),
    "qwen3_5_moe_text": (full_or_linear(4),),
    "qwen3_5_text": (full_or_linear(4),),
    "qwen3_moe": (sparse_steps(),),
    "qwen3_next": (full_or_linear(4), sparse_steps()),
    "qwen3_omni_moe_text": (sparse_steps(),),
    "qwen3_vl_moe_text": (sparse_steps(),),
    "recurrent_gemma": (cycle("block_types", ("recurrent", "recurrent", "attention")),),
    "smollm3": (NO_ROPE, kinds(smollm3)),
    "vaultgemma": (kinds(every(2)),),
}
