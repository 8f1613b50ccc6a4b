"""What each tensor of a block is, in words with the file's own sizes: names alone mislead (attn_gate, attn_qkv, ssm_norm).

Source: llama.cpp src/models/*.cpp, as refmodel/arch/ computes it. What an architecture uses in its own way, it says in its FACTS.
"""

from typing import Any

from ..arch import Architecture, Hparams

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


# What a file may have besides or instead of an architecture's own; attn_qkv of a delta block is another tensor.
STORED = {
    "attn_qkv.weight": "attn_q, attn_k and attn_v, one after another",
    "attn_qkv.bias": "added to queries, keys and values, one after another",
    "ffn_gate_up_exps.weight": "of each expert ffn_gate_exps, then ffn_up_exps",
    "ssm_in.weight": "for each key head its query, its key, its values and their z: attn_qkv and attn_gate of newer files",
}


def tensor_meaning(arch: Architecture, hp: Hparams, name: str, kind: str) -> str:
    """What a tensor is for, in words; empty for an unknown name.

    name  without its blk.N.
    kind  of its block
    """
    matrix, _, end = name.rpartition(".")
    if end in ("scale", "input_scale"):
        return f"multiplies what {matrix} gives" if end == "scale" else "read by no graph of llama.cpp"
    words = {**COMMON, **STORED, **arch.FACTS.meanings, **({} if kind == "delta" else STORED)}
    return words.get(name, "").format(**sizes(hp))


def kind_meaning(arch: Architecture, hp: Hparams, kind: str) -> str:
    """What a kind of block does, in words; empty if there is nothing to say."""
    return arch.FACTS.kind_meanings.get(kind, "").format(**sizes(hp))


def sizes(hp: Hparams) -> dict[str, Any]:
    """The fields of Hparams, and how many heads share a key/value head: what the meanings fill in."""
    shared = {"shared": hp.n_v_head // hp.n_k_head} if hp.n_k_head else {}
    return vars(hp) | shared | {"group": hp.n_head // hp.n_head_kv}
