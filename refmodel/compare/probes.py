"""Which llama.cpp is this? It is known by what it computes, not by its name: small random models, every operation tried alone."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import OracleEndedError, OracleError
from ..forward.trace import Trace
from ..llamacpp.builds import BUILDS, FEATURES, INSTRUCTIONS, Build, builds_of, compiled_for
from ..llamacpp.library import Library
from ..llamacpp.oracle import record
from ..llamacpp.profile import PROFILES
from ..machine import kernel_cache, threads
from ..machine.files import PACKAGE, user_folder, whole
from ..machine.partial import temporary_folder
from ..machine.sha256 import sha256_of
from ..model.made import made, random_of
from ..model.model import load
from ..numerics import llamacpp_by_ops
from ..ops.ggml_paths import PATHS
from ..quants import FLOATS
from .diff import diff
from .other_side import ALL, from_trace

# Together these have every operation that decides bits: both ways to pair for RoPE, attention over all and over a window, GELU,
# soft caps, the delta rule, its convolution, experts.
ARCHITECTURES = ("llama", "qwen35", "qwen3moe", "gemma3")
FEW = [list(range(1, 10)), [11]]  # tokens of a call: they are multiplied in different ways
MANY = list(range(20, 85))  # flash attention computes so many in tiles; nothing else takes another way for them


@dataclass(frozen=True)
class Known:
    """A library that was tried.

    commit    of llama.cpp, as the library reports it
    features  of the processor that it reports to use
    build     the known build whose bits agree with most of its operations
    unknown   the operations that have other bits, with the largest NMSE to ours
    ended     how it ended, if that made the trial leave weights as they are (repack=off): of rearranged ones nothing is known
    not_run   the architectures of the probes that it does not run, with the reason
    """

    commit: str
    features: str
    build: Build
    unknown: dict[str, float] = field(default_factory=dict)
    ended: str = ""
    not_run: dict[str, str] = field(default_factory=dict)

    @property
    def unpromised(self) -> frozenset[str]:
        """The operations of which no bits are promised, "" for all: of a commit that is not known, other shapes may have others."""
        known = builds_of({"commit": self.commit, "features": self.features})
        return frozenset(self.unknown) | (frozenset() if known else ALL)

    def as_json(self) -> dict[str, Any]:
        """The same as plain data for JSON."""
        return {
            "commit": self.commit,
            "features": self.features.split(),
            "build": self.build.commit,
            "cpu": self.build.instructions.name,
            "unknown": self.unknown,
            "ended": self.ended,
            "not_run": self.not_run,
        }


def known(library: Library, seen: Callable[[str], None] = lambda what: None) -> Known:
    """What the library is. It is tried once; the answer is kept in the user's cache folder under the hash of its files.

    seen  called with what is being computed

    OracleError if the library cannot be run.
    """
    path = answer_file(library)
    try:
        kept = json.loads(path.read_text())
        build = compiled_for(BUILDS[kept["build"]], INSTRUCTIONS[kept["cpu"]])
        unknown, not_run = dict(kept["unknown"]), dict(kept["not_run"])
        return Known(kept["commit"], " ".join(kept["features"]), build, unknown, str(kept["ended"]), not_run)
    except (OSError, ValueError, KeyError, TypeError):
        found = tried(library, seen)
    with suppress(OSError):  # without a cache it is tried again
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole([path]) as (out,):
            out.write(json.dumps(found.as_json()).encode())
    return found


def answer_file(library: Library) -> Path:
    """Where the answer is kept: it belongs to these libraries and this state of our own code. The file may not exist yet."""
    files = sorted(path for path in {*library.path.parent.glob("lib*.so*"), library.path} if path.is_file())
    bindings = hashlib.sha256(library.bindings.encode()).hexdigest()[:8]
    name = f"{sha256_of(files)[:32]}-{library.variant.stem if library.variant else ''}-{bindings}"
    ours = f"{kernel_cache.digest()}-{sha256_of(sorted(PACKAGE.rglob('*.py')))[:16]}"
    return user_folder() / "oracles" / ours / f"{name}.json"


@dataclass(frozen=True)
class Probe:
    """A random model, and what the library computed of it.

    traces  one for each profile of PROFILES
    ended   how the library ended where such a profile had to do without rearranged weights; "" if it did not
    """

    model: Path
    traces: Sequence[Path]
    ended: str = ""


def tried(library: Library, seen: Callable[[str], None]) -> Known:
    """Run the probes in the library, and compare every operation with the known builds.

    The library computes the next probe while one is compared. If it may be several builds, the first probe says which of them is
    nearest. Returns the build with the fewest differing operations. OracleError if the library cannot be run.
    """
    said = library.build
    named = builds_of(said)
    builds = named or candidates(said)
    with temporary_folder() as folder, ahead() as pool:
        waiting = [pool.submit(recorded, library, folder, architecture, seen) for architecture in ARCHITECTURES]
        best: Known | None = None
        for build in nearest(answered(waiting), builds, seen)[: 1 if named else None]:
            unknown = differing(answered(waiting), build, seen, None if best is None else len(best.unknown))
            if unknown is not None:
                best = Known(said["commit"], said["features"], build, unknown)
            assert best is not None
            if not best.unknown:
                break
        ended = next((probe.ended for probe in answered(waiting) if probe.ended), "")
        errors = {name: future.exception() for name, future in zip(ARCHITECTURES, waiting, strict=True)}
    assert best is not None
    return replace(best, ended=ended, not_run={name: reason_of(error) for name, error in errors.items() if error})


def reason_of(error: BaseException) -> str:
    """What an error says, without the file of the probe, which is gone."""
    return re.sub(r"^\S*/[\w-]+\.gguf:? ", "", str(error))


def nearest(probes: Iterator[Probe], builds: Sequence[Build], seen: Callable[[str], None]) -> list[Build]:
    """Those of several builds that differ from the library in the fewest operations of the first probe, in the given order."""
    if len(builds) == 1:
        return list(builds)
    first, least, best = next(probes), None, list[Build]()
    for build in builds:
        found = differing([first], build, seen, None if least is None else least + 1)
        if found is not None:
            best = [*best, build] if len(found) == least else [build]
            least = len(found)
        if least == 0:
            break
    return best


def candidates(said: Mapping[str, str]) -> list[Build]:
    """The known builds that may be nearest to one that reports a commit and features: compiled for the processors most like its.

    They are of its own commit, if that is known.
    """
    reported = frozenset(said["features"].split()) & FEATURES
    least = min(len(cpu.features ^ reported) for cpu in INSTRUCTIONS.values())
    cpus = [cpu for cpu in INSTRUCTIONS.values() if len(cpu.features ^ reported) == least]
    builds = [build for build in BUILDS.values() if build.commit == said["commit"][:7]] or BUILDS.values()
    return [compiled_for(build, cpu) for build in builds for cpu in cpus]


@contextmanager
def ahead() -> Iterator[ThreadPoolExecutor]:
    """A thread that starts what is submitted, one after the other. What it has not begun at the end of the block is left undone."""
    pool = ThreadPoolExecutor(1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def recorded(library: Library, folder: Path, architecture: str, seen: Callable[[str], None]) -> Probe:
    """A probe of an architecture, in files of a folder. OracleError if the library does not run it."""
    model = made(folder / f"{architecture}.gguf", architecture, [*FLOATS, *PATHS], random_of)
    traces, ended = [], ""
    for profile in PROFILES.values():
        seen(f"{architecture} in llama.cpp, {profile.name}")
        traces.append(folder / f"{architecture}-{profile.name}.safetensors")
        calls = FEW + [MANY] * (profile.flash_attn != "off")
        try:
            record(model, calls, profile, traces[-1], library, {"route": "identity"})
        except OracleEndedError as error:  # it may not where it leaves weights as they are
            ended = error.how
            record(model, calls, replace(profile, repack=False), traces[-1], library, {"route": "identity"})
    return Probe(model, traces, ended)


def answered(waiting: Sequence[Future[Probe]]) -> Iterator[Probe]:
    """The probes as they are done, without those that the library does not run. OracleError if it runs none."""
    refused = list[OracleError]()
    for future in waiting:
        try:
            yield future.result()
        except OracleError as error:
            refused.append(error)  # a llama.cpp that does not know this architecture
    if len(refused) == len(waiting):
        raise refused[0]


def differing(probes: Iterable[Probe], build: Build, seen: Callable[[str], None], fewer: int | None) -> dict[str, float] | None:
    """The operations that have other bits than ours of that build, started from the library's own numbers; largest NMSE of each.

    Computed by the operations of refmodel/ops: they need nothing compiled.

    fewer  None if they are not fewer than this
    """
    found: dict[str, float] = {}
    with ThreadPoolExecutor(threads.cores()) as pool:  # NumPy computes without Python's lock
        runs = ((probe.model, run) for probe in probes for run in probe.traces)
        jobs = [pool.submit(unlike, model, run, build, seen) for model, run in runs]
        for job in jobs:
            for operation, nmse in job.result():
                found[operation] = max(found.get(operation, 0.0), nmse)
            if fewer is not None and len(found) >= fewer:
                pool.shutdown(cancel_futures=True)
                return None
    return found


def unlike(path: Path, run: Path, build: Build, seen: Callable[[str], None]) -> list[tuple[str, float]]:
    """The operations of one recorded run whose bits are not those of a build, each with its NMSE; one may come more than once."""
    model, other = load(path), from_trace(Trace(run))
    assert other.arithmetic.emulates
    policy = llamacpp_by_ops(other.arithmetic.emulates.profile, build)
    rows = diff(model, other.calls, other.taps, model.route(), policy, "node", seen).rows
    judged = other.judged(rows).values()
    return [(other.operations.get(row.name, row.name), row.nmse) for row in judged if row.differ and not row.problem]
