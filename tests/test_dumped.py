"""Dumps of healthy and of broken runtimes: what rounds is found, the first wrong block and operation named, oddities remarked."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from many_roundings import ENGINES, KINDS, run_of
from many_roundings import dump_of as with_calls
from shares import share
from test_cli import refmodel as command

import refmodel
from refmodel.compare.dumped import of_dump
from refmodel.compare.reach import unreached
from refmodel.compare.rounding import judged
from refmodel.compare.rounding_classes import eight_bits
from refmodel.compare.where import first, in_words, wrong_blocks
from refmodel.dumps.dump import Dump, Numbers
from refmodel.errors import DumpError
from refmodel.forward.taps import in_call
from refmodel.numerics import ORACLE, REFERENCE

IDS = [5, 6, 7, 8, 9, 17, 41, 3]
ARCHES = ("llama", "qwen35", "gemma3")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m")
    made = {name: refmodel.load(tiny.build(folder / f"{name}.gguf", name, seed=1)) for name in ARCHES}
    return made | {"softcap": refmodel.load(tiny.build(folder / "softcap.gguf", "gemma3", seed=1, softcap=3.0))}


def recorded(model, ids=IDS, numerics="reference"):
    taps = {}
    model.forward(ids, tapper=lambda name, x: (taps.__setitem__(name, np.array(x)), x)[1], numerics=numerics)
    return taps


def dump(arrays, calls=None):
    of = lambda x: Numbers(x.shape, "F16" if x.dtype == np.float16 else "F32", lambda: x)
    return Dump(Path("run"), "arrays", {k: of(x) for k, x in arrays.items()}, calls)


def found_in(model, arrays, ids=IDS):
    other = of_dump(model, dump(arrays), [ids], model.route())
    return judged(model, model.route(), other, lambda name: None), other


def codes(other):
    return [remark.code for remark in other.remarks]


HEALTHY = [(engine, "hidden states") for engine in ENGINES if engine not in ("8 bits", "bf16 blocks", "f16 blocks")]
HEALTHY += [("bf16 everywhere", "full"), ("f16 cache", "full")]


@pytest.mark.parametrize(("engine", "kind"), HEALTHY)
def test_a_healthy_runtime_is_healthy_whatever_it_rounds(engine, kind, models):
    """tests/many_roundings.py does it for every architecture, and for dumps of logits and of last tokens."""
    model = models["qwen35"]
    other = of_dump(model, with_calls(KINDS[kind](run_of(model, engine))), None, model.route())
    verdict = judged(model, model.route(), other, lambda name: None)
    assert verdict.word != "wrong", (verdict.first, verdict.rounds)
    for word in ("bf16", "f16"):
        assert word not in engine or word in verdict.rounds, (engine, verdict.rounds)


def test_a_head_in_floats_is_no_sign_against_8_bit_blocks(models):
    model = models["llama"]
    taps = recorded(model, numerics=eight_bits(ORACLE, whole_rows=True))
    head = model.weights["output.weight"].dense(np.float32)
    arrays = {tap: x for tap, x in taps.items() if tap.startswith("l_out-")}
    for logits, word in ((taps["result_norm"] @ head.T, "explained"), (taps["result_norm"] @ head[::-1].T, "wrong")):
        found, _ = found_in(model, arrays | {"result_norm": taps["result_norm"], "logits": logits})
        assert found.word == word, (found.first, found.rounds)


# fault -> architecture, the broken model or numerics, the first wrong block, and the first wrong tap of a full dump
def rope(model, **changes):
    return model.with_hparams(rope=replace(model.hp.rope, **changes)), REFERENCE


def numerics(**changes):
    return lambda model: (model, replace(REFERENCE, name="broken", **changes))


def grouped(q, k, v, log_decay, beta, state, new_state):
    """Value heads read the key heads of their neighbours, as another runtime's order of heads would have it."""
    shift = lambda x: np.ascontiguousarray(np.roll(x, 1, axis=1))
    return REFERENCE.gated_delta_rule(shift(q), shift(k), v, log_decay, beta, state, new_state)


