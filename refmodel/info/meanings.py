"""What each tensor of a block is, in words with the file's own sizes: names alone mislead (attn_gate, attn_qkv, ssm_norm).

Source: llama.cpp src/models/*.cpp, as refmodel/arch/ computes it. A name that an architecture uses in its own way stands in OWN.
"""

from typing import Any

# The words are str.format patterns over the fields of Hparams.
COMMON = {
    "attn_norm.weight": "RMS norm of the block's input",
    "attn_q.weight": "{n_head} queries of {head_dim}",
    "attn_k.weight": "{n_head_kv} keys of {head_dim}: query head h uses key head h // {group}",
    "attn_v.weight": "{n_head_kv} values of {head_dim}",
    "attn_q.bias": "added to the queries",
    "attn_k.bias": "added to the keys",
    "attn_v.bias": "added to the values",
    "attn_output.bias": "added to attention's output",
    "attn_q_norm.weight": "RMS norm of each query, before it is rotated",
    "attn_k_norm.weight": "RMS norm of each key, before it is rotated",
    "attn_output.weight": "from {n_head} heads of {head_dim} back to {n_embd}",
    "ffn_gate.bias": "added before the SiLU",
    "ffn_up.bias": "added before the gate multiplies it",
    "ffn_down.bias": "added to what the feed-forward part gives",
    "ffn_norm.weight": "RMS norm of the residual sum, before the feed-forward part",
    "ffn_gate.weight": "its SiLU multiplies ffn_up",
    "ffn_up.weight": "multiplied by the gate",
    "ffn_down.weight": "back to {n_embd}",
    "ffn_gate_inp.weight": "the router: {n_used} of {n_expert} experts for each token",
    "ffn_gate_exps.weight": "of each expert: its SiLU multiplies ffn_up_exps",
    "ffn_up_exps.weight": "of each expert: multiplied by the gate",
    "ffn_down_exps.weight": "of each expert: back to {n_embd}",
    "ffn_gate_inp_shexp.weight": "one number a token, whose sigmoid is the share of the shared expert",
    "ffn_gate_shexp.weight": "of the shared expert: its SiLU multiplies ffn_up_shexp",
    "ffn_up_shexp.weight": "of the shared expert: multiplied by the gate",
    "ffn_down_shexp.weight": "of the shared expert: back to {n_embd}",
}
DELTA_NET = {
    "attn_norm.weight": "RMS norm of the block's input; the file has 1 + w already",
    "attn_q.weight": "head by head {head_dim} rows of a query, then {head_dim} of its gate (not all queries, then all gates), "
    "whose sigmoid multiplies what attention gives, before attn_output",
    "post_attention_norm.weight": "RMS norm of the residual sum, before the feed-forward part; what is added to the sum is "
    "not normed",
    "attn_qkv.weight": "{n_k_head} queries, {n_k_head} keys and {n_v_head} values of {d_state}, in this order; "
    "all pass the convolution",
    "attn_gate.weight": "z, whose SiLU multiplies the normed output of the delta rule; attention's gate is another, in attn_q",
    "ssm_conv1d.weight": "causal, {d_conv} taps for each channel, the last one for the token itself; SiLU follows",
    "ssm_alpha.weight": "a state is multiplied by exp(ssm_a · softplus(this + ssm_dt)) at each token",
    "ssm_beta.weight": "its sigmoid is how far a state is corrected at each token",
    "ssm_dt.bias": "added before the softplus",
    "ssm_a": "-exp(A_log), below zero",
    "ssm_norm.weight": "RMS norm of each head's output, the same for all heads; not of the values",
    "ssm_out.weight": "from {n_v_head} heads of {d_state} back to {n_embd}, in place of attn_output",
}
OWN: dict[str, dict[str, str]] = {
    "qwen35": DELTA_NET,
    "qwen35moe": DELTA_NET,
    "qwen3next": DELTA_NET
    | {"ssm_ba.weight": "for each key head the betas of its value heads, then their alphas: ssm_beta and ssm_alpha of qwen35"},
    "gemma3": {
        "attn_norm.weight": "RMS norm of the block's input; the file has 1 + w already",
        "post_attention_norm.weight": "RMS norm of what attention gives, before it is added to the residual sum",
        "post_ffw_norm.weight": "RMS norm of what the feed-forward part gives, before it is added to the residual sum",
        "ffn_gate.weight": "its GELU multiplies ffn_up",
    },
}
SHARED = "{n_v_head} value heads of {d_state} share {n_k_head} query and key heads: value head h uses "
# A kind of block -> what is to be known of it
KIND: dict[str, dict[str, str]] = {
    "qwen35": {"delta": SHARED + "h mod {n_k_head}"},
    "qwen35moe": {"delta": SHARED + "h mod {n_k_head}"},
    "qwen3next": {"delta": SHARED + "h // {shared}"},
    "gemma3": {"sliding": "attention to the last {window} tokens, RoPE base {rope_sliding.base:g}"},
}


# What a file may have beside or instead of an architecture's own; attn_qkv of a delta block is another tensor.
STORED = {
    "attn_qkv.weight": "attn_q, attn_k and attn_v, one after another",
    "attn_qkv.bias": "added to queries, keys and values, one after another",
    "ffn_gate_up_exps.weight": "of each expert ffn_gate_exps, then ffn_up_exps",
    "ssm_in.weight": "for each key head its query, its key, its values and their z: attn_qkv and attn_gate of newer files",
}


def tensor_meaning(architecture: str, hp: Any, name: str, kind: str) -> str:
    """Of a tensor, without its blk.N., of a kind of block; empty if nothing is known of the name."""
    matrix, _, end = name.rpartition(".")
    if end in ("scale", "input_scale"):
        return f"multiplies what {matrix} gives" if end == "scale" else "read by no graph of llama.cpp"
    own = COMMON | STORED | (OWN.get(architecture, {}) if kind == "delta" else OWN.get(architecture, {}) | STORED)
    return own.get(name, "").format(**sizes(hp))


def kind_meaning(architecture: str, hp: Any, kind: str) -> str:
    """Of a kind of block; empty if there is nothing to say."""
    return KIND.get(architecture, {}).get(kind, "").format(**sizes(hp))


def sizes(hp: Any) -> dict[str, Any]:
    """The fields of Hparams, and how many heads share one."""
    fields = vars(hp)
    shared = {"shared": fields["n_v_head"] // fields["n_k_head"]} if "n_v_head" in fields else {}
    return fields | shared | {"group": hp.n_head // hp.n_head_kv}
