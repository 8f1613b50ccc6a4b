"""`refmodel diagnose`: faults are named from what an engine wrote, healthy runs are not accused, unknown faults are located."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tiny
from diagnosing import dumped, written
from report_pages import Read
from small_faults import FAULTS as SMALL
from small_faults import Engine as Sick
from typer.testing import CliRunner

import refmodel
from refmodel.cli import app
from refmodel.compare.verdict import in_float32
from refmodel.faults.diagnosis.diagnosis import diagnose
from refmodel.faults.diagnosis.relation import relate
from refmodel.faults.diagnosis.running import distance
from refmodel.faults.fault import Engine, with_all
from refmodel.faults.library import FAULTS
from refmodel.llamacpp.builds import JUDGE
from refmodel.llamacpp.profile import DEFAULT
from refmodel.model.route import Route
from refmodel.numerics import FAST, LLAMACPP, NUMPY, REFERENCE, ladder

OVERFLOWS = np.random.default_rng([17, 7]).integers(0, 271, 12).tolist()
CALLS = [[5, 6, 7, 8, 9, 17, 41, 3, 11, 12]]
LIBRARY = [FAULTS[name] for name in ("rope-all-dims", "rope-pairing", "q-gate-halves", "delta-heads-grouped", "norm-one-missing")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("diagnose") / "m.gguf", "qwen35"))


def found(model, names, evidence, noise=0.0, numerics=NUMPY, library=LIBRARY):
    engine = with_all([FAULTS[name] for name in names], Engine(model, numerics))
    other = dumped(model, written(engine, CALLS, evidence, noise, np.random.default_rng(1)), CALLS)
    return diagnose(model, other, library, lambda name: None)


@pytest.mark.parametrize(
    ("name", "evidence", "noise"),
    [
        ("q-gate-halves", "full", 0.0),
        ("delta-heads-grouped", "hidden", 0.0),
        ("rope-all-dims", "logits", 0.0),
        ("rope-pairing", "last", 1e-6),
        ("norm-one-missing", "last", 1e-3),
        ("rope-pairing", "top", 0.0),
        ("delta-heads-grouped", "greedy", 0.0),
    ],
)
def test_a_fault_is_named(model, name, evidence, noise):
    answer = found(model, [name], evidence, noise).answers[0]
    assert name in {fault.name for faults in (answer.faults, *answer.same_as) for fault in faults}
    assert len(answer.same_as) < 2
    assert answer.after < answer.before


def test_a_table_of_gelu_is_rounding(tmp_path):
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "gemma3", n_layer=2, interval=2))
    numerics = replace(NUMPY, geglu=partial(in_float32, ladder(DEFAULT, JUDGE)["order"].geglu))
    assert found(model, [], "full", numerics=numerics).verdict == "healthy"
    cached = replace(numerics, store=lambda x: x.astype(np.float16).astype(x.dtype))
    for evidence, num in (("full", numerics), ("hidden", cached)):
        for name in ("eps-ten-times", "ffn-gate-and-up-exchanged"):
            library = [FAULTS[name], FAULTS["ffn-silu"]]
            got = found(model, [name], evidence, numerics=num, library=library)
            assert [fault.name for fault in got.answers[0].faults] == [name]
        assert found(model, [], evidence, numerics=num, library=library).verdict == "healthy"


@pytest.mark.parametrize(("evidence", "noise"), [("full", 0.0), ("hidden", 0.0), ("last", 1e-3), ("greedy", 0.0)])
def test_a_healthy_run_gets_no_diagnosis(model, evidence, noise):
    assert found(model, [], evidence, noise, NUMPY if evidence == "greedy" else FAST).verdict == "healthy"


@pytest.mark.parametrize("evidence", ["last", "top", "hidden"])
def test_faults_that_feed_another_number_of_tokens_are_tried_too(model, evidence):
    """Nothing of such a run has the size of what was recorded: it explains nothing, alone or in a pair."""
    library = [FAULTS["last-token-lost"], *LIBRARY]
    names = ["q-gate-halves", "delta-heads-grouped"]
    got = found(model, names, evidence, library=library)
    assert got.verdict in ("fault", "unknown")
    assert "last-token-lost" not in {fault.name for answer in got.answers[:1] for fault in answer.faults}


@pytest.mark.parametrize(("name", "evidence"), [("last-token-lost", "last"), ("last-token-lost", "top"), ("bos-twice", "full")])
def test_other_tokens_than_were_asked_for_are_named(model, name, evidence):
    """The last tokens of both are compared, in every block."""
    got = found(model, [name], evidence, library=[FAULTS["last-token-lost"], FAULTS["bos-twice"], *LIBRARY])
    assert [fault.name for fault in got.answers[0].faults] == [name]


def test_noise_on_the_logits_of_llamacpps_arithmetic_is_noise(golden):
    model = refmodel.load(golden / "models" / "qwen35-Q4_K_M.gguf")
    library = [FAULTS["conv-kept-one-early"], FAULTS["quantized-twice"], *LIBRARY]  # the first changes nothing in one call
    assert found(model, [], "last", 1e-6, LLAMACPP, library).verdict == "healthy"
    got = found(model, ["quantized-twice"], "last", 1e-6, LLAMACPP, library)
    assert [fault.name for fault in got.answers[0].faults] == ["quantized-twice"]


def test_another_head_is_not_taken_for_noise(model):
    library = [FAULTS["head-tied-wrongly"], *LIBRARY]
    got = found(model, ["head-tied-wrongly"], "last", 1e-6, library=library)
    assert [fault.name for fault in got.answers[0].faults] == ["head-tied-wrongly"]


def test_what_a_fault_leaves_is_no_rounding_where_other_blocks_have_none(golden):
    """One norm of one block is wrong; a fault of all blocks leaves less there, but more than the other blocks show."""
    model = refmodel.load(golden / "models" / "qwen35-Q4_K_M.gguf")
    sick = SMALL["a norm without its + 1"](Sick(model, NUMPY))
    other = dumped(model, written(Engine(sick.model, NUMPY), CALLS, "hidden", 0.0, np.random.default_rng(1)), CALLS)
    assert diagnose(model, other, [FAULTS["gated-norm-missing"]], lambda name: None).verdict == "unknown"


def test_what_is_kept_with_fewer_bits_than_the_rest_may_be_the_fault(tmp_path):
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "qwen3", n_layer=2))
    got = found(model, ["cache-bfloat"], "full", library=[FAULTS["cache-bfloat"], FAULTS["gqa-tiled"]])
    assert [fault.name for fault in got.answers[0].faults] == ["cache-bfloat"]


def test_a_fault_that_leaves_more_than_noise_is_one_of_a_pair(golden):
    model = refmodel.load(golden / "models" / "mistral3.gguf")
    names = ["massive-channel-short", "rope-k-unrotated"]
    got = found(model, names, "last", 1e-6, library=[*(FAULTS[name] for name in names), *LIBRARY])
    assert {fault.name for fault in got.answers[0].faults} == set(names)


def test_no_other_tokens_are_found_where_arrays_would_be_left_out(tmp_path):
    model, calls = (
        refmodel.load(tiny.build(tmp_path / "m.gguf", "llama", seed=11)),
        [[5, 6, 7, 8, 9, 17, 41, 3, 88, 61, 23], [30], [12]],
    )
    wrong = with_all([FAULTS["ffn-gate-and-up-exchanged"]], Engine(model, NUMPY))
    numbers = written(wrong, calls, "full", 0.0, np.random.default_rng(1))
    assert dumped(model, numbers, calls).remarks == []


def test_a_head_with_few_rows_more_than_columns_still_tells_noise(golden):
    model = refmodel.load(golden / "models" / "gemma3-Q8_0.gguf")
    assert model.output.shape == (271, 256)
    for seed in range(3):
        other = dumped(model, written(Engine(model, NUMPY), CALLS, "last", 1e-3, np.random.default_rng(seed)), CALLS)
        assert diagnose(model, other, LIBRARY, lambda name: None).verdict == "healthy"


def test_logits_that_are_no_numbers_are_one_faults_doing_not_two(golden):
    """Their distance is no number either, and does not mix up the order of the hypotheses."""
    model = refmodel.load(golden / "models" / "qwen3next-Q8_0.gguf")
    assert not np.isfinite(FAULTS["ssm-a-sign"].on(Engine(model, NUMPY)).forward(OVERFLOWS, logits="last")).any()
    other = dumped(
        model,
        written(FAULTS["ssm-a-sign"].on(Engine(model, NUMPY)), [OVERFLOWS], "last", 0.0, np.random.default_rng(1)),
        [OVERFLOWS],
    )
    got = diagnose(model, other, [*LIBRARY, FAULTS["ssm-a-sign"]], lambda name: None)
    assert [fault.name for fault in got.answers[0].faults] == ["ssm-a-sign"]


def test_two_faults_are_named_from_the_last_logits(model):
    names = ["q-gate-halves", "delta-heads-grouped"]
    assert {fault.name for fault in found(model, names, "last", 1e-6).answers[0].faults} == set(names)


def test_a_fault_that_the_library_does_not_have(model):
    got = found(model, ["rope-pairing"], "full", library=LIBRARY[2:])
    assert got.verdict == "unknown"
    assert not got.answers
    assert (got.located.tap, got.located.operation, got.located.block) == ("Qcur-2", "ROPE", 2)
    sick = SMALL["z by sigmoid, not SiLU"](Sick(model, NUMPY))
    other = dumped(model, written(Engine(sick.model, sick.numerics), CALLS, "full", 0.0, np.random.default_rng(1)), CALLS)
    got = diagnose(model, other, LIBRARY, lambda name: None)
    assert str(got.located.relation) == "activation: theirs is the sigmoid of z-0"


def test_a_relation_of_what_attention_mixes_speaks_of_tokens(model):
    """The last token does not see the first one. Attention's output has its heads along the first axis."""
    sick = SMALL["oldest token not seen"](Sick(model, NUMPY))
    other = dumped(model, written(Engine(sick.model, sick.numerics), CALLS, "full", 0.0, np.random.default_rng(1)), CALLS)
    got = diagnose(model, other, LIBRARY, lambda name: None)
    assert (got.located.tap, str(got.located.relation)) == ("kqv-2", "part: theirs differs in token 9 only, of 10")


