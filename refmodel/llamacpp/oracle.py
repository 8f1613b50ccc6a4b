"""The oracle: run a real llama.cpp on a file and tokens, in a child process, and keep every intermediate it computes."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import OracleError
from .asking import ask
from .library import Given, describe, locate
from .profile import Profile

PATIENCE = 600.0  # seconds without a sign of life; the longest silence is the loading of a file from a slow disk


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


def record(
    model: Path,
    calls: Sequence[Sequence[int]],
    profile: Profile,
    out: Path,
    lib: Given = None,
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
        "profile": asdict(profile),
        "calls": [list(map(int, call)) for call in calls],
        **(provenance or {}),
    }
    request: dict[str, Any] = {"model": str(Path(model).absolute()), "out": str(Path(out).absolute()), "provenance": header}
    request |= {"calls": header["calls"], "profile": header["profile"]}
    request |= {"taps": taps, "last": last, "keep": _checked(keep), "mtp": mtp}
    done = ask(library.request, request, str(model), PATIENCE, seen)
    return Recording(Path(out), done["build"], Profile(**done["profile"]), done["tensors"])


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
