"""The oracle: run a real llama.cpp on a file and tokens, in a child process, and keep every intermediate it computes.

Nothing foreign is loaded here. `record` starts `python -m refmodel.llamacpp.child`, which loads libllama through ctypes;
whatever happens there, this process gets a file or an OracleError.
"""

import importlib.util
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from ..errors import OracleError
from ..machine.files import PACKAGE
from .builds import FEATURES
from .profile import Profile

ENV = "REFMODEL_LLAMA_LIB"
THREE_WAYS = f"give a libllama or its folder with --llama-lib PATH, or in {ENV}, or pip install 'refmodel[llamacpp]'"
FOLDERS = ("", "lib", "bin", "build/bin", "bins/linux-x64")  # where a given folder may hold it
LIBLLAMA = re.compile(r"libllama(\.v[\d.]+)?\.so(\.\d+)*")
VARIANT = "libggml-cpu-haswell.so"  # of builds with one library for each CPU level: the same AVX2 bits on all newer machines
KERNELS = re.compile(r"libggml-cpu-\w+\.so")  # who gives one of them instead of libllama chooses it
PATIENCE = 600.0  # seconds without a sign of life; the longest silence is the loading of a file from a slow disk


@dataclass(frozen=True)
class Library:
    """A libllama.

    path     of the libllama
    before   what must be loaded before it, in order
    variant  its CPU kernels, where they are a file of their own
    """

    path: Path
    before: tuple[Path, ...] = ()
    variant: Path | None = None

    @property
    def build(self) -> Mapping[str, str]:
        """name, ggml (its version), commit, and kernels if they are a file of their own. OracleError if it is not a known build."""
        return build_of(self, self.path.stat().st_mtime_ns)

    def describe(self) -> str:
        """One phrase for its build: `llama.cpp 0c1e57098 (llama-cpp-python 0.3.36, ggml 0.25.3)`. OracleError as `build`."""
        return describe(self.build)


@cache
def build_of(library: Library, modified: int) -> Mapping[str, str]:
    """What a library reports about itself; a process asks once while the file (its time `modified`) is the same. OracleError."""
    build: Mapping[str, str] = ask(library, {}, str(library.path), patience=60.0)["build"]
    return build


def describe(build: Mapping[str, str]) -> str:
    """One phrase for a build: `llama.cpp 0c1e57098 (llama-cpp-python 0.3.36, ggml 0.25.3)`."""
    features = " ".join(name for name in build.get("features", "AVX2").split() if name in FEATURES)
    kernels = f", {build['kernels']} kernels" if "kernels" in build else "" if features == "AVX2" else f", {features}"
    return f"llama.cpp {build['commit']} ({build['name']}, ggml {build['ggml']}{kernels})"


@dataclass(frozen=True)
class Recording:
    """A recorded run: `path` is a safetensors trace of `tensors` tensors, whose header has `build` and `profile` too."""

    path: Path
    build: Mapping[str, str]
    profile: Profile
    tensors: int

    def describe(self) -> str:
        """One phrase: build and profile."""
        return f"{describe(self.build)}, profile {self.profile.describe()}"


def locate(lib: Path | None = None) -> Library:
    """A llama.cpp: `lib` (a libllama or its folder), else the environment's, else the installed llama_cpp package's.

    Raises OracleError: what a given path lacks, and the three ways to give one.
    """
    if lib is not None:
        return library(Path(lib), "--llama-lib")
    if given := os.environ.get(ENV):
        return library(Path(given), ENV)
    package = importlib.util.find_spec("llama_cpp")  # finds it, does not run it
    if package is None or not package.submodule_search_locations:
        raise OracleError(f"no llama.cpp found: {THREE_WAYS}")
    return library(Path(package.submodule_search_locations[0]), "the installed llama_cpp")