FAULTS = {
    "interleaved pairs (F03)": ("qwen35", lambda m: rope(m, adjacent=True), 2, "Qcur-2"),
    "rope base (F06)": ("qwen35", lambda m: rope(m, base=500.0), 2, "Qcur-2"),
    "all dimensions rotated (F01)": ("qwen35", lambda m: rope(m, n_rot=14, factors=(1.0,) * 7), 2, "Qcur-2"),
    "output gate without sigmoid (F11)": ("qwen35", numerics(sigmoid=lambda x: x), 0, "beta_sigmoid-0"),
    "head map (F20)": ("qwen35", numerics(gated_delta_rule=grouped), 0, "new_state-0"),
    "SiLU of z is a sigmoid (F39)": ("qwen35", numerics(silu=REFERENCE.sigmoid), 0, "conv_output_silu-0"),
    "softplus missing (F28)": ("qwen35", numerics(softplus=lambda x: x), 0, "a_softplus-0"),
    "taps reversed (F42)": (
        "qwen35",
        numerics(causal_conv1d=lambda u, w: REFERENCE.causal_conv1d(u, np.ascontiguousarray(w[:, ::-1]))),
        0,
        "conv_output_raw-0",
    ),
    "norm's eps (F31)": ("llama", lambda m: (m.with_hparams(eps=1e-1), REFERENCE), 0, "norm-0"),
    "halves for adjacent pairs (F02)": ("llama", lambda m: rope(m, adjacent=False), 0, "Qcur-0#2"),
    "SwiGLU without its gate": ("llama", numerics(swiglu=lambda gate, up: up), 0, "ffn_swiglu-0"),
    "one RoPE base for all (gemma.cpp 986)": (
        "gemma3",
        lambda m: (m.with_hparams(rope_sliding=m.hp.rope), REFERENCE),
        0,
        "Qcur-0#2",
    ),
    "window off by one": ("gemma3", lambda m: (m.with_hparams(window=m.hp.window + 1), REFERENCE), 0, "kqv_out-0"),
}


@pytest.mark.parametrize("name", share(FAULTS, lambda name: {FAULTS[name][0], FAULTS[name][3].partition("-")[0]}))
def test_a_fault_is_named_by_block_from_hidden_states_and_by_operation_from_all(name, models):
    arch, broken, block, tap = FAULTS[name]
    model = models[arch]
    wrong, num = broken(model)
    run = recorded(wrong, numerics=num)
    verdict, other = found_in(model, run)
    assert verdict.word == "wrong"
    assert verdict.first.name.replace("kqv-", "kqv_out-") == tap
    assert first(verdict, model, other)["operation"]
    verdict, other = found_in(model, KINDS["hidden states"](run))
    assert verdict.word == "wrong", name
    assert (first(verdict, model, other)["block"], first(verdict, model, other)["operation"]) == (block, None)


def test_where_a_run_is_wrong_is_said_in_words(models):
    model = models["gemma3"]
    wrong = model.with_hparams(rope_sliding=model.hp.rope)
    verdict, other = found_in(model, KINDS["hidden states"](recorded(wrong)))
    assert wrong_blocks(verdict) == [0, 1, 3]
    assert in_words(verdict, model, other) == "in exactly the sliding blocks, 0, 1, 3"
    unscaled = recorded(model)
    unscaled["inp_scaled"] = unscaled["embd"]  # without the factor of √E
    verdict, other = found_in(model, {k: unscaled[k] for k in ("inp_scaled", "l_out-0", "l_out-1")})
    assert in_words(verdict, model, other) == "before block 0"


def layers(run, number=lambda i: i):
    return {f"layer_{number(int(name[6:]))}": x for name, x in run.items() if name.startswith("l_out-")}


