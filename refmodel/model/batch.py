"""A batch: many sequences, each under its own route, that are computed together. `Model.batch` makes one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..arrays import F, Ints, keep_pages
from ..errors import RefmodelError, TensorError
from ..forward.call import Call, passing
from ..forward.numerics import Numerics
from ..forward.state import State
from ..forward.taps import silent
from ..forward.weights import Rows
from ..machine.memory import require
from .elevator import AT_ONCE, Rider, Work, cut, ride
from .likeliest import likeliest
from .route import Route
from .session import checked_tokens, more_room
from .tensors import Tensors


@dataclass
class Member:
    """One sequence of a batch.

    route   which block runs at each position
    states  what each position remembers
    n_past  tokens seen so far
    room    tokens that memory was looked for; 0 if what it holds is shared with a fork
    """

    route: Route
    states: list[State]
    n_past: int = 0
    room: int = 0


class Batch:
    """Sequences under one numerics, each with its own route, length and states, known by a handle.

    num      the numerics, as a batch computes it
    members  handle -> the sequence
    work     how many blocks were run for how many tokens: an elevator.Work
    n_vocab  V, the rows of the embedding

    A sequence's bits do not depend on its company: on which others are in the batch, in which order they were added, or with
    whom it is fed. Under numerics that emulate llama.cpp, whose bits depend on how many tokens a call has, each sequence's tokens
    are computed by themselves, as a call of their own.
    """

    def __init__(self, tensors: Tensors, num: Numerics) -> None:
        if tensors.not_decoded:
            raise TensorError(f"{tensors.path}: {tensors.not_decoded[0]}")
        keep_pages()
        self.tensors, self.num, self.n_vocab = tensors, num, tensors.n_vocab
        self.members, self.work, self._made = dict[int, Member](), Work(), 0

    def add(self, route: Route | str | Sequence[int] | None = None) -> int:
        """A new sequence, which has seen nothing. `route` as for Model.route; RouteError. Returns its handle."""
        model = self.tensors
        chosen = Route.of(route, model.n_layer)
        return self.join(Member(chosen, [model.arch.new_state(model.hp, source, self.num.dtype) for source in chosen.layers]))

    def fork(self, handle: int) -> int:
        """Another sequence that has seen the same tokens under the same route; what both remember is shared until one is fed.

        Returns its handle. RefmodelError for a handle that is not in the batch.
        """
        member = self._member(handle)
        member.room = 0
        return self.join(Member(member.route, [state.fork() for state in member.states], member.n_past))

    def drop(self, handle: int) -> None:
        """Forget a sequence; its handle is not used again. RefmodelError for a handle that is not in the batch."""
        self._member(handle)
        del self.members[handle]

    def memory(self, tokens: Mapping[int, int]) -> int:
        """Bytes that the states of these sequences take for so many tokens each: handle -> tokens in all."""
        return sum(state.bytes(n, self.num.cache) for handle, n in tokens.items() for state in self._member(handle).states)

    def reserve(self, tokens: Mapping[int, int]) -> None:
        """Make room for so many tokens in all of each sequence. MemoryLimitError, and nothing is taken, if they do not fit."""
        missing = {handle: n for handle, n in tokens.items() if n > self._member(handle).room}
        if missing:
            what = f"keys and values of {len(missing)} sequences, {sum(missing.values()):,} tokens,"
            require(self.memory(missing), what, "feed fewer sequences at once, or shorter ones")
        for handle, n in missing.items():
            member = self.members[handle]
            member.room = n
            for state in member.states:
                state.reserve(n)

    def forward(self, calls: Mapping[int, Sequence[int]], logits: str = "all") -> dict[int, F]:
        """Feed more tokens of some sequences, and get their logits.

        calls   handle -> T >= 1 token ids, a number of its own for each sequence
        logits  "all" -> [T, V]; "last" -> [1, V] of each one's last token

        Returns handle -> logits. Under reference, numpy, oracle and fast any split of a sequence gives the same bits; under
        llamacpp a call is one ubatch, as in a session. RefmodelError for a handle that is not in the batch, and for another word
        than "all" and "last", TokenError for no token or an id outside the vocabulary, MemoryLimitError: then nothing was fed.
        """
        if logits not in ("all", "last"):
            raise RefmodelError(f"logits is {logits!r}; expected 'all' or 'last'; pass one of these")
        if logits == "all":
            rows = sum(map(len, calls.values()))
            require(rows * self.n_vocab * np.dtype(self.num.dtype).itemsize, f"logits of {rows:,} tokens", "ask for the last ones")
        hidden = self.hidden(calls, logits)
        return dict(zip(hidden, self.head(list(hidden.values())), strict=True))

    def likeliest(self, calls: Mapping[int, Sequence[int]], k: int = 1) -> dict[int, tuple[Ints, F]]:
        """Feed more tokens of some sequences, and get the k likeliest next ones of each.

        calls  as for `forward`
        k      how many, at least 1; at most V are given

        Returns handle -> (ids [k], logits [k]), as Session.likeliest. Errors as for `forward`, and RefmodelError for k < 1.
        """
        if k < 1:
            raise RefmodelError(f"{k} likeliest tokens: expected at least 1; ask for one or more")
        k, output = min(k, self.n_vocab), self.tensors.output
        return {handle: likeliest(partial(some_columns, row), output, k)[0] for handle, row in self.forward(calls, "last").items()}

    def hidden(self, calls: Mapping[int, Sequence[int]], which: str = "all") -> dict[int, F]:
        """Feed more tokens of some sequences, and get what the head reads of them.

        calls  as for `forward`
        which  "all" -> [T, E]; "last" -> [1, E]

        Returns handle -> the final norm of the last block's output. Errors as for `forward`.
        """
        ids = {handle: checked_tokens(tokens, self.n_vocab) for handle, tokens in calls.items()}
        members = {handle: self._member(handle) for handle in ids}
        ends = {handle: member.n_past + len(ids[handle]) for handle, member in members.items()}
        self.reserve(
            {h: more_room(end, max(members[h].room, members[h].n_past)) for h, end in ends.items() if end > members[h].room}
        )
        riders = [
            Rider(member.route.layers, member.states, np.arange(member.n_past, member.n_past + len(x)), x)
            for member, x in zip(members.values(), self.embedded(list(ids.values())), strict=True)
        ]
        with passing():
            ride(self.tensors, self.num, riders, self.work)
        for handle, end in ends.items():
            members[handle].n_past = end
        return dict(zip(ids, self.normed([rider.x[-1:] if which == "last" else rider.x for rider in riders]), strict=True))

    def head(self, hidden: Sequence[F]) -> list[F]:
        """The logits of what `hidden` gave: [T, E] each -> [T, V] each."""
        arch, output = self.tensors.arch, self.tensors.output
        with passing():
            return self._stacked(lambda x: arch.head(x, output, self._call(len(x))), hidden)

    def normed(self, xs: Sequence[F]) -> list[F]:
        """What the head reads, of what the last block gave: [T, E] each."""
        arch, weight = self.tensors.arch, self.tensors.weights[f"{self.tensors.arch.FACTS.last_norm}.weight"]
        with passing():
            return self._stacked(lambda x: arch.final_norm(x, weight, self._call(len(x))), xs)

    def embedded(self, ids: Sequence[Ints]) -> list[F]:
        """What the first block reads, of token ids [T] each: [T, E] each."""
        model, num = self.tensors, self.num
        tokens = np.concatenate([*ids, np.zeros(0, np.int64)])
        with passing():
            x = model.arch.embed(num.embed(model.weights["token_embd.weight"], tokens, num.dtype), self._call(len(tokens)))
        return [x[part] for part in cut([len(some) for some in ids])]

    def _call(self, T: int) -> Call:
        """The context of a step outside of blocks, where no token's position counts."""
        return Call(self.tensors.hp, self.num, np.zeros(T, np.int64), silent)

    def _stacked(self, step: Callable[[F], F], xs: Sequence[F]) -> list[F]:
        """step(x [T, ...]) of each, computed of up to AT_ONCE tokens together if the numerics allows it."""
        if not self.num.by_token:
            return [step(x) for x in xs]
        out, first = list[F](), 0
        while first < len(xs):
            stop, tokens = first + 1, len(xs[first])
            while stop < len(xs) and tokens + len(xs[stop]) <= AT_ONCE:
                tokens += len(xs[stop])
                stop += 1
            y = step(np.concatenate(xs[first:stop]))
            out += [y[part] for part in cut([len(x) for x in xs[first:stop]])]
            first = stop
        return out

    def join(self, member: Member) -> int:
        """Take in a sequence that was made elsewhere; returns its handle."""
        self._made += 1
        self.members[self._made] = member
        return self._made

    def _member(self, handle: int) -> Member:
        if handle not in self.members:
            raise RefmodelError(
                f"{handle!r} is not a sequence of this batch; take a handle that add or fork returned and drop has not ended"
            )
        return self.members[handle]


def some_columns(logits: F, rows: Rows) -> F:
    """The logits [1, O] of some rows of the head, of those of all [1, V]."""
    return logits[:, rows.start : rows.stop]
