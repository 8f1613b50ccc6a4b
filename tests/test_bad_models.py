"""Files that are good GGUFs and bad models: the missing or contradicting key or tensor is named, and who needs it."""

import tracemalloc

import gguf
import pytest
import tiny

import refmodel
from refmodel.errors import RefmodelError
from refmodel.gguf.reader import read
from refmodel.gguf.writer import field, write

REQUIRED = ["block_count", "embedding_length", "context_length", "attention.head_count", "attention.layer_norm_rms_epsilon"]
REQUIRED += [
    "rope.dimension_sections",
    *(f"ssm.{k}" for k in ("conv_kernel", "inner_size", "state_size", "time_step_rank", "group_count")),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return read(tiny.build(tmp_path_factory.mktemp("good") / "m.gguf", "qwen35", seed=1))


def loaded(tmp_path, fields, tensors):
    return refmodel.load(write(tmp_path / "bad.gguf", fields, tensors.values()))


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_named(good, tmp_path, key):
    fields = {k: v for k, v in good.metadata.fields.items() if k != f"qwen35.{key}"}
    with pytest.raises(RefmodelError, match=rf"bad\.gguf: metadata key qwen35\.{key} is missing"):
        loaded(tmp_path, fields, good.tensors)


@pytest.mark.parametrize("name", ["token_embd.weight", "output_norm.weight", "blk.1.ssm_a", "blk.2.attn_k_norm.weight"])
def test_a_missing_tensor_is_named_with_its_block(good, tmp_path, name):
    tensors = {k: v for k, v in good.tensors.items() if k != name}
    who = "block 1 .delta." if ".1." in name else "block 2 .attention." if ".2." in name else "the whole model"
    with pytest.raises(RefmodelError, match=rf"tensor {name} is missing; {who} needs it"):
        loaded(tmp_path, good.metadata.fields, tensors)


def test_a_tensor_that_would_be_ignored_is_refused(good, tmp_path):
    from dataclasses import replace

    extra = replace(good.tensors["output_norm.weight"], name="blk.0.attn_q.bias")
    with pytest.raises(RefmodelError, match=r"blk\.0\.attn_q\.bias is a tensor that qwen35 does not read"):
        loaded(tmp_path, good.metadata.fields, {**good.tensors, extra.name: extra})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("feed_forward_length", 30, r"ffn_gate\.weight has shape .26, 22.; .* needs .30, 22."),
        ("attention.head_count_kv", 3, r"attn_k\.weight has shape"),
        ("ssm.inner_size", 30, "inner_size is 30; .* only for 72"),
        ("ssm.group_count", 2, "is 9; expected a multiple of .*group_count, which is 2"),
        ("ssm.group_count", 0, "group_count"),
        ("attention.head_count", 0, "head_count"),
        ("attention.head_count_kv", 0, "head_count_kv"),
        ("ssm.conv_kernel", 0, "conv_kernel"),
        ("rope.dimension_count", 5, "even"),
        ("rope.dimension_count", 900, "dimension_count"),
        ("full_attention_interval", 0, "interval"),
        ("full_attention_interval", 2, "missing|shape"),
        ("block_count", 0, "block_count"),
        ("block_count", 6, "blk.5.* is missing"),
        ("block_count", 4, "blk.4.* does not read"),
        ("block_count", 2**31, "block_count"),
        ("nextn_predict_layers", 9, "nextn_predict_layers"),
        ("embedding_length", 0, "embedding_length|shape"),
    ],
)
def test_a_contradiction_is_named(good, tmp_path, key, value, words):
    fields = dict(good.metadata.fields) | {f"qwen35.{key}": field(gguf.GGUFValueType.UINT32, value)}
    with pytest.raises(RefmodelError, match=words) as caught:
        loaded(tmp_path, fields, good.tensors)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [4, 6])
def test_a_list_of_kinds_has_one_value_for_each_block(good, tmp_path, length):
    kinds = field(gguf.GGUFValueType.ARRAY, [True] * length, gguf.GGUFValueType.BOOL)
    with pytest.raises(RefmodelError, match=rf"an array of {length} BOOL; expected .* of length 5"):
        loaded(tmp_path, dict(good.metadata.fields) | {"qwen35.attention.recurrent_layers": kinds}, good.tensors)


