"""Print llama.cpp's nodes for the tiny model of an architecture, in their order, as golden/names/ writes them: a table begins here.

    python golden/nodes.py lfm2            without flash attention
    python golden/nodes.py lfm2 default    with it

Needs a llama.cpp, as `refmodel diff` does, and no table. An empty line is before each block; a node that has no number of its own
counts to the block before it.
"""

import argparse
import re
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent  # refmodel/golden is a link here
sys.path[:0] = [str(HERE.parent / "tests")]

import tiny  # noqa: E402

from refmodel.llamacpp import child  # noqa: E402
from refmodel.llamacpp.library import locate  # noqa: E402
from refmodel.llamacpp.nodes import Aligner, Table, Verdict, normalised  # noqa: E402
from refmodel.llamacpp.profile import PROFILES  # noqa: E402

TOKENS = [84, 104, 101, 220, 9]


class Printer(Aligner):
    """Takes every node for one that is not compared, and prints it."""

    def feed(self, op: str, name: str) -> Verdict:
        """Print a node; its block is that of the last name with a number."""
        number = re.search(r"-(\d+)(?!\S)", name)
        if number and int(number[1]) != self.block:
            self.block = int(number[1])
            print()
        print(f"  {op:16}{normalised(name, self.block)}")
        return Verdict("", "printed")

    def end(self) -> None:
        """Any node may be the last one."""


def main(architecture: str, profile: str) -> None:
    """Let llama.cpp run the architecture's tiny model, in this process."""
    child.aligner = lambda architecture, path: Printer(Table(architecture, {}))
    with tempfile.TemporaryDirectory() as folder:
        path = tiny.build(Path(folder) / "m.gguf", architecture, seed=7)
        request = {"model": str(path), "out": f"{folder}/out.safetensors", "calls": [TOKENS], "profile": asdict(PROFILES[profile])}
        request |= {"provenance": {}, "taps": True, "last": False, "keep": "", "mtp": False}
        child.run(child.Api(locate().request), request, sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", choices=tiny.SHAPES)
    parser.add_argument("profile", choices=PROFILES, nargs="?", default="exact")
    main(**vars(parser.parse_args()))
