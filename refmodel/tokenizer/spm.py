"""SentencePiece vocabularies (`llama`), on the `sentencepiece` package: characters are merged by the score of the result.

llama.cpp differs from SentencePiece around the algorithm, not in it: any token may be the result of a merge, whatever its
type; user-defined tokens are found in the raw text; a character that is no token becomes byte tokens even if some byte
tokens are missing. So the package is given every token as a normal piece, no normalizer, no byte fallback, and one extra
piece for the unknown, whose characters are spelled in bytes here.
Source: llama.cpp src/llama-vocab.cpp, llm_tokenizer_spm_session and byte_to_token.
"""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sentencepiece import SentencePieceProcessor

from ..errors import MetadataError, TokenError
from ..machine.boundary import handed
from .vocab import SPACE, Vocab

CURE = "convert the model again, or give --tokens, which takes ids directly"
LONGEST = 7999  # bytes of a piece
NORMAL, UNKNOWN, BPE = 1, 2, 2  # SentencePiece.Type and TrainerSpec.ModelType of sentencepiece_model.proto


def varint(value: int) -> bytes:
    """A whole number, at least 0, in protobuf's base-128 form."""
    low, high = value & 127, value >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


def number(field: int, value: int) -> bytes:
    """A protobuf field, by its number, that holds a whole number."""
    return varint(field << 3) + varint(value)


def block(field: int, content: bytes) -> bytes:
    """A protobuf field, by its number, that holds a string or a message."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def piece(text: str, score: float, kind: int) -> bytes:
    """One entry of ModelProto.pieces: text (1), score (2, a float), type (3)."""
    return block(1, block(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + number(3, kind))


def model(vocab: Vocab, scores: NDArray[np.float64]) -> bytes:
    """A serialized ModelProto: pieces (1), trainer_spec (2: model_type 3), normalizer_spec (3: 3, 4, 5 switched off).

    scores  one for each token of the vocabulary
    """
    unknown = " "
    while unknown in vocab.index:
        unknown += " "
    pieces = [piece(text, score, NORMAL) for text, score in zip(vocab.texts, scores.tolist(), strict=True)]
    off = number(3, 0) + number(4, 0) + number(5, 0)  # add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces
    return b"".join([*pieces, piece(unknown, 0.0, UNKNOWN), block(2, number(3, BPE)), block(3, off)])


def check(path: Path, vocab: Vocab) -> None:
    """MetadataError, which names the file at `path`, for a token that the package cannot hold."""
    for i, text in enumerate(vocab.texts):
        size = len(text.encode())
        if size > LONGEST or "\0" in text:
            found = "has a NUL character" if "\0" in text else f"is {size} bytes long"
            raise MetadataError(
                f"{path}: tokenizer.ggml.tokens: token {i} {found}; a SentencePiece token has 1 to {LONGEST} bytes and no NUL. "
                f"Convert the model again without it, or give --tokens, which takes ids directly."
            )


def decode(text: str) -> bytes:
    """The bytes of a normal token's text: U+2581 is a space."""
    return text.replace(SPACE, " ").encode()


class Spm:
    """The scores of one vocabulary, ready to run.

    index    text -> id
    unknown  the id of what is no token, the number of tokens
    """

    def __init__(self, path: Path, vocab: Vocab, scores: NDArray[np.float64] | None) -> None:
        """`scores`: one per token, higher is merged first; zeros where the file has none.

        Raises MetadataError, which names the file at `path`, for a token that the package cannot hold.
        """
        check(path, vocab)
        self.index, self.unknown = vocab.index, len(vocab.texts)
        self.path, proto = path, model(vocab, np.zeros(self.unknown) if scores is None else scores)
        with handed("sentencepiece", f"{path}: tokenizer.ggml.tokens", MetadataError, CURE):
            self.engine = SentencePieceProcessor(model_proto=proto)

    def encode(self, text: str) -> list[int]:
        """The ids of text without special tokens. TokenError if a byte of it has no token."""
        text = text.replace(" ", SPACE)
        with handed("sentencepiece", str(self.path), TokenError, CURE):
            ids: list[int] = self.engine.encode(text, out_type=int)
            if self.unknown not in ids:
                return ids
            shown = zip(ids, self.engine.encode(text, out_type=str), strict=True)  # a run of unknown characters shows itself
        return [i for token, run in shown for i in ([token] if token != self.unknown else map(self.byte, run.encode()))]

    def byte(self, value: int) -> int:
        """The token of one byte: <0xXX>, or the character itself. TokenError if there is none. Source: byte_to_token."""
        for text in (f"<0x{value:02X}>", chr(value) if value < 128 else ""):
            if text in self.index:
                return self.index[text]
        raise TokenError(f"The vocabulary has no token for byte 0x{value:02X}; leave its character out, or use --tokens.")
