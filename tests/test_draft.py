"""The draft head: a prediction block beside the trunk, and what it must not change."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import straight
import tiny
from near import nmse, same_bits
from typer.testing import CliRunner

import refmodel
from refmodel.cli import app
from refmodel.errors import RefmodelError
from refmodel.gguf.writer import write
from refmodel.llamacpp.nodes import table
from refmodel.text.generate import generate

TOKENS = [7, 3, 250, 9, 9, 31, 84, 2]
each = pytest.mark.parametrize("arch", sorted(tiny.DELTA))


def built(folder, arch, **shape):
    return refmodel.load(tiny.build(folder / "m.gguf", arch, seed=31, n_nextn=1, **shape))


@each
@pytest.mark.parametrize("shape", [{}, {"own_head": True}, {"tied": True}], ids=lambda shape: next(iter(shape), "shared"))
def test_its_logits_are_those_of_the_formulas(arch, shape, tmp_path):
    model = built(tmp_path, arch, **shape)
    for route in (None, [0, 1, 2, 1, 2, 4]):
        session = model.session(route, "oracle", mtp=True)
        session.forward(TOKENS)
        assert nmse(session.draft.logits(), straight.draft(model.path, TOKENS, route)) <= 1e-24


@each
def test_the_trunk_computes_the_same_bits_with_it_and_a_split_changes_none_of_its_own(arch, tmp_path):
    model = built(tmp_path, arch)
    whole, parts = model.session(mtp=True), model.session(mtp=True)
    same_bits(whole.forward(TOKENS), model.forward(TOKENS))
    drafts = []
    for part in (TOKENS[:3], TOKENS[3:4], TOKENS[4:]):
        parts.forward(part, "last")
        drafts.append(parts.draft.logits())
    same_bits(np.concatenate(drafts), whole.draft.logits())
    ids, best = parts.draft.likeliest(3)
    same_bits(best, drafts[-1][-1][ids])
    assert ids[0] == drafts[-1][-1].argmax()


@pytest.mark.parametrize("numerics", ["fast", "reference", "llamacpp"])
def test_it_changes_no_token_that_is_written(numerics, tmp_path):
    model = built(tmp_path, "qwen35")
    session = model.session("blocks:1,3", numerics, mtp=True)
    assert list(generate(session, [1, 2, 3], 9)) == list(generate(model.session("blocks:1,3", numerics), [1, 2, 3], 9))
    assert session.draft.guessed == 9


def test_what_it_guesses_right_is_counted(tmp_path):
    """A block that hands on the hidden state says again what the trunk said last: it is right where a token is repeated."""
    model, block = built(tmp_path, "qwen35", tied=True), "blk.5."
    E = model.hp.n_embd
    handed_on = {
        f"{block}nextn.eh_proj.weight": np.concatenate([np.zeros((E, E)), np.eye(E)], axis=1),
        f"{block}nextn.hnorm.weight": np.ones(E),
        f"{block}attn_output.weight": np.zeros((E, model.hp.n_head * model.hp.head_dim)),
        f"{block}ffn_down.weight": np.zeros((E, model.hp.n_ff)),
    }
    tensors = dict(model.file.tensors)
    for name, value in handed_on.items():
        tensors[name] = replace(tensors[name], data=value.astype(np.float32).view(np.uint8).reshape(-1))
    model = refmodel.load(write(tmp_path / "handed.gguf", model.file.metadata.fields, tensors.values()))
    session = model.session(mtp=True)
    written = list(generate(session, TOKENS, 24))
    again = model.session(mtp=True)
    again.forward([*TOKENS, *written[:-1]])
    guesses = again.draft.logits().argmax(axis=1)[len(TOKENS) - 1 :]
    assert session.draft.right == (guesses == written).sum()
    assert 0 < session.draft.right < session.draft.guessed == 24


@each
@pytest.mark.parametrize("section", ["attention fa=off", "tail"])
def test_every_tap_of_its_table_is_tapped_once(arch, section, tmp_path):
    taps = []

    class Names:
        def __call__(self, name, x):
            taps.append(name)
            return x

    session = built(tmp_path, arch).session(tapper=Names(), mtp=True, scores=True)
    session.forward(TOKENS)
    session.draft.logits()
    assert len(taps) == len(set(taps))
    wanted = {
        re.sub(r"-N\b", "-5", entry.tap) for entry in table(f"mtp/{arch}").sections[section] if entry.tap and not entry.optional
    }
    assert wanted <= set(taps)


def test_its_keys_and_values_are_counted_before_memory_is_taken(tmp_path):
    model = built(tmp_path, "qwen35")
    without, session = model.session(), model.session(mtp=True)
    assert session.memory(100) - without.memory(100) == 2 * 100 * model.hp.n_head_kv * model.hp.head_dim * 4


@pytest.mark.parametrize(("shape", "found"), [({}, 0), ({"n_nextn": 2}, 2)])
def test_a_file_without_exactly_one_prediction_block_is_refused(shape, found, tmp_path):
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "qwen35", seed=1, **shape))
    with pytest.raises(RefmodelError, match=rf"nextn_predict_layers is {found}; a draft head needs exactly one prediction block"):
        model.session(mtp=True)
    with pytest.raises(RefmodelError, match=r"llama\.nextn_predict_layers is 0"):
        refmodel.load(tiny.build(tmp_path / "l.gguf", "llama", seed=1)).session(mtp=True)


@pytest.mark.parametrize("name", ["attn_k.weight", "nextn.eh_proj.weight", "nextn.enorm.weight"])
def test_a_tensor_that_it_needs_is_named_only_when_it_is_asked_for(name, tmp_path):
    model = built(tmp_path, "qwen35")
    tensors = [tensor for key, tensor in model.file.tensors.items() if key != f"blk.5.{name}"]
    less = refmodel.load(write(tmp_path / "less.gguf", model.file.metadata.fields, tensors))
    less.forward(TOKENS)
    with pytest.raises(RefmodelError, match=rf"less\.gguf: tensor blk\.5\.{name} is missing; the prediction block needs it"):
        less.session(mtp=True)


def test_the_commands_show_it(tmp_path):
    path = built(tmp_path, "qwen35").path
    done = CliRunner().invoke(app, ["run", str(path), "--tokens", "7,3,9", "-n", "5", "--mtp", "--json"])
    alone = CliRunner().invoke(app, ["run", str(path), "--tokens", "7,3,9", "-n", "5", "--json"])
    figures = json.loads(done.stdout)
    assert figures["tokens"] == json.loads(alone.stdout)["tokens"]
    assert (figures["drafted"], 0 <= figures["accepted"] <= 5) == (5, True)
    assert re.search(r"the draft head guessed \d of 5 tokens before the trunk computed them", done.stderr)
    done = CliRunner().invoke(
        app, ["trace", str(path), "--tokens", "7,3,9", "--decode", "1", "--mtp", "--filter", "mtp_", "-o", str(tmp_path / "t.npz")]
    )
    assert done.exit_code == 0
    with np.load(tmp_path / "t.npz") as trace:
        assert trace["mtp_result_output"].shape == (2, 271)
        assert trace["mtp_eh_proj-5@1"].shape == (1, 22)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--mtp", "--timing"], "--timing is about the trunk"),
        (["run", "--mtp", "--chat"], "--mtp are for one reply"),
        (["diff", "--mtp", "--explain"], "--explain is about the trunk"),
    ],
)
def test_what_does_not_go_with_it_is_said(arguments, words, tmp_path):
    command, *options = arguments
    done = CliRunner().invoke(
        app, [command, str(built(tmp_path, "qwen35").path), *options, *([] if "--chat" in options else ["--tokens", "1"])]
    )
    assert words in str(done.exception)
