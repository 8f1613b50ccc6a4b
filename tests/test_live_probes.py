"""Which llama.cpp a library is: the probes in a real one."""

import os
import subprocess
import sys

import pytest

from refmodel.compare import probes
from refmodel.llamacpp.builds import BUILDS, build_of
from refmodel.llamacpp.library import Library, locate

pytestmark = pytest.mark.live


def nobody(what: str) -> None:
    """Does nothing with what is being computed."""


def test_a_library_is_known_by_what_it_computes_whatever_it_reports(llama_lib, monkeypatch):
    """It reports a commit that nobody knows, and another build is tried first."""
    library = locate(llama_lib)
    said = dict(library.build)
    named = build_of(said)
    other = next(build for build in BUILDS.values() if named is None or build.commit != named.commit)
    monkeypatch.setattr(probes, "JUDGE", other)
    monkeypatch.setattr(Library, "build", property(lambda self: said | {"commit": "0000000"}))
    found = probes.tried(library, nobody)
    assert named in (None, found.build)
    assert set(found.unknown) <= {"MUL_MAT_ID"}
    assert found.unpromised >= probes.ALL


def test_trying_one_compiles_nothing(llama_lib, tmp_path):
    folders = {"NUMBA_CACHE_DIR": str(tmp_path / "kernels"), "XDG_CACHE_HOME": str(tmp_path / "kept")}
    command = [sys.executable, "-m", "refmodel", "oracle", "--llama-lib", str(llama_lib)]
    for _ in range(2):  # the second answer is the kept one
        done = subprocess.run(command, env=os.environ | folders, capture_output=True, text=True, check=True)
        assert "computes as" in done.stdout
    assert not list((tmp_path / "kernels").rglob("*.nbi"))
    assert len(list((tmp_path / "kept").rglob("*.json"))) == 1
