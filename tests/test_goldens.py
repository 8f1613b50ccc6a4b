"""Goldens: what is recorded, what is refused, what an engine may differ by; one for each architecture and type of golden/."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import tiny
from near import same_bits
from report_pages import Read
from shares import share
from test_cli import refmodel as command
from test_golden import MODELS, of_name

import refmodel
from refmodel.compare.dumped import read_other
from refmodel.compare.golden import Golden, digest_of, digest_of_all, write_golden
from refmodel.compare.golden_check import checked, made
from refmodel.compare.own_side import own_side
from refmodel.compare.rounding_classes import through
from refmodel.errors import GoldenError
from refmodel.numerics import ORACLE, REFERENCE, numerics_of
from refmodel.report.golden import checked_json

IDS = [5, 6, 7, 8, 9, 17, 41, 3]
CALLS = [IDS[:5], IDS[5:7], IDS[7:]]
QUIET = lambda name: None


def run_of(model, folder, num=ORACLE, calls=CALLS, keep="^result_output$|l_out"):
    num = numerics_of(num)
    return own_side(model, model.route(), calls, num, keep, folder / f"run-{len(list(folder.iterdir()))}.safetensors", QUIET)


def golden_of(model, folder, num=ORACLE, keep="l_out", positions=None, other=None, here=True):
    said, arrays = made(model, other or run_of(model, folder, num), keep, positions, here, QUIET)
    path = folder / f"golden-{len(list(folder.iterdir()))}.safetensors"
    write_golden(path, said, arrays)
    return path


@pytest.fixture(scope="module")
def model(golden):
    return refmodel.load(golden / "models" / "qwen35-Q4_K_M.gguf")


@pytest.fixture(scope="module")
def exact(model, tmp_path_factory):
    """A golden of the float64 result, with the outputs of blocks."""
    return golden_of(model, tmp_path_factory.mktemp("g"))


@pytest.fixture(scope="module")
def promised(model, tmp_path_factory):
    """A golden of llama.cpp's arithmetic, as our emulation computes it."""
    return golden_of(model, tmp_path_factory.mktemp("g"), "llamacpp", keep="")


def test_a_golden_says_what_gives_it_its_meaning(model, exact):
    said = Golden(exact).said
    assert said["sha256"] == model.file.sha256()
    assert (said["calls"], said["route"], said["engine"]["numerics"]) == (CALLS, "blocks:0,0", "oracle")
    assert said["semantics"]["unit norm"] == "x / sqrt(sum(x^2) + eps)"
    assert said["semantics"]["value heads"].startswith("tiled")
    assert said["semantics"]["eps"] == model.hp.eps
    assert said["types"]["Q4_K"] > 0
    for engine in ("reference", "f16", "fast", "llamacpp", "bf16", "own"):
        assert 0 < said["noise"][engine]["result_output"] < 1
    assert said["noise"]["reference"]["l_out-0"] < 1e-9 < said["noise"]["fast"]["l_out-0"]


@pytest.mark.parametrize("engine", ["oracle", "reference", "numpy", "fast", "llamacpp", "llamacpp:exact"])
def test_right_engines_are_within(engine, model, exact, tmp_path):
    result = checked(Golden(exact), model, run_of(model, tmp_path, engine), True)
    assert result.within, [(row.name, row.nmse, row.allowed) for row in result.rows if not row.within]
    assert result.same_bits == (engine == "oracle")
    assert not result.lacking
    assert len(result.logits) == len(IDS)


def swapped(*arrays):
    q, k, v, *rest = arrays
    return REFERENCE.gated_delta_rule(np.ascontiguousarray(np.roll(q, 1, axis=1)), k, v, *rest)


