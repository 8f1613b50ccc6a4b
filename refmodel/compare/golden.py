"""A golden: reference numbers of one run in a safetensors file, with everything that gives them their meaning.

The file's metadata has one key, `golden`, with JSON: the model's file (name, sha256, types), the calls, the route, which engine
computed the numbers, what it computes (semantics), how far right engines are from it (noise), and a sha256 of every tensor and of
all of it. Tensors are named as in traces: `result_output`, in call k `result_output@k`.
"""

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import F, Ints
from ..dumps.safetensors_file import provenance as said_in
from ..errors import GoldenError, TraceError
from ..forward.taps import in_call
from ..forward.trace import Spool, Trace
from ..llamacpp.builds import FEATURES, Build
from ..machine.boundary import from_json

if TYPE_CHECKING:  # a golden is read without Numba
    from ..model.model import Model
    from ..model.route import Route
    from .other_side import Other

VERSION = 1
LOGITS = "result_output"
NEEDED = {"version", "model", "sha256", "calls", "route", "rows", "engine", "semantics", "noise", "tensors", "digest"}


class Golden:
    """A golden that was read: nothing in it was changed since it was written.

    path    of the file
    said    what its metadata says
    arrays  tap name -> array; logits have only the tokens that `rows` says

    GoldenError if the file is no golden, is of a later version, or one bit of a tensor or of the metadata was changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.arrays = Trace(path)
        except TraceError:
            raise GoldenError(f"{path}: not a readable golden; record it with `refmodel golden record`") from None
        self.said = said_of(path, self.arrays.metadata)
        for name, digest in self.said["tensors"].items():
            if name not in self.arrays or digest_of(self.arrays[name]) != digest:
                raise GoldenError(
                    f"{path}: {name} is not what was recorded: its bytes have another sha256; get the file again, or record it anew"
                )
        if extra := sorted(set(self.arrays) - set(self.said["tensors"])):
            raise GoldenError(f"{path}: {extra[0]} was added after it was recorded; get the file again, or record it anew")

    @property
    def calls(self) -> list[list[int]]:
        """The token ids of each call."""
        return [list(call) for call in self.said["calls"]]

    @property
    def positions(self) -> list[int] | None:
        """The tokens of the whole run whose logits it has; None for all."""
        if not self.said["rows"]:
            return None
        out, start = list[int](), 0
        for call, ids in enumerate(self.calls):
            tokens = self.rows(in_call(LOGITS, call))
            out += [start + t for t in (range(len(ids)) if tokens is None else tokens.tolist())]
            start += len(ids)
        return out

    def rows(self, tap: str) -> Ints | None:
        """The tokens of the call whose logits it has, [k]; None for all."""
        found = self.said["rows"].get(tap)
        return None if found is None else np.array(found, np.int64)

    def floor(self, engine: str, tap: str) -> float:
        """The noise that was measured at a tap, see golden_noise.measured; infinite if that engine was not measured.

        engine  a key of ENGINES there, or `own`
        """
        return float(self.said["noise"].get(engine, {}).get(tap, np.inf))


def refuse_other_file(golden: Golden, model: "Model") -> None:
    """GoldenError if a golden was recorded of another file."""
    if golden.said["sha256"] != (ours := model.file.sha256()):
        raise GoldenError(
            f"{golden.path}: was recorded of another file, {golden.said['model']} with sha256 {golden.said['sha256'][:12]}…; "
            f"{model.path} has {ours[:12]}…; give that file, or record a golden of this one"
        )


def said_of(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What the metadata of a golden says. GoldenError if it is none, of a later version, or was changed."""
    cure = "record one with `refmodel golden record`"
    said = from_json(metadata.get("golden", ""), f"{path}: is no golden: `golden` of its metadata", GoldenError, cure)
    if not isinstance(said, dict) or not said.keys() >= NEEDED:
        raise GoldenError(f"{path}: its metadata is not that of a golden; record it anew")
    if said["version"] != VERSION:
        raise GoldenError(f"{path}: is a golden of version {said['version']}, known is {VERSION}; check it with a newer refmodel")
    if digest_of_all(said) != said["digest"]:
        raise GoldenError(
            f"{path}: what it says of itself was changed after it was recorded; get the file again, or record it anew"
        )
    return said


def digest_of(x: F) -> str:
    """The sha256 of an array: its dtype, shape and bytes."""
    x = np.ascontiguousarray(x)
    return hashlib.sha256(f"{x.dtype.str} {x.shape} ".encode() + x.tobytes()).hexdigest()


