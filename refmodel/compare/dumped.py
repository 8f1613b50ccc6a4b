"""Another program's dump as the other side of a diff: its names become taps, and what is odd about it is remarked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..arrays import F
from ..dumps.dump import BITS, Dump, Numbers
from ..dumps.map_file import Rule, read_map
from ..dumps.read import read
from ..dumps.safetensors_file import provenance
from ..errors import DumpError
from ..forward.taps import in_call
from ..forward.trace import Trace
from ..model.model import Model
from ..model.route import Route
from ..model.session import checked_tokens
from ..numerics import REFERENCE, numerics_of
from .arranging import Arranged, Found, arrange, reordered
from .diff import has_draft
from .other_side import ALL, Other, Remark, recorded
from .placing import Place, Seen
from .rounding import significant_bits
from .sanity import LOGITS, about_arrays, about_logits, special, with_tokens
from .views import View, log_probabilities, of_rows, printed


class Taps(Mapping[str, F]):
    """The arrays of a dump by our taps, arranged as ours are; each is read when it is asked for.

    found  tap -> the array and its place
    ours   our taps
    """

    def __init__(self, found: Mapping[str, Found], ours: Mapping[str, Seen]) -> None:
        self.found, self.ours = found, ours

    def __getitem__(self, tap: str) -> F:
        f = self.found[tap]
        x = f.numbers.read()
        partial = f.numbers.at is not None or f.numbers.log
        return x if partial or not f.place.order else f.place.arranged(x, self.ours[tap])

    def __contains__(self, tap: object) -> bool:
        return tap in self.found

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)


def of_dump(model: Model, dump: Dump, calls: Sequence[Sequence[int]] | None, route: Route, rules: Sequence[Rule] = ()) -> Other:
    """A dump as the other side of a diff.

    calls  the token ids of each call, None for what the dump says
    rules  of --map, which come before the names that are known

    DumpError if it does not say its tokens and none are given, is of another model, or has two arrays for one tap; TokenError for
    an id outside the vocabulary.
    """
    remarks = list[Remark]()
    dump, given = with_answer(model, dump, calls)
    if given is None:
        raise DumpError(
            f"{dump.path}: does not say which tokens it ran; give them, --tokens 1,2,3 or -p TEXT, or a tokens.json in it"
        )
    if dump.apart:
        given = with_bos(model, given)
    elif calls is not None and dump.calls is not None and flat(calls) != flat(dump.calls):
        remarks.append(differing(model, flat(calls), flat(dump.calls)))
        given = dump.calls
    for ids in given:
        checked_tokens(ids, model.n_vocab)
    dump, said = without_warm_up(dump, len(given))
    kept = arrange(model, dump, given, route, rules)
    remarks += said
    kept, said = with_tokens(model, kept, lambda other: arrange(model, dump, other, route, rules))
    check_sizes(dump, kept)
    remarks += (
        said + kept.remarks + reordered(model, kept, len(route.layers)) + about_arrays(dump, kept) + about_logits(model, kept)
    )
    remarks += without_place(dump, kept)
    found = check_once(dump, kept)
    return Other(
        taps=Taps(found, kept.ours),
        calls=[list(call) for call in kept.calls],
        route=route.canonical,
        sha256=dump.about.get("sha256", ""),
        who=dump.about.get("who") or f"{dump.path}, {dump.kind}",
        arithmetic=numerics_of(dump.about.get("numerics") or REFERENCE),
        unknown=ALL,
        emitted=len(dump.arrays),
        left_out={},
        views={tap: view for tap, f in found.items() if (view := view_of(f, kept.ours[tap])) is not None},
        bits={tap: few for tap, f in found.items() if (few := precision(f, kept.ours[tap])) < BITS["F32"]},
        places={f.own: tap for tap, f in found.items()},
        remarks=remarks,
        apart=dump.apart,
    )


def read_other(
    model: Model,
    path: Path,
    calls: Sequence[Sequence[int]] | None,
    route: Route | None,
    names: Path | None = None,
    mtp: bool = False,
) -> Other:
    """The run in a trace, or in any dump (see dumps.read).

    calls, route  what it has to be a run of, where they are given
    names         the file of --map
    mtp           the taps of a draft head have to be among it

    TraceError or DumpError if it cannot be read, or is of something else.
    """
    if not names and is_trace(path):
        other = recorded(model, path, calls, route)
    else:
        dump = read(path)
        if (digest := dump.about.get("sha256", "")) not in ("", model.file.sha256() if digest else ""):
            raise DumpError(f"{path}: was recorded for another file, sha256 {digest[:12]}…; give the file that it was recorded for")
        chosen = route or model.route(dump.about.get("route"))
        other = of_dump(model, dump, calls, chosen, read_map(names) if names else ())
    if mtp and not has_draft(other.taps):
        raise DumpError(f"{path}: --mtp: has no tap of a draft head (mtp_...); record it with --mtp, or leave that out")
    return other


def is_trace(path: Path) -> bool:
    """Whether a file is a trace that says all that docs/formats.md asks of one, with its arrays under our names.

    TraceError for a safetensors file that is damaged.
    """
    if path.is_dir() or path.suffix != ".safetensors":
        return False
    said = provenance(dict(Trace(path).metadata))
    ours = not said or "calls" in said or "route" in said
    return "provenance" in Trace(path).metadata and ours and said.get("names") != "modules"


def with_bos(model: Model, calls: Sequence[Sequence[int]]) -> list[list[int]]:
    """Chunks of llama-perplexity as they ran: with BOS in place of the first token, where the vocabulary begins texts with it."""
    begins = model.tokenizer.encode("", add_special=True, parse_special=False)[:1]
    return [[*(begins or call[:1]), *call[1:]] for call in calls]


def without_warm_up(dump: Dump, calls: int) -> tuple[Dump, list[Remark]]:
    """A log without the graphs before those of the calls, and a remark if there were any."""
    graphs = 1 + max((int(name.partition("@")[2] or 0) for name in dump.arrays), default=0) if dump.printed else 1
    if graphs <= calls:
        return dump, []
    arrays = dict[str, Numbers]()
    for name, x in dump.arrays.items():
        tap, _, call = name.partition("@")
        if int(call or 0) >= graphs - calls:
            arrays[in_call(tap, int(call or 0) - graphs + calls)] = x
    words = f"the log has {graphs - calls} graph before that of the tokens, a warm-up; it is left out"
    return replace(dump, arrays=arrays), [Remark("warm-up", words)]


def flat(calls: Sequence[Sequence[int]]) -> list[int]:
    """The tokens of all calls in order."""
    return [int(token) for call in calls for token in call]


def differing(model: Model, given: Sequence[int], theirs: Sequence[int]) -> Remark:
    """The remark on a dump that says it ran other tokens than the given ones."""
    bos = special(model, "bos")
    if bos is not None and (list(theirs) == [bos, *given] or [bos, *theirs] == list(given)):
        word = "a BOS more than the given ids" if len(theirs) > len(given) else "no BOS, which the given ids have"
        return Remark("bos", f"the dump says that it ran {word}; its own tokens are compared: give both programs the same ids")
    at = next((i for i, pair in enumerate(zip(theirs, given)) if pair[0] != pair[1]), min(len(theirs), len(given)))
    return Remark(
        "other-tokens",
        f"the dump says that it ran {len(theirs)} tokens, the given ones are {len(given)}; at place {at} it has "
        f"{list(theirs[at : at + 1])}, not {list(given[at : at + 1])}; its own are compared: give both programs the same ids",
    )


def with_answer(model: Model, dump: Dump, calls: Sequence[Sequence[int]] | None) -> tuple[Dump, Sequence[Sequence[int]] | None]:
    """The dump with what a server said turned into an array, and the calls to run: the given ones, then what the server chose.

    DumpError for words that are not tokens of this vocabulary, or an answer without the prompt.
    """
    if not dump.answer:
        return dump, calls if calls is not None else dump.calls
    if calls is None:
        raise DumpError(f"{dump.path}: is the answer to a prompt that it does not say; give it, --tokens 1,2,3 or -p TEXT")
    index: dict[int | bytes, int] = {model.tokenizer.piece(i): i for i in reversed(range(model.n_vocab))}
    prompt = flat(calls)
    chosen = [token_of(dump, said.chosen, index) for said in dump.answer]
    at, values = [], []
    for row, said in enumerate(dump.answer):
        for word, value in said.likely.items():
            if isinstance(word, int) or word in index:
                at.append(row * model.n_vocab + token_of(dump, word, index))
                values.append(value)
    if not values:
        raise DumpError(f"{dump.path}: its answer has no log-probabilities of tokens of this vocabulary; ask for logprobs")
    rows = np.arange(len(prompt) - 1, len(prompt) - 1 + len(chosen))
    array = Numbers((len(chosen), model.n_vocab), "F32", lambda: np.array(values), np.array(at), log=True, rows=rows, step=1e-6)
    return replace(dump, arrays={LOGITS: array}, answer=(), calls=None), [[*prompt, *chosen[:-1]]]


def token_of(dump: Dump, word: int | bytes, index: Mapping[int | bytes, int]) -> int:
    """The id of a token of an answer. DumpError if the vocabulary does not have it."""
    if isinstance(word, int):
        return word
    if word not in index:
        raise DumpError(f"{dump.path}: {word!r} is no token of this vocabulary; is the answer of another model?")
    return index[word]


def check_sizes(dump: Dump, kept: Arranged) -> None:
    """DumpError if the sizes are those of another model: most arrays do not fit their taps."""
    if kept.odd and len(kept.odd) >= len(kept.found):
        one, shape = kept.odd[0], kept.ours[kept.odd[0].tap].shape
        raise DumpError(
            f"{dump.path}: {one.own} has shape {list(one.numbers.shape)}, where {one.tap} of this model has {list(shape)}; it is a "
            "dump of another model, or of other tokens"
        )


def check_once(dump: Dump, kept: Arranged) -> dict[str, Found]:
    """Every array by its tap; those whose size is wrong too. DumpError for two arrays of one tap."""
    out: dict[str, Found] = {}
    for f in kept.found:
        tap = f.place.tap
        if tap in out:
            raise DumpError(f"{dump.path}: {out[tap].own} and {f.own} are both {tap}; keep one, or say with --map what they are")
        out[tap] = f
    for one in kept.odd:
        place = Place(one.tap, (), 0, 0, "", None, np.nan)
        out.setdefault(one.tap, Found(one.own, one.numbers, kept.found[0].name, place))
    return out


def without_place(dump: Dump, kept: Arranged) -> list[Remark]:
    """Remarks on arrays that are compared with nothing. A log of llama.cpp has many views of one tensor, which need no remark."""
    out = []
    if kept.unknown and not dump.printed:
        out.append(
            Remark(
                "unknown-names",
                f"{names(kept.unknown)}: what it is, its name does not say; name it as docs/formats.md does, or give --map",
            )
        )
    if kept.absent and not dump.printed:
        out.append(Remark("no-such-tap", f"{names([own for own, _, _ in kept.absent])}: a pass of this model has no such tensor"))
    if dump.unread:
        out.append(Remark("not-read", f"{names(list(dump.unread))}: not read, {next(iter(dump.unread.values()))}"))
    return out


def names(found: Sequence[str]) -> str:
    """Some names, at most four."""
    return ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")


def view_of(f: Found, ours: Seen) -> View | None:
    """How an array is compared with its tap; None for a whole one."""
    x, place = f.numbers, f.place
    if not place.order:
        return None
    if x.log:
        rows = x.rows if x.rows is not None else np.arange(place.first, place.first + place.count)
        return log_probabilities(rows, x.at, x.least, x.step)
    if x.at is not None:
        return printed(
            x.at + place.first * ours.width if ours.by_token else x.at, x.step, int(np.prod(x.shape)), total_of(x, place, ours)
        )
    logits = place.tap.partition("@")[0] == LOGITS
    if ours.by_token and place.count != ours.fresh:
        return of_rows(place.first, place.count, logits, x.step)
    return of_rows(0, ours.shape[0], logits, x.step) if np.any(x.step) else None


def total_of(x: Numbers, place: Place, ours: Seen) -> float:
    """The printed sum, if it is that of all tokens; NaN else."""
    return x.total if not ours.by_token or place.count == ours.fresh else float("nan")


def precision(f: Found, ours: Seen) -> int:
    """How many significant bits an array's numbers have: those that --map or its format says, or fewer if all fit there.

    Where ours have as few, as the embeddings of a bfloat16 file, nothing was rounded.
    """
    bits = BITS.get(f.rule.dtype if f.rule and f.rule.dtype else f.numbers.dtype, 53)
    found = min(bits, significant_bits(f.numbers.read())) if f.numbers.whole else bits
    return bits if found < bits and significant_bits(ours.kept) <= found else found
