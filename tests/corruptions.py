"""What is done to a copy, and the key of the finding that must come first: folders that say or hold something else.

Each change is a function of the copy's folder. `BASE` is the source's configuration where a row names no other.
"""

import json

import folders
from folders import config, dropped, edit, file, tensors

FULL, SLIDING = "full_attention", "sliding_attention"
BASE = {
    "architectures": ["Qwen3ForCausalLM"],
    "torch_dtype": "bfloat16",
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6,
    "vocab_size": 16,
    "eos_token_id": 2,
}
TOKENIZER = json.dumps(
    {
        "version": "1.0",
        "normalizer": None,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b", "b a"]},
        "added_tokens": [{"id": 3, "content": "<s>", "special": True}],
    }
)
SETTINGS = json.dumps({"add_bos_token": True, "eos_token": "</s>", "chat_template": "{{ messages }}"})
TEXTS = {"tokenizer.json": TOKENIZER, "tokenizer_config.json": SETTINGS, "generation_config.json": '{"eos_token_id": 2}'}
CODE = {"auto_map": {"AutoModelForCausalLM": "modeling_x.M"}}


def said(text, **changes):
    """A JSON text with some values replaced; None removes one."""
    return json.dumps({key: value for key, value in (json.loads(text) | changes).items() if value is not None})


def model(**changes):
    return said(TOKENIZER, model=json.loads(TOKENIZER)["model"] | changes)


def without_template(text):
    """The template in a file of its own, as newer versions of transformers write it."""
    return lambda copy: (
        file("tokenizer_config.json", said(SETTINGS, chat_template=None))(copy),
        file("chat_template.jinja", text)(copy),
    )


def rogue(copy):
    """Two shards with an index, and a whole file of zeros next to them, which transformers would read."""
    folders.reshard(copy, 2)
    zeros = {name: 0 * folders.floats(t) for name, t in folders.read_folder(copy).tensors.items()}
    folders.write_tensors(copy / "model.safetensors", zeros, "BF16")


def repeated_header(copy):
    """A tensor with two entries in the header, of which programs take one or the other."""
    path = copy / "model.safetensors"
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + size].decode().rstrip()
    name = "model.layers.3.input_layernorm.weight"
    entry = json.loads(header)[name] | {"dtype": "F16"}
    header = header[:-1] + f', "{name}": {json.dumps(entry)}}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + raw[8 + size :])


def swap(a, b):
    return tensors(lambda t: t.update({a: t[b], b: t[a]}))


def scaled(name, factor):
    return tensors(lambda t: t.update({name: factor * t[name]}))


