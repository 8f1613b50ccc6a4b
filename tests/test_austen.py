"""The trained model of golden/austen: what its card says, by running it; and that transformers computes what we do."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from near import nmse

import refmodel
from refmodel.commands.options import shipped
from refmodel.faults.demo import case, turned_too_far, without_gate
from refmodel.numerics import FAST

GOLDEN = Path(__file__).parent.parent / "golden"
sys.path.insert(0, str(GOLDEN / "train"))

import convert  # noqa: E402
import exercises  # noqa: E402
import measure  # noqa: E402
from shape import CONFIG  # noqa: E402

REPORT = json.loads((GOLDEN / "austen" / "report.json").read_text())


@pytest.fixture(scope="module")
def austen():
    return refmodel.load(GOLDEN / "models" / "austen-Q8_0.gguf")


@pytest.mark.parametrize("numerics", ["oracle", "reference"])
@pytest.mark.parametrize("kind", ["BF16", "Q8_0", "Q4_K_M"])
def test_transformers_agrees_before_and_after_quantization(kind, numerics):
    facts = json.loads((GOLDEN / "hf" / f"austen-{kind}.json").read_text())
    theirs = np.load(GOLDEN / "hf" / f"austen-{kind}.logits.npy")
    model = refmodel.load(GOLDEN / "models" / f"austen-{kind}.gguf")
    assert nmse(model.forward(facts["tokens"], numerics=numerics), theirs) <= 1e-10


def test_the_converter_has_a_way_back():
    config = CONFIG | {"linear_num_value_heads": 6}  # three to a key head, so that there and back are two permutations
    values, channels = 6 * 64, 2 * 2 * 64 + 6 * 64
    shapes = {"conv1d.weight": (channels, 1, 4), "in_proj_qkv.weight": (channels, 8), "in_proj_z.weight": (values, 8)}
    shapes |= {"out_proj.weight": (8, values)}
    for name in convert.NAMES:
        x = np.random.default_rng(1).standard_normal(shapes.get(name.removeprefix("linear_attn."), (6, 8))).astype(np.float32)
        y = convert.converted(name, x, config)
        assert np.allclose(convert.restored(name, y, config), x, rtol=0, atol=1e-6)  # 1 is added, or exp and log are taken
        changes = name.startswith("linear_attn") != name.endswith("norm.weight")
        assert np.array_equal(y.reshape(x.shape), x) != changes


def test_it_has_learned_the_text(austen):
    rows = measure.held_out(austen)[:4]
    assert measure.nll(austen, rows) <= 0.65 * REPORT["unigram_nats"]
    assert measure.nll(austen, rows, numerics="reference") == pytest.approx(
        measure.nll(austen, rows), abs=0.01
    )  # 8-bit activations


def test_it_adds(austen):
    cases = exercises.held_out_sums()[::4]
    right = sum(measure.sum_is_right(austen, a, b) for a, b in cases)
    assert right >= 0.6 * len(cases)


def test_training_never_shows_a_held_out_sum():
    lines = "\n".join(exercises.documents(400, seed=2))
    held = exercises.held_out_sums()
    assert len(set(held)) == exercises.HELD_OUT_CASES
    assert all(a + b <= exercises.LARGEST and (b, a) in held for a, b in held)
    for a, b in held:
        for shown in (f"\n{a} + {b} = ", f"What is {a} plus {b}?", f"\n{a + b} - {b} = "):
            assert shown not in lines


@pytest.mark.long
def test_the_card_and_the_pictures_speak_of_this_model(austen):
    windows = json.loads((GOLDEN / "austen" / "windows.json").read_text())
    n = austen.n_layer
    assert len(windows) == 1 + n * (n + 1) // 2
    rows = measure.held_out(austen)
    for route in ("", "blocks:3,5"):
        assert measure.nll(austen, rows, route or None) == pytest.approx(windows[route], abs=2e-3)  # another C library


def named(found):
    return {row.name for row in found.rows.values() if not row.within}


def test_a_dropped_gate_is_seen_in_the_text_and_found_in_every_feed_forward_part_alone():
    c = case(shipped("austen"), shipped("austen-trace"))
    broken = without_gate(c)
    assert broken.writes(None) != c.writes(None)
    assert named(broken.judged(lambda name: None)) == {f"ffn_swiglu-{i}" for i in range(len(c.route.layers))}
    rows = measure.held_out(c.model)[:1]
    assert measure.nll(c.model, rows, numerics=without_gate(replace(c, num=FAST)).num) > REPORT["unigram_nats"]


def test_heads_turned_too_far_are_found_at_rope_alone():
    c = case(shipped("austen"), shipped("austen-trace"))
    wrong = named(turned_too_far(c).judged(lambda name: None))
    kinds = [c.model.kinds[source] for source in c.route.layers]
    attention = [position for position, kind in enumerate(kinds) if kind == "attention"]
    assert wrong == {name for i in attention for name in (f"Qcur-{i}", f"Kcur-{i}#1")}
    assert {c.other.operations[name] for name in wrong} == {"ROPE"}
