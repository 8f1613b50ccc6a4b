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

import numpy as np
import tiny
from gguf import GGMLQuantizationType
from test_live_places import ROUNDING, SCRIPT, TYPES

import refmodel
from refmodel.arch import ARCHITECTURES
from refmodel.errors import RefmodelError
from refmodel.hf.folder import read_folder
from refmodel.model.route import Route
from refmodel.numerics import REFERENCE
from refmodel.surgery.gguf import routed
from refmodel.surgery.hf_write import routed_folder
from refmodel.surgery.verify import Options, foreseen, verify
from refmodel.surgery.verify.forward import calls_of

# How the folders of a type differ: how many layers, and whether the configuration lists what they are.
FOLDERS = ((7, False), (12, False), (9, True), (4, False))
MANY_TIMES = 10  # the distance of the source's own run: rounding grows with the blocks; another block or kind leaves 100 times more
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


class Child:
    """A process that answers a line of JSON with another: transformers, or llama.cpp."""

    def __init__(self, *command: str) -> None:
        pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        self.child = subprocess.Popen(command, **pipe)

    def ask(self, **request: Any) -> Outcome:
        self.child.stdin.write(json.dumps(request) + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        return json.loads(line) if line else {"why": "the process ended"}

    def end(self) -> None:
        self.child.stdin.close()
        self.child.wait()


def folder_outcome(source: Path, copy: Path, route: Route, theirs: Child) -> Outcome:
    """What becomes of a folder under a route."""
    try:
        routed_folder(read_folder(source), route, copy)
    except RefmodelError as error:
        return {"refused": str(error).replace(str(source), "")} | told_before(source, route)
    report = verify(copy, source, route.canonical)
    said = theirs.ask(source=str(source), copy=str(copy), map=list(route.layers))
    shutil.rmtree(copy)
    equal = report.verdict in ("proved", "proved except forward") and said.get("finite") and said["apart"] <= ROUNDING
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
        theirs = Child(os.environ["REFMODEL_HF_PYTHON"], str(SCRIPT), "serve")
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
    hybrid = arch in tiny.DELTA
    shapes = (
        {"n_layer": 5, "interval": 2, "n_nextn": 1} if hybrid else {"n_layer": 4},
        {"n_layer": 6, "recurrent": [True, False, True, True, False, True]} if hybrid else {"n_layer": 7},
    )
    paths = [tiny.build(folder / f"{i}.gguf", arch, seed=31 + i, **shape) for i, shape in enumerate(shapes)]
    wide = {"E": 64, "F": 96, "D": 32, "n_rot": 16 if hybrid else 32} | ({"H": 2, "G": 1} if arch in ("qwen2", "lfm2") else {})
    wide |= {"S": 32, "Hk": 1, "Hv": 3} if hybrid else {}
    wide |= {"Fx": 32} if tiny.SHAPES[arch].experts else {}
    wide |= {"Fs": 32} if tiny.SHAPES[arch].Fs else {}
    types = lambda name: GGMLQuantizationType.Q8_0
    return [refmodel.load(path) for path in [*paths, tiny.build(folder / "q.gguf", arch, seed=33, types=types, **wide)]]


class Llamacpp:
    """llama.cpp's logits of files next to ours."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "logits.npy"
        self.start()

    def start(self) -> None:
        self.child = Child(sys.executable, str(Path(__file__).with_name("llama_logits.py")))

    def apart(self, path: Path, model: Any, route: Route) -> Outcome:
        """How far the logits of the file are from those of the model under the route, relative to their norm; or why not."""
        calls = calls_of(model.n_vocab, Options())
        said = self.child.ask(model=str(path), calls=calls, out=str(self.out))
        if said:
            self.start()
            return said
        session = model.session(route, REFERENCE)
        ours = np.concatenate([session.forward(tokens) for tokens in calls])
        return {"apart": float(np.linalg.norm(ours - np.load(self.out)) / np.linalg.norm(ours))}


def gguf_outcome(model: Any, copy: Path, route: Route, theirs: Llamacpp, usual: float) -> Outcome:
    """What becomes of a GGUF under a route.

    usual  the distance of llama.cpp's run of the source from ours
    """
    try:
        routed(model, route, copy)
    except RefmodelError as error:
        return {"refused": str(error)} | told_before(model.path, route)
    report, said = verify(copy, model.path, route.canonical), theirs.apart(copy, model, route)
    if report.verdict == "proved" and said.get("apart", 1) <= MANY_TIMES * usual:
        return {"equal": said["apart"]}
    return {"third": said, "verdict": report.verdict, "first": str(report.findings[:1])}


def ggufs(ledger: Ledger, names: list[str], count: int) -> None:
    """Run the routes of GGUF files, in one process of llama.cpp."""
    for name in names:
        todo = [number for number in range(count) if (name, number) not in ledger.done]
        if not todo:
            continue
        with TemporaryDirectory(prefix="refmodel-") as folder:
            sources, theirs = models(name, Path(folder)), Llamacpp(Path(folder))
            usual = [theirs.apart(model.path, model, model.route())["apart"] for model in sources]
            for number in todo:
                model = sources[number % len(sources)]
                route = route_of(model.n_layer, random.Random(f"{name} {number}"))
                given = model, Path(folder) / "copy.gguf", route, theirs, usual[number % len(sources)]
                ledger.add(name, number, route, **gguf_outcome(*given))
            theirs.child.end()
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