LAYER = "model.layers.4."
YARN = {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 64, "beta_fast": 32.0, "beta_slow": 1.0}
# name -> (what is done, the key that must come first, the model type, keys of the source that are not those of BASE)
FOLDERS = {
    "another model type": (config(model_type="qwen2"), "model_type"),
    "another class": (config(architectures=["Qwen2ForCausalLM"]), "architectures"),
    "another activation": (config(hidden_act="gelu"), "hidden_act"),
    "no activation": (config(hidden_act=None), "hidden_act"),
    "biases": (config(attention_bias=True), "attention_bias"),
    "a cap on the logits": (config(logits_soft_cap=30.0), "logits_soft_cap"),
    "no cause": (config(is_causal=False), "is_causal"),
    "fewer tokens": (config(vocab_size=15), "vocab_size"),
    "a shorter context by an older name": (config(n_ctx=17), "max_position_embeddings"),
    "heads of another width": (config(head_dim=16), "head_dim"),
    "no width of heads": (dropped("head_dim"), "head_dim"),
    "as many keys as by default": (dropped("num_key_value_heads"), "num_key_value_heads"),
    "another epsilon": (config(rms_norm_eps=1e-5), "rms_norm_eps"),
    "a false epsilon": (config(rms_norm_eps=False), "rms_norm_eps"),
    "half precision": (config(torch_dtype="float16"), "dtype"),
    "two precisions": (config(dtype="float32"), "dtype"),
    "a quantization": (config(quantization_config={"quant_method": "fp8"}), "quantization_config.quant_method"),
    "a quantization as MLX names it": (config(quantization={"bits": 4, "group_size": 64}), "quantization.bits"),
    "an object that code may read": (config(surgery={"factor": 2}), "surgery.factor", "never_seen", CODE),
    "code of its own": (config(**CODE), "auto_map.AutoModelForCausalLM"),
    "another number of layers": (config(num_hidden_layers=9), "num_hidden_layers"),
    "the source's number of layers": (config(num_hidden_layers=7), "num_hidden_layers"),
    "more layers than there are": (config(num_hidden_layers=12), "num_hidden_layers"),
    "a text part": (config(text_config={"num_hidden_layers": 10, "rope_theta": 5.0}), "text_config.num_hidden_layers"),
    "a head of its own": (config(tie_word_embeddings=False), "tie_word_embeddings"),
    "a head by default of its own": (dropped("tie_word_embeddings"), "tie_word_embeddings"),
    "a head that is by default the embedding": (
        config(tie_word_embeddings=False),
        "tie_word_embeddings",
        "gemma3_text",
        {"tie_word_embeddings": None},
    ),
    "RoPE by another base": (config(rope_theta=1e4), "rope_parameters.rope_theta"),
    "RoPE by the default base": (dropped("rope_theta"), "rope_parameters.rope_theta"),
    "RoPE scaled": (config(rope_scaling={"type": "linear", "factor": 2.0}), "rope_parameters.factor"),
    "RoPE with two types": (
        config(rope_scaling={"type": "default", "rope_type": "linear", "factor": 8.0}),
        "rope_parameters.factor",
    ),
    "RoPE with two bases": (config(rope_scaling={"rope_theta": 1e4, "rope_type": "default"}), "rope_parameters.rope_theta"),
    "RoPE in both spellings": (config(rope_parameters={"rope_theta": 1e4}), "rope_parameters.rope_theta"),
    "RoPE under a key that looks like a path": (
        lambda copy: (dropped("rope_theta")(copy), config(**{"rope_parameters.rope_theta": 1e6})(copy)),
        '"rope_parameters.rope_theta"',
    ),
    "RoPE scaled by a word": (config(rope_scaling="linear"), "rope_parameters.rope_scaling"),
    "RoPE scaled by a truth, where kinds have their own": (
        config(rope_scaling=True),
        "rope_parameters.rope_scaling",
        "gemma3_text",
    ),
    "YaRN's ends no longer kept as they are": (
        config(rope_parameters=YARN | {"rope_theta": 15e4}),
        "rope_parameters.truncate",
        "gpt_oss",
        {"rope_theta": None, "rope_parameters": YARN | {"rope_theta": 15e4, "truncate": False}},
    ),
    "a part that the class rotates": (
        config(rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": 1.0}),
        "rope_parameters.partial_rotary_factor",
        "glm4",
        {"rope_theta": None, "rope_parameters": {"rope_theta": 1e4}},
    ),
    "a short list of layers with RoPE": (config(no_rope_layers=[1, 1, 1, 0, 1, 1, 1, 0, 1]), "no_rope_layers", "smollm3"),
    "RoPE for a part": (config(partial_rotary_factor=0.5), "rope_parameters.partial_rotary_factor"),
    "one layer slides": (
        config(layer_types=[SLIDING] + [FULL] * 9, sliding_window=4, use_sliding_window=True),
        "layer_types",
    ),
    "layers slide by the place": (config(use_sliding_window=True, sliding_window=4, max_window_layers=3), "layer_types", "qwen2"),
    "kinds of the place": (dropped("layer_types"), "layer_types", "gemma2"),
    "a window of nothing": (config(sliding_window=0), "sliding_window", "mistral"),
    "no window": (config(sliding_window=None), "sliding_window", "mistral"),
    "layers without RoPE by the place": (dropped("no_rope_layers"), "no_rope_layers", "smollm3"),
    "experts of the place": (config(mlp_only_layers=[]), "mlp_only_layers", "qwen3_moe", {"mlp_only_layers": [2]}),
    "another start": (config(bos_token_id=0), "bos_token_id"),
    "more end tokens": (config(eos_token_id=[2, 3]), "eos_token_id"),
    "a falsehood of an unknown type": (config(use_alibi=False), "use_alibi", "never_seen"),
    "a key twice": (lambda copy: edit(copy, lambda text: text.replace("{", '{"rope_theta": 5.0, ', 1)), "the folder"),
    "no JSON": (file("config.json", "{"), "the folder"),
    "another vocabulary": (file("tokenizer.json", model(vocab={"a": 1, "b": 0, "ab": 2})), "tokenizer.json: model.vocab"),
    "merges in another order": (file("tokenizer.json", model(merges=["b a", "a b"])), "tokenizer.json: model.merges"),
    "bytes for unknown characters": (file("tokenizer.json", model(byte_fallback=True)), "tokenizer.json: model.byte_fallback"),
    "a special token that is none": (
        file("tokenizer.json", said(TOKENIZER, added_tokens=[{"id": 3, "content": "<s>"}])),
        "tokenizer.json: added_tokens",
    ),
    "a normalizer": (file("tokenizer.json", said(TOKENIZER, normalizer={"type": "NFC"})), "tokenizer.json: normalizer"),
    "a tokenizer that cannot be read": (file("tokenizer.json", '{"model": 3}'), "the tokenizer's files"),
    "a tokenizer that is no JSON": (file("tokenizer.json", "{"), "the tokenizer's files"),
    "no first token": (
        file("tokenizer_config.json", said(SETTINGS, add_bos_token=False)),
        "tokenizer_config.json: add_bos_token",
    ),
    "another end token by its text": (
        file("tokenizer_config.json", said(SETTINGS, eos_token={"content": "b"})),
        "tokenizer_config.json: eos_token",
    ),
    "another chat": (file("tokenizer_config.json", said(SETTINGS, chat_template="x")), "tokenizer_config.json: chat_template"),
    "no chat": (file("tokenizer_config.json", said(SETTINGS, chat_template=None)), "tokenizer_config.json: chat_template"),
    "a second chat": (
        file("tokenizer_config.json", said(SETTINGS, chat_template=[{"name": "tool_use", "template": "x"}])),
        "tokenizer_config.json: chat_template",
    ),
    "a chat that shadows another": (file("chat_template.jinja", "x"), "tokenizer_config.json: chat_template"),
    "another chat in its own file": (without_template("x"), "tokenizer_config.json: chat_template"),
    "ends by generation_config.json": (
        file("generation_config.json", '{"eos_token_id": [2, 3]}'),
        "generation_config.json: eos_token_id",
    ),
    "an adapter": (file("adapter_config.json", "{}"), "adapter_config.json"),
    "changed code": (file("modeling_x.py", "x = 2"), "modeling_x.py", "never_seen", CODE),
    "more code": (file("modeling_y.py", "y = 1"), "modeling_y.py", "never_seen", CODE),
    "no code": (lambda copy: (copy / "modeling_x.py").unlink(), "modeling_x.py", "never_seen", CODE),
    "two norms of a layer swapped": (
        swap(f"{LAYER}input_layernorm.weight", f"{LAYER}post_attention_norm.weight"),
        f"{LAYER}input_layernorm.weight",
    ),
    "a matrix of another layer": (
        swap(f"{LAYER}mlp.down_proj.weight", "model.layers.0.mlp.down_proj.weight"),
        "model.layers.0.mlp.down_proj.weight",
    ),
    "a scaled matrix": (scaled(f"{LAYER}self_attn.q_proj.weight", 0.76), f"{LAYER}self_attn.q_proj.weight"),
    "an identity layer": (
        tensors(
            lambda t: t.update({f"{LAYER}{n}.weight": 0 * t[f"{LAYER}{n}.weight"] for n in ("self_attn.o_proj", "mlp.down_proj")})
        ),
        f"{LAYER}self_attn.o_proj.weight",
    ),
    "a tensor more": (
        tensors(lambda t: t.update({f"{LAYER}self_attn.q_proj.bias": t["model.norm.weight"]})),
        f"{LAYER}self_attn.q_proj.bias",
    ),
    "another head": (tensors(lambda t: t.update({"lm_head.weight": 2 * t["model.embed_tokens.weight"]})), "lm_head.weight"),
    "no final norm": (tensors(lambda t: t.pop("model.norm.weight")), "model.norm.weight"),
    "a whole file next to the shards": (rogue, "the folder"),
    "a tensor listed twice": (repeated_header, "the folder"),
}

# The corruptions of test_verify.py and test_hf.py -> the key that must come first.
FIRST_GGUF = {
    "one stale kind": "qwen35.attention.recurrent_layers",
    "kinds not remapped": "qwen35.attention.recurrent_layers",
    "kinds shifted by one": "qwen35.attention.recurrent_layers",
    "kinds inverted": "qwen35.attention.recurrent_layers",
    "kinds too few": "qwen35.attention.recurrent_layers",
    "kinds too many": "qwen35.attention.recurrent_layers",
    "kinds of the source": "qwen35.attention.recurrent_layers",
    "prediction block called recurrent": "qwen35.attention.recurrent_layers",
    "one stale width": "qwen35.feed_forward_length",
    "widths not remapped": "qwen35.feed_forward_length",
    "widths of the source": "qwen35.feed_forward_length",
    "one width for all": "qwen35.feed_forward_length",
    "widths missing": "qwen35.feed_forward_length",
    "one wrong head count": "qwen35.attention.head_count_kv",
    "block count of the source": "qwen35.block_count",
    "block count one too high": "qwen35.block_count",
    "block count a word": "qwen35.block_count",
    "prediction blocks forgotten": "qwen35.nextn_predict_layers",
    "prediction blocks doubled": "qwen35.nextn_predict_layers",
    "rope base": "qwen35.rope.freq_base",
    "rope sections": "qwen35.rope.dimension_sections",
    "epsilon": "qwen35.attention.layer_norm_rms_epsilon",
    "heads": "qwen35.attention.head_count",
    "interval": "qwen35.full_attention_interval",
    "context": "qwen35.context_length",
    "state size": "qwen35.ssm.state_size",
    "end token": "tokenizer.ggml.eos_token_id",
    "one token": "tokenizer.ggml.tokens",
    "merges missing": "tokenizer.ggml.merges",
    "a key that the source lacks": "qwen35.expert_count",
    "another architecture": "the file",
    "a lying route": "refmodel.route",
    "a lying map": "refmodel.map",
    "a map that is none": "refmodel.map",
    "a map of words": "refmodel.map",
    "two tensors of a block swapped": "blk.4.ffn_gate.weight",
    "a tensor swapped between blocks": "blk.0.attn_norm.weight",
    "a tensor of the next block": "blk.5.ffn_down.weight",
    "decays of another block": "blk.1.ssm_a",
    "a whole block off by one": "position 4",
    "two blocks swapped": "position 3",
    "the map shifted": "position 0",
    "a block of another kind": "position 5",
    "a block of another model": "position 8",
    "embedding of another model": "token_embd.weight",
    "final norm of another model": "output_norm.weight",
    "the embedding for a head": "output.weight",
    "no head": "output.weight",
    "a tensor missing": "blk.3.ssm_dt.bias",
    "a tensor too many": "blk.0.attn_q.bias",
    "the last block missing": "blk.9.attn_norm.weight",
    "one block too many": "blk.10.attn_norm.weight",
    "the prediction block first": "position 0",
    "prediction tensors dropped": "blk.9.nextn.eh_proj.weight",
    "one bit": "blk.5.ssm_out.weight",
    "the last byte": "output.weight",
    "a tensor of zeros": "blk.2.attn_k.weight",
    "half a tensor": "blk.7.ffn_up.weight",
    "another precision, another tensor": "blk.0.ffn_up.weight",
    "rows for columns": "blk.0.ffn_up.weight",
}
FIRST_FOLDER = {
    "one stale kind": "text_config.layer_types",
    "kinds not remapped": "text_config.layer_types",
    "kinds of the source": "text_config.layer_types",
    "numbers of layers not remapped": "text_config.mlp_only_layers",
    "the source's count": "text_config.num_hidden_layers",
    "a count too high": "num_hidden_layers",
    "modules not renumbered": "quantization_config.modules_to_not_convert",
    "another interval": "text_config.full_attention_interval",
    "another vision tower": "vision_config.depth",
    "a lying spec": "rys_relayer.spec",
    "a lying map": "rys_relayer.layer_indices",
    "another source's count": "rys_relayer.source_num_layers",
    "a wrong count of its own": "rys_relayer.target_num_layers",
    "the last bit": "lm_head.weight",
    "a truncated tail": "the folder",
    "only the header": "the folder",
    "bytes behind the end": "the folder",
    "two layers' tensors swapped": "model.language_model.layers.4.mlp.gate.weight",
    "two towers' tensors swapped": "model.visual.blocks.0.attn.qkv.weight",
    "the map shifted": "position 0",
    "two layers swapped": "position 3",
    "a layer of another kind": "position 5",
    "a layer of another model": "position 3",
    "one layer too many": "model.language_model.layers.8.linear_attn.A_log",
    "a tensor missing": "model.language_model.layers.4.linear_attn.A_log",
    "no prediction head": "mtp.layers.0.mlp.weight",
    "another shape": "lm_head.weight",
    "another type": "lm_head.weight",
    "a tensor in two files": "the folder",
    "no configuration": "the folder",
}