FAULTS = {
    "SwiGLU without its gate": {"swiglu": lambda gate, up: up},
    "GELU in place of SiLU": {"swiglu": REFERENCE.geglu},
    "output gate without sigmoid": {"sigmoid": lambda x: x},
    "another head's queries": {"gated_delta_rule": swapped},
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_engine_is_out(name, model, exact, tmp_path):
    result = checked(Golden(exact), model, run_of(model, tmp_path, replace(REFERENCE, name="broken", **FAULTS[name])), True)
    assert not result.within
    assert result.would == ""


def flipped(path, target, tensor, bit, digests):
    """One bit of a tensor is another one; with `digests` as a forger would write it."""
    known = Golden(path)
    arrays = {name: np.array(x) for name, x in known.arrays.items()}
    flat = arrays[tensor].reshape(-1)
    flat[3:4].view(np.uint8)[bit // 8] ^= 1 << bit % 8
    if digests:
        write_golden(target, known.said, arrays)
        return target
    data, start = bytearray(path.read_bytes()), 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]
    at = start + known.arrays.entries[tensor]["data_offsets"][0] + 3 * flat.itemsize
    data[at + bit // 8] ^= 1 << bit % 8
    target.write_bytes(data)
    same_bits(refmodel.forward.trace.Trace(target)[tensor], arrays[tensor])
    return target


@pytest.mark.parametrize("bit", [0, 13, 31])
def test_one_flipped_bit_fails(bit, exact, promised, model, tmp_path):
    for path, tensor in ((exact, "l_out-2@1"), (promised, "result_output")):
        with pytest.raises(GoldenError, match=f"{tensor} is not what was recorded"):
            Golden(flipped(path, tmp_path / "f.safetensors", tensor, bit, False))
    forged = Golden(flipped(promised, tmp_path / "f.safetensors", "result_output", bit, True))
    result = checked(forged, model, run_of(model, tmp_path, "llamacpp"), True)
    assert result.exact
    assert not result.within, "of promised bits the comparison sees it, too"
    assert [row.differ for row in result.rows if not row.within] == [1]


def test_what_a_golden_says_cannot_be_changed_either(exact, tmp_path):
    data = exact.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])

    def written(change):
        said = json.loads(header["__metadata__"]["golden"])
        change(said)
        text = json.dumps({**header, "__metadata__": {"golden": json.dumps(said), "note": "harmless"}}).encode()
        (tmp_path / "c.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        return tmp_path / "c.safetensors"

    Golden(written(lambda said: None))  # another order of keys, another note: harmless
    with pytest.raises(GoldenError, match="was changed after it was recorded"):
        Golden(written(lambda said: said["semantics"].update(eps=1e-5)))
    with pytest.raises(GoldenError, match="version 2, known is 1"):
        Golden(written(lambda said: said.update(version=2)))


def test_the_digest_covers_dtype_and_shape():
    x = np.arange(6, dtype=np.float32)
    assert digest_of(x) == digest_of(x.copy()) != digest_of(x.reshape(2, 3))
    assert digest_of(x) != digest_of(x.view(np.uint32).astype(np.float32))
    assert digest_of_all({"a": 1, "digest": "x"}) == digest_of_all({"a": 1})


def test_a_golden_whose_semantics_do_not_fit_is_refused_with_the_reason(exact, model, tmp_path):
    known, other = Golden(exact), run_of(model, tmp_path)
    with pytest.raises(GoldenError, match=r"eps: recorded 0\.00\d+, now 0\.5;"):
        checked(known, model.with_hparams(eps=0.5), other, True)
    old = replace(other, operations={"q_conv_predelta-0": "L2_NORM"})  # as a llama.cpp of before its change computes it
    with pytest.raises(GoldenError, match=r"unit norm: recorded x / sqrt\(sum\(x\^2\) \+ eps\), now x / max"):
        checked(known, model, old, True)
    assert checked(known, model, replace(other, operations={"q_conv_predelta-0": "MUL"}), True).within


def test_a_golden_of_some_tokens(model, tmp_path):
    path = golden_of(model, tmp_path, keep="", positions=[-1, 2, 5])
    known = Golden(path)
    assert known.positions == [2, 5, 7]
    assert {name: x.shape[0] for name, x in known.arrays.items()} == {
        "result_output": 1,
        "result_output@1": 1,
        "result_output@2": 1,
    }
    result = checked(known, model, run_of(model, tmp_path, "reference"), True)
    assert result.within
    assert [row.token for row in result.logits] == [2, 0, 0]
    wrong = run_of(model, tmp_path, replace(REFERENCE, name="broken", swiglu=REFERENCE.geglu))
    assert not checked(known, model, wrong, True).within
    with pytest.raises(GoldenError, match="0 to 7"):
        golden_of(model, tmp_path, positions=[8])


def dumped(folder, model, change=lambda x: x, rows=slice(None)):
    folder.mkdir(exist_ok=True)
    np.save(folder / "logits.npy", change(model.forward(IDS))[rows])
    (folder / "tokens.json").write_text(json.dumps(IDS))
    return read_other(model, folder, None, None)


def test_dumps_are_held_against_a_golden_and_become_one(model, tmp_path):
    one = golden_of(model, tmp_path, other=run_of(model, tmp_path, calls=[IDS]), keep="")
    healthy = dumped(tmp_path / "d", model)
    assert checked(Golden(one), model, healthy, False, "reference").within
    last = dumped(tmp_path / "e", model, rows=slice(-1, None))
    result = checked(Golden(one), model, last, False, "reference")
    assert result.within
    assert [row.token for row in result.logits] == [7]
    kept = Golden(golden_of(model, tmp_path, other=last, keep="", here=False))
    assert (kept.positions, kept.said["engine"]["rounds"]) == ([7], "reference")
    assert checked(kept, model, run_of(model, tmp_path, calls=[IDS]), True).within
    coarse = dumped(tmp_path / "f", model, lambda x: through(x, 8))
    found = checked(Golden(one), model, coarse, False, "reference")
    assert (found.within, found.would) == (False, "f16")
    assert checked(Golden(one), model, coarse, False, "bf16").within
    odd = checked(Golden(one), model, dumped(tmp_path / "g", model, lambda x: np.roll(x, 1, axis=0)), False, "reference")
    assert [remark.code for remark in odd.remarks] == ["shifted-by-one"]
    assert checked_json(odd, False)["remarks"][0]["code"] == "shifted-by-one"
    assert healthy.remarks == []
    with pytest.raises(GoldenError, match=r"are not what .* computes, whatever it rounds"):
        golden_of(model, tmp_path, other=dumped(tmp_path / "h", model, lambda x: x[:, ::-1]), keep="", here=False)


SOURCES = [name for name in MODELS if (name.partition("-")[2] or "F32") in ("F32", "BF16", "Q8_0", "Q4_K_M", "Q5_K_M", "Q6_K")]


@pytest.mark.parametrize("name", share(SOURCES, of_name))
def test_a_golden_of_each_architecture_and_type_is_computed_by_our_emulation(name, golden, tmp_path):
    """Recorded of llama.cpp's own logits in golden/traces. With its C library no bit differs, see tests/test_golden.py."""
    model = refmodel.load(golden / "models" / f"{name}.gguf")
    other = read_other(model, golden / "traces" / name / "logits.safetensors", None, None)
    path = golden_of(model, tmp_path, other=other, keep="", here=False, positions=[-1, 10])
    known = Golden(path)
    assert known.said["engine"]["kind"] == "llama.cpp"
    ours = own_side(model, model.route(), known.calls, other.arithmetic, "^result_output$", tmp_path / "o.safetensors", QUIET)
    result = checked(known, model, ours, True)
    assert (result.within, result.exact) == (True, False)
    assert max(row.nmse for row in result.rows) <= 1e-7
    with pytest.raises(GoldenError, match="is not what was recorded"):
        Golden(flipped(path, tmp_path / "f.safetensors", "result_output@2", 0, False))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("m") / "m.gguf", "llama", seed=2)


