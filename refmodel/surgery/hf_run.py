"""Two Hugging Face folders run by transformers, in a child process: the source's layers in a route's order, and the copy as it is.

Neither torch nor transformers is loaded here, nor needs to be installed here: any Python that has them will do.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from ..arrays import F
from ..errors import OracleError
from ..machine.partial import temporary_folder

ENV = "REFMODEL_HF_PYTHON"
CHILD = Path(__file__).with_name("hf_child.py")


@dataclass(frozen=True)
class Runs:
    """The results of both runs, by tap: of the source under the route, and of the copy.

    who      the versions of transformers and torch
    refused  why the copy could not be run; empty if it was
    """

    who: str
    source: Mapping[str, F]
    copy: Mapping[str, F]
    refused: str = ""


def run_folders(
    source: Path,
    copy: Path,
    layers: Sequence[int],
    calls: Sequence[Sequence[int]],
    seen: Callable[[str], None] = lambda what: None,
    dtype: str = "auto",
) -> Runs:
    """Run both folders in the Python that REFMODEL_HF_PYTHON names, or else in this one.

    layers  which layer of the source runs at each position
    calls   token ids: the prompt, then what is read after it
    seen    gets what is done, for a spinner
    dtype   in which both are computed; auto: as each folder says

    OracleError if that Python has no transformers, or transformers cannot run the source.
    """
    python = os.environ.get(ENV) or sys.executable
    with temporary_folder() as out, TemporaryFile() as log:
        request = {
            "source": str(source.absolute()),
            "copy": str(copy.absolute()),
            "map": list(layers),
            "calls": [list(c) for c in calls],
            "out": str(out),
            "dtype": dtype,
        }
        try:
            child = subprocess.Popen(
                [python, "-I", str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        except OSError as error:
            raise OracleError(f"{python} (from {ENV}) cannot be started: {error.strerror}; name another Python there") from None
        said = answers(child, request, seen)
        failed = said[-1] if said and "error" in said[-1] else None
        if failed and failed["error"] == "python":
            raise OracleError(f"{python} cannot run transformers ({failed['why']}); name a Python that can in {ENV}")
        if failed and failed["error"] == "source":
            raise OracleError(f"{source}: transformers does not run it: {failed['why']}; leave out --against transformers")
        if not failed and len(said) < 3:
            log.seek(0)
            last = log.read().decode(errors="replace").strip().rpartition("\n")[2] or "it said nothing"
            raise OracleError(
                f"{python} ended with status {child.returncode} while it ran transformers: {last}; name another Python in {ENV}"
            )
        held = {name: dict(np.load(Path(out) / f"{name}.npz")) for name in ("source", *(() if failed else ("copy",)))}
    return Runs(said[0]["done"], held["source"], held.get("copy", {}), failed["why"] if failed else "")


def answers(child: "subprocess.Popen[str]", request: Mapping[str, Any], seen: Callable[[str], None]) -> list[dict[str, Any]]:
    """The answers of a child to a request, one JSON object a line, until it ends. The child is ended with this call."""
    said: list[dict[str, Any]] = []
    with child:
        assert child.stdin
        assert child.stdout
        try:
            with suppress(BrokenPipeError), child.stdin:  # a child that died at once has not said much, which the caller sees
                child.stdin.write(json.dumps(request))
            for line in child.stdout:
                said.append(json.loads(line))
                seen(said[-1].get("done", ""))
        finally:
            child.kill()  # on Ctrl-C too; a child that has ended does not mind
    return said
