"""The report of a difference: what `refmodel diff` found, as a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .diff import diff_headline, out_of_reach, verdict_line, wrong_because
from .explanation_page import budget_section
from .page import (
    BAD,
    GOOD,
    NOTE,
    Heat,
    Line,
    Lines,
    Page,
    Section,
    Series,
    Table,
    block_names,
    extreme,
    figure,
    jumps,
    tokens_in_words,
)

if TYPE_CHECKING:
    from ..arrays import F
    from ..compare.diff import Diff
    from ..compare.error_budget import Explanation
    from ..compare.other_side import Other
    from ..compare.rows import Row
    from ..compare.verdict import Verdict
    from ..model.model import Model
    from ..model.route import Route

MARKS = {"equal": GOOD, "explained": GOOD, "wrong": BAD}
OUTSIDE = "outside of blocks"


@dataclass(frozen=True)
class Compared:
    """A comparison that was made: all that its report is made of.

    numerics     the name of ours
    explanation  the error budget, if it was asked for
    """

    model: "Model"
    route: "Route"
    result: "Diff"
    verdict: "Verdict"
    other: "Other"
    numerics: str
    explanation: "Explanation | None" = None

    @property
    def blocks(self) -> list[str]:
        """The name of each position: its number, and the source block if that is another."""
        return block_names(self.route.layers)

    @property
    def kinds(self) -> list[str]:
        """The kind of each position's block."""
        return [self.model.kinds[layer] for layer in self.route.layers]

    @property
    def seams(self) -> list[int]:
        """The positions whose block does not follow the one before it."""
        return jumps(self.route.layers)


def diff_page(c: Compared) -> Page:
    """The page of a comparison."""
    lines = diff_headline(c.result, c.verdict, c.other, c.numerics, c.model).split("\n")
    sections = [depth(c), tokens(c), logits(c)]
    sections += [budget_section(c.explanation, c.blocks)] if c.explanation else []
    sections += [operations(c)]
    title = f"{c.model.path.name} compared with {c.other.who}"
    kept = [section for section in sections if section.pictures or section.tables]
    says = [line for line in lines[:-1] if not line.startswith(("not reached: ", f"{c.numerics} against "))]  # facts say it
    return Page(title, verdict_line(c.verdict, c.other), MARKS[c.verdict.word], says, kept, facts(c))


def facts(c: Compared) -> dict[str, str]:
    """What was computed from what."""
    found = {
        "model": f"{c.model.path.name}, {c.model.architecture}, {c.model.n_layer} blocks",
        "sha256 of the model": c.model.file.sha256(),
        "route": f"{c.route.canonical}, {len(c.route.layers)} positions",
        "ours": c.numerics,
        "theirs": c.other.who,
        "their arithmetic": c.verdict.rounds or c.verdict.arithmetic.name,
        "tokens": tokens_in_words(c.other.calls),
    }
    if reach := out_of_reach(c.other, c.model):
        found["not reached"] = "; ".join(reach)
    return found


def depth(c: Compared) -> Section:
    """The error of each block's output, and the worst operation in each."""
    from ..compare.where import block_of

    whole, worst = np.full(len(c.blocks), np.nan), np.full(len(c.blocks), np.nan)
    for row in c.result.rows:
        at = block_of(row.name)
        if row.name.startswith("l_out-") and at is not None and at < len(whole):
            whole[at] = np.fmax(whole[at], row.nmse)
    for row in c.verdict.rows.values():
        at = block_of(row.name)
        if at is not None and at < len(worst):
            worst[at] = np.fmax(worst[at], row.nmse)
    series = [Series("output of the block", whole.tolist()), Series("worst operation from their inputs", worst.tolist())]
    series = [one for one in series if not np.isnan(one.values).all()]
    says = "; ".join(f"{one.name}: {extreme(c.blocks, one.values)}" for one in series)
    if not series:
        return Section("Error over depth", [])
    sentences = [
        "The first curve is the whole run, where an error is carried on. The second starts every operation from the other side's "
        "own numbers, so that a block shows only its own error."
    ]
    picture = Lines("Error over depth", says, "position", "NMSE", c.blocks, series, c.kinds, c.seams)
    return Section("Error over depth", sentences, [picture])


