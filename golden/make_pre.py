"""Make golden/pre/: what llama.cpp makes of 3,000 difficult texts under each name of its table of pre-tokenizers.

    python golden/make_pre.py libllama.so llama.cpp/src/llama-vocab.cpp

letters.gguf, characters.gguf  one vocabulary over byte letters and one over characters; a test sets `tokenizer.ggml.pre`.
                               Their merges are learned over whole texts, so that a wrong cut changes the ids
names.json                     every name that llama-vocab.cpp compares `tokenizer.ggml.pre` with, the row of ids.npy that holds
                               its answers, and begin_and_end: llama.cpp's begin and end tokens, and whether each is added
ids.npy                        [rows, 3000] uint16: for each text of `tricky.texts(3000, SEED)` the check of llama.cpp's ids
"""

import json
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import make_tokenizers as make
import numpy as np
import tricky

SEED, COUNT = 7, 3000
FOLDER = Path(__file__).parent / "pre"
CHARACTERS = ("gemma4", "granite-embed-multi-311m", "sarvam-moe", "whitespace")  # names whose merges are over characters
SPECIAL = {text for text, _ in make.BYTE_SPECIALS}


def check(ids: Sequence[int]) -> int:
    """16 bits that stand for a list of ids."""
    return zlib.crc32(np.array(ids, "<i4").tobytes()) & 0xFFFF


def texts_for(name: str) -> Iterable[str]:
    """The texts, as llama.cpp bears them: under `whitespace` it aborts where two white characters follow each other."""
    texts = tricky.texts(COUNT, SEED)
    return (re.sub(r"\s+", " ", text) for text in texts) if name == "whitespace" else texts


def vocabulary(letters: bool) -> tuple[list[tuple[str, int]], list[str]]:
    """Tokens with their types, and merges; of byte letters, or of characters with byte tokens and U+2581 for a space."""
    corpus = [text for text in (*make.TEXTS, make.PROSE, *tricky.texts(3000, 9)) if letters or "\0" not in text]
    corpus = corpus if letters else [text.replace(" ", "\u2581") for text in corpus]
    learned, merges = make.letters_of(corpus, 1700, letters)
    bytes_ = [] if letters else [*((f"<0x{b:02X}>", make.BYTE) for b in range(256)), ("\n\n", make.NORMAL), ("\n" * 3, make.NORMAL)]
    known = SPECIAL | {text for text, _ in bytes_}
    tokens = [*bytes_, *((text, make.NORMAL) for text in learned if text not in known), *make.BYTE_SPECIALS]
    return tokens, [f"{left} {right}" for left, right in merges]


def write(path: Path, model: str, pre: str, letters: bool) -> None:
    """A vocabulary under one name."""
    tokens, merges = vocabulary(letters)
    make.write(path, model, tokens, {"tokenizer.ggml.pre": pre, "tokenizer.ggml.merges": merges})


def renamed(path: Path, pre: str, to: Path) -> Path:
    """A copy of a vocabulary of golden/pre/ under another name of the same length or not."""
    old = path.read_bytes()
    key = b"tokenizer.ggml.pre"
    at = old.index(key) + len(key) + 4  # after the key and its type
    length = int.from_bytes(old[at : at + 8], "little")
    to.write_bytes(old[:at] + len(pre).to_bytes(8, "little") + pre.encode() + old[at + 8 + length :])
    return to


def names_in(source: str) -> list[str]:
    """Every name of a pre-tokenizer that llama-vocab.cpp knows."""
    return sorted(set(re.findall(r'tokenizer_pre == "([^"]+)"', source)))


def make_all(library: Path, source: Path) -> None:
    """Write everything."""
    FOLDER.mkdir(exist_ok=True)
    for name, letters in (("letters", True), ("characters", False)):
        write(FOLDER / f"{name}.gguf", "gpt2", "default", letters)
    rows: dict[bytes, int] = {}
    names: dict[str, Any] = {}
    for name in names_in(source.read_text()):
        base = FOLDER / ("characters.gguf" if name in CHARACTERS else "letters.gguf")
        path = renamed(base, name, FOLDER / "now.gguf")
        with make.llama_vocab(library, path) as vocab:
            row = np.array([check(vocab.encode(text, False, False)) for text in texts_for(name)], np.uint16)
            names[name] = {
                "row": rows.setdefault(row.tobytes(), len(rows)),
                "begin_and_end": vocab.begin_and_end(),
            }
        path.unlink()
    np.save(FOLDER / "ids.npy", np.array([np.frombuffer(row, np.uint16) for row in rows]))
    lines = (f"{json.dumps(name)}: {json.dumps(facts)}" for name, facts in names.items())
    (FOLDER / "names.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    import sys

    make_all(Path(sys.argv[1]), Path(sys.argv[2]))