def test_greedy_tokens_show_faults_of_later_calls_and_no_head_without_weights(model):
    """A head of zeros makes all logits alike, and then no token is the likeliest; in one call no state is lost between calls."""
    library = [FAULTS[name] for name in ("head-not-loaded", "state-not-carried", "position-of-call", "conv-kept-one-early")]
    for name in ("state-not-carried", "conv-kept-one-early"):
        got = found(model, [name], "greedy", library=library)
        assert [name] in [[fault.name for fault in faults] for faults in (got.answers[0].faults, *got.answers[0].same_as)]
    got = found(model, ["delta-heads-grouped"], "greedy", library=[*library, *LIBRARY])
    assert "head-not-loaded" not in {fault.name for faults in (got.answers[0].faults, *got.answers[0].same_as) for fault in faults}


def relation(model, made, earlier=None):
    x = np.random.default_rng(0).standard_normal((7, 84)).astype(np.float32)
    got = relate(x, made(x), earlier or {"before": x + 1}, model.hp, 1e-12)
    return got and got.kind


def test_relations_are_named(model):
    heads = lambda x: x.reshape(7, 6, 14)
    assert relation(model, lambda x: 3 * x) == "factor"
    assert relation(model, lambda x: x - 2) == "offset"
    assert relation(model, lambda x: np.roll(x, 1, axis=0)) == "token shift"
    assert relation(model, lambda x: heads(x)[:, [1, 0, 2, 3, 5, 4]].reshape(7, 84)) == "permutation of heads"
    assert relation(model, lambda x: heads(x).swapaxes(1, 2).reshape(7, 84)) == "transposition"
    assert relation(model, lambda x: x + np.arange(84)) == "channel offset"
    assert relation(model, lambda x: np.where(np.arange(84) < 14, x**3, x)) == "part"
    assert relation(model, lambda x: (x + 1) ** 3, {"before": np.zeros((7, 84))}) is None
    assert relation(model, lambda x: x + 1e-5 * x**3) is None  # small, but no rotation for that


