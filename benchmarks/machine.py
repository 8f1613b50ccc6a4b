"""The machine of a run: what it is, what it can do, and whether it is quiet."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

QUIET = 0.05  # share of the machine that others may use
FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "amx_int8")
VERSIONS = ("refmodel", "numpy", "numba", "llvmlite", "gguf")


def processor() -> tuple[str, list[str]]:
    """The processor's name, and those of its features that matter here. Linux only."""
    text = Path("/proc/cpuinfo").read_text()
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    family = f"family {fields.get('cpu family', '?')} model {fields.get('model', '?')}"
    return f"{fields.get('model name', platform.machine())}, {family}", [f for f in FLAGS if f in fields.get("flags", "").split()]


def header(threads: int, libraries: Mapping[str, str]) -> dict[str, Any]:
    """The machine, the versions and the limits of a run, for its reader; `libraries` is how the other sides describe themselves."""
    name, flags = processor()
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "processor": name,
        "features": flags,
        "cores": os.cpu_count(),
        "threads": threads,
        "target": " ".join(filter(None, (os.environ.get("NUMBA_CPU_NAME", "host"), os.environ.get("NUMBA_CPU_FEATURES", "")))),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in VERSIONS},
            **libraries,
        },
        "bandwidth": {},
    }


def busy() -> tuple[float, float]:
    """Seconds that all cores together were busy or stolen, and seconds that this process and its ended children used."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _, _, interrupts, soft, stolen = ticks
    mine = os.times()
    total = (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")
    return total, mine.user + mine.system + mine.children_user + mine.children_system


class Watch:
    """Over a stretch of time: the share of the machine that other processes used."""

    def __init__(self) -> None:
        self.start, (self.total, self.mine) = time.perf_counter(), busy()

    def others(self, children: float = 0.0) -> float:
        """The share since this watch was made; `children` is how many seconds its running children used."""
        total, mine = busy()
        capacity = (time.perf_counter() - self.start) * (os.cpu_count() or 1)
        return max(0.0, (total - self.total) - (mine - self.mine) - children) / capacity


def wait_until_quiet(patience: float) -> float:
    """Wait at most `patience` seconds for half a second in which others use less than 5 %. Returns their share in the last one."""
    start = time.perf_counter()
    while True:
        watch = Watch()
        time.sleep(0.5)
        share = watch.others()
        if share <= QUIET or time.perf_counter() - start > patience:
            return share