def test_the_commands(small, tmp_path):
    path, ids = tmp_path / "g.safetensors", ",".join(map(str, IDS))
    done = command("golden", "record", small, "--tokens", ids, "--decode", 1, "--filter", "l_out", "-o", path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["shapes"] == {
        **{f"l_out-{i}": [7, 22] for i in range(3)},
        "result_output": [7, 271],
        **{f"l_out-{i}@1": [1, 22] for i in range(3)},
        "result_output@1": [1, 271],
    }
    assert "numerics oracle" in command("golden", "show", path).stdout
    done = command("golden", "check", path, "--model", small)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "SAME BITS")
    html = tmp_path / "g.html"
    done = command("golden", "check", path, "--model", small, "--numerics", "reference", "--json", "--html", html)
    report, read = json.loads(done.stdout), Read(html.read_text())
    assert not read.unclosed
    assert not read.twice
    assert [text for _, text in read.all("p", cls="verdict good")] == ["WITHIN the recorded noise"]
    assert {row["name"] for row in report["rows"]} <= {text for _, text in read.all("th", scope="row")}
    assert (done.returncode, report["verdict"], report["same_bits"], len(report["rows"])) == (0, "within", False, 8)
    done = command("golden", "check", path, "--model", small, "--numerics", "reference", "--strict", "--md")
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, "**WITHIN the recorded noise**")


