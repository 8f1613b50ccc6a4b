"""What `refmodel info` shows: the architecture, the layer table, the tokenizer, and everything that looks inconsistent."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .compat import HYBRID
from .memory import anonymous, needs
from .model import Model


@dataclass(frozen=True)
class LayerRow:
    """One block of the file: its kind, and `name type shape` of each tensor."""

    index: int
    kind: str
    types: str
    bytes: int
    tensors: list[str]


def summary(model: Model) -> dict[str, str]:
    """Name -> value of what one wants to know first."""
    hp, types = model.hp, Counter(t.type.name for t in model.file.tensors.values())
    return {
        "file": str(model.path),
        "parts": str(len(model.file.parts)),
        "name": model.file.metadata.str("general.name", "-"),
        "architecture": model.architecture,
        "blocks": f"{hp.n_layer}" + (f" + {hp.n_nextn} for multi-token prediction (not executed)" if hp.n_nextn else ""),
        "kinds": ", ".join(f"{n} {kind}" for kind, n in Counter(model.kinds).items()),
        "E, vocabulary": f"{hp.n_embd}, {model.n_vocab}",
        "heads": f"{hp.n_head} query, {hp.n_head_kv} key/value, of {hp.head_dim}",
        "RoPE": f"base {hp.rope.base:g}, {hp.rope.n_rot} of {hp.head_dim} dims, pairs "
        + ("adjacent" if hp.rope.adjacent else "half apart"),
        "head": "its own matrix" if "output.weight" in model.weights else "tied to the embedding",
        "weights": f"{sum(t.data.size for t in model.file.tensors.values()):,} bytes: "
        + ", ".join(f"{n} {name}" for name, n in types.most_common()),
        "memory": memory(model),
        **{f"tokenizer {key}": value for key, value in model.tokenizer.describe().items()},
    }


def memory(model: Model) -> str:
    """What a run needs beside the file's mapping, and what this process has taken."""
    need, now = needs(model), anonymous()
    parts = [
        f"{need['cache_of_1000_tokens'] / 1e6:.1f} MB of keys and values for 1000 tokens",
        f"{need['states'] / 1e6:.1f} MB of delta rule states",
        "the weights stay packed in the file's mapping",
    ]
    return "; ".join(parts) + (f"; this process has {now / 1e6:.0f} MB that no file backs" if now else "")


def layer_table(model: Model) -> list[LayerRow]:
    rows = []
    for i in range(model.n_layer):
        tensors = [t for name, t in model.file.tensors.items() if name.startswith(f"blk.{i}.")]
        types = Counter(t.type.name for t in tensors)
        rows.append(
            LayerRow(
                index=i,
                kind=model.arch.kind(model.hp, i),
                types=", ".join(f"{n} {name}" for name, n in types.most_common()),
                bytes=sum(t.data.size for t in tensors),
                tensors=[f"{t.name.split('.', 2)[2]} {t.type.name} {list(t.shape)}" for t in tensors],
            )
        )
    return rows


def inconsistencies(model: Model) -> list[str]:
    """One line for each thing in the file that contradicts another, though the model loads."""
    return [line for check in CHECKS for line in check(model)]


def _vocabulary(model: Model) -> Iterator[str]:
    md = model.file.metadata
    if "tokenizer.ggml.tokens" in md and (n := len(md.strings("tokenizer.ggml.tokens"))) != model.n_vocab:
        yield f"tokenizer.ggml.tokens has {n} entries, token_embd.weight {model.n_vocab} rows"


def _special_tokens(model: Model) -> Iterator[str]:
    md = model.file.metadata
    for key in md:
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id") and not 0 <= md.int(key) < model.n_vocab:
            yield f"{key} is {md.int(key)}, outside the vocabulary of {model.n_vocab}"


def _interval(model: Model) -> Iterator[str]:
    md, arch = model.file.metadata, model.architecture
    listed, interval = f"{arch}.attention.recurrent_layers", f"{arch}.full_attention_interval"
    if listed in md and interval in md and md.int(interval) > 0:
        wrong = [i for i, kind in enumerate(model.kinds) if (kind == "delta") != ((i + 1) % md.int(interval) != 0)]
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


CHECKS: list[Callable[[Model], Iterator[str]]] = [_vocabulary, _special_tokens, _interval, _unturned, _unbalanced_route]
