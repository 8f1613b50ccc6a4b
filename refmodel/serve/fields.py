"""The fields of a request's JSON object, read with checks: every mistake names the field, what it is and what was expected."""

import math
import secrets
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..text.sampling import Sampling
from .wishes import Refusal

MOST_STOPS, MOST_TOP, MOST_BIAS = 32, 20, 1000
DIGITS = 20  # of a token id: Python does not read whole numbers of thousands of digits
NEUTRAL: dict[str, tuple[Any, ...]] = {  # what changes a text and is not here -> the values with which it changes nothing
    "tools": ([],),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "modalities": (["text"],),
    "audio": (),
    "grammar": ("",),
    "json_schema": ({}, ""),
    "lora": ([],),
    "mirostat": (0,),
    "typical_p": (1,),
    "tfs_z": (1,),
    "top_n_sigma": (-1,),
    "xtc_probability": (0,),
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
}


class Fields:
    """A JSON object. A field that is null counts as one that is not there."""

    def __init__(self, body: Any) -> None:
        if not isinstance(body, dict):
            raise Refusal(f"the body is {shown(body)}; expected a JSON object")
        self.body: Mapping[str, Any] = {name: value for name, value in body.items() if value is not None}
        for name, neutral in NEUTRAL.items():
            if name in self.body and self.body[name] not in neutral:
                raise Refusal(f"{name} is not supported by this server; leave it out", param=name)

    def number(self, name: str, default: float, low: float, high: float = math.inf) -> float:
        """A number from low to high; one that a float cannot hold is none."""
        value, most = self.body.get(name, default), min(high, sys.float_info.max)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= most:
            raise self.wrong(name, f"a number from {low:g} to {high:g}" if high < math.inf else f"a number of at least {low:g}")
        return float(value)

    def whole(self, name: str, default: int, low: int, high: int = 2**63) -> int:
        """A whole number from low to high."""
        value = self.body.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, f"a whole number from {low} to {high}" if high < 2**63 else f"a whole number of at least {low}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.body.get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A text. Refusal if it is missing and has no default."""
        value = self.body.get(name, default)
        if not isinstance(value, str):
            raise self.wrong(name, "a text")
        return value

    def options(self, name: str) -> Mapping[str, Any]:
        """An object with further fields."""
        value = self.body.get(name, {})
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return value

    def stops(self) -> tuple[str, ...]:
        """`stop`: a text or a list of them. Halves of surrogate pairs are no text: no answer could repeat them."""
        value = self.body.get("stop", [])
        several = [value] if isinstance(value, str) else value
        if not isinstance(several, list) or len(several) > MOST_STOPS or not all(map(is_text, several)):
            raise self.wrong("stop", f"a text, or a list of at most {MOST_STOPS} texts")
        return tuple(several)

    def wrong(self, name: str, expected: str) -> Refusal:
        """The refusal of a field."""
        found = f"is {shown(self.body[name])}" if name in self.body else "is missing"
        return Refusal(f"{name} {found}; expected {expected}", param=name)

    def sampling(self, default: Sampling, n_vocab: int) -> Sampling:
        """How tokens are chosen. Without `seed`, and with -1, one is drawn."""
        seed = self.whole("seed", -1, -1)
        return replace(
            default,
            temperature=self.number("temperature", default.temperature, 0, 100),
            top_k=max(0, self.whole("top_k", default.top_k, -1)),
            top_p=self.number("top_p", default.top_p, 0),
            min_p=self.number("min_p", default.min_p, 0, 1),
            repeat_penalty=self.number("repeat_penalty", default.repeat_penalty, 0.01, 100),
            repeat_last=self.whole("repeat_last_n", default.repeat_last, 0),
            frequency_penalty=self.number("frequency_penalty", 0, -100, 100),
            presence_penalty=self.number("presence_penalty", 0, -100, 100),
            biases=self.biases(n_vocab),
            seed=secrets.randbits(32) if seed < 0 else seed,
        )

    def biases(self, n_vocab: int) -> tuple[tuple[int, float], ...]:
        """`logit_bias`: OpenAI's object {"id": bias}, or llama-server's list [[id, bias]], where false forbids a token."""
        value = self.body.get("logit_bias", {})
        pairs = list(value.items()) if isinstance(value, dict) else value
        found = list[tuple[int, float]]()
        for pair in pairs if isinstance(pairs, list) else [None]:
            if not isinstance(pair, list | tuple) or len(pair) != 2 or not is_below(n_vocab, pair[0]):
                raise self.wrong("logit_bias", f"{{id: bias}} with token ids from 0 to {n_vocab - 1}")
            bias = pair[1]
            if bias is not False and (bias is True or not isinstance(bias, int | float) or not abs(bias) <= MOST_BIAS):
                raise self.wrong("logit_bias", f"biases from -{MOST_BIAS} to {MOST_BIAS}, or false to forbid a token")
            found.append((int(pair[0]), -math.inf if bias is False else float(bias)))
        return tuple(found)


def is_text(value: Any) -> bool:
    """Whether a value is a text that UTF-8 can say."""
    return isinstance(value, str) and not any("\ud800" <= one <= "\udfff" for one in value)


def is_below(most: int, value: Any) -> bool:
    """Whether a value is a whole number from 0 to most - 1, or its digits."""
    digits = str(value)
    return len(digits) <= DIGITS and digits.isdecimal() and int(digits) < most


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, at most 60 characters."""
    line = " ".join(repr(value).split())
    return line if len(line) <= 60 else f"{line[:57]}..."
