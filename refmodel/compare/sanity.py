"""What is odd about a dump, before its numbers are compared: the harness is wrong more often than the model."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ..arrays import F
from ..dumps.dump import BITS, Dump, Numbers
from ..dumps.names import BLOCK, EMBEDDED
from ..errors import RefmodelError
from ..gguf.metadata import ANY
from ..model.model import Model
from ..numerics import REFERENCE
from .arranging import Arranged, Found, listed
from .other_side import Remark
from .placing import CLEARLY, CLOSE, Place, Seen, fit
from .ran_tokens import of_first_block
from .rows import common_factor, log_softmax

LOGITS = "result_output"
OLDER = 3600.0  # seconds that a file may be older than most of its folder
FACTOR = 1e-9  # NMSE: of logits whose factor is looked for
ALIKE = 0.99  # cosine of an embedding and what a program made of it
NEAR = 0.05  # how near a mean NLL must be to ln V, as a part of that, to say that a head knows nothing
SMALLEST = {"F16": 2.0**-14}  # probabilities of which a format keeps all its digits; of others this many


def special(model: Model, which: str) -> int | None:
    """The id of the token that begins (`bos`) or ends (`eos`) a text; None if the vocabulary has none."""
    try:
        found: int = model.file.metadata.int(f"tokenizer.ggml.{which}_token_id", -1, *ANY)
    except RefmodelError:
        return None
    return found if 0 <= found < model.n_vocab else None


def readings(model: Model, arranged: Arranged) -> Iterator[tuple[list[list[int]], str, str]]:
    """Other tokens that the program may have run: (calls, code of the remark, what it says)."""
    first, *rest = [list(call) for call in arranged.calls]
    if (ids := of_embedding(model, arranged)) is not None and ids != first:
        at = next((i for i, pair in enumerate(zip(ids, first)) if pair[0] != pair[1]), min(len(ids), len(first)))
        bos = special(model, "bos")
        if bos is not None and (ids == [bos, *first] or [bos, *ids] == first):
            word = "a BOS that the given ids do not have" if len(ids) > len(first) else "no BOS, which the given ids have"
            yield [ids, *rest], "bos", f"the program ran {word}"
        else:
            yield [ids, *rest], "other-tokens", f"its embeddings are those of other ids: at place {at} it has {ids[at : at + 1]}"
    bos, eos = special(model, "bos"), special(model, "eos")
    if bos is not None:
        doubled = "two BOS tokens, where the given ids have one" if first[0] == bos else "a BOS that the given ids do not have"
        yield [[bos, *first], *rest], "bos", f"the program ran {doubled}"
        if eos is not None:
            yield [[bos, eos], *rest], "warm-up", "it is of a warm-up: of BOS and EOS, and not of the prompt"
        yield [[bos], *rest], "warm-up", "it is of a warm-up: of BOS, and not of the prompt"
        if first[0] == bos and len(first) > 1:
            yield [first[1:], *rest], "bos", "the program ran no BOS, which the given ids have"
    if (ids := of_first_block(model, arranged)) is not None and ids != first:
        at = next(i for i, pair in enumerate(zip(ids, first)) if pair[0] != pair[1])
        yield [ids, *rest], "other-tokens", f"its first block's output is that of other ids: at place {at} of {ids[at : at + 1]}"
    if eos is not None and not rest:
        yield [[*first, eos]], "other-tokens", "the program ran an EOS after the given ids"


def with_tokens(model: Model, kept: Arranged, again: Callable[[list[list[int]]], Arranged]) -> tuple[Arranged, list[Remark]]:
    """The arrays under the tokens that they fit, and a remark if those are not the given ones.

    again  arranges the dump under other tokens
    """
    embedded = embeds_others(model, kept)
    if kept.misfit <= CLOSE and not embedded:
        return kept, []
    for calls, code, words in readings(model, kept):
        other = again(calls)
        fits = len(other.odd) <= len(kept.odd)  # no other tokens explain arrays by leaving them out
        better = other.misfit * CLEARLY < kept.misfit or (embedded and not embeds_others(model, other))
        if fits and other.misfit < CLOSE and better:
            return other, [Remark(code, f"{words}; that is what it is compared with: give both programs the same ids")]
    return kept, []


def embeds_others(model: Model, kept: Arranged) -> bool:
    """Whether a dump has the embeddings of its first call, and one of them is not that of the given id."""
    found = next((f for f in kept.found if f.place.tap in EMBEDDED and f.numbers.whole), None)
    if found is None:
        return False
    rows = found.place.arranged(found.numbers.read(), kept.ours[found.place.tap]).astype(np.float64)
    ids = np.array(kept.calls[0][found.place.first :][: len(rows)])
    e = REFERENCE.embed(model.weights["token_embd.weight"], ids, np.float32).astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(e, axis=1)
    return bool(((rows * e).sum(axis=1) < ALIKE * lengths).any())


def of_embedding(model: Model, arranged: Arranged) -> list[int] | None:
    """The ids whose embeddings a dump has in the first call, by direction; None if it has none, or they are no embeddings."""
    found = next((f for f in arranged.found if f.place.tap in EMBEDDED and f.numbers.whole), None)
    if found is None:
        return nearest_of_odd(model, arranged)
    return nearest(model, found.place.arranged(found.numbers.read(), arranged.ours[found.place.tap]))


def nearest_of_odd(model: Model, arranged: Arranged) -> list[int] | None:
    """The same where the dump has more tokens than the run."""
    for one in arranged.odd:
        numbers = one.numbers
        if one.tap in EMBEDDED and numbers.whole and numbers.shape and numbers.shape[-1] == model.hp.n_embd:
            return nearest(model, numbers.read().reshape(-1, numbers.shape[-1]))
    return None


def nearest(model: Model, rows: F) -> list[int] | None:
    """The id of the embedding that has the direction of each row [T, E]; None if a row has none of them."""
    best, ids = np.full(len(rows), -1.0), np.zeros(len(rows), np.int64)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    weight, step = model.weights["token_embd.weight"], 8192
    for start in range(0, model.n_vocab, step):
        e = REFERENCE.embed(weight, np.arange(start, min(start + step, model.n_vocab)), np.float32)
        cosine = unit @ (e / np.maximum(np.linalg.norm(e, axis=1, keepdims=True), 1e-30)).T
        at = cosine.argmax(axis=1)
        here = cosine[np.arange(len(rows)), at]
        ids, best = np.where(here > best, start + at, ids), np.maximum(best, here)
    return [int(i) for i in ids] if best.min() > ALIKE else None


def about_arrays(dump: Dump, kept: Arranged) -> list[Remark]:
    """Remarks on the arrays by themselves: all equal, all zeros, not finite, files of another time."""
    found, ours = kept.found, kept.ours
    whole = [f for f in found if f.numbers.whole]
    zero = [f for f in whole if not np.any(f.numbers.read()) and np.any(ours[f.place.tap].kept)]
    broken = [f for f in found if not np.isfinite(f.numbers.read()).all()]
    outputs = [f for f in whole if f.place.tap.startswith(f"{BLOCK}-") and f not in (*zero, *broken)]
    out = []
    digests: dict[tuple[int, str], list[Found]] = {}
    for f in outputs:
        digests.setdefault((f.name.call, hashlib.sha256(np.ascontiguousarray(f.numbers.read()).data).hexdigest()), []).append(f)
    for same in digests.values():
        if len(same) > 1:
            out.append(
                Remark(
                    "all-equal",
                    f"{listed(same)} have the same numbers: one block was written in place of all; copy each "
                    "block's output before the next one overwrites it",
                )
            )
    if zero:
        out.append(Remark("all-zeros", f"{listed(zero)}: every number is 0; copy the array after it was computed"))
    if broken:
        out.append(
            Remark("not-finite", f"{listed(broken)}: has NaN or infinite numbers; look at the first operation that makes one")
        )
    return out + stale(dump.path)


def stale(path: Path) -> list[Remark]:
    """A remark on files of a folder that are much older than most of it."""
    if not path.is_dir():
        return []
    times = {file: file.stat().st_mtime for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")}
    middle = float(np.median(list(times.values()))) if times else 0.0
    old = sorted(file.name for file, time in times.items() if time < middle - OLDER)
    if not old or len(old) > len(times) // 2:
        return []
    return [
        Remark("stale", f"{', '.join(old[:3])}: older than the rest of the folder by more than an hour; empty it before each run")
    ]


def about_logits(model: Model, kept: Arranged) -> list[Remark]:
    """Remarks on the logits, the first call's: transposed, log-probabilities, before the softcap, knowing nothing.

    What can be undone is undone: the arrays get another place, or are compared as log-probabilities.
    """
    out = []
    for f in kept.found:
        if f.place.tap.partition("@")[0] != LOGITS or f.numbers.at is not None or f.numbers.log:
            continue
        ours = kept.ours[f.place.tap]
        rows = f.place.arranged(f.numbers.read(), ours)
        if f.place.axes == (1, 0):
            out.append(Remark("transposed", f"{f.own} has a column for each token; it is turned: write a row for each"))
        if (found := probabilities(rows)) and not probabilities(ours.kept):
            out.append(
                Remark(found, f"{f.own} has {found}, not logits; it is compared as such: write what the head gives, before softmax")
            )
            f.numbers = as_log(f, found, partial(of_place, f.numbers.read, f.place, ours))
            continue
        out += uncapped(model, f, kept, rows) + scaled(f, ours, rows) + knows_nothing(model, f, kept, rows)
    return out


def of_place(read: Callable[[], F], place: Place, ours: Seen) -> F:
    """The numbers of an array at a place."""
    return place.arranged(read(), ours)


def probabilities(rows: F) -> str:
    """`log-probabilities` or `probabilities` if every row [V] is such; else empty."""
    found = ""
    for row in rows:
        word = probability(row.astype(np.float64))
        if not word or found not in ("", word):
            return ""
        found = word
    return found


def probability(row: F) -> str:
    """The same of one row [V]."""
    if not np.isfinite(row).all():
        return ""
    if (row >= 0).all() and abs(row.sum() - 1) <= 1e-3:
        return "probabilities"
    peak = row.max()
    return "log-probabilities" if abs(peak + np.log(np.exp(row - peak).sum())) < 1e-2 else ""


def as_log(f: Found, found: str, rows: Callable[[], F]) -> Numbers:
    """The array as log-probabilities [k, V] of the tokens that it has."""
    at = np.arange(f.place.first, f.place.first + f.place.count)
    least, step, read = None, f.numbers.step, rows
    if found == "probabilities":
        small, few = SMALLEST.get(f.numbers.dtype, 1e-30), BITS.get(f.numbers.dtype, 53)
        least, step = np.full(f.place.count, np.log(small)), 2.0**-few if few < BITS["F32"] else 0.0
        read = lambda: np.log(np.maximum(rows().astype(np.float64), small))
    width = f.numbers.shape[-1] if not f.place.axes else f.numbers.shape[0]
    return Numbers((f.place.count, width), f.numbers.dtype, read, log=True, least=least, step=step, rows=at)


def uncapped(model: Model, f: Found, kept: Arranged, rows: F) -> list[Remark]:
    """A remark on logits from before the softcap; they are compared with ours from before it."""
    cap, before = model.hp.softcap, f.place.tap.replace(LOGITS, "mul_mat")
    if not cap or before not in kept.ours or not f.place.fit > CLOSE:
        return []
    there = fit(f.numbers.read(), f.place, kept.ours[before])
    if not there * CLEARLY < f.place.fit:
        return []
    f.place = replace(f.place, tap=before, fit=there)
    return [
        Remark("softcap", f"{f.own} is from before the softcap of {cap:g}; it is compared there: apply {cap:g} * tanh(x / {cap:g})")
    ]


def scaled(f: Found, ours: Seen, rows: F) -> list[Remark]:
    """A remark on logits that are ours times a number."""
    at = ours.rows - f.place.first
    there = (at >= 0) & (at < len(rows))
    factor = common_factor(ours.kept[there], rows[at[there]]) if f.place.fit > FACTOR else 1.0
    if factor == 1:
        return []
    words = f"{f.own} is the logits times {factor:.4g}: a temperature, or a scale of the head that this model does not have; "
    return [Remark("scaled", words + "write what the head gives")]


def knows_nothing(model: Model, f: Found, kept: Arranged, rows: F) -> list[Remark]:
    """A remark on logits whose mean NLL is that of guessing, where ours is not."""
    tokens, ours = list(kept.calls[f.name.call]), kept.ours[f.place.tap]
    pairs = [(t, tokens[t + 1]) for t in range(f.place.first, min(f.place.first + f.place.count, len(tokens) - 1))]
    mine = [(i, tokens[t + 1]) for i, t in enumerate(ours.rows) if t + 1 < len(tokens)]
    if not pairs or not mine or not np.isfinite(rows).all():
        return []
    theirs = float(np.mean([-log_softmax(rows[t - f.place.first].astype(np.float64))[token] for t, token in pairs]))
    own = float(np.mean([-log_softmax(ours.kept[i].astype(np.float64))[token] for i, token in mine]))
    guess = float(np.log(model.n_vocab))
    if abs(theirs - guess) > NEAR * guess or own > (1 - 4 * NEAR) * guess:
        return []
    return [
        Remark(
            "guessing",
            f"{f.own} gives the tokens a mean NLL of {theirs:.2f}, that of guessing (ln {model.n_vocab} = {guess:.2f}); "
            "the head or the embedding was probably not loaded",
        )
    ]
