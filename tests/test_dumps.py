"""Readers of dumps: each format in its documented layout, and as the real tool writes it; what is damaged is one line."""

import json
import re
import struct
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny
from near import same_bits
from safetensors.numpy import save_file

import refmodel
from refmodel.compare.dumped import of_dump, read_other
from refmodel.compare.rounding import judged
from refmodel.dumps.dump import BITS
from refmodel.dumps.map_file import read_map
from refmodel.dumps.names import taken_apart
from refmodel.dumps.read import read
from refmodel.errors import DumpError, TokenError, TraceError

IDS = [5, 6, 7, 8, 9, 17]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("m") / "m.gguf", "llama", seed=2))


@pytest.fixture(scope="module")
def run(model):
    taps = {}
    model.forward(IDS, tapper=lambda name, x: (taps.__setitem__(name, np.array(x)), x)[1], scores=True)
    return taps


@pytest.fixture(scope="module")
def states(run):
    return {name: x for name, x in run.items() if name.startswith("l_out-")} | {"logits": run["result_output"]}


def bits16(x):
    """bfloat16, as the upper half of a float32."""
    return (np.ascontiguousarray(x, np.float32).view(np.uint32) + 0x8000 >> 16).astype("<u2")


def verdict(model, path, calls=None, rules=()):
    other = of_dump(model, read(path), calls, model.route(), rules)
    return judged(model, model.route(), other, lambda name: None), other


def as_npy(folder, states):
    for name, x in states.items():
        np.save(folder / f"{name}.npy", x)
    np.save(folder / "tokens.npy", np.array(IDS))
    return folder


def as_fortran(folder, states):
    for name, x in states.items():
        np.save(folder / f"{name}.npy", np.asfortranarray(x.astype(">f4")))
    (folder / "tokens.txt").write_text(" ".join(map(str, IDS)))
    return folder


def as_npz(folder, states):
    np.savez(folder / "d.npz", **states)
    return folder / "d.npz"


def as_safetensors(folder, states):
    save_file({name: np.ascontiguousarray(x) for name, x in states.items()}, folder / "d.safetensors")
    return folder / "d.safetensors"


