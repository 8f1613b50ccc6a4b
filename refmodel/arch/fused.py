"""Matrices that a file may keep as one, and which rows of that one each of them is.

Source: llama.cpp src/llama-model.cpp, create_tensor_qkv and create_tensor_gate_up_exps; src/models/qwen3next.cpp, build_qkvz.
"""

from collections.abc import Callable

import numpy as np

from ..arrays import Ints
from .hparams import Hparams
from .shapes import Shapes

Parts = dict[str, Ints]


def one_after_another(*names: str) -> Callable[[Hparams, Shapes], Parts]:
    """A function for PARTS: matrices that follow each other in one tensor, name -> the numbers of their rows in it.

    The function returns {} if the block lacks one of the matrices.
    """

    def parts(hp: Hparams, shapes: Shapes) -> Parts:
        if any(f"{name}.weight" not in shapes for name in names):
            return {}
        ends = np.cumsum([shapes[f"{name}.weight"][-2] for name in names])
        rows = np.split(np.arange(ends[-1]), ends[:-1])
        return dict(zip(names, rows, strict=True))

    return parts


def by_key_head(hp: Hparams, shapes: Shapes) -> Parts:
    """The rows of ssm_in [2 (Hk + Hv) D, E] in old qwen3next files: for each key head its query, its key, its values, their gates.

    Returns the rows of attn_qkv and of attn_gate; {} for a block with attention.
    """
    if "attn_gate.weight" not in shapes:
        return {}
    D, per_head = hp.d_state, hp.d_state * hp.n_v_head // hp.n_k_head
    rows = np.arange(2 * hp.n_k_head * (D + per_head)).reshape(hp.n_k_head, -1)
    q, k, v, z = (part.ravel() for part in np.split(rows, [D, 2 * D, 2 * D + per_head], axis=1))
    return {"attn_qkv": np.concatenate([q, k, v]), "attn_gate": z}


PARTS: dict[str, Callable[[Hparams, Shapes], Parts]] = {
    "attn_qkv": one_after_another("attn_q", "attn_k", "attn_v"),
    "ffn_gate_up_exps": one_after_another("ffn_gate_exps", "ffn_up_exps"),
    "ssm_in": by_key_head,
}
