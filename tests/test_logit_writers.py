"""Logits as llama.cpp's tools read them: against what those tools wrote themselves (golden/dumps), and through our own readers."""

import json

import numpy as np
import pytest
import tiny
from near import nmse
from test_cli import refmodel as command

import refmodel
from refmodel.commands.logits import begun, rows_of
from refmodel.dumps.kld_base import read_kld_base
from refmodel.dumps.logit_writers import write_kld_base, write_results
from refmodel.dumps.read import read
from refmodel.errors import DumpError


@pytest.fixture(scope="module")
def austen(golden):
    return refmodel.load(golden / "models" / "austen-Q4_K_M.gguf")


def test_a_base_is_what_llama_perplexity_writes(austen, golden, tmp_path):
    """From llama.cpp's own arithmetic: every scale and code; the least log-probability has a logarithm of another library in it."""
    theirs = golden / "dumps" / "kld.bin"
    chunks = read_kld_base(theirs).calls
    rows = rows_of(austen.session(numerics="llamacpp"), begun(austen, chunks), lambda name: None)
    write_kld_base(tmp_path / "k.bin", chunks, austen.n_vocab, rows)
    ours, theirs = (np.frombuffer(path.read_bytes(), np.uint8) for path in (tmp_path / "k.bin", theirs))
    assert ours.size == theirs.size
    start = 20 + 4 * 2 * 16
    assert (ours[:start] == theirs[:start]).all()
    ours, theirs = (x[start:].reshape(-1, 2 * 2048 + 8) for x in (ours, theirs))
    assert (ours[:, :4] == theirs[:, :4]).all()
    assert (ours[:, 8:] == theirs[:, 8:]).all()
    least = [np.ascontiguousarray(x[:, 4:8]).view("<f4") for x in (ours, theirs)]
    assert (np.abs(least[0] - least[1]) <= np.spacing(np.abs(least[1]))).all()


def test_results_are_what_llama_results_writes(austen, golden, tmp_path):
    theirs = golden / "dumps" / "results.gguf"
    (ids,) = read(theirs).calls
    logits = austen.forward(ids, numerics="llamacpp")
    write_results(tmp_path / "r.gguf", austen.path.name, ids, logits)
    assert (tmp_path / "r.gguf").read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("V", [7, 8])
def test_what_is_written_is_read_within_its_steps(V, tmp_path):
    r = np.random.default_rng(V)
    logits = [np.float32(r.standard_normal((3, V)) * 9) for _ in range(2)]
    logits[1][2] = 4.0  # all equal: no scale
    write_kld_base(tmp_path / "k", [[1, 2, 3, 4, 5, 6, 7], [2, 3, 4, 5, 6, 7, 1]], V, logits)
    dump = read(tmp_path / "k")
    assert dump.calls == [[1, 2, 3, 4, 5, 6, 7], [2, 3, 4, 5, 6, 7, 1]]
    for array, rows in zip(dump.arrays.values(), logits, strict=True):
        x = rows.astype(np.float64)
        x -= np.log(np.exp(x - x.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True)) + x.max(axis=1, keepdims=True)
        x = np.maximum(x, array.least[:, None])
        assert (np.abs(array.read() - x) <= array.step * 1.001 + 2e-6).all()
        assert array.rows.tolist() == [3, 4, 5]


def test_what_does_not_fit_is_refused_and_nothing_is_left(tmp_path):
    rows = [np.zeros((3, 5), np.float32)]
    for chunks, logits in (([[1] * 7, [1] * 6], rows), ([[1] * 3], rows), ([[1] * 7], [np.zeros((2, 5))]), ([], [])):
        with pytest.raises(DumpError):
            write_kld_base(tmp_path / "k", chunks, 5, logits)
    with pytest.raises(DumpError, match="2 tokens need logits of 2 rows"):
        write_results(tmp_path / "r.gguf", "m", [1, 2], rows[0])
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path):
    model = tiny.build(tmp_path / "m.gguf", "llama", seed=2)
    text = "the ring and the inn and all in an ant"
    (tmp_path / "t.txt").write_text(text)
    words = ("dumps", "write", model, "--text", tmp_path / "t.txt")
    done = command(*words, "--as", "kld-base", "--ctx", 6, "-o", tmp_path / "k.bin")
    assert done.returncode == 0, done.stderr
    done = command("diff", model, "--against", tmp_path / "k.bin", "--numerics", "reference", "--json")
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (0, "explained"), done.stderr
    done = command(*words, "--as", "results", "--named", "there/m.gguf", "-o", tmp_path / "r.gguf")
    assert done.returncode == 0, done.stderr
    dump = read(tmp_path / "r.gguf")
    ours = refmodel.load(model).forward(dump.calls[0])
    assert nmse(dump.arrays["logits"].read(), ours) == 0
    for more, message in (
        (("--as", "kld-base"), "fewer than one chunk"),
        (("--as", "results", "-o", model), "is the file that is read"),
    ):
        done = command(*words, "-o", tmp_path / "x", *more)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr
