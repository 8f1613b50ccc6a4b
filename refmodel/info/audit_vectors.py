"""What the norms and decays of a file say of its converter: 1 + w missing or added twice, A_log in place of -exp(A_log).

The ranges are those of trained files that were measured: Qwen3.5 (12 blocks, golden/austen), Gemma 3 270M and SmolLM2-135M.
"""

from collections.abc import Iterator

import numpy as np

from ..arrays import F32
from ..model.model import Model
from ..quants import LAYOUTS
from .finding import Finding

NEGATIVE = 0.25  # part of a norm's weights below zero: at most 0.06 in the measured files, about one half where w alone is stored
LOWEST, MIDDLE = (
    1.2,
    (1.6, 2.6),
)  # 1 % quantile and median where 1 is added twice; measured: at most 1.03 where the median is near 1
DECAY = (-64.0, 0.0)  # ssm_a is -exp(A_log), with exp(A_log) drawn from 0 to 16 before the training


def grouped(model: Model, ending: str) -> dict[str, dict[str, F32]]:
    """The float vectors whose names have that ending, by their name without the block: name -> tensor -> values."""
    out: dict[str, dict[str, F32]] = {}
    for name, weight in model.weights.items():
        if name.endswith(ending) and weight.type in LAYOUTS:
            end = name.split(".", 2)[2] if name.startswith("blk.") else name
            out.setdefault(end, {})[name] = weight.dense(np.float32)
    return out


def norms(model: Model) -> Iterator[Finding]:
    """Norms whose weights are near 0 or near 2, where they are near 1 in a sound file.

    A norm outside of blocks near 2 says nothing by itself: that of SmolLM2 has a median of 1.8.
    """
    blocks = False
    found = grouped(model, "norm.weight")
    for end, tensors in sorted(found.items(), key=lambda item: -len(item[1])):
        values = np.concatenate([x[np.isfinite(x)] for x in tensors.values()])
        if not values.size:
            continue
        below, (low, middle) = float(np.mean(values < 0)), np.quantile(values, (0.01, 0.5))
        about = f"{end} of {len(tensors)} tensors: mean {values.mean():.3g}, median {middle:.3g}, {below:.0%} below 0"
        if below > NEGATIVE:
            yield Finding(
                "norm-near-zero",
                tuple(tensors),
                about,
                f"at most {NEGATIVE:.0%} below 0: what is stored multiplies (measured: at most 6 % in Gemma 3, 0 elsewhere)",
                "the checkpoint stores w where the model multiplies by 1 + w, and the 1 was not added: convert it again",
                ("F14",),
            )
        elif low > LOWEST and MIDDLE[0] < middle < MIDDLE[1] and (blocks or len(tensors) > 1):
            blocks = True
            gated = end == "ssm_norm.weight"
            yield Finding(
                "norm-near-two",
                tuple(tensors),
                about,
                "median near 1 (measured: 0.8 to 1.3 in Qwen3.5; Gemma's reach far above, but begin near 0)",
                "1 was added to the gated norm, which has none to add"
                if gated
                else "1 was added twice: the checkpoint had it already, or a conversion ran on its own result",
                ("F16",) if gated else ("F15", "F18"),
            )


def decays(model: Model) -> Iterator[Finding]:
    """`ssm_a` that is not -exp(A_log): signs and range."""
    found = grouped(model, "ssm_a").get("ssm_a", {})
    outside = {name: x for name, x in found.items() if not ((x < DECAY[1]) & (x > DECAY[0])).all()}
    if not outside:
        return
    values = np.concatenate(list(outside.values()))
    positive = float(np.mean(values >= 0))
    yield Finding(
        "decay-range",
        tuple(outside),
        f"ssm_a of {len(outside)} blocks: {values.min():.3g} to {values.max():.3g}, {positive:.0%} not below 0",
        f"above {DECAY[0]:g} and below 0: it is -exp(A_log), and exp(A_log) is drawn from 0 to 16 (measured: -15.9 to -0.096)",
        "it holds A_log, or exp(A_log) without the minus: states grow instead of fading; convert it again"
        if positive
        else "the exponential was taken twice, or the values are damaged: states fade at once; convert it again",
        ("F27",),
    )
