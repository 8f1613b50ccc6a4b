"""Any policy for a file with `.scale` tensors: a product times the factor of its matrix."""

from dataclasses import replace

from ..arrays import F, Ints, Matrices, Matrix
from ..weights import scale_of
from .plain import Numerics


def scaled(num: Numerics) -> Numerics:
    """The same policy with (W x) · scale for W x, of experts each with its own. Source: build_lora_mm and build_lora_mm_id."""

    def linear(w: Matrix, x: F) -> F:
        y, scale = num.linear(w, x), scale_of(w)
        return y if scale is None else y * scale.dense(num.dtype)

    def experts(w: Matrices, x: F, ids: Ints) -> F:
        y, scale = num.experts(w, x, ids), scale_of(w)
        return y if scale is None else y * scale.dense(num.dtype)[ids][:, :, None]

    return replace(num, linear=linear, experts=experts)
