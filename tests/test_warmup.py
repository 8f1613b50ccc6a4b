"""Warming up: after it nothing is left to compile, whatever the kernels are; and what is done is not done again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from gguf import GGMLQuantizationType as Q
from shares import only

from refmodel import errors
from refmodel.machine import kernel_cache
from refmodel.model.model import load
from refmodel.numerics import packed
from refmodel.speed import warmup

GOLDEN = Path(__file__).parent.parent / "golden" / "models"

# For each numerics and model: do all the work, note which signatures are compiled, run passes, and see that there are no more.
NOTHING_IS_LEFT = """
import sys
from numba.core.dispatcher import Dispatcher
from refmodel.numerics import packed
from refmodel.speed import warmup
from refmodel.model.model import load

def compiled():
    modules = [module for name, module in sys.modules.items() if name.startswith("refmodel.kernels.")]
    kernels = {f for module in modules for f in vars(module).values() if isinstance(f, Dispatcher)}
    return {(f.__module__, f.__name__, signature) for f in kernels for signature in f.signatures}

for numerics in sys.argv[2:]:
    model = load(sys.argv[1])
    for one in warmup.work(model, numerics):
        warmup.do(one)
    before = compiled()
    assert before
    session = model.session(numerics=numerics)
    for n in (9, 1, 4, 2, 1, 6, 16):
        session.forward([1] * n, "last" if n == 1 else "all")
    assert compiled() == before, (numerics, compiled() - before)
"""


@pytest.mark.parametrize("name", only(["qwen35-Q4_K_M", "llama-Q8_0", "qwen3-Q5_K_M"], "qwen35-Q4_K_M"))
def test_after_the_work_nothing_is_left_to_compile(name):
    words = [GOLDEN / f"{name}.gguf", "fast", "reference", "oracle", "llamacpp"]
    done = subprocess.run([sys.executable, "-c", NOTHING_IS_LEFT, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_a_cold_cache_is_filled_by_several_processes_once(tmp_path):
    """With the smallest work: numerics of NumPy alone have no products to compile but those of F32."""
    model = tiny.build(tmp_path / "m.gguf", "llama", n_layer=1)
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_DEBUG_CACHE": "1"}

    def refmodel(*words):
        done = subprocess.run([sys.executable, "-m", "refmodel", *map(str, words)], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        return done

    first = refmodel("warmup", model, "--numerics", "oracle")
    assert " 0 were there" in first.stdout
    again = refmodel("warmup", model, "--numerics", "oracle")
    assert " 0 compiled" in again.stdout
    run = refmodel("run", model, "--tokens", "1,2,3", "-n", 2, "--numerics", "oracle")
    assert "data loaded" in run.stdout
    assert "data saved" not in run.stdout


def test_the_work_is_cut_by_type_and_tokens(monkeypatch):
    monkeypatch.setattr(packed, "matrices", lambda: False)
    model = load(GOLDEN / "qwen35-Q4_K_M.gguf")
    works = warmup.work(model, "fast", [12])
    assert works[0].title == "all but products"
    assert [one.title for one in works if "Q4_K" in one.title] == ["Q4_K, 71 tokens", "Q4_K, 1 token"]
    assert len({warmup.mark(one) for one in works}) == len(works)
    assert {name for one in works for name in one.matrices} <= set(model.weights)
    assert warmup.lengths([1, 3, 6, 12, 300]) == [71, 7, 3, 1]
    monkeypatch.setattr(packed, "matrices", lambda: True)  # then enough tokens for them have kernels of their own
    assert warmup.lengths([1, 3, 6, 12, 300]) == [71, 23, 7, 3, 1]
    assert packed.way("super_blocks", 64, 23) != packed.way("super_blocks", 64, 71)


def test_marks_belong_to_the_state_of_the_sources(monkeypatch, tmp_path):
    one = warmup.work(load(GOLDEN / "llama.gguf"), "fast")[0]
    before = warmup.mark(one)
    monkeypatch.setattr(kernel_cache, "SOURCES", tmp_path)
    assert warmup.mark(one) != before


def test_typical_files_have_every_type_and_kind_of_block():
    with warmup.typical_models() as paths:
        models = [load(path) for path in paths]
        kinds = {kind for model in models for kind in model.kinds}
        assert kinds == {"attention", "conv", "delta", "sliding"}
        for model in models:
            assert {w.type for w in model.weights.values()} >= set(warmup.COMMON) - {Q.F32}


def test_a_fault_of_one_process_is_the_users_error(tmp_path):
    model = load(GOLDEN / "llama.gguf")
    works = [one for one in warmup.work(model, "fast", [1]) if one.matrices]
    wrong = [warmup.Work((tmp_path / "none.gguf",), "fast", "", "", (1,)), *works]
    with pytest.raises(errors.FileError, match="cannot be opened"):
        warmup.compile_all(wrong, processes=2)


def test_a_killed_process_is_the_users_error(monkeypatch):
    monkeypatch.setattr(warmup, "do", killed)
    works = warmup.work(load(GOLDEN / "llama.gguf"), "fast")
    with pytest.raises(errors.RefmodelError, match="was killed"):
        warmup.compile_all(works, processes=2)


def killed(one):
    os.kill(os.getpid(), 9)