def test_an_update_shows_what_changes_and_asks(small, tmp_path):
    path, ids = tmp_path / "g.safetensors", ",".join(map(str, IDS))
    command("golden", "record", small, "--tokens", ids, "--positions", "last", "-o", path)
    before = path.read_bytes()
    words = ("golden", "check", path, "--model", small, "--numerics", "reference", "--update")
    done = command(*words)
    assert (done.returncode, path.read_bytes()) == (2, before)
    assert "numerics: recorded oracle, now reference" in done.stdout
    assert "add --yes" in done.stderr
    done = command(*words, "--yes", "--json")
    assert (done.returncode, json.loads(done.stdout)["written"]) == (0, True)
    assert (Golden(path).said["engine"]["numerics"], Golden(path).positions) == ("reference", [7])
    done = command(*words)
    assert (done.returncode, done.stdout) == (0, "nothing would change\n")


def test_what_is_wrong_with_the_words_is_one_line(small, tmp_path, golden):
    path, ids = tmp_path / "g.safetensors", ",".join(map(str, IDS))
    assert command("golden", "record", small, "--tokens", ids, "-o", path).returncode == 0
    trace = golden / "traces" / "llama" / "logits.safetensors"
    (tmp_path / "broken.safetensors").write_bytes(path.read_bytes()[:-9])
    record, check = ("golden", "record", small, "--tokens", ids, "-o"), ("golden", "check")
    for words, message in (
        ((*record, tmp_path / "g.npz"), "expected a name ending in .safetensors"),
        ((*record, tmp_path / "no" / "g.safetensors"), "does not exist"),
        ((*record, path, "--positions", "8"), "0 to 7"),
        ((*record, path, "--positions", "x"), "whole numbers"),
        ((*record, path, "--filter", "("), "not a regular expression"),
        ((*record, path, "--profile", "exact"), "are for --against llamacpp"),
        ((*record, path, "--against", "llamacpp", "--numerics", "fast"), "is for --against refmodel"),
        ((*record, path, "--map", "m.toml"), "is for --against a dump"),
        (("golden", "record", small, "--tokens", "5,999", "-o", path), "outside the vocabulary"),
        ((*check, tmp_path / "none.safetensors", "--model", small), "no such file"),
        ((*check, trace, "--model", small), "is no golden"),
        ((*check, tmp_path / "broken.safetensors", "--model", small), "not a readable golden"),
        ((*check, path, "--model", golden / "models" / "llama.gguf"), "was recorded of another file"),
        ((*check, path, "--model", small, "--rounds", "f8"), "expected one of"),
        ((*check, path, "--model", small, "--against", golden / "dumps" / "kld.bin"), "dump"),
        ((*check, path, "--model", small, "--update", "--md"), "leave out --html"),
        (("golden", "show", small), "not a readable golden"),
    ):
        done = command(*words)
        assert (done.returncode, done.stdout) == (2, ""), (words, done.stderr)
        assert done.stderr.count("\n") == 1
        assert message in done.stderr, (message, done.stderr)
