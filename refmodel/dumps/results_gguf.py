"""llama-results: a GGUF with the prompt's tokens (`tokens`, i32) and their logits (`logits`, f32, a row of V for each).

The sizes that it writes down for the logits are exchanged: its numbers are rows of V all the same.

Source: llama.cpp tools/results/results.cpp.
"""

from pathlib import Path

import numpy as np

from ..errors import DumpError, FileError
from ..gguf.reader import GgufFile, read
from .dump import Dump, numbers


def is_results(file: GgufFile) -> bool:
    """Whether a GGUF is such a file and no model."""
    return set(file.tensors) == {"tokens", "logits"}


def holds_results(path: Path) -> bool:
    """Whether a path is a GGUF of llama-results. A file that cannot be read is not: what reads it as a model says why."""
    try:
        return path.is_file() and is_results(read(path))
    except FileError:
        return False


def read_results(path: Path) -> Dump:
    """The logits and the tokens. DumpError for a GGUF that is something else; FileError for a damaged one."""
    file = read(path)
    if not is_results(file):
        raise DumpError(f"{path}: is a GGUF, but not one of llama-results; give a dump, or a model as --against FILE.gguf")
    logits, tokens = file.tensors["logits"], file.tensors["tokens"]
    ids = np.frombuffer(tokens.data.tobytes(), "<i4")
    data = logits.data.reshape(-1)
    array = numbers(data, "F32", (len(ids), data.size // 4 // max(len(ids), 1)), f"{path}: logits")
    return Dump(path, "a results file of llama-results", {"logits": array}, [[int(t) for t in ids]], {"numerics": "llamacpp"})
