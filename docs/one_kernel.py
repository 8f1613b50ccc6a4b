"""Run the five stages of docs/one-kernel.md and measure them: `python docs/one_kernel.py [--rows N] [--write]`."""

import argparse
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import refmodel.numerics  # noqa: F401  kernels are kept where the program keeps them

PAGE = Path(__file__).parent / "one-kernel.md"
BEGIN, END = "<!-- table: made by docs/one_kernel.py -->", "<!-- end of the table -->"
BLOCKS = 16  # of a row: 4096 weights
SLOW = {"NumPy": 64, "numbers": 4}  # of so many rows a stage multiplies one, so that it takes a second and not a minute


def stages() -> dict[str, Any]:
    """What the programs of the page define."""
    names: dict[str, Any] = {}
    for program in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(program, str(PAGE), "exec"), names)
    return names


def matrix(rows: int) -> np.ndarray:
    """Random rows of Q4_K, whose scales are small numbers."""
    r = np.random.default_rng(1)
    blocks = r.integers(0, 256, (rows, BLOCKS, 144), np.uint8)
    blocks[:, :, :4] = r.uniform(0, 0.01, (rows, BLOCKS, 2)).astype(np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


def seconds(run: Callable[[], object], times: int) -> float:
    """The shortest of a few runs: what disturbs one only makes it longer."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def measured(rows: int, times: int) -> list[tuple[str, float]]:
    """Each stage and the bytes of weights that it reads in a second; AssertionError if a bit differs from the stage before."""
    names = stages()
    weights, x = matrix(rows), np.random.default_rng(2).standard_normal((1, 256 * BLOCKS)).astype(np.float32)
    tokens, want, found = names["tokens_of"](x), None, []
    for name, stage in names["STAGES"].items():
        some = weights[: max(len(weights) // SLOW.get(name, 1) // 16 * 16, 16)]
        out = np.empty(len(some), np.float32)
        run = partial(stage, some, x) if name == "NumPy" else partial(stage, some, tokens, out)
        result = run()  # and compile it
        got = result if name == "NumPy" else out
        want = got if want is None else want
        same = min(len(got), len(want))
        assert (got[:same].view(np.uint32) == want[:same].view(np.uint32)).all(), name
        found.append((name, some.nbytes / seconds(run, times)))
    return found


def table(found: list[tuple[str, float]]) -> str:
    """The rows of the page's table."""
    return "\n".join(["| stage | GB/s |", "|---|---|", *(f"| {name} | {rate / 1e9:.3g} |" for name, rate in found)])


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--rows", type=int, default=32768)
    given.add_argument("--times", type=int, default=7)
    given.add_argument("--write", action="store_true", help="write the table into the page")
    options = given.parse_args()
    rows = table(measured(options.rows, options.times))
    print(rows)
    if options.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{rows}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
