"""transformers' classes: the architecture that each is in llama.cpp, its tensors one by one, and the keys that it says.

A table of two other programs. Source: transformers 5.23.0's models/*/; llama.cpp conversion/*.py and gguf-py's tensor_mapping.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from . import keys, orders, ropes
from .beyond import Beyond, delta, every_layer, every_layer_if_asked, gemma, gemma_with_vision, listed_layers, nothing
from .orders import Change, Order
from .settings import Says, only


@dataclass(frozen=True)
class Move:
    """How a tensor of llama.cpp is made of one of transformers'.

    source   its name in a layer; {x} is for the number of an expert
    rows     the order of its rows; None for all as they are
    columns  the order of its columns
    change   what is made of each number
    half     of a matrix with gates and ups one after the other, the half that it is, 0 or 1
    """

    source: str
    rows: Order | None = None
    columns: Order | None = None
    change: Change | None = None
    half: int | None = None


Moves = Mapping[str, tuple[Move, ...]]
"""Tensor of llama.cpp, without `blk.N.` -> the ways to make it; the first whose source is there."""


def renamed(names: Mapping[str, str], rows: Order | None = None) -> dict[str, tuple[Move, ...]]:
    """Matrices that only have another name or another order of rows, with their biases."""
    ends = ("weight", "bias")
    return {f"{ours}.{end}": (Move(f"{theirs}.{end}", rows=rows),) for ours, theirs in names.items() for end in ends}


def norms(names: Mapping[str, str], change: Change | None = None) -> dict[str, tuple[Move, ...]]:
    """Weights of norms."""
    return {f"{ours}.weight": (Move(f"{theirs}.weight", change=change),) for ours, theirs in names.items()}


BEFORE = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
BEFORE_BOTH = {"attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm"}
OF_HEADS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
REST = {"attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj"}
QK = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj"}
DENSE = renamed({"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"})
ATTENTION = renamed(QK | REST)
NEIGHBOURS = {
    **renamed({"attn_q": QK["attn_q"]}, orders.QUERIES),
    **renamed({"attn_k": QK["attn_k"]}, orders.KEYS),
    **renamed(REST),
}
EXPERTS: Moves = {
    "ffn_gate_inp.weight": (Move("mlp.gate.weight"),),
    "ffn_gate_exps.weight": (Move("mlp.experts.{x}.gate_proj.weight"), Move("mlp.experts.gate_up_proj", half=0)),
    "ffn_up_exps.weight": (Move("mlp.experts.{x}.up_proj.weight"), Move("mlp.experts.gate_up_proj", half=1)),
    "ffn_down_exps.weight": (Move("mlp.experts.{x}.down_proj.weight"), Move("mlp.experts.down_proj")),
}
SHARED: Moves = {
    "ffn_gate_inp_shexp.weight": (Move("mlp.shared_expert_gate.weight"),),
    "ffn_gate_shexp.weight": (Move("mlp.shared_expert.gate_proj.weight"),),
    "ffn_up_shexp.weight": (Move("mlp.shared_expert.up_proj.weight"),),
    "ffn_down_shexp.weight": (Move("mlp.shared_expert.down_proj.weight"),),
}
DELTA_NEXT: Moves = {
    "attn_qkv.weight": (Move("linear_attn.in_proj_qkvz.weight", rows=orders.QKV_TOGETHER),),
    "attn_gate.weight": (Move("linear_attn.in_proj_qkvz.weight", rows=orders.GATES_TOGETHER),),
    "ssm_ba.weight": (Move("linear_attn.in_proj_ba.weight"),),
    "ssm_conv1d.weight": (Move("linear_attn.conv1d.weight"),),
    "ssm_a": (Move("linear_attn.A_log", change=orders.DECAY),),
    "ssm_dt.bias": (Move("linear_attn.dt_bias"),),
    "ssm_norm.weight": (Move("linear_attn.norm.weight"),),
    "ssm_out.weight": (Move("linear_attn.out_proj.weight"),),
}
DELTA_35: Moves = {
    "attn_qkv.weight": (Move("linear_attn.in_proj_qkv.weight", rows=orders.QKV_TILED),),
    "attn_gate.weight": (Move("linear_attn.in_proj_z.weight", rows=orders.TILED),),
    "ssm_beta.weight": (Move("linear_attn.in_proj_b.weight", rows=orders.TILED),),
    "ssm_alpha.weight": (Move("linear_attn.in_proj_a.weight", rows=orders.TILED),),
    "ssm_conv1d.weight": (Move("linear_attn.conv1d.weight", rows=orders.QKV_TILED),),
    "ssm_a": (Move("linear_attn.A_log", rows=orders.TILED, change=orders.DECAY),),
    "ssm_dt.bias": (Move("linear_attn.dt_bias", rows=orders.TILED),),
    "ssm_norm.weight": (Move("linear_attn.norm.weight"),),
    "ssm_out.weight": (Move("linear_attn.out_proj.weight", columns=orders.TILED),),
}
GEMMA_NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
SHORT_CONVOLUTION: Moves = {
    "shortconv.in_proj.weight": (Move("conv.in_proj.weight"),),
    "shortconv.conv.weight": (Move("conv.conv.weight"),),
    "shortconv.out_proj.weight": (Move("conv.out_proj.weight"),),
}
LFM2_NORMS = {
    "attn_norm": "operator_norm",
    "ffn_norm": "ffn_norm",
    "attn_q_norm": "self_attn.q_layernorm",
    "attn_k_norm": "self_attn.k_layernorm",
}
LFM2_NAMES = {
    "attn_output": "self_attn.out_proj",
    "ffn_gate": "feed_forward.w1",
    "ffn_up": "feed_forward.w3",
    "ffn_down": "feed_forward.w2",
}
HYBRID = norms(BEFORE_BOTH | OF_HEADS, orders.ONE_MORE) | ATTENTION
PREDICTS: Moves = {  # what the first prediction layer has besides, by its name after `mtp.`
    "nextn.eh_proj.weight": (Move("fc.weight"),),
    **norms(
        {
            "nextn.enorm": "pre_fc_norm_embedding",
            "nextn.hnorm": "pre_fc_norm_hidden",
            "nextn.shared_head_norm": "norm",
        },
        orders.ONE_MORE,
    ),
}


@dataclass(frozen=True)
class Class:
    """One class of transformers.

    arch     general.architecture of its GGUF
    layer    the tensors of a block
    says     the parts of the metadata, besides those that every class has
    beyond   what no key says
    change   what is made of the weight of the last norm
    last     its name
    predicts whether its folders may have prediction layers (MTP)
    """

    arch: str
    layer: Moves
    says: tuple[Says, ...] = ()
    beyond: Beyond = nothing
    change: Change | None = None
    last: str = "norm"
    predicts: bool = False


SILU = only(hidden_act=("silu", "swish"))
GELU = only(
    hidden_activation=("gelu_pytorch_tanh",),
    attn_logit_softcapping=(None,),
    use_bidirectional_attention=(False, None),
)
LLAMA = Class("llama", norms(BEFORE) | NEIGHBOURS | DENSE, (SILU, keys.derived_heads))
QWEN2 = Class("qwen2", norms(BEFORE) | ATTENTION | DENSE, (SILU,), listed_layers)
QWEN3 = Class("qwen3", norms(BEFORE | OF_HEADS) | ATTENTION | DENSE, (SILU,), listed_layers)
QWEN3_MOE = Class(
    "qwen3moe",
    {**norms(BEFORE | OF_HEADS), **ATTENTION, **EXPERTS},
    (SILU, keys.experts, keys.normed_shares),
    every_layer_if_asked,
)
GEMMA3 = Class(
    "gemma3",
    norms(GEMMA_NORMS | OF_HEADS, orders.ONE_MORE) | ATTENTION | DENSE,
    (GELU, keys.windows, ropes.local_base),
    gemma,
    orders.ONE_MORE,
)
QWEN3_NEXT = Class(
    "qwen3next",
    {**HYBRID, **DELTA_NEXT, **EXPERTS, **SHARED},
    (SILU, keys.experts, keys.normed_shares, keys.shared_expert, keys.delta_rule),
    delta,
    orders.ONE_MORE,
    predicts=True,
)
QWEN35 = Class(
    "qwen35", {**HYBRID, **DELTA_35, **DENSE}, (SILU, keys.delta_rule, ropes.sections), delta, orders.ONE_MORE, predicts=True
)
QWEN35_MOE = Class(
    "qwen35moe",
    {**HYBRID, **DELTA_35, **EXPERTS, **SHARED},
    (SILU, keys.experts, keys.shared_expert, keys.delta_rule, ropes.sections),
    delta,
    orders.ONE_MORE,
    predicts=True,
)
LFM2 = Class(
    "lfm2",
    {**norms(LFM2_NORMS), **ATTENTION, **renamed(LFM2_NAMES), **SHORT_CONVOLUTION},
    (only(conv_bias=(False,)), keys.short_convolution),
    last="embedding_norm",
)
MINISTRAL3 = Class("mistral3", LLAMA.layer, (SILU, keys.derived_heads, ropes.growth), every_layer)
MISTRAL = replace(LLAMA, beyond=every_layer)

# By the name in `architectures` of a config.json.
CLASSES: dict[str, Class] = {
    "LlamaForCausalLM": LLAMA,
    "LLaMAForCausalLM": LLAMA,
    "MistralForCausalLM": MISTRAL,
    "Ministral3ForCausalLM": MINISTRAL3,
    "Mistral3ForConditionalGeneration": MINISTRAL3,
    "Lfm2ForCausalLM": LFM2,
    "Qwen2ForCausalLM": QWEN2,
    "Qwen3ForCausalLM": QWEN3,
    "Qwen3MoeForCausalLM": QWEN3_MOE,
    "Gemma3ForCausalLM": GEMMA3,
    "Gemma3ForConditionalGeneration": replace(GEMMA3, beyond=gemma_with_vision),
    "Qwen3NextForCausalLM": QWEN3_NEXT,
    "Qwen3_5ForCausalLM": QWEN35,
    "Qwen3_5ForConditionalGeneration": QWEN35,
    "Qwen3_5MoeForCausalLM": QWEN35_MOE,
    "Qwen3_5MoeForConditionalGeneration": QWEN35_MOE,
}
# By `model_type`, as transformers chooses where architectures names none.
MODEL_TYPES = {
    "gemma3": "Gemma3ForConditionalGeneration",
    "gemma3_text": "Gemma3ForCausalLM",
    "lfm2": "Lfm2ForCausalLM",
    "llama": "LlamaForCausalLM",
    "ministral3": "Ministral3ForCausalLM",
    "mistral": "MistralForCausalLM",
    "mistral3": "Mistral3ForConditionalGeneration",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration",
    "qwen3_5_moe_text": "Qwen3_5MoeForCausalLM",
    "qwen3_5_text": "Qwen3_5ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_next": "Qwen3NextForCausalLM",
}
