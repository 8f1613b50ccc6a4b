"""The vocabulary of a folder, tokenizer.model or tokenizer.json, as the tokenizer.ggml keys of a GGUF.

Source: llama.cpp conversion/base.py, get_vocab_base and _create_vocab_sentencepiece. Where a tokenizer.json has the merges of a
SentencePiece vocabulary (byte_fallback), the converter writes no scores; here they follow the order of the merges.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf import GGUFValueType as T
from sentencepiece import SentencePieceProcessor

from ..errors import MetadataError
from ..gguf import writer
from ..gguf.metadata import Field
from ..gguf.reader import mapped
from ..machine.boundary import handed
from ..tokenizer.vocab import SPACE
from .cuts import pre_of
from .folder import Folder, read_json
from .keys import as_field
from .settings import Settings
from .specials import specials

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # tokenizer.ggml.token_type
MOST = 1 << 23  # tokens
MODEL, JSON, CONFIG = "tokenizer.model", "tokenizer.json", "tokenizer_config.json"
FOREIGN = {"Unigram": "t5", "WordPiece": "bert", "WordLevel": "whitespace"}  # kinds that a GGUF may have, and this program not
# Added tokens that steer a conversation although they are not marked as special.
STEERS = re.compile(r"<\|.*\|>|<｜.*｜>|<unused.*>|<pad>|<mask>|<2mass>|\[@BOS@\]", re.DOTALL)


@dataclass
class Tokens:
    """Tokens by id: texts, types and scores; what no token has is padding."""

    texts: dict[int, str] = field(default_factory=dict)
    types: dict[int, int] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)

    def put(self, token: int, text: str, kind: int, score: float = 0.0) -> None:
        """Set a token. ValueError for an id that no vocabulary has."""
        if not isinstance(token, int) or not 0 <= token < MOST or not isinstance(text, str):
            raise ValueError(f"token {str(token)[:20]} is {str(text)[:20]!r}")
        self.texts[token], self.types[token], self.scores[token] = text, kind, score

    def fields(self, count: int, scored: bool, unscored: float = 0.0) -> dict[str, Field]:
        """The keys of the lists, for at least `count` tokens; `unscored` is the score of padding."""
        ids = range(max(count, max(self.texts, default=-1) + 1))
        texts = [self.texts.get(i, f"[PAD{i}]") for i in ids]
        types = [self.types.get(i, UNUSED) for i in ids]
        scores = [self.scores.get(i, unscored) for i in ids]
        out = {"tokens": writer.field(T.ARRAY, texts, T.STRING), "token_type": writer.field(T.ARRAY, types, T.INT32)}
        return out | ({"scores": writer.field(T.ARRAY, scores, T.FLOAT32)} if scored else {})


def vocabulary(folder: Folder, s: Settings) -> dict[str, Field]:
    """The keys of a folder's tokenizer; `none` without one.

    MetadataError for files that are there and cannot be read, FileError if they are not JSON.
    """
    path, count = folder.path, min(s.whole("vocab_size") or 0, MOST)
    config = optional(path / CONFIG)
    whole = optional(path / JSON)
    try:
        if (path / MODEL).exists():
            found = pieced(path, config, count)
        elif whole:
            found = written(whole, count)
        else:
            found = {"model": as_field("none")}
        found |= specials(folder, whole, config, len(found["tokens"].value()) if "tokens" in found else 0)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise MetadataError(
            f"{path}: its tokenizer cannot be read ({type(error).__name__}: {str(error)[:60]}); expected files of the tokenizers "
            "package: "
            "get the folder again, or remove them and use --tokens"
        ) from None
    return {key if key.startswith("tokenizer.") else f"tokenizer.ggml.{key}": value for key, value in found.items()}


def optional(path: Path) -> Mapping[str, Any]:
    """A JSON object in a file, or {} without the file. FileError if it cannot be read."""
    return read_json(path) if path.exists() else {}


def kind_of_added(token: Mapping[str, Any]) -> int:
    """The type of an added token."""
    return CONTROL if token.get("special") or STEERS.fullmatch(token["content"]) else USER_DEFINED


def pieced(path: Path, config: Mapping[str, Any], count: int) -> dict[str, Field]:
    """The keys of a tokenizer.model. ValueError if the package cannot read it."""
    engine, tokens = SentencePieceProcessor(), Tokens()
    with handed("sentencepiece", f"{path / MODEL}", MetadataError, "get the folder again, or remove it and use --tokens"):
        engine.LoadFromSerializedProto(mapped(path / MODEL).tobytes())
    tests = {UNKNOWN: engine.IsUnknown, CONTROL: engine.IsControl, UNUSED: engine.IsUnused, BYTE: engine.IsByte}
    for i in range(min(engine.vocab_size(), count or MOST)):
        kind = next((kind for kind, is_so in tests.items() if is_so(i)), NORMAL)
        tokens.put(i, engine.IdToPiece(i), kind, engine.GetScore(i))
    for text, i in optional(path / "added_tokens.json").items():
        tokens.put(i, text, USER_DEFINED, -1000.0)
    for number, token in (config.get("added_tokens_decoder") or {}).items():
        kind = kind_of_added(token)
        text = token["content"] if kind == CONTROL else token["content"].replace(SPACE, " ")
        tokens.put(int(number), text, kind, -1000.0)
    asked, begins = config.get("add_prefix_space"), engine.EncodeAsPieces("a")[:1] != ["a"]
    prefix = asked if isinstance(asked, bool) else begins
    space = {} if prefix and not isinstance(asked, bool) else {"add_space_prefix": as_field(prefix)}  # without the key it is true
    return {"model": as_field("llama"), "pre": as_field("default"), **tokens.fields(count, True, -10000.0), **space}


def written(whole: Mapping[str, Any], count: int) -> dict[str, Field]:
    """The keys of a tokenizer.json."""
    model = whole["model"]
    kind = model.get("type") or ("BPE" if "merges" in model else "WordPiece")
    if kind != "BPE":
        return {"model": as_field(FOREIGN.get(kind, str(kind)[:40]))}
    return like_sentencepiece(whole, count) if model.get("byte_fallback") else byte_pairs(whole, count)


def added_to(tokens: Tokens, whole: Mapping[str, Any], score: float = 0.0) -> None:
    """Set the added tokens of a tokenizer.json."""
    for token in whole.get("added_tokens") or ():
        kind = kind_of_added(token)
        text = token["content"] if kind == CONTROL else token["content"].replace(SPACE, " ")
        tokens.put(token["id"], text, kind, score)


def pairs_of(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges of a tokenizer.json, best first: written as "left right", or as lists of two."""
    found = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model.get("merges") or ()]
    return [(left, right) for left, right in found]


