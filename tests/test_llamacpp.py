"""The oracle: finding a llama.cpp, driving it in a child process, and what comes back when it goes wrong."""

import _ctypes
import ctypes
import io
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from near import same_bits
from tiny import SHAPES, build

from refmodel.arch import ARCHITECTURES
from refmodel.compare import probes
from refmodel.errors import OracleEndedError, OracleError
from refmodel.forward.trace import Trace
from refmodel.llamacpp import nodes as names
from refmodel.llamacpp.asking import ask, end, environment, reason
from refmodel.llamacpp.builds import BUILDS
from refmodel.llamacpp.layouts import BATCH, CONTEXTS, MODELS, fields, structure
from refmodel.llamacpp.library import Library, library, locate
from refmodel.llamacpp.oracle import record
from refmodel.llamacpp.profile import PROFILES, Profile
from refmodel.llamacpp.structures import Tensor

CALLS = [[1, 2, 3, 7, 9], [4], [6, 8]]
F32_FLASH = Profile("flash", flash_attn="on", kv="f32")
each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
each_profile = pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: build(folder / f"{name}.gguf", name, seed=11) for name in ARCHITECTURES}


def taken(model, out, lib, profile=PROFILES["exact"], calls=CALLS, **options):
    return Trace(record(model, calls, profile, out, lib, **options).path)


def nodes_of(trace):
    return json.loads(trace.metadata["nodes"])


