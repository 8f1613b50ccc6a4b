"""The vocabulary of a file: texts, attributes and the tokens that end a generation, as llama.cpp sees them.

A file gives each token a text and a type. llama.cpp then corrects some attributes by the token's text, because many files
mark their control tokens wrongly; the corrections decide which words of a prompt are read as special tokens.
Source: llama.cpp src/llama-vocab.cpp, llama_vocab::impl::load.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntFlag
from functools import cached_property

import numpy as np
from gguf import GGUFValueType
from numpy.typing import NDArray

from ..errors import MetadataError
from ..gguf.metadata import ANY, Metadata


class Attr(IntFlag):
    """What a token is; the bits of llama_token_attr."""

    UNKNOWN = 1
    UNUSED = 2
    NORMAL = 4
    CONTROL = 8
    USER_DEFINED = 16
    BYTE = 32
    LSTRIP = 128
    RSTRIP = 256


WHITE = " \t\n\v\f\r"  # what stripping takes
SPACE = "\u2581"  # how SentencePiece and its like write a space
SPECIAL = int(Attr.CONTROL | Attr.UNKNOWN)
SHOWN = SPECIAL | int(Attr.USER_DEFINED)  # found in raw text, printed as they are
TYPES = (0, *map(int, (Attr.NORMAL, Attr.UNKNOWN, Attr.CONTROL, Attr.USER_DEFINED, Attr.UNUSED, Attr.BYTE)))

ENDS = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
]
FILL = {  # fill-in-the-middle tokens: key -> (its older key, the texts that stand for it when no key is there)
    "fim_pre": (
        "prefix",
        "<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>",
    ),
    "fim_suf": (
        "suffix",
        "<|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>",
    ),
    "fim_mid": (
        "middle",
        "<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>",
    ),
    "fim_pad": ("", "<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD]"),
    "fim_rep": ("", "<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>"),
    "fim_sep": ("", "<|file_sep|>"),
}
ALWAYS_SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")


def special_id(md: Metadata, name: str, default: int | None, count: int) -> int | None:
    """The id under `tokenizer.ggml.<name>_token_id`; the default where the key is absent or outside the `count` tokens.

    None if the default is that too. MetadataError for a key of another type.
    """
    fallback = -1 if default is None or default >= count else default
    found = md.int(f"tokenizer.ggml.{name}_token_id", fallback, *ANY)
    found = found if 0 <= found < count else fallback
    return None if found < 0 else found


@dataclass(frozen=True)
class Vocab:
    """Token texts and what the texts and the metadata say about them. Building it reads the whole vocabulary."""

    texts: tuple[str, ...]
    index: dict[str, int]  # text -> id
    attrs: tuple[int, ...]  # the bits of Attr
    eog: frozenset[int]  # the tokens that end a generation

    @staticmethod
    def from_metadata(md: Metadata, eos: int | None) -> "Vocab":
        """Read and correct the vocabulary; `eos` counts as an end.

        MetadataError for arrays that are missing or contradict each other.
        """
        texts = tuple(text or f"[EMPTY_{i}]" for i, text in enumerate(md.strings("tokenizer.ggml.tokens")))
        index = {text: i for i, text in enumerate(texts)}
        if len(index) != len(texts):
            twice = next(text for i, text in enumerate(texts) if index[text] != i)
            raise MetadataError(
                f"{md.path}: tokenizer.ggml.tokens has {twice!r} twice; every token needs a text of its own: "
                "convert the model again."
            )
        attrs = attributes(md, len(texts))
        eog = endings(md, eos, index, attrs)
        strip_neighbours(md, index, attrs)
        return Vocab(texts, index, tuple(attrs), eog)

    @cached_property
    def specials(self) -> tuple[int, ...]:
        """The ids matched in raw text before anything else: longest text (in bytes) first."""
        wanted = [i for i, attr in enumerate(self.attrs) if attr & SHOWN]
        return tuple(sorted(wanted, key=lambda i: -len(self.texts[i].encode())))

    def piece(self, token: int, decode: Callable[[str], bytes]) -> bytes:
        """The bytes a token prints as; `decode` does it for a normal token's text. Unused tokens print as nothing."""
        attr, text = self.attrs[token], self.texts[token]
        if attr & SHOWN:
            return text.encode()
        if attr & Attr.NORMAL:
            return decode(text)
        byte = re.match("[0-9a-fA-F]*", text[3:5]) if attr & Attr.BYTE else None
        return b"" if byte is None else bytes([int(byte[0] or "0", 16)])


def per_token(md: Metadata, key: str, count: int) -> NDArray[np.float64] | None:
    """An int32 or float32 array with at least one value per token, as float64 [count], or None where the key is absent.

    MetadataError for fewer values, or another type.
    """
    if key not in md:
        return None
    values = md.array(key, {GGUFValueType.INT32, GGUFValueType.FLOAT32}, "an array of int32 or float32").astype(np.float64)
    if len(values) < count:
        raise MetadataError(
            f"{md.path}: {key} has {len(values)} values for {count} tokens; it needs one number per token: convert the model again."
        )
    return values[:count]