def digest_of_all(said: Mapping[str, Any]) -> str:
    """The sha256 of everything that a golden says, but for this one."""
    text = json.dumps({name: value for name, value in said.items() if name != "digest"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_golden(path: Path, said: Mapping[str, Any], arrays: Mapping[str, F]) -> None:
    """Write a golden; the file appears whole or not at all. TraceError for a path that does not end in .safetensors."""
    if path.suffix != ".safetensors":
        raise TraceError(f"{path}: expected a name ending in .safetensors; rename it")
    whole = {"version": VERSION, **said, "tensors": {name: digest_of(x) for name, x in arrays.items()}}
    whole["digest"] = digest_of_all(whole)
    with Spool(path, {"golden": json.dumps(whole)}) as spool:
        for name, x in arrays.items():
            spool.add(name, x)


def recorded_arrays(other: "Other", keep: Iterator[str] | Sequence[str], rows: Mapping[str, Ints] | None) -> Mapping[str, F]:
    """The arrays of a run that go into a golden.

    keep  the taps
    rows  tap of logits -> the tokens of its call that are kept; None for all that are there

    GoldenError for numbers that are not there as they were computed, or for a token whose logits the run does not have.
    """
    found: dict[str, F] = {}
    for tap in keep:
        view, x = other.views.get(tap), np.asarray(other.taps[tap])
        if view and view.kept is None:
            raise GoldenError(
                f"{other.who}: {tap} is there only in part, or rounded; a golden needs its numbers as they were computed"
            )
        if tap.partition("@")[0] == LOGITS:
            there = np.arange(len(other.calls[call_of(tap)])) if view is None or view.kept is None else view.kept
            at = {int(token): i for i, token in enumerate(there)}
            wanted = list(at) if rows is None else [int(token) for token in rows[tap]]
            if lost := [token for token in wanted if token not in at]:
                raise GoldenError(f"{other.who}: has no logits of token {lost[0]} of {tap}; choose others with --positions")
            x = x.reshape(len(there), -1)[[at[token] for token in wanted]]
        if len(x):
            found[tap] = x
    return found


def rows_of(other: "Other", chosen: Sequence[int] | None) -> dict[str, Ints]:
    """Tap of logits -> the tokens of its call, for tokens of the whole run; None for all that the run has.

    GoldenError for a token that the run does not have.
    """
    total = sum(map(len, other.calls))
    if chosen is None:
        kept = {tap: view.kept for tap, view in other.views.items() if tap.startswith(LOGITS) and view.kept is not None}
        return {tap: tokens for tap, tokens in kept.items() if len(tokens) != len(other.calls[call_of(tap)])}
    places = sorted({token + total if token < 0 else token for token in chosen})
    if not places or places[0] < 0 or places[-1] >= total:
        raise GoldenError(f"--positions: there are {total} tokens, 0 to {total - 1}; -1 is the last")
    out, start = dict[str, Ints](), 0
    for call, ids in enumerate(other.calls):
        out[in_call(LOGITS, call)] = np.array([p - start for p in places if start <= p < start + len(ids)], np.int64)
        start += len(ids)
    return out


def call_of(tap: str) -> int:
    """The call that a tap is of."""
    return int(tap.partition("@")[2] or 0)


def statement(
    model: "Model", route: "Route", other: "Other", engine: Mapping[str, Any], rows: Mapping[str, Ints]
) -> dict[str, Any]:
    """What a golden says of a run, but for the noise.

    engine  who computed it, see `engine_of`
    """
    from .semantics import semantics

    return {
        "model": model.path.name,
        "sha256": model.file.sha256(),
        "architecture": model.architecture,
        "types": dict(Counter(tensor.type.name for tensor in model.file.tensors.values())),
        "calls": [list(call) for call in other.calls],
        "route": route.canonical,
        "rows": {tap: [int(token) for token in tokens] for tap, tokens in rows.items()},
        "engine": dict(engine),
        "semantics": semantics(model, other),
    }


def engine_of(other: "Other", here: bool) -> dict[str, Any]:
    """Who computed a run.

    here  it was computed on this machine, now

    Returns kind (`llama.cpp`, `refmodel` or `dump`), who, numerics (ours that computes alike), unknown (operations whose bits are
    not known), processor and c_library (of this machine; empty if it was computed elsewhere), instructions that its sums depend on,
    and of a llama.cpp its build, profile, and which known one its operations are (oracle).
    """
    metadata = other.taps.metadata if isinstance(other.taps, Trace) else {}
    provenance = said_in(dict(metadata))
    build: Build | None = other.arithmetic.emulates.build if other.arithmetic.emulates else None
    features = provenance.get("build", {}).get("features", " ".join(sorted(build.instructions.features)) if build else "")
    return {
        "kind": "llama.cpp" if "build" in provenance else "refmodel" if here else "dump",
        "who": other.who,
        "numerics": other.arithmetic.name,
        "unknown": sorted(other.unknown),
        "processor": platform.machine() if here else "",
        "c_library": c_library() if here else "",
        "instructions": [name for name in features.split() if name in FEATURES],
        **{key: provenance[key] for key in ("build", "profile", "oracle") if key in provenance},
    }


def c_library() -> str:
    """The C library of this machine, whose e^x and sines llama.cpp and our emulation call: `glibc 2.36`."""
    return " ".join(platform.libc_ver())