@pytest.mark.parametrize("base", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rope_base_is_a_positive_number(good, tmp_path, base):
    fields = dict(good.metadata.fields) | {"qwen35.rope.freq_base": field(gguf.GGUFValueType.FLOAT32, base)}
    with pytest.raises(RefmodelError, match=r"rope\.freq_base is .*; expected 1e-06 to 1e\+30: correct the key"):
        loaded(tmp_path, fields, good.tensors)


NAN, INF, HUGE = float("nan"), float("inf"), [2**27, 2**28, 2**31 - 1, 2**31, 2**32 - 1]
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}
# key -> values outside its range
NUMBERS = {
    "rope.freq_base": [0.0, -1.0, 1e-300, 1e300, NAN, INF],
    "rope.scaling.factor": [-1.0, 1e-300, 1e300, NAN, INF, -INF],
    "rope.scale_linear": [-1.0, 1e-300, NAN, INF],
    "rope.scaling.attn_factor": [0.0, -1.0, 1e-300, NAN, INF],
    "rope.scaling.original_context_length": [2**31],
    "attention.layer_norm_rms_epsilon": [0.0, -1e-6, 1e-300, 2.0, NAN, INF],
    "attention.key_length": [0, *HUGE],
    "rope.dimension_count": [0, *HUGE],
    "embedding_length": HUGE,
    "attention.head_count": HUGE,
    "attention.head_count_kv": HUGE,
    "context_length": [0, 2**31],
    "ssm.state_size": [0, *HUGE],
    "ssm.time_step_rank": [0, *HUGE],
    "ssm.group_count": HUGE,
    "ssm.conv_kernel": [1, *HUGE],
    "ssm.inner_size": [0, *HUGE],
    "full_attention_interval": [0, 2**31],
    "feed_forward_length": HUGE,
}


def number(value):
    """As a file has it: a whole number of 32 bits, or a float of 32 bits, or of 64 if it needs them."""
    if isinstance(value, str):
        return field(gguf.GGUFValueType.STRING, value)
    if isinstance(value, int):
        return field(gguf.GGUFValueType.UINT32, value)
    wide = value == value and 0 < abs(value) < INF and not 1e-38 < abs(value) < 1e38
    return field(gguf.GGUFValueType.FLOAT64 if wide else gguf.GGUFValueType.FLOAT32, value)


@pytest.mark.parametrize("yarn", [False, True])
@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in NUMBERS.items() for value in values])
def test_a_number_is_in_its_range_before_anything_is_made_of_it(good, tmp_path, key, value, yarn):
    fields = dict(good.metadata.fields) | {f"qwen35.{name}": number(v) for name, v in (YARN if yarn else {}).items()}
    tracemalloc.start()
    with pytest.raises(RefmodelError, match=r"bad\.gguf: qwen35\.[a-z_.]+ is \S+; .*: correct the key") as caught:
        loaded(tmp_path, fields | {f"qwen35.{key}": number(value)}, good.tensors)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()
    assert "True" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.freq_base_swa", 0.0),
        ("rope.freq_base_swa", NAN),
        ("attention.sliding_window", 2**31),
        ("final_logit_softcapping", -1.0),
        ("final_logit_softcapping", 1e-300),
        ("final_logit_softcapping", NAN),
    ],
)
def test_a_number_of_gemma3_is_in_its_range(key, value, tmp_path):
    good = read(tiny.build(tmp_path / "m.gguf", "gemma3", seed=1))
    with pytest.raises(RefmodelError, match=rf"gemma3\.{key} is \S+; expected .*: correct the key"):
        loaded(tmp_path, dict(good.metadata.fields) | {f"gemma3.{key}": number(value)}, good.tensors)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.temperature_scale", NAN),
        ("attention.temperature_scale", -0.1),
        ("rope.scaling.original_context_length", 0),
        ("rope.scaling.yarn_beta_fast", 0.0),
        ("rope.scaling.yarn_beta_slow", -1.0),
        ("rope.scaling.yarn_log_multiplier", 1e300),
        ("expert_count", 4),
    ],
)
def test_a_number_of_mistral3_is_in_its_range(key, value, tmp_path):
    good = read(tiny.build(tmp_path / "m.gguf", "mistral3", seed=1))
    with pytest.raises(RefmodelError, match=rf"mistral3\.{key} is \S+; .*: correct the key"):
        loaded(tmp_path, dict(good.metadata.fields) | {f"mistral3.{key}": number(value)}, good.tensors)


