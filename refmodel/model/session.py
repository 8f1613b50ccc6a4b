"""A session: one sequence under one route and one numerics, fed piece by piece."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from ..arrays import F, Ints, keep_pages
from ..errors import RefmodelError, TensorError, TokenError
from ..forward.call import Call, passing
from ..forward.numerics import Numerics
from ..forward.state import KeyValues, State
from ..forward.taps import Tapper, silent
from ..machine.memory import require
from .draft_head import DraftHead
from .likeliest import Best, likeliest
from .route import Route
from .tensors import Tensors


class Session:
    """One sequence under one route and one numerics, fed piece by piece. `Model.session` makes one.

    route   which block runs at each position
    num     the numerics
    tapper  called with every intermediate; it may be replaced between calls
    scores  whether attention shows its scores to the tapper (taps kq, kq_soft_max), which it does not make otherwise
    n_past  tokens seen so far
    guessed tokens after them that `ahead` was given as guesses, and which are not confirmed
    n_vocab V, the rows of the embedding
    states  what each position remembers: a forward.state.State
    draft   the draft head, after the last position, which is fed with the same tokens; None without `mtp`
    """

    def __init__(
        self,
        tensors: Tensors,
        route: Route,
        num: Numerics,
        tapper: Tapper = silent,
        mtp: bool = False,
        scores: bool = False,
    ) -> None:
        self.tensors, self.route, self.num, self.tapper, self.scores = tensors, route, num, tapper, scores
        self.n_vocab = tensors.n_vocab
        if tensors.not_decoded:
            raise TensorError(f"{tensors.path}: {tensors.not_decoded[0]}")
        keep_pages()
        self.draft: DraftHead | None = None
        self.restart(mtp)

    def restart(self, mtp: bool = False) -> None:
        """Forget the sequence: the next call is the first one of another. `mtp` makes a draft head; one that is there stays."""
        tensors = self.tensors
        self.n_past = self.room = self.guessed = 0
        self.states: list[State] = [tensors.arch.new_state(tensors.hp, source, self.num.dtype) for source in self.route.layers]
        if mtp or self.draft:
            prediction = tensors.prediction
            state = tensors.arch.new_state(tensors.hp, tensors.n_layer, self.num.dtype)
            assert isinstance(state, KeyValues)  # a prediction block has attention
            self.states.append(state)
            self.draft = DraftHead(prediction, state, len(self.route.layers))

    def memory(self, tokens: int) -> int:
        """Bytes that the states of all positions take for `tokens` tokens in all."""
        return sum(state.bytes(tokens, self.num.cache) for state in self.states)

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` tokens in all. MemoryLimitError, and nothing is taken, if the machine would have to swap."""
        if tokens <= self.room:
            return
        what = f"keys and values of {tokens:,} tokens at {len(self.states)} positions"
        require(self.memory(tokens), what, "take a shorter prompt, or a smaller --ctx or -n")
        for state in self.states:
            state.reserve(tokens)
        self.room = tokens

    def forward(self, tokens: Sequence[int], logits: str = "all") -> F:
        """Feed more tokens of the sequence, and get their logits.

        tokens  T >= 1 token ids
        logits  "all" -> [T, V]; "last" -> [1, V] of the last token

        Any split of a prompt gives the same bits under reference, numpy and oracle. Under llamacpp and fast a call's size chooses
        how it is computed; under llamacpp a call is one ubatch. TokenError for an id outside the vocabulary, MemoryLimitError,
        RefmodelError for another word than "all" and "last".
        """
        if logits not in ("all", "last"):
            raise RefmodelError(f"logits is {logits!r}; expected 'all' or 'last'; pass one of these")
        with passing():
            h, c = self._trunk(tokens, logits == "all")
            return self.tensors.arch.head(h, self.tensors.output, c)

    def likeliest(self, tokens: Sequence[int], k: int = 1) -> tuple[Ints, F]:
        """Feed more tokens, and get the k likeliest next ones.

        tokens  T >= 1 token ids
        k       how many, at least 1; at most V are given

        Returns their ids and logits, both [k], the likeliest first; of equals the smaller id is first. The logits have the bits of
        `forward`, but are not made for the whole vocabulary at once. TokenError, MemoryLimitError, and RefmodelError for k < 1.
        """
        with passing():
            h, c = self._trunk(tokens, every=False)
            return self._likeliest(h, c, checked_count(k))[0]

    def ahead(self, tokens: Sequence[int], k: int = 1) -> list[Best]:
        """Feed a token, and guesses at those that follow it, in one pass; guesses that nobody confirms are forgotten.

        tokens  T >= 1 token ids; where the numerics is not `by_token`, at most num.few for the bits of `likeliest` one by one
        k       as for `likeliest`

        Returns the k likeliest next tokens of each, as `likeliest` does. `confirm` says that the next guess is right; the other
        ones are forgotten when the session is fed again. What remembers takes one token at a time, so that each can be forgotten.
        The draft head reads none of them. Errors as for `likeliest`.
        """
        k = checked_count(k)
        self._forget()
        for state in self._trunks():
            state.keep(len(tokens) - 1)
        with passing():
            h, c = self._trunk(tokens, every=True, ahead=True)
            self.guessed = len(tokens) - 1
            self.n_past -= self.guessed
            return self._likeliest(h, c, k)

    def guesses(self, token: int, most: int) -> list[int]:
        """The draft head's guesses at what follows a token that was chosen and not fed yet: at most `most`, none without it."""
        if not self.draft or most < 1:
            return []
        self._forget()
        with passing():
            return self.draft.guesses(token, most, Call(self.tensors.hp, self.num, np.zeros(1, np.int64), self.tapper))

    def confirm(self) -> None:
        """The next one of the guesses that `ahead` was given is right: it counts as fed."""
        self.guessed -= 1
        self.n_past += 1
        if self.draft:
            self.draft.saved += 1

    def _forget(self) -> None:
        """Forget guesses that were not confirmed: what follows has the bits as if they had never been there."""
        for state in self._trunks() if self.guessed else ():
            state.back(self.guessed)
        if self.guessed and self.draft:
            self.draft.unlearn(self.guessed)
        self.guessed = 0

    def _trunks(self) -> list[State]:
        """The states of the trunk's positions."""
        return self.states[: len(self.route.layers)]

    def _likeliest(self, h: F, c: Call, k: int) -> list[Best]:
        """The k likeliest next tokens, of what the head reads [T, E]."""
        return likeliest(lambda rows: self.tensors.arch.head(h, rows, c), self.tensors.output, min(k, self.n_vocab))

    def _trunk(self, tokens: Sequence[int], every: bool, ahead: bool = False) -> tuple[F, Call]:
        """What the head reads of every token [T, E], or of the last [1, E], and the call that it was.

        ahead  states take one token at a time, and the draft head reads none, for some may be forgotten
        """
        model, ids = self.tensors, checked_tokens(tokens, self.n_vocab)
        self._forget()
        end = self.n_past + len(ids)
        if end > self.room:
            self.reserve(more_room(end, self.room))
        pos = np.arange(self.n_past, self.n_past + len(ids))
        parts = tuple(slice(t, t + 1) for t in range(len(ids))) if ahead and len(ids) > 1 else ()
        c = Call(model.hp, self.num, pos, self.tapper, self.scores, parts=parts)
        x = model.arch.embed(self.num.embed(model.weights["token_embd.weight"], ids, self.num.dtype), c)
        for position, source in enumerate(self.route.layers):
            state = self.states[position]
            x = model.arch.block(x, model.blocks[source], [state] * len(parts) if parts else state, c.at(position))
        self.n_past += len(ids)
        h = model.arch.final_norm(x if every or self.draft else x[-1:], model.weights[f"{model.arch.FACTS.last_norm}.weight"], c)
        if self.draft:
            self.draft.learn(ids, h)
            if not ahead:
                self.draft.read(c)
        return h if every else h[-1:], c