def attributes(md: Metadata, count: int) -> list[int]:
    """Each token's attribute, the bits of Attr, by its type in the file; all are normal where the file has no types.

    MetadataError as for `per_token`.
    """
    types = per_token(md, "tokenizer.ggml.token_type", count)
    if types is None:
        return [int(Attr.NORMAL)] * count
    return [TYPES[int(kind)] if 0 <= kind < len(TYPES) else 0 for kind in types.tolist()]


def endings(md: Metadata, eos: int | None, index: dict[str, int], attrs: list[int]) -> frozenset[int]:
    """The ids of the tokens that end a generation. Corrects `attrs` by the tokens' texts on the way.

    eos    counts as an end
    index  text -> id
    attrs  the bits of Attr of each token
    """
    count = len(attrs)
    fill = fill_tokens(md, index, attrs)
    by_text = {index[text] for text in ENDS if text in index}
    for i in by_text:
        attrs[i] |= Attr.CONTROL
    for i in (index[text] for text in ALWAYS_SHOWN if text in index):
        attrs[i] = Attr.USER_DEFINED
    by_key = (eos, special_id(md, "eot", None, count), special_id(md, "eom", None, count))
    eog = by_text | {i for i in (*by_key, fill["fim_pad"], fill["fim_rep"], fill["fim_sep"]) if i is not None}

    def ends(*texts: str) -> bool:
        return any(index.get(text) in eog for text in texts)

    calls = ends("<|call|>", "<|calls|>") and ends("<|return|>", "<|flush|>")
    if calls and ends("<|end|>"):  # there it only separates messages
        eog.remove(index["<|end|>"])
        attrs[index["<|end|>"]] = Attr.USER_DEFINED
    if ends("<|tool_response>", "<|plamo:eos|>") and ends("</s>"):
        eog.remove(index["</s>"])
        attrs[index["</s>"]] = Attr.NORMAL
    return frozenset(eog)


def fill_tokens(md: Metadata, index: dict[str, int], attrs: list[int]) -> dict[str, int | None]:
    """The fill-in-the-middle tokens, name -> id or None: by key, else by text. The latter are marked in `attrs` as control.

    Where several of the texts are there, llama.cpp takes the one its hash table meets first; here it is the first listed.
    """
    fill: dict[str, int | None] = {}
    for name, (older, texts) in FILL.items():
        token = special_id(md, name, None, len(attrs))
        token = special_id(md, older, token, len(attrs)) if older else token
        found = [index[text] for text in texts.split() if text in index][:1] if token is None else []
        for i in found:
            attrs[i] |= Attr.CONTROL
        fill[name] = found[0] if found else token
    return fill


def strip_neighbours(md: Metadata, index: dict[str, int], attrs: list[int]) -> None:
    """Mark in `attrs` the special tokens that swallow white space next to them; no key says so, llama.cpp knows them by name."""
    name, pre = md.str("general.name", default="").lower(), md.str("tokenizer.ggml.pre", default="")
    marks: dict[int, int] = {}
    if any(part in pre for part in ("jina-v2-de", "jina-v2-es", "jina-v2-code")):
        marks = {index.get("<mask>", -1): Attr.LSTRIP}
    elif "phi-3" in name or "phi3" in name:
        marks = {i: int(Attr.RSTRIP) for i, attr in enumerate(attrs) if attr & SHOWN} | {index.get("</s>", -1): int(Attr.RSTRIP)}
        marks |= {index.get(text, -1): 0 for text in ("<unk>", "<s>", "<|endoftext|>")}
    elif "modern-bert" in name:
        marks = {index.get("[MASK]", -1): Attr.LSTRIP}
    for i, bits in marks.items():
        if i >= 0:
            attrs[i] |= bits


def partition(text: str, vocab: Vocab, parse_special: bool) -> Sequence[str | int]:
    """Cut raw text at its special tokens: the text between them, and their ids, in order.

    A user-defined token is always read; a control or unknown token only with `parse_special`.
    Source: llama_vocab::impl::tokenizer_st_partition.
    """
    fragments: list[str | int] = [text] if text else []
    for token in vocab.specials:
        word, attr = vocab.texts[token], vocab.attrs[token]
        if (attr & SPECIAL and not parse_special) or word not in text:
            continue
        parts = ([f] if isinstance(f, int) else cut(f, word, token, attr) for f in fragments)
        fragments = [part for some in parts for part in some]
    return fragments


def cut(text: str, word: str, token: int, attr: int) -> list[str | int]:
    """Cut one fragment of text at each occurrence of `word`, the text of special token `token` with attributes `attr`."""
    parts: list[str | int] = []
    at = 0
    while (found := text.find(word, at)) >= 0:
        before, at = text[at:found], found + len(word)
        parts += [before.rstrip(WHITE) if attr & Attr.LSTRIP else before, token]
        while attr & Attr.RSTRIP and text[at : at + 1] in WHITE and at < len(text):
            at += 1
    return [part for part in [*parts, text[at:]] if part != ""]
