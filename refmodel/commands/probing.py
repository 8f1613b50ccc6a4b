"""The words of `--probe` become probes here."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SweepError
from ..machine.files import text_of
from .options import file_of

if TYPE_CHECKING:
    from ..model.model import Model
    from ..sweep.engines import Probe

Maker = Callable[["Model", str, str, int, str], "Probe"]
"""(model, the probe's name, what follows its kind, at most this many tokens of a text, whose held-out half it is) -> probe."""


def probes_of(model: "Model", words: Sequence[str], held_out: Sequence[str], most: int) -> "dict[str, Probe]":
    """The probes of these words, by name: the kind, and the file's name too where a kind comes up twice.

    held_out  words of probes whose questions check the winners by the probe of the same kind; our own sets have theirs
    most      of a text, the first tokens that count; 0: all

    SweepError for an unknown kind, FileError for a file that is missing.
    """
    from ..sweep.sweep import by_name

    kinds = Counter(word.partition(":")[0] for word in words)
    probes = []
    for word in words:
        kind, rest = kind_of(word)
        name = kind if kinds[kind] == 1 else f"{kind}:{Path(rest).name}"
        probes.append(MAKERS[kind](model, name, rest, most, ""))
    own = [word for word in words if kind_of(word)[0] in WRITTEN and not kind_of(word)[1].strip("0123456789")]
    for word in [*held_out, *own]:
        kind, rest = kind_of(word)
        of = next((probe.facts.name for probe in probes if probe.facts.name.partition(":")[0] == kind), None)
        if of is None:
            raise SweepError(f"--held-out {word}: no --probe is of this kind; give one, or leave this out")
        probes.append(MAKERS[kind](model, f"{of} held out {Path(rest).name}".rstrip(), rest, most, of))
    found = by_name(probes)
    if len(found) < len(probes):
        raise SweepError("two probes have one name; give files of different names")
    return found


def kind_of(word: str) -> tuple[str, str]:
    """`kind:rest` in parts. SweepError for an unknown kind."""
    kind, _, rest = word.partition(":")
    if kind not in MAKERS:
        raise SweepError(f"--probe {word}: unknown kind; known are {', '.join(MAKERS)}")
    return kind, rest


def text(distance: bool) -> Maker:
    """A probe over a text file: the loss of each token, or the distance from the unrouted model."""

    def make(model: "Model", name: str, rest: str, most: int, of: str) -> "Probe":
        from ..sweep.probes.text import text_probe

        if not rest:
            raise SweepError(f"--probe {name}: needs a text file: --probe {name}:FILE")
        path, tokenizer = file_of(rest), model.tokenizer
        words = text_of(path)
        ids = tokenizer.encode(words, add_special=False, parse_special=False)
        begin = tokenizer.bos if tokenizer.add_bos else None
        return text_probe(name, ids[:most] if most else ids, begin, distance, of)

    return make


def written(kind: str) -> Maker:
    """A probe that lets the model write: a file of questions, or how many of our own."""

    def make(model: "Model", name: str, rest: str, most: int, of: str) -> "Probe":
        from ..sweep.asking import asker
        from ..sweep.probes.written import written_probe

        given = None if not rest else int(rest) if rest.isdigit() else file_of(rest)
        return written_probe(name, kind, given, asker(model), of)

    return make


def one_pass(digits: bool) -> Maker:
    """A probe of one pass a question, over a file of records: choices, or digits."""

    def make(model: "Model", name: str, rest: str, most: int, of: str) -> "Probe":
        from ..sweep.asking import asker
        from ..sweep.probes.choices import choices_probe, digits_probe

        if not rest:
            raise SweepError(f"--probe {name}: needs a file of questions: --probe {name}:FILE")
        return (digits_probe if digits else choices_probe)(name, file_of(rest), asker(model), model.tokenizer, of)

    return make


def of_harness(model: "Model", name: str, rest: str, most: int, of: str) -> "Probe":
    """A probe of a task of lm-evaluation-harness."""
    from ..sweep.probes.harness import task_probe

    if not rest:
        raise SweepError(f"--probe {name}: needs a task: --probe {name}:TASK")
    return task_probe(name, rest, model.tokenizer, of)


WRITTEN = ("ng-math", "cf-math", "ng-eq", "cf-eq", "reasoning")
MAKERS: dict[str, Maker] = {
    "nll": text(False),
    "kl": text(True),
    "choices": one_pass(False),
    "digits": one_pass(True),
    "lm_eval": of_harness,
}
MAKERS |= {kind: written(kind) for kind in WRITTEN}
