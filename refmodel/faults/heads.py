"""Faults of head maps and layouts: which head reads which, and where the rows of a head are."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..arch import Hparams
from ..arch.fused import by_key_head
from ..arrays import F, Ints
from ..model.model import Model
from ..quants.types import SIZES
from .altered import At
from .changes import matrices, operation, packed, taps, with_weights
from .fault import Engine, Fault

new = partial(Fault, family="heads", right="refmodel.arch.qwen35:delta_net")


def queries_first(x: F, at: At) -> F:
    """The queries [T, H, D] of a product that is read as all queries, then all gates."""
    full = at.seen["q product"]
    return full[:, : full.shape[1] // 2].reshape(x.shape)


def gates_last(x: F, at: At) -> F:
    """The gates of a product that is read as all queries, then all gates, in the shape of x."""
    full = at.seen["q product"]
    return full[:, full.shape[1] // 2 :].reshape(x.shape)


def of_pair(which: int) -> Callable[[F, At], F]:
    """One of the two parts of each head of the product of attn_q, [T, H, 2, D], in the shape of x."""
    return lambda x, at: at.seen["q product"].reshape(len(x), at.c.hp.n_head, 2, -1)[:, :, which].reshape(x.shape)


def grouped(healthy: Any, hp: Any, q: F, k: F, v: F, *given: Any) -> Any:
    """A delta rule whose value heads read the other key heads: grouped where they are tiled, tiled where they are grouped."""
    repeats = hp.n_v_head // hp.n_k_head
    if q.shape[1] == hp.n_k_head:  # value head h reads key head h mod Hk
        q, k = (np.repeat(x, repeats, axis=1) for x in (q, k))
    else:  # they come repeated, a key head for each of its value heads
        q, k = (np.tile(x[:, ::repeats], (1, repeats, 1)) for x in (q, k))
    return healthy(np.ascontiguousarray(q), np.ascontiguousarray(k), v, *given)


def shares_keys(model: Model) -> bool:
    """Whether grouped and tiled heads differ: several key heads, and several value heads to each of them."""
    return model.hp.n_v_head > model.hp.n_k_head > 1


def other_order(hp: Hparams) -> Ints:
    """The rows of all value heads, grouped by key head where they are tiled."""
    heads = np.arange(hp.value_dim).reshape(-1, hp.n_k_head, hp.d_state)
    return np.ascontiguousarray(heads.swapaxes(0, 1)).reshape(-1)


def two_devices(hp: Hparams) -> Ints:
    """The order of rows if each of two devices gets half of the queries, keys and values, and their rows are then joined."""
    parts = np.split(np.arange(hp.conv_dim), [hp.key_dim, 2 * hp.key_dim])
    halves = [np.array_split(part, 2) for part in parts]
    return np.concatenate([half[device] for device in (0, 1) for half in halves])


def blocks_as_numbers(e: Engine) -> Engine | None:
    """ssm_out with its columns regrouped by head, where each packed block is moved as if it were one number of a head."""
    if not shares_keys(e.model):
        return None
    heads, group = e.model.hp.n_v_head, e.model.hp.n_k_head

    def other(w: Any) -> Any:
        each = home_block(w)
        count = w.rows.shape[1] // each
        if count % heads:
            return None
        order = np.arange(count).reshape(group, -1, count // heads).swapaxes(0, 1).reshape(-1)
        return packed(w, lambda a, b: w.rows[a:b].reshape(b - a, count, each)[:, order].reshape(b - a, -1))

    return with_weights(e, "ssm_out", other)


def home_block(w: Any) -> int:
    """Bytes of a block of a weight's type."""
    return SIZES[w.type][1]


def fused(at: At) -> F:
    """The product of a tensor that holds, for each key head, its query, its key, its values and their gates: [T, 2 (Hk + Hv) D]."""
    hp = at.c.hp
    h = at.seen["input norm"]
    both = [np.asarray(at.c.num.linear(w, h)) for w in (at.w.attn_qkv, at.w.attn_gate)]
    rows = by_key_head(hp, {"attn_gate.weight": (1,)})
    out = np.empty((len(h), both[0].shape[1] + both[1].shape[1]), both[0].dtype)
    out[:, rows["attn_qkv"]], out[:, rows["attn_gate"]] = both
    return out


