"""docs/one-kernel.md: its five stages run, and have one another's bits."""

import subprocess
import sys

import pytest
from pages import ROOT

from refmodel.kernels.types.contract import TYPES


@pytest.mark.long
def test_the_stages_run_and_have_the_same_bits(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "one_kernel.py", "--rows", "64", "--times", "1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line.split("|")[1].strip() for line in done.stdout.splitlines()[2:]] == [
        "NumPy",
        "numbers",
        "vectors",
        "rows as lanes",
        "streams, fetched ahead",
    ]


def test_the_block_of_the_page_is_the_blocks_size():
    text = (ROOT / "docs" / "one-kernel.md").read_text()
    assert f"is {TYPES['Q4_K'].BLOCK} bytes for {TYPES['Q4_K'].WEIGHTS} weights" in text