def byte_pairs(whole: Mapping[str, Any], count: int) -> dict[str, Field]:
    """The keys of a byte-pair vocabulary over byte letters, as GPT-2's."""
    model, tokens = whole["model"], Tokens()
    for text, i in model["vocab"].items():
        tokens.put(i, text, NORMAL)
    added_to(tokens, whole)
    merges = [f"{left.replace(' ', 'Ġ')} {right.replace(' ', 'Ġ')}" for left, right in pairs_of(model)]
    pre = pre_of(whole.get("pre_tokenizer"), bool(model.get("ignore_merges")))
    return {
        "model": as_field("gpt2"),
        "pre": as_field(pre or "unknown: tokenizer.json cuts text as none of them does"),
        **tokens.fields(count, False),
        "merges": writer.field(T.ARRAY, merges, T.STRING),
    }


def like_sentencepiece(whole: Mapping[str, Any], count: int) -> dict[str, Field]:
    """The keys of a SentencePiece vocabulary that is written as merges: a piece's score is the rank of the first that makes it."""
    model, tokens = whole["model"], Tokens()
    merges = pairs_of(model)
    ranks = {left + right: -float(i) for i, (left, right) in reversed(list(enumerate(merges)))}
    for text, i in model["vocab"].items():
        kind = BYTE if re.fullmatch("<0x[0-9A-Fa-f]{2}>", text) else UNKNOWN if text == model.get("unk_token") else NORMAL
        tokens.put(i, text, kind, ranks.get(text, -float(len(merges))))
    unknown = {i: kind for i, kind in tokens.types.items() if kind == UNKNOWN}
    added_to(tokens, whole, -float(len(merges)))
    tokens.types |= unknown
    space = {"add_space_prefix": as_field(begins_with_space(whole))}
    return {"model": as_field("llama"), "pre": as_field("default"), **tokens.fields(count, True, -float(len(merges))), **space}


def begins_with_space(whole: Mapping[str, Any]) -> bool:
    """Whether a space is put before text: by a normalizer that prepends it, or by a Metaspace that does."""
    normalizer, pre = whole.get("normalizer") or {}, whole.get("pre_tokenizer") or {}
    prepends = any(step.get("type") == "Prepend" for step in normalizer.get("normalizers") or [normalizer])
    spaces = [step for step in pre.get("pretokenizers") or [pre] if step.get("type") == "Metaspace"]
    return prepends or any(step.get("prepend_scheme", "always") != "never" for step in spaces)
