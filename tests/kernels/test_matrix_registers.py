"""Matrix registers: what the processor computes is what the same functions compute in memory, and nobody loses what was set up."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from near import same_bits
from numba import njit
from strategies import seeds

from refmodel.kernels.language import matrix_registers as language
from refmodel.kernels.language.vectors import i8, u8
from refmodel.machine import matrix_registers
from refmodel.numerics import packed

WITHOUT = "this process has no matrix registers: the processor has none, or the system does not give them"
usable = pytest.mark.skipif(language.TARGET_HAS_THEM and not matrix_registers.granted(), reason=WITHOUT)


def using(k):
    """Kernels of (left [16, 80], right [k / 4, 16, 4], out [16, 16]): by what the target has, and in memory."""

    @njit
    def by_target(left, right, room, out):
        language.set_up(room, k)
        language.clear(room, 2)
        language.load_left(room, k, 4, left, 3, 80)
        language.load_right(room, k, 7, right, 0)
        language.add_products(room, i8, 2, 4, 7)
        language.add_products(room, u8, 2, 4, 7)
        language.store_sums(room, 2, out, 0)
        language.set_back(room)

    @njit
    def in_memory(left, right, room, out):
        language.set_up_in_memory(room, k)
        language.clear_in_memory(room, 2)
        language.load_left_in_memory(room, k, 4, left, 3, 80)
        language.load_right_in_memory(room, k, 7, right, 0)
        language.add_products_in_memory(room, i8, 2, 4, 7)
        language.add_products_in_memory(room, u8, 2, 4, 7)
        language.store_sums_in_memory(room, 2, out, 0)
        language.set_back_in_memory(room)

    return by_target, in_memory


KERNELS = {k: using(k) for k in (32, 64)}


@usable
@pytest.mark.parametrize("k", KERNELS)
@given(seed=seeds(), extreme=st.booleans())
def test_products_are_those_of_whole_numbers(k, seed, extreme):
    r = np.random.default_rng(seed)
    left, right = (r.integers(-128, 128, n).astype(np.int8) for n in (16 * 80, 16 * k))
    if extreme:  # the largest sums that bytes can have
        left[:], right[:] = -128, -1
    a = np.stack([left[80 * i + 3 : 80 * i + 3 + k] for i in range(16)]).astype(np.int32)
    columns = right.reshape(k // 4, 16, 4).transpose(0, 2, 1).reshape(k, 16)
    want = a @ columns.astype(np.int32) + a @ columns.view(np.uint8).astype(np.int32)
    for kernel in KERNELS[k]:
        out = np.zeros((16, 16), np.int32)
        kernel(left, right, np.full(language.ROOM, 7, np.uint8), out.reshape(-1))
        same_bits(out, want)


@njit
def _one_within_another(outer, inner, again):
    """What is set up while another has set up, as llama.cpp does once for a thread."""
    language.set_up(outer, 64)
    language.set_up(inner, 32)
    language.set_back(inner)
    language.set_up(again, 32)  # keeps what was set up before
    language.set_back(again)
    language.set_back(outer)


@usable
def test_what_another_has_set_up_comes_back():
    outer, inner, again = (np.zeros(language.ROOM, np.uint8) for _ in range(3))
    _one_within_another(outer, inner, again)
    same_bits(inner[:64], again[:64])
    assert inner[:64].any() == language.TARGET_HAS_THEM


def test_a_process_without_them_takes_panels(monkeypatch):
    monkeypatch.setattr(packed, "matrices", lambda: False)
    assert packed.way("super_blocks", 64, 512) == "panels"
    monkeypatch.setattr(packed, "matrices", lambda: True)
    assert packed.way("super_blocks", 64, 512) == "matrices"
    assert packed.way("super_blocks", 31, 512) == packed.way("super_blocks", 64, packed.MANY) == "panels"
    assert packed.way("pairs_of_q4_k", 64, 512) == "panels"


@pytest.mark.long
def test_products_have_the_same_bits_without_them(tmp_path):
    """The tests of the way `matrices`, compiled for a processor without such registers."""
    if not language.TARGET_HAS_THEM:
        pytest.skip("this target has no matrix registers: the tests of products have run without them")
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    tests = Path(__file__).parent / "test_packed_products.py"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-k",
        "matrices and (Q4_K or Q8_0)",
        "-m",
        "long or not long",
        str(tests),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
