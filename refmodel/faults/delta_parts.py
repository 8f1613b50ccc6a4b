"""Faults of what surrounds the gated delta rule: its heads' order, its gates, its norm."""

from collections.abc import Callable
from functools import partial

import numpy as np

from ..arch import Hparams
from ..arrays import F, Ints
from ..model.model import Model
from .altered import At
from .changes import any_of, matrices, operation, taps, vectors
from .fault import Fault
from .heads import other_order, shares_keys

new = partial(Fault, family="delta_parts", evidence="a kind of fault", right="refmodel.arch.qwen35:delta_net")
ORDER = partial(
    new,
    id="F20",
    evidence="the class of llama.cpp #21732 and quant.cpp 5f12771",
    fix="reorder values, gates, alphas, betas, ssm_a, ssm_dt and the columns of ssm_out alike, or none of them",
    keys=("ssm.group_count", "ssm.time_step_rank"),
)


def one_of_heads(hp: Hparams) -> Ints:
    """The value heads, grouped by key head where they are tiled."""
    return np.ascontiguousarray(np.arange(hp.n_v_head).reshape(-1, hp.n_k_head).T).reshape(-1)


def has_alpha(model: Model) -> bool:
    """Whether heads can be in another order, and alphas are a matrix of their own."""
    return shares_keys(model) and any(block.has("ssm_alpha") for block in model.blocks)


def values_last(order: Callable[[Hparams], Ints]) -> Callable[[Hparams], Ints]:
    """The channels of queries, keys and values, of which the values are in another order."""
    return lambda hp: np.concatenate([np.arange(2 * hp.key_dim), 2 * hp.key_dim + order(hp)])


def heads_of_output(x: F, at: At) -> F:
    """The gated output of all value heads [T, Hv Dv], in the other order."""
    return np.ascontiguousarray(x[:, other_order(at.c.hp)])


def normed_as_one(x: F, at: At) -> F:
    """The output [T, Hv, Dv], normed by one mean of all heads of a token."""
    o = at.seen["delta output"].reshape(len(x), -1)
    mean = np.asarray(at.c.num.rms_norm(np.ascontiguousarray(o), at.c.hp.eps)).reshape(len(x), at.c.hp.n_v_head, -1)
    return (mean * at.w.ssm_norm.dense(at.c.num.dtype)).reshape(x.shape)


channels = values_last(other_order)
FAULTS: list[Fault] = [
    ORDER(
        name="values-grouped",
        says="The values of the delta rule are in the other order of heads than their gates and decays.",
        at=("qkv product", "conv raw"),
        change=any_of(
            matrices("attn_qkv", channels, shares_keys), vectors("ssm_conv1d", lambda w, hp: w[channels(hp)], shares_keys)
        ),
        tensors=("attn_qkv.weight", "ssm_conv1d.weight"),
    ),
    ORDER(
        name="decays-grouped",
        says="The decays and strengths of the delta rule are in the other order of heads than the values.",
        at=("alpha", "beta raw", "alpha and dt", "decay"),
        change=any_of(
            *(matrices(name, one_of_heads, has_alpha) for name in ("ssm_alpha", "ssm_beta")),
            *(vectors(name, lambda w, hp: w[one_of_heads(hp)], has_alpha) for name in ("ssm_a", "ssm_dt_bias")),
        ),
        tensors=("ssm_alpha.weight", "ssm_beta.weight", "ssm_a", "ssm_dt.bias"),
    ),
    ORDER(
        name="ssm-a-grouped",
        says="ssm_a and ssm_dt are in the other order of heads than what they are applied to.",
        at=("alpha and dt", "decay"),
        change=any_of(*(vectors(name, lambda w, hp: w[one_of_heads(hp)], shares_keys) for name in ("ssm_a", "ssm_dt_bias"))),
        tensors=("ssm_a", "ssm_dt.bias"),
    ),
    ORDER(
        name="output-heads-grouped",
        says="The columns of ssm_out are in the other order of heads than what it multiplies.",
        at=("delta gated",),
        change=taps({"delta gated": heads_of_output}, (), shares_keys),
        tensors=("ssm_out.weight",),
    ),
    new(
        id="delta-queries-and-keys-exchanged",
        name="delta-queries-and-keys-exchanged",
        says="The queries of the delta rule are read as keys, and its keys as queries.",
        evidence="a kind of layout fault",
        fix="attn_qkv gives queries first, then keys, then values",
        at=("delta output", "new state"),
        change=operation(
            "gated_delta_rule", lambda healthy, hp, q, k, *given: healthy(k, q, *given), lambda model: model.hp.d_state > 0
        ),
        tensors=("attn_qkv.weight",),
    ),
    new(
        id="softplus-missing",
        name="softplus-missing",
        says="The decays of the delta rule are made of alpha without its softplus.",
        fix="take softplus(alpha + dt) before it is multiplied by ssm_a",
        at=("step size",),
        change=taps({"step size": lambda x, at: at.seen["alpha and dt"].reshape(x.shape)}, ("alpha and dt",)),
        tensors=("ssm_alpha.weight", "ssm_ba.weight"),
    ),
    new(
        id="beta-doubled",
        name="beta-doubled",
        says="Beta is twice its sigmoid, as rules that allow negative eigenvalues have it.",
        fix="use the sigmoid of ssm_beta's product as it is",
        at=("beta",),
        change=taps({"beta": lambda x, at: 2 * x}),
        tensors=("ssm_beta.weight", "ssm_ba.weight"),
    ),
    new(
        id="gated-norm-missing",
        name="gated-norm-missing",
        says="The output of the delta rule is gated without a norm.",
        fix="norm each head of the output, multiply by ssm_norm, then by silu(z)",
        at=("delta normed",),
        change=taps({"delta normed": lambda x, at: at.seen["delta output"].reshape(x.shape)}, ("delta output",)),
        tensors=("ssm_norm.weight",),
    ),
    new(
        id="gated-norm-of-all-heads",
        name="gated-norm-of-all-heads",
        says="The output of the delta rule is normed by one mean of all heads of a token, where each has its own.",
        fix="norm over the last axis of [T, Hv, Dv]",
        at=("delta normed",),
        change=taps({"delta normed": normed_as_one}, ("delta output",), lambda model: model.hp.n_v_head > 1),
        tensors=("ssm_norm.weight",),
    ),
    new(
        id="delta-gate-missing",
        name="delta-gate-missing",
        says="The output of the delta rule is not multiplied by its gate.",
        fix="multiply the normed output by silu(z)",
        at=("delta gate",),
        change=taps({"delta gate": lambda x, at: np.ones_like(x)}),
        tensors=("attn_gate.weight",),
    ),
]