def as_bf16(folder, states):
    """A safetensors file with a type that NumPy does not have."""
    header, at, body = {}, 0, b""
    for name, x in states.items():
        header[name] = {"dtype": "BF16", "shape": list(x.shape), "data_offsets": [at, at := at + 2 * x.size]}
        body += bits16(x).tobytes()
    text = json.dumps(header).encode()
    (folder / "d.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
    return folder / "d.safetensors"


def as_f16(folder, states):
    np.savez(folder / "d.npz", **{name: x.astype(np.float16) for name, x in states.items()})
    return folder / "d.npz"


def as_raw(folder, states):
    entries = []
    for number, (name, x) in enumerate(states.items()):
        bits16(x).tofile(folder / f"{number}.raw")
        entries.append({"name": name, "file": f"{number}.raw", "dtype": "bfloat16", "shape": [1, *x.shape]})
    (folder / "index.json").write_text(json.dumps({"tokens": IDS, "tensors": entries}))
    return folder


def as_stacked(folder, states):
    """Hidden states as transformers returns them, saved as one array: the embeddings first, the last one normed."""
    embd, *outputs = states["embd"], *(states[f"l_out-{i}"] for i in range(2)), states["result_norm"]
    np.savez(folder / "d.npz", hidden_states=np.array([embd, *outputs])[:, None], logits=states["result_output"][None])
    return folder / "d.npz"


def as_aprt(folder, states):
    for name, x in states.items():
        layer = int(name.rpartition("-")[2]) if "-" in name else 0xFFFFFFFF
        stage = folder / (f"layer-{layer}/post_ffn_residual.bin" if "-" in name else "lm_head.bin")
        stage.parent.mkdir(exist_ok=True)
        x = x if "-" in name else x[-1:]  # the last token's only
        stage.write_bytes(b"APRT" + struct.pack("<II", layer, x.size) + x.astype("<f4").tobytes())
    return folder


def as_saved_logits(folder, states):
    (folder / "llamacpp-m-tokens.bin").write_bytes(np.array(IDS, "<i4").tobytes())
    (folder / "pytorch-m.bin").write_bytes(states["logits"][-1].astype("<f4").tobytes())
    return folder


def as_results(folder, states):
    writer = gguf.GGUFWriter(folder / "r.gguf", "")
    writer.add_string("path_model", "m.gguf")
    writer.add_tensor("tokens", np.array(IDS, np.int32))
    writer.add_tensor("logits", np.ascontiguousarray(states["logits"]).reshape(-1, len(IDS)))  # sizes exchanged, as the tool does
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "r.gguf"


def as_text(folder, states):
    (folder / "logits.txt").write_text("\n".join(f"{i}: {x:.6g}" for i, x in enumerate(states["logits"][-1])))
    return folder / "logits.txt"


def as_json(folder, states):
    (folder / "l.json").write_text(json.dumps({"tokens": IDS, "logits": states["logits"].astype(float).tolist()}))
    return folder / "l.json"


def as_debugger_tree(folder, states):
    def tensor(name, x):
        save_file({"data": np.ascontiguousarray(x[None])}, folder / f"{name}.safetensors")
        return {"shape": str(x.shape), "dtype": "torch.float32", "value": f"./{name}.safetensors"}

    layers = [
        {
            "module_path": f"M.model.layers.{i}",
            "inputs": {"args": [tensor(f"M.model.layers.{i}_inputs", x)]},
            "outputs": None,
            "children": [{"module_path": f"M.model.layers.{i}.mlp.down_proj", "inputs": {}, "outputs": tensor(f"down{i}", y)}],
        }
        for i, (x, y) in enumerate(states)
    ]
    tree = {"module_path": "M", "inputs": {"kwargs": {}}, "outputs": {"logits": tensor("logits", LOGITS[0])}, "children": layers}
    (folder / "M_debug_tree_FULL_TENSORS.json").write_text(json.dumps(tree))
    return folder


LOGITS = []
FORMATS = [as_npy, as_fortran, as_npz, as_safetensors, as_bf16, as_raw, as_aprt, as_saved_logits, as_results, as_text, as_json]


@pytest.mark.parametrize("write", FORMATS, ids=lambda f: f.__name__)
def test_a_healthy_run_is_healthy_in_every_format(write, model, states, tmp_path):
    dump = read(write(tmp_path, states))
    found, other = verdict(model, tmp_path if dump.path.is_dir() else dump.path, None if dump.calls else [IDS])
    assert found.word != "wrong", (found.first, found.rounds)
    assert len(other.taps) == (1 if "logits" in dump.kind or "results" in dump.kind else len(states))
    assert other.remarks == []
    assert ("bf16" in found.rounds) == (write in (as_bf16, as_raw))


@pytest.mark.parametrize("write", FORMATS, ids=lambda f: f.__name__)
def test_a_fault_is_found_in_every_format(write, model, states, tmp_path):
    dump = read(write(tmp_path, {name: x * np.float32(1.3) if name in ("l_out-1", "logits") else x for name, x in states.items()}))
    found, _ = verdict(model, tmp_path if dump.path.is_dir() else dump.path, None if dump.calls else [IDS])
    assert found.word == "wrong"
    assert found.first.name == ("l_out-1" if "l_out-1" in found.rows else "result_output")


def test_hidden_states_of_transformers_begin_with_the_embedding_and_end_normed(model, run, tmp_path):
    found, other = verdict(model, as_stacked(tmp_path, run), [IDS])
    assert found.word == "equal"
    assert other.places == {
        "hidden_states.0": "embd",
        "hidden_states.1": "l_out-0",
        "hidden_states.2": "l_out-1",
        "hidden_states.3": "result_norm",
        "logits": "result_output",
    }


def test_what_the_first_block_reads_is_scaled_where_the_model_scales_it(tmp_path):
    scaled = refmodel.load(tiny.build(tmp_path / "m.gguf", "gemma3", seed=2))
    taps = {}
    scaled.forward(IDS, tapper=lambda name, x: (taps.__setitem__(name, np.array(x)), x)[1])
    for name, first, word in (("hidden_states.0", "inp_scaled", "wrong"), ("embed_tokens", None, "equal")):
        np.savez(tmp_path / "d.npz", **{name: taps["embd"], "hidden_states.1": taps["l_out-0"]})
        found, _ = verdict(scaled, tmp_path / "d.npz", [IDS])
        assert (found.word, found.first and found.first.name) == (word, first)


@pytest.mark.parametrize(("write", "bits"), [(as_bf16, 8), (as_f16, 11)])
def test_next_to_the_precision_of_a_dump_a_small_fault_of_one_block_is_seen(write, bits, model, run, tmp_path):
    """A fault of 100 times what writing the numbers down makes of them, in one block; a healthy run is healthy."""
    for times, word in ((0, "explained"), (100, "wrong")):
        lost = np.float32(np.sqrt(times / 3) * 2.0**-bits)
        wave = np.random.default_rng(3).standard_normal(run["l_out-1"].shape).astype(np.float32)
        size = np.sqrt(np.mean(np.square(run["l_out-1"])))
        states = {name: x for name, x in run.items() if name.startswith("l_out-")} | {
            "l_out-1": run["l_out-1"] + lost * size * wave
        }
        found, _ = verdict(model, write(tmp_path, states), [IDS])
        assert (found.word, found.first and found.first.name) == (word, "l_out-1" if times else None), found.rounds


def test_the_tree_of_transformers_debugger_gives_outputs_of_modules_and_inputs_of_layers(model, run, tmp_path):
    LOGITS[:] = [run["result_output"]]
    pairs = [(run["embd"], run["ffn_out-0"]), (run["l_out-0"], run["ffn_out-1"]), (run["l_out-1"], run["ffn_out-2"])]
    found, other = verdict(model, as_debugger_tree(tmp_path, pairs), [IDS])
    assert found.word == "equal"
    assert set(other.taps) == {"embd", "l_out-0", "l_out-1", "ffn_out-0", "ffn_out-1", "ffn_out-2", "result_output"}


def test_answers_of_servers_are_compared_token_by_token(model, run, tmp_path):
    """After the prompt, what was chosen; its log-probabilities by text, as OpenAI's interface has them, and by id."""
    logits = model.forward([*IDS, 30, 40])
    rows = logits[len(IDS) - 1 :].astype(np.float64)
    logs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    by_text, by_id = [], []
    for chosen, row in zip([30, 40, 50], logs, strict=True):
        best = [int(t) for t in row.argsort()[-3:]]
        by_id.append({"id": chosen, "logprob": row[chosen], "top_logprobs": [{"id": t, "logprob": row[t]} for t in best]})
        words = [{"token": "", "bytes": list(model.tokenizer.piece(t)), "logprob": row[t]} for t in best]
        by_text.append({"token": "", "bytes": list(model.tokenizer.piece(chosen)), "logprob": row[chosen], "top_logprobs": words})
    for value in ({"completion_probabilities": by_id}, {"choices": [{"logprobs": {"content": by_text}}]}):
        (tmp_path / "a.json").write_text(json.dumps(value))
        found, other = verdict(model, tmp_path / "a.json", [IDS])
        assert found.word != "wrong", found.first
        assert other.calls == [[*IDS, 30, 40]]
    by_id[1]["top_logprobs"][0]["logprob"] -= 0.5
    (tmp_path / "a.json").write_text(json.dumps({"completion_probabilities": by_id}))
    assert verdict(model, tmp_path / "a.json", [IDS])[0].word == "wrong"


# What llama.cpp's own tools wrote of the trained model (golden/make_dumps.py)
REAL = {"llama-debug.log": 20, "llamacpp-austen-Q4_K_M.bin": 1, "results.gguf": 1, "kld.bin": 2}


@pytest.fixture(scope="module")
def austen(golden):
    return refmodel.load(golden / "models" / "austen-Q4_K_M.gguf")


@pytest.mark.parametrize("name", REAL)
def test_what_llama_cpps_tools_write_is_read_and_is_their_arithmetic(name, austen, golden):
    other = read_other(austen, golden / "dumps" / name, None, None)
    found = judged(austen, austen.route(), other, lambda name: None)
    assert found.word != "wrong", found.first
    assert found.arithmetic.name == "llamacpp"
    assert len(other.taps) == REAL[name]
    assert other.remarks == []
    assert max(row.nmse for row in found.rows.values()) < 1e-14, "but for the digits that are written"


def test_a_wrong_number_of_a_log_is_seen_and_a_wrong_sum(austen, golden, tmp_path):
    log = (golden / "dumps" / "llama-debug.log").read_text()
    node = log.index("l_out-4 =")
    number, total = log.index("0.", node + 200), log.index("sum = ", node) + 6
    for at, new in ((number, "9"), (total, "999")):
        (tmp_path / "t.log").write_text(f"{log[:at]}{new}{log[at + 1 :]}")
        found = judged(austen, austen.route(), read_other(austen, tmp_path / "t.log", None, None), lambda name: None)
        assert (found.word, found.first and found.first.name) == ("wrong", "l_out-4")


def test_names_of_other_programs(model):
    for name, stems, block, call in (
        ("layer_3", ("l_out",), 3, 0),
        ("layers.3.output", ("l_out",), 3, 0),
        ("model.layers.12.self_attn.q_proj", ("Qcur_full", "Qcur_reshaped", "Qcur#bias", "Qcur"), 12, 0),
        ("blk.2.ffn_norm", ("ffn_norm", "attn_post_norm"), 2, 0),
        ("hidden_states.4@2", ("hidden_states",), 4, 2),
        ("step_1/layers.0.mlp", ("ffn_out", "ffn_moe_out"), 0, 1),
        ("layers.7.attention.wo", ("linear_attn_out", "attn_out", "mul_mat", "attn_output"), 7, 0),
        ("C_post_layer_5", ("l_out",), 5, 0),
        ("blocks.1.hook_resid_pre", ("l_out before",), 1, 0),
        ("model.norm", ("result_norm",), None, 0),
        ("lm_head", ("result_output",), None, 0),
        ("visual.layers.3.mlp", (), None, 0),
        ("something", (), None, 0),
    ):
        found = taken_apart(name)
        assert (found.stems, found.block, found.call) == (stems, block, call), name


@pytest.mark.parametrize("name", ["mine", "run-2026", "out7", "layer_1"])
def test_a_lone_array_as_wide_as_the_vocabulary_is_the_logits_whatever_its_file_is_called(name, model, run, tmp_path):
    for x in (run["result_output"], run["result_output"][-1], run["result_output"][None, -1:]):
        np.save(tmp_path / f"{name}.npy", x)
        found, other = verdict(model, tmp_path / f"{name}.npy", [IDS])
        assert (found.word, other.places, other.remarks) == ("equal", {name: "result_output"}, [])


def test_an_array_without_a_telling_name_is_no_second_logits_and_a_named_one_keeps_its_name(model, run, tmp_path):
    as_npy(tmp_path, {"l_out-1": run["l_out-1"], "logits": run["result_output"], "lens": run["result_output"] + 1})
    assert verdict(model, tmp_path)[1].places == {"l_out-1": "l_out-1", "logits": "result_output"}
    (tmp_path / "logits.npy").unlink()
    assert verdict(model, tmp_path)[1].places == {"l_out-1": "l_out-1", "lens": "result_output"}


@pytest.mark.parametrize("name", ["input_ids", "tokens", "extra.token_ids"])
def test_an_archive_may_have_its_own_tokens(name, model, states, tmp_path):
    np.savez(tmp_path / "d.npz", **states, **{name: np.array([IDS])})
    found, other = verdict(model, tmp_path / "d.npz")
    assert (found.word, other.calls, other.remarks) == ("equal", [IDS], [])
    _, other = verdict(model, tmp_path / "d.npz", [[*IDS[:-1], 20]])
    assert [remark.code for remark in other.remarks] == ["other-tokens"]


def test_queries_and_gates_of_one_matrix_may_be_written_apart(tmp_path):
    gated = refmodel.load(tiny.build(tmp_path / "m.gguf", "qwen35", seed=2))
    taps = {}
    gated.forward(IDS, tapper=lambda name, x: (taps.__setitem__(name, np.array(x)), x)[1])
    block = next(tap.partition("-")[2] for tap in taps if tap.startswith("Qcur_reshaped-"))
    (tmp_path / "d").mkdir()
    for name, tap in (("q_proj", "Qcur_reshaped"), ("q_gate", "gate_reshaped"), ("q_rope", "Qcur")):
        np.save(tmp_path / "d" / f"layers.{block}.{name}.npy", taps[f"{tap}-{block}"].reshape(len(IDS), -1))
    found, other = verdict(gated, tmp_path / "d", [IDS])
    assert (found.word, sorted(other.places.values())) == (
        "equal",
        [f"Qcur-{block}", f"Qcur_reshaped-{block}", f"gate_reshaped-{block}"],
    )


def test_a_map_names_axes_tokens_and_types(model, run, tmp_path):
    np.save(tmp_path / "dec1_q.npy", run["Qcur-0#2"].transpose(1, 0, 2))  # heads first
    np.save(tmp_path / "dec2_out.npy", run["l_out-1"][1:4])
    (tmp_path / "m.toml").write_text(
        '[[map]]\npattern = "dec(\\\\d+)_q"\ntap = "Qcur-{0}#2"\nlayer_offset = -1\naxes = [1, 0, 2]\n'
        '[[map]]\npattern = "dec(\\\\d+)_out"\ntap = "l_out-{0}"\nlayer_offset = -1\ntokens = [1, 4]\ndtype = "f16"\n'
    )
    found, other = verdict(model, tmp_path, [IDS], read_map(tmp_path / "m.toml"))
    assert other.places == {"dec1_q": "Qcur-0#2", "dec2_out": "l_out-1"}
    assert other.bits == {"l_out-1": BITS["F16"]}
    assert found.word != "wrong"


def test_queries_of_the_original_checkpoint_are_in_halves_and_are_found(model, run, tmp_path):
    """convert_hf_to_gguf.py makes adjacent pairs of them for Llama's files."""
    halves = run["Qcur-1"].reshape(6, 6, 5, 2).swapaxes(2, 3).reshape(6, 60)
    np.save(tmp_path / "model.layers.1.self_attn.q_proj.npy", halves)
    found, other = verdict(model, tmp_path, [IDS])
    assert (found.word, other.places) == ("equal", {"model.layers.1.self_attn.q_proj": "Qcur-1"})


def test_a_trace_may_hold_bfloat16(states, tmp_path):
    from refmodel.forward.trace import Trace

    trace = Trace(as_bf16(tmp_path, states))
    for name, x in states.items():
        same_bits(trace[name], (bits16(x).astype(np.uint32) << 16).view(np.float32))


HUGE = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999), }"
BROKEN = {
    "cut.npy": (lambda x: npy(x)[:-5], "was it written whole"),
    "objects.npy": (lambda x: npy(np.array([{}], object)), "Python objects"),
    "huge.npy": (lambda x: b"\x93NUMPY\x01\x00\x76\x00" + HUGE.ljust(117) + b"\n", "no file can hold"),
    "strings.npy": (lambda x: npy(np.array(["a", "b"])), "numbers of type <U1"),
    "pickle.pkl": (lambda x: b"\x80\x04\x95", "is a pickle"),
    "cut.safetensors": (lambda x: struct.pack("<Q", 90) + b"{" * 90, "not a readable safetensors"),
    "short.bin": (lambda x: b"APRT\1\0\0\0\xff\0\0\0abc", "do not fit its 3 bytes"),
    "cut.kld": (lambda x: b"_logits_" + struct.pack("<Iii", 16, 100, 2) + b"12", "which need"),
    "words.txt": (lambda x: b"I computed it all.", "is text, but not numbers"),
    "bytes.dat": (lambda x: b"\1\0\2\0", "of no known format"),
    "other.json": (lambda x: b'{"a": 1}', "JSON without logits"),
    "deep.json": (lambda x: b"[" * 100_000, "is not JSON"),
    "nan.json": (lambda x: b'{"completion_probabilities": []}', "no log-probabilities"),
    "index.json": (lambda x: b'[{"name": "a", "file": "../../etc/passwd", "shape": [1]}]', "is not in the folder"),
}