def more_room(tokens: int, room: int) -> int:
    """For how many tokens room is made where `tokens` need it and there is some for `room`: growth is seldom, and bounded."""
    return max(tokens, min(2 * room, room + 4096))


def checked_count(k: int) -> int:
    """How many likeliest tokens are asked for. RefmodelError for less than one."""
    if k < 1:
        raise RefmodelError(f"{k} likeliest tokens: expected at least 1; ask for one or more")
    return k


def checked_tokens(tokens: Sequence[int], n_vocab: int) -> Ints:
    """Token ids [T] as an array. TokenError if there are none, or one names no row of the embedding."""
    if not len(tokens):
        raise TokenError("expected at least one token id, found none; give a text or ids")
    for i, token in enumerate(tokens):
        if not isinstance(token, int | np.integer) or not 0 <= token < n_vocab:
            raise TokenError(
                f"token {token} at place {i} is outside the vocabulary; ids are whole numbers from 0 to {n_vocab - 1}; was "
                "it made with another tokenizer?"
            )
    return np.array(tokens, np.int64)


class ByCall(Protocol):
    """A tapper that needs to know the number of the call that it is in."""

    def begin(self, call: int, fresh: int) -> None:
        """Call number `call`, of `fresh` new tokens, begins."""
        ...


def run_calls(session: Session, calls: Sequence[Sequence[int]], *tappers: ByCall, apart: bool = False) -> Iterator[F]:
    """Feed the calls in order; yields their logits, [T, V] each. Before each call `begin` of every tapper is called.

    apart  each call is a sequence of its own

    With a draft head its logits are made too, so that the tapper sees them. Errors as Session.forward raises them.
    """
    for call, tokens in enumerate(calls):
        if apart and call:
            session.restart()
        for tapper in tappers:
            tapper.begin(call, len(tokens))
        logits = session.forward(tokens)
        if session.draft:
            session.draft.logits()
        yield logits
