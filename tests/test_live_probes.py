"""Which llama.cpp a library is: the probes in a real one."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.live


def test_trying_one_compiles_nothing(llama_lib, tmp_path):
    folders = {"NUMBA_CACHE_DIR": str(tmp_path / "kernels"), "XDG_CACHE_HOME": str(tmp_path / "kept")}
    command = [sys.executable, "-m", "refmodel", "oracle", "--llama-lib", str(llama_lib)]
    for _ in range(2):  # the second answer is the kept one
        done = subprocess.run(command, env=os.environ | folders, capture_output=True, text=True, check=True)
        assert "computes as" in done.stdout
    assert not list((tmp_path / "kernels").rglob("*.nbi"))
    assert len(list((tmp_path / "kept").rglob("*.json"))) == 1