def test_another_activation_is_not_the_one_that_is_like_it(model):
    """A GELU leaves little of a quick GELU in the outputs of blocks; in a trace the other taps say that it is no rounding."""
    sick = SMALL["SiLU by sigmoid(1.702 x)"](Sick(model, NUMPY))
    other = dumped(model, written(Engine(sick.model, sick.numerics), CALLS, "full", 0.0, np.random.default_rng(1)), CALLS)
    got = diagnose(model, other, [FAULTS["ffn-gelu"], *LIBRARY], lambda name: None)
    assert got.verdict == "unknown"
    assert str(got.located.relation).startswith("activation: theirs is the GELU (quick")
    got = diagnose(model, other, [FAULTS["ffn-gelu"], FAULTS["ffn-gelu-quick"], *LIBRARY], lambda name: None)
    assert [fault.name for fault in got.answers[0].faults] == ["ffn-gelu-quick"]


def test_a_part_of_a_run_is_the_whole_run(model):
    """Blocks that are not touched are not run, and that changes nothing."""
    from refmodel.faults.diagnosis.running import everything, reach, run

    other = dumped(model, written(Engine(model, NUMPY), CALLS, "logits", 0.0, np.random.default_rng(1)), CALLS)
    route, plain = model.route(), Engine(model, REFERENCE)
    healthy = run(plain, route, other, everything(route))
    fault = FAULTS["rope-pairing"]
    what = reach(fault, plain, route, other)
    assert what.positions == (2, 3, 4)
    part = run(fault.on(plain), route, other, what, healthy)
    assert distance(part.ours["result_output"], fault.on(plain).forward(CALLS[0])) == 0


