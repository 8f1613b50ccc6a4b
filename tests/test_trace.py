import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from near import same_bits
from safetensors.numpy import load_file

import refmodel
from refmodel.errors import TraceError
from refmodel.forward.trace import Recorder, Spool, Trace


def arrays():
    r = np.random.default_rng(0)
    return {
        "a-0": r.standard_normal((3, 5)).astype(np.float32),
        "b#1": r.standard_normal(7),
        "empty": np.zeros((0, 2), np.float32),
    }


def record(path):
    with Spool(path, {"provenance": "someone"}) as spool:
        for name, x in arrays().items():
            spool.add(name, x)
    return path


def test_a_trace_is_a_safetensors_file_in_the_order_of_execution(tmp_path):
    path = record(tmp_path / "t.safetensors")
    loaded, trace = load_file(path), Trace(path)
    assert list(trace)[:2] == ["a-0", "b#1"]
    assert trace.metadata == {"provenance": "someone"}
    for name, x in arrays().items():
        same_bits(loaded[name], x)
        same_bits(trace[name], x)


def test_a_trace_may_be_an_npz(tmp_path):
    with np.load(record(tmp_path / "t.npz")) as archive:
        assert json.loads(str(archive["__metadata__"])) == {"provenance": "someone"}
        for name, x in arrays().items():
            same_bits(archive[name], x)


def test_the_same_run_writes_the_same_bytes(tmp_path):
    for suffix in (".safetensors", ".npz"):
        one, two = (record(tmp_path / f"{name}{suffix}").read_bytes() for name in ("one", "two"))
        assert one == two


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_an_interrupted_trace_leaves_nothing(tmp_path, suffix):
    with pytest.raises(KeyboardInterrupt), Spool(tmp_path / f"t{suffix}", {}) as spool:
        spool.add("a", np.zeros(3, np.float32))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_name_arises_once(tmp_path):
    with pytest.raises(TraceError, match="a arose twice"), Spool(tmp_path / "t.npz", {}) as spool:
        spool.add("a", np.zeros(3, np.float32))
        spool.add("a", np.zeros(3, np.float32))


@pytest.mark.parametrize(("path", "words"), [("t.txt", "ending in .safetensors or .npz"), ("nowhere/t.npz", "does not exist")])
def test_bad_targets_are_named(tmp_path, path, words):
    with pytest.raises(TraceError, match=words):
        Spool(tmp_path / path, {})


@pytest.mark.parametrize("content", [b"", b"\xff" * 50, b"\x10\0\0\0\0\0\0\0{}"])
def test_a_file_that_is_no_trace_is_named(tmp_path, content):
    path = tmp_path / "t.safetensors"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=r"t\.safetensors: not a readable"):
        Trace(path)


def test_a_filter_keeps_what_matches(tmp_path):
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "qwen35", seed=1))
    with Spool(tmp_path / "t.safetensors", {}) as spool:
        recorder = Recorder(spool, r"^(l_out|new_state)-[01]$")
        session = model.session(tapper=recorder, scores=True)
        for recorder.call in range(2):
            session.forward([1, 2])
    kept = list(Trace(tmp_path / "t.safetensors"))
    assert kept == [
        "new_state-0",
        "l_out-0",
        "new_state-1",
        "l_out-1",
        "new_state-0@1",
        "l_out-0@1",
        "new_state-1@1",
        "l_out-1@1",
    ]


def test_a_broken_filter_is_named(tmp_path):
    with pytest.raises(TraceError, match="not a regular expression"), Spool(tmp_path / "t.npz", {}) as spool:
        Recorder(spool, "(")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a folder in which nobody makes a file")
def test_a_folder_that_cannot_be_written_is_named():
    with pytest.raises(TraceError, match=r"/proc/t\.npz: cannot be written: .*; name another place"):
        Spool(Path("/proc/t.npz"), {})


def test_a_trace_stays_what_it_was_when_another_takes_its_path(tmp_path):
    from safetensors.numpy import save_file

    path, x = tmp_path / "t.safetensors", np.arange(6, dtype=np.float32)
    save_file({"embd": x}, path)
    trace = Trace(path)
    save_file({"embd": -x}, tmp_path / "other.safetensors")
    (tmp_path / "other.safetensors").replace(path)
    assert np.array_equal(trace["embd"], x)
    assert np.array_equal(Trace(path)["embd"], -x)
