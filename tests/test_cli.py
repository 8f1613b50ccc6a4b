"""Every command as a user runs it: --help, a success, and failures with their one line and exit status 2."""

import gc
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from safetensors.numpy import save_file

from refmodel import cli

COMMANDS = [
    "demo",
    "info",
    "run",
    "serve",
    "diff",
    "diagnose",
    "trace",
    "golden",
    "dumps",
    "route",
    "surgery",
    "verify",
    "oracle",
    "warmup",
    "version",
]


def in_a_process(*words, **environment):
    """The command line as a user starts it; a start costs more than most of what is tried here, so that `refmodel` is the rule."""
    env = {key: value for key, value in os.environ.items() if key != "REFMODEL_LLAMA_LIB"} | environment
    return subprocess.run(
        [sys.executable, "-m", "refmodel", *map(str, words)], capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL
    )


def refmodel(*words):
    """The same in this process: all of main, and what it changes of the process is put back."""
    out, err = io.StringIO(), io.StringIO()
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    thresholds = gc.get_threshold()
    with pytest.MonkeyPatch.context() as patch, Path(os.devnull).open() as nothing:
        patch.delenv("REFMODEL_LLAMA_LIB", raising=False)
        patch.setenv("COLUMNS", "120")
        for name, value in (("stdin", nothing), ("stdout", out), ("stderr", err), ("argv", ["refmodel", *map(str, words)])):
            patch.setattr(sys, name, value)
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        finally:
            gc.unfreeze()
            gc.set_threshold(*thresholds)
            for number, handler in signals.items():
                signal.signal(number, handler)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("cli") / "m.gguf", "qwen35", seed=3)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command):
    done = refmodel(command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_version():
    from refmodel import __version__

    assert in_a_process("version").stdout.strip() == refmodel("version").stdout.strip() == __version__


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["version"], ["route", "(1,2)", "--layers", "4"], ["info", "{model}"]]
)
def test_what_computes_nothing_starts_without_numba(words, model):
    program = "import sys; from refmodel.cli import main; sys.argv[1:] = {!r}\ntry: main()\nexcept SystemExit: pass\n"
    code = program.format([word.format(model=model) for word in words]) + "sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_demo_agrees_with_the_record_of_llama_cpp_and_finds_its_faults():
    done = refmodel("demo")
    assert done.returncode == 0, done.stderr
    own, routed, compared, loud, quiet = re.split(r"\n\n(?=It writes|Under|Every|A loud|A quiet)", done.stdout)[1:]
    texts = [" ".join(part.split("\n", 1)[1].partition("with every operation")[0].split()) for part in (own, routed, loud, quiet)]
    assert all(text.startswith("Emma was very glad to see") for text in texts)
    assert len(set(texts[:3])) == 3
    assert "blocks:5,7" in routed
    assert compared.rstrip().splitlines()[-1].startswith(("EQUAL", "EXPLAINED"))
    assert "ffn_swiglu-0 (SWIGLU)" in loud
    assert "Qcur-3 (ROPE)" in quiet


def test_route_prints_the_map_the_seams_and_other_notations():
    done = refmodel("route", "blocks:15,20", "--layers", 64)
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    for seam in (["19", "19"], ["20", "15"], ["24", "19"], ["25", "20"]):
        assert seam in lines
    assert "layers:0..19,15..63" in done.stdout
    assert json.loads(refmodel("route", "(15,20)", "--layers", 64, "--json").stdout)["positions"] == 69


def test_info(model):
    done = refmodel("info", model)
    assert done.returncode == 0
    for word in ("qwen35", "delta", "attention", "no inconsistencies"):
        assert word in done.stdout
    assert json.loads(refmodel("info", model, "--json").stdout)["layers"][2]["kind"] == "attention"


def test_info_says_what_is_inconsistent(tmp_path):
    path = tiny.build(tmp_path / "m.gguf", "qwen35", n_layer=4, recurrent=[True, False, True, True])
    assert "disagree at blocks [1, 2]" in " ".join(refmodel("info", path).stdout.split())