def test_what_lfm2_is_not_defined_for_is_refused(tmp_path):
    good, u32 = read(tiny.build(tmp_path / "m.gguf", "lfm2", seed=1)), gguf.GGUFValueType.UINT32
    heads = lambda *of_blocks: field(gguf.GGUFValueType.ARRAY, of_blocks, u32)
    for key, value, words in (
        ("attention.head_count_kv", heads(0, 2, 4, 0), r"is \[2, 4\]; expected one number for all blocks, or 0"),
        ("attention.head_count_kv", heads(0, 0, 0, 0), "is 0; expected 1 to 4"),
        ("attention.head_count_kv", heads(0, 2), "is an array of 2 UINT32; expected .* of length 4"),
        ("attention.sliding_window", number(5), "is 5; expected 0"),
        ("attention.causal", field(gguf.GGUFValueType.BOOL, False), "is False; expected true"),
        ("shortconv.l_cache", number(1), "is 1; expected 2 to "),
        ("shortconv.l_cache", number(1 << 30), "expected 2 to "),
    ):
        with pytest.raises(RefmodelError, match=rf"lfm2\.{key}.* {words}"):
            loaded(tmp_path, dict(good.metadata.fields) | {f"lfm2.{key}": value}, good.tensors)
    with pytest.raises(
        RefmodelError, match=r"lfm2\.embedding_length is 40; expected a multiple of lfm2\.attention\.head_count, .* 6:"
    ):
        loaded(tmp_path, dict(good.metadata.fields) | {"lfm2.attention.head_count": number(6)}, good.tensors)


@pytest.mark.parametrize(("arch", "key"), [("qwen35", "rope.freq_base"), ("gemma3", "rope.freq_base_swa")])
def test_yarn_needs_a_base_above_1(arch, key, tmp_path):
    """Its pairs are found by the logarithm of the base."""
    good = read(tiny.build(tmp_path / "m.gguf", arch, seed=1, scaling={"type": "yarn", "factor": 4.0}))
    with pytest.raises(RefmodelError, match=rf"{key} is 1\.0; expected 1\.001 to 1e\+30: correct the key"):
        loaded(tmp_path, dict(good.metadata.fields) | {f"{arch}.{key}": number(1.0)}, good.tensors)


@pytest.mark.parametrize("sections", [[0, 0, 0, 3], [0, 0, 0, 0], [9, 9, 9, 0]])
def test_sections_turn_some_pair_and_not_more_than_there_are(good, tmp_path, sections):
    fields = {"qwen35.rope.dimension_sections": field(gguf.GGUFValueType.ARRAY, sections, gguf.GGUFValueType.INT32)}
    with pytest.raises(RefmodelError, match=r"dimension_sections is \[.*\]; expected numbers of pairs, at most 14 in all"):
        loaded(tmp_path, dict(good.metadata.fields) | fields, good.tensors)


def test_a_section_is_not_negative(good, tmp_path):
    fields = {"qwen35.rope.dimension_sections": field(gguf.GGUFValueType.ARRAY, [-1, 2, 2, 0], gguf.GGUFValueType.INT32)}
    with pytest.raises(RefmodelError, match=r"dimension_sections is -1; expected 0 to 2147483647: correct the key"):
        loaded(tmp_path, dict(good.metadata.fields) | fields, good.tensors)


def test_what_is_said_names_the_file_the_key_what_was_found_what_is_expected_and_what_to_do(good, tmp_path):
    with pytest.raises(RefmodelError) as caught:
        loaded(tmp_path, dict(good.metadata.fields) | {"qwen35.attention.key_length": number(2**27)}, good.tensors)
    found, expected = "attention.key_length is 134217728", "expected 1 to 45"
    assert str(caught.value) == f"{tmp_path}/bad.gguf: qwen35.{found}; {expected}: correct the key, or convert the model again"


SCALES = {"qwen2": ["ffn_up"], "gemma3": ["ffn_down"], "qwen3next": ["attn_qkv", "ssm_out"], "qwen3moe": ["ffn_gate_inp"]}