def test_the_command(model, tmp_path):
    engine = FAULTS["q-gate-halves"].on(Engine(model, NUMPY))
    theirs, ours = tmp_path / "theirs.npz", tmp_path / "ours.npz"
    for path, one in ((theirs, engine), (ours, Engine(model, NUMPY))):
        arrays = written(one, CALLS, "hidden", 0.0, np.random.default_rng(1))
        np.savez(path, **{name: x.read() for name, x in arrays.items()})
    words = ["diagnose", str(model.path), "--tokens", ",".join(map(str, CALLS[0])), "--json", "--against"]
    report = tmp_path / "report.html"
    done = CliRunner().invoke(app, [*words, str(theirs), "--html", str(report)])
    said = json.loads(done.stdout)
    read = Read(report.read_text())
    assert not read.unclosed
    assert not read.twice
    assert [text for _, text in read.all("p", cls="verdict bad")] == ["FAULT: F10 q-gate-halves"]
    assert set(said["hypotheses"][0]["fix"]) < {text for _, text in read.all("td")}
    (depth,) = [json.loads(text) for _, text in read.all("script", type="application/json")]
    before, after, allowed = (series["values"] for series in depth["series"])
    assert (np.argmax(before), len(before)) == (said["block"], 5)
    assert after[2] < allowed[2] < before[2]
    assert (done.exit_code, said["verdict"], said["hypotheses"][0]["ids"]) == (1, "fault", ["F10"])
    assert said["hypotheses"][0]["residual"] < 1e-9 < said["hypotheses"][0]["residual_before"]
    assert (said["block"], said["operation"]) == (2, None)
    done = CliRunner().invoke(app, [*words, str(ours)])
    assert (done.exit_code, json.loads(done.stdout)["verdict"]) == (0, "healthy")
    assert "is a model" in str(CliRunner().invoke(app, [*words, str(model.path)]).exception)
    missing = CliRunner().invoke(app, [*words, str(tmp_path / "no.npz")])
    assert missing.exception


def test_a_dump_with_nothing_to_compare_is_not_called_healthy(model, tmp_path):
    np.savez(tmp_path / "d.npz", something=np.zeros(3))
    words = ["diagnose", str(model.path), "--tokens", "1,2,3", "--against", str(tmp_path / "d.npz")]
    for more in ([], ["--json"]):
        done = CliRunner().invoke(app, [*words, *more])
        assert "nothing was compared" in str(done.exception)
        assert ("nothing-compared" in done.stdout) == bool(more)


@pytest.mark.parametrize(
    ("layers", "evidence", "words"),
    [
        ([0, 1, 3, 2, 4], "hidden", "block 3 of the file runs at position 2, where block 2 belongs"),
        ([0, 1, 3, 4], "last", "block 2 is left out"),
        ([0, 1, 2, 2, 3, 4], "last", "block 2 runs twice"),
        ([1, 0, 2, 3, 4], "logits", "blocks 0 and 1 are exchanged"),
    ],
)
def test_blocks_in_another_order_are_told_by_their_numbers(model, layers, evidence, words):
    engine = Engine(model, NUMPY, follow=lambda route: Route(tuple(layers), route.n_layer))
    found = diagnose(model, dumped(model, written(engine, CALLS, evidence, 0.0, None), CALLS), LIBRARY, lambda name: None, CALLS)
    assert (found.verdict, str(found.located.relation)) == ("unknown", f"another route: {words}")


def test_a_run_that_lost_a_token_is_no_healthy_one(model):
    engine = FAULTS["last-token-lost"].on(Engine(model, NUMPY))
    for one, verdict in ((engine, "harness"), (Engine(model, NUMPY), "healthy")):
        other = dumped(model, written(one, CALLS, "hidden", 0.0, None), CALLS)
        assert diagnose(model, other, LIBRARY, lambda name: None, CALLS).verdict == verdict
        assert ("positions" in [remark.code for remark in other.remarks]) == (verdict == "harness")
