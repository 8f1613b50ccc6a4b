"""Keys of a copy that its source lacks, or that its source has and it lacks: those that change nothing change no verdict."""

import pytest
import tiny
from gguf import GGUFValueType as V
from shares import diagonal
from test_living import changed

import refmodel
from refmodel.gguf.reader import read
from refmodel.gguf.writer import field
from refmodel.surgery.gguf import routed
from refmodel.surgery.verify import Options, verify

QUICK = Options(forward=False)
ARCHITECTURES = ("llama", "mistral3", "qwen2", "qwen3", "qwen3moe", "qwen35", "qwen35moe", "qwen3next", "gemma3", "lfm2")


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Architecture -> its model and a copy under a route."""
    made, folder = {}, tmp_path_factory.mktemp("copies")

    def of(arch):
        if arch not in made:
            model = refmodel.load(tiny.build(folder / f"{arch}.gguf", arch, seed=6))
            made[arch] = model, routed(model, model.route("blocks:1,3"), folder / f"{arch}-copy.gguf")
        return made[arch]

    return of


def u32(value):
    return lambda model: field(V.UINT32, value)


def f32(value):
    return lambda model: field(V.FLOAT32, value)


SAME = {  # below general.architecture, unless the key says otherwise
    "no experts": ("expert_shared_count", u32(0)),
    "no groups of experts": ("expert_group_count", u32(0)),
    "shares of experts times 1": ("expert_weights_scale", f32(1.0)),
    "no pooling": ("pooling_type", u32(0)),
    "no clamp": ("attention.clamp_kqv", f32(0.0)),
    "no scale of its own": ("attention.scale", f32(0.0)),
    "logits times 1": ("logit_scale", f32(1.0)),
    "no cap on the scores": ("attn_logit_softcapping", f32(0.0)),
    "no dense blocks": ("leading_dense_block_count", u32(0)),
    "where the tensors are from": ("tensor_data_layout", lambda model: field(V.STRING, "Meta AI original pth")),
    "a fine-tuned RoPE": ("rope.scaling.finetuned", lambda model: field(V.BOOL, True)),
    "the width that goes out": ("embedding_length_out", lambda model: field(V.UINT32, model.hp.n_embd)),
    "what sliding blocks rotate": ("rope.dimension_count_swa", lambda model: field(V.UINT32, model.hp.rope.n_rot)),
    "keys of sliding blocks": ("attention.key_length_swa", lambda model: field(V.UINT32, model.hp.head_dim)),
    "a padding token": ("tokenizer.ggml.padding_token_id", u32(3)),
    "a masking token": ("tokenizer.ggml.mask_token_id", u32(4)),
    "no last token": ("tokenizer.ggml.add_eos_token", lambda model: field(V.BOOL, False)),
    "the end of a turn, which is the end": ("tokenizer.ggml.eot_token_id", lambda model: field(V.UINT32, model.tokenizer.eos)),
}
OTHER = {
    "experts": ("expert_shared_count", u32(2)),
    "shares of experts doubled": ("expert_weights_scale", f32(2.0)),
    "a clamp": ("attention.clamp_kqv", f32(8.0)),
    "a scale of its own": ("attention.scale", f32(0.5)),
    "logits halved": ("logit_scale", f32(0.5)),
    "a cap on the scores": ("attn_logit_softcapping", f32(50.0)),
    "a cap on the logits": ("final_logit_softcapping", f32(30.0)),
    "RoPE scaled": ("rope.scaling.factor", f32(2.0)),
    "dense blocks": ("leading_dense_block_count", u32(1)),
    "a part of a head rotated": ("rope.dimension_count_swa", u32(4)),
    "a key that nobody knows": ("use_alibi", lambda model: field(V.BOOL, False)),
    "a last token": ("tokenizer.ggml.add_eos_token", lambda model: field(V.BOOL, True)),
    "another end": ("tokenizer.ggml.eot_token_id", u32(5)),
    "a template": ("tokenizer.chat_template", lambda model: field(V.STRING, "{{ messages }}")),
}


def full(model, name):
    return name if name.startswith("tokenizer.") else f"{model.architecture}.{name}"


@pytest.mark.parametrize(("name", "arch"), diagonal(list(SAME), ARCHITECTURES))
def test_a_key_that_says_nothing_changes_no_verdict(name, arch, copies, tmp_path):
    """Whether the copy has it or the source."""
    model, copy = copies(arch)
    key, value = SAME[name]
    more = {full(model, key): value(model)}
    assert not more.keys() & model.file.metadata.fields.keys()
    report = verify(changed(copy, tmp_path / "more.gguf", **more), model.path, options=QUICK)
    assert (report.verdict, report.findings) == ("proved except forward", [])
    source = changed(model.path, tmp_path / "source.gguf", **more)
    fewer = routed(refmodel.load(source), model.route("blocks:1,3"), tmp_path / "fewer.gguf")
    fewer = changed(fewer, tmp_path / "fewest.gguf", drop=more)
    report = verify(fewer, source, options=QUICK)
    assert (report.verdict, report.findings) == ("proved except forward", [])


@pytest.mark.parametrize(("name", "arch"), diagonal(list(OTHER), ARCHITECTURES))
def test_a_key_that_says_something_is_named(name, arch, copies, tmp_path):
    model, copy = copies(arch)
    key, value = OTHER[name]
    path = changed(copy, tmp_path / "more.gguf", **{full(model, key): value(model)})
    report = verify(path, model.path, options=QUICK)
    assert report.verdict == "wrong"
    assert report.findings[0][1].key == full(model, key)


def test_another_padding_token_is_no_other_model(copies, tmp_path):
    """As tools that train set it; both files have the key."""
    model, copy = copies("qwen3")
    key = "tokenizer.ggml.padding_token_id"
    source = changed(model.path, tmp_path / "source.gguf", **{key: field(V.UINT32, 3)})
    other = changed(copy, tmp_path / "other.gguf", **{key: field(V.UINT32, 7)})
    assert verify(other, source, options=QUICK).findings == []
    ends = changed(copy, tmp_path / "ends.gguf", **{"tokenizer.ggml.eos_token_id": field(V.UINT32, 7)})
    assert [found.key for _, found in verify(ends, source, options=QUICK).findings] == ["tokenizer.ggml.eos_token_id"]
    assert read(other).metadata[key] == 7
