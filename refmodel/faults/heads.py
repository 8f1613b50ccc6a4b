"""Faults of head maps and layouts: which head reads which, and where a head's rows are."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import F
from ..model.model import Model
from .altered import At
from .changes import matrices, operation, taps
from .fault import Fault


def queries_first(x: F, at: At) -> F:
    """The queries [T, H, D] of a product that is read as all queries, then all gates."""
    full = at.seen["q product"]
    return full[:, : full.shape[1] // 2].reshape(x.shape)


def gates_last(x: F, at: At) -> F:
    """The gates of a product that is read as all queries, then all gates, in the shape of x."""
    full = at.seen["q product"]
    return full[:, full.shape[1] // 2 :].reshape(x.shape)


def read_by(order: Callable[[F, int], F]) -> Callable[..., Any]:
    """A delta rule whose value heads read other key heads: (heads of all tokens, repeats) -> one for each value head."""

    def rule(healthy: Any, hp: Any, q: F, k: F, v: F, *given: Any) -> Any:
        heads, repeats = hp.n_k_head, hp.n_v_head // hp.n_k_head
        if q.shape[1] == heads:
            return healthy(*(np.ascontiguousarray(order(x, repeats)) for x in (q, k)), v, *given)
        once = (x[:, ::repeats] for x in (q, k))  # they come repeated, a key head for each of its value heads
        return healthy(*(np.ascontiguousarray(np.tile(x, (1, repeats, 1))) for x in once), v, *given)

    return rule


def shares_keys(model: Model) -> bool:
    """Whether grouped and tiled heads differ: several key heads, and several value heads to each of them."""
    return model.hp.n_v_head > model.hp.n_k_head > 1


FAULTS = [
    Fault(
        id="F10",
        name="q-gate-halves",
        family="heads",
        says="The product of attn_q is cut into halves, all queries and all gates, where each query is followed by its own gate.",
        evidence="llmman #16, shainet #199, imp #1279",
        fix="reshape the product of attn_q to [T, H, 2, D]: first the query, then the gate of each head",
        right="refmodel.arch.qwen35:full_attention",
        at=("q part", "q gate"),
        change=taps({"q part": queries_first, "q gate": gates_last}, ("q product",), lambda model: model.hp.n_head > 1),
        tensors=("attn_q.weight",),
    ),
    Fault(
        id="F20",
        name="delta-heads-grouped",
        family="heads",
        says="Value heads of the delta rule read the wrong key heads: grouped where the file has them tiled, or the reverse.",
        evidence="vLLM-2080Ti-Definitive #107, sglang #19584, llama.cpp #21732, llama.cpp #15625",
        fix="in files whose values were reordered by the converter head h reads key head h % Hk, in others h // (Hv / Hk)",
        right="refmodel.ops.deltanet:gated_delta_rule",
        at=("delta output", "new state"),
        change=operation("gated_delta_rule", read_by(lambda x, n: np.repeat(x, n, axis=1)), shares_keys),
        tensors=("attn_qkv.weight",),
        keys=("ssm.group_count", "ssm.time_step_rank"),
    ),
    Fault(
        id="F26",
        name="qkv-parts-scrambled",
        family="heads",
        says="The rows of attn_qkv are split among queries, keys and values in equal parts per device, which mixes the three.",
        evidence="tt-forge-models #798",
        fix="split queries, keys and values apart before they are shared out among devices",
        right="refmodel.arch.qwen35:delta_net",
        at=("qkv product",),
        change=matrices("attn_qkv", lambda hp: two_devices(hp.key_dim, hp.value_dim)),
        tensors=("attn_qkv.weight",),
    ),
]


def two_devices(keys: int, values: int) -> Any:
    """The order of rows if each of two devices gets half of the queries, keys and values, and their rows are then joined."""
    parts = np.split(np.arange(2 * keys + values), [keys, 2 * keys])
    halves = [np.array_split(part, 2) for part in parts]
    return np.concatenate([half[device] for device in (0, 1) for half in halves])
