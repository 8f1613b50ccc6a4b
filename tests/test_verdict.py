"""The verdict: a healthy run is never called wrong, and a wrong operation is named, whatever the other side rounds."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
from shares import diagonal, name_of
from test_diff import CALLS, Record

import refmodel
from refmodel.compare.other_side import ALL, Other, compare
from refmodel.compare.verdict import EQUAL, EXPLAINED, WRONG, equal, explained, judge, measured, stem
from refmodel.forward.taps import in_call
from refmodel.llamacpp.builds import JUDGE
from refmodel.llamacpp.profile import PROFILES
from refmodel.numerics import FAST, LLAMACPP, NUMPY, ORACLE, REFERENCE, llamacpp
from refmodel.report.diff import verdict_line

KNOWN = frozenset()
ARCHES = ("qwen35", "qwen3moe", "gemma3", "llama")


class Run(Record):
    """What some engine computes: `changes`, tap -> function, are what is wrong with it, from there on."""

    def __init__(self, changes):
        super().__init__()
        self.changes = changes

    def __call__(self, name, x):
        change = self.changes.get(in_call(name, self.call))
        return super().__call__(name, np.float32(x if change is None else change(x)).astype(x.dtype))


def run_of(model, numerics, changes=()):
    session = model.session(numerics=numerics, tapper=(record := Run(dict(changes))), scores=True)
    for record.call, tokens in enumerate(CALLS):
        session.forward(tokens)
    return record


def other_of(model, taps, arithmetic, unknown=ALL, operations=()):
    return Other(taps, CALLS, model.route().canonical, "", "theirs", arithmetic, unknown, len(taps), {}, dict(operations))


def verdict_on(model, taps, arithmetic, unknown=ALL):
    return judge(model, model.route(), other_of(model, taps, arithmetic, unknown), lambda name: None)


@pytest.fixture(scope="module", params=ARCHES)
def model(request, tmp_path_factory):
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("v") / "m.gguf", request.param, seed=2))


@pytest.fixture(scope="module")
def packed(golden):
    return refmodel.load(golden / "models" / "qwen35-Q4_K_M.gguf")


def test_the_same_bits_are_equal(model):
    found = verdict_on(model, run_of(model, REFERENCE), REFERENCE, KNOWN)
    assert (found.word, found.first, list(found.rounded)) == (EQUAL, None, [])
    whole = equal(list(found.rows.values()), other_of(model, {}, REFERENCE))
    assert whole.word == EQUAL
    assert equal([replace(next(iter(found.rows.values())), differ=1)], other_of(model, {}, REFERENCE)) is None


@pytest.mark.parametrize("theirs", [ORACLE, NUMPY, LLAMACPP], ids=lambda n: n.name)
def test_another_order_of_floats_is_explained(theirs, model):
    """A float32 engine that is not ours: float64 rounded once, NumPy's sums, llama.cpp's; of keys and values as floats."""
    theirs = llamacpp(PROFILES["exact"], JUDGE) if theirs is LLAMACPP else theirs
    if theirs.emulates and model.architecture == "gemma3":
        return  # it reads GELU from a table of half floats: that is no order of floats
    found = verdict_on(model, run_of(model, theirs), REFERENCE)
    assert found.word == EXPLAINED, found.first
    assert found.rounded


def test_other_rounding_of_a_quantized_file_is_explained_operation_by_operation(packed):
    """The free runs differ by 1e-4 in some tensors; each operation by itself by the order of its sums."""
    rounded = run_of(packed, replace(LLAMACPP, rms_norm=REFERENCE.rms_norm, softplus=REFERENCE.softplus, sigmoid=REFERENCE.sigmoid))
    found = verdict_on(packed, rounded, LLAMACPP)
    assert found.word == EXPLAINED, found.first
    assert max(row.nmse for row in found.rows.values()) < 1e-11


FAULTS = {
    "one number in a thousand": ("ffn_out-1", lambda x: x * np.float32(1.001)),
    "one of all numbers": ("l_out-0", lambda x: x + np.float32(1e-3) * (np.arange(x.size).reshape(x.shape) == 7)),
    "the last call only": ("Vcur-2@2", lambda x: x * np.float32(1.0001)),
    "a sign": ("ffn_norm-1", lambda x: -x),
    "tokens in another order": ("l_out-2", lambda x: x[::-1]),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("unknown", [KNOWN, ALL], ids=["known bits", "measured rounding"])
def test_a_wrong_operation_is_named_and_no_other(name, unknown, tmp_path):
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "llama", seed=2))
    tap, change = FAULTS[name]
    found = verdict_on(model, run_of(model, REFERENCE, {tap: change}), REFERENCE, unknown)
    assert found.word == WRONG
    assert [row.name for row in found.rows.values() if not row.within] == [tap]
    assert not found.is_right(tap)
    assert found.is_right("l_out-1")


@pytest.mark.parametrize(("off", "theirs"), diagonal([0.995, 1.005, 1.01], [REFERENCE, ORACLE, LLAMACPP, FAST]), ids=name_of)
def test_a_rope_base_half_a_percent_off_is_found_beside_any_rounding(off, theirs, packed):
    wrong = packed.with_hparams(rope=replace(packed.hp.rope, base=packed.hp.rope.base * off))
    found = verdict_on(packed, run_of(wrong, theirs), theirs)
    assert found.word == WRONG
    assert stem(found.first.name) == "Qcur"
    healthy = verdict_on(packed, run_of(packed, theirs), theirs)
    assert healthy.word == EQUAL


def test_one_other_bit_of_a_known_operation_is_wrong_and_of_an_unknown_one_explained(model):
    def nudged(x):
        out = np.float32(x).copy()
        out.reshape(-1)[3] = np.nextafter(out.reshape(-1)[3], np.float32(np.inf))
        return out

    taps, operations = run_of(model, REFERENCE, {"l_out-1": nudged}), {"l_out-1": "ADD"}
    for unknown, word in ((KNOWN, WRONG), (frozenset({"ADD"}), EXPLAINED), (frozenset({"MUL_MAT"}), WRONG)):
        other = other_of(model, taps, REFERENCE, unknown, operations)
        assert judge(model, model.route(), other, lambda name: None).word == word


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda x: x * np.nan, "not finite"),
        (lambda x: np.where(np.arange(x.size).reshape(x.shape) == 3, np.inf, x), "1 of theirs"),
        (lambda x: x[:, :-1], "shape"),
    ],
)
def test_what_cannot_be_measured_is_wrong(spoil, problem, model):
    taps = run_of(model, REFERENCE)
    taps["l_out-1"] = spoil(taps["l_out-1"])
    found = verdict_on(model, taps, REFERENCE)
    assert (found.word, found.first.name) == (WRONG, "l_out-1")
    assert problem in found.first.problem


def test_numbers_that_overflow_alike_are_no_fault_and_hide_none_before_them(model):
    """An epsilon below what a norm adds it to: its root is no number, in any program that computes this model."""
    sick = model.with_hparams(eps=-1e9)
    taps = run_of(sick, REFERENCE)
    assert np.isnan(taps["norm-0"]).all()
    healthy = verdict_on(sick, taps, REFERENCE, KNOWN)
    assert healthy.word == EQUAL
    assert "every operation that was judged" in verdict_line(healthy, other_of(sick, taps, REFERENCE, KNOWN))
    assert "norm-0" in healthy.rows
    assert not {"l_out-1", "result_output"} - set(equal_rows(sick, taps))
    embed = next(iter(taps))
    taps[embed] = taps[embed] * np.float32(1.01)
    assert verdict_on(sick, taps, REFERENCE, KNOWN).first.name == embed
    finite = verdict_on(model, run_of(sick, REFERENCE), REFERENCE, KNOWN)
    assert (finite.word, finite.first.name) == (WRONG, "norm-0"), "ours is finite there"


def equal_rows(model, taps):
    other = other_of(model, taps, REFERENCE, KNOWN)
    rows = compare(model, model.route(), other, REFERENCE, "", lambda name: None).rows
    return {row.name: row for row in rows if row.holes and not row.differ and not row.problem}


def test_a_tensor_that_ours_lacks_is_wrong(model):
    taps = run_of(model, REFERENCE)
    taps["something-0"] = np.zeros(3)
    assert verdict_on(model, taps, REFERENCE).first.name == "something-0"


def test_what_rounding_explains_is_measured_on_this_input(model, tmp_path):
    other = other_of(model, run_of(model, REFERENCE), REFERENCE)
    noise = measured(model, model.route(), other, tmp_path, lambda name: None)
    assert set(noise) >= {"l_out", "result_output", "attn_norm"}
    assert all(0 <= value < 1e-11 for name, value in noise.items() if "shared_expert" not in name)
    assert explained("l_out-3@2", {"l_out": 1e-14}) == pytest.approx(1e-12 + 1e-12)


def test_an_operation_is_named_without_position_and_call():
    assert [stem(tap) for tap in ("Kcur-3#1@2", "l_out-11", "result_output@4", "norm")] == [
        "Kcur#1",
        "l_out",
        "result_output",
        "norm",
    ]
