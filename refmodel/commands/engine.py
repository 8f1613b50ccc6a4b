"""Who computes the numbers of a golden, and of what is held against it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import GoldenError
from ..report.console import err
from .compiling import prepare
from .options import file_of, llama_of, numerics_of

if TYPE_CHECKING:
    from ..compare.other_side import Other
    from ..forward.numerics import Numerics
    from ..llamacpp.library import Given
    from ..model.model import Model

OURS, LIVE = "refmodel", "llamacpp"


@dataclass(frozen=True)
class Engine:
    """Who computes, as values.

    against   OURS, LIVE, or a path
    numerics  of ours; None for the default
    profile   of a live llama.cpp, in words; empty for its own settings
    names     the file of --map
    """

    against: str
    numerics: "Numerics | None"
    lib: "Given"
    profile: str
    names: Path | None

    @property
    def here(self) -> bool:
        """Whether it computes on this machine, now."""
        return self.against in (OURS, LIVE)


def engine_of(against: str, numerics: str, lib: Path | None, python: str, profile: str, names: Path | None) -> Engine:
    """The engine that the options mean. GoldenError for options that do not go together."""
    chosen = against or (LIVE if lib or python else OURS)
    if chosen != LIVE and (lib or python or profile):
        raise GoldenError(f"--against {chosen}: --llama-lib, --llama-python and --profile are for --against {LIVE}; leave them out")
    if chosen != OURS and numerics:
        raise GoldenError(f"--against {chosen}: --numerics is for --against {OURS}; leave it out")
    if chosen in (OURS, LIVE) and names:
        raise GoldenError("--map is for --against a dump; leave it out")
    return Engine(chosen, numerics_of(numerics) if numerics else None, llama_of(lib, python), profile, names)


def run_of(
    engine: Engine,
    model: "Model",
    route: str | None,
    calls: "list[list[int]] | None",
    numerics: "Numerics",
    keep: str,
    folder: Path,
) -> "Other":
    """What an engine computes.

    route     None for what a dump says
    calls     token ids, one list a call; None for what a dump says
    numerics  of ours, where the engine does not say
    keep      a regular expression: the taps that ours keeps
    folder    for what is recorded meanwhile

    Errors as the engine's own.
    """
    from ..compare.dumped import read_other
    from ..compare.own_side import own_side
    from ..llamacpp.profile import DEFAULT, profile_of
    from ..report.progress import watching
    from ..surgery.live import live

    chosen = model.route(route)
    if not engine.here:
        path = file_of(engine.against)
        with err.status(f"reading {path.name}"):
            return read_other(model, path, calls, chosen if route else None, engine.names)
    assert calls is not None
    if engine.against == LIVE:
        with err.status(f"llama.cpp computes {sum(map(len, calls))} tokens"):
            profile = profile_of(engine.profile) if engine.profile else DEFAULT
            return live(model, chosen, calls, profile, engine.lib, False, folder)
    policy = engine.numerics or numerics
    prepare(model, policy, calls)
    with watching(err, "computing") as seen:
        return own_side(model, chosen, calls, policy, keep, folder / "ours.safetensors", seen)
