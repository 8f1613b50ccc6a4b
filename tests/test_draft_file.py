"""A trunk and its prediction block in two files compute what one file with both computes."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
from gguf import GGUFValueType as T
from near import same_bits
from typer.testing import CliRunner

import refmodel
from refmodel.arch import ARCHITECTURES
from refmodel.cli import app
from refmodel.compare.other_side import compare
from refmodel.errors import MetadataError, RefmodelError
from refmodel.gguf.reader import read
from refmodel.gguf.writer import field, write
from refmodel.llamacpp.profile import DEFAULT
from refmodel.numerics import LLAMACPP
from refmodel.surgery.live import live

TOKENS = [7, 3, 250, 9, 9, 31, 84, 2]
OUTSIDE = ("token_embd.weight", "output_norm.weight", "output.weight")

PREDICTING = [name for name, arch in ARCHITECTURES.items() if arch.FACTS.predicts]


def two_files(whole, folder):
    """The same model as llama.cpp's converter writes it with --no-mtp and --mtp."""
    file, arch = read(whole), read(whole).metadata["general.architecture"]
    fields, n = file.metadata.fields, file.metadata[f"{arch}.block_count"] - 1
    trunk = {key: value for key, value in fields.items() if not key.endswith("nextn_predict_layers")}
    trunk[f"{arch}.block_count"] = field(T.UINT32, n)
    if (key := f"{arch}.attention.recurrent_layers") in trunk:
        trunk[key] = field(T.ARRAY, file.metadata[key][:n], T.BOOL)
    blocks = [t for name, t in file.tensors.items() if not name.startswith(f"blk.{n}.")]
    draft = [t for name, t in file.tensors.items() if name.startswith((f"blk.{n}.", *OUTSIDE))]
    return write(folder / "trunk.gguf", trunk, blocks), write(folder / "draft.gguf", fields, draft)


@pytest.mark.parametrize("shape", [{}, {"own_head": True}, {"tied": True}, {"recurrent": [1, 0, 1, 1, 0]}], ids=str)
@pytest.mark.parametrize("arch", PREDICTING)
def test_both_files_compute_what_one_computes(arch, shape, tmp_path):
    whole = refmodel.load(tiny.build(tmp_path / "m.gguf", arch, seed=31, n_nextn=1, **shape))
    trunk, draft = two_files(whole.path, tmp_path)
    one, two = (model.session("blocks:1,3", mtp=True) for model in (whole, refmodel.load(trunk, draft)))
    same_bits(two.forward(TOKENS), one.forward(TOKENS))
    same_bits(two.draft.logits(), one.draft.logits())
    same_bits(refmodel.load(trunk).forward(TOKENS), whole.forward(TOKENS))


def test_embedding_norm_and_head_of_the_block_are_the_drafts_own(tmp_path):
    """llama.cpp reads them of the draft's file, whatever the trunk's are."""
    trunk, draft = two_files(tiny.build(tmp_path / "m.gguf", "qwen35", seed=31, n_nextn=1), tmp_path)
    file = read(draft)
    doubled = {name: replace(t, data=(2 * t.data.view(np.float32)).view(np.uint8)) for name, t in file.tensors.items()}
    before = refmodel.load(trunk, draft).session(mtp=True)
    trunks, guesses = before.forward(TOKENS), before.draft.logits()
    for name in OUTSIDE[::2]:  # the block has a norm of its own
        changed = write(tmp_path / "other.gguf", file.metadata.fields, (file.tensors | {name: doubled[name]}).values())
        session = refmodel.load(trunk, changed).session(mtp=True)
        same_bits(session.forward(TOKENS), trunks)
        assert (session.draft.logits() != guesses).any()
    same_bits(session.draft.logits(), 2 * guesses)  # the head, of which every weight is doubled


def test_run_and_trace_take_it_and_info_says_what_it_is(tmp_path):
    trunk, draft = two_files(tiny.build(tmp_path / "m.gguf", "qwen35", seed=31, n_nextn=1), tmp_path)
    run = lambda *words: CliRunner().invoke(app, [*map(str, words)])
    done = run("run", trunk, "--tokens", "7,3,9", "-n", "5", "--mtp-file", draft, "--json")
    assert '"drafted": ' in done.stdout, done.output
    done = run("trace", trunk, "--tokens", "7,3,9", "--mtp-file", draft, "--filter", "mtp_", "-o", tmp_path / "t.safetensors")
    assert "1" in done.stdout, done.output
    with pytest.raises(MetadataError, match=r"a prediction block .MTP. without the blocks before it, .* with --mtp-file"):
        refmodel.load(draft)


def changed(path, folder, **keys):
    file = read(path)
    fields = file.metadata.fields | {f"qwen35.{key}": field(T.UINT32, value) for key, value in keys.items()}
    return write(folder / "changed.gguf", fields, file.tensors.values())


def test_a_draft_of_another_model_is_refused_by_name(tmp_path):
    whole = tiny.build(tmp_path / "m.gguf", "qwen35", seed=31, n_nextn=1)
    trunk, draft = two_files(whole, tmp_path)
    other = tiny.build(tmp_path / "o.gguf", "qwen35moe", seed=31, n_nextn=1)
    dense = tiny.build(tmp_path / "l.gguf", "llama", seed=31)
    for model, given, message in (
        (trunk, other, "general.architecture is 'qwen35moe'; .*trunk.gguf is 'qwen35'"),
        (dense, dense, "llama has no prediction block .MTP.; qwen35, qwen35moe, qwen3next may have one"),
        (whole, draft, "m.gguf: has a prediction block .MTP. of its own; leave out --mtp-file"),
        (draft, trunk, "draft.gguf: .*a prediction block .MTP. without the blocks before it"),
        (trunk, trunk, "trunk.gguf: qwen35.nextn_predict_layers is 0; a draft has a prediction block"),
        (trunk, changed(draft, tmp_path, block_count=9), "is a draft for 8 blocks; .*trunk.gguf has 5"),
    ):
        with pytest.raises(RefmodelError, match=message):
            refmodel.load(model, given)
    for keys, message in (
        ({"feed_forward_length": 99}, "qwen35.feed_forward_length is 99; it is 26 in .*trunk.gguf"),
        ({"block_count": 7, "nextn_predict_layers": 2}, "block_count|prediction"),
    ):
        with pytest.raises(RefmodelError, match=message):
            refmodel.load(trunk, changed(draft, tmp_path, **keys)).session(mtp=True)
    empty = write(tmp_path / "empty.gguf", read(draft).metadata.fields, [read(draft).tensors["token_embd.weight"]])
    with pytest.raises(RefmodelError, match=r"empty.gguf: has no tensor blk\.5\.nextn\.\*: it holds no prediction block"):
        refmodel.load(trunk, empty)


@pytest.mark.live
@pytest.mark.parametrize("arch", PREDICTING)
def test_llama_cpp_computes_the_same_bits(arch, tmp_path, llama_lib):
    model = refmodel.load(*two_files(tiny.build(tmp_path / "m.gguf", arch, seed=31, n_nextn=1), tmp_path))
    other = live(model, model.route(), [TOKENS, [5]], DEFAULT, llama_lib, False, tmp_path, mtp=True)
    rows = compare(model, model.route(), other, LLAMACPP, "", lambda name: None).rows
    assert not [row.name for row in rows if row.differ]
    assert any(row.name.startswith("mtp_") for row in rows)