@pytest.mark.parametrize(("arch", "matrix"), [(arch, matrix) for arch in SCALES for matrix in SCALES[arch]])
def test_a_scale_that_llama_cpp_would_not_multiply_by_is_refused(arch, matrix, tmp_path):
    from dataclasses import replace

    good = read(tiny.build(tmp_path / "m.gguf", arch, seed=1, scales=True))
    like = next(tensor for name, tensor in good.tensors.items() if name.endswith("attn_q.scale"))
    extra = replace(like, name=f"blk.0.{matrix}.scale")
    with pytest.raises(RefmodelError, match=rf"blk\.0\.{matrix}\.scale is a tensor that {arch} does not read"):
        loaded(tmp_path, good.metadata.fields, {**good.tensors, extra.name: extra})


@pytest.mark.parametrize("matrix", ["ffn_gate", "ffn_up", "ffn_down"])
def test_a_bias_that_llama_cpp_would_scale_is_refused(matrix, tmp_path):
    path = tiny.build(tmp_path / "m.gguf", "llama", seed=1, biases=[matrix], scales=True)
    with pytest.raises(RefmodelError, match=rf"m\.gguf: blk\.0\.{matrix} has a bias and a scale; .*: remove one of") as caught:
        refmodel.load(path)
    assert "\n" not in str(caught.value)


# Their loaders know no such tensor; qwen2's graph would add the first.
BIASES = {"qwen2": "attn_output", "qwen3": "ffn_up", "gemma3": "ffn_down", "qwen35": "attn_output"}


@pytest.mark.parametrize("arch", BIASES)
def test_a_bias_that_llama_cpp_would_not_add_is_refused(arch, tmp_path):
    path = tiny.build(tmp_path / "m.gguf", arch, seed=1, n_layer=1, recurrent=[False], biases=[BIASES[arch]])
    with pytest.raises(RefmodelError, match=rf"blk\.0\.{BIASES[arch]}\.bias is a tensor that {arch} does not read"):
        refmodel.load(path)


def test_biases_beside_a_matrix_of_three_are_all_there_or_none(tmp_path):
    good = read(tiny.build(tmp_path / "m.gguf", "llama", seed=1, fused=["attn_qkv"]))
    alone = read(tiny.build(tmp_path / "alone.gguf", "llama", seed=1, biases=tiny.QKV))
    biases = {name: tensor for name, tensor in alone.tensors.items() if name.endswith(".bias")}
    assert loaded(tmp_path, good.metadata.fields, {**good.tensors, **biases}).forward([1, 2, 3]).shape[0] == 3
    del biases["blk.1.attn_k.bias"]
    with pytest.raises(RefmodelError, match=r"blk\.1\.attn_.\.bias is a tensor that llama does not read"):
        loaded(tmp_path, good.metadata.fields, {**good.tensors, **biases})


def test_a_scale_has_one_number(tmp_path):
    from dataclasses import replace

    good = read(tiny.build(tmp_path / "m.gguf", "qwen35", seed=1, scales=True))
    wrong = replace(good.tensors["output_norm.weight"], name="blk.0.ffn_up.scale")
    with pytest.raises(RefmodelError, match=r"blk\.0\.ffn_up\.scale has shape .22,.; .* needs .1,."):
        loaded(tmp_path, good.metadata.fields, {**good.tensors, wrong.name: wrong})


@pytest.mark.parametrize(("arch", "whole"), [("qwen3moe", "ffn_gate_up_exps"), ("qwen35", "ssm_in")])
def test_matrices_in_one_are_refused_where_llama_cpp_does_not_know_them(arch, whole, tmp_path):
    with pytest.raises(RefmodelError, match="is missing"):
        refmodel.load(tiny.build(tmp_path / "m.gguf", arch, seed=1, fused=[whole]))


def test_a_tensor_of_several_matrices_has_the_rows_of_all(tmp_path):
    from dataclasses import replace

    good = read(tiny.build(tmp_path / "m.gguf", "llama", seed=1, fused=["attn_qkv"]))
    wrong = replace(good.tensors["blk.0.attn_output.weight"], name="blk.0.attn_qkv.weight")
    with pytest.raises(RefmodelError, match=r"blk\.0\.attn_qkv\.weight has shape .22, 60.; .* needs .100, 22."):
        loaded(tmp_path, good.metadata.fields, {**good.tensors, wrong.name: wrong})