def test_run_is_reproducible(model):
    words = ("run", model, "-p", "the thing", "-n", 5, "--temperature", "1.0", "--seed", 7, "--route", "(1,3)")
    first, second = refmodel(*words), in_a_process(*words)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert "tokens/s" in first.stderr


def test_a_file_without_a_tokenizer_runs_on_token_ids():
    path = Path(__file__).parent.parent / "golden" / "models" / "qwen35-hf.gguf"
    done = refmodel("run", path, "--tokens", "1,2,3", "-n", 4)
    assert done.returncode == 0, done.stderr
    assert len([int(word) for word in done.stdout.split()]) == 4


def test_run_shows_where_the_time_went(model):
    words = ("run", model, "--tokens", "1,2,3", "-n", 2, "--threads", 1)
    plain, shown = refmodel(*words), refmodel(*words, "--timing")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(plain.stdout)
    for word in ("ffn_down F32", "gated_delta_rule", "between passes", "% of limit", "head"):
        assert word in shown.stdout
    report = json.loads(refmodel(*words, "--timing", "--json").stdout)
    assert report["text"] + "\n" == plain.stdout
    assert len(report["tokens"]) == 2
    for rows in (report["timing"]["operations"], report["timing"]["blocks"]):
        assert sum(row["seconds"] for row in rows) == pytest.approx(report["timing"]["seconds"], abs=1e-9)  # rounding of sums
    if sys.platform == "linux":
        assert report["peak_anonymous_bytes"] > 0
        assert "without the mapped weights" in " ".join(plain.stderr.split())


def test_more_threads_than_cores_are_refused(model):
    done = refmodel("run", model, "--tokens", "1", "-n", 1, "--threads", 100_000)
    assert done.returncode == 2
    assert done.stderr.startswith("refmodel: --threads 100000: ")


def test_trace_then_diff(model, tmp_path):
    out = tmp_path / "t.safetensors"
    traced = refmodel("trace", model, "--tokens", "1,2,3,4", "--decode", 1, "-o", out, "--route", "blocks:1,3")
    assert traced.returncode == 0, traced.stderr
    same = refmodel("diff", model, "--against", out, "--json")
    assert same.returncode == 0, same.stderr
    report = json.loads(same.stdout)
    assert report["verdict"] == "within"
    assert report["compared"] == len(report["rows"]) > 100
    other = tiny.build(tmp_path / "other.gguf", "qwen35", seed=4)
    refused = refmodel("diff", other, "--against", out)
    assert refused.returncode == 2
    assert "another file" in refused.stderr


GOLDEN = Path(__file__).parent.parent / "golden"
RECORD = ("diff", GOLDEN / "models" / "qwen35.gguf", "--against", GOLDEN / "traces" / "qwen35" / "route.safetensors")


def test_diff_with_llama_cpps_arithmetic_follows_the_record(tmp_path):
    for anchor in ((), ("--anchor",), ("--anchor-nodes",)):
        done = refmodel(*RECORD, "--numerics", "llamacpp", *anchor)
        assert done.returncode == 0, done.stderr
        assert "llamacpp:exact against llama.cpp 0c1e570" in done.stdout
        assert "bit for bit equal" in done.stdout
    model, out = GOLDEN / "models" / "qwen35-Q4_K_M.gguf", tmp_path / "t.safetensors"
    refmodel("trace", model, "--tokens", "1,2,3", "-o", out, "--numerics", "llamacpp:kv=f32")
    report = json.loads(refmodel("diff", model, "--against", out, "--numerics", "llamacpp", "--json").stdout)
    assert report["numerics"] == "llamacpp:kv=f32"
    assert {row["differ"] for row in report["rows"]} == {0}
    assert refmodel("diff", model, "--against", out, "--numerics", "reference").returncode == 0  # 8 bits explain it
    assert refmodel("diff", model, "--against", out, "--numerics", "reference", "--strict").returncode == 1
    assert refmodel("diff", model, "--against", out, "--strict").returncode == 0


