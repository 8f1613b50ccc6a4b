"""surgery, verify, route --recover and diff between two files, as a user runs them; in one process, as the command starts them."""

import json
import sys

import pytest
import test_hf
import tiny

from refmodel import cli


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("cli") / "m.gguf", "qwen35", seed=3)


@pytest.fixture
def run(monkeypatch, capsys):
    """Exit status, stdout and stderr of a command, white space in one piece."""

    def one(*words):
        monkeypatch.setattr(sys, "argv", ["refmodel", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return end.value.code or 0, said.out, " ".join(said.err.split())

    return one


def test_a_copy_is_written_proved_and_its_route_found(model, run, tmp_path):
    copy = tmp_path / "tiny-rys_1-2.gguf"
    status, said, _ = run("surgery", model, "--route", "blocks:1,3", "-o", copy)
    assert status == 0
    assert "7 positions of 5 source blocks" in said
    assert f"refmodel verify {copy}" in " ".join(said.split())

    status, said, _ = run("verify", copy, "--source", model, "--tokens", "3,4,5,6")
    assert status == 0
    assert "PROVED: the copy is the source under blocks:1,3" in said.splitlines()[-1]
    seams = [line.split() for line in said.splitlines()]
    assert ["3", "1", "ok"] in seams

    assert run("verify", copy, "--source", model, "--no-forward")[1].rstrip().endswith("under blocks:1,3 (not done: forward)")

    status, said, _ = run("route", "--recover", copy, "--source", model)
    assert status == 0
    assert "the file's name says rys_1-2, with its end included blocks:1,3: right" in said
    report = json.loads(run("route", "--recover", copy, "--source", model, "--json")[1])
    assert (report["route"], report["exact"], report["lies"]) == ("blocks:1,3", True, [])


def test_what_is_wrong_is_said_with_status_1(model, run, tmp_path):
    copy = tmp_path / "c.gguf"
    assert run("surgery", model, "--route", "blocks:1,4", "-o", copy)[0] == 0
    status, said, _ = run("verify", copy, "--source", model, "--route", "blocks:1,3", "--no-forward")
    assert status == 1
    assert "! seams: position 3 should run source block 1, but block 3 is source block 3" in said
    assert "by the hashes of its tensors the copy is blocks:1,4" in said
    assert "WRONG: the copy is not the source under blocks:1,3;" in said.splitlines()[-1]
    report = json.loads(run("verify", copy, "--source", model, "--route", "blocks:1,3", "--json")[1])
    assert report["verdict"] == "wrong"
    assert {check["name"]: bool(check["findings"]) for check in report["checks"]}["bytes"]


def test_parts_and_json(model, run, tmp_path):
    words = ("surgery", model, "--route", "(1,3)", "-o", tmp_path / "c.gguf", "--split-max-size", "20K", "--json")
    done = json.loads(run(*words)[1])
    assert done["files"] > 3
    assert done["map"] == [0, 1, 2, 1, 2, 3, 4]
    assert run("verify", done["path"], "--source", model)[0] == 0


def test_folders(run, tmp_path):
    source = test_hf.build(tmp_path / "source")
    status, said, error = run("surgery", source, "--route", "blocks:1,4", "-o", tmp_path / "RYS-1-4")
    assert status == 0, error
    assert "8 positions of 5 source blocks" in said
    status, said, _ = run("verify", tmp_path / "RYS-1-4", "--source", source)
    assert status == 0
    assert "PROVED EXCEPT FORWARD: the copy is the source under blocks:1,4" in said
    described = json.loads(run("route", "blocks:1,3", "--model", source, "--json")[1])
    assert [(r["runs"], r["why"]) for r in described["runners"]] == [
        (True, "layer_types is written"),
        (False, "by full_attention_interval = 3 layer 4 would be of the other kind"),
        (True, "convert_hf_to_gguf.py lists the kinds of layers"),
    ]
    assert described["cost"]["extra_blocks"] == 2
    assert described["cost"]["weights_bytes"]["copy"] > described["cost"]["weights_bytes"]["source"]
    assert run("route", "blocks:1,4", "--model", source)[0] == 0
    status, said, _ = run("route", "--recover", tmp_path / "RYS-1-4", "--source", source)
    assert status == 0
    assert "half-open blocks:1,4: right" in said


def test_who_runs_a_route_is_shown_before_writing(model, run):
    status, said, _ = run("route", "blocks:1,3", "--model", model)
    assert status == 0
    assert "older llama.cpp" in said
    described = json.loads(run("route", "blocks:1,3", "--model", model, "--json")[1])
    assert [r["runs"] for r in described["runners"]] == [True, True, False]
    assert "llama.cpp aborts" in json.loads(run("route", "layers:0,1", "--model", model, "--json")[1])["runners"][0]["why"]


def test_two_files_of_one_route(golden, run, tmp_path):
    packed, full = (golden / "models" / f"qwen35-{name}.gguf" for name in ("Q4_K_M", "Q8_0"))
    words = ("diff", packed, "--against", full, "--route", "blocks:1,3", "--tokens", "1,2,3,4,5,6")
    status, said, _ = run(*words)
    assert status == 0
    assert "positions 3 to 4 repeat blocks 1, 2: the error grows" in said
    report = json.loads(run(*words, "--json")[1])
    assert len(report["steps"]) == 6
    assert report["amplification"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["surgery", "{model}", "--route", "blocks:1,9", "-o", "{dir}/r.gguf"], "block 8 is out of range"),
        (["surgery", "{model}", "--route", " ", "-o", "{dir}/r.gguf"], "--route is empty"),
        (["surgery", "{model}", "--route", "layers:0,1", "-o", "{dir}/r.gguf"], "llama.cpp aborts on a hybrid model"),
        (["surgery", "{model}", "--route", "blocks:1,3", "-o", "{model}"], "is the file that is read"),
        (["surgery", "{model}", "--route", "blocks:1,3", "-o", "{dir}"], "is a folder"),
        (["surgery", "{model}", "--route", "blocks:1,3", "-o", "{dir}/r.gguf", "--layout", "x"], "expected list or interval"),
        (["surgery", "{model}", "--route", "blocks:1,3", "-o", "{dir}/r.gguf", "--layout", "interval"], "no interval makes"),
        (["surgery", "{model}", "--route", "blocks:1,3", "-o", "{dir}/r.gguf", "--split-max-size", "2T"], "--split-max-size 2T"),
        (["surgery", "{dir}", "--route", "blocks:1,3", "-o", "{dir}/r"], "config.json: cannot be opened"),
        (["verify", "{dir}/no.gguf", "--source", "{model}"], "no such file"),
        (["verify", "{model}", "--source", "{dir}"], "config.json: cannot be opened"),
        (["verify", "{model}", "--source", "{model}", "--against", "mlx"], "--against mlx: expected llamacpp"),
        (["verify", "{model}", "--source", "{model}", "--against", "transformers"], "GGUF files take --against llamacpp"),
        (["verify", "{model}", "--source", "{model}", "--tokens", "a"], "expected whole numbers"),
        (["verify", "{model}", "--source", "{model}", "--tokens", "99999"], "outside the vocabulary"),
        (["route", "--recover", "{model}"], "--recover COPY needs --source MODEL"),
        (["route", "blocks:1,3"], "either --layers N or --model MODEL"),
        (["route", "blocks:1,3", "--layers", "4", "--model", "{model}"], "either --layers N or --model MODEL"),
        (["diff", "{model}", "--against", "{model}", "--tokens", "1", "--explain"], "another GGUF takes"),
        (["diff", "{model}", "--against", "{model}", "--tokens", "1", "--png", "{dir}/x.jpg"], "ending in .png"),
        (["diff", "{model}", "--tokens", "1", "--json", "--md"], "--md and --json both print"),
        (["diff", "{model}", "--tokens", "1", "--html", "{dir}/no/x.html"], "does not exist"),
    ],
)
def test_bad_input_gets_one_line_and_exit_status_2(model, run, tmp_path, words, message):
    status, _, said = run(*(word.format(dir=tmp_path, model=model) for word in words))
    assert status == 2
    assert message in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
