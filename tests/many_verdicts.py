"""Many healthy and many sick llama.cpps: how often is the verdict right? Run by hand, with REFMODEL_LLAMA_LIB set:

    python tests/many_verdicts.py 100          # healthy: random models of all architectures, types, profiles, prefill and decode
    python tests/many_verdicts.py 100 --sick   # the same with one small fault each on our side, from a RoPE base 0.5 % off

A line for each that was judged wrongly, then the counts, and the largest share of what is allowed that a healthy operation used.
"""

import argparse
import os
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tiny
from gguf import GGML_QUANT_SIZES

import refmodel
from refmodel.arch import ARCHITECTURES
from refmodel.compare.verdict import Verdict, judge
from refmodel.llamacpp.profile import profile_of
from refmodel.model.model import Model
from refmodel.ops.ggml_product import PATHS
from refmodel.quants import FLOATS
from refmodel.surgery.live import live

KINDS = [*FLOATS, *PATHS]
PROFILES = ("default", "exact", "fa=off", "kv=f32", "repack=off", "tiled=off,fa=on")


def random_model(r: random.Random, folder: Path) -> Path:
    """A tiny model: any architecture; one type for all matrices, a mix, or floats."""
    arch, kind = r.choice(list(ARCHITECTURES)), r.choice([*KINDS, None])
    types = lambda name: kind or KINDS[random.Random(name).randrange(len(KINDS))]
    sizes = {"E": 256, "F": 512, "H": 8, "G": 2, "D": 64, "n_rot": 64}
    if arch == "qwen2":
        sizes |= {"E": 512}
    if arch in tiny.DELTA:
        sizes |= {"S": 64, "Hk": 2, "Hv": 4, "n_rot": 16, "interval": 2}
    if tiny.SHAPES[arch].experts:
        sizes |= {"Fx": 256}
    if tiny.SHAPES[arch].Fs:
        sizes |= {"Fs": 256}
    fits = lambda name: types(name) if 256 % GGML_QUANT_SIZES[types(name)][0] == 0 else KINDS[0]
    return tiny.build(folder / "m.gguf", arch, seed=r.randrange(1 << 30), n_layer=4, types=fits, trained=r.random() < 0.5, **sizes)


def rope(model: Model, **changes: Any) -> Model:
    return model.with_hparams(rope=replace(model.hp.rope, **changes))


def swapped_heads(model: Model) -> Callable[[str, np.ndarray], np.ndarray]:
    """A patch that exchanges the first two heads of what attention gives."""

    def patch(name: str, x: np.ndarray) -> np.ndarray:
        if name.split("-")[0] not in ("kqv_out", "attn_pregate"):
            return x
        heads = x.reshape(len(x), model.hp.n_head, -1).copy()
        heads[:, [0, 1]] = heads[:, [1, 0]]
        return heads.reshape(x.shape)

    return patch


SICK: dict[str, Callable[[Model], Model]] = {
    "rope base 0.5 % up": lambda m: rope(m, base=m.hp.rope.base * 1.005),
    "rope base 0.5 % down": lambda m: rope(m, base=m.hp.rope.base * 0.995),
    "rope base 1 % up": lambda m: rope(m, base=m.hp.rope.base * 1.01),
    "rope base 1e4": lambda m: rope(m, base=m.hp.rope.base / 2),
    "rope pairs": lambda m: rope(m, adjacent=not m.hp.rope.adjacent),
    "rope scale": lambda m: rope(m, scale=m.hp.rope.scale * 1.001),
    "rope of fewer dims": lambda m: rope(m, n_rot=m.hp.rope.n_rot - 2, factors=m.hp.rope.factors[:-1]),
    "one rope factor": lambda m: rope(m, factors=(*m.hp.rope.factors[:-1], m.hp.rope.factors[-1] * 1.5)),
    "eps ten times": lambda m: m.with_hparams(eps=m.hp.eps * 10),
    "eps doubled": lambda m: m.with_hparams(eps=m.hp.eps * 2),
    "eps none": lambda m: m.with_hparams(eps=0.0),
}


def judged(r: random.Random, folder: Path, lib: Path, sick: str) -> tuple[Verdict, Model, str]:
    path = random_model(r, folder)
    model, profile = refmodel.load(path), r.choice(PROFILES)
    tokens = [r.randrange(model.n_vocab) for _ in range(r.choice((5, 9, 33, 66)))]
    calls = [tokens, *([r.randrange(model.n_vocab)] for _ in range(3))]
    other = live(model, model.route(), calls, profile_of(profile), lib, False, folder)
    if sick:
        model = SICK[sick](model)
    return judge(model, model.route(), other, lambda name: None), model, profile


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("--sick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    lib, wrong, most, compared, used = Path(os.environ["REFMODEL_LLAMA_LIB"]), 0, 0.0, 0, ""
    for number in range(given.count):
        r = random.Random(given.seed * 1_000_003 + number)
        sick = list(SICK)[number % len(SICK)] if given.sick else ""
        with TemporaryDirectory(prefix="refmodel-") as folder:
            found, model, profile = judged(r, Path(folder), lib, sick)
        compared += len(found.rows)
        for row in found.rows.values():
            if not given.sick and row.differ and row.allowed > 0 and row.nmse / row.allowed > most:
                most, used = row.nmse / row.allowed, f"{row.name} of {model.architecture}"
        if (found.first is None) == given.sick:
            wrong += 1
            kinds = {w.type.name for w in model.weights.values() if len(w.shape) > 1}
            where = "" if found.first is None else f" first {found.first.name} {found.first.nmse:.1e} > {found.first.allowed:.1e}"
            print(f"{number}: {model.architecture} {profile} {sorted(kinds)} {sick}: {found.word}{where}", flush=True)
        if number % 20 == 19:
            print(f"... {number + 1}: {wrong} judged wrongly; {compared} operations", flush=True)
    kind = "sick" if given.sick else "healthy"
    print(f"{given.count} {kind}: {wrong} judged wrongly, of {compared} operations")
    print(f"at most {most:.3f} of what rounding explains was used ({used})")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
