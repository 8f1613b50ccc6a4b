"""What `refmodel info` shows: the architecture, what each tensor is, the layer table, and everything that looks inconsistent."""

from collections import Counter
from dataclasses import dataclass

from ..arch.kinds import Kinds, interval_in
from ..machine.memory import anonymous
from ..model.model import Model
from .computed import words
from .meanings import kind_meaning, tensor_meaning
from .needs import needs


@dataclass(frozen=True)
class LayerRow:
    """One block of the file: its number, its kind, its types, its bytes, and `name type shape` of each tensor."""

    index: int
    kind: str
    types: str
    bytes: int
    tensors: list[str]


@dataclass(frozen=True)
class KindRow:
    """One tensor of all blocks of a kind: its name, its types, its shape (rows, columns), and what it is for."""

    kind: str
    tensor: str
    types: str
    shape: list[int]
    meaning: str


def summary(model: Model) -> dict[str, str]:
    """The first table of `refmodel info`: name -> value."""
    hp, types = model.hp, Counter(t.type.name for t in model.file.tensors.values())
    return {
        "file": str(model.path),
        "parts": str(len(model.file.parts)),
        **({"export": f"Ollama's, read with llama.cpp's names: {'; '.join(model.file.notes)}"} if model.file.notes else {}),
        **({"a GGUF of it": f"loses: {'; '.join(model.file.remarks)}"} if model.file.remarks else {}),
        "name": model.file.metadata.str("general.name", "-"),
        "architecture": model.architecture,
        "blocks": f"{hp.n_layer}" + (f" + {hp.n_nextn} for multi-token prediction (executed with --mtp)" if hp.n_nextn else ""),
        "kinds": kinds(model),
        "E, vocabulary": f"{hp.n_embd}, {model.n_vocab}",
        "heads": heads(model),
        **{kind: text for kind in dict.fromkeys(model.kinds) if (text := kind_meaning(model.arch, hp, kind))},
        **words(model),
        "head": "its own matrix" if "output.weight" in model.weights else "tied to the embedding",
        "weights": f"{sum(t.data.size for t in model.file.tensors.values()):,} bytes: "
        + ", ".join(f"{n} {name}" for name, n in types.most_common()),
        "memory": memory(model),
        **{f"tokenizer {key}": value for key, value in model.tokenizer.describe().items()},
    }


def kinds(model: Model) -> str:
    """How many blocks of each kind there are, which they are, and what in the file says so."""
    kinds = dict.fromkeys(model.kinds)
    how = model.arch.FACTS.kinds
    if how is None:
        return f"{model.n_layer} {', '.join(kinds)}"
    found = [f"{model.kinds.count(kind)} {kind} ({ranges(blocks_of(model, kind))})" for kind in kinds]
    return ", ".join(found) + f"; {kinds_from(model, how)}"


def blocks_of(model: Model, kind: str) -> list[int]:
    """The numbers of the blocks of a kind."""
    return [i for i, found in enumerate(model.kinds) if found == kind]


def kinds_from(model: Model, how: Kinds) -> str:
    """The key, or the rule, that says which block is of which kind."""
    md, arch = model.file.metadata, model.architecture
    if not how.interval:
        return f"{arch}.{how.listed} is 0 for {how.kind}"
    listed, interval = f"{arch}.{how.listed}", f"{arch}.{how.interval}"
    if how.only and not md.int(f"{arch}.{how.only}", 0):
        return f"{arch}.{how.only} is {'0' if f'{arch}.{how.only}' in md else 'missing'}, so no block is {how.kind}"
    if listed in md and md.fields[listed].item is not None:
        return f"as {listed} lists them"
    if interval in md:
        return f"by {interval} = {interval_in(md, arch, how)}"
    return f"the file does not say; without {interval} it is {how.default}"


def ranges(numbers: list[int]) -> str:
    """Ascending numbers in short: `0-2, 4-6, 8`."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(f"{a}-{b}" if a < b else f"{a}" for a, b in zip(starts, ends, strict=True))


def heads(model: Model) -> str:
    """The numbers of query and key/value heads, and their size."""
    hp = model.hp
    own = "" if hp.head_dim * hp.n_head == hp.n_embd else f" (attention.key_length, not {hp.n_embd} / {hp.n_head})"
    return f"{hp.n_head} query, {hp.n_head_kv} key/value, of {hp.head_dim}{own}"


def memory(model: Model) -> str:
    """What a run needs besides the file's mapping, and what this process uses."""
    need, now = needs(model), anonymous()
    parts = [
        f"{need['cache_of_1000_tokens'] / 1e6:.1f} MB of keys and values for 1000 tokens",
        f"{need['states'] / 1e6:.1f} MB of recurrent states",
        "the weights stay packed in the file's mapping",
    ]
    return "; ".join(parts) + (f"; this process has {now / 1e6:.0f} MB that no file backs" if now else "")


def kind_table(model: Model) -> list[KindRow]:
    """A row for each tensor of each kind of block; one for each shape if the shapes differ between blocks."""
    found: dict[tuple[str, str, tuple[int, ...]], Counter[str]] = {}
    for i, kind in enumerate(model.kinds):
        start = f"blk.{i}."
        for name, tensor in model.file.tensors.items():
            if name.startswith(start):
                found.setdefault((kind, name.removeprefix(start), tensor.shape), Counter())[tensor.type.name] += 1
    rows = sorted(found.items(), key=lambda item: list(dict.fromkeys(model.kinds)).index(item[0][0]))
    return [
        KindRow(kind, name, counted(types), list(shape), tensor_meaning(model.arch, model.hp, name, kind))
        for (kind, name, shape), types in rows
    ]


def counted(types: Counter[str]) -> str:
    """Types with their numbers: `Q4_K`, or `20 Q5_K, 12 Q6_K` where blocks differ."""
    return ", ".join(f"{n} {name}" for name, n in types.most_common()) if len(types) > 1 else next(iter(types))


def layer_table(model: Model) -> list[LayerRow]:
    """A row for each block of the trunk."""
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
