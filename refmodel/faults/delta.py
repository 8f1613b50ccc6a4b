"""Faults of the mathematics of the gated delta rule."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..arch import Hparams
from ..arrays import F
from ..model.model import Model
from . import delta_rules as rules
from .altered import At
from .changes import hparams, operation, taps, vectors
from .fault import LATER, Fault

new = partial(Fault, family="delta", right="refmodel.arch.qwen35:delta_net")
RULE = partial(new, at=("delta output", "new state"), right="refmodel.ops.deltanet:gated_delta_rule")
DECAY = partial(new, at=("decay",), tensors=("ssm_a",))
UNIT = partial(new, at=("unit q", "unit k"), right="refmodel.arch.qwen35:unit_norm")
BIAS = partial(new, at=("alpha and dt",), tensors=("ssm_dt.bias",))


def has_delta(model: Model) -> bool:
    """Whether there are blocks with the delta rule."""
    return model.hp.d_state > 0


def delta_rule(step: rules.Step) -> Any:
    """The change to a delta rule that takes this step."""
    return operation("gated_delta_rule", rules.rule(step), has_delta)


def unit(of: Callable[[F, At], F]) -> Any:
    """Queries and keys normed in another way: (heads before the norm, what else is known) -> heads."""

    def patch(which: str) -> Callable[[F, At], F]:
        return lambda x, at: of(at.seen[f"{which} raw"].reshape(x.shape), at)

    return taps({"unit q": patch("q"), "unit k": patch("k")}, ("q raw", "k raw"), has_delta)


def by_square_root(x: F, at: At) -> F:
    """x / max(norm, eps): the form that PyTorch's normalize has."""
    norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / np.maximum(norm, at.c.hp.unit_eps)


def when_decoding(x: F, at: At) -> F:
    """Heads that are normed in calls of several tokens only."""
    healthy = np.asarray(at.c.num.rms_norm(np.ascontiguousarray(x), at.c.hp.unit_eps / x.shape[-1])) * at.c.num.inverse_root(
        x.shape[-1]
    )
    return x if len(x) == 1 else healthy


def unit_eps(change: Callable[[Hparams], float]) -> Any:
    """Another epsilon of the unit norms, in blocks with the delta rule."""
    return hparams(lambda hp: replace(hp, eps_unit=change(hp)) if hp.d_state else hp)


def gate_first(x: F, at: At) -> F:
    """The output gated first and normed then."""
    o = at.seen["delta output"]
    gated = np.ascontiguousarray(o * np.asarray(at.c.num.silu(at.seen["z"])).reshape(o.shape))
    return (np.asarray(at.c.num.rms_norm(gated, at.c.hp.eps)) * at.w.ssm_norm.dense(at.c.num.dtype)).reshape(x.shape)


