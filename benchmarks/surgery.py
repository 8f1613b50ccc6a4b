"""Writing a routed copy against `cp` and `sync` of the same bytes: speed, peak anonymous memory, and what is imported.

    python -m benchmarks.surgery MODEL.gguf [--route blocks:27,31] [--folder /somewhere] [--rounds 3]

Each round writes the copy with `refmodel surgery`, then copies that file with cp and syncs; both start with the source in the
page cache and no file under the target's name. Speed is bytes of the copy over seconds until they are durable. The first copy of
a file hashes it on the way, later ones remember the sha256: both are timed, each against a cp of its own. Linux only.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from refmodel.machine.sha256 import remembered

from .processes import peak


def timed(command: list[str]) -> float:
    """Seconds that a command takes; CalledProcessError if it fails."""
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Write copies in turns with cp and sync, and print speeds and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--route", default="blocks:27,31")
    parser.add_argument("--folder", type=Path, help="where to write; on the disk of the model if absent")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="refmodel-", dir=given.folder or given.model.parent) as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")  # for the commands, too
        out, twin = Path(folder) / "copy.gguf", Path(folder) / "twin.gguf"
        words = ["-m", "refmodel", "surgery", str(given.model), "--route", given.route, "-o", str(out), "--json"]
        subprocess.run(["cat", str(given.model)], stdout=subprocess.DEVNULL, check=True)  # into the page cache
        memory = []
        for name in ("first", "later"):
            ours, theirs = [], []
            for _ in range(given.rounds):
                if name == "first":
                    shutil.rmtree(remembered(), ignore_errors=True)
                out.unlink(missing_ok=True)
                twin.unlink(missing_ok=True)
                subprocess.run(["sync"], check=True)
                megabytes, seconds = peak([sys.executable, *words])
                ours.append(seconds)
                memory.append(megabytes)
                theirs.append(timed(["sh", "-c", f"cp '{out}' '{twin}' && sync"]))
            size = out.stat().st_size
            for what, times in ((f"refmodel surgery, {name}", ours), ("cp + sync", theirs)):
                speeds = sorted(size / t / 1e6 for t in times)
                print(f"{what:24} {size / 1e9:.2f} GB: median {median(speeds):.0f} MB/s, {speeds[0]:.0f} to {speeds[-1]:.0f}")
            print(f"speed of cp + sync: {median(b / a for a, b in zip(ours, theirs, strict=True)):.2f} (median of the rounds)")
        print(f"peak anonymous memory {max(memory):.0f} MB")


if __name__ == "__main__":
    main()
