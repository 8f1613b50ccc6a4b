"""Numbers as large as a trained model's: those of golden/austen, measured over held-out text by golden/train/measure.py."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np


@cache
def report() -> dict[str, Any]:
    return json.loads((Path(__file__).parent.parent / "golden" / "austen" / "report.json").read_text())


def trained(what: str, r: np.random.Generator, *shape: int) -> np.ndarray:
    """Independent numbers of that shape, distributed as one of the report's magnitudes; float64."""
    return np.interp(r.uniform(size=shape), report()["quantiles"], report()["magnitudes"][what])
