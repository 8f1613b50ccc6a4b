"""The draft head: a prediction block beside the trunk, and what it must not change."""

import json
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import straight
import tiny
from near import nmse, same_bits
from typer.testing import CliRunner

import refmodel
from refmodel.cli import app
from refmodel.errors import RefmodelError
from refmodel.forward.state import KeyValues, Recurrent
from refmodel.gguf.writer import write
from refmodel.llamacpp.nodes import table
from refmodel.text.ahead import Trust
from refmodel.text.generate import generate
from refmodel.text.sampling import GREEDY, Sampling

GOLDEN = Path(__file__).parent.parent / "golden" / "models"

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


def foretelling(folder, arch, noise=0.0):
    """A model whose next token depends on the last one alone, which its prediction block sees: without noise it is right."""
    model, block = built(folder, arch, tied=True), "blk.5."
    E, r, tensors = model.hp.n_embd, np.random.default_rng(7), dict(model.file.tensors)
    for name, tensor in tensors.items():
        if name.endswith(
            ("attn_output.weight", "ssm_out.weight", "ffn_down.weight", "ffn_down_exps.weight", "ffn_down_shexp.weight")
        ):
            tensors[name] = replace(tensor, data=np.zeros_like(tensor.data))
    handed_on = np.concatenate([np.eye(E) + noise * r.standard_normal((E, E)), np.zeros((E, E))], axis=1)
    norm = tensors["output_norm.weight"].data
    shared = {f"{block}nextn.shared_head_norm.weight": norm} if f"{block}nextn.shared_head_norm.weight" in tensors else {}
    changed = {f"{block}nextn.eh_proj.weight": handed_on, f"{block}nextn.enorm.weight": np.ones(E)}
    for name, value in (changed | shared).items():
        data = value if name in shared else value.astype(np.float32).view(np.uint8).reshape(-1)
        tensors[name] = replace(tensors[name], data=data)
    return refmodel.load(write(folder / f"foretelling-{noise}.gguf", model.file.metadata.fields, tensors.values()))


DRAWN = Sampling(1.5, seed=5, repeat_penalty=1.2)
REPLIES = [  # noise, prompt, how tokens are chosen, guesses at once, the most tokens, how many are read
    (0.0, [1, 2, 3], GREEDY, 1, 12, 12),
    (0.3, [250], DRAWN, 1, 12, 7),
    (0.0, TOKENS, DRAWN, 3, 12, 12),
    (0.3, TOKENS, GREEDY, 3, 12, 7),
]
KINDS = [*((arch, "fast") for arch in sorted(tiny.DELTA)), *(("qwen35", word) for word in ("reference", "llamacpp", "numpy"))]


@pytest.mark.parametrize(("arch", "numerics"), KINDS)
def test_the_text_and_what_is_remembered_are_those_without_it(arch, numerics, tmp_path, monkeypatch):
    """Right and wrong guesses, one and three at once, greedy and drawn; to the end of the reply, and where its reader stops."""
    right = guessed = saved = 0
    models = {noise: foretelling(tmp_path, arch, noise) for noise in (0.0, 0.3)}
    for noise, prompt, how, guesses, count, read in REPLIES:
        monkeypatch.setattr("refmodel.text.ahead.MOST", guesses)
        monkeypatch.setattr("refmodel.text.ahead.COSTS", (0, 0.1, 0.2, 0.3))  # so cheap that several are fed
        model = models[noise]
        session, plain = (model.session("blocks:1,3", numerics, mtp=mtp) for mtp in (True, False))
        written, wanted = (list(islice(generate(s, prompt, count, how), read)) for s in (session, plain))
        assert written == wanted
        assert session.n_past == plain.n_past == len(prompt) + read - 1
        same_bits(session.forward([5, 9]), plain.forward([5, 9]))
        same_bits(session.forward([4]), plain.forward([4]))
        right, guessed, saved = right + session.draft.right, guessed + session.draft.guessed, saved + session.draft.saved
    assert 0 < right < guessed
    assert saved == (0 if numerics == "llamacpp" else right)


def test_a_block_that_foretells_every_token_halves_the_passes_and_one_that_is_wrong_is_seldom_asked(tmp_path):
    session = foretelling(tmp_path, "qwen35").session(mtp=True)
    list(generate(session, TOKENS, 32))
    assert session.draft.guessed == session.draft.right == session.draft.saved >= 15  # 31 tokens after the first, two in a pass
    session = built(tmp_path, "qwen35").session(mtp=True)
    list(generate(session, TOKENS, 64))
    assert session.draft.right == 0
    assert 4 <= session.draft.guessed <= 12


@pytest.mark.parametrize("name", ["austen-Q4_K_M", "lfm2-Q8_0", "qwen3moe-Q4_K_M", "qwen3next-Q4_K_M"])
def test_tokens_fed_ahead_have_the_bits_that_they_have_one_by_one(name):
    """Under fast: any number of guesses, any of them right; also for a model without a prediction block."""
    model, r = refmodel.load(GOLDEN / f"{name}.gguf"), np.random.default_rng(3)
    alone, ahead = (model.session(f"blocks:0,{model.n_layer}", "fast") for _ in range(2))
    for session in (alone, ahead):
        session.forward(TOKENS)
    text = r.integers(0, 256, 30).tolist()
    while text:
        sure = int(r.integers(1, 5))
        fed = text[:sure] + r.integers(0, 256, 4 - min(sure, len(text))).tolist()
        rows = ahead.ahead(fed, 3)
        for token, row in zip(text[:sure], rows, strict=False):
            for got, want in zip(row, alone.likeliest([token], 3), strict=True):
                same_bits(got, want)
        for _ in text[1:sure]:
            ahead.confirm()
        text = text[sure:]
        assert ahead.n_past == alone.n_past
    same_bits(ahead.forward(TOKENS), alone.forward(TOKENS))


def test_what_a_fork_has_survives_steps_back():
    cache, r = KeyValues(2, 3), np.random.default_rng(0)
    some = lambda: (r.standard_normal((1, 2, 3)).astype(np.float32), r.standard_normal((1, 2, 3)).astype(np.float32))
    for _ in range(5):
        cache.append(*some())
    fork = cache.fork()
    had = cache.append(*some())[0].copy()
    cache.back(3)
    cache.append(*some())
    same_bits(fork.append(*some())[0][:5], had[:5])
    delta = Recurrent(np.zeros((3, 4), np.float32), np.ones((2, 3, 3), np.float32))
    delta.keep(1)
    fork, after = delta.fork(), delta.next_delta()
    after[:] = 2
    delta.delta = after
    delta.back(1)
    delta.keep(0)
    delta.next_delta()[:] = 3
    assert (fork.delta == 1).all()


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
    assert 2 <= figures["drafted"] <= 4  # what is read, not all that was guessed; the last token is never guessed
    assert figures["passes_saved"] == figures["accepted"] <= figures["drafted"]
    assert re.search(r"the draft head guessed \d of \d tokens before the trunk computed them", done.stderr)
    done = CliRunner().invoke(app, ["run", str(path), "--tokens", "7,3,9", "-n", "5", "--mtp", "--timing"])
    assert re.search(r"prediction block +decode", done.stdout)
    assert re.search(r"draft head +decode", done.stdout)
    assert "accepted" in done.stdout
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


def test_a_guess_is_fed_while_it_pays():
    trust = Trust()
    assert trust.guesses(3) == 1
    for _ in range(40):
        trust.judge(False)
    assert trust.guesses(3) == 0
    for _ in range(100):  # after a while another one is tried
        if trust.guesses(3):
            break
    assert trust.guesses(3) == 1
