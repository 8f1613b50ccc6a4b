"""Foreign runtimes with faults that really happened: one in NumPy that shares no code with refmodel (straight.py), and llama.cpp
through the text that its llama-debug printed. What `diff --against` says of everything, of hidden states only, of logits only.

Some of the faults; tests/many_foreign.py takes all of them. transformers is the third runtime, in test_live_torch.py.
"""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import straight
import tiny

import refmodel
from refmodel.compare.dumped import read_other
from refmodel.compare.rounding import judged
from refmodel.compare.where import first
from refmodel.faults.fault import Engine
from refmodel.faults.library import FAULTS as FAULT
from refmodel.numerics import REFERENCE

IDS = [5, 6, 7, 8, 9, 17, 41, 3]
ARCHES = ("llama", "qwen3", "qwen35", "gemma3")


def without_norm(x, weight, eps):
    return x * weight


def no_gate(h, w, name, expert=()):
    return (h @ w[f"ffn_up{name}"][expert].T) @ w[f"ffn_down{name}"][expert].T


HEALTHY = {name: getattr(straight, name) for name in ("normed", "turned", "attend", "remember", "swiglu", "logistic", "File")}


def turned_by(change):
    """RoPE of another runtime: `change` is given the head, the position, the file, and the right function."""
    return {"turned": lambda head, position, f, slides: change(head, position, f, lambda x, p: HEALTHY["turned"](x, p, f, slides))}


def with_keys(**changes):
    """A runtime that reads keys wrongly."""

    class Misread(HEALTHY["File"]):
        def key(self, name, default=None):
            return changes.get(name.replace(".", "_"), super().key(name, default))

    return {"File": Misread}


class Reversed(HEALTHY["File"]):
    """The convolution's taps are in another order."""

    def __init__(self, path):
        super().__init__(path)
        for name in self.weights:
            if name.endswith("ssm_conv1d.weight"):
                self.weights[name] = self.weights[name][:, ::-1]


class Exchanged(HEALTHY["File"]):
    """Alpha and beta are exchanged."""

    def __init__(self, path):
        super().__init__(path)
        for name in [name for name in self.weights if name.endswith("ssm_alpha.weight")]:
            other = name.replace("alpha", "beta")
            self.weights[name], self.weights[other] = self.weights[other], self.weights[name]


class Positive(HEALTHY["File"]):
    """The decay is read as A_log: its logarithm is taken again."""

    def __init__(self, path):
        super().__init__(path)
        for name in [name for name in self.weights if name.endswith("ssm_a")]:
            self.weights[name] = -np.exp(-self.weights[name])


class WithoutBias(HEALTHY["File"]):
    """dt_bias is left out."""

    def __init__(self, path):
        super().__init__(path)
        for name in [name for name in self.weights if name.endswith("ssm_dt.bias")]:
            self.weights[name] = 0 * self.weights[name]


class OneMore(HEALTHY["File"]):
    """1 is added to the gated norm's weight."""

    def __init__(self, path):
        super().__init__(path)
        for name in [name for name in self.weights if name.endswith("ssm_norm.weight")]:
            self.weights[name] = self.weights[name] + 1