def swapped(which: str) -> Callable[[F, At], F]:
    """What `alpha` or `beta` is if the other one is read instead."""

    def patch(x: F, at: At) -> F:
        if at.w.has("ssm_ba"):
            parts = at.seen["ba product"].reshape(len(x), at.c.hp.n_k_head, 2, -1)
            return parts[:, :, int(which == "beta")].reshape(x.shape)
        other = at.w.ssm_beta if which == "alpha" else at.w.ssm_alpha
        return np.asarray(at.c.num.linear(other, at.seen["input norm"])).reshape(x.shape)

    return patch


def halves(which: int) -> Callable[[F, At], F]:
    """Betas, 0, or alphas, 1, of a product that is read as all betas, then all alphas."""
    return lambda x, at: at.seen["ba product"].reshape(len(x), 2, -1)[:, which].reshape(x.shape)


def first_heads(count: Callable[[Hparams], int]) -> Callable[[F, At], F]:
    """The first heads of x [T, Hv, D]; zeros for the rest."""

    def patch(x: F, at: At) -> F:
        out = x.reshape(len(x), at.c.hp.n_v_head, -1).copy()
        out[:, count(at.c.hp) :] = 0
        return out.reshape(x.shape)

    return patch


def cut(x: F, at: At) -> F:
    """The product of attn_qkv, cut after three parts of the width of the keys."""
    out = x.copy()
    out[..., 3 * at.c.hp.key_dim :] = 0
    return out


def has_ba(model: Model) -> bool:
    """Whether betas and alphas are one tensor."""
    return any(block.has("ssm_ba") for block in model.blocks)


