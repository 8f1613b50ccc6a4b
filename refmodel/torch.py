"""Record what the modules of a torch model compute, for `refmodel diff --against`. torch is the user's: it is not imported here."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .arrays import F
from .errors import TraceError
from .forward.taps import in_call
from .forward.trace import Spool

USUAL = r"(^|\.)(embed_tokens|wte|tok_embeddings|norm|ln_f|lm_head|output)$|(^|\.)(layers|h|blocks)\.\d+(\.|$)"


class record:
    """Record the outputs of a model's modules while it runs, each call of the model as a call of the run.

        with refmodel.torch.record(model, "mine.safetensors"):
            model(input_ids)

    model  a torch.nn.Module; what its modules return is kept under their paths, which refmodel knows
    path   of the dump, .safetensors or .npz
    names  which modules: a regular expression that is found in a path, or paths; by default the embedding, the layers, what is in
           them, the last norm and the head
    sha256 of the GGUF that is compared with, if another one is to be refused

    The token ids are those that the model is called with, as its first argument or as input_ids; of a batch of several sequences it
    is a TraceError, as it is if a call has no ids. The dump appears, whole, at the end, and not at all after an error.
    """

    def __init__(self, model: Any, path: str | Path, names: str | Iterable[str] = USUAL, sha256: str = "") -> None:
        self.chosen = chosen(model, names)
        self.model, self.sha256, self.calls = model, sha256, list[list[int]]()
        self.spool, self.handles, self.seen = Spool(Path(path), {}), list[Any](), set[str]()
        self.last: tuple[str, F] = "", np.zeros(0, np.float32)

    def __enter__(self) -> "record":
        self.handles = [self.model.register_forward_pre_hook(self.begin, with_kwargs=True)]
        self.handles += [module.register_forward_hook(self.keeper(name)) for name, module in self.chosen.items()]
        self.handles += [self.model.register_forward_hook(self.end)]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for handle in self.handles:
            handle.remove()
        said = {"producer": "refmodel.torch.record", "names": "modules", "calls": self.calls}
        said |= {"sha256": self.sha256} if self.sha256 else {}
        self.spool.metadata["provenance"] = json.dumps(said)
        self.spool.__exit__(kind, error, tb)

    def begin(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The model is called: a new call of the run begins. TraceError without token ids of one sequence."""
        ids = kwargs.get("input_ids", args[0] if args else None)
        array = None if ids is None else np.asarray(ids.detach().cpu())
        if array is None or array.dtype.kind not in "iu" or array.size != array.shape[-1]:
            raise TraceError(f"{self.spool.path}: the model was called without token ids of one sequence; call it with [1, T] ids")
        self.calls.append([int(token) for token in array.ravel()])
        self.seen.clear()

    def keeper(self, name: str) -> Callable[[Any, Any, Any], None]:
        """A hook that keeps the output of the module of that path; of a module that runs several times in a call, the first."""

        def keep(module: Any, args: Any, output: Any) -> None:
            self.keep(name, output)

        return keep

    def keep(self, name: str, output: Any) -> None:
        """Keep a module's output, the first one of several, if it is of numbers."""
        first = output[0] if isinstance(output, tuple | list) and len(output) else output
        if not self.calls or name in self.seen or not callable(getattr(first, "detach", None)):
            return
        array: F = np.asarray(first.detach().float().cpu())
        self.seen.add(name)
        part, numbers = self.last
        if part.startswith(f"{name}.") and numbers.shape == array.shape and np.array_equal(numbers, array):
            return  # a module that returns what its last part gave: one of the two is enough
        self.last = name, array
        self.spool.add(in_call(name, len(self.calls) - 1), array)

    def end(self, module: Any, args: Any, output: Any) -> None:
        """The model returned: its logits are kept, if it says which they are."""
        if (logits := getattr(output, "logits", None)) is not None and "lm_head" not in self.seen:
            self.keep("logits", logits)


def chosen(model: Any, names: str | Iterable[str]) -> dict[str, Any]:
    """The modules to record, path -> module. TraceError if there are none, or a path is not one of the model's."""
    modules = {name: module for name, module in model.named_modules() if name}
    if isinstance(names, str):
        try:
            found = {name: module for name, module in modules.items() if re.search(names, name)}
        except (re.error, OverflowError, RecursionError) as error:
            raise TraceError(f"names={names[:60]!r}: not a regular expression ({error}); correct it") from None
        if not found:
            raise TraceError(f"names={names[:60]!r}: no module has such a path; there are {', '.join(list(modules)[:4])}, ...")
        return found
    listed = list(names)
    if lost := [name for name in listed if name not in modules]:
        raise TraceError(f"{lost[0]}: the model has no module of this path; there are {', '.join(list(modules)[:4])}, ...")
    return {name: modules[name] for name in listed}
