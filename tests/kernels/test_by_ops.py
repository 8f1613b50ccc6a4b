"""llama.cpp's arithmetic by NumPy: the bits of the kernels, for every architecture, type and build, and nothing is compiled."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from near import same_bits
from shares import name_of, only
from strategies import activations
from test_diff import Record
from test_kernels_linear import Packed

import refmodel
from refmodel.arch import ARCHITECTURES
from refmodel.llamacpp.builds import AVX2, BUILDS, INSTRUCTIONS, JUDGE, SAPPHIRERAPIDS, compiled_for
from refmodel.llamacpp.profile import DEFAULT, PROFILES
from refmodel.numerics import llamacpp, llamacpp_by_ops
from refmodel.ops.ggml_paths import PATHS
from refmodel.quants import FLOATS

# the judge's build for all processors; of the others what differs most
EVERY = [compiled_for(JUDGE, cpu) for cpu in INSTRUCTIONS.values()]
EVERY += [compiled_for(build, cpu) for build in BUILDS.values() if build != JUDGE for cpu in (AVX2, SAPPHIRERAPIDS)]
CALLS = [list(range(3, 12)), [11], [12]]


def taps_of(model, numerics):
    session = model.session(numerics=numerics, tapper=(record := Record()), scores=True)
    for record.call, call in enumerate(CALLS):
        session.forward(call)
    return record


def build_of(arch, profile):
    """Every build is among the cases; both profiles of an architecture have different ones."""
    number = list(ARCHITECTURES).index(arch) + len(ARCHITECTURES) * list(PROFILES.values()).index(profile)
    return EVERY[number % len(EVERY)]


CASES = list(itertools.product(ARCHITECTURES, PROFILES.values()))


def test_the_models_have_each_part_of_a_build_between_them():
    builds = [build_of(*case) for case in CASES]
    assert {build.commit for build in builds} == set(BUILDS)
    assert {build.instructions.name for build in builds} == set(INSTRUCTIONS)


@pytest.mark.parametrize(("arch", "profile"), only(CASES), ids=name_of)
def test_a_whole_model(arch, profile, golden):
    model = refmodel.load(golden / "models" / f"{arch}-Q4_K_M.gguf")
    build = build_of(arch, profile)
    ours, theirs = (taps_of(model, numerics(profile, build)) for numerics in (llamacpp_by_ops, llamacpp))
    assert list(ours) == list(theirs)
    for name in ours:
        same_bits(np.float32(ours[name]), np.float32(theirs[name]))


def test_every_build_is_among_them():
    assert len(EVERY) <= len(CASES)


class Experts:
    """Matrices of one type as a numerics reads them."""

    def __init__(self, kind, O, blocks):
        self.matrices = [Packed(kind, seed, O, blocks) for seed in (3, 4)]
        self.shape = (2, *self.matrices[0].shape)

    def matrix(self, number):
        return self.matrices[number]


@pytest.mark.parametrize("kind", only([*FLOATS, *PATHS], Q.F16, Q.Q4_K), ids=name_of)
def test_every_type_for_every_build(kind):
    width = 512 if kind in PATHS and PATHS[kind].partner == "q8_k" else 96
    weights = 1 if kind in FLOATS else 256 if width == 512 else 32
    w, experts = Packed(kind, 5, 32, width // weights), Experts(kind, 32, width // weights)
    x = activations(np.random.default_rng(6), 9, w.shape[1])
    ids = np.array([[0]] * 8 + [[1]], np.int64)
    for build in EVERY:
        ours, theirs = llamacpp_by_ops(DEFAULT, build), llamacpp(DEFAULT, build)
        for T in (1, 3, 9):
            same_bits(ours.linear(w, x[:T]), theirs.linear(w, x[:T]))
        same_bits(ours.experts(experts, x[:, None], ids), theirs.experts(experts, x[:, None], ids))


MODEL = """
import sys, refmodel
from refmodel.llamacpp.builds import JUDGE
from refmodel.llamacpp.profile import PROFILES
from refmodel.numerics import llamacpp_by_ops
for path in sys.argv[1:]:
    for profile in PROFILES.values():
        session = refmodel.load(path).session(numerics=llamacpp_by_ops(profile, JUDGE))
        session.forward([1, 2]), session.forward([3])
"""
KERNEL = """
import numpy as np
from refmodel.numerics import REFERENCE
REFERENCE.sigmoid(np.zeros(3, np.float32))
"""


def test_nothing_is_compiled(golden, tmp_path):
    """What compiles a kernel writes an index of it to the empty cache."""
    files = [str(golden / "models" / f"{name}-Q4_K_M.gguf") for name in ("gemma3", "qwen35moe")]
    for code, compiled in ((MODEL, False), (KERNEL, True)):
        cache = tmp_path / str(compiled)
        subprocess.run([sys.executable, "-c", code, *files], env=os.environ | {"NUMBA_CACHE_DIR": str(cache)}, check=True)
        assert bool(list(cache.rglob("*.nbi"))) == compiled