def half_of(head, position, f, right):
    return np.concatenate([right(head, position)[: len(head) // 2], head[len(head) // 2 :]])


# fault -> architecture, what is put in place of the runtime's own, the first wrong block, the first wrong part of that block
FAULTS = {
    "base of RoPE (F06)": ("llama", with_keys(rope_freq_base=500.0), 0, "attn"),
    "position off for keys and queries alike, doubled (F05)": (
        "llama",
        turned_by(lambda x, p, f, right: right(x, 2 * p)),
        0,
        "attn",
    ),
    "half of a head is not rotated (F08)": ("llama", turned_by(half_of), 0, "attn"),
    "norm left out (F14)": ("llama", {"normed": without_norm}, 0, "attn"),
    "SwiGLU without its gate (F72)": ("llama", {"swiglu": no_gate}, 0, "ffn"),
    "eps (F31)": ("qwen3", with_keys(attention_layer_norm_rms_epsilon=0.3), 0, "attn"),
    "taps reversed (F42)": ("qwen35", {"File": Reversed}, 0, "attn"),
    "alpha and beta exchanged (F23)": ("qwen35", {"File": Exchanged}, 0, "attn"),
    "A_log (F27)": ("qwen35", {"File": Positive}, 0, "attn"),
    "dt_bias missing (F28)": ("qwen35", {"File": WithoutBias}, 0, "attn"),
    "1 + w on the gated norm (F16)": ("qwen35", {"File": OneMore}, 0, "attn"),
    "interval of attention (F54)": ("qwen35", with_keys(rope_freq_base=3.0), 2, "attn"),
    "window off by one (TensorRT-LLM 5564)": ("gemma3", with_keys(attention_sliding_window=5), 0, "attn"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m")
    return {arch: tiny.build(folder / f"{arch}.gguf", arch, seed=1) for arch in ARCHES}


def ran(path, changes, folder):
    """The dump of the NumPy runtime with some of its functions replaced: what attention, the feed-forward part, the block give."""
    parts = {}

    def kept(name, function):
        def run(*arguments):
            out = function(*arguments)
            parts.setdefault(name, []).append(out)
            return out

        return run

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**HEALTHY, **changes}.items():
            patch.setattr(straight, name, value)
        for name, part in (("attend", "attn"), ("remember", "attn"), ("swiglu", "ffn"), ("geglu", "ffn")):
            patch.setattr(straight, name, kept(part, getattr(straight, name)))
        logits, outputs = straight.forward(path, IDS)
    folder.mkdir()
    arrays = {f"layers.{i}.{name}": x for name, listed in parts.items() for i, x in enumerate(listed)}
    arrays |= {f"layers.{i}.output": x for i, x in enumerate(outputs)} | {"logits": logits}
    for name, x in arrays.items():
        np.save(folder / f"{name}.npy", x.astype(np.float32))
    (folder / "tokens.json").write_text(json.dumps(IDS))
    return folder


def verdict_on(model, folder, keep):
    """The verdict on some of the files of a dump, and the first wrong tap."""
    for file in list(folder.glob("*.npy")):
        if not re.search(keep, file.name):
            file.unlink()
    other = read_other(model, folder, None, None)
    found = judged(model, model.route(), other, lambda name: None)
    return found, first(found, model, other), other


QUICK = [name for name, (arch, *_) in FAULTS.items() if arch == "llama"] + ["window off by one (TensorRT-LLM 5564)"]


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_the_numpy_runtime_is_healthy(arch, models, tmp_path):
    for _, found, _, other in said_of(models[arch], {}, tmp_path / "d"):
        assert found.word != "wrong", found.first
        assert other.remarks == []


def said_of(path, changes, folder):
    """(which part of a dump, the verdict on it, the first wrong tap, the other side) for all of it, hidden states, logits."""
    model, folder = refmodel.load(path), ran(path, changes, folder)
    for name, keep in (("full", ""), ("hidden states", "output|logits"), ("logits", "logits")):
        yield name, *verdict_on(model, folder, keep)


@pytest.mark.parametrize("fault", QUICK)
def test_a_fault_of_the_numpy_runtime_is_named(fault, models, tmp_path):
    arch, changes, block, part = FAULTS[fault]
    assert named_rightly(said_of(models[arch], changes, tmp_path / "d"), block, part) == []


def named_rightly(said, block, part):
    """What is not named as it is: the first part from everything, its block from hidden states, that it is wrong from logits."""
    wrong = []
    for name, found, where, other in said:
        expected = {
            "full": other.places.get(f"layers.{block}.{part}"),
            "hidden states": f"l_out-{block}",
            "logits": "result_output",
        }
        if found.word != "wrong" or where["tap"] != expected[name]:
            wrong.append((name, found.word, where))
    return wrong


# llama.cpp printed what it computed of the trained model; a runtime that is wrong and a file that is misread are two sides of one
# difference, so the fault is on our side here. fault -> the first wrong tap of those that were printed
PRINTED = {
    "RoPE of all dimensions (F01)": (lambda m: rope(m, n_rot=64, factors=(1.0,) * 32), "Qcur-3"),
    "base of RoPE (F06)": (lambda m: rope(m, base=5e5), "Qcur-3"),
    "neighbours for halves (F03)": (lambda m: rope(m, adjacent=True), "Qcur-3"),
    "a linear factor that is not there": (lambda m: rope(m, scale=0.5), "Qcur-3"),
    "eps of every norm (F31)": (lambda m: m.with_hparams(eps=0.5), "gate-0"),
    "norms with one twice (F15)": ("norm-one-twice", "gate-0"),
    "alpha and beta exchanged (F23)": ("alpha-beta-swapped", "gate-0"),
    "A exponentiated twice (F27)": ("ssm-a-exp-twice", "gate-0"),
    "the convolution's taps reversed (F42)": ("conv-reversed", "l_out-0"),
    "queries and gates in halves (F10)": ("q-gate-halves", "Qcur-3"),
    "the norm of queries and keys skipped (F07)": ("qk-norm-skipped", "Qcur-3"),
    "the gate of attention missing (F11)": ("gate-missing", "l_out-3"),
}


def rope(model, **changes):
    return model.with_hparams(rope=replace(model.hp.rope, **changes))


@pytest.fixture(scope="module")
def austen(golden):
    return refmodel.load(golden / "models" / "austen-Q4_K_M.gguf")


@pytest.mark.parametrize("fault", PRINTED)
def test_a_fault_is_named_from_what_llama_cpp_prints(fault, austen, golden):
    make, tap = PRINTED[fault]
    broken = make(austen) if callable(make) else FAULT[make].on(Engine(austen, REFERENCE)).model
    other = read_other(austen, golden / "dumps" / "llama-debug.log", None, None)
    found = judged(broken, broken.route(), other, lambda name: None)
    assert found.word == "wrong"
    assert found.first.name == tap
