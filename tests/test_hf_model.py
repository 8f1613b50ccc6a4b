"""Folders that run: every tensor as llama.cpp's converter has it, both spellings, and errors that name what is wrong."""

import json
import re
import shutil
from dataclasses import replace

import folders
import hf_made
import numpy as np
import pytest
from hf_made import KINDS, build, config_of, expected, values
from shares import diagonal

import refmodel
from refmodel.errors import FileError, MetadataError, RefmodelError, TensorError
from refmodel.gguf.tensor import Tensor
from refmodel.gguf.writer import write
from refmodel.hf.checkpoint import opened
from refmodel.hf.folder import read_folder
from refmodel.model.route import Route
from refmodel.quants import dequantize
from refmodel.surgery.hf_write import routed_folder
from refmodel.surgery.verify import verify

TOKENS = [3, 17, 40, 9, 9, 31, 0, 28, 45, 12]


def floats(t):
    return dequantize(t.type, t.rows).reshape(t.shape)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_what_the_converter_makes(kind, dtype, tmp_path):
    path = build(tmp_path / "folder", kind, dtype)
    config = config_of(kind)
    kept = {name: rounded(x, dtype) for name, x in values(kind, config).items()}
    right, found = expected(kind, kept, config), opened(path).tensors
    assert found.keys() == right.keys()
    for name, x in right.items():
        t = found[name]
        vector = x.ndim == 1 or name.endswith(("ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "conv1d.weight"))
        assert (t.type.name, t.shape) == ("F32" if vector else dtype, x.shape), name
        assert np.array_equal(floats(t), x), name


def rounded(x, dtype):
    """Values as a folder of that type has them."""
    packed = folders.packed(x, dtype)
    if dtype == "BF16":
        return (packed.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(x.shape)
    return packed.view({"F32": np.float32, "F16": np.float16}[dtype]).astype(np.float32).reshape(x.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_are_read_in_place(kind, tmp_path):
    """What is in its own order is a view of the file; experts are views of theirs, though they are stored one by one."""
    model = refmodel.load(build(tmp_path / "folder", kind, "BF16"))
    mapped = [t.data for t in model.file.tensors.values() if isinstance(t, Tensor)]
    assert len(mapped) >= 2 + 3 * model.n_layer
    for name, w in model.weights.items():
        if name.endswith("_exps.weight"):
            mapped.append(w.matrix(3).rows)
    assert all(not data.flags.owndata and not data.flags.writeable for data in mapped)


@pytest.mark.parametrize(("kind", "key"), [("llama", "head_dim"), ("llama", "num_key_value_heads"), ("mistral", "head_dim")])
@pytest.mark.parametrize("left", [None, "out"])
def test_a_size_that_the_class_derives_may_be_left_out(kind, key, left, tmp_path):
    """As in the folders of Llama 2, TinyLlama and SmolLM2. The class's own sizes are other ones, of a model of 7B."""
    sizes = {"hidden_size": hf_made.H * hf_made.D} | ({"num_key_value_heads": hf_made.H} if "heads" in key else {})
    whole = build(tmp_path / "whole", kind, **sizes)
    shorter = build(tmp_path / "shorter", kind, **sizes)
    said = {k: v for k, v in hf_made.config(whole).items() if k != key} | ({} if left else {key: None})
    (shorter / "config.json").write_text(json.dumps(said))
    a, b = refmodel.load(whole), refmodel.load(shorter)
    assert a.hp == b.hp
    assert np.array_equal(a.forward(TOKENS), b.forward(TOKENS))


def test_experts_in_one_tensor_are_the_same_as_one_by_one(tmp_path):
    """As Qwen3.5's checkpoints have them: gates, then ups, of all experts."""
    apart = build(tmp_path / "apart", "qwen35moe")

    def join(w):
        for i in range(hf_made.L):
            start = f"model.layers.{i}.mlp.experts."
            gate, up, down = ([w.pop(f"{start}{x}.{n}_proj.weight") for x in range(hf_made.X)] for n in ("gate", "up", "down"))
            w[f"{start}gate_up_proj"] = np.stack([np.concatenate(pair) for pair in zip(gate, up, strict=True)])
            w[f"{start}down_proj"] = np.stack(down)

    joined = hf_made.rewrite(build(tmp_path / "joined", "qwen35moe"), join)
    a, b = refmodel.load(apart), refmodel.load(joined)
    assert all(np.array_equal(t.data, b.file.tensors[name].data) for name, t in a.file.tensors.items())
    up = b.weights["blk.1.ffn_up_exps.weight"]
    assert np.array_equal(up.matrix(4).rows, a.weights["blk.1.ffn_up_exps.weight"].rows[4 * hf_made.Fx : 5 * hf_made.Fx])
    assert not up.matrix(4).rows.flags.owndata
    assert np.array_equal(a.forward(TOKENS), b.forward(TOKENS))


@pytest.mark.parametrize(
    ("numerics", "kind"), diagonal(["reference", "numpy", "oracle", "llamacpp"], ["llama", "qwen35moe", "qwen3next"])
)
def test_a_folder_computes_the_bits_of_its_gguf(kind, numerics, tmp_path):
    """In every numerics: a tensor that is put in order when it is asked for is multiplied as one that is stored so."""
    model = refmodel.load(build(tmp_path / "folder", kind, "BF16"))
    copy = refmodel.load(write(tmp_path / "copy.gguf", model.file.metadata.fields, model.file.tensors.values()))
    for calls in ([TOKENS], [TOKENS[:7], *([t] for t in TOKENS[7:])]):
        a, b = model.session(numerics=numerics), copy.session(numerics=numerics)
        for tokens in calls:
            assert np.array_equal(a.forward(tokens), b.forward(tokens))


SPELLED = [  # the rope of a new configuration, and the keys of an old one that say the same
    ("llama", {"rope_type": "default", "rope_theta": 20000.0}, {"rope_theta": 20000.0}),
    (
        "qwen3",
        {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0},
        {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 3.0}},
    ),
    (
        "qwen2",
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "rope_theta": 1e6},
        {"rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}},
    ),
    (
        "llama",
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
            "rope_theta": 5e5,
        },
        {
            "rope_theta": 5e5,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    (
        "gemma3",
        {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
        {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
    (
        "qwen35",
        hf_made.NEXT["rope_parameters"],
        {"rope_theta": 20000.0, "partial_rotary_factor": 0.6, "rope_scaling": {"mrope_section": [1, 1, 1]}},
    ),
]


@pytest.mark.parametrize(("kind", "new", "old"), SPELLED)
def test_both_spellings_of_a_configuration_say_the_same(kind, new, old, tmp_path):
    a = opened(build(tmp_path / "folder", kind, rope_parameters=new))
    config = {key: value for key, value in config_of(kind).items() if key != "rope_parameters"}
    (tmp_path / "folder" / "config.json").write_text(json.dumps(config | old | {"torch_dtype": "float32"}))
    b = opened(tmp_path / "folder")
    assert {key: bytes(f.raw) for key, f in a.metadata.fields.items()} == {
        key: bytes(f.raw) for key, f in b.metadata.fields.items()
    }
    assert a.tensors.keys() == b.tensors.keys()
    assert ("rope_freqs.weight" in a.tensors) == ("llama3" in json.dumps(new))


@pytest.mark.parametrize(
    ("kind", "prefix", "name"),
    [
        ("gemma3", "language_model.model.", "Gemma3ForConditionalGeneration"),
        ("qwen35", "model.language_model.", "Qwen3_5ForConditionalGeneration"),
    ],
)
def test_the_text_part_of_a_multimodal_folder_is_the_text_model(kind, prefix, name, tmp_path):
    plain = opened(build(tmp_path / "plain", kind))
    config, w = config_of(kind), values(kind, config_of(kind), prefix)
    w |= {
        "vision_tower.encoder.layers.0.mlp.fc1.weight": np.ones((3, 2)),
        "multi_modal_projector.mm_input_projection_weight": np.ones((2, 2)),
    }
    top = {
        "architectures": [name],
        "model_type": config["model_type"].removesuffix("_text"),
        "text_config": config,
        "vision_config": {},
    }
    whole = opened(folders.write(tmp_path / "whole", top, w, "F32"))
    assert whole.tensors.keys() == plain.tensors.keys()
    assert all(np.array_equal(t.data, plain.tensors[key].data) for key, t in whole.tensors.items())
    ours, theirs = ({k: bytes(f.raw) for k, f in one.metadata.fields.items() if k != "general.name"} for one in (whole, plain))
    assert ours == theirs


def test_sharded_folders_are_read_by_their_index(tmp_path):
    whole, config = build(tmp_path / "whole", "qwen3"), config_of("qwen3")
    parts = tmp_path / "parts"
    parts.mkdir()
    stored = hf_made.stored(values("qwen3", config))
    index = {}
    for i, some in enumerate((stored[::2], stored[1::2])):
        with (parts / f"model-0000{i + 1}-of-00002.safetensors").open("wb") as file:
            hf_made.write_safetensors(file, some, lambda count: None)
        index |= {t.name: f"model-0000{i + 1}-of-00002.safetensors" for t in some}
    (parts / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (parts / "config.json").write_text(json.dumps(config))
    a, b = refmodel.load(whole), refmodel.load(parts)
    assert np.array_equal(a.forward(TOKENS), b.forward(TOKENS))
    assert a.file.sha256() != b.file.sha256()


def test_prediction_layers_follow_the_trunk(tmp_path):
    """As the Hub's Qwen3.5 has them, and as transformers does not save them."""
    path = build(tmp_path / "folder", "qwen35")
    r = np.random.default_rng(1)

    def predict(w):
        shapes = {"mtp.fc.weight": (hf_made.E, 2 * hf_made.E)}
        shapes |= {f"mtp.{n}.weight": (hf_made.E,) for n in ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm")}
        layer = hf_made.layer_shapes("qwen35", 1, config_of("qwen35"))  # full attention
        shapes |= {f"mtp.layers.0.{name}": shape for name, shape in layer.items()}
        w |= {name: (0.3 * r.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
        predict.w = w

    model = refmodel.load(hf_made.rewrite(path, predict))
    w = predict.w
    assert (model.hp.n_layer, model.hp.n_nextn, model.hp.recurrent) == (3, 1, (True, False, True, False))
    held = model.prediction.block
    assert np.array_equal(held.nextn_eh_proj.dense(np.float32), w["mtp.fc.weight"])
    assert np.array_equal(held.nextn_hnorm.dense(np.float32), w["mtp.pre_fc_norm_hidden.weight"] + 1)
    assert np.array_equal(model.prediction.norm.dense(np.float32), w["mtp.norm.weight"] + 1)
    assert np.array_equal(held.attn_k.dense(np.float32), w["mtp.layers.0.self_attn.k_proj.weight"])


def test_what_no_key_of_a_gguf_says_is_computed_and_remarked(tmp_path):
    scaled = refmodel.load(build(tmp_path / "gemma", "gemma3", query_pre_attn_scalar=3))
    assert scaled.hp.query_dim == 3
    assert "query_pre_attn_scalar is 3" in scaled.file.remarks[0]
    plain = refmodel.load(build(tmp_path / "plain", "gemma3"))
    assert not plain.file.remarks
    assert not np.array_equal(scaled.forward(TOKENS), plain.forward(TOKENS))
    windowed, free = (refmodel.load(build(tmp_path / f"m{w}", "mistral", sliding_window=w)) for w in (4, None))
    assert (windowed.hp.window, windowed.hp.sliding) == (4, (True,) * 3)
    a, b = windowed.forward(TOKENS), free.forward(TOKENS)
    assert np.array_equal(a[:4], b[:4])
    assert not np.array_equal(a[4:], b[4:])
    some = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}
    assert refmodel.load(build(tmp_path / "q", "qwen3", **some)).hp.sliding == (False, False, True)


def dropped(name):
    return lambda w: w.pop(name)


def put(name, x):
    return lambda w: w.__setitem__(name, x)


Q0 = "model.layers.0.self_attn.q_proj.weight"
WRONG = [  # kind, change of the configuration, change of the weights, the error and its words
    (
        "llama",
        {"architectures": ["NoSuchForCausalLM"]},
        None,
        MetadataError,
        "architectures is NoSuchForCausalLM; known are LlamaForCausalLM",
    ),
    ("llama", {"architectures": None, "model_type": "falcon"}, None, MetadataError, "architectures is missing"),
    ("llama", {"hidden_size": "22"}, None, MetadataError, "config.json: hidden_size is 22; expected a whole number"),
    ("llama", {"hidden_size": None}, None, MetadataError, "config.json: hidden_size is None; expected a whole number"),
    ("llama", {"num_attention_heads": 0}, None, MetadataError, "num_attention_heads is 0"),
    ("llama", {"rms_norm_eps": "1e-6"}, None, MetadataError, "rms_norm_eps is 1e-6; expected a finite number"),
    ("llama", {"rms_norm_eps": 1e999}, None, MetadataError, "rms_norm_eps is inf; expected a finite number"),
    ("llama", {"hidden_act": "gelu"}, None, MetadataError, "hidden_act is gelu; expected silu"),
    ("llama", {"num_hidden_layers": 10**9}, None, MetadataError, "num_hidden_layers is 1000000000; expected 1 to 512"),
    (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
        None,
        MetadataError,
        "rope_type is 'dynamic'; expected default, llama3, linear, yarn",
    ),
    ("llama", {"rope_parameters": [1]}, None, MetadataError, "rope_parameters"),
    ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 0}}, None, MetadataError, "rope_parameters"),
    (
        "qwen2",
        {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "beta_fast": -64, "original_max_position_embeddings": 9}},
        None,
        MetadataError,
        "rope_parameters is .*; expected positive finite numbers of YaRN",
    ),
    ("qwen3moe", {"norm_topk_prob": False}, None, MetadataError, "norm_topk_prob is False; expected true"),
    ("qwen3moe", {"mlp_only_layers": [1]}, None, MetadataError, r"mlp_only_layers is \[1\]; expected experts in every layer"),
    ("gemma3", {"attn_logit_softcapping": 50.0}, None, MetadataError, "attn_logit_softcapping is 50.0; expected None"),
    ("gemma3", {"use_bidirectional_attention": True}, None, MetadataError, "use_bidirectional_attention is True"),
    ("gemma3", {"query_pre_attn_scalar": 0}, None, MetadataError, "query_pre_attn_scalar is 0"),
    ("qwen35", {"layer_types": ["linear_attention"]}, None, MetadataError, "layer_types"),
    ("qwen35", {"linear_num_value_heads": 8}, None, RefmodelError, "ssm.time_step_rank is 8; expected a multiple"),
    ("qwen35", {"linear_num_key_heads": 9}, None, TensorError, "in_proj_qkv.weight|attn_qkv.weight has shape"),
    ("qwen3", {}, dropped("lm_head.weight"), TensorError, "lm_head.weight is missing, and config.json says tie_word_embeddings"),
    ("llama", {}, dropped(Q0), TensorError, "tensor blk.0.attn_q.weight is missing"),
    (
        "llama",
        {},
        put("model.layers.0.self_attn.rot.weight", np.ones((2, 2))),
        TensorError,
        "model.layers.0.self_attn.rot.weight is a tensor that is not read",
    ),
    ("llama", {}, put(Q0, np.ones((60, 21))), TensorError, r"blk.0.attn_q.weight has shape \(60, 21\); .* needs \(60, 22\)"),
    ("llama", {}, put(Q0, np.ones((61, 22))), TensorError, r"q_proj.weight has shape \(61, 22\), which does not fit the heads"),
    (
        "qwen3moe",
        {},
        dropped("model.layers.1.mlp.experts.3.up_proj.weight"),
        TensorError,
        r"experts.3.up_proj.weight is missing; there should be 7 experts",
    ),
    ("qwen3moe", {}, put("model.layers.1.mlp.experts.3.up_proj.weight", np.ones((16, 21))), TensorError, "experts are alike"),
    ("qwen3moe", {"num_experts": 8}, None, TensorError, r"mlp.experts.7.\w+_proj.weight is missing; there should be 8"),
]


def test_a_folder_without_a_head_of_its_own_uses_its_embedding(tmp_path):
    heads = {}
    for said in (True, None):
        path = hf_made.rewrite(build(tmp_path / str(said), "qwen3", tie_word_embeddings=said), dropped("lm_head.weight"))
        heads[said] = refmodel.load(path).forward(TOKENS)
    assert np.array_equal(heads[True], heads[None])


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_names_no_class_is_read_by_its_model_type(kind, tmp_path):
    path = build(tmp_path / "folder", kind)
    named, config = refmodel.load(path).forward(TOKENS), json.loads((path / "config.json").read_text())
    for nothing in ({}, {"architectures": None}, {"architectures": []}):
        rest = {key: value for key, value in config.items() if key != "architectures"}
        (path / "config.json").write_text(json.dumps(rest | nothing))
        assert np.array_equal(refmodel.load(path).forward(TOKENS), named)


@pytest.mark.parametrize(("kind", "changes", "weights", "error", "words"), WRONG)
def test_what_is_wrong_with_a_folder_is_named_in_one_line(kind, changes, weights, error, words, tmp_path):
    path = build(tmp_path / "folder", kind)
    if weights:
        hf_made.rewrite(path, weights)
    config = {key: value for key, value in (config_of(kind) | changes).items() if key != "architectures" or value is not None}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=words) as caught:
        refmodel.load(path)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(str(path))


PACKED = [  # what config.json says, how the weights of a layer are named and typed, and what is said of them
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "qweight", "I32", "quantized by gptq"),
    ({"quantization_config": {"quant_method": "fp8"}}, "weight", "F8_E4M3", "quantized by fp8"),
    ({"quantization": {"bits": 4, "group_size": 64}}, "weight", "U32", "quantized by mlx"),
    ({}, "qweight", "I32", "packed in I32"),
]


@pytest.mark.parametrize(("says", "name", "kind", "words"), PACKED)
def test_a_folder_of_packed_weights_is_named_and_its_copy_is_proved_by_bytes(says, name, kind, words, tmp_path):
    path, config = build(tmp_path / "folder", "llama"), config_of("llama") | says
    (path / "config.json").write_text(json.dumps(config))
    size, packed = 1 if kind == "F8_E4M3" else 4, []
    for t in hf_made.stored(values("llama", config)):
        as_packed = {"name": t.name.removesuffix("weight") + name, "type": kind, "shape": (t.data.size // size,)}
        packed.append(replace(t, **as_packed) if "proj" in t.name else t)
    with (path / "model.safetensors").open("wb") as file:
        hf_made.write_safetensors(file, packed, lambda count: None)
    with pytest.raises(TensorError, match=f"its weights are {words}, which is not read here"):
        refmodel.load(path)
    copy = routed_folder(read_folder(path), Route.of("blocks:0,2", config["num_hidden_layers"]), tmp_path / "copy")
    assert verify(copy, path, "blocks:0,2").verdict == "proved except forward"
    plain = build(tmp_path / "plain", "llama")
    with pytest.raises(TensorError, match=f"its weights are {words}, those of .* floats, and their values cannot be compared"):
        verify(copy, plain, "blocks:0,2")


def test_quantized_and_truncated_weights_are_named(tmp_path):
    path = build(tmp_path / "folder", "llama")
    stored = hf_made.stored(values("llama", config_of("llama")))
    packed = hf_made.FolderTensor(stored[1].name, "F8_E4M3", (4, 2), np.zeros(8, np.uint8))
    with (path / "model.safetensors").open("wb") as file:
        hf_made.write_safetensors(file, [stored[0], packed, *stored[2:]], lambda count: None)
    with pytest.raises(TensorError, match=f"{stored[1].name} is F8_E4M3; expected F32, F16, BF16"):
        refmodel.load(path)
    short = hf_made.FolderTensor(stored[1].name, "F32", (4, 2), np.zeros(8, np.uint8))
    with (path / "model.safetensors").open("wb") as file:
        hf_made.write_safetensors(file, [stored[0], short, *stored[2:]], lambda count: None)
    with pytest.raises(TensorError, match="has 8 bytes, which is not F32 of shape"):
        refmodel.load(path)
    whole = (build(tmp_path / "whole", "llama") / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[:-5])
    with pytest.raises(FileError, match="was it downloaded whole"):
        refmodel.load(path)
    shutil.rmtree(path)
    path.mkdir()
    with pytest.raises(FileError, match=re.escape(str(path / "config.json"))):
        refmodel.load(path)
