"""What a converter may do wrong: each fault is made in a GGUF of a folder and named; what is harmless is not."""

import json

import folders
import gguf
import hf_made
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from hf_made import build, config_of, values

import refmodel
from refmodel.gguf.tensor import Tensor
from refmodel.gguf.writer import field, write
from refmodel.hf.checkpoint import opened
from refmodel.quants import dequantize
from refmodel.surgery.against_folder import against_folder
from refmodel.surgery.verify import Options, verify

QUICK = Options(forward=False)


def floats(t):
    return dequantize(t.type, t.rows).reshape(t.shape)


def as_stored(t, x, kind=Q.F32):
    """A tensor with these values in that type."""
    x = np.ascontiguousarray(x, np.float32)
    data = gguf.quants.quantize(x, kind) if kind != Q.F32 else x
    return Tensor(t.name, kind, x.shape, t.file, data.reshape(-1).view(np.uint8))


def converted(folder, path, change=lambda tensors, fields: None):
    """The GGUF of a folder, with what `change` does to its tensors and its metadata."""
    file = opened(folder)
    tensors, fields = dict(file.tensors), dict(file.metadata.fields)
    change(tensors, fields)
    return write(path, fields, tensors.values())


def changed(name, how, kind=Q.F32):
    def change(tensors, fields):
        tensors[name] = as_stored(tensors[name], how(floats(tensors[name])), kind)

    return change


def swapped(a, b):
    def change(tensors, fields):
        x, y = tensors[a], tensors[b]
        tensors[a], tensors[b] = as_stored(x, floats(y)), as_stored(y, floats(x))

    return change


def raw(kind, name, tensor, config=None):
    """The folder's own values of a tensor in the place of one of the GGUF."""
    return changed(tensor, lambda x: values(kind, config_of(kind))[name].reshape(x.shape))


def relabelled(tensors, fields):
    t = tensors["blk.1.ffn_up.weight"]
    tensors[t.name] = Tensor(t.name, Q.F16, t.shape, t.file, t.data)


def without(tensors, fields):
    del tensors["blk.1.attn_norm.weight"]