@pytest.fixture(scope="module")
def odd_runs(models):
    """name -> (architecture, arrays, ids, code, whether the numbers are right where they are compared)."""
    llama, run = models["llama"], recorded(models["llama"])
    bos = llama.n_vocab - 3
    logits = run["result_output"].astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    same = dict.fromkeys(layers(run), run["l_out-1"])
    capped, cap = recorded(models["softcap"]), 3.0
    short = {"logits": run["result_output"][:-1], **layers(run)}
    return {
        "layers from one": ("llama", layers(run, lambda i: i + 1), IDS, "shifted-by-one", True),
        "inputs of layers": (
            "llama",
            {"layer_0": run["embd"], "layer_1": run["l_out-0"], "layer_2": run["l_out-1"]},
            IDS,
            "shifted-by-one",
            True,
        ),
        "tokens one on": ("llama", {k: np.roll(x, 1, axis=0) for k, x in layers(run).items()}, IDS, "shifted-by-one", True),
        "one layer in all files": ("llama", same, IDS, "all-equal", False),
        "another token": ("llama", {"embed": run["embd"], **layers(run)}, [*IDS[:3], 11, *IDS[4:]], "other-tokens", True),
        "another token, no embedding": ("llama", layers(run), [*IDS[:3], 11, *IDS[4:]], "other-tokens", True),
        "two other tokens": ("llama", layers(run), [IDS[0], 30, *IDS[2:5], 11, *IDS[6:]], "other-tokens", True),
        "a BOS more": ("llama", layers(recorded(llama, [bos, *IDS])), IDS, "bos", True),
        "two BOS": ("llama", layers(recorded(llama, [bos, bos, *IDS])), [bos, *IDS], "bos", True),
        "no BOS": ("llama", layers(run), [bos, *IDS], "bos", True),
        "warm-up": ("llama", layers(recorded(llama, [bos])), IDS, "warm-up", True),
        "a row less": ("llama", short, IDS, "positions", True),
        "columns": ("llama", {"logits": run["result_output"].T}, IDS, "transposed", True),
        "log-probabilities": ("llama", {"logits": logs}, IDS, "log-probabilities", True),
        "probabilities": ("llama", {"logits": np.exp(logs)}, IDS, "probabilities", True),
        "before the cap": (
            "softcap",
            {"logits": np.arctanh(capped["result_output"].astype(np.float64) / cap) * cap},
            IDS,
            "softcap",
            True,
        ),
        "zeros": ("llama", {**layers(run), "layer_1": 0 * run["l_out-1"]}, IDS, "all-zeros", False),
        "NaN": ("llama", {**layers(run), "layer_1": np.nan * run["l_out-1"]}, IDS, "not-finite", False),
        "a name that says nothing": ("llama", {**layers(run), "foo": run["l_out-1"]}, IDS, "unknown-names", True),
    }


ODD = ["layers from one", "inputs of layers", "tokens one on", "one layer in all files", "another token", "a BOS more", "two BOS"]
ODD += ["no BOS", "warm-up", "a row less", "columns", "log-probabilities", "probabilities", "before the cap", "zeros", "NaN"]
ODD += ["a name that says nothing", "another token, no embedding", "two other tokens"]


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_about_a_dump_is_remarked(name, models, odd_runs):
    arch, arrays, ids, code, right = odd_runs[name]
    verdict, other = found_in(models[arch], arrays, ids)
    assert codes(other) == [code]
    assert (verdict.word != "wrong") == right, verdict.first


@pytest.mark.parametrize("arch", ARCHES)
def test_a_healthy_dump_has_no_remark(arch, models):
    run = recorded(models[arch])
    for arrays in (run, layers(run) | {"logits": run["result_output"]}, {"logits": run["result_output"][-1]}):
        assert codes(found_in(models[arch], arrays)[1]) == []


def test_faulty_runtimes_have_no_remark_about_their_harness(models):
    for name in ("interleaved pairs (F03)", "output gate without sigmoid (F11)", "norm's eps (F31)"):
        arch, broken, _, _ = FAULTS[name]
        wrong, num = broken(models[arch])
        run = recorded(wrong, numerics=num)
        arrays = layers(run) | {"logits": run["result_output"]}
        assert codes(of_dump(models[arch], dump(arrays), [IDS], models[arch].route())) == [], name


