"""The instruction that matters is in the machine code of a product, for processors with it and for those without."""

import os
import re
import subprocess
import sys

import pytest

AVX2 = "+avx,+avx2,+bmi,+bmi2,+cmov,+cx8,+f16c,+fma,+fxsr,+lzcnt,+mmx,+movbe,+popcnt,+sse,+sse2,+sse3,+sse4.1,+sse4.2,+ssse3,+64bit"
AVX512 = "+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl,+avx512vnni"
TARGETS = {"haswell": (AVX2, r"vpmaddubsw\s.*%ymm"), "znver4": (f"{AVX2},{AVX512}", r"vpdpbusd\s.*%zmm")}
COMPILE = """
from refmodel.kernels.packed import product
product.compiled("rows_as_lanes", "Q8_0", "super_blocks")
print("".join(product._chunks.inspect_asm().values()))
"""


@pytest.mark.long
@pytest.mark.parametrize("cpu", TARGETS)
def test_products_of_bytes_are_added_by_one_instruction(cpu, tmp_path):
    """Compiled and not run, so that any processor of this family does; with a cache that is empty, for cached code has no text."""
    features, wanted = TARGETS[cpu]
    environment = {**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(re.findall(wanted, done.stdout)) >= 8  # a block of 32 weights is 8 words of 4