LAYER = "model.layers.0."
NEIGHBOURS = "its rows are not permuted: the two of each pair that RoPE turns are half a head apart"
FAULTS = {  # kind, dtype, what is done, the tensor, the words
    "q not permuted": (
        "llama",
        raw("llama", f"{LAYER}self_attn.q_proj.weight", "blk.0.attn_q.weight"),
        "blk.0.attn_q.weight",
        NEIGHBOURS,
    ),
    "k not permuted": (
        "llama",
        raw("llama", f"{LAYER}self_attn.k_proj.weight", "blk.0.attn_k.weight"),
        "blk.0.attn_k.weight",
        NEIGHBOURS,
    ),
    "k permuted as q": (
        "llama",
        changed(
            "blk.0.attn_k.weight",
            lambda x: hf_made.neighbours(values("llama", config_of("llama"))[f"{LAYER}self_attn.k_proj.weight"], 1),
        ),
        "blk.0.attn_k.weight",
        "its rows are in another order",
    ),
    "v permuted": (
        "llama",
        changed("blk.1.attn_v.weight", lambda x: hf_made.neighbours(x, 2)),
        "blk.1.attn_v.weight",
        "its rows are in another order: row 1 is row 5",
    ),
    "norm without 1": (
        "gemma3",
        raw("gemma3", f"{LAYER}input_layernorm.weight", "blk.0.attn_norm.weight"),
        "blk.0.attn_norm.weight",
        "1 is not added",
    ),
    "norm with 2": ("gemma3", changed("blk.3.attn_q_norm.weight", lambda x: x + 1), "blk.3.attn_q_norm.weight", "1 is added twice"),
    "last norm without 1": (
        "qwen35",
        raw("qwen35", "model.norm.weight", "output_norm.weight"),
        "output_norm.weight",
        "1 is not added",
    ),
    "1 added to the gated norm": (
        "qwen35",
        changed("blk.0.ssm_norm.weight", lambda x: x + 1),
        "blk.0.ssm_norm.weight",
        "1 is added, which this norm does not have",
    ),
    "1 added in llama": (
        "llama",
        changed("blk.0.attn_norm.weight", lambda x: x + 1),
        "blk.0.attn_norm.weight",
        "1 is added, which this norm does not have",
    ),
    "values grouped": (
        "qwen35",
        raw("qwen35", f"{LAYER}linear_attn.in_proj_z.weight", "blk.0.attn_gate.weight"),
        "blk.0.attn_gate.weight",
        "its value heads are grouped by key head, not tiled",
    ),
    "qkv grouped": (
        "qwen35",
        raw("qwen35", f"{LAYER}linear_attn.in_proj_qkv.weight", "blk.0.attn_qkv.weight"),
        "blk.0.attn_qkv.weight",
        "its value heads are grouped",
    ),
    "out grouped": (
        "qwen35moe",
        raw("qwen35moe", f"{LAYER}linear_attn.out_proj.weight", "blk.0.ssm_out.weight"),
        "blk.0.ssm_out.weight",
        "its value heads are grouped",
    ),
    "dt grouped": (
        "qwen35",
        raw("qwen35", f"{LAYER}linear_attn.dt_bias", "blk.0.ssm_dt.bias"),
        "blk.0.ssm_dt.bias",
        "its value heads are grouped",
    ),
    "A_log as it is": (
        "qwen3next",
        raw("qwen3next", f"{LAYER}linear_attn.A_log", "blk.0.ssm_a"),
        "blk.0.ssm_a",
        "it is A_log itself, not -exp(A_log)",
    ),
    "A_log as it is, grouped": (
        "qwen35",
        raw("qwen35", f"{LAYER}linear_attn.A_log", "blk.0.ssm_a"),
        "blk.0.ssm_a",
        "grouped by key head, not tiled; it is A_log itself",
    ),
    "A without its sign": ("qwen35", changed("blk.0.ssm_a", lambda x: -x), "blk.0.ssm_a", "its sign is missing"),
    "qkvz not sorted": (
        "qwen3next",
        changed(
            "blk.0.attn_qkv.weight",
            lambda x: values("qwen3next", config_of("qwen3next"))[f"{LAYER}linear_attn.in_proj_qkvz.weight"][: len(x)],
        ),
        "blk.0.attn_qkv.weight",
        "of its 2640 values differ",
    ),
    "conv reversed": (
        "qwen35",
        changed("blk.0.ssm_conv1d.weight", lambda x: x[:, ::-1]),
        "blk.0.ssm_conv1d.weight",
        "its taps are the wrong way round",
    ),
    "transposed": ("qwen2", changed("blk.0.attn_output.weight", lambda x: x.T), "blk.0.attn_output.weight", "it is transposed"),
    "transposed, other shape": (
        "llama",
        changed("blk.2.ffn_up.weight", lambda x: x.T),
        "blk.2.ffn_up.weight",
        "has shape (22, 26); blk.2.ffn_up.weight has (26, 22); it is transposed",
    ),
    "layers swapped": (
        "qwen3",
        swapped("blk.0.ffn_up.weight", "blk.2.ffn_up.weight"),
        "blk.0.ffn_up.weight",
        "blk.2.ffn_up.weight",
    ),
    "gate and up swapped": (
        "qwen3",
        swapped("blk.1.ffn_up.weight", "blk.1.ffn_gate.weight"),
        "blk.1.ffn_gate.weight",
        "blk.1.ffn_up.weight",
    ),
    "q and k norm swapped": (
        "qwen3",
        swapped("blk.1.attn_q_norm.weight", "blk.1.attn_k_norm.weight"),
        "blk.1.attn_q_norm.weight",
        "blk.1.attn_k_norm.weight",
    ),
    "a row off": (
        "qwen3",
        changed("token_embd.weight", lambda x: np.roll(x, 1, axis=0)),
        "token_embd.weight",
        "its rows are shifted: row i is row i - 1",
    ),
    "a row off, the last lost": (
        "qwen3",
        changed("token_embd.weight", lambda x: np.concatenate([x[1:], 0 * x[:1]])),
        "token_embd.weight",
        "row i is row i + 1",
    ),
    "experts in another order": (
        "qwen3moe",
        changed("blk.1.ffn_up_exps.weight", lambda x: x[[0, 2, 1, 3, 4, 5, 6]]),
        "blk.1.ffn_up_exps.weight",
        "its experts are in another order: expert 1 is expert 2",
    ),
    "columns in another order": (
        "qwen3",
        changed("blk.1.ffn_down.weight", lambda x: x[:, ::-1]),
        "blk.1.ffn_down.weight",
        "its columns are in another order: column 0 is column 25",
    ),
    "scaled": (
        "qwen3",
        changed("blk.1.ffn_down.weight", lambda x: 0.5 * x),
        "blk.1.ffn_down.weight",
        "blk.1.ffn_down.weight times 0.5",
    ),
    "one number": (
        "qwen3",
        changed("blk.1.ffn_down.weight", lambda x: x + np.eye(*x.shape, 3) * (np.arange(len(x)) == 4)[:, None]),
        "blk.1.ffn_down.weight",
        "1 of its 572 values differ",
    ),
    "missing": ("qwen3", without, "blk.1.attn_norm.weight", "is missing; it should be a copy of blk.1.attn_norm.weight"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_converter_is_named(fault, tmp_path):
    kind, change, where, words = FAULTS[fault]
    folder = build(tmp_path / "folder", kind)
    report = verify(converted(folder, tmp_path / "copy.gguf", change), folder, "identity", QUICK)
    found = {}
    for _, finding in report.findings:
        found.setdefault(finding.where, finding.what)
    assert report.status == 1
    assert words in found[where]
    assert len(found) == (2 if "swapped" in fault else 1)


def test_a_type_that_is_not_that_of_the_bytes_is_named(tmp_path):
    folder = build(tmp_path / "folder", "qwen3", "BF16")
    report = verify(converted(folder, tmp_path / "copy.gguf", relabelled), folder, "identity", QUICK)
    assert [f.where for _, f in report.findings] == ["blk.1.ffn_up.weight"]
    assert report.findings[0][1].what.endswith("its type says F16, but its bytes are BF16 numbers")


def quantized(kind):
    def change(tensors, fields):
        for name, t in tensors.items():
            if len(t.shape) > 1 and "conv1d" not in name and "gate_inp" not in name:
                tensors[name] = as_stored(t, floats(t), kind)

    return change


@pytest.mark.parametrize(("dtype", "kind"), [("F32", Q.F16), ("F32", Q.BF16), ("BF16", Q.F32), ("BF16", Q.F16), ("F16", Q.F32)])
@pytest.mark.parametrize("model", ["llama", "qwen35"])
def test_another_type_is_no_fault(model, dtype, kind, tmp_path):
    folder = build(tmp_path / "folder", model, dtype)
    report = verify(converted(folder, tmp_path / "copy.gguf", quantized(kind)), folder, "identity", QUICK)
    assert not report.findings
    assert report.verdict == "proved except forward"


def test_a_fault_under_quantization_is_named(tmp_path):
    """Rows of 32 in Q8_0: a permutation that is missing is far beyond the rounding."""
    folder = build(tmp_path / "folder", "llama", hidden_size=64)
    wrong = values("llama", config_of("llama", hidden_size=64))[f"{LAYER}self_attn.q_proj.weight"]

    def change(tensors, fields):
        quantized(Q.Q8_0)(
            {name: t for name, t in tensors.items() if t.shape[-1] % 32 == 0 and tensors.update({name: t}) is None}, fields
        )
        for name, t in list(tensors.items()):
            if len(t.shape) > 1 and t.shape[-1] % 32 == 0:
                tensors[name] = as_stored(t, floats(t) if name != "blk.0.attn_q.weight" else wrong, Q.Q8_0)

    report = verify(converted(folder, tmp_path / "copy.gguf", change), folder, "identity", QUICK)
    assert [f.where for _, f in report.findings] == ["blk.0.attn_q.weight"]
    assert NEIGHBOURS in report.findings[0][1].what


def test_last_bits_and_the_rounding_of_float16_are_no_faults(tmp_path):
    """Another exp differs in the last bit; llama.cpp's converter adds 1 to norms of float16 in float16."""
    folder = build(tmp_path / "folder", "qwen35")
    path = converted(folder, tmp_path / "copy.gguf", changed("blk.0.ssm_a", lambda x: np.nextafter(x, np.float32(-np.inf))))
    report = verify(path, folder, "identity")
    assert report.verdict == "proved"
    assert any("last bits of float32" in note for note in report.notes)
    half = build(tmp_path / "half", "gemma3", "F16")

    def added(tensors, fields):
        for name, t in tensors.items():
            if name.endswith("norm.weight"):
                tensors[name] = as_stored(t, floats(t).astype(np.float16))

    report = verify(converted(half, tmp_path / "half.gguf", added), half, "identity", QUICK)
    assert not report.findings
    assert any("float16's rounding" in note for note in report.notes)
    far = changed("blk.0.ssm_a", lambda x: x * np.float32(1.001))
    assert verify(converted(folder, tmp_path / "far.gguf", far), folder, "identity", QUICK).findings


KEYS = {
    "rope.freq_base": (gguf.GGUFValueType.FLOAT32, 10000.0, "is 10000.0; the source has 20000.0"),
    "attention.layer_norm_rms_epsilon": (gguf.GGUFValueType.FLOAT32, 1e-6, "layer_norm_rms_epsilon"),
    "context_length": (gguf.GGUFValueType.UINT32, 64, "is 64; the source has 512"),
}


@pytest.mark.parametrize("key", KEYS)
def test_a_wrong_key_is_named(key, tmp_path):
    folder = build(tmp_path / "folder", "qwen3")
    kind, value, words = KEYS[key]
    path = converted(folder, tmp_path / "copy.gguf", lambda tensors, fields: fields.update({f"qwen3.{key}": field(kind, value)}))
    ((check, finding),) = verify(path, folder, "identity", QUICK).findings
    assert (check, finding.where) == ("metadata", f"qwen3.{key}")
    assert words in finding.where + finding.what


def test_what_a_gguf_cannot_say_is_a_finding(tmp_path):
    folder = build(tmp_path / "folder", "gemma3", query_pre_attn_scalar=3)
    path = converted(folder, tmp_path / "copy.gguf")
    findings = verify(path, folder, "identity").findings
    assert findings[0][0] == "metadata"
    assert "query_pre_attn_scalar is 3" in findings[0][1].what
    assert "forward" in {check for check, _ in findings}
    back = verify(folder, path, "identity", QUICK).findings
    assert [f.what.endswith("the source does not") for _, f in back] == [True]


@pytest.mark.parametrize("kind", ["llama", "gemma3", "qwen3moe", "qwen35"])
def test_a_conversion_is_proved_both_ways(kind, tmp_path):
    folder = build(tmp_path / "folder", kind, "BF16")
    path = converted(folder, tmp_path / "copy.gguf")
    for copy, source in ((path, folder), (folder, path)):
        report = verify(copy, source, "identity")
        assert (report.verdict, report.findings) == ("proved", [])
        assert verify(copy, source, "", QUICK).verdict == "recovered"


@pytest.mark.parametrize(
    ("kind", "name", "how", "where", "words"),
    [
        (
            "llama",
            f"{LAYER}self_attn.q_proj.weight",
            lambda w: hf_made.neighbours(w, hf_made.H),
            "blk.0.attn_q.weight",
            "its rows are permuted as in a GGUF",
        ),
        ("gemma3", f"{LAYER}input_layernorm.weight", lambda w: w + 1, "blk.0.attn_norm.weight", "1 is not subtracted"),
        (
            "qwen35",
            f"{LAYER}linear_attn.in_proj_z.weight",
            lambda w: hf_made.tiled(w, hf_made.S),
            "blk.0.attn_gate.weight",
            "its value heads are tiled as in a GGUF",
        ),
        ("qwen35", f"{LAYER}linear_attn.A_log", lambda w: -np.exp(w), "blk.0.ssm_a", "it is -exp(A_log) as in a GGUF, not A_log"),
    ],
)
def test_what_was_not_undone_in_a_folder_is_named(kind, name, how, where, words, tmp_path):
    folder = build(tmp_path / "folder", kind)
    path = converted(folder, tmp_path / "source.gguf")
    hf_made.rewrite(folder, lambda w: w.update({name: how(w[name])}))
    ((check, finding),) = verify(folder, path, "identity", QUICK).findings
    assert (check, finding.where) == ("bytes", where)
    assert words in finding.what


def test_diff_shows_the_tensors_and_then_the_pass(tmp_path):
    folder = build(tmp_path / "folder", "llama")
    right = against_folder(converted(folder, tmp_path / "right.gguf"), folder, [1, 2, 3], lambda what: None)
    assert (right.status, right.trial.logits) == (0, 0.0)
    wrong = converted(folder, tmp_path / "wrong.gguf", raw("llama", f"{LAYER}self_attn.q_proj.weight", "blk.0.attn_q.weight"))
    done = against_folder(wrong, folder, [], lambda what: None)
    assert (done.status, [f.where for _, f in done.report.findings]) == (1, ["blk.0.attn_q.weight"])
    assert done.trial.steps[0].added > 1e-3
    assert [step.added for step in done.trial.steps[1:]] == [0.0, 0.0]
    broken = against_folder(converted(folder, tmp_path / "broken.gguf", without), folder, [], lambda what: None)
    assert (broken.status, broken.trial) == (1, None)
    assert "attn_norm.weight is missing" in broken.why


def test_a_routed_gguf_of_a_folder_is_proved_against_the_folder(tmp_path):
    from refmodel.surgery.gguf import routed

    folder = build(tmp_path / "folder", "qwen35", "BF16")
    model = refmodel.load(folder)
    copy = routed(model, model.route("layers:0,1,0,1,2"), tmp_path / "copy.gguf")
    report = verify(copy, folder)
    assert (report.verdict, report.route) == ("proved", "blocks:0,2")
    assert not [note for note in report.notes if "differ" in note]


def test_folders_are_proved_by_our_own_pass(tmp_path):
    """Where no transformers is asked for."""
    source = build(tmp_path / "source", "qwen3")
    copy = build(tmp_path / "copy", "qwen3")
    report = verify(copy, source, "identity")
    assert (report.verdict, [c.word for c in report.checks]) == ("proved", ["ok"] * 5)
    config = hf_made.config(copy)
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-2}))
    assert {check for check, _ in verify(copy, source, "identity").findings} == {"metadata", "forward"}
    odd = folders.build(tmp_path / "odd", "llama", architectures=["NoSuchForCausalLM"])
    assert verify(odd, odd, "identity").verdict == "proved except forward"
