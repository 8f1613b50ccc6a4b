"""The benchmarks' arithmetic, table and files; nothing here depends on how fast anything is."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import gguf
import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from near import nmse, same_bits
from rich.console import Console

import refmodel
from benchmarks import bench, goals, ours, show, synthesize, turns
from benchmarks.__main__ import main
from benchmarks.results import SCHEMA, Goal, Report, Row, Spread, alone, paired
from refmodel.llamacpp.library import locate
from refmodel.ops.deltanet import gated_delta_rule
from refmodel.quants import dequantize

ROOT = Path(__file__).parent.parent
TINY = synthesize.Shape(layers=4, V=300, E=256, F=512, H=4, G=2, D=64, n_rot=16, Hk=2, Hv=4, S=64, K=3)


# ---- pairs and goals


def test_a_row_of_pairs_has_the_median_and_quartiles_of_the_ratio_of_each_pair():
    numbers = paired([2.0, 1.0, 4.0, 1.0, 1.0], [4.0, 1.0, 2.0, 3.0, 4.0], work=8.0)  # ratios 2, 1, 0.5, 3, 4
    assert numbers["ratio"] == Spread(1.0, 2.0, 3.0)
    assert numbers["ours"] == Spread(4.0, 8.0, 8.0)
    assert numbers["theirs"] == Spread(2.0, 8.0 / 3.0, 4.0)
    assert numbers["n"] == 5


def test_quartiles_lie_between_samples():
    assert Spread.of([4.0, 1.0, 2.0, 3.0]) == Spread(1.75, 2.5, 3.25)


@given(st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)), min_size=1, max_size=30), st.floats(1.5, 9.0))
def test_a_slower_pair_on_both_sides_keeps_its_ratio(seconds, factor):
    ours_, theirs = zip(*seconds, strict=True)
    once = paired(ours_, theirs)["ratio"]
    slower = paired([s * factor for s in ours_], [s * factor for s in theirs])["ratio"]
    for a, b in ((once.low, slower.low), (once.median, slower.median), (once.high, slower.high)):
        assert abs(a - b) <= 8 * np.finfo(np.float64).eps * a  # two products and a quotient
    assert once.low <= once.median <= once.high


def test_turns_without_a_partner_are_refused():
    with pytest.raises(ValueError, match="2 turns of ours, 1 of theirs"):
        paired([1.0, 1.0], [1.0])


@pytest.mark.parametrize(
    ("goal", "value", "verdict"),
    [
        (Goal(1.3, 1.6), 1.6, "aim"),
        (Goal(1.3, 1.6), 1.59, "must"),
        (Goal(1.3, 1.6), 1.29, "missed"),
        (Goal(20.0), 500.0, "must"),
        (Goal(30.0, 15.0, most=True), 15.0, "aim"),
        (Goal(30.0, 15.0, most=True), 16.0, "must"),
        (Goal(30.0, 15.0, most=True), 31.0, "missed"),
    ],
)
def test_goals_are_reached_from_their_side(goal, value, verdict):
    assert goal.reached(value) == verdict


def test_a_verdict_needs_a_goal_a_number_and_twenty_pairs():
    row = Row("g", "n", Goal(1.0, 2.0), beside="llama.cpp", **paired([1.0] * 20, [3.0] * 20))
    assert row.verdict == "aim"
    assert replace(row, n=19).verdict == "few"
    assert replace(row, goal=None).verdict == "none"
    assert Row("g", "n", Goal(1.0), missing="not here").verdict == "absent"
    assert Row("g", "n", Goal(1.0, most=True), **alone([0.5, 0.6])).verdict == "must"  # without another side runs are enough


def test_every_type_has_the_goal_of_the_issue():
    assert goals.product("matvec", "Q5_K", "fast") == Goal(1.3, 1.6)
    assert goals.product("matvec", "Q6_K", "fast") == Goal(1.15, 1.3)
    assert goals.product("prefill", "Q6_K", "fast") == Goal(1.5, 1.9)
    assert goals.product("prefill", "IQ4_XS", "fast") == Goal(0.8, 1.2)
    assert goals.product("matvec", "Q2_K", "reference") == Goal(0.6, 0.8)
    assert goals.product("prefill", "Q4_K", "llamacpp") == Goal(0.8, 1.2)
    assert {goals.kind_of(name) for name in bench.TYPES} == {"good", "Q6_K", "other"}


def test_sides_take_turns_and_the_first_round_warms_up():
    taken = []

    def side(name, seconds):
        return lambda: taken.append(name) or seconds[sum(t == name for t in taken) - 1]

    seconds = turns.alternate([side("ours", [9.0, 1.0, 2.0]), side("theirs", [9.0, 3.0, 4.0])], rounds=2)
    assert taken == ["ours", "theirs"] * 3
    assert seconds == [[1.0, 2.0], [3.0, 4.0]]


def test_two_modules_alone_name_kernels():
    named = {path.name for path in (ROOT / "benchmarks").glob("*.py") if "refmodel.kernels" in path.read_text()}
    assert named == {"limits.py", "ours.py"}


# ---- reports


@pytest.fixture
def report():
    header = {
        "date": "2026-01-02T03:04:05+00:00",
        "processor": "a processor",
        "features": ["avx2"],
        "cores": 2,
        "threads": 2,
        "target": "host",
        "versions": {"python": "3.11"},
        "bandwidth": {"before": {"read": 30.0, "fill": 20.0}},
    }
    rows = [
        Row("matvec", "Q4_K, fast", Goal(1.3, 1.6), "llama.cpp (plain)", "GB/s", **paired([1.0] * 20, [1.5] * 20, 2.0)),
        Row("start", "first token", Goal(1.0, 0.7, most=True), unit="s", **alone([0.8] * 20)),
        Row("transformers", "decode", Goal(7.0, 9.0), "transformers", missing="transformers is not installed here"),
    ]
    return Report(header, rows)


def test_a_saved_report_is_the_same_when_it_is_read(report, tmp_path):
    report.save(tmp_path / "r.json")
    again = Report.load(tmp_path / "r.json")
    assert (again.header, again.rows) == (report.header, report.rows)


def test_the_json_has_its_schema_and_says_which_goals_are_met(report, tmp_path):
    report.save(tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["schema"] == SCHEMA
    first, second, third = found["rows"]
    assert first["ratio"] == {"low": 1.5, "median": 1.5, "high": 1.5}
    assert first["goal"] == {"must": 1.3, "aim": 1.6, "most": False}
    assert [row["verdict"] for row in found["rows"]] == ["must", "must", "absent"]
    assert second["theirs"] is None
    assert third["missing"] == "transformers is not installed here"


def test_a_report_of_another_schema_is_refused(tmp_path):
    (tmp_path / "r.json").write_text('{"schema": 0}')
    with pytest.raises(SystemExit, match="has schema 0"):
        Report.load(tmp_path / "r.json")


def test_a_row_that_is_measured_again_takes_its_old_place(report):
    report.add(replace(report.rows[0], n=40))
    assert [row.n for row in report.rows] == [40, 20, 0]


def test_rows_of_another_machine_are_not_mixed_in(report):
    report.begin({**report.header, "date": "2026-02-03T04:05:06+00:00"})
    with pytest.raises(SystemExit, match="measured with another processor and threads"):
        report.begin({**report.header, "threads": 1, "processor": "another"})


def test_the_table_shows_every_row_with_its_goal_and_why_one_is_missing(report):
    console = Console(width=200, record=True, file=io.StringIO())
    show.table(report, console)
    text = console.export_text()
    for words in ("a processor", "Q4_K, fast", "2 GB/s", "1.33 GB/s", "1.5 to 1.5", "≤ 0.7", "transformers is not installed here"):
        assert words in text
    assert show.markdown(report).count("\n| ") == len(report.rows) + 1


def test_the_picture_is_drawn(report, tmp_path):
    matplotlib.use("Agg")
    show.picture(report, tmp_path / "r.png")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_a_saved_run_is_shown_by_the_command(report, tmp_path):
    report.save(tmp_path / "r.json")
    command = [sys.executable, "-m", "benchmarks", "--show", "--json", str(tmp_path / "r.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Q4_K, fast" in done.stdout


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["matvek"], "matvek: not among matvec, prefill"),
        (["matvec", "--types", "Q4_K,Q9"], "--types Q9: not among Q4_K"),
        (["model", "--files", "big"], "--files big: not among q35-4b-32"),
        (["model", "--phases", "both"], "--phases both: not among decode, prefill"),
        (["matvec", "--threads", "0"], "argument --threads: 0: expected 1 or more"),
        (["matvec", "--llama-lib", "/nowhere"], "/nowhere (from --llama-lib) does not exist"),
        (["--show"], "--show: name a saved run with --json FILE"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_wrong_word_gets_one_line(words, line, monkeypatch, capsys):
    for name in ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # the command sets them; here they are put back
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert line in capsys.readouterr().err


# ---- the synthetic file


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    return synthesize.synthesize(tmp_path_factory.mktemp("synthetic") / "tiny.gguf", TINY)


def test_a_synthetic_file_opens_and_its_logits_are_finite_and_of_order_one(tiny_file):
    model = refmodel.load(tiny_file)
    assert model.kinds == ["delta", "delta", "delta", "attention"]
    types = {weight.type.name for weight in model.weights.values()}
    assert types == {"F32", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"}
    logits = model.forward(model.tokenizer.encode("a tiny file"), numerics="oracle")
    assert np.isfinite(logits).all()
    assert 0.1 < logits.std() < 10


def test_a_head_of_its_own_is_another_matrix(tmp_path):
    model = refmodel.load(synthesize.synthesize(tmp_path / "untied.gguf", replace(TINY, tied=False)))
    assert model.output.type.name == "Q6_K"
    assert model.weights["token_embd.weight"].type.name == "Q4_K"


def test_gguf_py_reads_the_same_tensors(tiny_file):
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(tiny_file).tensors}
    ours_ = refmodel.load(tiny_file).weights
    assert set(theirs) == set(ours_)
    for name, weight in ours_.items():
        assert tuple(theirs[name].shape)[::-1] == weight.shape
        same_bits(np.ascontiguousarray(theirs[name].data).view(np.uint8).reshape(-1), np.array(weight.tensor.data))


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(tiny_file, tmp_path):
    assert synthesize.synthesize(tmp_path / "a.gguf", TINY).read_bytes() == tiny_file.read_bytes()
    assert synthesize.synthesize(tmp_path / "b.gguf", TINY, seed=1).read_bytes() != tiny_file.read_bytes()


@pytest.mark.parametrize(("name", "least", "most", "weights"), [("4b", 2.7e9, 2.9e9, 4.2e9), ("27b", 16e9, 17.5e9, 26.9e9)])
def test_a_large_file_has_the_size_and_mix_of_the_real_one(name, least, most, weights):
    listed = list(synthesize.tensors(synthesize.SHAPES[name]))
    total = sum(synthesize.nbytes(synthesize.Tensor(name, kind, shape, 0, 0)) for name, kind, shape in listed)
    assert least < total < most
    assert sum(prod(shape) for _, _, shape in listed) == pytest.approx(weights, rel=0.01)
    assert {kind.name for _, kind, _ in listed} == {"F32", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"}


def test_the_mix_of_mixing_layers_is_the_known_one():
    listed = list(synthesize.tensors(synthesize.Shape()))
    assert {name: (kind.name, shape) for name, kind, shape in listed}["blk.0.attn_qkv.weight"] == ("Q5_K", (8192, 2560))


@given(st.integers(1, 5000), st.integers(0, 6000), st.integers(0, 6000))
def test_repeated_bytes_are_those_of_the_whole(size, a, b):
    pattern = np.arange(251, dtype=np.uint8)
    whole = np.resize(pattern, size)
    same_bits(synthesize.Repeated(pattern, size)[min(a, b) : max(a, b)], whole[min(a, b) : max(a, b)])


@pytest.mark.parametrize("size", [259, 300, 70_000])
def test_every_merge_of_the_vocabulary_makes_a_token_of_its_own(size):
    tokens, merges = synthesize.vocabulary(size)
    assert len(tokens) == len(set(tokens)) == size
    assert [merge.replace(" ", "") for merge in merges] == tokens[256 : -len(synthesize.SPECIAL)]
    assert tokens[-3:] == list(synthesize.SPECIAL)


@pytest.mark.parametrize("name", bench.TYPES)
def test_random_rows_of_every_type_have_small_weights_around_zero(name):
    weights = dequantize(gguf.GGMLQuantizationType[name], synthesize.packed(gguf.GGMLQuantizationType[name], 64, 512, 3))
    assert np.isfinite(weights).all()
    assert 0.5 < weights.std() * 512**0.5 < 2
    assert abs(weights.mean()) < 0.15 * weights.std()  # the codes of Q4_0 go from -8 to 7


# ---- beside llama.cpp


@pytest.fixture(scope="module")
def backend(llama_lib):
    from benchmarks.ggml import Ggml

    return Ggml(locate(llama_lib), threads=2)


@pytest.mark.live
@pytest.mark.parametrize("name", bench.TYPES)
def test_a_graph_of_ggml_multiplies_and_decodes_these_rows(name, backend):
    from benchmarks import ggml

    kind = gguf.GGMLQuantizationType[name]
    w, x = ours.weight(kind, 64, 512), np.random.default_rng(1).standard_normal((9, 512)).astype(np.float32)
    exact = x.astype(np.float64) @ dequantize(kind, w.rows).astype(np.float64).T
    for way in {None, backend.repacking(kind, w.shape)}:
        run, out = ggml.mul_mat(backend, kind, w.rows, x, way)
        run()
        assert nmse(out, exact) < 1e-3  # tokens are rounded to 8 bits
    run, out = ggml.get_rows(backend, kind, w.rows, 512)
    run()
    same_bits(out, dequantize(kind, w.rows))


@pytest.mark.live
def test_a_graph_of_ggml_computes_the_delta_rule(backend):
    from benchmarks import ggml

    r, (T, H, S) = np.random.default_rng(2), (5, 4, 32)
    q, k, v = (r.standard_normal((T, H, S)).astype(np.float32) * np.float32(S**-0.5) for _ in range(3))
    log_decay = -np.exp(r.standard_normal((T, H))).astype(np.float32)
    beta, state = r.uniform(0, 1, (T, H)).astype(np.float32), r.standard_normal((H, S, S)).astype(np.float32)
    run, out = ggml.gated_delta_net(backend, q, k, v, log_decay, beta, state)
    run()
    before = state.astype(np.float64)
    exact = gated_delta_rule(*(a.astype(np.float64) for a in (q, k, v, log_decay, beta)), before, before)
    assert nmse(out, exact * S**-0.5) < 1e-12


@pytest.mark.live
@pytest.mark.long
def test_llama_cpp_runs_the_synthetic_file_turn_by_turn_and_its_logits_are_ours(tiny_file, llama_lib):
    from benchmarks.child import Child, environment

    library = locate(llama_lib).request
    child = Child([sys.executable, "-P", "-m", "benchmarks.llama_child"], environment(1))
    try:
        assert "AVX2" in child.ask(open=str(tiny_file), **library, threads=1, cells=256)["info"]
        session = refmodel.load(tiny_file).session(None, "llamacpp")
        for _ in range(2):  # a prefill begins anew
            prefill = child.ask(prefill=[5, 6, 7, 250, 9, 4, 3, 2, 1])
        decode = child.ask(decode=[11])
        assert child.ask(clock=True)["clock"] > 0
    finally:
        child.close()
    for answer, tokens in ((prefill, [5, 6, 7, 250, 9, 4, 3, 2, 1]), (decode, [11])):
        assert answer["seconds"] > 0
        assert nmse(session.forward(tokens, "last")[0, :8], np.array(answer["logits"])) < 1e-9


@pytest.mark.live
def test_a_child_that_dies_says_why(llama_lib):
    from benchmarks.child import Child, environment

    child = Child([sys.executable, "-P", "-m", "benchmarks.llama_child"], environment(1))
    try:
        with pytest.raises(SystemExit, match="KeyError"):
            child.ask(open="nothing")
    finally:
        child.close()
