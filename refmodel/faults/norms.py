"""Faults of norms: 1 + w, which the converters of some families fold into the file, and which of them are applied where."""

from .changes import taps, vectors
from .fault import Fault

FAULTS = [
    Fault(
        id="F14",
        name="norm-one-missing",
        family="norms",
        says="The norm of a block's input is multiplied by w, where 1 + w is meant.",
        evidence="llmman #151, shainet #176",
        fix="a GGUF has 1 + w in its norms already; weights of the original checkpoint need the 1 added, once",
        right="refmodel.forward.call:norm",
        at=("input norm",),
        change=vectors("attn_norm", lambda w, hp: w - 1),
        tensors=("attn_norm.weight",),
    ),
    Fault(
        id="F15",
        name="norm-one-twice",
        family="norms",
        says="1 is added to the weights of the norm of a block's input, to which the converter added it already.",
        evidence="quant.cpp a44df86 and 9b9ce04, mlx-vlm #2041, llama.cpp #23758",
        fix="a GGUF has 1 + w in its norms already: multiply by the file's weight as it is",
        right="refmodel.forward.call:norm",
        at=("input norm",),
        change=vectors("attn_norm", lambda w, hp: w + 1),
        tensors=("attn_norm.weight",),
    ),
    Fault(
        id="F07",
        name="qk-norm-skipped",
        family="norms",
        says="Queries and keys are not normed before they are rotated.",
        evidence="aprender #2085, tt-mlir #9042, sparkinfer #149",
        fix="norm each head of the queries and of the keys, multiply by attn_q_norm and attn_k_norm, then rotate",
        right="refmodel.arch.qwen3:attention",
        at=("q normed", "k normed"),
        change=taps(
            {
                "q normed": lambda x, at: at.seen["q part" if "q part" in at.seen else "q product"].reshape(x.shape),
                "k normed": lambda x, at: at.seen["k product"].reshape(x.shape),
            },
            ("q part", "q product", "k product"),
        ),
        tensors=("attn_q_norm.weight", "attn_k_norm.weight"),
    ),
]
