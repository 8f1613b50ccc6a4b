"""Threads: the same bits for any number, and safe wherever a pass starts."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from shares import diagonal, only

import refmodel
from refmodel.machine import threads
from refmodel.numerics import NUMERICS

GOLDEN = Path(__file__).parent.parent / "golden" / "models"
MODELS = ["qwen35-Q4_K_M", "llama-Q8_0"]


def logits(name, numerics):
    """Of a prompt and of two tokens behind it."""
    session = refmodel.load(GOLDEN / f"{name}.gguf").session("", numerics)
    return np.concatenate([session.forward(ids) for ids in ([*range(1, 14)], [5])])


@pytest.mark.parametrize(("numerics", "name"), diagonal(NUMERICS, MODELS))
def test_any_number_of_threads_gives_the_same_bits(name, numerics):
    before, results = numba.get_num_threads(), []
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core")
    try:
        for count in (1, 2):
            numba.set_num_threads(count)
            results.append(logits(name, numerics).tobytes())
    finally:
        numba.set_num_threads(before)
    assert len(set(results)) == 1


def python(code, **environment):
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "MODEL": str(GOLDEN / "llama-Q8_0.gguf")} | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)


IN_TWO_THREADS = """
import os, refmodel
from concurrent.futures import ThreadPoolExecutor
from refmodel.machine import threads
model = refmodel.load(os.environ["MODEL"])
run = lambda seed: [model.forward([seed, 2, 3], numerics="fast", logits="last").tobytes() for _ in range(3)]
alone = [run(1)[0], run(2)[0]]
with ThreadPoolExecutor(2) as pool:
    for one, all_of_it in zip(alone, pool.map(run, [1, 2])):
        assert set(all_of_it) == {one}
print(threads.layer())
"""


@pytest.mark.parametrize("layer", only(["default", "workqueue"], "workqueue"))
def test_two_python_threads_compute_at_once(layer):
    done = python(IN_TWO_THREADS, NUMBA_THREADING_LAYER=layer, OMP_WAIT_POLICY="passive")
    assert done.returncode == 0, done.stderr
    assert layer in ("default", done.stdout.strip())


AFTER_A_FORK = """
import os, warnings, refmodel
warnings.simplefilter("ignore")  # Python's own, about forks and threads
model = refmodel.load(os.environ["MODEL"])
if os.environ["FIRST"]:
    model.forward([1, 2, 3])
if os.fork() == 0:
    try:
        model.forward([1, 2, 3])
    except refmodel.RefmodelError as error:
        print(error, flush=True)
        os._exit(7)
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.parametrize(
    ("first", "layer", "status"), only([("yes", "omp", 7), ("", "omp", 0), ("yes", "workqueue", 0)], ("yes", "omp", 7))
)
def test_a_forked_child_computes_or_says_why_not(first, layer, status):
    done = python(AFTER_A_FORK, FIRST=first, NUMBA_THREADING_LAYER=layer)
    if "No threading layer could be loaded" in done.stderr:
        pytest.skip("no OpenMP")
    assert done.returncode == status, done.stderr
    assert ("get_context('spawn')" in done.stdout) == (status == 7)


@pytest.mark.long
def test_spawned_processes_compute_the_same():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.starmap(logits, [("llama-Q8_0", "fast")] * 2)
    assert {result.tobytes() for result in results} == {logits("llama-Q8_0", "fast").tobytes()}


def test_the_number_of_threads_is_checked_and_kept_from_blas(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(threads.State, "count", None)
    for name in (*threads.POOLS_OF_BLAS, "NUMBA_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
        monkeypatch.delenv(name)
    with pytest.raises(
        refmodel.RefmodelError, match="--threads 3: the cores that this process may use are 2; any number from 1 to 2"
    ):
        threads.use(3)
    before = numba.get_num_threads()
    try:
        threads.use(1)
        assert numba.get_num_threads() == threads.used() == 1
        assert {os.environ[name] for name in threads.POOLS_OF_BLAS} == {"1"}
        monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
        with pytest.raises(refmodel.RefmodelError, match="NUMBA_NUM_THREADS is 1"):
            threads.use(2)
    finally:
        numba.set_num_threads(before)


def test_the_command_line_sets_the_threads_before_numba_starts():
    words = f"['refmodel', 'run', {str(GOLDEN / 'llama-Q8_0.gguf')!r}, '--tokens', '1,2', '-n', '1']"
    code = f"import sys\nfrom refmodel.cli import main\nsys.argv = {words}\n"
    code += "try: main()\nexcept SystemExit: pass\nimport numba\nprint('threads', numba.config.NUMBA_NUM_THREADS)"
    assert python(code, REFMODEL_THREADS="1").stdout.endswith("threads 1\n")
    assert python(code, REFMODEL_THREADS="9999").stderr.startswith("refmodel: --threads 9999: ")
