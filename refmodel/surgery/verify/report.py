"""What a proof says: its checks, what they found, and the verdict."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...llamacpp.library import Given

PROVED, EXCEPT_FORWARD, RECOVERED = "proved", "proved except forward", "recovered"
WRONG, NOT_PROVED = "wrong", "not proved"
STRUCTURE, SEAMS, BYTES, METADATA, FORWARD, LLAMACPP = "structure", "seams", "bytes", "metadata", "forward", "llama.cpp"
MEANS = {
    STRUCTURE: "every block has its tensors, in the source's shapes and types, and no others",
    SEAMS: "at each jump of the route the right blocks meet",
    BYTES: "every tensor has the bytes of its source tensor",
    METADATA: "every value, per-block ones along the map, is the source's",
    FORWARD: "the file computes what the source computes under the route, to the last bit",
    LLAMACPP: "llama.cpp's run of the file agrees with our run of the source under the route",
}


# What changes most of what is computed comes first: the first pattern that is found in the place of a finding.
WEIGHTS = [
    r"^(the file|the folder|the blocks)$",
    r"(block_count|num_hidden_layers|nextn_predict_layers)",
    r"(layer_types|recurrent_layers|sliding_window_pattern|no_rope_layers|mlp_only_layers|moe_layers|block_types)",
    r"^position ",
    r"\.weight|\.bias|layers\.|blk\.",
    r"^(general|quantize|refmodel|rys_relayer)\.|_name_or_path|dtype|source_|target_num",
    r"^tokenizer\.|token",
]
LAST, OTHERS = {5: 8, 6: 7}, 6  # descriptive keys after everything that steers numbers


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where, and what."""

    where: str
    what: str

    @property
    def key(self) -> str:
        """The key or the tensor, without its file and its place in a list."""
        return re.sub(r"(\[\d+\]| \(length\))+$", "", self.where.removeprefix("config.json: "))

    @property
    def weight(self) -> int:
        """Its rank by how much it changes what is computed: the smallest first."""
        at = next((i for i, pattern in enumerate(WEIGHTS) if re.search(pattern, self.key)), None)
        return OTHERS if at is None else LAST.get(at, at)


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
        """Add a finding; those that change most come first."""
        self.findings.append(Finding(where, what))
        self.findings.sort(key=lambda finding: finding.weight)  # stable: what was found first stays first

    @property
    def word(self) -> str:
        """WRONG, not done or ok."""
        return "WRONG" if self.findings else "not done" if self.skipped else "ok"


@dataclass
class Report:
    """The proof of a file.

    out, source  the copy and its source
    route      the route that it was held against, canonical; empty if none was found
    origin     where that route comes from: given, or recovered from the hashes
    recovered  what the hashes say, canonical; empty if they say none
    seams      position, source block, whether it is that block
    notes      what is worth knowing and not wrong
    asked      checks without which nothing is proved
    intended   whether the route is given, or claimed by the file
    blocks     with several sources: the source of each block, and its number there
    counts     with several sources: how many blocks of the trunk each has
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
    intended: bool = False
    blocks: list[tuple[str, int]] = field(default_factory=list)
    counts: Sequence[int] = ()

    @property
    def findings(self) -> list[tuple[str, Finding]]:
        """The name of the check and the finding, for all findings; those that change most come first."""
        found = [(check.name, finding) for check in self.checks for finding in check.findings]
        return sorted(found, key=lambda one: one[1].weight)

    @property
    def verdict(self) -> str:
        """The result of the proof: proved, proved except forward, recovered, wrong or not proved."""
        if self.findings:
            return WRONG
        if any(check.skipped and check.name in self.asked for check in self.checks):
            return NOT_PROVED
        if not self.intended:
            return RECOVERED
        return EXCEPT_FORWARD if any(check.skipped for check in self.checks) else PROVED

    @property
    def status(self) -> int:
        """The exit status: 0 if nothing is wrong, 1 if something is, 2 if a check that was asked for could not be run."""
        return {WRONG: 1, NOT_PROVED: 2}.get(self.verdict, 0)

    def check(self, name: str) -> Check:
        """Add a check and return it."""
        self.checks.append(Check(name))
        return self.checks[-1]

    def skip(self, names: Sequence[str], why: str) -> None:
        """Add checks that were not done."""
        self.checks += [Check(name, skipped=why) for name in names]

    def as_json(self) -> dict[str, Any]:
        """The same for --json."""
        found = [{"check": check, "key": f.key, "where": f.where, "what": f.what} for check, f in self.findings]
        held = {k: v for k, v in asdict(self).items() if k not in ("asked", "intended", "counts")}
        return {"verdict": self.verdict, **held, "findings": found}


@dataclass(frozen=True)
class Options:
    """What to prove beyond the file itself.

    tokens        of the forward proof: the first PROMPT at once, then one at a time; empty: spread over the vocabulary
    forward       whether to run both models
    llamacpp      whether to run llama.cpp on the file
    lib           its library
    transformers  whether to run both folders in transformers
    seen          gets what is being done, for a spinner
    """

    tokens: Sequence[int] = ()
    forward: bool = True
    llamacpp: bool = False
    lib: Given = None
    transformers: bool = False
    seen: Callable[[str], None] = lambda what: None
