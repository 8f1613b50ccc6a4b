"""Random routes of many models: what is written runs in its own engine as the source does under the route, or it is refused.

    REFMODEL_HF_PYTHON=PYTHON python tests/many_routes.py folders OUT [--routes 200] [TYPE ...]
    REFMODEL_LLAMA_LIB=LIB    python tests/many_routes.py gguf    OUT [--routes 200] [ARCHITECTURE ...]
    python tests/many_routes.py count OUT

OUT is a file of JSON lines, one for each route; what is there already is not done again. A folder is run by transformers, a GGUF
by llama.cpp. The exit status is 1 if a route has a third outcome: it was written, and does not run or computes something else.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from test_live_places import ROUNDING, SCRIPT, TYPES

from refmodel.arch import ARCHITECTURES
from refmodel.errors import RefmodelError
from refmodel.model.route import Route
from refmodel.surgery.hf_read import read_folder
from refmodel.surgery.hf_write import routed_folder
from refmodel.surgery.verify import Options, foreseen, verify

# How the folders of a type differ: how many layers, and whether the configuration lists what they are.
FOLDERS = ((7, False), (12, False), (9, True), (4, False))
Outcome = dict[str, Any]


def route_of(n: int, r: random.Random) -> Route:
    """One window, two, any order, a part, or backwards."""
    i, j = sorted(r.sample(range(n + 1), 2))
    a, b = sorted(r.sample(range(n + 1), 2))
    kinds = (
        f"blocks:{i},{j}",
        f"blocks:{i},{j};{a},{b}",
        [r.randrange(n) for _ in range(r.randrange(1, n + 4))],
        sorted(r.sample(range(n), r.randrange(1, n + 1))),
        list(range(n))[::-1],
        [r.randrange(n)] * r.randrange(1, 4),
    )
    words = r.choices(kinds, (4, 3, 4, 3, 0.2, 1))[0]
    try:
        return Route.of(words, n)
    except RefmodelError:  # the second window does not fit the first
        return Route.of(f"blocks:{i},{j}", n)


class Ledger:
    """The outcomes in a file, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[Outcome] = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.done = {(line["name"], line["number"]) for line in self.lines}

    def add(self, name: str, number: int, route: Route, **said: Any) -> None:
        self.lines.append({"name": name, "number": number, "map": list(route.layers), "of": route.n_layer, **said})
        with self.path.open("a") as file:
            file.write(json.dumps(self.lines[-1]) + "\n")