def library(path: Path, origin: str) -> Library:
    """The libllama that is `path` or is in it, with its neighbours; or that of the CPU kernels that `path` is.

    OracleError, which names `origin` as the source of the path, if there is none.
    """
    if not path.exists():
        raise OracleError(f"{path} (from {origin}) does not exist: {THREE_WAYS}")
    chosen = KERNELS.fullmatch(path.name) is not None
    found = path if path.is_file() and not chosen else next(_libllamas(path.parent if chosen else path), None)
    if found is None:
        raise OracleError(f"{path} (from {origin}) holds no libllama.so: {THREE_WAYS}")
    found = found.absolute()
    if not list(found.parent.glob("libggml-cpu-*.so")):
        return Library(found)  # its own references lead to its neighbours
    variant = path.absolute() if chosen else found.with_name(VARIANT)
    if not variant.is_file():
        raise OracleError(
            f"{found.parent} has kernels for several CPU levels, but not {VARIANT}, the one that is known here; give a "
            "build with that, or one with a single libggml-cpu.so"
        )
    return Library(found, tuple(_neighbour(found, stem) for stem in ("libggml-base", "libggml")), variant)


def _libllamas(folder: Path) -> Iterator[Path]:
    for below in FOLDERS:
        found = sorted((folder / below).glob("libllama*"), key=lambda p: (len(p.name), p.name))
        yield from (p for p in found if LIBLLAMA.fullmatch(p.name) and p.is_file())


def _neighbour(libllama: Path, stem: str) -> Path:
    pattern = re.compile(rf"{stem}(\.v[\d.]+)?\.so")
    found = sorted(p for p in libllama.parent.iterdir() if pattern.fullmatch(p.name))
    if not found:
        raise OracleError(f"{libllama} has no {stem}.so in its folder; give the folder of a whole llama.cpp")
    return found[0]


def record(
    model: Path,
    calls: Sequence[Sequence[int]],
    profile: Profile,
    out: Path,
    lib: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
    taps: bool = True,
    keep: str = "",
    last: bool = False,
    seen: Callable[[dict[str, int]], None] = lambda message: None,
    mtp: bool = False,
) -> Recording:
    """Let llama.cpp run the calls in order, as one sequence, and write what it computes to `out` (.safetensors).

    calls       token ids; each call is one ubatch (the first the prompt, later ones usually of one token)
    lib         a libllama, its folder, or None to locate one
    provenance  what to add to the header's: sha256 of the source, route
    taps        False: only the logits, and llama.cpp runs without a callback; the logits have the same bits
    keep        a regular expression: only taps in which it is found are stored; logits always are
    last        True: only the logits of each call's last token, as for generating: llama.cpp then runs what follows the last
                block's attention for that token only. Needs taps=False, as taps would lack the rows of the other tokens
    seen        called with {"block": N} and {"call": k} as they are done
    mtp         the prediction block too, as a draft head fed with the trunk; needs taps

    A tensor's name is its tap's (nodes.py), call k >= 1 adds @k; axes of length 1 are removed. The header's `nodes` lists,
    for each call, every node in llama.cpp's order: op, name, ne, tap, and the reason why it has none, or the operation that is
    the source of its numbers.
    Raises OracleError if there is no llama.cpp, or it refuses or crashes; then there is no file.
    """
    check_request(model, calls, taps, last, mtp)
    library = locate(lib)
    header = {
        "producer": library.describe(),
        "who": f"{library.describe()}, profile {profile.describe()}",
        "profile": asdict(profile),
        "calls": [list(map(int, call)) for call in calls],
        **(provenance or {}),
    }
    request: dict[str, Any] = {"model": str(Path(model).absolute()), "out": str(Path(out).absolute()), "provenance": header}
    request |= {"calls": header["calls"], "profile": header["profile"]}
    request |= {"taps": taps, "last": last, "keep": _checked(keep), "mtp": mtp}
    done = ask(library, request, str(model), PATIENCE, seen)
    return Recording(Path(out), done["build"], profile, done["tensors"])