def test_what_a_prompt_is_too_short_for(models):
    assert any("window of 4" in words and "5 tokens" in words for words in unreached(models["gemma3"], [[1, 2, 3]]))
    assert not any("window" in words for words in unreached(models["gemma3"], [[1] * 5]))
    assert unreached(models["llama"], [[1]])[0].startswith("rotation")
    assert unreached(models["llama"], [[1, 2], [3]]) == []
    assert any("65" in words for words in unreached(models["qwen35"], [[1, 2], [3]]))


def test_logits_of_the_last_token_are_compared_with_the_last_row(models):
    run = recorded(models["llama"])
    for row in (run["result_output"][-1], run["result_output"][-1:], run["result_output"][None, -1:]):
        verdict, other = found_in(models["llama"], {"logits": row})
        assert (verdict.word, codes(other)) == ("equal", [])
    verdict, _ = found_in(models["llama"], {"logits": run["result_output"][-2]})
    assert verdict.word == "wrong"


def test_the_json_of_diff(models, tmp_path):
    model, run = models["llama"], recorded(models["llama"])
    folder = tmp_path / "d"
    folder.mkdir()
    for name, x in {"l_out-0": run["l_out-0"], "layer_1": run["l_out-1"] * 1.01, "logits": run["result_output"]}.items():
        np.save(folder / f"{name}.npy", x.astype(np.float32))
    words = ("diff", model.path, "--against", folder, "--tokens", ",".join(map(str, IDS)), "--json")
    done = command(*words)
    report = json.loads(done.stdout)
    assert (done.returncode, report["verdict"]) == (1, "out")
    assert report["first"] == {"tap": "l_out-1", "block": 1, "operation": None, "where": "in block 1 of 3"}
    assert report["arithmetic"] == "float32"
    traced = tmp_path / "trace.safetensors"
    command("trace", model.path, "--tokens", ",".join(map(str, IDS)), "-o", traced)
    equal = json.loads(command("diff", model.path, "--against", traced, "--json").stdout)
    assert (equal["verdict"], equal["arithmetic"]) == ("within", "float32")
    assert report["remarks"] == []
    assert report["map"] == {"l_out-0": "l_out-0", "layer_1": "l_out-1", "logits": "result_output"}
    (folder / "logits.npy").unlink()  # which are known by their width
    for file in folder.iterdir():
        file.rename(folder / f"foo{file.name}")
    done = command(*words)
    assert done.returncode == 2
    assert json.loads(done.stdout)["remarks"][0]["code"] == "nothing-compared"
    assert "nothing was compared" in done.stderr


def wider(x, columns):
    return np.pad(x, ((0, 0), (0, columns)), constant_values=-np.inf)


# what a harness does with the rows and columns -> how, from a run of IDS and one with an EOS more; the remark; is it right?
SIZES = {
    "a token more at the end": (lambda run, more: layers(more) | {"logits": more["result_output"]}, ["positions"], True),
    "the same, the last row only": (lambda run, more: {"logits": more["result_output"][-1]}, ["other-tokens"], True),
    "the first rows only": (lambda run, more: {"logits": run["result_output"][:4]}, ["positions"], True),
    "a padded head": (lambda run, more: {"logits": wider(run["result_output"], 49)}, ["vocabulary-size"], True),
    "a head without its last rows": (lambda run, more: {"logits": run["result_output"][:, :-3]}, None, False),
    "two per cent": (lambda run, more: {"logits": run["result_output"] * 1.02}, ["scaled"], False),
    "truncated, not rounded": (lambda run, more: {"logits": truncated(run["result_output"])}, [], True),
    "half probabilities": (lambda run, more: {"probs": soft_max(run["result_output"]).astype(np.float16)}, ["probabilities"], True),
    "another head": (lambda run, more: {"logits": wider(run["result_output"][:, ::-1], 49)}, None, False),
}


