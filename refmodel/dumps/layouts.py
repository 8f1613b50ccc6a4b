"""In which order another program has the numbers of one token: heads grouped or tiled, rotated pairs adjacent or in halves.

Converters to GGUF reorder rows of matrices, so that a program which reads the original checkpoint has other orders than the file:
convert_hf_to_gguf.py permutes the rows of Q and K of Llama (halves -> adjacent pairs), and the value heads of Qwen3.5 (grouped by
their key head -> tiled). An order is an index [width] into the numbers of a token: ours = theirs[index].
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arrays import Ints

AS_IS = "as it is"
VALUE_HEADS: tuple[str, ...] = (
    "z",
    "alpha",
    "beta",
    "add",
    "a_softplus",
    "gate",
    "beta_sigmoid",
    "v_conv_predelta",
    "attn_output",
    "mul",
    "silu",
)
VALUE_HEADS += ("final_output", "norm#1")
ROTATED = ("Qcur", "Kcur", "Qcur#2", "Kcur#2", "Qcur#1", "Kcur#1", "Qcur#bias", "Kcur#bias", "Qcur_normed", "Kcur_normed")


def orders(stem: str, width: int, hp: Any) -> Mapping[str, Ints | None]:
    """The orders that a tap's numbers may have in another program: a word for each -> its index; None for no change.

    stem   of the tap, without block and call
    width  numbers of a token
    hp     the model's Hparams
    """
    found: dict[str, Ints | None] = {AS_IS: None}
    if stem in ROTATED and hp.rope.adjacent and width % hp.head_dim == 0:
        found["pairs in halves"] = pairs(width, hp.head_dim, hp.rope.n_rot)
    if hp.n_v_head and hp.n_v_head != hp.n_k_head:
        heads = hp.n_v_head
        if stem in VALUE_HEADS and width % heads == 0:
            found |= {word: value_heads(hp, width // heads, word) for word in ("grouped heads", "tiled heads")}
        if stem in ("linear_attn_qkv_mixed", "conv_output_raw", "conv_output_silu"):
            keys = width - heads * hp.d_state
            found |= {
                word: np.concatenate([np.arange(keys), keys + value_heads(hp, hp.d_state, word)])
                for word in ("grouped heads", "tiled heads")
            }
    return found


def pairs(width: int, head_dim: int, n_rot: int) -> Ints:
    """Where adjacent pairs are in heads whose rotated part is all first halves, then all second ones."""
    inner = np.arange(head_dim)
    inner[:n_rot] = np.arange(n_rot).reshape(2, -1).T.ravel()
    return (np.arange(0, width, head_dim)[:, None] + inner).ravel()


def value_heads(hp: Any, size: int, theirs: str) -> Ints:
    """Where our value heads of `size` numbers are, in a program that has them grouped by key head, or tiled."""
    groups, each = hp.n_k_head, hp.n_v_head // hp.n_k_head
    heads = np.arange(hp.n_v_head)
    heads = heads.reshape(groups, each).T.ravel() if theirs == "grouped heads" else heads.reshape(each, groups).T.ravel()
    return (heads[:, None] * size + np.arange(size)).ravel()