FAULTS: list[Fault] = [
    DECAY(
        id="F27",
        name="ssm-a-exp-twice",
        says="ssm_a is read as the logarithm A_log: it is exponentiated and negated again.",
        evidence="1bit-MONSTER #1475, sglang #36864, imp #61",
        fix="a GGUF has -exp(A_log) in ssm_a: multiply by it as it is",
        change=vectors("ssm_a", lambda a, hp: -np.exp(a)),
    ),
    DECAY(
        id="F27",
        name="ssm-a-log-forgotten",
        says="ssm_a of a file was written as -A_log: the exponential is missing.",
        evidence="1bit-MONSTER #1460",
        fix="write -exp(A_log) to ssm_a, and take log(-ssm_a) on the way back",
        change=vectors("ssm_a", lambda a, hp: -np.log(np.maximum(-a, 1e-30))),
    ),
    DECAY(
        id="F27",
        name="ssm-a-sign",
        says="ssm_a is negated, though the file has it negative already: states grow.",
        evidence="1bit-MONSTER #1475",
        fix="a GGUF has -exp(A_log) in ssm_a: multiply by it as it is",
        change=vectors("ssm_a", lambda a, hp: -a),
    ),
    BIAS(
        id="F28",
        name="dt-bias-missing",
        says="ssm_dt is not added to alpha.",
        evidence="ollama37 #22, mlx-lm #1153",
        fix="add ssm_dt.bias before the softplus",
        change=vectors("ssm_dt_bias", lambda b, hp: np.zeros_like(b)),
    ),
    BIAS(
        id="F28",
        name="dt-bias-twice",
        says="ssm_dt is added to alpha twice.",
        evidence="mlx-lm #1792",
        fix="add ssm_dt.bias once, before the softplus",
        change=vectors("ssm_dt_bias", lambda b, hp: 2 * b),
    ),
    BIAS(
        id="F28",
        name="dt-bias-by-key-head",
        says="ssm_dt is indexed by the key head, not by the value head.",
        evidence="mlx-lm #1792",
        fix="ssm_dt.bias has a number for each value head",
        change=vectors("ssm_dt_bias", lambda b, hp: b[np.arange(len(b)) % hp.n_k_head]),
    ),
    UNIT(
        id="F29",
        name="l2-missing",
        says="Queries and keys of the delta rule are not divided by their lengths.",
        evidence="flashinfer #5255, quant.cpp 53b3323",
        fix="divide each head of q and k by its length after the convolution",
        change=unit(lambda x, at: x),
    ),
    UNIT(
        id="F30",
        name="l2-as-rms",
        says="Queries and keys of the delta rule are divided by the root of the mean square, not of the sum: they have length √Dk.",
        evidence="1bit-MONSTER #2134",
        fix="divide by the square root of the sum of squares: an RMS norm, times Dk^-0.5",
        change=unit(lambda x, at: np.asarray(at.c.num.rms_norm(np.ascontiguousarray(x), at.c.hp.unit_eps / x.shape[-1]))),
    ),
    UNIT(
        id="F31",
        name="l2-max-form",
        says="The epsilon of the unit norms is a lower bound of the length, where it is added to the square sum.",
        evidence="llama.cpp #28068, transformers #40842, lattice #1583, imp #28",
        fix="divide by √(Σx² + eps)",
        change=unit(by_square_root),
        placebo=True,
    ),
    new(
        id="F31",
        name="l2-eps-of-mean",
        says="The epsilon of the unit norms is added to the mean of the squares, not to their sum: it is Dk times as large.",
        evidence="lattice #850, mobius #51, onnxruntime-genai #2127",
        fix="add the epsilon to the sum: to a mean add eps / Dk",
        right="refmodel.arch.qwen35:unit_norm",
        at=("q mean", "k mean"),
        change=unit_eps(lambda hp: hp.unit_eps * hp.d_state),
        placebo=True,
    ),
    new(
        id="F32",
        name="q-scale-missing",
        says="The queries of the delta rule are not scaled by Dk^-0.5.",
        evidence="shainet #176",
        fix="multiply q, or what the rule gives, by Dk^-0.5",
        at=("delta output",),
        change=taps({"delta output": lambda x, at: x * at.c.hp.d_state**0.5}),
    ),
    new(
        id="F32",
        name="q-scale-twice",
        says="The queries of the delta rule are scaled by Dk^-0.5 twice: once in the kernel, once before it.",
        evidence="mlx-lm #1799",
        fix="multiply q, or what the rule gives, by Dk^-0.5 once",
        at=("delta output",),
        change=taps({"delta output": lambda x, at: x * at.c.num.inverse_root(at.c.hp.d_state)}),
    ),
    RULE(
        id="F34",
        name="decay-after-write",
        says="The state decays after a token was written into it, not before.",
        evidence="the class of quant.cpp d26ca5e, which is its placebo",
        fix="S ← e^g S first; then correct it; then read it",
        change=delta_rule(rules.decay_after_write),
    ),
    RULE(
        id="F34",
        name="decay-after-read",
        says="The state decays after it was read, for the next token only.",
        evidence="the class of quant.cpp d26ca5e",
        fix="S ← e^g S first; then correct it; then read it",
        change=delta_rule(rules.decay_after_read),
    ),
    RULE(
        id="F34",
        name="prediction-before-decay",
        says="What the state knows of a key is taken from the state before its decay.",
        evidence="the class of quant.cpp d26ca5e",
        fix="S ← e^g S first; then S k is what the state knows",
        change=delta_rule(rules.decay_not_before_prediction),
    ),
    RULE(
        id="F35",
        name="delta-missing",
        says="The delta term is missing: what the state knows of a key is not taken off before the new value is written.",
        evidence="llmman #16",
        fix="write β (v - S k), not β v",
        change=delta_rule(rules.without_delta),
    ),
    RULE(
        id="F35",
        name="mamba-scan",
        says="The scan of Mamba is used instead of the delta rule.",
        evidence="ollama37 #21",
        fix="use a gated delta rule: decay, correct by β (v - S k), read",
        change=delta_rule(rules.as_mamba),
    ),
    RULE(
        id="F36",
        name="state-read-transposed",
        says="The state is read with keys and values exchanged.",
        evidence="xllm #1262, flashinfer-bench #156",
        fix="the state is [values, keys] here; a kernel that has [keys, values] multiplies from the other side",
        at=("delta output",),
        change=delta_rule(rules.read_transposed),
    ),
    new(
        id="F36",
        name="state-handed-over-transposed",
        says="The state is handed from the prompt to decoding with keys and values exchanged.",
        evidence="xllm #1262, flashinfer-bench #156",
        fix="let prefill and decode use one layout of the state, or transpose it between them",
        at=("old state",),
        change=taps({"old state": lambda x, at: x.swapaxes(-1, -2)}),
        when=LATER,
    ),
    RULE(
        id="F37",
        name="state-in-bfloat",
        says="The state of the delta rule is kept in bfloat16.",
        evidence="ollama #15865, imp #28",
        fix="keep the state in float32",
        change=delta_rule(rules.kept_in_bfloat),
    ),
    RULE(
        id="F37",
        name="state-in-half",
        says="The state of the delta rule is kept in float16.",
        evidence="ollama #15865, imp #28",
        fix="keep the state in float32",
        change=delta_rule(rules.kept_in_half),
    ),
    new(
        id="F39",
        name="z-sigmoid",
        says="The output of the delta rule is gated by the sigmoid of z, where its SiLU is meant.",
        evidence="atlas #754, vllm #40245, fla #1182",
        fix="multiply the normed output by silu(z), unless the model's config has output_gate_type: sigmoid",
        at=("delta gate",),
        change=taps({"delta gate": lambda x, at: at.c.num.sigmoid(at.seen["z"].reshape(x.shape))}, ("z",)),
        tensors=("attn_gate.weight",),
    ),
    new(
        id="F39",
        name="gate-before-norm",
        says="The output of the delta rule is gated before it is normed, not after.",
        evidence="vllm #40245, aiter #5392",
        fix="norm each head of the output, multiply by ssm_norm, then by silu(z)",
        at=("delta gated",),
        change=taps({"delta gated": gate_first}, ("delta output", "z")),
        tensors=("attn_gate.weight", "ssm_norm.weight"),
    ),
    new(
        id="F40",
        name="decay-transposed",
        says="The decays [tokens, heads] are read as [heads, tokens].",
        evidence="LLMs-from-scratch #1033",
        fix="transpose the gate to the layout that the rule expects",
        at=("decay",),
        change=taps({"decay": lambda x, at: np.ascontiguousarray(x.T).reshape(x.shape)}),
        tensors=("ssm_alpha.weight", "ssm_ba.weight"),
    ),
    UNIT(
        id="F47",
        name="l2-missing-in-decode",
        says="The recurrent path that decoding takes does not norm queries and keys, the path of the prompt does.",
        evidence="the class of transformers #46190 and #46873: two paths of one rule that differ",
        fix="norm q and k before either path",
        change=unit(when_decoding),
        when=LATER,
    ),
    new(
        id="beta-without-sigmoid",
        name="beta-without-sigmoid",
        says="Beta is used without its sigmoid.",
        evidence="a kind of fault",
        fix="take the sigmoid of the product of ssm_beta",
        at=("beta",),
        change=taps({"beta": lambda x, at: at.seen["beta raw"].reshape(x.shape)}, ("beta raw",)),
        tensors=("ssm_beta.weight", "ssm_ba.weight"),
    ),
]
