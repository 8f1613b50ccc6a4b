"""The error budget: its parts add up, a fault is nobody's part, and a flipped code is found."""

import numpy as np
import pytest
import tiny
from test_diff import Record

import refmodel
from refmodel.compare.error_budget import UNEXPLAINED, explain
from refmodel.compare.other_side import Other
from refmodel.errors import TraceError
from refmodel.forward.taps import in_call
from refmodel.numerics import LLAMACPP, REFERENCE

CALLS = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [10], [11]]


@pytest.fixture(scope="module")
def model(golden):
    return refmodel.load(golden / "models" / "qwen35-Q4_K_M.gguf")


def emulated(model, faults=None, **changes):
    """The other side as the emulation itself makes it; `faults`, tap -> function, change it and everything after it."""
    record = Faulty(faults or {})
    session = model.session(numerics=LLAMACPP, tapper=record, scores=True)
    for record.call, call in enumerate(CALLS):
        session.forward(call)
    given = {"calls": CALLS, "route": model.route().canonical, "sha256": "", "who": "ours"}
    given |= {"arithmetic": LLAMACPP, "unknown": frozenset({""}), "emitted": len(record), "left_out": {}}
    return Other(record, **(given | changes))


class Faulty(Record):
    def __init__(self, faults):
        super().__init__()
        self.faults = faults

    def __call__(self, name, x):
        super().__call__(name, changed := self.faults.get(in_call(name, self.call), lambda x: x)(x))
        return changed


def test_the_parts_add_up_to_the_distance(model, tmp_path):
    found = explain(model, model.route(), emulated(model), tmp_path)
    assert [b.name for b in found.budgets][:5] == ["l_out-0", "l_out-1", "l_out-2", "l_out-3", "result_output"]
    for budget in found.budgets:
        assert list(budget.parts) == ["activations", "attention", "order", UNEXPLAINED]
        assert sum(part.share for part in budget.parts.values()) == pytest.approx(1)
        assert budget.parts[UNEXPLAINED].nmse == 0
        assert 1e-6 < budget.distance < 1e-2
    first = found.budgets[0].parts  # block 0 is a delta block: it has no attention, and nothing before it to amplify
    assert first["activations"].share > 0.99
    assert first["attention"].nmse < 1e-25
    assert (found.explained, found.first, found.flip, set(found.left)) == (True, None, None, {0.0})
    assert set(found.verdicts()) <= {"EXPLAINED", "NEAR TIE"}


def test_anchored_a_block_has_its_own_budget_alone(model, tmp_path):
    free, anchored = (explain(model, model.route(), emulated(model), tmp_path, anchor=anchor) for anchor in ("", "block"))
    by_name = {b.name: b.distance for b in anchored.budgets}
    outputs = [b for b in free.budgets if b.name.startswith("l_out")]
    assert {b.name for b in outputs} >= {f"l_out-{block}" for block in range(model.n_layer)}
    assert all(by_name[b.name] <= b.distance for b in outputs)
    assert by_name["l_out-3"] < free.budgets[3].distance / 3


def test_a_fault_is_left_unexplained_and_the_first_wrong_operation_is_named(model, tmp_path):
    found = explain(model, model.route(), emulated(model, {"Qcur_normed-2": lambda x: x * np.float32(1.01)}), tmp_path)
    assert not found.explained
    assert found.first.name == "Qcur_normed-2"
    shares = {b.name: b.parts[UNEXPLAINED].nmse for b in found.budgets}
    assert shares["l_out-1"] == 0 < shares["l_out-2"]
    assert "UNEXPLAINED" in found.verdicts()


def test_a_higher_precision_makes_the_weights_a_part(model, tmp_path):
    shape = {"E": 256, "F": 256, "H": 8, "G": 2, "D": 32, "n_rot": 12, "n_layer": 4, "Hk": 4, "Hv": 8, "S": 32, "K": 4}
    shape |= {"alike": "the parent of a packed golden file"}
    parent = tiny.build(tmp_path / "parent.gguf", "qwen35", 13, **shape, recurrent=[1, 1, 0, 1])  # as golden/make.py has it
    found = explain(model, model.route(), emulated(model), tmp_path, full=refmodel.load(parent))
    for budget in found.budgets:
        assert next(iter(budget.parts)) == "weights"
        assert budget.parts["weights"].share > 0.5
        assert sum(part.share for part in budget.parts.values()) == pytest.approx(1)


def test_a_full_model_must_be_the_same_model(model, golden, tmp_path):
    with pytest.raises(TraceError, match="hyperparameters differ"):
        explain(model, model.route(), emulated(model), tmp_path, full=refmodel.load(golden / "models" / "qwen35.gguf"))


def test_only_a_llama_cpp_is_explained(model, tmp_path):
    with pytest.raises(TraceError, match=r"not a llama\.cpp"):
        explain(model, model.route(), emulated(model, arithmetic=REFERENCE), tmp_path)


def test_a_flipped_code_is_named(model, tmp_path):
    """Their attn_norm-1 differs by a hair, as with another C library, and one code with it; all operations are right."""
    place = []

    def moved(x):
        """The number that is nearest to where its code changes, moved over that border; a token is one block of 256."""
        step = np.abs(x).max(axis=1, keepdims=True) / 127
        row, column = np.unravel_index(np.abs(np.abs(x / step) % 1 - 0.5).argmin(), x.shape)
        before, x = x[row, column] / step[row, 0], x.copy()
        border = np.sign(before) * (np.floor(np.abs(before)) + 0.5)
        x[row, column] = (border + np.sign(border - before) * 1e-4) * step[row, 0]
        place.append((row, column))
        return x

    found = explain(model, model.route(), emulated(model, {"attn_norm-1": moved}), tmp_path)
    assert found.explained
    assert ("attn_norm-1", *place[0]) == (found.flip.tap, found.flip.row, found.flip.column)
    assert found.flip.matrix == "blk.1.attn_qkv.weight"
    assert abs(found.flip.ours - found.flip.theirs) == 1
    assert "code" in found.flip.describe()
    assert max(found.left) > 0
