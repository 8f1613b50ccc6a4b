"""The guards around the suite: what they see, and that they are on."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safeguards

import refmodel.kernels.norm
from refmodel.ops import attention, deltanet


def test_memory_that_an_op_did_not_write_shows():
    assert np.isnan(attention.np.empty((2, 3), np.float32)).all()
    assert np.isnan(deltanet.np.empty_like(np.zeros((2, 3)))).all()
    assert np.isnan(attention.np.empty(3, np.float16)).all()
    for kind in (np.int8, np.int64, np.uint8, np.uint32):
        assert (attention.np.empty(3, kind) == np.iinfo(kind).max).all()
    blocks = attention.np.empty(2, np.dtype([("d", "<f2"), ("codes", np.uint8, 4)]))
    assert np.isnan(blocks["d"]).all()
    assert (blocks["codes"] == 255).all()
    assert attention.np.empty((0, 3), np.float32).shape == (0, 3)
    assert attention.np.zeros is np.zeros


def test_every_module_of_plain_python_has_that_numpy():
    plain = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("refmodel.") and not name.startswith("refmodel.kernels") and hasattr(module, "np")
    ]
    assert len(plain) > 30
    assert [module.__name__ for module in plain if module.np is np] == []
    assert refmodel.kernels.norm.np is np, "Numba compiles NumPy itself"


@pytest.mark.parametrize(
    "change",
    [
        lambda golden: (golden / "new").write_text("x"),
        lambda golden: (golden / "manifest.toml").open("a"),
        lambda golden: (golden / "manifest.toml").open("r+b"),
        lambda golden: np.memmap(golden / "models" / "llama.gguf", np.uint8, "r+"),
        lambda golden: os.open(golden / "README.md", os.O_RDWR),
        lambda golden: (golden / "README.md").unlink(),
        lambda golden: (golden / "README.md").rename(golden / "other.md"),
        lambda golden: (golden / "folder").mkdir(),
        lambda golden: shutil.copy(golden / "README.md", golden / "copy.md"),
    ],
)
def test_golden_cannot_be_changed(change, golden):
    before = safeguards.snapshot()
    assert len(before) > 100
    with pytest.raises(PermissionError, match=r"a test wants to change golden/.*; only golden/make\.py writes there"):
        change(golden)
    assert safeguards.snapshot() == before
    assert (golden / "manifest.toml").read_bytes()[:9] == b"# Written", "it can be read"


def test_a_change_by_another_process_is_seen(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.gguf").write_bytes(b"old")
    monkeypatch.setattr(safeguards, "GOLDEN", tmp_path)
    before = safeguards.snapshot()
    subprocess.run([sys.executable, "-c", "import sys; open(sys.argv[1], 'wb').write(b'another')", tmp_path / "models" / "a.gguf"])
    assert safeguards.snapshot() != before
    assert before.keys() == safeguards.snapshot().keys() == {"models/a.gguf"}
