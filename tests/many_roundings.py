"""How much of the allowed rounding healthy runs use, and whether each is called healthy: the figures of compare/rounding.py.

    python tests/many_roundings.py [SEEDS [ARCHITECTURE...]]

Random models of every architecture, and the trained one; engines that round in ten ways; dumps that are full, of hidden states, of
the last token only, of the logits only. Prints the largest part of the allowed NMSE by kind, and every run that was called wrong.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tiny

import refmodel
from refmodel.compare.dumped import of_dump
from refmodel.compare.rounding import judged
from refmodel.compare.rounding_classes import through
from refmodel.dumps.dump import Dump, Numbers
from refmodel.forward.taps import in_call
from refmodel.numerics import FAST, LLAMACPP, NUMPY, REFERENCE

CALLS = [[5, 6, 7, 8, 9, 17, 41, 3], [10], [11]]
half = lambda x: x.astype(np.float16).astype(x.dtype)
Round = Callable[[str, Any], Any]
NOTHING: Round = lambda name, x: x
ENGINES: dict[str, tuple[Any, Round, Round]] = {  # numerics, what the pass goes on with, what is written
    "float32 of NumPy": (NUMPY, NOTHING, NOTHING),
    "f16 cache": (replace(REFERENCE, store=half), NOTHING, NOTHING),
    "8 bits": (FAST, NOTHING, NOTHING),
    "llama.cpp": (LLAMACPP, NOTHING, NOTHING),
    "bf16 everywhere": (replace(REFERENCE, store=lambda x: through(x, 8)), lambda name, x: through(x, 8), NOTHING),
    "f16 everywhere": (replace(REFERENCE, store=half), lambda name, x: through(x, 11), NOTHING),
    "bf16 blocks": (REFERENCE, lambda name, x: through(x, 8) if name.startswith("l_out") else x, NOTHING),
    "f16 blocks": (REFERENCE, lambda name, x: through(x, 11) if name.startswith("l_out") else x, NOTHING),
    "written as f16": (REFERENCE, NOTHING, lambda name, x: through(x, 11)),
    "written as bf16": (REFERENCE, NOTHING, lambda name, x: through(x, 8)),
}
KINDS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "full": lambda run: run,
    "hidden states": lambda run: {k: x for k, x in run.items() if k.startswith(("l_out-", "result_output"))},
    "last tokens": lambda run: {k: x[-1:] for k, x in run.items() if k.startswith(("l_out-", "result_output")) and "@" not in k},
    "logits": lambda run: {k: x for k, x in run.items() if k.startswith("result_output")},
}


def run_of(model: Any, engine: str) -> dict[str, Any]:
    """What an engine writes: tap -> array."""
    numerics, goes_on, written = ENGINES[engine]
    out: dict[str, Any] = {}
    now = {"call": 0}

    def tapper(name: str, x: Any) -> Any:
        x = np.asarray(goes_on(name, x), x.dtype)
        out[in_call(name, now["call"])] = np.array(written(name, x), np.float32)
        return x

    session = model.session(numerics=numerics, tapper=tapper)
    for now["call"], tokens in enumerate(CALLS):
        session.forward(tokens)
    return out


def dump_of(arrays: dict[str, Any]) -> Dump:
    """These arrays as a dump, as a reader would give them."""
    numbers = {k: Numbers(x.shape, "F32", lambda x=x: x) for k, x in arrays.items()}
    return Dump(Path("run"), "arrays", numbers, CALLS)


def models(seeds: int, chosen: list[str], folder: Path) -> Iterator[tuple[str, Any]]:
    """Random models of each architecture, and trained ones; of the chosen architectures only, if there are any."""
    for seed in range(seeds):
        for arch in chosen or tiny.SHAPES:
            yield f"{arch} {seed}", refmodel.load(tiny.build(folder / f"{arch}-{seed}.gguf", arch, seed=seed))
    if chosen:
        return
    golden = Path(__file__).parent.parent / "golden" / "models"
    for name in ("austen-Q4_K_M", "austen-BF16", "gemma3-Q4_K_M", "llama-Q8_0", "qwen3moe-Q8_0"):
        yield name, refmodel.load(golden / f"{name}.gguf")


def main(seeds: int, *chosen: str) -> None:
    used: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models(seeds, list(chosen), Path(folder)):
            for engine in ENGINES:
                run = run_of(model, engine)
                for kind, part in KINDS.items():
                    found = judged(model, model.route(), of_dump(model, dump_of(part(run)), None, model.route()), lambda name: None)
                    parts = {tap: row.nmse / row.allowed for tap, row in found.rows.items()} if found.word != "equal" else {"": 0.0}
                    worst = max(parts, key=lambda tap: parts[tap])
                    used.setdefault((engine, kind), []).append(parts[worst])
                    if found.word == "wrong":
                        print(f"WRONG {name}, {engine}, {kind}: {found.rounds}, {worst} {parts[worst]:.1f}", flush=True)
    for (engine, kind), values in used.items():
        print(f"{engine:18} {kind:14} largest part {max(values):8.3f}, median {np.median(values):8.4f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2] or [1]), *sys.argv[2:])
