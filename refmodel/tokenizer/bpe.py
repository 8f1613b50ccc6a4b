"""Byte-pair vocabularies (`gpt2`, `gemma4`), on the `tokenizers` package: text is cut and merged by rank.

Most merge byte letters, one a byte. Some (`Pre.letters` is false) merge the characters themselves; one that is no token is
spelled in byte tokens <0xXX>.

Two corners are llama.cpp's own. A merge may make a piece that is no token: it is spelled in its one-byte tokens. A byte
letter that is no token keeps its neighbours apart and is then dropped. Both are given to `tokenizers` as extra ids after
the real ones, and are replaced afterwards.
Source: llama.cpp src/llama-vocab.cpp, llm_tokenizer_bpe_session; the byte letters are those of GPT-2.
"""

import re
from collections.abc import Iterable

import tokenizers
from tokenizers import models, pre_tokenizers

from ..errors import MetadataError, TokenError
from ..machine.boundary import handed
from .pre import Pre
from .vocab import SPACE, Vocab

CURE = "convert the model again, or give --tokens, which takes ids directly"


def byte_letters() -> dict[str, int]:
    """The letter that stands for each byte: itself where it prints in Latin-1, else the next one from U+0100."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTES = byte_letters()


def decode(text: str) -> bytes:
    """A token's text, in byte letters, as the bytes it stands for; other letters are shown as llama.cpp shows them."""
    unknown = "[UNK_BYTE_0x{}" + text + "]"
    return b"".join(bytes([BYTES[c]]) if c in BYTES else unknown.replace("{}", c.encode().hex(), 1).encode() for c in text)


class Bpe:
    """The merges of one vocabulary, ready to run.

    vocab   its texts
    merges  lines "left right", best first
    pre     how text is cut before merging
    """

    def __init__(self, vocab: Vocab, merges: Iterable[str], pre: Pre) -> None:
        """`merges`: lines "left right", best first. Of a merge that is there twice the first counts."""
        self.n_vocab, self.index, self.pre = len(vocab.texts), vocab.index, pre
        self.spelled: dict[int, list[int]] = {}  # extra id -> the tokens it is replaced by
        ids, pairs = dict(vocab.index), pairs_of(merges)
        for left, right in pairs:
            for piece in (left, right, left + right):
                if piece not in ids:
                    self.spelled[len(ids)] = self.spell(piece)
                    ids[piece] = len(ids)
        missing = " "  # longer until it is nobody's text
        while missing in ids:
            missing += " "
        self.missing = ids[missing] = len(ids)
        with handed("tokenizers", "the file's vocabulary", MetadataError, CURE):
            model = models.BPE(ids, pairs, unk_token=missing, ignore_merges=pre.ignore_merges)
            cuts = [pre_tokenizers.Split(tokenizers.Regex(cut), "isolated") for cut in pre.cuts]
            letters = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)] if pre.letters else []
            self.engine = tokenizers.Tokenizer(model)
            self.engine.pre_tokenizer = pre_tokenizers.Sequence([*cuts, *letters])

    def encode(self, text: str) -> list[int]:
        """The ids of text without special tokens. Source: llm_tokenizer_bpe_session."""
        text = text.replace(" ", SPACE) if self.pre.spaces else text
        if not self.pre.whole_newlines:
            return self._merged(text)
        whole = ((run, self.index.get(run) if run[0] == "\n" else None) for run in re.findall(r"[^\n]+|\n+", text))
        return [i for run, token in whole for i in (self._merged(run) if token is None else [token])]

    def _merged(self, text: str) -> list[int]:
        with handed("tokenizers", "the file's vocabulary", TokenError, CURE):
            found = self.engine.encode(text, add_special_tokens=False)
        ids: list[int] = found.ids
        if max(ids, default=0) < self.n_vocab:
            return ids
        spelled = self.spelled
        if self.pre.letters or self.missing not in ids:
            return [real for i in ids for real in spelled.get(i, [] if i == self.missing else [i])]
        spans = zip(ids, found.offsets, strict=True)
        return [real for i, (a, b) in spans for real in (self.spell(text[a:b]) if i == self.missing else spelled.get(i, [i]))]

    def spell(self, piece: str) -> list[int]:
        """The one-byte tokens of a piece that is no token; a byte without one is left out."""
        if self.pre.letters:
            return [self.index[c] for c in piece if c.isascii() and c in self.index]
        return [self.index[name] for name in (f"<0x{byte:02X}>" for byte in piece.encode()) if name in self.index]


def pairs_of(merges: Iterable[str]) -> list[tuple[str, str]]:
    """Lines "left right" as pairs, in order, each once. The space between them is the first after the first character."""
    pairs: dict[tuple[str, str], None] = {}
    for line in merges:
        at = line.find(" ", 1)
        left, right = line[:at], line[at + 1 :]
        if at > 0 and right:
            pairs[left, right] = None
    return list(pairs)
