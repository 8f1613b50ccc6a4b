"""The oracle: run a real llama.cpp on a file and tokens, and take every tensor. It runs in a child process, never in ours."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import OracleError

LIBRARY = "libllama.so"


@dataclass(frozen=True)
class Profile:
    """How llama.cpp is told to compute.

    flash_attn  "off", "on" or "auto" (on, on a CPU)
    kv          cache of keys and values: "f32" or "f16"
    repack      whether matrices may be repacked at loading (use_extra_bufts)
    """

    name: str
    flash_attn: str
    kv: str
    threads: int = 1
    repack: bool = True


PROFILES = {p.name: p for p in (Profile("exact", "off", "f32"), Profile("default", "auto", "f16"))}


def locate(lib: Path | None = None) -> Path:
    """The libllama to drive: given, named by REFMODEL_LLAMA_LIB, or the installed llama_cpp package's (which is not imported)."""
    given = lib or (Path(os.environ["REFMODEL_LLAMA_LIB"]) if os.environ.get("REFMODEL_LLAMA_LIB") else None)
    if given:
        candidates = sorted(given.glob("libllama*.so")) if given.is_dir() else [given]
        if not candidates or not candidates[0].is_file():
            raise OracleError(f"{given}: no {LIBRARY} there; give the library or the folder that holds it")
        return candidates[0].resolve()
    package = importlib.util.find_spec("llama_cpp")
    for folder in (package.submodule_search_locations or []) if package else []:
        if (path := Path(folder) / "lib" / LIBRARY).is_file():
            return path.resolve()
    raise OracleError(
        "no llama.cpp found; give one in any of three ways: pip install 'refmodel[llamacpp]', --llama-lib PATH, "
        "or the environment variable REFMODEL_LLAMA_LIB=PATH"
    )


def record(
    model: Path,
    arch: str,
    calls: Sequence[Sequence[int]],
    profile: Profile,
    out: Path,
    lib: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
    taps: bool = True,
    keep: str = "",
) -> Path:
    """Run the calls, one after another in one sequence, and write a trace of every compared node, or of the logits alone.

    arch        names the table of nodes
    provenance  goes into the trace's header beside the build and the profile
    keep        a regular expression: only taps in which it is found

    Raises OracleError with llama.cpp's own last words when it refuses, aborts or crashes.
    """
    request = {
        "lib": str(locate(lib)),
        "model": str(model),
        "arch": arch,
        "calls": [list(map(int, call)) for call in calls],
        "profile": asdict(profile),
        "out": str(out),
        "provenance": dict(provenance or {}),
        "taps": taps,
        "keep": keep,
    }
    with tempfile.TemporaryDirectory(prefix="refmodel-") as folder:
        path = Path(folder) / "request.json"
        path.write_text(json.dumps(request))
        environment = {**os.environ, "OMP_NUM_THREADS": str(profile.threads)}
        command = [sys.executable, "-m", "refmodel.llamacpp_child", str(path)]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise OracleError(why(done.returncode, done.stderr))
    return out


def why(status: int, stderr: str) -> str:
    """One line from what a failed child left behind."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if refused := [line.removeprefix("refused: ") for line in lines if line.startswith("refused: ")]:
        return refused[-1]
    telling = [line for line in lines if re.search(r"GGML_ASSERT|Error|error|failed", line)] or lines or ["it said nothing"]
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return f"llama.cpp {how}: {telling[-1]}"
