"""llama-debug `--save-logits`, and the other side of llama.cpp's model-conversion example: the last token's logits.

llamacpp-MODEL.bin or pytorch-MODEL.bin: float32, the logits of the last token. Next to it MODEL-tokens.bin: the token ids, int32.
Source: llama.cpp examples/debug/debug.cpp, save_output_data.
"""

import re
from pathlib import Path

import numpy as np

from ..errors import DumpError
from ..gguf.reader import mapped
from .dump import Dump, numbers

NAME = re.compile(r"(llamacpp|pytorch)-.+\.bin")
TOKENS = "-tokens.bin"


def is_saved(path: Path) -> bool:
    """Whether a file has such a name, or tokens next to it."""
    named = NAME.fullmatch(path.name) is not None or tokens_of(path).is_file()
    return named and path.suffix == ".bin" and not path.name.endswith(TOKENS)


def tokens_of(path: Path) -> Path:
    """The file with the tokens of a file with logits."""
    return path.with_name(path.stem + TOKENS)


def is_companion(path: Path) -> bool:
    """Whether a text file has only what a file of logits next to it has: the same numbers, or the prompt."""
    stem = path.stem.removesuffix("-prompt")
    return path.suffix == ".txt" and NAME.fullmatch(f"{stem}.bin") is not None and path.with_name(f"{stem}.bin").is_file()


def read_saved(path: Path) -> Dump:
    """The logits of the last token. DumpError for embeddings, or a file that is not whole numbers."""
    if path.stem.endswith("-embeddings"):
        raise DumpError(f"{path}: has normed embeddings, not logits; run llama-debug --save-logits without --embedding")
    data, calls = mapped(path), None
    if data.size % 4:
        raise DumpError(f"{path}: has {data.size} bytes, which are not float32; was it written whole?")
    if tokens_of(path).is_file():
        ids = mapped(tokens_of(path))
        if ids.size % 4 or not ids.size:
            raise DumpError(f"{tokens_of(path)}: has {ids.size} bytes, which are not int32; was it written whole?")
        calls = [[int(t) for t in np.frombuffer(ids, "<i4")]]
    about = {"numerics": "llamacpp"} if path.name.startswith("llamacpp") else {}
    return Dump(
        path, "logits of llama-debug --save-logits", {"logits": numbers(data, "F32", (1, data.size // 4), str(path))}, calls, about
    )