def by_position(c: Compared) -> "tuple[list[str], F]":
    """The name of each token, and NMSE of each block's output at it, [blocks, tokens]; NaN where there is none."""
    starts = np.cumsum([0, *map(len, c.other.calls)])
    errors = np.full((len(c.blocks), int(starts[-1])), np.nan)
    for name, found in c.result.errors.items():
        tap, _, call = name.partition("@")
        position, first = int(tap.removeprefix("l_out-")), int(starts[int(call or 0)])
        fresh = len(c.other.calls[int(call or 0)])
        if position < len(errors) and len(found) <= fresh:
            errors[position, first + fresh - len(found) : first + fresh] = found
    return token_names(c), errors


def token_names(c: Compared) -> list[str]:
    """The place of each token in the sequence, and its text."""
    ids = [token for call in c.other.calls for token in call]
    return [f"{text_of(c.model, token)} token {place}" for place, token in enumerate(ids)]


def text_of(model: "Model", token: int) -> str:
    """The text of a token in quotation marks, or its number where the file has no text for it."""
    from ..errors import RefmodelError

    try:
        text: str = model.tokenizer.decode([token])
    except (RefmodelError, IndexError):
        return f"#{token}"
    return f"“{text}”".replace("\n", "⏎").replace("\t", "⇥") if text else f"#{token}"


def tokens(c: Compared) -> Section:
    """The error along the tokens, at the logits and in each block."""
    names, errors = by_position(c)
    series = []
    if c.result.choices:
        series = [Series("logits", placed(c, [row.nmse for row in c.result.logits], len(names)))]
    known = [p for p in range(len(errors)) if not np.isnan(errors[p]).all()]
    if known:
        series.append(Series(f"output of {c.blocks[known[-1]]}", errors[known[-1]].tolist()))
    pictures: list[Lines | Heat] = []
    if series and len(names) > 1:
        says = "; ".join(f"{one.name}: {extreme(names, one.values)}" for one in series)
        pictures.append(Lines("Error over tokens", says, "token", "NMSE", names, series))
    if known and len(names) > 1:
        flat = [f"{c.blocks[p]} at {names[t]}" for p in known for t in range(len(names))]
        says = f"NMSE of each block's output at each token: {extreme(flat, errors[known].ravel().tolist())}. Grey is 0."
        rows = [c.blocks[p] for p in known]
        pictures.append(Heat("Block and token", says, "position", "token", rows, names, errors[known].tolist(), "NMSE"))
    sentences = ["An error that grows with the token is one of positions or of the cache; one at all tokens is one of weights."]
    return Section("Error over tokens", sentences, pictures)


def placed(c: Compared, values: Sequence[float], count: int) -> list[float]:
    """Values of the rows of logits at their places in the whole sequence; NaN elsewhere."""
    starts = np.cumsum([0, *map(len, c.other.calls)])
    out = [float("nan")] * count
    for choice, value in zip(c.result.choices, values):
        out[int(starts[choice.call]) + choice.token] = value
    return out


