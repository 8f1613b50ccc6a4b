"""A sweep, not a test: random checkpoints against transformers, and tensor by tensor against llama.cpp's converter.

    python tests/many_folders.py HF_PYTHON LLAMA_CPP_SOURCES [FIRST COUNT CLASS...]

For each: the NMSE of our logits under oracle to transformers' in float32, whether both write the same greedy tokens, which keys and
tensors are not the converter's bit for bit, and how far the values of those are apart, in units in the last place.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import refmodel
from refmodel.gguf.reader import read

RUNS = Path(__file__).with_name("hf_runs.py")
TOKENS = 24


def against_transformers(folder):
    """NMSE of the logits, and whether the greedy tokens are the same."""
    model, theirs = refmodel.load(folder), np.load(folder / "logits.npy").astype(np.float64)
    ids = np.load(folder / "greedy.npy").tolist()
    ours = model.forward(ids[:TOKENS], numerics="oracle").astype(np.float64)
    nmse = float(np.square(ours - theirs).sum() / np.square(theirs).sum())
    session, found = model.session(numerics="reference"), ids[:TOKENS]
    logits = session.forward(found)[-1]
    while len(found) < len(ids):
        found.append(int(logits.argmax()))
        logits = session.forward([found[-1]])[-1]
    return nmse, found == ids


def against_converter(folder, gguf):
    """What is not the converter's: names of keys, and names of tensors with how many units in the last place they are apart."""
    ours, theirs = refmodel.load(folder).file, read(gguf)
    a, b = ({key: (f.type, bytes(f.raw)) for key, f in one.metadata.fields.items() if kept(key)} for one in (ours, theirs))
    keys = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
    tensors = {}
    for name in ours.tensors.keys() | theirs.tensors.keys():
        x, y = ours.tensors.get(name), theirs.tensors.get(name)
        if x is None or y is None or (x.type, x.shape) != (y.type, y.shape):
            tensors[name] = -1
        elif not np.array_equal(x.data, y.data):
            bits = (
                [np.ascontiguousarray(t.data).view(np.int32).astype(np.int64) for t in (x, y)]
                if x.type.name == "F32"
                else [0, 1 << 40]
            )
            tensors[name] = int(np.abs(bits[0] - bits[1]).max())
    return keys, tensors


def kept(key):
    return not key.startswith("general.") or key == "general.architecture"


def main(python, sources, first="0", count="3", *kinds):
    with TemporaryDirectory() as out:
        for words in (["make", out, first, count, *kinds], ["convert", sources, out]):
            subprocess.run([python, "-I", str(RUNS), *words], check=True, capture_output=True)
        for folder in sorted(path.parent for path in Path(out).glob("*/config.json")):
            nmse, greedy = against_transformers(folder)
            keys, tensors = against_converter(folder, Path(f"{folder}.gguf"))
            remarks = refmodel.load(folder).file.remarks
            far = f"{len(tensors)} by up to {max(map(abs, tensors.values()))}" if tensors else "none"
            print(f"{folder.name:18} NMSE {nmse:.1e} greedy {greedy} keys {keys} tensors {far} remarks {len(remarks)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