def npy(x):
    import io

    file = io.BytesIO()
    np.save(file, x, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_damaged_is_one_line(name, states, tmp_path):
    make, words = BROKEN[name]
    (tmp_path / name).write_bytes(make(states["logits"]))
    with pytest.raises((DumpError, TraceError), match=words) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_what_torch_saves_is_refused_with_the_line_that_converts_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.pt", "w") as archive:
        archive.writestr("d/data.pkl", b"\x80\x02")
    for place in (tmp_path / "d.pt", tmp_path):
        with pytest.raises(DumpError, match=r"torch\.save.*safetensors\.torch\.save_file"):
            read(place)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[map]]\npattern = "l_out-0"\ntap = "nonsense-0"', "does not have"),
        ('[[map]]\npattern = "zzz"\ntap = "l_out-0"', "matches no array"),
        ('[[map]]\npattern = "("\ntap = "l_out-0"', "no regular expression"),
        ('[[map]]\npattern = "a"\ntap = "l_out-{0}"', "does not have"),
        ('[[map]]\npattern = "a"\ntap = "b"\nwrong = 1', "wrong is not a key"),
        ('[[map]]\npattern = "a"\ntap = "b"\naxes = [2, 0]', "axes an order"),
        ('[[map]]\npattern = "l_out-1"\ntap = "l_out-0"', "are both l_out-0"),
        ("not toml", "cannot be read"),
        ("", "no \\[\\[map\\]\\]"),
    ],
)
def test_a_map_that_does_not_fit_is_one_line(text, words, model, states, tmp_path):
    as_npy(tmp_path, states)
    (tmp_path.parent / "m.toml").write_text(text)
    with pytest.raises(DumpError, match=words):
        verdict(model, tmp_path, None, read_map(tmp_path.parent / "m.toml"))


