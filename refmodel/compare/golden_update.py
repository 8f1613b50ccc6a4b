"""What would change in a golden if it were recorded again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import F
from .golden import Golden
from .rows import Row, compare
from .semantics import misfits, shown

OF_ENGINE = ("kind", "who", "numerics", "unknown", "processor", "c_library", "instructions", "rounds")


@dataclass(frozen=True)
class Change:
    """How a new recording differs from a golden.

    words  what is said otherwise, a phrase each
    rows   a row for each tensor whose bits differ, the new one against the old one
    """

    words: list[str]
    rows: list[Row]

    @property
    def any(self) -> bool:
        """Whether anything differs."""
        return bool(self.words or self.rows)


def change(golden: Golden, said: Mapping[str, Any], arrays: Mapping[str, F]) -> Change:
    """How a new recording (what it says, and its arrays) differs from a golden."""
    old, new = golden.said["engine"], said["engine"]
    words = [
        f"{key}: recorded {shown(old.get(key))}, now {shown(new.get(key))}" for key in OF_ENGINE if old.get(key) != new.get(key)
    ]
    words += misfits(golden.said["semantics"], said["semantics"])
    words += [f"{name}: is no longer there" for name in golden.arrays if name not in arrays]
    words += [f"{name}: is new" for name in arrays if name not in golden.arrays]
    both = {name: x for name, x in arrays.items() if name in golden.arrays}
    words += [
        f"{name}: {x.dtype} {list(x.shape)}, recorded {golden.arrays[name].dtype} {list(golden.arrays[name].shape)}"
        for name, x in both.items()
        if x.dtype != golden.arrays[name].dtype or x.shape != golden.arrays[name].shape
    ]
    rows = [compare(name, np.asarray(x), golden.arrays[name]) for name, x in both.items()]
    return Change(words, [row for row in rows if row.differ or row.problem])
