"""The diff on its own: what it measures, and that it lets nothing pass that it could not measure."""

import numpy as np
import pytest
import tiny
from gguf import GGMLQuantizationType

import refmodel
from refmodel.compare.diff import diff
from refmodel.compare.rows import compare, compare_logits
from refmodel.compare.tolerance import (
    EMULATED,
    EMULATED_ALONE,
    HALF_CACHE,
    LOOKED_UP,
    ORACLE_FLOATS,
    QUANTIZED,
    SAME_FLOATS,
    Tolerance,
    tolerance_for,
)
from refmodel.forward.taps import in_call
from refmodel.numerics import REFERENCE, numerics_of

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
    return diff(model, CALLS, theirs, model.route(), REFERENCE, SAME_FLOATS, anchor)


@pytest.mark.parametrize("anchor", ["", "block", "node"])
def test_equal_runs_have_no_differing_row(model, theirs, anchor):
    result = run(model, theirs, anchor)
    assert {row.name for row in result.rows} == set(theirs) > {"l_out-0", "l_out-4"}
    assert all(row.nmse == 0 and row.cosine == 1 and row.differ == 0 for row in result.rows)
    assert len(result.logits) == sum(map(len, CALLS))
    assert result.first_wrong is None


def test_the_first_wrong_row_is_the_first_executed(model, theirs):
    for name in ("ffn_out-2", "l_out-1", "result_output"):
        theirs[name] = theirs[name] * 1.1
    assert run(model, theirs).first_wrong.name == "l_out-1"


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda x: x * np.nan, "not finite"),
        (lambda x: np.where(np.arange(x.size).reshape(x.shape) == 3, np.inf, x), "1 of theirs"),
        (lambda x: x[:, :-1], "shape"),
    ],
)
def test_what_cannot_be_measured_is_out_of_tolerance(model, theirs, spoil, problem):
    theirs["l_out-1"] = spoil(theirs["l_out-1"])
    first = run(model, theirs).first_wrong
    assert first.name == "l_out-1"
    assert problem in first.problem


def test_a_tensor_that_ours_lacks_is_out_of_tolerance(model, theirs):
    theirs["something-0"] = np.zeros(3)
    first = run(model, theirs).first_wrong
    assert (first.name, first.within) == ("something-0", False)


def test_an_anchored_diff_marks_the_wrong_block_alone(model, theirs):
    """A model whose block 1 differs: freely, all later blocks differ with it; anchored, only block 1 does."""
    wrong = model.session(tapper=(record := Scaled("attn_residual-1")), scores=True)
    for record.call, call in enumerate(CALLS):
        wrong.forward(call)
    blocks = lambda result: {
        row.name.partition("@")[0][6:] for row in result.rows if row.name.startswith("l_out") and not row.within
    }
    last = str(model.n_layer - 1)
    assert {"1", last} <= blocks(run(model, record))
    assert blocks(run(model, record, anchor="block")) == {"1"}


def test_a_diff_that_anchors_nodes_marks_the_wrong_operation_alone(model):
    wrong = model.session(tapper=(record := Scaled("attn_residual-1")), scores=True)
    for record.call, call in enumerate(CALLS):
        wrong.forward(call)
    rows = run(model, record, anchor="node").rows
    assert {row.name.partition("@")[0] for row in rows if row.differ} == {"attn_residual-1"}
    assert {row.name.partition("@")[0] for row in rows if not row.within} == {"attn_residual-1"}


def test_axes_of_length_one_are_no_difference_of_shape_and_no_others():
    x = np.arange(6.0)
    assert compare("x", x.reshape(1, 6), x.reshape(6, 1, 1), 0.0).within
    assert compare("x", x.reshape(2, 3), x.reshape(3, 2), 1.0).problem == "shape [2, 3], theirs [3, 2]"
    assert compare("x", x[:2], x[:1], 1.0).problem == "shape [2], theirs [1]"


def test_differing_bits_are_counted_as_float32():
    row = compare(
        "x", np.array([1.0, 2.0, 3.0 + 1e-12]), np.array([1, np.nextafter(np.float32(2), np.float32(3)), 3], np.float32), 1
    )
    assert row.differ == 1


class Scaled(Record):
    def __init__(self, where):
        super().__init__()
        self.where = where

    def __call__(self, name, x):
        return super().__call__(name, x * 1.5 if name == self.where else x)


def test_the_two_definitions_of_nmse():
    theirs = np.array([10.0, 11.0, 12.0, 13.0])
    row = compare("x", theirs + 1, theirs, 1e-3)
    assert row.nmse == pytest.approx(4 / np.sum(theirs**2))
    assert row.nmse_var == pytest.approx(1 / np.var(theirs))
    assert row.max_abs == 1


def test_zeros_equal_zeros_and_nothing_else():
    zeros = np.zeros(4)
    assert compare("x", zeros, zeros, 0.0).within
    assert compare("x", zeros + 1e-9, zeros, 1.0).nmse == np.inf


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


def test_bounds_grow_in_proportion_beyond_eight_blocks():
    base = Tolerance(tensors=3.0, logits=5.0, reason="why")
    for n, factor in ((1, 1), (7, 1), (8, 1), (9, 9 / 8), (16, 2), (64, 8)):
        deep = base.deeper(n)
        assert (deep.tensors, deep.logits, deep.reason) == (3.0 * factor, 5.0 * factor, "why"), n


def test_only_rounding_that_accumulates_grows_with_the_route():
    """The rows of floats grow; what 8-bit activations cost, and what has no difference to grow, do not."""
    grows = [
        (numerics_of("reference"), set(), True, False, SAME_FLOATS),
        (numerics_of("oracle"), set(), True, False, ORACLE_FLOATS),
        (numerics_of("reference"), set(), False, False, HALF_CACHE),
        (numerics_of("reference"), set(), True, True, LOOKED_UP),
    ]
    for num, types, exact_cache, gelu, row in grows:
        assert tolerance_for(num, types, exact_cache, 16, gelu=gelu) == row.deeper(16)
    for num, types, anchor, row in (
        (numerics_of("reference"), {GGMLQuantizationType.Q4_K}, "", QUANTIZED),
        (numerics_of("llamacpp"), {GGMLQuantizationType.Q4_K}, "", EMULATED),
        (numerics_of("llamacpp"), set(), "node", EMULATED_ALONE),
    ):
        assert tolerance_for(num, types, True, 16, anchor) == row
