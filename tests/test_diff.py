"""The diff on its own: what it measures, and that it lets nothing pass that it could not measure."""

import numpy as np
import pytest
import tiny

import refmodel
from refmodel.compare.diff import diff
from refmodel.compare.rows import compare, compare_logits
from refmodel.forward.taps import in_call
from refmodel.numerics import REFERENCE

CALLS = [[5, 6, 7, 8, 9], [10], [11]]


class Record(dict):
    """A tapper that keeps copies under the names of a trace."""

    call = 0

    def __call__(self, name, x):
        self[in_call(name, self.call)] = np.array(x)
        return x


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("m") / "m.gguf", "qwen35", seed=2))


@pytest.fixture
def theirs(model):
    record = Record()
    session = model.session(tapper=record, scores=True)
    for record.call, call in enumerate(CALLS):
        session.forward(call)
    return record


def run(model, theirs, anchor=""):
    return diff(model, CALLS, theirs, model.route(), REFERENCE, anchor, lambda name: None)


@pytest.mark.parametrize("anchor", ["", "block", "node"])
def test_equal_runs_have_no_differing_row(model, theirs, anchor):
    result = run(model, theirs, anchor)
    assert {row.name for row in result.rows} == set(theirs) > {"l_out-0", "l_out-4"}
    assert all(row.nmse == 0 and row.cosine == 1 and row.differ == 0 for row in result.rows)
    assert len(result.logits) == sum(map(len, CALLS))
    assert all(row.within for row in result.rows)


def test_an_anchored_diff_marks_the_wrong_block_alone(model, theirs):
    """A model whose block 1 differs: freely, all later blocks differ with it; anchored, only block 1 does."""
    wrong = model.session(tapper=(record := Scaled("attn_residual-1")), scores=True)
    for record.call, call in enumerate(CALLS):
        wrong.forward(call)
    blocks = lambda result: {row.name.partition("@")[0][6:] for row in result.rows if row.name.startswith("l_out") and row.differ}
    last = str(model.n_layer - 1)
    assert {"1", last} <= blocks(run(model, record))
    assert blocks(run(model, record, anchor="block")) == {"1"}


def test_a_diff_that_anchors_nodes_marks_the_wrong_operation_alone(model):
    wrong = model.session(tapper=(record := Scaled("attn_residual-1")), scores=True)
    for record.call, call in enumerate(CALLS):
        wrong.forward(call)
    rows = run(model, record, anchor="node").rows
    assert {row.name.partition("@")[0] for row in rows if row.differ} == {"attn_residual-1"}


def test_axes_of_length_one_are_no_difference_of_shape_and_no_others():
    x = np.arange(6.0)
    assert compare("x", x.reshape(1, 6), x.reshape(6, 1, 1)).within
    assert compare("x", x.reshape(2, 3), x.reshape(3, 2)).problem == "shape [2, 3], theirs [3, 2]"
    assert compare("x", x[:2], x[:1]).problem == "shape [2], theirs [1]"


def test_numbers_that_are_not_finite_are_measured_around_if_both_sides_have_the_same():
    ours, nan, inf = np.array([1.0, np.nan, 3.0, np.inf]), np.nan, np.inf
    row = compare("x", ours, np.array([1.5, nan, 3.0, inf]))
    assert (row.holes, row.differ, row.problem) == (2, 1, "")
    assert row.nmse == pytest.approx(0.25 / 11.25)
    for theirs in ([1.0, nan, 3.0, -inf], [1.0, inf, 3.0, inf], [nan, nan, 3.0, inf], [1.0, 2.0, 3.0, inf], [1.0, nan, 3.0, 4.0]):
        assert "not finite" in compare("x", ours, np.array(theirs)).problem
    assert compare_logits(ours[None], ours[None]) == []


def test_differing_bits_are_counted_as_float32():
    row = compare("x", np.array([1.0, 2.0, 3.0 + 1e-12]), np.array([1, np.nextafter(np.float32(2), np.float32(3)), 3], np.float32))
    assert row.differ == 1


class Scaled(Record):
    def __init__(self, where):
        super().__init__()
        self.where = where

    def __call__(self, name, x):
        return super().__call__(name, x * 1.5 if name == self.where else x)


def test_the_two_definitions_of_nmse():
    theirs = np.array([10.0, 11.0, 12.0, 13.0])
    row = compare("x", theirs + 1, theirs)
    assert row.nmse == pytest.approx(4 / np.sum(theirs**2))
    assert row.nmse_var == pytest.approx(1 / np.var(theirs))
    assert row.max_abs == 1


def test_zeros_equal_zeros_and_nothing_else():
    zeros = np.zeros(4)
    assert compare("x", zeros, zeros).nmse == 0
    assert compare("x", zeros + 1e-9, zeros).nmse == np.inf


def test_logits_report_rank_margin_and_abstain_on_near_ties():
    theirs = np.array([[0.0, 5.0, 1.0], [2.0, 2.0001, 0.0]])
    ours = np.array([[6.0, 5.0, 1.0], [2.0002, 2.0001, 0.0]])
    clear, tie = compare_logits(ours, theirs)
    assert (clear.top1_ours, clear.top1_theirs, clear.rank, clear.margin) == (0, 1, 1, 4.0)
    assert tie.near_tie
    assert clear.near_tie, "6 apart at one token, and a margin of 4"
    p = np.exp(theirs[0]) / np.exp(theirs[0]).sum()
    q = np.exp(ours[0]) / np.exp(ours[0]).sum()
    assert clear.kl == pytest.approx((p * np.log(p / q)).sum())


@pytest.mark.parametrize(("apart", "near"), [(0.5, False), (0.75, False), (1.0, True), (1.5, True), (2.5, True), (0.0, False)])
def test_a_near_tie_is_a_margin_of_at_most_twice_the_largest_difference(apart, near):
    """Two logits may each move by the largest difference: a margin of 2 is safe from less than 1."""
    theirs = np.array([[3.0, 1.0, -4.0]])
    (row,) = compare_logits(np.add(theirs, [[0.0, 0.0, apart]]), theirs)
    assert row.margin == 2.0
    assert row.near_tie == near


def test_equal_logits_are_a_near_tie_even_where_nothing_differs():
    (row,) = compare_logits(np.array([[2.0, 2.0]]), np.array([[2.0, 2.0]]))
    assert (row.margin, row.near_tie) == (0.0, True)


@pytest.mark.parametrize("size", [1, 7, 20])
def test_the_figures_are_the_same_whatever_part_is_compared_at_a_time(size, monkeypatch):
    a, b = np.random.default_rng(size).standard_normal((2, 3, 7), np.float32)
    whole = compare("x", a, b)
    monkeypatch.setattr("refmodel.compare.rows.AT_ONCE", size)
    parts = compare("x", a, b)
    for name in ("nmse", "nmse_var", "cosine"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-13)
    assert (parts.max_abs, parts.differ, parts.holes) == (whole.max_abs, 21, 0)
    error = a.astype(np.float64) - b
    assert whole.nmse == pytest.approx((error**2).sum() / (b.astype(np.float64) ** 2).sum(), rel=1e-13)
    assert whole.nmse_var == pytest.approx((error**2).mean() / b.astype(np.float64).var(), rel=1e-13)
