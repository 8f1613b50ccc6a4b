"""The diagnosis of engines that share nothing with the library: the straight-line forward pass with changed lines."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import tiny
from straight_faults import FAULTS as STRAIGHT
from straight_faults import UNKNOWN, arrays, engine

import refmodel
from refmodel.compare.dumped import of_dump
from refmodel.dumps.dump import Dump, Numbers
from refmodel.faults.diagnosis.diagnosis import diagnose
from refmodel.faults.library import FAULTS

TOKENS = [5, 6, 7, 8, 9, 17, 41, 3]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("held-out") / "m.gguf", "qwen35", seed=2)


def diagnosed(path, changes, keeps):
    model = refmodel.load(path)
    numbers = {
        name: Numbers(x.shape, "F32", lambda x=x: x) for name, x in arrays(path, TOKENS, changes).items() if name.startswith(keeps)
    }
    other = of_dump(model, Dump(Path("run"), "arrays", numbers, [TOKENS]), None, model.route())
    return diagnose(model, other, FAULTS.values(), lambda name: None)


# All of them, and from logits alone: python tests/test_held_out.py
@pytest.mark.parametrize("name", ["all dims rotated", "key heads the other way"])
def test_a_fault_of_another_engine_is_named_from_hidden_states(path, name):
    wanted, changes = STRAIGHT[name]
    found = diagnosed(path, changes, "l_out-")
    assert wanted in {fault.id for faults in (found.answers[0].faults, *found.answers[0].same_as) for fault in faults}


def test_a_healthy_engine_gets_no_diagnosis(path):
    for keeps in (("l_out-", "result_output"), "result_output"):
        assert diagnosed(path, [], keeps).verdict == "healthy"


@pytest.mark.long
def test_what_the_library_does_not_have_is_not_named(path):
    found = diagnosed(path, UNKNOWN["blocks that grow"], "l_out-")
    assert found.verdict == "unknown"
    assert str(found.located.relation).startswith("factor: theirs is 1.07")


def test_every_change_is_one():
    assert all(engine(changes) for changes in [*UNKNOWN.values(), *(changes for _, changes in STRAIGHT.values())])
    assert {wanted for wanted, _ in STRAIGHT.values()} <= {f"F{n:02}" for n in range(1, 78)}


def main() -> None:
    """Print what is found of every fault, from hidden states and from logits."""
    with TemporaryDirectory() as folder:
        path = tiny.build(Path(folder) / "m.gguf", "qwen35", seed=2)
        for keeps in (("l_out-", "result_output"), "result_output"):
            for name, (wanted, changes) in [*STRAIGHT.items(), *((name, ("", changes)) for name, changes in UNKNOWN.items())]:
                found = diagnosed(path, changes, keeps)
                print(keeps, name, wanted, found.verdict, [fault.id for a in found.answers[:1] for fault in a.faults], flush=True)


if __name__ == "__main__":
    main()
