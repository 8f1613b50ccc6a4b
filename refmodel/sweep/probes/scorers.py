"""The two families of scorers that RYS sweeps use, exactly: Ng's, and circuit-finder's. Pure functions of texts.

Source: the RYS repository and llm-circuit-finder, as their behaviour is described in docs/sweep.md.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

THINKING = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL | re.IGNORECASE)
LEAST = 3  # emotions that a pass must name
MIDDLE = 5.0  # what a missing emotion counts as
NAMED = re.compile(r"^[\s>*_-]*([A-Za-z][A-Za-z _/-]*?)[\s*_]*:[\s*_]*([0-9]+(?:\.[0-9]+)?)", re.MULTILINE)
REVISED = re.compile(r"revised\s+(?:pass\s+)?scores?", re.IGNORECASE)


@dataclass(frozen=True)
class Mark:
    """A score, and what of the answer it was given for; empty if nothing could be read."""

    score: float
    extracted: str


def without_thinking(text: str) -> str:
    """The text without its thinking; the text itself if nothing else is in it."""
    rest = THINKING.sub("", text).strip()
    return rest or text.strip()


def digits(expected: int, answer: int) -> float:
    """Partial credit for a number, from 0 to 1, by its leading digits.

    Both are written in digits, and the shorter one is filled with zeros on the right to the length L of the longer one, p of them.
    The score is (1 - |a - e| / max(a, e)) * (1 - p / L), within 0 and 1; 0 if the larger number is 0. A sign counts as a digit.
    """
    texts = str(int(expected)), str(int(answer))
    length = max(map(len, texts))
    padded = length - min(map(len, texts))
    e, a = (int(text.ljust(length, "0")) for text in texts)
    if max(a, e) == 0:
        return 0.0
    return max(0.0, min(1.0, (1 - abs(a - e) / max(a, e)) * (1 - padded / length)))


def ng_math(expected: int, text: str) -> Mark:
    """Ng's: the best partial credit of all runs of digits in the answer, so that a comma cuts a number in two."""
    found = re.findall(r"[0-9]+", without_thinking(text))
    marks = [Mark(digits(expected, int(number)), number) for number in found]
    return max(marks, key=lambda mark: mark.score, default=Mark(0.0, ""))


def cf_math(expected: int, text: str) -> Mark:
    """circuit-finder's: partial credit of the longest number, with its sign, its commas dropped; of equals the first."""
    found = re.findall(r"[-+]?[0-9,]+", text.strip())
    longest = max(found, key=len, default="").replace(",", "")
    if not re.fullmatch(r"[-+]?[0-9]+", longest):
        return Mark(0.0, "")
    return Mark(digits(expected, int(longest)), longest)


def named_scores(text: str, emotions: Sequence[str]) -> dict[str, float]:
    """`Name: number` lines of these emotions; the first of each counts."""
    wanted = {name.lower(): name for name in emotions}
    found: dict[str, float] = {}
    for name, number in NAMED.findall(text):
        if (key := name.strip().lower()) in wanted:
            found.setdefault(wanted[key], float(number))
    return found


def ng_eq(reference: Mapping[str, float], text: str) -> Mark:
    """Ng's: how near four intensities are, weighted with how clearly they were given; from 0 to 1.

    Intensities are read from a first pass (confidence 0.8), from revised scores (0.9), or both, averaged (1.0); a pass counts if it
    names three of the four, and a missing one is 5. Otherwise the first four numbers from 0 to 10 count (confidence 0.5, n of four
    n/8), and without any all are 5 (confidence 0). raw = max(0, 1 - sum of |difference| / 40); the score is
    confidence * raw + (1 - confidence) * 0.5: an answer without any number has 0.5.
    """
    text, names = without_thinking(text), list(reference)
    mark = REVISED.search(text)
    parts = (text[: mark.start()] if mark else text), (text[mark.end() :] if mark else "")
    passes = [scores if len(scores) >= LEAST else {} for scores in (named_scores(part, names) for part in parts)]
    filled = [[scores.get(name, MIDDLE) for name in names] for scores in passes if scores]
    if filled:
        given = [sum(values) / len(values) for values in zip(*filled)]
        confidence = 1.0 if len(filled) == 2 else 0.8 if passes[0] else 0.9
    else:
        loose = [value for value in map(float, re.findall(r"[0-9]+(?:\.[0-9]+)?", text)) if 0 <= value <= 10][:4]
        given = [*loose, *[MIDDLE] * 4][: len(names)]
        confidence = len(loose) / 8
    raw = max(0.0, 1 - sum(abs(a - b) for a, b in zip(given, reference.values())) / 40)
    said = ", ".join(f"{value:g}" for value in given) if confidence else ""
    return Mark(confidence * raw + (1 - confidence) * 0.5, said)


def cf_eq(reference: Sequence[float], text: str) -> Mark:
    """circuit-finder's: the first four numbers of the answer, held within 0 and 10; from 0 to 100.

    A difference d costs d * d / 4 up to 4, beyond that d; the score is 100 * max(0, 1 - cost / 40). Fewer numbers score 0.
    """
    found = re.findall(r"[0-9]+(?:\.[0-9]+)?", text)
    if len(found) < len(reference):
        return Mark(0.0, "")
    given = [max(0.0, min(10.0, float(number))) for number in found[: len(reference)]]
    apart = [abs(a - b) for a, b in zip(given, reference)]
    cost = sum(d * d / 4 if d <= 4 else d for d in apart)
    return Mark(100 * max(0.0, 1 - cost / (10 * len(reference))), ", ".join(f"{value:g}" for value in given))


def reasoning(expected: str, text: str) -> Mark:
    """circuit-finder's exact match, 0 or 1: the final answer and the expected one, in lower case, letters and digits only.

    The final answer is what follows "the answer is" up to a full stop, exclamation mark or line's end; else a yes or no of the
    last line; else a capital A to F of the last line; else the last line. A yes or no is also right if the last line has it as a
    part of a word, and not the other way round with "no".
    """
    final = final_answer(text)
    ours, theirs = (re.sub("[^a-z0-9]", "", words.lower()) for words in (expected, final))
    if ours == theirs:
        return Mark(1.0, final)
    last = text.strip().split("\n")[-1].lower()
    right = ours in ("yes", "no") and ours in last and (ours == "yes") != ("no" in last)
    return Mark(float(right), final)


def final_answer(text: str) -> str:
    """What an answer ends with, as `reasoning` reads it."""
    last = text.split("\n")[-1]
    if said := re.search(r"the answer is\s+(.+?)[.!\n\r]", text, re.IGNORECASE):
        return said[1].strip()
    for pattern, flags in ((r"\b(yes|no)\b", re.IGNORECASE), (r"\(?([A-F])\)?", re.NOFLAG)):
        if said := re.search(pattern, last, flags):
            return said[1].strip()
    return text.strip().split("\n")[-1].strip()
