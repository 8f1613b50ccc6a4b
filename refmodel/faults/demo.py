"""`refmodel demo`: a trained hybrid writes, is routed, agrees with llama.cpp's record of that, is broken on purpose. Offline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..compare.diff import Diff
from ..compare.other_side import Other, compare, numerics_against, recorded
from ..compare.verdict import Verdict, judge, measured
from ..machine.partial import temporary_folder
from ..model.model import Model, RouteLike, load
from ..model.route import Route
from ..numerics import LLAMACPP, Numerics
from ..text.generate import generate
from ..text.reply import Reply

WRITTEN = 48  # tokens of each text


@dataclass(frozen=True)
class Case:
    """The trained model, and llama.cpp's record of it.

    other  the record
    route  the record's route
    num    the numerics that repeats the record's arithmetic
    noise  what rounding makes of each operation: its name -> NMSE
    """

    model: Model
    other: Other
    route: Route
    num: Numerics
    noise: Mapping[str, float]

    @property
    def prompt(self) -> Sequence[int]:
        """The token ids of the record's first call."""
        return self.other.calls[0]

    @property
    def prompt_text(self) -> str:
        """The same as text."""
        return self.model.tokenizer.decode([token for token in self.prompt if token not in self.model.tokenizer.eog])

    def compared(self, seen: Callable[[str], None]) -> Diff:
        """Compare every tensor of a pass under the route with the record. `seen` gets the name of each tensor."""
        return compare(self.model, self.route, self.other, self.num, "", seen)

    def judged(self, seen: Callable[[str], None]) -> Verdict:
        """Judge every operation from the record's own inputs. `seen` gets the name of each tensor."""
        return judge(self.model, self.route, self.other, seen, self.num, self.noise)

    def writes(self, route: RouteLike) -> str:
        """The text that the model writes greedily after the prompt, under a route."""
        return "".join(Reply(self.model.tokenizer).read(generate(self.model.session(route, self.num), self.prompt, WRITTEN)))


def case(path: Path, trace: Path) -> Case:
    """The case of a model file and of llama.cpp's record of it."""
    model = load(path)
    other = recorded(model, trace)
    route = model.route(other.route)
    with temporary_folder() as folder:
        noise = measured(model, route, other, folder, lambda name: None)
    return Case(model, other, route, numerics_against(LLAMACPP, other), noise)


def without_gate(c: Case) -> Case:
    """The same numerics without the gate of the feed-forward network: one replace(...)."""
    return replace(c, num=replace(c.num, swiglu=lambda gate, up: up))


def turned_too_far(c: Case) -> Case:
    """The same file, but RoPE rotates all dimensions of a head, not the first quarter: one hyperparameter."""
    n = c.model.hp.head_dim
    rope = replace(c.model.hp.rope, n_rot=n, factors=(1.0,) * (n // 2))
    return replace(c, model=c.model.with_hparams(rope=rope))


# Faults that runtimes really had: one that every reader sees in the text, and one that nobody does.
FAULTS = {
    "A loud fault, on purpose: the gate of the feed-forward part is dropped": without_gate,
    "A quiet fault, on purpose: RoPE turns all dimensions of a head instead of the first quarter": turned_too_far,
}
