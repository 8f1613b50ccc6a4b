"""Faults of feed-forward parts and of mixtures of experts."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..arch import Hparams
from ..arrays import F, Ints, Matrices
from ..model.model import Model
from ..ops import activation
from .altered import At
from .changes import any_of, operation, taps
from .fault import Change, Fault

new = partial(Fault, family="experts", right="refmodel.arch.qwen35moe:experts")
SHARED = partial(
    new,
    at=("shared expert's share",),
    right="refmodel.arch.qwen35moe:shared_expert",
    tensors=("ffn_gate_inp_shexp.weight",),
)
GATED = partial(Fault, family="experts", at=("ffn product", "expert product"), right="refmodel.ops.activation:swiglu")
DENSE = partial(Fault, family="experts", at=("ffn swiglu", "expert product"), right="refmodel.ops.activation:swiglu")
GELU = partial(Fault, family="experts", at=("ffn geglu",), right="refmodel.ops.activation:geglu")


def of_gates(other: Callable[..., F]) -> Change:
    """Another product of gate and up, whichever activation it has: (healthy product, hp, gate, up) -> product."""
    return any_of(operation("swiglu", other), operation("geglu", other))


def one_fewer(x: F, at: At) -> F:
    """The shares of a token's experts [T, U] if there were one fewer: the last one's is shared out among the others."""
    kept = np.concatenate([x[:, :-1], np.zeros_like(x[:, -1:])], axis=1)
    return kept / kept.sum(axis=1, keepdims=True)


def exchanged(healthy: Any, hp: Hparams, w: Matrices, x: F, ids: Ints) -> F:
    """The products of experts 0 and 1 are exchanged."""
    return np.asarray(healthy(w, x, np.where(ids < 2, 1 - ids, ids)))


def exchanged_in(axes: int, healthy: Any, hp: Hparams, gate: F, up: F) -> F:
    """Gate and up exchanged where the arrays have so many axes: 3 for chosen experts, 2 for what every token goes through."""
    return np.asarray(healthy(up, gate) if gate.ndim == axes else healthy(gate, up))


def has_shared_expert(model: Model) -> bool:
    """Whether blocks have an expert that every token goes to, next to chosen ones."""
    return any(block.has("ffn_gate_shexp") for block in model.blocks)


def relu(x: F) -> F:
    """x where it is positive, else 0."""
    return np.maximum(x, 0)


def gelu_quick(x: F) -> F:
    """x · sigmoid(1.702 x), the coarse approximation of a GELU that CLIP has. Source: arXiv:1606.08415."""
    return np.asarray(x * activation.sigmoid(np.asarray(1.702 * x, x.dtype)), x.dtype)


def gated_by(other: Callable[[F], F]) -> Change:
    """Another activation of the gate, whichever the healthy one is."""
    return of_gates(lambda healthy, hp, gate, up: np.asarray(other(gate) * up, gate.dtype))


def gelu_by_erf(healthy: Any, hp: Hparams, gate: F, up: F) -> F:
    """The exact GELU, by the error function."""
    exact = np.vectorize(lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2))), otypes=[np.float64])
    return np.asarray((exact(gate.astype(np.float64)) * up).astype(gate.dtype))


FAULTS: list[Fault] = [
    new(
        id="F72",
        name="shares-not-normed",
        says="The shares of a token's experts do not add up to 1: the chosen probabilities are used as they are.",
        evidence="sglang #36864, aprender #1741",
        fix="divide the chosen probabilities by their sum, unless the model's config has norm_topk_prob: false",
        at=("shares",),
        change=taps({"shares": lambda x, at: at.seen["chosen probabilities"].reshape(x.shape)}, ("chosen probabilities",)),
        tensors=("ffn_gate_inp.weight",),
        keys=("expert_used_count",),
    ),
    new(
        id="F72",
        name="shares-equal",
        says="All chosen experts of a token count alike.",
        evidence="1bit-MONSTER #2134",
        fix="weigh each chosen expert by its probability",
        at=("shares",),
        change=taps({"shares": lambda x, at: np.full_like(x, 1 / x.shape[-1])}),
        tensors=("ffn_gate_inp.weight",),
    ),
    SHARED(
        id="F72",
        name="shared-expert-ungated",
        says="The expert that every token goes to is added whole, without its gate.",
        evidence="1bit-MONSTER #2134, sglang #36864",
        fix="multiply the shared expert by the sigmoid of ffn_gate_inp_shexp",
        change=taps({"shared expert's share": lambda x, at: np.ones_like(x)}),
    ),
    SHARED(
        id="F72",
        name="shared-expert-score",
        says="The expert that every token goes to is multiplied by its score, without a sigmoid.",
        evidence="ollama #14077",
        fix="take the sigmoid of the product with ffn_gate_inp_shexp",
        change=taps(
            {"shared expert's share": lambda x, at: at.seen["shared expert's score"].reshape(x.shape)}, ("shared expert's score",)
        ),
    ),
    new(
        id="F72",
        name="router-sigmoid",
        says="The router's scores go through a sigmoid, where a softmax over all experts is meant.",
        evidence="a kind of fault: DeepSeek's router has a sigmoid",
        fix="take the softmax over all experts, then the largest",
        at=("router probabilities",),
        change=taps({"router probabilities": lambda x, at: at.c.num.sigmoid(at.seen["router"])}, ("router",)),
        tensors=("ffn_gate_inp.weight",),
    ),
    new(
        id="experts-one-fewer",
        name="experts-one-fewer",
        says="One expert fewer is taken for each token.",
        evidence="a kind of loading fault: a default in place of the file's count",
        fix="read expert_used_count",
        at=("shares",),
        change=taps({"shares": one_fewer}, (), lambda model: model.hp.n_used > 1),
        keys=("expert_used_count",),
    ),
    SHARED(
        id="shared-expert-missing",
        name="shared-expert-missing",
        says="The shared expert is left out.",
        evidence="a kind of fault of engines that know mixtures without one",
        fix="add the shared expert's output to that of the chosen ones",
        at=("shared expert",),
        change=taps({"shared expert": lambda x, at: np.zeros_like(x)}),
        tensors=("ffn_gate_shexp.weight", "ffn_up_shexp.weight", "ffn_down_shexp.weight"),
    ),
    new(
        id="experts-exchanged",
        name="experts-exchanged",
        says="The matrices of experts 0 and 1 are exchanged.",
        evidence="a kind of converter fault",
        fix="stack the experts' matrices in the order of their numbers",
        at=("expert gate", "expert up", "expert down"),
        change=operation("experts", exchanged, lambda model: model.hp.n_expert > 1),
        tensors=("ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight"),
    ),
    GATED(
        id="ffn-gate-missing",
        name="ffn-gate-missing",
        says="The gate of the feed-forward part is dropped.",
        evidence="a kind of fault",
        fix="multiply ffn_up by the activation of ffn_gate",
        change=of_gates(lambda healthy, hp, gate, up: up.copy()),
        tensors=("ffn_gate.weight",),
    ),
    GATED(
        id="ffn-gate-and-up-exchanged",
        name="ffn-gate-and-up-exchanged",
        says="The activation is applied to ffn_up, and ffn_gate is multiplied by it.",
        evidence="a kind of fault of fused gate and up",
        fix="apply the activation to ffn_gate; where both are one tensor the gates come first",
        change=of_gates(lambda healthy, hp, gate, up: healthy(up, gate)),
        tensors=("ffn_gate.weight", "ffn_up.weight"),
    ),
    *(
        Fault(
            id=f"{name}-gate-and-up-exchanged",
            name=f"{name}-gate-and-up-exchanged",
            family="experts",
            says=f"The activation is applied to what {words} up-projects, and the gate is multiplied by it, in no other part.",
            evidence="a kind of fault of stacked or fused gate and up",
            fix="apply the activation to the gate; where both are one tensor the gates come first",
            right="refmodel.ops.activation:swiglu",
            at=(site,),
            change=operation("swiglu", partial(exchanged_in, axes), has_shared_expert),
            tensors=tensors,
        )
        for name, words, site, axes, tensors in (
            ("experts", "each chosen expert", "expert product", 3, ("ffn_gate_exps.weight", "ffn_up_exps.weight")),
            ("shared-expert", "the shared expert", "ffn swiglu", 2, ("ffn_gate_shexp.weight", "ffn_up_shexp.weight")),
        )
    ),
    *(
        GATED(
            id=f"ffn-{name}",
            name=f"ffn-{name}",
            says=f"The gate of the feed-forward part is {words}, where a SiLU or a GELU by tanh is meant.",
            evidence="a kind of fault: an activation that the config names is not read",
            fix="use the activation of this architecture",
            change=gated_by(function),
            tensors=("ffn_gate.weight",),
        )
        for name, words, function in (
            ("gelu-quick", "x sigmoid(1.702 x)", gelu_quick),
            ("sigmoid", "a sigmoid, as in the first gated units", activation.sigmoid),
            ("relu", "a ReLU", relu),
        )
    ),
    DENSE(
        id="ffn-gelu",
        name="ffn-gelu",
        says="The gate of the feed-forward part is a GELU, where a SiLU is meant.",
        evidence="a kind of fault: an activation that the config names is not read",
        fix="use SiLU in this architecture",
        change=operation("swiglu", lambda healthy, hp, gate, up: np.asarray(activation.geglu(gate, up), gate.dtype)),
    ),
    GELU(
        id="ffn-silu",
        name="ffn-silu",
        says="The gate of the feed-forward part is a SiLU, where a GELU is meant.",
        evidence="a kind of fault: an activation that the config names is not read",
        fix="use GELU in this architecture",
        change=operation("geglu", lambda healthy, hp, gate, up: np.asarray(activation.swiglu(gate, up), gate.dtype)),
    ),
    GELU(
        id="ffn-gelu-by-erf",
        name="ffn-gelu-by-erf",
        says="The GELU is computed by the error function, where its approximation by tanh is meant.",
        evidence="gelu and gelu_pytorch_tanh are two activations",
        fix="use the approximation by tanh that the model was trained with",
        change=operation("geglu", gelu_by_erf),
    ),
]