FAULTS: list[Fault] = [
    new(
        id="F10",
        name="q-gate-halves",
        says="The product of attn_q is cut into halves, all queries and all gates, where each query is followed by its own gate.",
        evidence="llmman #16, shainet #199, imp #1279",
        fix="reshape the product of attn_q to [T, H, 2, D]: first the query, then the gate of each head",
        right="refmodel.arch.qwen35:full_attention",
        at=("q part", "q gate"),
        change=taps({"q part": queries_first, "q gate": gates_last}, ("q product",), lambda model: model.hp.n_head > 1),
        tensors=("attn_q.weight",),
    ),
    new(
        id="F10",
        name="q-gate-exchanged",
        says="Of the product of attn_q the first part of each head is taken for its gate, and the second for its query.",
        evidence="the class of llmman #16 and shainet #199",
        fix="reshape the product of attn_q to [T, H, 2, D]: first the query, then the gate of each head",
        right="refmodel.arch.qwen35:full_attention",
        at=("q part", "q gate"),
        change=taps({"q part": of_pair(1), "q gate": of_pair(0)}, ("q product",)),
        tensors=("attn_q.weight",),
    ),
    new(
        id="F20",
        name="delta-heads-grouped",
        says="Value heads of the delta rule read the wrong key heads: grouped where the file has them tiled, or the reverse.",
        evidence="vLLM-2080Ti-Definitive #107, sglang #19584, llama.cpp #21732, llama.cpp #15625",
        fix="in files whose values the converter reordered head h reads key head h mod Hk, in others h // (Hv / Hk)",
        right="refmodel.ops.deltanet:gated_delta_rule",
        at=("delta output", "new state"),
        change=operation("gated_delta_rule", grouped, shares_keys),
        tensors=("attn_qkv.weight",),
        keys=("ssm.group_count", "ssm.time_step_rank"),
    ),
    new(
        id="F20",
        name="z-heads-grouped",
        says="The rows of attn_gate are in the other order of heads than those of the values.",
        evidence="llama.cpp #21732, quant.cpp 5f12771, sglang #38363",
        fix="reorder values, gates, alphas, betas, ssm_a and ssm_dt alike, or none of them",
        at=("z",),
        change=matrices("attn_gate", other_order, shares_keys),
        tensors=("attn_gate.weight",),
        keys=("ssm.group_count", "ssm.time_step_rank"),
    ),
    new(
        id="F21",
        name="blocks-permuted-as-numbers",
        says="The columns of ssm_out are regrouped by head as if each packed block were one number.",
        evidence="vLLM-2080Ti-Definitive #107, vllm.cpp #2803",
        fix="permute rows, which are whole; dequantize before columns are permuted, unless heads are whole blocks",
        at=("delta mixed",),
        change=blocks_as_numbers,
        tensors=("ssm_out.weight",),
    ),
    new(
        id="F22",
        name="qkvz-in-order",
        says="A fused product of queries, keys, values and gates is read part by part, where it is stored key head by key head.",
        evidence="llama.cpp #18683",
        fix="for each key head take its query, its key, its values and their gates, in this order",
        right="refmodel.arch.fused:by_key_head",
        at=("qkv product", "z"),
        change=taps(
            {
                "qkv product": lambda x, at: fused(at)[:, : at.c.hp.conv_dim].reshape(x.shape),
                "z": lambda x, at: fused(at)[:, at.c.hp.conv_dim :].reshape(x.shape),
            },
            ("input norm",),
            has_ba,
        ),
        tensors=("ssm_in.weight", "attn_qkv.weight", "attn_gate.weight"),
    ),
    new(
        id="F23",
        name="alpha-beta-swapped",
        says="Alpha and beta of the delta rule are exchanged: each token's decay is read as its strength of correction.",
        evidence="vllm #36242, ATOM #682, ferrox #254",
        fix="the decay comes from ssm_alpha, the strength from ssm_beta; in ssm_ba the betas come first",
        at=("alpha", "beta raw"),
        change=taps({"alpha": swapped("alpha"), "beta raw": swapped("beta")}, ("ba product", "input norm")),
        tensors=("ssm_alpha.weight", "ssm_beta.weight", "ssm_ba.weight"),
    ),
    new(
        id="F23",
        name="ba-halves",
        says="The product of ssm_ba is cut into halves, where it is stored key head by key head.",
        evidence="Arcaine #11",
        fix="reshape the product to [T, Hk, 2, Hv/Hk]: for each key head its betas, then its alphas",
        right="refmodel.arch.qwen3next:delta_net",
        at=("alpha", "beta raw"),
        change=taps({"alpha": halves(1), "beta raw": halves(0)}, ("ba product",), has_ba),
        tensors=("ssm_ba.weight",),
    ),
    new(
        id="F24",
        name="z-truncated",
        says="The gate z is computed for two value heads of each key head only; for the others it is zero.",
        evidence="vllm-xpu-kernels #399",
        fix="take Hv heads of z, whatever Hv / Hk is",
        at=("z",),
        change=taps({"z": first_heads(lambda hp: 2 * hp.n_k_head)}, (), lambda model: model.hp.n_v_head > 2 * model.hp.n_k_head),
        tensors=("attn_gate.weight",),
    ),
    new(
        id="F25",
        name="qkv-truncated",
        says="The product of attn_qkv is cut after three parts of equal width, though values are wider than keys.",
        evidence="1bit-MONSTER #2435",
        fix="attn_qkv has 2 Hk Dk + Hv Dv rows",
        at=("qkv product",),
        change=taps({"qkv product": cut}, (), lambda model: model.hp.value_dim > model.hp.key_dim),
        tensors=("attn_qkv.weight",),
    ),
    new(
        id="F26",
        name="qkv-shared-out",
        says="The rows of attn_qkv are shared out among devices in equal parts, which mixes queries, keys and values.",
        evidence="tt-forge-models #798",
        fix="split queries, keys and values apart before they are shared out",
        at=("qkv product",),
        change=matrices("attn_qkv", two_devices, lambda model: bool(model.hp.d_state)),
        tensors=("attn_qkv.weight",),
    ),
]
