"""Faults of the mathematics of the gated delta rule."""

from .changes import taps
from .fault import Fault

FAULTS = [
    Fault(
        id="F39",
        name="z-sigmoid",
        family="delta",
        says="The output of the delta rule is gated by the sigmoid of z, where its SiLU is meant.",
        evidence="atlas #754, vllm #40245, fla #1182, aiter #5392",
        fix="multiply the normed output by silu(z); a model whose config says output_gate_type: sigmoid is another architecture",
        right="refmodel.ops.activation:silu",
        at=("delta gate",),
        change=taps({"delta gate": lambda x, at: at.c.num.sigmoid(at.seen["z"].reshape(x.shape))}, ("z",)),
        tensors=("attn_gate.weight",),
    ),
]
