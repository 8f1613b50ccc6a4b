"""When two GGUF keys say the same: whole numbers of any width, defaults that are written out, keys that steer nothing."""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import gguf
import numpy as np
from gguf import GGUFValueType

from ...arch import Hparams, Keys
from ...errors import RefmodelError
from ...gguf.metadata import Field, Metadata
from ...gguf.writer import field
from ...model.model import Model, rope_freqs
from ...tokenizer import Tokenizer

# Below general.architecture: what llama.cpp takes where the key is absent, so that writing it out changes nothing.
# A tuple has all values that mean the same as no key.
DEFAULTS: dict[str, Callable[[Model], Any]] = {
    "attention.causal": lambda model: True,
    "attention.key_length": lambda model: model.hp.n_embd // model.hp.n_head,
    "attention.key_length_swa": lambda model: model.hp.head_dim,
    "attention.sliding_window": lambda model: 0,
    "attention.value_length": lambda model: model.hp.n_embd // model.hp.n_head,
    "attention.value_length_swa": lambda model: model.hp.head_dim,
    "embedding_length_out": lambda model: model.hp.n_embd,
    "final_logit_softcapping": lambda model: 0.0,
    "full_attention_interval": lambda model: model.arch.FACTS.kinds.default if model.arch.FACTS.kinds else 0,
    "nextn_predict_layers": lambda model: 0,
    "rope.dimension_count": lambda model: model.hp.head_dim,
    "rope.dimension_count_swa": lambda model: model.hp.rope.n_rot,
    "rope.freq_base": lambda model: 10000.0,
    "rope.scaling.attn_factor": lambda model: 1.0,
    "rope.scaling.factor": lambda model: 1.0,
    "rope.scaling.finetuned": lambda model: (False, True),
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
    """Whether a key says what holds without it, or what nothing reads."""
    name = key.removeprefix(f"{model.architecture}.")
    if value.item is not None:
        return False
    if key.startswith("tokenizer."):
        return same_texts(key, value, model)
    if name in DEFAULTS:
        usual = DEFAULTS[name](model)
        return value.value() in (usual if isinstance(usual, tuple) else (usual,))
    return name != key and name in KNOWN and says_nothing(name, value, model)


KNOWN = {  # names of keys below general.architecture that llama.cpp's converter writes for some architecture
    key.removeprefix("{arch}.")
    for group in vars(gguf.Keys).values()
    if isinstance(group, type)
    for key in vars(group).values()
    if isinstance(key, str) and key.startswith("{arch}.")
}
DESCRIBE = {"tensor_data_layout"}  # says how a file came about
NOTHING = (0, "", "none")  # and 0.0, and False
FACTORS = {"expert_weights_scale", "logit_scale", "residual_scale", "embedding_scale"}  # 1 is nothing, too
NONSENSE = field(GGUFValueType.ARRAY, [], GGUFValueType.BOOL)


def says_nothing(name: str, value: Field, model: Model) -> bool:
    """Whether a model has the same sizes with a key and without it. One that nothing reads must say that there is nothing."""
    found = value.value()
    plain = sizes(name, None, model)
    if plain is None or sizes(name, value, model) != plain:
        return False
    is_read = sizes(name, NONSENSE, model) is None
    return is_read or name in DESCRIBE or found in NOTHING or (name in FACTORS and found == 1)


def sizes(name: str, value: Field | None, model: Model) -> Hparams | None:
    """The sizes of the source with another value of a key, or without the key; None if they cannot be read."""
    file, full = model.file, f"{model.architecture}.{name}"
    fields = {key: held for key, held in file.metadata.fields.items() if key != full} | ({full: value} if value else {})
    largest = max(prod(tensor.shape) for tensor in file.tensors.values())
    try:
        return model.arch.hparams(Keys(Metadata(file.path, fields), model.architecture, largest, rope_freqs(file)))
    except RefmodelError:
        return None


TEXTS = {key for key in vars(gguf.Keys.Tokenizer).values() if isinstance(key, str) and key.startswith("tokenizer.ggml.")}


def same_texts(key: str, value: Field, model: Model) -> bool:
    """Whether texts become the same tokens, and end with the same ones, with a key of the tokenizer and without it."""
    fields, path = model.file.metadata.fields, model.file.path
    without = {name: held for name, held in fields.items() if name != key}
    try:
        return key in TEXTS and steers(Metadata(path, without)) == steers(Metadata(path, without | {key: value}))
    except RefmodelError:
        return False


def steers(md: Metadata) -> tuple[Any, ...]:
    """What a tokenizer takes from its keys besides texts and merges."""
    found = Tokenizer.from_metadata(md)
    vocab = () if found.problem else (found.vocab.attrs, found.vocab.eog)
    return (replace(found, md=Metadata(md.path, {})), *vocab)
