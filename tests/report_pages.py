"""A difference with a fault in it, and how a report of it is read: for the tests of reports."""

from collections import Counter
from html.parser import HTMLParser

import numpy as np
import tiny
from diagnosing import dumped, written
from test_diff import Record
from typer.testing import CliRunner

import refmodel
from refmodel.cli import app
from refmodel.commands.engine import engine_of
from refmodel.commands.golden import again
from refmodel.compare.diff import diff
from refmodel.compare.golden import Golden
from refmodel.compare.golden_check import checked
from refmodel.compare.other_side import Other
from refmodel.compare.verdict import judge
from refmodel.faults.diagnosis.diagnosis import diagnose
from refmodel.faults.fault import Engine
from refmodel.faults.library import FAULTS
from refmodel.forward.taps import in_call
from refmodel.numerics import NUMPY, REFERENCE
from refmodel.report.diagnosis_page import diagnosis_page
from refmodel.report.diff_page import Compared
from refmodel.report.golden_page import golden_page
from refmodel.report.page import Page

VOID = {"meta", "link", "input", "br", "image"}


class Faulty(Record):
    """A tapper that changes some taps by functions, and everything after them, and keeps copies."""

    def __init__(self, faults):
        super().__init__()
        self.faults = faults

    def __call__(self, name, x):
        return super().__call__(name, self.faults.get(name, lambda x: x)(x))


def compared(folder, calls, faults, route="", **shape) -> Compared:
    """A tiny qwen35 under a route, against a run of itself with faults: tap -> function."""
    model = refmodel.load(tiny.build(folder / "m.gguf", "qwen35", seed=2, **shape))
    chosen = model.route(route)
    record = Faulty(faults)
    session = model.session(chosen, tapper=record, scores=True)
    for record.call, call in enumerate(calls):
        session.forward(call)
    record = {in_call(name, 0): x for name, x in record.items()}
    other = Other(record, calls, chosen.canonical, "", "a faulty run", REFERENCE, frozenset({""}), len(record), {})
    silent = lambda name: None
    result = diff(model, calls, record, chosen, REFERENCE, "", silent)
    return Compared(model, chosen, result, judge(model, chosen, other, silent), other, "reference")


def diagnosed(folder) -> Page:
    """The diagnosis of a tiny model with a fault, from the output of each block."""
    model, calls = refmodel.load(tiny.build(folder / "d.gguf", "qwen35")), [[5, 6, 7, 8, 9, 17, 41, 3, 11, 12]]
    library = [FAULTS["q-gate-halves"], FAULTS["delta-heads-grouped"]]
    broken = library[0].on(Engine(model, NUMPY))
    other = dumped(model, written(broken, calls, "hidden", 0.0, np.random.default_rng(1)), calls)
    return diagnosis_page(diagnose(model, other, library, lambda name: None), model, other)


def checked_golden(folder) -> Page:
    """Float32 against a golden in float64 of a tiny model, with the output of each block."""
    model, path, ids = tiny.build(folder / "g.gguf", "llama", seed=2), folder / "g.safetensors", "5,6,7,8"
    run = CliRunner().invoke
    run(app, ["golden", "record", str(model), "--tokens", ids, "--filter", "l_out", "-o", str(path)], catch_exceptions=False)
    golden, loaded = Golden(path), refmodel.load(model)
    engine = engine_of("", "reference", None, "", "", None)
    return golden_page(checked(golden, loaded, again(engine, golden, loaded, folder), engine.here))


class Read(HTMLParser):
    """What a file of HTML holds: its elements in order, what is open around each, and all text by the innermost element.

    elements  (tag, attributes)
    texts     text of each element without the text of those in it
    unclosed  what is open at the end
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.unclosed: list[int] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.texts.append("")
        if tag not in VOID:
            self.unclosed.append(len(self.elements) - 1)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.unclosed.pop()

    def handle_endtag(self, tag):
        assert self.elements[self.unclosed.pop()][0] == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if self.unclosed:
            self.texts[self.unclosed[-1]] += data

    def all(self, tag: str, **wanted: str) -> list[tuple[dict[str, str], str]]:
        """The attributes and the text of each element of that tag with those attributes; `cls` is class."""
        wanted = {"class" if name == "cls" else name: value for name, value in wanted.items()}
        found = zip(self.elements, self.texts)
        return [(a, text) for (t, a), text in found if t == tag and all(a.get(n) == v for n, v in wanted.items())]

    @property
    def twice(self) -> list[str]:
        """Ids that more than one element has."""
        counted = Counter(a["id"] for _, a in self.elements if "id" in a)
        return [name for name, count in counted.items() if count > 1]