def test_a_dump_of_another_model_or_without_tokens_is_refused(model, states, tmp_path):
    np.save(tmp_path / "logits.npy", states["logits"][:, :-3])
    with pytest.raises(DumpError, match="dump of another model"):
        verdict(model, tmp_path, [IDS])
    with pytest.raises(DumpError, match="does not say which tokens"):
        verdict(model, tmp_path)
    with pytest.raises(TokenError, match="outside the vocabulary"):
        verdict(model, tmp_path, [[5, 99999]])


def test_a_model_folder_is_no_dump(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    save_file({"model.norm.weight": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(DumpError, match="is the folder of a model"):
        read(tmp_path)


def test_a_trace_writer_writes_what_diff_reads(model, states, tmp_path):
    with refmodel.TraceWriter(tmp_path / "t.safetensors", model.path, IDS) as trace:
        for name, x in states.items():
            assert trace("result_output" if name == "logits" else name, x.astype(np.float64)) is not None
        trace.begin_call([7])
        trace("l_out-0", np.zeros((1, 22), np.float16))
    other = read_other(model, tmp_path / "t.safetensors", None, None)
    assert other.calls == [IDS, [7]]
    assert other.sha256 == model.file.sha256()
    assert other.taps["l_out-0@1"].dtype == np.float16
    assert judged(model, model.route(), other, lambda name: None).first.name == "l_out-0@1"
    with pytest.raises(TraceError, match="needs the token ids"):
        refmodel.TraceWriter(tmp_path / "u.safetensors")
    with pytest.raises(KeyError), refmodel.TraceWriter(tmp_path / "u.safetensors", tokens=[1]):
        raise KeyError
    assert not (tmp_path / "u.safetensors").exists()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how much of a file is in memory")
def test_a_large_folder_takes_the_memory_of_one_array(tmp_path):
    """Each array is unmapped once it is read: what a folder takes does not grow with it."""
    resident = lambda: int(re.search(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024
    for i in range(24):
        np.save(tmp_path / f"layer_{i}.npy", np.full((1 << 19,), i, np.float32))  # 2 MB
    dump, before = read(tmp_path), resident()
    assert [float(x.read().max()) for x in dump.arrays.values()] == sorted(range(24), key=str)
    assert resident() - before < 16
