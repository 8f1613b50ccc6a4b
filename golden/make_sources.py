"""Writes into golden/names/ what each tap is computed from, as llama.cpp's graphs of small random models say.

    python golden/make_sources.py [ARCHITECTURE ...]

Runs the installed llama_cpp package's llama.cpp, as make.py does. A line of a tap gets `< definition`, or several with `or`, in the
words of refmodel/llamacpp/graph.py. A second run changes nothing.
"""

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import tiny  # noqa: E402
from make import judge  # noqa: E402

from refmodel.arch import ARCHITECTURES, HYBRID  # noqa: E402
from refmodel.forward.trace import Trace  # noqa: E402
from refmodel.llamacpp.graph import Definitions, block_of, of_block  # noqa: E402
from refmodel.llamacpp.library import Library  # noqa: E402
from refmodel.llamacpp.nodes import FOLDER, LINE, Aligner, Table, table  # noqa: E402
from refmodel.llamacpp.oracle import record  # noqa: E402
from refmodel.llamacpp.profile import PROFILES  # noqa: E402

CALLS = [[1, 2, 3, 7, 9], [4]]
MORE: dict[str, list[dict[str, Any]]] = {  # shapes whose graphs have other nodes
    "gemma3": [{"window": 0, "n_layer": 2, "biases": tiny.QKV}, {"window": 0, "n_layer": 2}, {"softcap": 1.5}],
    "llama": [{"experts": 7}, {"experts": 7, "used": 1}],
    "qwen2": [{"biases": [*tiny.QKV, "output"], "tied": True}],
    "mistral3": [{"temperature": 0.0}],
    "qwen3moe": [{"used": 1}],
    "qwen35moe": [{"used": 1}],
    "qwen3next": [{"used": 1}, {"Hv": 3, "alike": "that is what is tried"}],
}
Lines = dict[tuple[str, int], set[str]]  # a line of a section -> its definitions


def shapes(architecture: str) -> list[dict[str, Any]]:
    """The shapes of the models that are run."""
    biased = {"biases": ARCHITECTURES[architecture].BIASED}
    return [{}, biased, *MORE.get(architecture, [])]


def graphs(architecture: str, library: Library) -> Iterator[Sequence[dict[str, Any]]]:
    """The nodes of every call of every model, under each profile."""
    with tempfile.TemporaryDirectory() as folder:
        for shape in shapes(architecture):
            layers = {"n_layer": 4, "interval": 2} if architecture in HYBRID and "n_layer" not in shape else {}
            model = tiny.build(Path(folder) / "m.gguf", architecture, seed=7, **layers | shape)
            for profile in PROFILES.values():
                out = record(model, CALLS, profile, Path(folder) / "t.safetensors", library).path
                yield from json.loads(Trace(out).metadata["nodes"])


def add(nodes: Sequence[dict[str, Any]], names: Table, lines: Lines) -> None:
    """Add the definitions of one graph to the lines where its nodes are placed."""
    graph = Definitions(nodes)
    for i, node in enumerate(nodes):
        if node["tap"]:
            graph.taps.setdefault(graph.roots[i], node["tap"])  # a second one has the same numbers, and no definition of its own
    aligner = Aligner(names)
    for i, node in enumerate(nodes):
        aligner.feed(node["op"], node["name"])
        if node["tap"] == graph.taps.get(graph.roots[i]) and (made := graph.of(graph.roots[i])):
            block = block_of(node["tap"])
            words = of_block(made, aligner.block if block is None else block, names.embedding)
            for place in aligner.behind:
                lines[place.section, place.line - 1].add(words)


def written(path: Path, lines: Lines) -> str:
    """The text of a table with these definitions."""
    out, section, number = list[str](), "", 0
    rows = path.read_text().splitlines()
    wide = max(len(row.split(" < ")[0].rstrip()) for row in rows if LINE.fullmatch(row.strip()) and " = " in row)
    for row in rows:
        if row.startswith("["):
            section, number = row[1:-1], 0
        elif LINE.fullmatch(row.strip()):
            made = " or ".join(sorted(lines[section, number]))
            number += 1
            row = row.split(" < ")[0].rstrip()
            row = f"{row:{wide}}  < {made}" if made else row
        out.append(row)
    return "\n".join(out) + "\n"


def main(only: Sequence[str]) -> None:
    """Write the tables of these architectures, or all."""
    library = judge()
    for architecture in only or ARCHITECTURES:
        lines: Lines = defaultdict(set)
        names = table(architecture)
        for nodes in graphs(architecture, library):
            add(nodes, names, lines)
        path = FOLDER / f"{architecture}.txt"
        path.write_text(written(path, lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="ARCHITECTURE", help="all if none is named")
    main(parser.parse_args().names)
