"""Anatomy, pictures and the trial of two files."""

import json

import numpy as np
import pytest
import tiny
from typer.testing import CliRunner

import refmodel
from refmodel.cli import app
from refmodel.errors import SweepError
from refmodel.model.route import Route
from refmodel.numerics import numerics_of
from refmodel.report.sweep_page import gain_map
from refmodel.sweep.anatomy import anatomy, cosines, entropy
from refmodel.sweep.ledger import Sweep
from refmodel.sweep.results import Result, Results
from refmodel.sweep.trial import trials

PROBE = {"nll": {"digest": "d", "questions": 40, "better": "higher", "group": 1, "held_out_of": ""}}


@pytest.mark.parametrize("arch", ["llama", "qwen35", "lfm2", "gemma3"])
def test_the_last_block_sees_what_the_model_says(tmp_path, arch):
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", arch))
    tokens = [5, 9, 2, 31, 7]
    found = anatomy(model, tokens, numerics_of("numpy"))
    assert [one.kind for one in found.blocks] == model.kinds
    logits = model.forward(tokens, None, "numpy", "last")[0].astype(np.float64)
    assert found.blocks[-1].rank == 0
    assert found.blocks[-1].chance == pytest.approx(
        np.exp(logits - logits.max()).max() / np.exp(logits - logits.max()).sum(), rel=1e-5
    )
    for one in found.blocks:
        assert (one.entropy is not None) == (one.kind in ("attention", "sliding"))
        assert bool(one.decays) == (one.kind == "delta")
        assert all(0 < decay <= 1 for decay in one.decays)
    assert found.angles.shape == (model.n_layer + 1,) * 2
    assert (np.triu(found.angles, 1) >= 0).all()
    assert not np.tril(found.angles).any()


def test_measures_of_known_arrays():
    assert cosines(np.array([[1.0, 0], [1, 0], [0, 0]]), np.array([[2.0, 0], [0, 1], [1, 1]])).tolist() == [1, 0, 1]
    assert entropy(np.array([[[0.5, 0.5], [1.0, 0.0]]])) == pytest.approx(np.log(2) / 2)


def found(name: str, shifts: dict[str, float], seed: int = 0) -> Results:
    """Results of a model of 3 blocks: routes -> by how much they are better than the unrouted model, on average."""
    r, base = np.random.default_rng(seed), np.random.default_rng(99).standard_normal(40)
    rows = [Result(Route.identity(3), "", {"nll": base.tolist()})]
    for words, shift in shifts.items():
        scores = base + shift + 0.2 * r.standard_normal(40)
        rows.append(Result(Route.parse(words, 3), "", {"nll": scores.tolist()}))
    return Results(Sweep("0" * 64, name, 3, "numpy", PROBE), rows)


GOOD = {"blocks:0,1": 1.0, "blocks:1,2": 0.0, "blocks:1,3": -1.0}


@pytest.mark.parametrize(("there", "word"), [(1.0, "survives"), (-1.0, "lost"), (0.02, "not settled")])
def test_a_window_survives_or_not(there, word):
    (one,) = trials(found("a", GOOD), found("b", GOOD | {"blocks:0,1": there}, seed=1))
    assert (one.word, one.route.canonical, one.tried) == (word, "blocks:0,1", 3)
    assert there < 1 or one.place == 1


def test_without_a_better_route_there_is_nothing_to_try():
    (one,) = trials(found("a", {"blocks:0,1": -1.0}), found("b", {"blocks:0,1": 1.0}))
    assert one.word == "none"


def test_other_questions_are_not_compared():
    second = found("b", GOOD)
    other = Results(Sweep("1" * 64, "b", 3, "numpy", {"nll": PROBE["nll"] | {"digest": "e"}}), second.rows)
    with pytest.raises(SweepError, match="other questions"):
        trials(found("a", GOOD), other)
    with pytest.raises(SweepError, match="no route met all"):
        trials(found("a", {"blocks:0,1": 1.0}), found("b", {"blocks:1,2": 1.0}))


def test_the_map_has_each_window_at_its_place():
    gains = gain_map(found("a", GOOD), "nll")
    assert gains.shape == (3, 3)
    assert 0.8 < gains[0, 0] < 1.2
    assert -1.2 < gains[1, 2] < -0.8
    assert np.isnan(gains[0, 1])


def test_pictures_and_the_trial_of_two_files(tmp_path):
    text, ledgers = tmp_path / "t.txt", [tmp_path / f"{k}.db" for k in range(2)]
    text.write_text("a cat and a dog")
    models = [tiny.build(tmp_path / f"{k}.gguf", "llama", seed=k) for k in range(2)]
    for model, ledger in zip(models, ledgers, strict=True):
        words = ["sweep", str(model), "--all", "--probe", f"nll:{text}", "-o", str(ledger), "--numerics", "numpy"]
        assert CliRunner().invoke(app, words).exit_code == 0
    done = CliRunner().invoke(app, ["sweep", "trial", *map(str, ledgers), "--json"])
    assert json.loads(done.stdout)[0]["verdict"] in ("survives", "lost", "not settled", "none")
    pictures = [tmp_path / "sweep.png", tmp_path / "anatomy.png"]
    assert CliRunner().invoke(app, ["sweep", "show", str(ledgers[0]), "--png", str(pictures[0])]).exit_code == 0
    words = ["anatomy", str(models[0]), "-p", "a cat", "--numerics", "numpy", "--png", str(pictures[1]), "--json"]
    assert len(json.loads(CliRunner().invoke(app, words).stdout)["blocks"]) == 3
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
