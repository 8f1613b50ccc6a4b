"""When two GGUF keys say the same: whole numbers of any width, defaults that are written out."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gguf import GGUFValueType

from ...gguf.metadata import Field
from ...model.model import Model

# Below general.architecture: what llama.cpp takes where the key is absent, so that writing it out changes nothing.
# A tuple has all values that mean the same as no key.
DEFAULTS: dict[str, Callable[[Model], Any]] = {
    "attention.causal": lambda model: True,
    "attention.key_length": lambda model: model.hp.n_embd // model.hp.n_head,
    "attention.sliding_window": lambda model: 0,
    "attention.value_length": lambda model: model.hp.n_embd // model.hp.n_head,
    "final_logit_softcapping": lambda model: 0.0,
    "full_attention_interval": lambda model: model.arch.FACTS.kinds.default if model.arch.FACTS.kinds else 0,
    "nextn_predict_layers": lambda model: 0,
    "rope.dimension_count": lambda model: model.hp.head_dim,
    "rope.freq_base": lambda model: 10000.0,
    "rope.scaling.attn_factor": lambda model: 1.0,
    "rope.scaling.factor": lambda model: 1.0,
    "rope.scaling.finetuned": lambda model: False,
    "rope.scaling.original_context_length": lambda model: model.file.metadata.int(f"{model.architecture}.context_length", 0),
    "rope.scaling.type": lambda model: ("linear",) if model.hp.rope.scale != 1.0 else ("linear", "none"),
    "vocab_size": lambda model: model.n_vocab,
}


def same(a: Field, b: Field) -> bool:
    """Whether two values mean the same: numbers by value, in any type; texts and arrays item by item."""
    if (a.type, a.item, a.count) == (b.type, b.item, b.count):
        return bytes(a.raw) == bytes(b.raw) or (a.item is None and a.value() == b.value())
    if (a.item is None) != (b.item is None) or a.count != b.count:
        return False
    x, y = a.value(), b.value()
    if a.item is None:
        return not isinstance(x, str) and not isinstance(y, str) and x == y
    texts = GGUFValueType.STRING in (a.item, b.item) or GGUFValueType.ARRAY in (a.item, b.item)
    return not texts and np.array_equal(np.asarray(x, np.float64), np.asarray(y, np.float64))


def by_default(key: str, value: Field, model: Model) -> bool:
    """Whether a key says what holds without it."""
    name = key.removeprefix(f"{model.architecture}.")
    if name == key or name not in DEFAULTS or value.item is not None:
        return False
    usual = DEFAULTS[name](model)
    return value.value() in (usual if isinstance(usual, tuple) else (usual,))
