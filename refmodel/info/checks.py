"""What in a file contradicts itself or is unusual."""

from collections.abc import Callable, Iterator

import numpy as np

from ..arch import HYBRID
from ..arch.rotation import Yarn
from ..gguf.metadata import ANY
from ..model.model import Model
from ..quants import LAYOUTS


def inconsistencies(model: Model) -> list[str]:
    """One line for each thing in the file that contradicts another, though the model loads. Empty for a sound file."""
    return [line for check in CHECKS for line in check(model)]


def _vocabulary(model: Model) -> Iterator[str]:
    md = model.file.metadata
    if "tokenizer.ggml.tokens" in md and (n := len(md.strings("tokenizer.ggml.tokens"))) != model.n_vocab:
        yield f"tokenizer.ggml.tokens has {n} entries, token_embd.weight {model.n_vocab} rows"


def _special_tokens(model: Model) -> Iterator[str]:
    md = model.file.metadata
    for key in md:
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id") and not 0 <= md.int(key, 0, *ANY) < model.n_vocab:
            yield f"{key} is {md.int(key, 0, *ANY)}, outside the vocabulary of {model.n_vocab}"


def _interval(model: Model) -> Iterator[str]:
    md, arch, how = model.file.metadata, model.architecture, model.arch.FACTS.kinds
    if how is None or how.interval in ("", how.listed):
        return
    listed, interval = f"{arch}.{how.listed}", f"{arch}.{how.interval}"
    if listed in md and interval in md and md.int(interval) > 0:
        wrong = [i for i, kind in enumerate(model.kinds) if (kind == how.kind) != ((i + 1) % md.int(interval) != 0)]
        if wrong:
            yield f"{listed} and {interval} = {md.int(interval)} disagree at blocks {wrong}: older runtimes read the interval"


def _unturned(model: Model) -> Iterator[str]:
    still = [i for i, factor in enumerate(model.hp.rope.factors) if factor == float("inf")]
    if still:
        yield f"rope.dimension_sections leave pairs {still} without a text position: they are never rotated"


def _unbalanced_route(model: Model) -> Iterator[str]:
    kinds = set(model.kinds)
    if model.architecture in HYBRID and len(kinds) == 1:
        yield f"all blocks are of kind {kinds.pop()}: llama.cpp aborts on a hybrid model with only one kind of block"


def _types(model: Model) -> Iterator[str]:
    yield from model.tensors.not_decoded


def _decays(model: Model) -> Iterator[str]:
    for name, weight in model.weights.items():
        if weight.type in LAYOUTS and name.endswith(".ssm_a") and (weight.dense(np.float32) >= 0).any():
            yield f"{name} is not below zero everywhere: it holds -exp(A_log), and this may be A_log itself"


def _unread_scaling(model: Model) -> Iterator[str]:
    """Keys of YaRN that llama.cpp reads for other architectures only."""
    md, start = model.file.metadata, f"{model.architecture}.rope.scaling."
    used = {"yarn_ext_factor": 1.0, "yarn_attn_factor": 1.0, "yarn_log_multiplier": 0.0}
    used |= {"yarn_beta_fast": Yarn.fast, "yarn_beta_slow": Yarn.slow}
    for name, value in used.items():
        if name in model.arch.FACTS.scaling:
            continue
        if model.hp.rope.unscaled and start + name in md and md[start + name] != value:
            words = f"llama.cpp does not read it for {model.architecture} and computes with {value:g}"
            yield f"{start}{name} is {md[start + name]}: {words}"


CHECKS: list[Callable[[Model], Iterator[str]]] = [
    _vocabulary,
    _special_tokens,
    _interval,
    _unturned,
    _unbalanced_route,
    _types,
    _decays,
    _unread_scaling,
]
