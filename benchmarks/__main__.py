"""Ratios of refmodel's speed to others', measured in turns.

    python -m benchmarks [GROUP ...] [--pairs 20] [--threads N] [--json FILE] [--plot FILE]

Groups: matvec prefill delta dequantize model transformers start cold growth memory; all if none is named. With --json the
rows are saved as each group ends, and those of an earlier run that are not measured again are kept. --show measures nothing.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

if TYPE_CHECKING:
    from .bench import Bench
    from .results import Report, Row

GROUPS = ("matvec", "prefill", "delta", "dequantize", "model", "transformers", "start", "cold", "growth", "memory")
console = Console(highlight=False, width=None if sys.stdout.isatty() else 180)


def words(text: str) -> tuple[str, ...]:
    """The words between commas, as a tuple."""
    return tuple(word for word in text.split(",") if word)


def positive(text: str) -> int:
    """A whole number of one or more; ArgumentTypeError for a smaller one."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more; name a larger number")
    return number


def arguments() -> argparse.Namespace:
    """The command line, read and checked; argparse exits with 2 for an unknown group."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=" ".join(GROUPS))
    parser.add_argument("--pairs", type=positive, default=20, help="turns of each side; fewer than 20 meet no goal")
    parser.add_argument("--threads", type=positive, default=len(os.sched_getaffinity(0)), help="of both sides")
    parser.add_argument("--types", type=words, help="tensor types of matvec, prefill and dequantize: Q4_K,Q8_0")
    parser.add_argument("--numerics", type=words, help="fast,llamacpp,reference")
    parser.add_argument("--files", type=words, help="files of model and memory: q35-4b-4,q35-4b-32")
    parser.add_argument("--phases", type=words, help="of model and transformers: decode,prefill")
    parser.add_argument(
        "--models", type=Path, default=Path.home() / ".cache" / "refmodel" / "benchmarks", help="folder of those files"
    )
    parser.add_argument("--llama-lib", type=Path, help="a libllama, or the folder that holds it")
    parser.add_argument("--hf-python", default=sys.executable, help="an interpreter with torch and transformers")
    parser.add_argument(
        "--patience", type=float, default=60.0, help="seconds to wait, before each measurement, for a quiet machine"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="save here; rows of an earlier run are kept")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios (extra [plots])")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as Markdown")
    parser.add_argument("--show", action="store_true", help="measure nothing; show what --json holds")
    given = parser.parse_args()
    if wrong := [group for group in given.groups if group not in GROUPS]:
        parser.error(f"{', '.join(wrong)}: not among {', '.join(GROUPS)}")
    return given


def refuse(why: str) -> NoReturn:
    """End with status 2 and one line about the user's mistake."""
    print(f"python -m benchmarks: error: {why}", file=sys.stderr)
    raise SystemExit(2)


def measure(given: argparse.Namespace, report: "Report") -> None:
    """Measure every group in turn and add its rows to the report.

    Numba and BLAS read the number of threads when they are imported, so it is set before.
    """
    for name in ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(given.threads)
    from refmodel.errors import RefmodelError
    from refmodel.llamacpp.library import locate

    from . import limits, machine, model, operations, processes
    from .bench import NUMERICS, PHASES, TYPES, Bench

    chosen = {name: getattr(given, name) for name in ("types", "numerics", "files", "phases") if getattr(given, name)}
    known: dict[str, Iterable[str]] = {"types": TYPES, "numerics": NUMERICS, "files": model.FILES, "phases": PHASES}
    for name, named in chosen.items():
        if wrong := [word for word in named if word not in known[name]]:
            refuse(f"--{name} {','.join(wrong)}: not among {', '.join(known[name])}")
    try:
        library = locate(given.llama_lib)
    except RefmodelError as error:
        refuse(str(error))
    bench = Bench(given.pairs, given.threads, library, given.models, hf_python=given.hf_python, **chosen)
    measured = {
        "matvec": operations.matvec,
        "prefill": operations.prefill,
        "delta": operations.delta,
        "dequantize": operations.dequantize,
        "model": model.model,
        "transformers": model.transformers,
        "start": processes.start,
        "cold": processes.cold,
        "growth": model.growth,
        "memory": processes.memory,
    }
    if (share := machine.wait_until_quiet(given.patience)) > machine.QUIET:
        console.print(f"the machine is not quiet: others use {share:.0%} of it", style="yellow")
    theirs = f"{library.describe().removeprefix('llama.cpp ')}; {bench.ggml.features()}"
    report.begin(machine.header(given.threads, {"llama.cpp": theirs}))
    report.header["bandwidth"]["before"] = limits.bandwidth(given.threads)
    for group in given.groups or GROUPS:
        with console.status(group):
            for row in watched(measured[group], bench, given.patience):
                report.add(row)
        report.header["bandwidth"]["after"] = limits.bandwidth(given.threads)
        if given.json:
            report.save(given.json)


def watched(group: "Callable[[Bench], Iterable[Row]]", bench: "Bench", patience: float) -> "Iterator[Row]":
    """The rows of a group, each with the share of the machine that other processes used just before.

    patience  seconds to wait for a quiet machine before each row
    """
    from dataclasses import replace

    from . import machine

    rows: Any = iter(group(bench))
    while True:
        share = machine.wait_until_quiet(patience)
        try:
            row = next(rows)
        except StopIteration:
            return
        yield replace(row, others=round(share, 3))


def main() -> None:
    """Measure, or show a saved run; then print the table and write what was asked for."""
    given = arguments()
    from . import show
    from .results import Report

    report = Report.load(given.json) if given.json and given.json.exists() else Report()
    if not given.show:
        measure(given, report)
    elif not report.rows:
        refuse("--show: name a saved run with --json FILE")
    show.table(report, console)
    if given.markdown:
        given.markdown.write_text(show.markdown(report))
    if given.plot:
        show.picture(report, given.plot)


if __name__ == "__main__":
    main()