def check_request(model: Path, calls: Sequence[Sequence[int]], taps: bool, last: bool, mtp: bool) -> None:
    """OracleError for what llama.cpp cannot be asked to do."""
    if not calls or not all(calls):
        raise OracleError(
            f"{model}: llama.cpp needs a token in every call; given are calls of {list(map(len, calls))} tokens; give each at "
            "least one"
        )
    if last and taps:
        raise OracleError(f"{model}: logits of only the last token are recorded without taps; ask with taps=False")
    if mtp and not taps:
        raise OracleError(f"{model}: llama.cpp's draft head reads the trunk's taps; record with taps=True")


def _checked(keep: str) -> str:
    try:
        return re.compile(keep).pattern
    except re.error as error:
        raise OracleError(f"--filter {keep}: not a regular expression ({error}); correct it, or leave it out") from None


def ask(
    library: Library,
    request: Mapping[str, Any],
    subject: str,
    patience: float,
    seen: Callable[[dict[str, int]], None] = lambda message: None,
) -> dict[str, Any]:
    """Have a fresh child do one thing with the library; its answer. OracleError about `subject` if there is none."""
    files = {"files": [str(p) for p in (*library.before, library.path)], "variant": str(library.variant or "")}
    tiled = request.get("profile", {}).get("tiled", True)
    command = [sys.executable, "-P", "-m", "refmodel.llamacpp.child"]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment(tiled)) as child,
    ):
        try:
            _hand_over(child, files | dict(request))
            for message in _messages(child, patience, subject):
                if "done" in message:
                    return message["done"]
                if "error" in message:
                    named = message["error"].startswith(subject)
                    raise OracleError(message["error"] if named else f"{subject}: {message['error']}")
                if "refused" in message:
                    raise OracleError(
                        f"{subject} {message['refused']}: {reason(log)}; correct what it reports, or give another build"
                    )
                seen(message)
            raise OracleError(
                f"{subject}: llama.cpp {_end(child.wait())}: {reason(log)}; correct what it reports, or give another build"
            )
        finally:
            child.kill()  # on Ctrl-C too; a child that has ended does not mind


def environment(tiled: bool = True) -> dict[str, str]:
    """The child's variables: ours, without those that change what llama.cpp computes, and this package first on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GGML_", "LLAMA_"))}
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), kept.get("PYTHONPATH", "")]))
    return kept | {"PYTHONPATH": path, "GGML_NO_BACKTRACE": "1"} | ({} if tiled else {"GGML_CPU_TILED_MM": "0"})


def _hand_over(child: "subprocess.Popen[bytes]", request: Mapping[str, Any]) -> None:
    assert child.stdin
    try:
        with child.stdin:
            child.stdin.write(json.dumps(request).encode())
    except BrokenPipeError:
        pass  # it died at once; who waits for its answer reports that


def _messages(child: "subprocess.Popen[bytes]", patience: float, subject: str) -> Iterator[dict[str, Any]]:
    """The child's lines, until it closes its end. OracleError after `patience` seconds without one."""
    assert child.stdout
    buffer, descriptor = b"", child.stdout.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if not selector.select(patience):
                raise OracleError(
                    f"{subject}: llama.cpp gave no sign of life for {patience:g} s and was ended; try fewer tokens, or a "
                    "smaller model"
                )
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                return
            *lines, buffer = (buffer + chunk).split(b"\n")
            yield from map(json.loads, lines)


def _end(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


# The telling line of a log is the last one in which the first of these is found that is found at all.
TELLING = ("GGML_ASSERT|GGML_ABORT|what\\(\\):", "error loading model|invalid", "[Ee]rror", "failed", "")
MEANINGS = {
    "GGML_ASSERT\\(buffer\\)": "llama.cpp aborts on a hybrid model with blocks of one kind only; "
    "give the route a block of the other kind",
}


def reason(log: IO[bytes]) -> str:
    """The last line of llama.cpp's log that explains its end, and what that means where it is known."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    found = (line for telling in TELLING for line in reversed(lines) if re.search(telling, line))
    said = re.sub(r"\S*/(?=\S+:\d+: )", "", next(found, "it said nothing"))  # without the folder it was compiled in
    return said + next((f" ({meaning})" for pattern, meaning in MEANINGS.items() if re.search(pattern, said)), "")
