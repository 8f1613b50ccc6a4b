"""What other programs call the tensors that we call by llama.cpp's names.

A name is taken apart into the block's number, what is left of it, and the call. What is left is looked up in PARTS; outside of
blocks in OUTSIDE. An entry lists the stems of taps that it may be, the likeliest first: which of them a model has depends on its
architecture, and where it has several, the numbers decide. So no architecture is named here.

Sources: module paths of transformers and MLX (models/*/modeling_*.py; mlx-lm models/), of vLLM and SGLang, which keep transformers'
names; Meta's llama (layers.N.attention.wq); GGUF tensor names; TransformerLens (blocks.N.hook_resid_post); aprender's stages.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

BLOCK, BEFORE = "l_out", "l_out before"  # the output of a block, and of the one before it
STATES = "hidden_states"
LOGITS = ("result_output",)
EMBEDDED = ("inp_scaled", "embd", "model.input_embed", "model.embed_tokens")
LAYER = re.compile(r"(?:^|[._/-])(?:(?:decoder_?)?layers?|blk|blocks?|h|decoder)[._/-]?(\d+)(?:[._/-]+(.*))?$", re.IGNORECASE)
ENDS_IN_NUMBER = re.compile(r"(.+?)[._-]?(\d+)$")
CALLS = (re.compile(r"^(?:call|step)[._-]?(\d+)[._/]+(.+)$"), re.compile(r"^(.+?)(?:@|[._](?:call|step)[._-]?)(\d+)$"))
ELSEWHERE = re.compile(r"(^|[._])(visual|vision\w*|audio\w*|mtp|encoder)[._]", re.IGNORECASE)
ENDINGS = re.compile(r"([._](outputs?|out|forward|0|hidden_states|value|data))+$")

_ALIKE = {
    (
        BLOCK,
    ): ". out output hidden_states hidden l_out post_layer c_post_layer layer_out layer_output block_out block_output resid_post "
    "hook_resid_post post_ffn_residual residual_post x_out",
    (BEFORE,): "input inputs in resid_pre hook_resid_pre layer_input layer_in block_input pre_layer",
    (
        "attn_norm",
    ): "input_layernorm attn_norm attention_norm ln_1 ln1 pre_attn_norm attn_ln a_pre_attn attention_layernorm input_norm",
    ("ffn_norm", "attn_post_norm"): "ffn_norm pre_ffn_norm pre_feedforward_layernorm ln_2 ln2 mlp_norm pre_mlp_norm",
    ("attn_post_norm", "ffn_norm"): "post_attention_layernorm attn_post_norm post_attention_norm post_attn_norm",
    ("ffn_post_norm",): "post_feedforward_layernorm ffn_post_norm post_ffw_norm post_ffn_norm",
    (
        "Qcur_full",
        "Qcur_reshaped",
        "Qcur#bias",
        "Qcur",
    ): "self_attn_q_proj attention_wq attn_q q_proj q wq attn_q_proj query qproj hook_q attention_q",
    ("Kcur#bias", "Kcur"): "self_attn_k_proj attention_wk attn_k k_proj k wk attn_k_proj key kproj attention_k",
    ("Vcur#bias", "Vcur"): "self_attn_v_proj attention_wv attn_v v_proj v wv attn_v_proj value vproj attention_v",
    (
        "gate_reshaped",
    ): "q_gate self_attn_gate attn_gate_proj gate_reshaped attn_output_gate output_gate self_attn_output_gate query_gate",
    ("Qcur_normed",): "self_attn_q_norm q_norm attn_q_norm q_normed",
    ("Kcur_normed",): "self_attn_k_norm k_norm attn_k_norm k_normed",
    ("Qcur#2", "Qcur"): "q_rope q_post_rope q_rot q_rotated self_attn_q_rope rope_q hook_rot_q",
    ("Kcur#2", "Kcur#1"): "k_rope k_post_rope k_rot k_rotated self_attn_k_rope rope_k hook_rot_k",
    ("kq",): "attn_scores scores kq attention_scores",
    ("kq_soft_max",): "attentions attn_softmax attn_weights attn_probs attention_probs hook_pattern kq_soft_max",
    ("kqv_out", "attn_pregate"): "attn_ctx ctx attention_context attn_pre_proj attn_heads hook_z attention",
    (
        "linear_attn_out",
        "attn_out",
        "mul_mat",
        "attn_output",
    ): "self_attn self_attn_o_proj attn o_proj attention_wo attn_out attn_output "
    "attn_o attn_o_proj hook_attn_out attention_out self_attn_out wo",
    (
        "ffn_inp",
        "attn_residual",
        "sa_out",
    ): "post_attn_residual attn_residual ffn_inp resid_mid hook_resid_mid b_post_attn post_attn sa_out "
    "h_mid residual_mid after_attn",
    (
        "ffn_out",
        "ffn_moe_out",
    ): "mlp ffn feed_forward mlp_down_proj ffn_out ffn_down feed_forward_w2 down_proj mlp_out hook_mlp_out w2 moe",
    ("ffn_gate",): "mlp_gate_proj ffn_gate gate_proj feed_forward_w1 w1",
    ("ffn_up",): "mlp_up_proj ffn_up up_proj feed_forward_w3 w3",
    ("ffn_swiglu", "ffn_geglu"): "ffn_act ffn_swiglu swiglu ffn_swigl mlp_act ffn_geglu geglu hook_post",
    ("ffn_moe_logits",): "mlp_gate router router_logits ffn_gate_inp moe_logits block_sparse_moe_gate moe_gate",
    ("ffn_shexp",): "mlp_shared_expert shared_expert ffn_shexp",
    ("shared_expert_gate",): "mlp_shared_expert_gate",
    ("linear_attn_out",): "linear_attn linear_attn_out_proj gdn_out ssm_out linear_attn_out",
    ("linear_attn_qkv_mixed",): "linear_attn_in_proj_qkv in_proj_qkv attn_qkv qkv_mixed",
    ("z",): "linear_attn_in_proj_z in_proj_z",
    ("alpha",): "linear_attn_in_proj_a in_proj_a",
    ("beta",): "linear_attn_in_proj_b in_proj_b",
    ("final_output",): "linear_attn_norm",
}
PARTS: Mapping[str, tuple[str, ...]] = {
    ("" if word == "." else word): taps for taps, words in _ALIKE.items() for word in words.split()
}

_OUTSIDE = {
    EMBEDDED: "embed_tokens tok_embeddings token_embd embeddings embedding embed wte inp_embd input_embed embd inputs_embeds",
    ("result_norm",): "norm final_norm final_layernorm ln_f output_norm result_norm last_hidden_state ln_final",
    LOGITS: "logits lm_head output result_output logits_last last_logits logits_all head unembed scores final_logits "
    "next_token_logits output_logits lm_logits prefill_logits raw_logits probs probabilities softmax logprobs log_probs "
    "log_probabilities log_softmax",
}
OUTSIDE: Mapping[str, tuple[str, ...]] = {word: taps for taps, words in _OUTSIDE.items() for word in words.split()}
NUMBERED = {STATES: STATES, "all_hidden_states": STATES, "hidden_state": STATES}


@dataclass(frozen=True)
class Name:
    """A foreign name, taken apart.

    stems  the taps that it may be, without the block's number; none if the name is not known
    block  the number that it has; None outside of blocks
    call   of the run, 0 the first
    shown  what is left of the name, for reports
    """

    stems: tuple[str, ...]
    block: int | None
    call: int
    shown: str


def taken_apart(name: str) -> Name:
    """What a name says. Nothing is asked of a model here: a block that it does not have may be named."""
    call, rest = 0, name
    if match := CALLS[0].match(rest):
        call, rest = int(match[1]), match[2]
    elif match := CALLS[1].match(rest):
        rest, call = match[1], int(match[2])
    if ELSEWHERE.search(rest):
        return Name((), None, call, rest)
    if match := LAYER.search(rest):
        return Name(stems_of(match[2] or "", PARTS), int(match[1]), call, match[2] or "")
    if stems := stems_of(rest, OUTSIDE):
        return Name(stems, None, call, rest)
    if match := ENDS_IN_NUMBER.fullmatch(rest):
        word = key(match[1]).rpartition(".")[2]
        if OUTSIDE.get(word) == LOGITS:  # logits_0, logits_1: one file a call
            return Name(LOGITS, None, int(match[2]), match[1])
        stems = (STATES,) if word in NUMBERED else PARTS.get(word, ()) if word else ()
        return Name(stems, int(match[2]), call, match[1])
    return Name((), None, call, rest)


def stems_of(words: str, table: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The stems for words of a name: for all of them, for those without a common ending, or for the last ones."""
    for shortened in (words, ENDINGS.sub("", words)):
        parts = key(shortened).split("_")
        found = table.get("_".join(parts))
        if found:
            return found
    if table is OUTSIDE:
        last = re.split(r"[./]", ENDINGS.sub("", words))
        return table.get(key(last[-1]), ()) if len(last) > 1 else ()
    return ()


def key(words: str) -> str:
    """Words as the tables have them: small letters, underscores."""
    return re.sub(r"[./\s-]+", "_", words.strip("._-/")).lower()
