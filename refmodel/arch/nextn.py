"""The prediction block (MTP, nextn) of qwen35, qwen35moe and qwen3next: it drafts a token before the trunk has computed it.

From a token and the trunk's hidden state of the token before, x = eh_proj · [norm(embedding), norm(hidden)], then a block of the
architecture with full attention, then a norm and a head: its own, or the trunk's. Only what is around the block is here.
Source: arXiv:2412.19437, section 2.2; llama.cpp src/models/qwen35.cpp, graph_mtp.
"""

import re

import numpy as np

from ..arrays import F
from ..forward.call import Call
from ..forward.weights import Block, Output, Weight
from .hparams import Hparams
from .shapes import Shapes, norms

# Nodes that llama.cpp calls otherwise than `mtp_` and their name in the trunk. Two norms come before the block's own.
NAMES = {
    "norm": "norm#2",
    "norm#1": "norm#3",
    "norm#2": "norm#4",
    "norm#3": "norm#5",
    "gate_reshaped": "mtp_gate",
    "attn_output": "mtp_attn_out",
    "l_out": "mtp_post_ffn",
}
SCALED = ("nextn.eh_proj", "nextn.shared_head_head")  # see Architecture.SCALED
SHARED = re.compile("cache_|kq|ffn_(gate|up|swiglu)|ffn_moe_(?!out)")  # these have the same name in both


def named(name: str) -> str:
    """What a tap of the trunk's block is called in the prediction block, as in llama.cpp's graph_mtp: `Qcur` -> `mtp_Qcur`."""
    return NAMES.get(name) or (name if SHARED.match(name) else f"mtp_{name}")


def shapes(hp: Hparams, n_vocab: int) -> tuple[Shapes, Shapes]:
    """The tensors that the block has besides those of a decoder block, name -> shape.

    Returns the required ones, and the optional ones: where these are missing, the trunk's are used.
    """
    E = hp.n_embd
    required = {"nextn.eh_proj.weight": (E, 2 * E), **norms(hp, "nextn.enorm", "nextn.hnorm")}
    optional = {f"nextn.{name}.weight": (n_vocab, E) for name in ("embed_tokens", "shared_head_head")}
    return required, optional | norms(hp, "nextn.shared_head_norm")


def enter(e: F, h: F, w: Block, c: Call) -> F:
    """What the block reads, [T, E]: eh_proj of the embedded tokens e [T, E] and of h [T, E], the hidden state before each token."""
    e = c.norm("mtp_enorm", c.tap("mtp_tok_embd", e), w.nextn_enorm)
    h = c.norm("mtp_hnorm", h, w.nextn_hnorm, normed="norm#1")
    return c.linear("mtp_eh_proj", c.tap("mtp_concat", np.concatenate([e, h], axis=1)), w.nextn_eh_proj)


def leave(x: F, head_norm: Weight, c: Call) -> F:
    """What the head reads, [T, E] -> [T, E]; a longer draft would read it as the next token's hidden state."""
    return c.norm("mtp_h_nextn", x, head_norm, normed="mtp_norm")


def head(h: F, output: Output, c: Call) -> F:
    """Logits of the draft, [T, E] -> [T, V]."""
    return c.tap("mtp_result_output", c.logits(h, output))