def logits(c: Compared) -> Section:
    """The likeliest tokens of both sides, token by token."""
    names, starts = token_names(c), np.cumsum([0, *map(len, c.other.calls)])
    lines = []
    for row, choice in zip(c.result.logits, c.result.choices):
        word, mark = ("near tie", NOTE) if row.near_tie else ("same first", "")
        if row.top1_ours != row.top1_theirs and not row.near_tie:
            word, mark = "another first", BAD
        cells = [names[int(starts[choice.call]) + choice.token], text_of(c.model, row.top1_theirs), text_of(c.model, row.top1_ours)]
        cells += [figure(row.kl), figure(row.nmse), f"{row.margin:.2f}", word]
        inner = [
            Line(
                [str(n + 1), text_of(c.model, b[0]), f"{b[1]:.3f}", text_of(c.model, a[0]), f"{a[1]:.3f}"],
                BAD if a[0] != b[0] else "",
            )
            for n, (a, b) in enumerate(zip(choice.ours, choice.theirs))
        ]
        best = Table(
            "The likeliest tokens after it", ["place", "theirs", "logit", "ours", "logit"], inner, frozenset({"theirs", "ours"})
        )
        lines.append(Line(cells, mark, word, best))
    columns = ["after", "theirs", "ours", "KL, nats", "NMSE", "margin", "first token"]
    table = Table("Logits of each token", columns, lines, frozenset({"theirs", "ours", "first token"}), searched=True)
    sentences = [
        "A near tie is a token whose two best logits are closer to each other than both sides are. A line opens its best tokens."
    ]
    return Section("Logits", sentences, [], [table] if lines else [])


def operations(c: Compared) -> Section:
    """Every operation; each opens its taps."""
    from ..compare.verdict import stem

    by_stem: dict[str, list[Row]] = {}
    for row in c.result.rows:
        by_stem.setdefault(stem(row.name), []).append(row)
    table = Table(
        "Operations",
        ["operation", "ggml's", "taps", "worst NMSE", "in the run", "rounding explains", "verdict"],
        [operation_line(c, name, rows) for name, rows in by_stem.items()],
        frozenset({"ggml's", "verdict"}),
        searched=True,
        brief=True,
    )
    sentences = [
        "The worst NMSE is from the other side's own inputs; the next column has the error of the whole run. A line opens the taps "
        "of its operation at every position. The search also finds taps, such as Qcur-3."
    ]
    return Section("Operations", sentences, [], [table])


def operation_line(c: Compared, name: str, rows: "Sequence[Row]") -> Line:
    """The line of one operation at all of its positions."""
    judged = [c.verdict.rows[row.name] for row in rows if row.name in c.verdict.rows]
    word, mark = word_of(judged, rows)
    ops = dict.fromkeys(c.other.operations.get(row.name, "") for row in rows)
    allowed = [row.allowed for row in judged if np.isfinite(row.allowed)]
    cells = [name, ", ".join(filter(None, ops)) or "–", str(len(rows)), largest(judged), largest(rows)]
    cells += [figure(max(allowed)) if allowed else "–", word]
    columns = ["tap", "shape", "NMSE alone", "NMSE in the run", "max |a−b|", "cosine", "other bits", "verdict"]
    inner = Table(f"Taps of {name}", columns, [tap_line(row, c.verdict.rows) for row in rows], frozenset({"verdict"}))
    return Line(cells, mark, word, inner)


def largest(rows: "Sequence[Row]") -> str:
    """The largest NMSE of some rows as a cell."""
    known = [row.nmse for row in rows if not np.isnan(row.nmse)]
    return figure(max(known)) if known else "–"


def word_of(judged: "Sequence[Row]", rows: "Sequence[Row]") -> tuple[str, str]:
    """The word for some rows of one operation, and its mark."""
    if any(not row.within for row in judged):
        return "wrong", BAD
    if len(judged) < len(rows):
        return "not judged", NOTE
    return ("explained", "") if any(row.differ for row in [*judged, *rows]) else ("same bits", "")


def tap_line(row: "Row", judged: "Mapping[str, Row]") -> Line:
    """The line of one tap: how its operation does from their inputs, and its figures in the run."""
    one = judged.get(row.name)
    word, mark = word_of([one] if one else [], [row])
    why = f"{word}: {wrong_because(one)}" if one and not one.within else word
    shape = "×".join(map(str, row.shape)) or "–"
    cells = [row.name, shape, figure(one.nmse if one else None), figure(row.nmse), figure(row.max_abs)]
    return Line([*cells, "–" if np.isnan(row.cosine) else f"{row.cosine:.7f}", f"{row.differ:,}", why], mark)
