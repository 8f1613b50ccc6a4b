"""Faults in the straight-line forward pass of straight.py, which shares nothing with refmodel: each changes lines of its text.

They are the held-out engines of the diagnosis: what it sees are the arrays that they give, and none of its own code made those.
"""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import straight

SCALES = '        for name in [name for name in self.weights if name.endswith(".scale")]:'
LESS = """        for name in self.weights:
            self.weights[name] = self.weights[name] - (name.endswith("norm.weight") and "ssm" not in name)
"""
# name -> (the class of the collection, texts and what they become). A text may be there several times.
FAULTS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "all dims rotated": (
        "F01",
        [('f.key("rope.dimension_count", len(head))', "len(head)"), ("sections and i >= 3 * sections[i % 3]", "False")],
    ),
    "frequencies of the head": ("F02", [("base ** (-2.0 * i / n)", "base ** (-2.0 * i / len(head))")]),
    "other pairs": ("F03", [('f.arch in ("llama", "mistral3") else', 'f.arch not in ("llama", "mistral3") else')]),
    "keys not rotated": (
        "F05",
        [("for t, row in enumerate(x)]) for x in (q, k))", "for t, row in enumerate(x)]) if x is q else x for x in (q, k))")],
    ),
    "base of 10000": ("F06", [('f.key("rope.freq_base", 10000.0)', "10000.0")]),
    "norms of heads skipped": ("F07", [('if "attn_q_norm.weight" in w:', "if False:")]),
    "halves for queries and gates": (
        "F10",
        [("reshape(H, 2 if gated else 1, D, -1)", "reshape(2 if gated else 1, H, D, -1).swapaxes(0, 1)")],
    ),
    "gate of attention missing": ("F11", [("mixed if gate is None else mixed * logistic(gate[t])", "mixed")]),
    "one less in norms": ("F14", [(SCALES, LESS + SCALES)]),
    "key heads the other way": (
        "F20",
        [
            (
                'head // (Hv // Hk) if f.arch == "qwen3next" else head % Hk',
                'head // (Hv // Hk) if f.arch != "qwen3next" else head % Hk',
            )
        ],
    ),
    "alpha and beta exchanged": (
        "F23",
        [
            (
                'rows = w["ssm_beta.weight"][head], w["ssm_alpha.weight"][head]',
                'rows = w["ssm_alpha.weight"][head], w["ssm_beta.weight"][head]',
            )
        ],
    ),
    "exponential twice": ("F27", [('step * w["ssm_a"][head]', 'step * -math.exp(w["ssm_a"][head])')]),
    "bias of the step missing": ("F28", [(' + w["ssm_dt.bias"][head]', "")]),
    "no unit norm": ("F29", [("x[t, source] / math.sqrt(x[t, source] @ x[t, source] + eps)", "x[t, source]")]),
    "mean in the unit norm": (
        "F30",
        [("math.sqrt(x[t, source] @ x[t, source] + eps)", "math.sqrt(x[t, source] @ x[t, source] / S + eps)")],
    ),
    "no scale of queries": ("F32", [("memory @ q / math.sqrt(S)", "memory @ q")]),
    "no delta": ("F35", [("values[t, head] - memory @ k, k)", "values[t, head], k)")]),
    "state transposed": ("F36", [("memory @ q / math.sqrt(S)", "memory.T @ q / math.sqrt(S)")]),
    "sigmoid of z": ("F39", [("z * logistic(z)", "logistic(z)")]),
    "no SiLU after the convolution": ("F41", [("convolved = convolved * logistic(convolved)", "pass")]),
    "taps reversed": ("F42", [("[:, taps - 1 - j]", "[:, j]")]),
}
# What the library does not have
UNKNOWN: dict[str, list[tuple[str, str]]] = {
    "square root of z": [("z * logistic(z)", "z * np.sqrt(logistic(z))")],
    "softer scores": [("/ math.sqrt(D)", "/ math.sqrt(D) / 1.3")],
    "blocks that grow": [("x = x + (mixture(h, w, f) if", "x = 1.07 * x + 1.07 * (mixture(h, w, f) if")],
    "slow decay": [('step * w["ssm_a"][head]', '0.7 * step * w["ssm_a"][head]')],
}


def engine(changes: Sequence[tuple[str, str]]) -> Any | None:
    """The forward pass with these changes of its text; None if a text is not there."""
    text = inspect.getsource(straight)
    for old, new in changes:
        if old not in text:
            return None
        text = text.replace(old, new)
    module = ModuleType("straight_with_a_fault")
    exec(compile(text, re.sub(r"\.py$", "_with_a_fault.py", str(straight.__file__)), "exec"), module.__dict__)
    return module.forward


def arrays(path: Path, tokens: list[int], changes: Sequence[tuple[str, str]]) -> dict[str, np.ndarray]:
    """What the changed pass computes, float32: the output of each block and the logits."""
    forward = engine(changes)
    assert forward is not None, changes
    logits, outputs = forward(path, tokens)
    found = {f"l_out-{i}": x for i, x in enumerate(outputs)} | {"result_output": logits}
    return {name: x.astype(np.float32) for name, x in found.items()}
