"""Memory: what is measured is what was taken, and what is predicted is what the states become."""

import platform
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import refmodel
from refmodel.compare.placing import Probe
from refmodel.compare.rounding import by_token
from refmodel.compare.rows import common_factor, compare, compare_logits
from refmodel.compare.sanity import probabilities
from refmodel.info.needs import needs
from refmodel.machine import memory

GOLDEN = Path(__file__).parent.parent / "golden" / "models"


@pytest.mark.skipif(sys.platform != "linux", reason="RssAnon")
def test_the_peak_holds_what_was_taken_for_a_while():
    with memory.Peak(every=0.001) as peak:
        before = memory.anonymous()
        taken = np.ones(8 << 20)  # 64 MB
        while peak.bytes < before + taken.nbytes * 0.9:
            time.sleep(0.001)
        del taken
    assert before is not None
    assert peak.bytes >= before + 0.9 * (64 << 20)


def test_without_a_system_that_says_it_the_peak_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    with memory.Peak() as peak:
        pass
    assert peak.bytes is None


@pytest.mark.parametrize("name", ["qwen35-Q4_K_M", "llama-Q8_0"])
def test_needs_are_those_of_a_session(name):
    model = refmodel.load(GOLDEN / f"{name}.gguf")
    session = model.session()
    session.forward([1] * 5)
    caches = [s for s in session.states if hasattr(s, "length")]
    fixed = [s for s in session.states if not hasattr(s, "length")]
    need = needs(model)
    nothing = np.empty((0, model.hp.n_head_kv, model.hp.head_dim), np.float32)
    keys = [s.append(nothing, nothing) for s in caches]
    assert need["cache_of_1000_tokens"] == 200 * sum(k.nbytes + v.nbytes for k, v in keys)
    assert need["states"] == sum(s.conv.nbytes + s.delta.nbytes for s in fixed)
    assert need["weights"] == sum(w.rows.nbytes for w in model.weights.values())


def test_comparing_takes_less_memory_than_the_numbers_have():
    ours = np.random.default_rng(0).standard_normal((256, 1 << 16), np.float32)  # 64 MB, as logits of a text may be
    theirs = ours * np.float32(1 + 2e-6)
    doing = {
        "a row": lambda: compare("result_output", ours, theirs),
        "errors of tokens": lambda: by_token(ours, theirs, len(ours)),
        "a factor": lambda: common_factor(ours, theirs),
        "rows of logits": lambda: compare_logits(ours[:8], theirs[:8]),
        "what they are": lambda: probabilities(theirs),
    }
    for name, do in doing.items():
        tracemalloc.start()
        do()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < ours.nbytes, name


def test_what_is_kept_of_a_tap_does_not_hold_the_whole_tap():
    probe = Probe()
    probe.begin(0, 5)
    scores, stream = np.ones((3, 5, 7), np.float32), np.ones((5, 4), np.float32)
    probe("kq-0", scores)
    probe("l_out-0", stream)
    for seen in probe.taps.values():
        assert not np.shares_memory(seen.kept, scores)
        assert seen.kept.base is None
        assert seen.kept.size < 20


FAULTS = """
import resource
import numpy as np
from refmodel.arrays import keep_pages

def faults(passes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(passes):
        made = [np.ones(5 << 18, np.float32) for _ in range(3)]  # 5 MiB each
        del made
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_pages()
faults(2)
print(faults(5))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a C library without these limits")
def test_memory_that_arrays_leave_is_taken_again_without_a_fault_for_each_page():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100  # without it there are thousands


@pytest.fixture
def system(monkeypatch, tmp_path):
    """Files as Linux has them; the names of what a test writes into them."""
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    return tmp_path


STAT = "anon_thp 7\nfile 600000\nanon 300000\nkernel 5\n"


@pytest.mark.parametrize(
    ("limit", "left"), [("1000000\n", 700_000), ("300000\n", 0), ("200000\n", 0), ("300001\n", 1), ("max\n", None), (None, None)]
)
def test_a_control_group_leaves_its_limit_without_its_anonymous_pages(system, limit, left):
    (system / "memory.stat").write_text(STAT)
    if limit is not None:
        (system / "memory.max").write_text(limit)
    assert memory.of_group() == left
    (system / "memory.stat").unlink()
    assert memory.of_group() is None


@pytest.mark.parametrize(
    ("machine", "limit", "free"),
    [
        (2_000, "9000000", 2_000 << 10),
        (9_000, "1000000", 700_000),
        (2_000, "max", 2_000 << 10),
        (None, "1000000", 700_000),
        (None, "max", None),
    ],
)
def test_what_is_available_is_the_least_of_machine_and_group(system, machine, limit, free):
    (system / "memory.stat").write_text(STAT)
    (system / "memory.max").write_text(limit)
    if machine is not None:
        (system / "meminfo").write_text(f"MemTotal: 99999 kB\nMemFree: 1 kB\nMemAvailable: {machine} kB\n")
    assert memory.available() == free
