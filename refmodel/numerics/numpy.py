"""Numerics `numpy`: float32, and every operation is the NumPy function of refmodel/ops. What a reader of ops/ reads is run."""

from functools import partial

import numpy as np

from ..forward.numerics import Numerics
from ..ops import activation, attention, deltanet, experts, linear, norm, rope

NUMPY = Numerics(
    name="numpy",
    emulates=None,
    by_token=True,
    few=1,
    dtype=np.float32,
    embed=linear.embed,
    linear=linear.linear,
    experts=partial(experts.by_expert, linear.linear),
    inverse_root=norm.inverse_root,
    rms_norm=norm.rms_norm,
    sigmoid=activation.sigmoid,
    silu=activation.silu,
    swiglu=activation.swiglu,
    geglu=activation.geglu,
    softcap=activation.softcap,
    softplus=activation.softplus,
    soft_max=activation.soft_max,
    rope=rope.rope,
    store=attention.as_it_is,
    scores=True,
    attention=attention.attention,
    causal_conv1d=deltanet.causal_conv1d,
    gated_delta_rule=deltanet.gated_delta_rule,
)
