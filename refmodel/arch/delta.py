"""What the hybrids with a gated delta rule have alike outside their forward passes: sizes, kinds of blocks, words.

Source: llama.cpp src/models/qwen35.cpp, load_arch_hparams; arXiv:2412.06464.
"""

from dataclasses import replace

from .facts import USUAL
from .hparams import Hparams
from .keys import Keys
from .kinds import Kinds

KINDS = Kinds(
    listed="attention.recurrent_layers",
    kind="delta",
    interval="full_attention_interval",
    default=4,
    both=True,
    reader="7c158fb (build 9518, llama-cpp-python 0.3.26) and later read the list, 210a657 (0.3.25) does not; "
    "their converter writes it since pull request 28208",
)

MEANINGS = {
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
SEMANTICS = {
    **USUAL,
    "attention gate": "sigmoid(gate) * attention; each head has its gate after its query",
    "unit norm": "x / sqrt(sum(x^2) + eps)",
    "convolution": "causal, then silu",
    "decay": "exp(ssm_a * softplus(alpha + ssm_dt))",
    "gated norm": "norm(o) * silu(z)",
}
GROUPED = {**SEMANTICS, "value heads": "grouped: value head h reads key head h // (Hv / Hk)"}
TILED = {**SEMANTICS, "value heads": "tiled: value head h reads key head h mod Hk"}
SHARED = "{n_v_head} value heads of {d_state} share {n_k_head} query and key heads: value head h uses "


def with_delta_net(k: Keys, hp: Hparams) -> Hparams:
    """The same sizes, and those of the gated delta rule: K taps of the convolution, Dk = Dv, Hk key heads, Hv value heads.

    MetadataError names a key that is missing, out of its range, or contradicts another.
    """
    n_v_head = k.width("ssm.time_step_rank", hp.n_embd)
    n_k_head = k.count("ssm.group_count", most=n_v_head)
    k.multiple("ssm.time_step_rank", n_v_head, "ssm.group_count", n_k_head)
    d_state = k.width("ssm.state_size", n_v_head * hp.n_embd)
    if (found := k.count("ssm.inner_size")) != n_v_head * d_state:
        raise k.refused("ssm.inner_size", found, f"this architecture is defined only for {n_v_head * d_state}")
    d_conv = k.width("ssm.conv_kernel", d_state * n_v_head, least=2)
    recurrent = recurrent_blocks(k, hp.n_all, hp.n_layer)
    return replace(hp, recurrent=recurrent, d_conv=d_conv, d_state=d_state, n_k_head=n_k_head, n_v_head=n_v_head)


def recurrent_blocks(k: Keys, n_all: int, n_layer: int) -> tuple[bool, ...]:
    """Whether each of all n_all blocks is recurrent: by the file's own list, else every block but each interval-th.

    Blocks from n_layer on are prediction blocks; none of them is recurrent. MetadataError for a list of another length.
    """
    if KINDS.listed in k:
        listed = k.md.per_block(k.full(KINDS.listed), n_all)
        return tuple(i < n_layer and bool(kind) for i, kind in enumerate(listed))
    interval = k.count(KINDS.interval, KINDS.default)
    return tuple(i < n_layer and (i + 1) % interval != 0 for i in range(n_all))