def truncated(x):
    return (np.ascontiguousarray(x, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def soft_max(x):
    e = np.exp(x.astype(np.float64))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", SIZES)
def test_other_sizes_and_scales_are_compared_where_they_fit(name, models):
    model, (made, remarks, right) = models["llama"], SIZES[name]
    arrays = made(recorded(model), recorded(model, [*IDS, model.n_vocab - 1]))
    if remarks is None:
        with pytest.raises(DumpError, match="another model"):
            found_in(model, arrays)
        return
    verdict, other = found_in(model, arrays)
    assert (codes(other), verdict.word != "wrong") == (remarks, right), verdict.first


def test_arrays_without_a_call_are_of_the_call_that_they_fit(models):
    """The logits of the last step under the name of the first, and the rows of all calls in one array."""
    model, calls = models["llama"], [IDS[:6], IDS[6:7], IDS[7:]]
    run = recorded(model)
    arrays = layers(run) | {"logits": run["result_output"][-1]}
    other = of_dump(model, dump(arrays), calls, model.route())
    assert codes(other) == []
    assert set(other.taps) == {f"l_out-{i}{call}" for i in range(3) for call in ("", "@1", "@2")} | {"result_output@2"}
    assert judged(model, model.route(), other, lambda name: None).word != "wrong"
    arrays["layer_1"] = arrays["layer_1"] * np.where(np.arange(len(IDS)) == 6, 1.1, 1)[:, None]
    other = of_dump(model, dump(arrays), calls, model.route())
    assert judged(model, model.route(), other, lambda name: None).first.name == "l_out-1@1"


def test_another_token_in_the_middle_is_seen_in_the_embeddings(models):
    """A window hides it from the last tokens, whose numbers are the same."""
    model = models["gemma3"]
    run = recorded(model, [*IDS[:3], 30, *IDS[4:]])
    verdict, other = found_in(model, {"embed": run["inp_scaled"], "layer_0": run["l_out-0"]})
    assert (verdict.word, codes(other)) == ("equal", ["other-tokens"])


def test_llama_cpps_table_of_gelu_is_a_rounding(models):
    run = recorded(models["gemma3"], numerics="llamacpp")
    verdict, other = found_in(models["gemma3"], run)
    assert (verdict.word, codes(other)) == ("explained", [])
    broken = {
        name: x * (1 + 3e-2 * np.sin(np.arange(x.size)).reshape(x.shape)) if "geglu-1" in name else x for name, x in run.items()
    }
    assert found_in(models["gemma3"], broken)[0].first.name == "ffn_geglu-1"


def test_chunks_are_calls(models, tmp_path):
    model = models["qwen35"]
    out = tmp_path / "t.npz"
    done = command("trace", model.path, "--tokens", ",".join(map(str, IDS)), "--chunks", "3,4,1", "-o", out)
    assert done.returncode == 0, done.stderr
    taps, session = {}, model.session(tapper=lambda name, x: (taps.__setitem__(in_call(name, taps["call"]), np.array(x)), x)[1])
    for taps["call"], ids in enumerate((IDS[:3], IDS[3:7], IDS[7:])):
        session.forward(ids)
    with np.load(out) as archive:
        assert json.loads(json.loads(str(archive["__metadata__"]))["provenance"])["calls"] == [IDS[:3], IDS[3:7], IDS[7:]]
        assert (archive["l_out-4@2"] == taps["l_out-4@2"]).all()
    assert command("diff", model.path, "--against", out).returncode == 0, "an .npz is read"
    for words, message in (("3,4", "add up to 7"), ("3,0,5", "at least one"), ("x", "whole numbers")):
        done = command("trace", model.path, "--tokens", ",".join(map(str, IDS)), "--chunks", words, "-o", tmp_path / "u.npz")
        assert done.returncode == 2
        assert message in done.stderr
