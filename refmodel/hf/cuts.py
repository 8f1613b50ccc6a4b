"""Which of llama.cpp's pre-tokenizers cuts text as a tokenizer.json does: both cut a text, and the pieces are compared.

A converter knows a pre-tokenizer by the ids that a vocabulary gives to a text, so that one more token makes it unknown. Cutting
needs no vocabulary.
"""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

from ..errors import MetadataError
from ..machine.boundary import handed
from ..tokenizer.pre import PRE, Pre

Pieces = Sequence[tuple[int, int]]

# Text in which any two of llama.cpp's pre-tokenizers differ, if they cut differently at all: a test compares them all.
PROBE = (
    "It's IT'S we'Ll don't 'tis o'clock'd x'saying y'tHem z'really 1 22 333 4444 55555 1234567890 3.14159 x86_64 v2.0 a1b2c3  12 "
    "HTTPServer2Go camelCaseWords __init__(self, x): return x**2+1;  # two  spaces\n\n\n\tindented\ttabs \t \n  \r\n\r\nend. \n \n"
    "https://example.org/a/b?c=d&e=%20#f foo@bar.com $9.99 50% C++ -- ... !!! ?!\n//\n/ /* */ <tag attr=\"v\"/> [INST] {k: 'v'} "
    "q\u0307\u0323 Ame\u0301lie e\u0301e\u0301 \u0e01\u0e33\u0e25\u0e31\u0e07 \u0928\u092e\u0938\u094d\u0924\u0947 \u0ba8\u0bbf "
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u6211\u67093\u53ea\u732b\u3002\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3001abc "
    "\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8 \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u0661\u0662 "
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u00c5ngstr\u00f6m \u00dfTRASSE \u00b2\u00b3\u2044 \u2167 \u2026"
    "\u201cquoted\u201d\u2014dash \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f x\U0001f600y  \u00a0\u3000z "
    + " " * 40 + "w" + "\n" * 9 + "k   l    m     \n"
)  # fmt: skip


def pre_of(spec: Any, ignore_merges: bool) -> str | None:
    """The name of llama.cpp's pre-tokenizer that cuts as a tokenizer.json says; None if none does.

    spec           its pre_tokenizer
    ignore_merges  whether its model takes a whole piece that is a token; of two that cut alike this decides
    """
    theirs = pieces_of(spec)
    if theirs is None:
        return None
    alike = [name for name, pre in PRE.items() if pre.letters and pieces(pre) == theirs]
    first = next(iter(alike), None)
    return next((name for name in alike if PRE[name].ignore_merges == ignore_merges), first)


def pieces_of(spec: Any) -> Pieces | None:
    """Where a pre_tokenizer of a tokenizer.json cuts PROBE; None if the package does not read it."""
    whole = {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": [], "pre_tokenizer": spec}
    try:
        with handed("tokenizers", "pre_tokenizer", MetadataError, ""):
            engine = tokenizers.Tokenizer.from_str(json.dumps(whole)).pre_tokenizer
            return None if engine is None else [span for _, span in engine.pre_tokenize_str(PROBE)]
    except MetadataError:
        return None


@cache
def pieces(pre: Pre) -> Pieces:
    """Where a pre-tokenizer of llama.cpp cuts PROBE."""
    cuts = [pre_tokenizers.Split(tokenizers.Regex(cut), "isolated") for cut in pre.cuts]
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return [span for _, span in pre_tokenizers.Sequence([*cuts, letters]).pre_tokenize_str(PROBE)]
