"""The profile: its parts add up to the whole, by a clock that the test turns; and it changes no bit."""

from dataclasses import fields, replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from near import same_bits

import refmodel
from refmodel.machine import memory as free
from refmodel.numerics import REFERENCE
from refmodel.numerics.limits import MachineLimits
from refmodel.speed.timing import Spent, Timing
from refmodel.text.generate import generate

GOLDEN = Path(__file__).parent.parent / "golden" / "models"


def profiled(model, clock, numerics=REFERENCE, route=""):
    """A session that is timed."""
    kinds = [model.kinds[source] for source in model.route(route).layers]
    profile = Timing(kinds, clock)
    return profile, model.session(route, profile.numerics(numerics), profile)


@pytest.mark.parametrize("name", ["qwen35-Q4_K_M", "llama-Q8_0", "qwen3"])
def test_the_parts_add_up_to_the_whole(name):
    """Every look at the clock is a second later: all is whole seconds, and sums are exact."""
    model, ticks = refmodel.load(GOLDEN / f"{name}.gguf"), count()
    profile, session = profiled(model, lambda: float(next(ticks)))
    with profile.whole():
        list(generate(session, [1, 2, 3], 3))
    for rows in (profile.by_operation(), profile.by_place()):
        assert sum(row.seconds for row in rows) == profile.total > 100
        assert all(row.seconds >= 0 for row in rows)
    places = {(row.phase, row.name): row.calls for row in profile.by_place()}
    for kind in set(model.kinds):
        assert places["prompt", kind] == model.kinds.count(kind)
        assert places["decode", kind] == 2 * model.kinds.count(kind)
    assert places["prompt", "head"] == 1
    assert sum(row.bytes for row in profile.by_place()) == sum(row.bytes for row in profile.by_operation())


def test_an_operation_has_its_time_and_its_bytes():
    """A clock that only the slow function turns."""
    model, now = refmodel.load(GOLDEN / "qwen35-Q4_K_M.gguf"), [0.0]

    def slow(w, x):
        now[0] += 0.5
        return REFERENCE.linear(w, x)

    profile, session = profiled(model, lambda: now[0], replace(REFERENCE, linear=slow))
    with profile.whole():
        session.forward([1, 2, 3])
        now[0] += 7.0
    rows = {row.name: row for row in profile.by_operation()}
    assert {name for name, row in rows.items() if row.seconds} == {
        "between passes: sampling, text",
        *(name for name in rows if rows[name].multiply_adds),
    }
    assert rows["between passes: sampling, text"].seconds == 7.0
    w = model.weights["blk.0.ffn_down.weight"]
    down = next(row for name, row in rows.items() if name.startswith(f"ffn_down {w.type.name}"))
    assert down.seconds == down.calls * 0.5
    same = [t for name, t in model.weights.items() if name.endswith("ffn_down.weight") and t.type == w.type]
    assert down.multiply_adds == 3 * sum(t.shape[0] * t.shape[1] for t in same)
    assert down.bytes == sum(t.rows.nbytes + 3 * 4 * sum(t.shape) for t in same)


def test_a_profile_changes_no_bit():
    model = refmodel.load(GOLDEN / "qwen35-Q4_K_M.gguf")
    _, session = profiled(model, lambda: 0.0, route="blocks:1,3")
    same_bits(session.forward([1, 2, 3]), model.forward([1, 2, 3], route="blocks:1,3"))


def test_every_function_of_the_record_is_timed():
    timed = Timing([]).numerics(REFERENCE)
    for field in fields(REFERENCE):
        before, after = getattr(REFERENCE, field.name), getattr(timed, field.name)
        assert (before is after) == (not callable(before) or isinstance(before, type)), field.name


def test_the_share_of_the_limit_is_the_least_time_by_the_time():
    limits = MachineLimits(bytes=100.0, multiply_adds=1000.0)
    assert Spent("", "", seconds=2.0, bytes=100).share_of_limit(limits) == 0.5
    assert Spent("", "", seconds=2.0, bytes=100, multiply_adds=1500).share_of_limit(limits) == 0.75
    assert Spent("", "", seconds=2.0).share_of_limit(limits) is None


def test_the_limits_are_numbers_of_this_machine(monkeypatch):
    from refmodel.numerics import limits

    monkeypatch.setattr(limits, "SIZE", 1 << 20)
    monkeypatch.setattr(limits, "TIMES", 1 << 10)
    found = limits.measured()
    assert found.bytes > 0
    assert found.multiply_adds > 0


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([], 1000), (["48K", "2048K"], 3 << 21), (["266240K"], 3 * 266240 << 10), (["999999999K"], 1 << 30), (["odd"], 1000)],
)
def test_what_is_read_is_more_than_the_caches_hold(monkeypatch, tmp_path, sizes, expected):
    for number, size in enumerate(sizes):
        (tmp_path / f"index{number}").mkdir()
        (tmp_path / f"index{number}" / "size").write_text(size + "\n")
    monkeypatch.setattr(free, "CACHES", tmp_path)
    assert free.beyond_caches(1000) == expected


def test_the_reading_kernel_reads_every_byte_once():
    from refmodel.kernels.machine_limits import read

    data, out = np.random.default_rng(0).integers(0, 256, 2 * 4 * 128 * 5, np.uint8), np.zeros(2, np.int32)
    read(data, out)
    assert int(out.astype(np.uint32).sum(dtype=np.uint32)) == int(data.view(np.uint32).sum(dtype=np.uint32))
