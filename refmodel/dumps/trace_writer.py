"""`TraceWriter`: a trace from another runtime that is written in Python."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..arrays import F
from ..errors import TraceError
from ..forward.taps import in_call
from ..forward.trace import Spool
from ..gguf.reader import read


class TraceWriter:
    """A trace in the making, for `refmodel diff --against`: call it with a tap's name and its numbers, as a tapper is called.

    path    of the trace, .safetensors or .npz
    model   the GGUF that is run; its sha256 goes into the trace. None to leave it out
    tokens  the ids of the first call; `begin_call` begins each later one
    route   what the runtime runs, in canonical notation; blocks:0,0 is the file's own order

    Use it in a `with`: the file appears, whole, at the end, and not at all after an error. FileError for a model that cannot be
    read; TraceError for a path of another kind, for no tokens, or for a name that arises twice in a call.
    """

    def __init__(
        self, path: str | Path, model: str | Path | None = None, tokens: Sequence[int] = (), route: str = "blocks:0,0"
    ) -> None:
        if not len(tokens):
            raise TraceError(f"{path}: a trace needs the token ids of its first call; give tokens=[...]")
        self.calls = [[int(token) for token in tokens]]
        self.said: dict[str, Any] = {"producer": "refmodel.TraceWriter", "route": route}
        if model is not None:
            self.said["sha256"] = read(model).sha256()
        self.spool = Spool(Path(path), {})

    def begin_call(self, tokens: Sequence[int]) -> None:
        """Begin the next call of the sequence, with these ids: what comes now gets names that end in `@1` and so on."""
        self.calls.append([int(token) for token in tokens])

    def __call__(self, name: str, x: Any) -> Any:
        """Write an array, tokens first, under llama.cpp's name of the node (`l_out-3`), and return it as it is.

        x  anything that NumPy makes an array of numbers from; what is not float16 or float64 is written as float32
        """
        array: F = np.asarray(x)
        if array.dtype not in (np.float16, np.float32, np.float64):
            array = array.astype(np.float32)
        self.spool.add(in_call(name, len(self.calls) - 1), array)
        return x

    def __enter__(self) -> "TraceWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.spool.metadata["provenance"] = json.dumps({**self.said, "calls": self.calls})
        self.spool.__exit__(kind, error, tb)