def child(code, request, *arguments):
    """The answers of a child that is the usual one but for some lines of code."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, input=json.dumps(request), env=environment(), capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- finding one --------------------------------------------------------------------------------------------------------


def test_without_any_the_three_ways_are_named(monkeypatch, tmp_path):
    monkeypatch.delenv("REFMODEL_LLAMA_LIB", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    with pytest.raises(
        OracleError, match=r"--llama-lib .* REFMODEL_LLAMA_LIB.* --llama-python.* pip install 'refmodel\[llamacpp\]'"
    ):
        locate()


def test_a_path_that_does_not_exist_is_named_with_where_it_came_from(monkeypatch, tmp_path):
    with pytest.raises(OracleError, match=r"nowhere \(from --llama-lib\) does not exist"):
        locate(tmp_path / "nowhere")
    monkeypatch.setenv("REFMODEL_LLAMA_LIB", str(tmp_path))
    with pytest.raises(OracleError, match=r"\(from REFMODEL_LLAMA_LIB\) holds no libllama.so"):
        locate()


def test_one_library_for_each_level_of_processor_is_loaded_in_order_with_haswell_pinned(tmp_path):
    folder = tmp_path / "bins" / "linux-x64"
    folder.mkdir(parents=True)
    for name in ("libggml-base.so", "libggml.v1.so", "libllama.v1.so", "libllama-common.so", "libggml-cpu-zen4.so"):
        (folder / name).touch()
    with pytest.raises(OracleError, match=r"not libggml-cpu-haswell\.so"):
        library(tmp_path, "--llama-lib")
    (folder / "libggml-cpu-haswell.so").touch()
    found = library(tmp_path, "--llama-lib")
    assert [p.name for p in (*found.before, found.path)] == ["libggml-base.so", "libggml.v1.so", "libllama.v1.so"]
    assert found.variant == folder / "libggml-cpu-haswell.so"
    chosen = library(folder / "libggml-cpu-zen4.so", "--llama-lib")
    assert (chosen.before, chosen.path, chosen.variant) == (found.before, found.path, folder / "libggml-cpu-zen4.so")


def test_a_library_of_something_else_is_refused():
    with pytest.raises(OracleError, match=r"cannot be loaded as a llama\.cpp"):
        Library(Path(_ctypes.__file__)).describe()


def test_the_structures_have_their_sizes():
    """Source: sizeof in C, x86-64."""
    sizes = [[ctypes.sizeof(structure(name, fields(text))) for name, text in words.items()] for words in (MODELS, CONTEXTS)]
    assert sizes == [[80, 72, 72, 72, 72], [168, 160, 160, 136, 120, 120]]
    assert (ctypes.sizeof(BATCH), ctypes.sizeof(Tensor)) == (56, 336)
    with_cache, without = (structure(name, fields(CONTEXTS[name])) for name in ("b11739", "b10361"))
    assert (with_cache.abort_callback.offset, without.abort_callback.offset) == (120, 112)


def test_a_module_that_only_finds_loads_nothing_foreign():
    code = "import sys, refmodel.llamacpp.oracle; print([m for m in ('ctypes', 'numpy', 'gguf', 'llama_cpp') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert "llama_cpp" not in done.stdout
    assert "ctypes" not in done.stdout


@pytest.mark.live
def test_a_file_and_its_folder_are_the_same_library(llama_lib):
    assert locate(llama_lib) == locate(locate(llama_lib).path.parent)
    assert re.fullmatch(r"llama\.cpp \S+ \(.+, ggml [\d.]+.*\)", locate(llama_lib).describe())


# --- what comes back ----------------------------------------------------------------------------------------------------


@pytest.mark.live
@each_architecture
@each_profile
def test_every_node_is_there_or_has_a_reason(models, llama_lib, tmp_path, architecture, profile):
    trace = taken(models[architecture], tmp_path / "t.safetensors", llama_lib, profile)
    taps = [node["tap"] + (f"@{k}" if k else "") for k, call in enumerate(nodes_of(trace)) for node in call if node["tap"]]
    assert list(trace) == taps
    assert all(bool(node["tap"]) != bool(node["reason"]) for call in nodes_of(trace) for node in call)
    assert not any("judged" in node or "unknown" in node for call in nodes_of(trace) for node in call)  # the table's own graph
    assert all(np.isfinite(trace[name]).all() for name in trace)
    E = SHAPES[architecture].E
    assert [trace[f"l_out-0{suffix}"].shape for suffix in ("", "@1", "@2")] == [(5, E), (E,), (2, E)]
    provenance = json.loads(trace.metadata["provenance"])
    assert provenance["calls"] == CALLS
    assert provenance["profile"]["name"] == profile.name
    assert provenance["architecture"] == architecture


@pytest.mark.live
@each_architecture
@each_profile
def test_looking_changes_no_bit(models, llama_lib, tmp_path, architecture, profile):
    seen = taken(models[architecture], tmp_path / "seen.safetensors", llama_lib, profile)
    unseen = taken(models[architecture], tmp_path / "unseen.safetensors", llama_lib, profile, taps=False)
    assert list(unseen) == ["result_output", "result_output@1", "result_output@2"]
    for name in unseen:
        same_bits(unseen[name], seen[name])


@pytest.mark.live
@pytest.mark.parametrize("profile", [PROFILES["exact"], F32_FLASH, PROFILES["default"]], ids=lambda p: p.name)
def test_the_cache_holds_what_was_put_into_it(models, llama_lib, tmp_path, profile):
    """Whether flash attention is on, and values lie as they are, or off, and they lie transposed."""
    trace = taken(models["llama"], tmp_path / "t.safetensors", llama_lib, profile)
    for cache, source in (("cache_k-1", "Kcur-1#2"), ("cache_v-1", "Vcur-1")):
        rows = [trace[source + suffix].reshape(len(call), -1) for suffix, call in zip(("", "@1", "@2"), CALLS, strict=True)]
        put = np.concatenate(rows)
        if profile.kv == "f16":
            put = put.astype(np.float16).astype(np.float32)
        for suffix, tokens in (("", 5), ("@1", 6), ("@2", 8)):
            same_bits(trace[cache + suffix], put[:tokens])


@pytest.mark.live
def test_scores_are_cut_to_the_tokens_there_are_and_keep_the_future_zero(models, llama_lib, tmp_path):
    trace = taken(models["qwen3"], tmp_path / "t.safetensors", llama_lib)
    for suffix, past, new in (("", 0, 5), ("@2", 6, 2)):
        future = np.arange(past + new) > past + np.arange(new)[:, None]
        for name in ("kq-0", "kq_soft_max-0"):
            x = trace[name + suffix]
            assert x.shape == (6, new, past + new)
            assert np.array_equal(x == 0, np.broadcast_to(future, x.shape))
    assert trace["kq-0@1"].shape == (6, 6)


@pytest.mark.live
def test_states_go_on_from_call_to_call(models, llama_lib, tmp_path):
    trace = taken(models["qwen35"], tmp_path / "t.safetensors", llama_lib)
    assert not trace["state_predelta-0"].any()
    for before, after in (("", "@1"), ("@1", "@2")):
        same_bits(trace[f"state_predelta-0{after}"], trace[f"new_state-0{before}"])
        same_bits(trace[f"conv_states_reshaped-0{after}"], trace[f"conv_state_last-0{before}"])


@pytest.mark.live
@each_architecture
@each_profile
def test_what_is_called_the_same_numbers_is(models, llama_lib, tmp_path, architecture, profile):
    """Take the left-out nodes too, from a table that says so, and hold each against the tap that its reason names."""
    text, line = (names.FOLDER / f"{architecture}.txt").read_text(), 0
    claims = []
    for row in text.splitlines():
        line = 0 if row.startswith("[") else line + 1  # sections that begin alike go on agreeing
        claims.append(re.sub(r"! same numbers as (.+)", rf"= claim{line}: \1", row))
    (tmp_path / f"{architecture}.txt").write_text("\n".join(claims))
    out = tmp_path / "t.safetensors"
    request = locate(llama_lib).request | {
        "model": str(models[architecture]),
        "out": str(out),
        "calls": CALLS,
        "profile": vars(profile),
    }
    request |= {"provenance": {}, "taps": True, "keep": "", "last": False, "mtp": False}
    code = "import sys, pathlib; from refmodel.llamacpp import child, nodes; nodes.FOLDER = pathlib.Path(sys.argv[1])"
    code += "; child.main()"
    assert "done" in child(code, request, str(tmp_path))[-1]
    trace = Trace(out)
    claimed = [name for name in trace if name.startswith("claim")]
    assert len(claimed) > 10
    for name in claimed:
        words, _, call = name.partition(": ")[2].partition("@")
        originals = [tap + ("@" + call) * bool(call) for tap in words.removesuffix(", one behind the other").split(" and ")]
        same_bits(numbers(trace[name]), numbers(np.concatenate([trace[tap].ravel() for tap in originals])))


def numbers(x):
    """What is in it but for zeros, which fill the cells of a cache that are not used yet, in ascending order."""
    return np.sort(x[x != 0], axis=None)


@pytest.mark.live
def test_a_filter_keeps_what_it_finds_and_the_logits(models, llama_lib, tmp_path):
    trace = taken(models["llama"], tmp_path / "t.safetensors", llama_lib, keep="^l_out-[01]$", calls=[[1, 2], [3]])
    assert list(trace) == ["l_out-0", "l_out-1", "result_output", "l_out-0@1", "l_out-1@1", "result_output@1"]
    left_out = [node["name"] for node in nodes_of(trace)[0] if node["reason"] == "left out by the filter"]
    assert "l_out-2" in left_out


@pytest.mark.live
def test_a_recording_is_the_same_each_time(models, llama_lib, tmp_path):
    a, b = (taken(models["qwen35"], tmp_path / f"{name}.safetensors", llama_lib) for name in "ab")
    assert a.path.read_bytes() == b.path.read_bytes()


def test_the_environment_cannot_change_what_llama_cpp_computes(monkeypatch):
    monkeypatch.setenv("GGML_CPU_TILED_MM", "0")
    monkeypatch.setenv("LLAMA_ARG_THREADS", "7")
    assert not {"GGML_CPU_TILED_MM", "LLAMA_ARG_THREADS"} & set(environment())


@pytest.mark.live
def test_a_trained_model_is_recorded_whole(smollm2, llama_lib, tmp_path):
    trace = taken(smollm2, tmp_path / "t.safetensors", llama_lib, calls=[list(range(1000, 1070)), [2000]])
    assert [len(call) for call in nodes_of(trace)] == [1086, 1086]
    assert trace["result_output"].shape == (70, 49152)


# --- what goes wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.live
@pytest.mark.parametrize("recurrent", [[True, True], [False, False]], ids=["recurrent", "attention"])
def test_an_abort_ends_the_child_only_and_is_explained(llama_lib, tmp_path, recurrent):
    model = build(tmp_path / "one.gguf", "qwen35", n_layer=2, recurrent=recurrent)
    said = (
        r"one.gguf: llama.cpp was ended by SIGABRT: ggml-backend.cpp:\d+: GGML_ASSERT.* two kinds of blocks, and the model has one"
    )
    with pytest.raises(OracleEndedError, match=said) as caught:
        record(model, CALLS, PROFILES["exact"], tmp_path / "t.safetensors", llama_lib)
    assert caught.value.how == "was ended by SIGABRT"
    assert [path.name for path in tmp_path.iterdir()] == ["one.gguf"]


def test_a_library_that_ends_with_rearranged_weights_is_tried_without_and_the_answer_says_so(monkeypatch, tmp_path):
    """No library at hand does that on every processor: here the recording of such profiles ends as one does."""
    profiles = []

    def recording(model, calls, profile, *others):
        profiles.append(profile)
        if profile.repack:
            raise OracleEndedError("m.gguf: llama.cpp was ended by SIGILL: nothing", "was ended by SIGILL")

    monkeypatch.setattr(probes, "record", recording)
    probe = probes.recorded(None, tmp_path, "llama", lambda what: None)
    asked = [profile for profile in PROFILES.values() if profile.repack]
    assert probe.ended == "was ended by SIGILL"
    assert asked
    assert len(profiles) == len(PROFILES) + len(asked)
    assert next(profile for profile in profiles if not profile.repack) == replace(asked[0], repack=False)
    known = probes.Known("0c1e570", "AVX2", BUILDS["0c1e570"], ended=probe.ended)
    assert known.as_json()["ended"] == "was ended by SIGILL"


@pytest.mark.parametrize(
    ("status", "how"), [(3, "ended with status 3"), (-6, "was ended by SIGABRT"), (-9, "was ended by SIGKILL")]
)
def test_every_end_of_the_child_is_named(status, how):
    assert end(status) == how


def test_an_instruction_that_the_processor_lacks_is_explained():
    assert re.search(r"^was ended by SIGILL \(.*repack=off", end(-signal.SIGILL))


def test_a_library_that_refuses_a_probe_is_not_tried_again(monkeypatch, tmp_path):
    def recording(*given):
        raise OracleError("unknown model architecture")

    monkeypatch.setattr(probes, "record", recording)
    with pytest.raises(OracleError, match="unknown model architecture"):
        probes.recorded(None, tmp_path, "llama", lambda what: None)


@pytest.mark.live
def test_a_file_that_llama_cpp_does_not_load_is_reported_in_its_words(models, llama_lib, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(models["llama"].read_bytes()[:-4000])
    with pytest.raises(OracleError, match=r"broken.gguf is not loaded by llama.cpp: .*(corrupt|incomplete|bounds)"):
        record(broken, CALLS, PROFILES["exact"], tmp_path / "t.safetensors", llama_lib)


@pytest.mark.live
def test_tokens_outside_the_vocabulary_are_refused(models, llama_lib, tmp_path):
    with pytest.raises(OracleError, match=r"is not run by llama.cpp on these 2 tokens .*invalid token\[1\] = 99999"):
        record(models["llama"], [[1, 99999]], PROFILES["exact"], tmp_path / "t.safetensors", llama_lib)
    assert not list(tmp_path.iterdir())


def test_a_call_without_tokens_is_refused(tmp_path):
    with pytest.raises(OracleError, match=r"a token in every call; given are calls of \[2, 0\]"):
        record(tmp_path / "m.gguf", [[1, 2], []], PROFILES["exact"], tmp_path / "t.safetensors")


def test_silence_ends_the_child():
    with pytest.raises(OracleError, match="no sign of life for 0 s"):
        ask(Library(Path(_ctypes.__file__)).request, {}, "m.gguf", patience=0.0)


@pytest.mark.live
def test_ctrl_c_ends_the_child_too(models, llama_lib, tmp_path):
    """The child says that a block is done; then the parent is interrupted; then nobody of its session is left."""
    code = (
        "import signal, sys; from pathlib import Path\n"
        "from refmodel.llamacpp.oracle import record; from refmodel.llamacpp.profile import PROFILES\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background of a shell ignores it\n"
        "model, out, lib = map(Path, sys.argv[1:])\n"
        "record(model, [[1]] * 100_000, PROFILES['exact'], out, lib, seen=lambda message: print(message, flush=True))"
    )
    command = [sys.executable, "-c", code, str(models["qwen35"]), str(tmp_path / "t.safetensors"), str(llama_lib)]
    pipe, env = subprocess.PIPE, environment()
    with subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, start_new_session=True) as parent:
        parent.stdout.readline()
        parent.send_signal(signal.SIGINT)
        parent.communicate()
        assert parent.returncode == -signal.SIGINT
    with pytest.raises(ProcessLookupError):
        os.killpg(parent.pid, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("loading\nllama_model_load: error loading model: missing tensor 'a'\nfailed to load model\n", "missing tensor 'a'"),
        ("error: x\n/tmp/build/ggml.c:7: GGML_ASSERT(a == b) failed\nat main\n", "ggml.c:7: GGML_ASSERT(a == b) failed"),
        ("Traceback\nModuleNotFoundError: No module named 'refmodel'\n", "ModuleNotFoundError"),
        ("\n", "it said nothing"),
    ],
)
def test_the_telling_line_of_a_log_is_found(log, said):
    assert said in reason(io.BytesIO(log.encode()))
    assert "/tmp" not in reason(io.BytesIO(log.encode()))
