"""The tensors that the parts of a model have, each with its shape (rows, columns).

A function gives the tensors of one part of a block, without `blk.N.`; an architecture joins those of its own. The letters are those
of refmodel/arrays.py. Source: the load_arch_tensors functions of llama.cpp src/models/*.cpp.
"""

from .hparams import Hparams

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

# The matrices of each part, without `.weight`
QKV = ("attn_q", "attn_k", "attn_v")
ATTENTION = (*QKV, "attn_output")
DELTA = ("attn_qkv", "attn_gate", "ssm_beta", "ssm_alpha", "ssm_out")
FFN = ("ffn_gate", "ffn_up", "ffn_down")
EXPERTS = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
SHARED_EXPERT = ("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")


def outside(hp: Hparams, n_vocab: int) -> tuple[Shapes, Shapes]:
    """The tensors outside of blocks for V = n_vocab tokens: the required ones, and those that a file may have."""
    required = {"token_embd.weight": (n_vocab, hp.n_embd), **norms(hp, "output_norm")}
    return required, {"output.weight": (n_vocab, hp.n_embd)}


def norms(hp: Hparams, *names: str) -> Shapes:
    """Weights of norms of the residual sum, [E] each."""
    return {f"{name}.weight": (hp.n_embd,) for name in names}


def attention_shapes(hp: Hparams) -> Shapes:
    """Grouped-query attention: attn_q [H*D, E], attn_k and attn_v [G*D, E], attn_output [E, H*D]."""
    E, Q, KV = hp.n_embd, hp.n_head * hp.head_dim, hp.n_head_kv * hp.head_dim
    return {
        "attn_q.weight": (Q, E),
        "attn_k.weight": (KV, E),
        "attn_v.weight": (KV, E),
        "attn_output.weight": (E, Q),
    }


def normed_attention(hp: Hparams) -> Shapes:
    """attention_shapes, and a norm of each query and each key, [D]."""
    heads = {"attn_q_norm.weight": (hp.head_dim,), "attn_k_norm.weight": (hp.head_dim,)}
    return attention_shapes(hp) | heads


def gated_attention(hp: Hparams) -> Shapes:
    """normed_attention, where attn_q [2*H*D, E] has a gate after each query."""
    return normed_attention(hp) | {"attn_q.weight": (2 * hp.n_head * hp.head_dim, hp.n_embd)}


def delta_shapes(hp: Hparams) -> Shapes:
    """The gated delta rule, without the matrices of its betas and decays, which architectures store in different ways."""
    E, C = hp.n_embd, hp.conv_dim
    return {
        "attn_qkv.weight": (C, E),
        "attn_gate.weight": (hp.value_dim, E),
        "ssm_conv1d.weight": (C, hp.d_conv),
        "ssm_dt.bias": (hp.n_v_head,),
        "ssm_a": (hp.n_v_head,),
        "ssm_norm.weight": (hp.d_state,),
        "ssm_out.weight": (E, hp.value_dim),
    }


def dense(hp: Hparams) -> Shapes:
    """One feed-forward part for every token: gate and up [n_ff, E], down [E, n_ff]."""
    return gated(hp.n_ff, hp.n_embd, "")


def expert_shapes(hp: Hparams) -> Shapes:
    """X feed-forward parts [X, n_ff, E] and [X, E, n_ff], and the router that chooses among them, [X, E]."""
    E, X = hp.n_embd, hp.n_expert
    return {"ffn_gate_inp.weight": (X, E), **{name: (X, *shape) for name, shape in gated(hp.n_ff, E, "_exps").items()}}


def shared_expert_shapes(hp: Hparams) -> Shapes:
    """The expert that every token goes to, and the row [1, E] that gives its share. llama.cpp calls that row a vector [E]."""
    return {"ffn_gate_inp_shexp.weight": (1, hp.n_embd), **gated(hp.n_ff_shared, hp.n_embd, "_shexp")}


def gated(width: int, E: int, end: str) -> Shapes:
    """The three matrices of a gated feed-forward part of inner width `width`; `end` is the end of their names."""
    up = (width, E)
    return {f"ffn_gate{end}.weight": up, f"ffn_up{end}.weight": up, f"ffn_down{end}.weight": (E, width)}


def same(a: Shape, b: Shape) -> bool:
    """Whether two shapes are one to llama.cpp: leading dimensions of 1 do not count.

    Source: llama_model_loader::check_tensor_dims: it compares all GGML_MAX_DIMS dimensions, those that are not given as 1.
    """
    longer = max(len(a), len(b))
    return (1,) * (longer - len(a)) + a == (1,) * (longer - len(b)) + b
