"""Every fault of test_foreign.py in the NumPy runtime, and the healthy one of each architecture: what `diff --against` says.

    python tests/many_foreign.py

A line for each: what is not named as it is, from everything, from hidden states, from logits only. It takes a minute.
"""

import tempfile
from pathlib import Path

import tiny
from test_foreign import ARCHES, FAULTS, named_rightly, said_of


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        models = {arch: tiny.build(Path(folder) / f"{arch}.gguf", arch, seed=1) for arch in ARCHES}
        for arch in ARCHES:
            said = [(name, found.word) for name, found, _, _ in said_of(models[arch], {}, Path(folder) / arch)]
            print(f"{arch}, healthy: {said}", flush=True)
        for number, (fault, (arch, changes, block, part)) in enumerate(FAULTS.items()):
            wrong = named_rightly(said_of(models[arch], changes, Path(folder) / str(number)), block, part)
            print(f"{arch}, {fault}: {wrong or 'named in full, hidden states and logits'}", flush=True)


if __name__ == "__main__":
    main()