class Transformers:
    """The child process of one model type: it makes the sources, and compares a copy with its source under the route."""

    def __init__(self, python: str) -> None:
        pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        self.child = subprocess.Popen([python, str(SCRIPT), "serve"], **pipe)

    def ask(self, **request: Any) -> Outcome:
        self.child.stdin.write(json.dumps(request) + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        return json.loads(line) if line else {"why": "the process of transformers ended"}

    def end(self) -> None:
        self.child.stdin.close()
        self.child.wait()


def folder_outcome(source: Path, copy: Path, route: Route, theirs: Transformers) -> Outcome:
    """What becomes of a folder under a route."""
    try:
        routed_folder(read_folder(source), route, copy)
    except RefmodelError as error:
        return {"refused": str(error).replace(str(source), "")} | told_before(source, route)
    report = verify(copy, source, route.canonical)
    said = theirs.ask(source=str(source), copy=str(copy), map=list(route.layers))
    shutil.rmtree(copy)
    equal = report.verdict == "proved except forward" and said.get("finite") and said["apart"] <= ROUNDING
    return {"equal": said["apart"]} if equal else {"third": said, "verdict": report.verdict, "first": str(report.findings[:1])}


def told_before(source: Path, route: Route) -> Outcome:
    """A third outcome if `route --model` calls what surgery refuses possible."""
    try:
        runs = foreseen(source, route.canonical)["runners"][0]["runs"]
    except RefmodelError:
        return {}
    return {"third": "refused, but route --model says that it runs"} if runs else {}


def folders(ledger: Ledger, names: list[str], count: int) -> None:
    """Run the routes of folders, a process of transformers for each model type."""
    for name in names:
        todo = [number for number in range(count) if (name, number) not in ledger.done]
        if not todo:
            continue
        theirs = Transformers(os.environ["REFMODEL_HF_PYTHON"])
        with TemporaryDirectory(prefix="refmodel-") as folder:
            sources = [theirs.ask(make=name, out=f"{folder}/{n}", layers=n, listed=listed) for n, listed in FOLDERS]
            for number in todo:
                made, (n, _) = sources[number % len(sources)], FOLDERS[number % len(sources)]
                route = route_of(n, random.Random(f"{name} {number}"))
                said = (
                    folder_outcome(Path(folder) / f"{n}", Path(folder) / "copy", route, theirs) if made == {} else {"third": made}
                )
                ledger.add(name, number, route, **said)
        theirs.end()
        print(name, dict(Counter(kind_of(line) for line in ledger.lines if line["name"] == name)), flush=True)


def models(arch: str, folder: Path) -> list[Any]:
    """Small models of an architecture: floats and packed, with and without lists and prediction blocks."""
    import tiny
    from gguf import GGMLQuantizationType

    import refmodel

    hybrid = arch in tiny.HYBRID
    shapes = (
        {"n_layer": 5, "interval": 2, "n_nextn": 1} if hybrid else {"n_layer": 4},
        {"n_layer": 6, "recurrent": [True, False, True, True, False, True]} if hybrid else {"n_layer": 7},
    )
    paths = [tiny.build(folder / f"{i}.gguf", arch, seed=31 + i, **shape) for i, shape in enumerate(shapes)]
    wide = {"E": 64, "F": 96, "D": 32, "n_rot": 16 if hybrid else 32} | ({"H": 2, "G": 1} if arch == "qwen2" else {})
    wide |= {"S": 32, "Hk": 1, "Hv": 3} if hybrid else {}
    wide |= {"Fx": 32} if tiny.SHAPES[arch].experts else {}
    wide |= {"Fs": 32} if tiny.SHAPES[arch].Fs else {}
    types = lambda name: GGMLQuantizationType.Q8_0
    return [refmodel.load(path) for path in [*paths, tiny.build(folder / "q.gguf", arch, seed=33, types=types, **wide)]]


def gguf_outcome(model: Any, copy: Path, route: Route, lib: Path) -> Outcome:
    """What becomes of a GGUF under a route."""
    from refmodel.surgery.gguf import routed

    try:
        routed(model, route, copy)
    except RefmodelError as error:
        return {"refused": str(error)} | told_before(model.path, route)
    try:
        report = verify(copy, model.path, route.canonical, Options(llamacpp=True, lib=lib))
    except RefmodelError as error:
        return {"third": str(error)}
    return {"equal": 0} if report.verdict == "proved" else {"third": report.verdict, "first": str(report.findings[:1])}


def ggufs(ledger: Ledger, names: list[str], count: int) -> None:
    """Run the routes of GGUF files."""
    lib = Path(os.environ["REFMODEL_LLAMA_LIB"])
    for name in names:
        with TemporaryDirectory(prefix="refmodel-") as folder:
            sources = models(name, Path(folder))
            for number in range(count):
                if (name, number) in ledger.done:
                    continue
                model = sources[number % len(sources)]
                route = route_of(model.n_layer, random.Random(f"{name} {number}"))
                ledger.add(name, number, route, **gguf_outcome(model, Path(folder) / "copy.gguf", route, lib))
        print(name, dict(Counter(kind_of(line) for line in ledger.lines if line["name"] == name)), flush=True)


def kind_of(line: Outcome) -> str:
    """Equal, refused, or the third outcome."""
    return "third" if "third" in line else "refused" if "refused" in line else "equal"


def summary(ledger: Ledger) -> Iterator[str]:
    """What became of the routes: in all, by name, and each third outcome."""
    names = dict.fromkeys(line["name"] for line in ledger.lines)
    for name in names:
        counted = Counter(kind_of(line) for line in ledger.lines if line["name"] == name)
        yield f"{name}: {', '.join(f'{n} {kind}' for kind, n in counted.most_common())}"
    why = Counter(line["refused"].split(": ", 1)[-1][:100] for line in ledger.lines if "refused" in line)
    yield from (f"refused {n}: {reason}" for reason, n in why.most_common(40))
    yield from (json.dumps(line) for line in ledger.lines if kind_of(line) == "third")
    counted = Counter(map(kind_of, ledger.lines))
    yield f"{len(names)} models, {len(ledger.lines)} routes: " + ", ".join(
        f"{counted[k]} {k}" for k in ("equal", "refused", "third")
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("folders", "gguf", "count"))
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--routes", type=int, default=200)
    given = parser.parse_intermixed_args()
    ledger = Ledger(given.out)
    if given.what == "folders":
        folders(ledger, given.names or TYPES, given.routes)
    elif given.what == "gguf":
        ggufs(ledger, given.names or list(ARCHITECTURES), given.routes)
    print("\n".join(summary(ledger)))
    sys.exit(1 if any(kind_of(line) == "third" for line in ledger.lines) else 0)


if __name__ == "__main__":
    main()
