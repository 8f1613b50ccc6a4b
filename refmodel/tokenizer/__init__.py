"""Text to token ids and back, with the file's own vocabulary and llama.cpp's rules.

Opening is lazy: `Tokenizer.from_metadata` looks at a few scalar keys and never fails for want of a tokenizer; the
vocabulary is read by the first call that needs it. Source: llama.cpp src/llama-vocab.cpp.
"""

import codecs
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property

from ..errors import TokenError
from ..gguf.metadata import Metadata
from . import bpe, spm
from .bpe import Bpe
from .pre import PRE
from .spm import Spm
from .vocab import SPECIAL, Vocab, partition, per_token, special_id

NONE = ("none", "no_vocab")
KNOWN = ("gpt2", "llama", "gemma4")
ENDS: dict[str, tuple[int | None, int | None]] = {"llama": (1, 2), "gemma4": (None, None)}  # begin and end if no key says so
FOREIGN = {  # other values of tokenizer.ggml.model in llama.cpp, and what writes them
    "bert": "a WordPiece vocabulary, of BERT-like embedding models",
    "t5": "a unigram vocabulary, of T5-like encoders",
    "rwkv": "the vocabulary of RWKV models",
    "plamo2": "the vocabulary of PLaMo-2 models",
    "hybriddna": "a vocabulary with k-mers of DNA, of HybriDNA models",
    "whitespace": "a vocabulary of whole words, of Jina's Chinese embedding model",
    "test": "a stand-in of llama.cpp's own tests",
}
BPE_MODELS = ("gpt2", "gemma4")
IDS = "--tokens takes ids directly"


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of one file.

    bos, eos          ids of the begin and end tokens, or None
    add_bos, add_eos  what `encode` adds when asked for special tokens
    n_vocab           V, the tokens of the vocabulary; 0 without one
    """

    md: Metadata = field(repr=False)
    model: str  # tokenizer.ggml.model
    pre: str  # tokenizer.ggml.pre
    n_vocab: int
    bos: int | None
    eos: int | None
    add_bos: bool
    add_eos: bool
    space_prefix: bool  # a fragment of text that follows a special token, or nothing, gets a space in front

    @staticmethod
    def from_metadata(md: Metadata) -> "Tokenizer":
        """Read the keys that are cheap. MetadataError for one of another type.

        A file without a tokenizer, or with an unknown one, fails in `encode` and `decode`.
        """
        model = md.str("tokenizer.ggml.model", default="none")
        pre = "gemma4" if model == "gemma4" else md.str("tokenizer.ggml.pre", default="") or "default"
        arch = md.str("general.architecture", default="")
        key = "tokenizer.ggml.tokens"
        count = len(md.strings(key)) if key in md else md.int(f"{arch}.vocab_size", default=0)
        spm_like, cuts = model == "llama", PRE.get(pre, PRE["default"])
        bos, eos = ENDS.get(model, (cuts.bos, 11))
        bpe = model in BPE_MODELS
        return Tokenizer(
            md=md,
            model=model,
            pre=pre,
            n_vocab=count,
            bos=special_id(md, "bos", bos, count),
            eos=special_id(md, "eos", eos, count),
            add_bos=md.bool("tokenizer.ggml.add_bos_token", default=spm_like or (bpe and cuts.add_bos))
            or (bpe and cuts.always_bos),
            add_eos=md.bool("tokenizer.ggml.add_eos_token", default=False),
            space_prefix=md.bool("tokenizer.ggml.add_space_prefix", default=spm_like),
        )

    @property
    def problem(self) -> str | None:
        """Why this file's text cannot be encoded, in one line; None if it can."""
        if self.model in NONE:
            return f"The file has no tokenizer (tokenizer.ggml.model is absent or 'none'); {IDS}."
        if self.model not in KNOWN:
            what = f" ({FOREIGN[self.model]})" if self.model in FOREIGN else ""
            return f"tokenizer.ggml.model is {self.model!r}{what}; known are {', '.join(KNOWN)}. {IDS}."
        if self.model in BPE_MODELS and self.pre not in PRE:
            near = "".join(f"; did you mean {name!r}?" for name in get_close_matches(self.pre, PRE, 1))
            return f"tokenizer.ggml.pre is {self.pre!r}, none of the {len(PRE)} names that llama.cpp knows{near or '.'} {IDS}."
        return None

    @cached_property
    def vocab(self) -> Vocab:
        """All texts and attributes; read on first use.

        TokenError if the file has no usable tokenizer, MetadataError if its arrays contradict each other.
        """
        if self.problem:
            raise TokenError(f"{self.md.path}: {self.problem}")
        return Vocab.from_metadata(self.md, self.eos)

    @cached_property
    def engine(self) -> Bpe | Spm:
        """What turns text without special tokens into ids; built on first use. Errors as `vocab`."""
        vocab = self.vocab
        if self.model == "llama":
            return Spm(self.md.path, vocab, per_token(self.md, "tokenizer.ggml.scores", self.n_vocab))
        key, pre = "tokenizer.ggml.merges", PRE[self.pre]
        return Bpe(vocab, self.md.strings(key) if pre.needs_merges or key in self.md else (), pre)

    @property
    def eog(self) -> frozenset[int]:
        """The tokens that end a generation: by key (eos, eot, eom) and by text. Empty without a tokenizer."""
        return frozenset() if self.problem else self.vocab.eog

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of text, the same as llama.cpp's.

        add_special    add the begin and end tokens that the file asks for
        parse_special  read control tokens such as <|im_start|> in the text; otherwise they are ordinary text

        TokenError for text that is not valid Unicode, a byte without a token, or a file without a usable tokenizer.
        """
        vocab, ids = self.vocab, self._begin() if add_special else []
        try:
            text.encode()
        except UnicodeEncodeError as e:
            lone = f"U+{ord(text[e.start]):04X}"
            raise TokenError(f"Character {e.start} of the text is the lone surrogate {lone}; give valid Unicode.") from None
        after_special = True
        for part in partition(text, vocab, parse_special):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self.engine.encode(" " + part if self.prefixes and after_special else part)
            after_special = isinstance(part, int)
        return ids + (self._end() if add_special else [])

    @property
    def prefixes(self) -> bool:
        """Whether encoding adds spaces; a byte-pair vocabulary never does."""
        return self.space_prefix and self.model == "llama"

    def _begin(self) -> list[int]:
        return [self._asked("bos", self.bos)] if self.add_bos else []

    def _end(self) -> list[int]:
        return [self._asked("eos", self.eos)] if self.add_eos else []

    def _asked(self, name: str, token: int | None) -> int:
        if token is None:
            key = f"tokenizer.ggml.{name}_token_id"
            raise TokenError(f"{self.md.path}: tokenizer.ggml.add_{name}_token is set, but {key} names no token; set it. {IDS}.")
        return token

    def piece(self, token: int) -> bytes:
        """The bytes one token prints as; several tokens may share one character. A control token prints its text.

        TokenError for an id outside the vocabulary, or a file without a usable tokenizer.
        """
        vocab = self.vocab
        if not 0 <= token < self.n_vocab:
            raise TokenError(f"Token {token} is outside the vocabulary; ids are 0 to {self.n_vocab - 1}; give ids of this model.")
        spaced = self.model == "llama" or PRE[self.pre].spaces
        decode: Callable[[str], bytes] = spm.decode if spaced else bpe.decode
        return vocab.piece(token, decode)

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of token ids; bytes that are not UTF-8 become U+FFFD. With `skip_special` control tokens vanish.

        The space that `encode` put before the first word is taken away again. Nothing else is: llama_detokenize also drops
        some spaces before punctuation for some pre-tokenizers, llama.cpp's generation does not. TokenError for an unknown id.
        """
        pieces = [b"" if skip_special and self._is_special(i) else self.piece(i) for i in ids]
        if pieces and self.space_prefix:
            pieces[0] = pieces[0].removeprefix(b" ")
        return b"".join(pieces).decode("utf-8", "replace")

    def stream(self) -> "Stream":
        """A Stream: the text of tokens one by one, as a generation prints it."""
        return Stream(self)

    def _is_special(self, token: int) -> bool:
        return 0 <= token < self.n_vocab and bool(self.vocab.attrs[token] & SPECIAL)

    def describe(self) -> dict[str, str]:
        """What `info` shows, name -> text, without reading the vocabulary."""
        show = {
            "model": self.model,
            "pre-tokenizer": self.pre if self.model in BPE_MODELS else "",
            "tokens": str(self.n_vocab),
        }
        adds = [name for name, on in (("bos", self.add_bos), ("eos", self.add_eos)) if on]
        ends = {"bos": "" if self.bos is None else str(self.bos), "eos": "" if self.eos is None else str(self.eos)}
        show |= ends | {"adds": ", ".join(adds) or "nothing", "problem": self.problem or ""}
        return {key: value for key, value in show.items() if value}


class Stream:
    """The text of tokens as they come. Bytes that do not yet make a character wait for the next token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The characters that are complete with this token. TokenError for an id outside the vocabulary."""
        return self.decoder.decode(self.tokenizer.piece(token))

    @property
    def waiting(self) -> bool:
        """Whether the last token ended within a character."""
        return bool(self.decoder.getstate()[0])

    def end(self) -> str:
        """U+FFFD if the bytes of a character were still missing, else nothing. Call it after the last token."""
        return self.decoder.decode(b"", final=True)