def test_diff_explains():
    done = refmodel(*RECORD, "--explain")
    assert done.returncode == 0, done.stderr
    assert "activations %" in done.stdout
    assert done.stdout.rstrip().endswith("EXPLAINED")
    report = json.loads(refmodel(*RECORD, "--explain", "--json", "--full", GOLDEN / "models" / "qwen35.gguf").stdout)
    assert report["verdict"] == "EXPLAINED"
    assert report["budgets"][0]["parts"]["weights"]["nmse"] == 0
    assert {token["verdict"] for token in report["tokens"]} == {"EXPLAINED"}


def test_diff_exits_with_1_where_an_operation_is_wrong(model, tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file

    out = tmp_path / "t.safetensors"
    refmodel("trace", model, "--tokens", "1,2,3,4", "-o", out)
    with safe_open(out, framework="numpy") as f:
        metadata = f.metadata()
    tensors = load_file(out)
    tensors["ffn_out-2"] *= 1.001
    save_file(tensors, out, metadata)
    done = refmodel("diff", model, "--against", out)
    assert done.returncode == 1
    assert "WRONG, first at ffn_out-2" in done.stdout


def test_a_trace_never_replaces_the_model(model, tmp_path):
    for name in ("m.npz", "m.safetensors"):
        copy = tmp_path / name
        copy.write_bytes(model.read_bytes())
        done = refmodel("trace", copy, "--tokens", "1,2", "-o", copy)
        assert done.returncode == 2
        assert "is the file that is read" in done.stderr
        assert copy.read_bytes() == model.read_bytes()


def test_nothing_compared_is_no_success(model, tmp_path):
    out = tmp_path / "t.safetensors"
    refmodel("trace", model, "--tokens", "1,2,3,4", "--filter", "zzz", "-o", out)
    done = refmodel("diff", model, "--against", out)
    assert done.returncode == 2
    assert "nothing was compared" in done.stderr


PROVENANCES = {
    "[]": "no provenance",
    "5": "no provenance",
    '{"calls": [], "route": "blocks:0,0"}': "for no tokens",
    '{"calls": [[1]], "route": 5}': "not a route",
    '{"calls": [[1]], "route": "blocks:0,0", "build": {"commit": "0"}, "profile": 3}': "no provenance",
    '{"calls": [[1]], "route": "()", "build": {}, "profile": {"name": "", "flash_attn": "off", "kv": 5}}': "no provenance",
    '{"calls": [[1]], "route": "blocks:0,0", "sha256": 7}': "another file, sha256 7",
    '{"calls": [[99999]], "route": "blocks:0,0"}': "outside the vocabulary",
}


def broken(model, tmp_path):
    (tmp_path / "folder.npz").mkdir()
    for number, text in enumerate(PROVENANCES):
        save_file({"x": np.zeros(1, np.float32)}, tmp_path / f"{number}.safetensors", {"provenance": text})
    (tmp_path / "cut.gguf").write_bytes(model.read_bytes()[:-1000])
    (tmp_path / "magic.gguf").write_bytes(b"PK" + bytes(100))
    gemma = model.read_bytes().replace(b"\x06\0\0\0\0\0\0\0qwen35", b"\x06\0\0\0\0\0\0\0gemma9", 1)
    (tmp_path / "unknown.gguf").write_bytes(gemma)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["info", "{dir}/cut.gguf"], "was it downloaded whole?"),
        (["info", "{dir}/magic.gguf"], "this is not a GGUF"),
        (["info", "{dir}/nothing.gguf"], "no such file"),
        (["info", "https://host/m.gguf"], "an address is no file"),
        (["info", "some-author/some-model:Q4_K_M"], "download the model first"),
        (["info", "some-model:4b"], "a name of Ollama's"),
        (["info", "{dir}/unknown.gguf"], "known are llama, "),
        (["run", "{model}", "-p", "a", "--route", "blocks:3,99"], "block 98 is out of range"),
        (["run", "{model}", "-p", "a", "--route", "1,3"], "ambiguous"),
        (["run", "{model}", "--tokens", "1,99999"], "outside the vocabulary"),
        (["run", "{model}", "--tokens", "99999999999999999999"], "outside the vocabulary"),
        (["run", "{model}", "--tokens", "1,x"], "whole numbers"),
        (["diff", "{model}", "--tokens", "1,2", "--numerics", "exact"], "not one of fast, reference, numpy, oracle"),
        (["trace", "{model}", "--tokens", "1", "-o", "{dir}/folder.npz"], "is a folder"),
        *(
            (["diff", "{model}", "--against", f"{{dir}}/{name}.safetensors"], words)
            for name, words in enumerate(PROVENANCES.values())
        ),
        (["run", "{model}"], "give either"),
        (["run", "{model}", "-p", "a", "--numerics", "exact"], "not one of fast, reference, numpy, oracle"),
        (["route", "nonsense", "--layers", "8"], "not a route"),
        (["trace", "{model}", "--tokens", "1", "-o", "{dir}/t.txt"], ".safetensors or .npz"),
        (["diff", "{model}", "--tokens", "1,2", "--llama-lib", "{dir}"], "holds no libllama.so"),
        (["diff", "{model}", "--tokens", "1,2", "--profile", "fast"], "is no profile of llama.cpp"),
        (["diff", "{model}", "--tokens", "1,2", "--profile", "fa=off,kv=q8"], "'kv=q8' is no profile of llama.cpp"),
        (["diff", "{model}", "--tokens", "1,2", "--numerics", "llamacpp:fast=on"], "'fast=on' is no profile of llama.cpp"),
        (["diff", "{model}", "--tokens", "1,2", "--numerics", "llamacpp", "--dequantized"], "--dequantized: the quantized"),
        (["diff", "{model}", "--tokens", "1,2", "--full", "{model}"], "--full is for --explain"),
        (["diff", "{model}", "--against", "{dir}/5.safetensors", "--profile", "exact"], "are for a live llama.cpp"),
        (["diff", "{model}", "--against", "{dir}/cut.gguf"], "was it downloaded whole?"),
        (["diff", "{model}", "--tokens", "1", "--decode", "1"], "leaves no prompt"),
    ],
)
def test_bad_input_gets_one_line_and_exit_status_2(model, tmp_path, words, message):
    folder = broken(model, tmp_path)
    before = sorted(folder.iterdir())
    done = refmodel(*(word.format(dir=folder, model=model) for word in words))
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert sorted(folder.iterdir()) == before


def test_a_checkout_that_lost_its_links_says_so(tmp_path):
    import shutil

    package = Path(__file__).parent.parent / "refmodel"
    shutil.copytree(package, tmp_path / "refmodel", ignore=shutil.ignore_patterns("kernels", "golden", "__pycache__"))
    (tmp_path / "refmodel" / "kernels").write_text("../kernels")
    done = in_a_process("route", "(0,0)", "--layers", 3, PYTHONPATH=str(tmp_path), PYTHONSAFEPATH="1")
    assert done.returncode == 2
    assert "did not survive the checkout" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_the_package_imports_nothing_before_ctrl_c_is_prepared():
    """What is imported before `__main__` ends with a traceback when Ctrl-C meets it."""
    code = "import sys; had = set(sys.modules); sys.path.insert(0, sys.argv[1]); import refmodel; print(*set(sys.modules) - had)"
    root = Path(cli.__file__).parent.parent
    done = subprocess.run([sys.executable, "-S", "-c", code, str(root)], capture_output=True, text=True)
    assert done.stdout.split() == ["refmodel"], done.stderr
