"""Any policy for a file that stores a matrix with a factor, or with others in one tensor."""

from dataclasses import replace
from typing import Any

from ..arrays import F, Ints, Matrices, Matrix
from ..forward.numerics import Numerics
from ..forward.weights import Share, scale_of


def as_stored(num: Numerics) -> Numerics:
    """The same policy for files that store a matrix with a factor, or with others in one tensor.

    A product is (W x) · scale, of experts each with its own. Matrices stored as one share one product, as in llama.cpp: the way it
    takes depends on its number of rows. Source: build_lora_mm, build_lora_mm_id, build_qkv, build_moe_ffn.
    """
    last: dict[str, tuple[Any, ...]] = {}  # the newest product of a whole, for the others who share it

    def linear(w: Matrix, x: F) -> F:
        if isinstance(w, Share):
            if "linear" not in last or last["linear"][0] is not w.whole or last["linear"][1] is not x:
                last["linear"] = w.whole, x, linear(w.whole, x)
            shared: F = last["linear"][-1][:, w.rows_of]
            return shared
        y, scale = num.linear(w, x), scale_of(w)
        return y if scale is None else y * scale.dense(num.dtype)

    def experts(w: Matrices, x: F, ids: Ints) -> F:
        if isinstance(w, Share):
            if "experts" not in last or last["experts"][0] is not w.whole or last["experts"][1] is not ids:
                last["experts"] = w.whole, ids, experts(w.whole, x, ids)
            shared: F = last["experts"][-1][..., w.rows_of]
            return shared
        y, scale = num.experts(w, x, ids), scale_of(w)
        return y if scale is None else y * scale.dense(num.dtype)[ids][:, :, None]

    return replace(num, linear=linear, experts=experts)
