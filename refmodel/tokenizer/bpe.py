"""Byte-pair vocabularies (`gpt2`), on the `tokenizers` package: text is cut, written in byte letters, and merged by rank.

Two corners are llama.cpp's own. A merge may make a piece that is no token: it is spelled in its one-byte tokens. A byte
letter that is no token keeps its neighbours apart and is then dropped. Both stand in the vocabulary given to `tokenizers`
as extra ids behind the real ones, and are replaced afterwards.
Source: llama.cpp src/llama-vocab.cpp, llm_tokenizer_bpe_session; the byte letters are those of GPT-2.
"""

from collections.abc import Iterable

import tokenizers
from tokenizers import models, pre_tokenizers

from .pre import Pre
from .vocab import Vocab


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
    """The merges of one vocabulary, ready to run."""

    def __init__(self, vocab: Vocab, merges: Iterable[str], pre: Pre) -> None:
        """`merges`: lines "left right", best first. Of a merge that is there twice the first counts."""
        self.n_vocab = len(vocab.texts)
        self.spelled: dict[int, list[int]] = {}  # extra id -> the tokens it is replaced by
        ids = dict(vocab.index)

        def know(piece: str) -> None:
            if piece not in ids:
                self.spelled[len(ids)] = [vocab.index[c] for c in piece if c.isascii() and c in vocab.index]
                ids[piece] = len(ids)

        pairs: dict[tuple[str, str], None] = {}
        for line in merges:
            at = line.find(" ", 1)
            left, right = line[:at], line[at + 1 :]
            if at > 0 and right:
                pairs[left, right] = None
        for left, right in pairs:
            for piece in (left, right, left + right):
                know(piece)
        missing = " "  # a space is never a byte letter; longer until it is nobody's text
        while missing in ids:
            missing += " "
        know(missing)
        self.spelled[ids[missing]] = []
        model = models.BPE(ids, list(pairs), unk_token=missing, ignore_merges=pre.ignore_merges)
        cuts = [pre_tokenizers.Split(tokenizers.Regex(cut), "isolated") for cut in pre.cuts]
        self.engine = tokenizers.Tokenizer(model)
        self.engine.pre_tokenizer = pre_tokenizers.Sequence(
            [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )

    def encode(self, text: str) -> list[int]:
        """The ids of text without special tokens."""
        ids: list[int] = self.engine.encode(text, add_special_tokens=False).ids
        if max(ids, default=0) < self.n_vocab:
            return ids
        return [real for i in ids for real in self.spelled.get(i, [i])]
