"""Folders of Ministral 3 and LFM2: the tensors and the keys of the GGUF of which they are made here, under other names."""

import folders
import numpy as np
import pytest
import tiny

import refmodel
from refmodel.errors import MetadataError
from refmodel.gguf.reader import read
from refmodel.hf.checkpoint import opened

SAME = {
    "hidden_size": 22,
    "intermediate_size": 26,
    "vocab_size": 271,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 6, "mscale": 1.0}
YARN |= {"beta_fast": 0.5, "beta_slow": 0.05, "mscale_all_dim": 0.75, "llama_4_scaling_beta": 0.5}
OURS = {"type": "yarn", "factor": 4.0, "original_context_length": 6, "yarn_log_multiplier": 0.75}
OURS |= {"yarn_beta_fast": 0.5, "yarn_beta_slow": 0.05}
MINISTRAL = SAME | {"head_dim": 10, "rms_norm_eps": tiny.EPS, "rope_parameters": YARN, "tie_word_embeddings": False}
LFM2 = SAME | {"hidden_size": 40, "num_attention_heads": 4, "conv_L_cache": 3, "norm_eps": tiny.EPS, "full_attn_idxs": [2]}
LFM2 |= {"block_ff_dim": 26, "block_auto_adjust_ff_dim": False, "rope_theta": 10000.0}
MODELS = {
    "mistral3": ("Ministral3ForCausalLM", "ministral3", MINISTRAL, {"scaling": OURS}),
    "lfm2": ("Lfm2ForCausalLM", "lfm2", LFM2, {}),
}
NAMES = {  # in llama.cpp -> in transformers
    "mistral3": {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "output_norm": "norm",
    },
    "lfm2": {
        "attn_norm": "operator_norm",
        "ffn_norm": "ffn_norm",
        "attn_q_norm": "self_attn.q_layernorm",
        "attn_k_norm": "self_attn.k_layernorm",
        "attn_output": "self_attn.out_proj",
        "ffn_gate": "feed_forward.w1",
        "ffn_up": "feed_forward.w3",
        "ffn_down": "feed_forward.w2",
        "shortconv.in_proj": "conv.in_proj",
        "shortconv.conv": "conv.conv",
        "shortconv.out_proj": "conv.out_proj",
        "token_embd_norm": "embedding_norm",
    },
}
BOTH = {"token_embd": "embed_tokens", **{f"attn_{x}": f"self_attn.{x}_proj" for x in "qkv"}}
each = pytest.mark.parametrize("arch", MODELS)


def theirs(arch, name, x):
    """A tensor of the GGUF as transformers has it: its name, and its values; pairs that are neighbours there are D/2 apart here."""
    block, stem = (f"layers.{name.split('.')[1]}.", name.split(".", 2)[2]) if name.startswith("blk.") else ("", name)
    stem = stem.removesuffix(".weight")
    if arch == "mistral3" and stem in ("attn_q", "attn_k"):
        heads = {"attn_q": 6, "attn_k": 2}[stem]
        x = np.concatenate([np.concatenate([head[0::2], head[1::2]]) for head in np.split(x, heads)])
    x = x[:, None, :] if stem == "shortconv.conv" else x
    return ("lm_head" if stem == "output" else f"model.{block}{(NAMES[arch] | BOTH)[stem]}") + ".weight", x


def built(tmp_path, arch, **config):
    """The GGUF, and its folder."""
    name, model_type, known, shape = MODELS[arch]
    gguf = read(tiny.build(tmp_path / "m.gguf", arch, seed=3, **shape))
    tensors = dict(theirs(arch, n, t.data.view(np.float32).reshape(t.shape)) for n, t in gguf.tensors.items())
    known = {"architectures": [name], "model_type": model_type, "num_hidden_layers": tiny.SHAPES[arch].n_layer} | known | config
    return gguf, folders.write(tmp_path / "folder", known, tensors, "F32")


@each
def test_a_folder_has_the_tensors_and_the_keys_of_its_gguf(arch, tmp_path):
    gguf, folder = built(tmp_path, arch)
    ours = opened(folder)
    assert set(ours.tensors) == set(gguf.tensors)
    for name, tensor in gguf.tensors.items():
        assert np.array_equal(np.asarray(ours.tensors[name].rows).ravel().view(np.uint8), tensor.data.ravel()), name
    mine, known = (
        {key: value for key in md if key.startswith(f"{arch}.") for value in [np.asarray(md[key]).tolist()]}
        for md in (ours.metadata, gguf.metadata)
    )
    assert {*known} - {*mine} <= {"lfm2.rope.dimension_count"}  # all of a head, as without the key
    assert {key: mine[key] for key in known if key in mine} == {key: known[key] for key in known if key in mine}


@each
def test_it_computes_the_same(arch, tmp_path):
    gguf, folder = built(tmp_path, arch)
    tokens = [7, 3, 250, 9, 9, 31, 120, 64]
    assert np.array_equal(refmodel.load(folder).forward(tokens), refmodel.load(gguf.path).forward(tokens))


@pytest.mark.parametrize(
    ("arch", "config", "words"),
    [
        ("mistral3", {"rope_parameters": YARN | {"beta_fast": "many"}}, "rope_parameters is .*; expected finite numbers"),
        ("lfm2", {"conv_bias": True}, "conv_bias is True; expected False"),
        (
            "lfm2",
            {"layer_types": ["conv", "mamba", "full_attention", "conv"]},
            "layer_types is .*; expected full_attention and conv",
        ),
        ("lfm2", {"conv_L_cache": None}, "conv_L_cache is None; expected a whole number"),
    ],
)
def test_what_no_key_says_is_refused(arch, config, words, tmp_path):
    with pytest.raises(MetadataError, match=words):
        refmodel.load(built(tmp_path, arch, **config)[1])


def test_the_width_of_lfm2s_feed_forward_part_is_adjusted(tmp_path):
    """Two thirds of 39 are 26; times 1.5 that is 39, and the next multiple of 8 is 40."""
    asked = {"block_auto_adjust_ff_dim": True, "block_ff_dim": 39, "block_multiple_of": 1, "block_ffn_dim_multiplier": None}
    _, folder = built(tmp_path, "lfm2", **asked)
    assert opened(folder).metadata["lfm2.feed_forward_length"] == 26
    other = folders.write(tmp_path / "other", {}, {})
    config = (folder / "config.json").read_text()
    (other / "config.json").write_text(
        config.replace('"block_multiple_of": 1', '"block_multiple_of": 8').replace('dim_multiplier": null', 'dim_multiplier": 1.5')
    )
    (other / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert opened(other).metadata["lfm2.feed_forward_length"] == 40
