"""What a proof says: its checks, what they found, and the verdict."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

STRUCTURE, SEAMS, BYTES, METADATA, FORWARD, LLAMACPP = "structure", "seams", "bytes", "metadata", "forward", "llama.cpp"
MEANS = {
    STRUCTURE: "every block has its tensors, in the source's shapes and types, and no others",
    SEAMS: "at each jump of the route the right blocks meet",
    BYTES: "every tensor has the bytes of its source tensor",
    METADATA: "every value, per-block ones along the map, is the source's",
    FORWARD: "the file computes what the source computes under the route, to the last bit",
    LLAMACPP: "llama.cpp's run of the file agrees with our run of the source under the route",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be: where, and what."""

    where: str
    what: str


@dataclass
class Check:
    """One part of the proof.

    compared  how many things were compared
    skipped   why it was not done; empty if it was
    """

    name: str
    compared: int = 0
    findings: list[Finding] = field(default_factory=list)
    skipped: str = ""

    def found(self, where: str, what: str) -> None:
        self.findings.append(Finding(where, what))

    @property
    def word(self) -> str:
        return "WRONG" if self.findings else "not done" if self.skipped else "ok"


@dataclass
class Report:
    """The proof of a file.

    route      the route it was held against, canonical; empty if none could be found
    origin     where that route comes from: given, or recovered from the hashes
    recovered  what the hashes say, canonical; empty if they say none
    seams      position, source block, whether it is that block
    notes      what is worth knowing and not wrong
    """

    out: str
    source: str
    route: str = ""
    origin: str = ""
    recovered: str = ""
    checks: list[Check] = field(default_factory=list)
    seams: list[tuple[int, int, bool]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    @property
    def findings(self) -> list[tuple[str, Finding]]:
        return [(check.name, finding) for check in self.checks for finding in check.findings]

    @property
    def status(self) -> int:
        """0 proved, 1 something is wrong, 2 nothing is wrong but a check that was asked for could not be done."""
        if self.findings:
            return 1
        return 2 if any(check.skipped and check.name in self.asked for check in self.checks) else 0

    def check(self, name: str) -> Check:
        self.checks.append(Check(name))
        return self.checks[-1]

    def skip(self, names: Sequence[str], why: str) -> None:
        self.checks += [Check(name, skipped=why) for name in names]

    def as_json(self) -> dict[str, Any]:
        verdict = ("proved", "wrong", "not proved")[self.status]
        return {"verdict": verdict, **{k: v for k, v in asdict(self).items() if k != "asked"}}


@dataclass(frozen=True)
class Options:
    """What to prove beyond the file itself.

    tokens        of the forward proof; the first PROMPT at once, the others one at a time; none: spread over the vocabulary
    forward       whether to run both models
    llamacpp      whether to run llama.cpp on the file
    lib           its library
    transformers  whether to run both folders by transformers
    seen          is told what goes on, for a spinner
    """

    tokens: Sequence[int] = ()
    forward: bool = True
    llamacpp: bool = False
    lib: Path | None = None
    transformers: bool = False
    seen: Callable[[str], None] = lambda what: None
