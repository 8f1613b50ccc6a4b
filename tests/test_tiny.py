"""The models that tests compute with: no two of their axes have one length, so that a swapped one shows."""

import json
from pathlib import Path

import numpy as np
import pytest
import test_architectures
import test_model
import tiny

from refmodel.forward.trace import Trace
from refmodel.gguf.reader import read

GOLDEN = Path(__file__).parent.parent / "golden"
BLOCKS = "packed rows are a multiple of 256, or of 32; of other lengths the files would be several times as large"
FILES_OF_HF = "made from a transformers checkpoint; of the same architecture four models of make.py have no such pair"
TRAINED = "what the weights were trained as; of the same architecture four models of make.py have no such pair"
# Files in which axes agree, and which: on purpose, or because they have to
ON_PURPOSE = {
    "llama-tied": {"H = G", "G·D = H·D"},  # a head of keys for each head
    "qwen3-tied": {"D = G·D"},  # one head of keys
    "qwen35-equal-heads": {"Hk = Hv", "Hk·S = Hv·S"},
}
HAVE_TO = {"qwen35-hf": FILES_OF_HF, "austen": TRAINED, "Q8_0": BLOCKS, "Q4_K_M": BLOCKS, "Q5_K_M": BLOCKS, "Q6_K": BLOCKS}
MODELS = sorted(path.stem for path in (GOLDEN / "models").glob("*.gguf"))
FREE = [name for name in MODELS if not any(part in name for part in HAVE_TO)]


@pytest.mark.parametrize("arch", tiny.SHAPES)
@pytest.mark.parametrize("T", [len(test_model.TOKENS), len(test_architectures.TOKENS)])
def test_no_two_axes_of_a_tiny_model_agree(arch, T):
    """Those of every other shape are looked at where it is built."""
    assert not tiny.axes_that_agree(tiny.axes(arch, tiny.SHAPES[arch], len(tiny.vocabulary()[0])) | {"T": T})


def test_axes_that_agree_are_refused_unless_somebody_says_why(tmp_path):
    with pytest.raises(AssertionError, match=r"axes agree.*: G·D = H·D, H = G$"):
        tiny.build(tmp_path / "m.gguf", "llama", H=2)
    tiny.build(tmp_path / "m.gguf", "llama", H=2, alike="a head of keys for each head")


@pytest.mark.parametrize("name", FREE)
def test_no_two_axes_of_a_golden_model_agree(name):
    """Nor the tokens of its calls, nor how many are cached after them."""
    arch, shape, V = stored(name)
    calls = json.loads(Trace(GOLDEN / "traces" / name / "logits.safetensors").metadata["provenance"])["calls"]
    T, S = len(calls[0]), [sum(map(len, calls[: k + 1])) for k in range(1, len(calls))]
    lengths = tiny.axes(arch, shape, V) | {"T": T} | {f"cached after {n}": n for n in S}
    assert tiny.axes_that_agree(lengths) == ON_PURPOSE.get(name, set())


def test_every_architecture_has_a_golden_model_without_such_a_pair():
    assert set(tiny.SHAPES) <= {*FREE} - {*ON_PURPOSE}
    assert {*ON_PURPOSE} <= {*FREE}


def stored(name):
    """Architecture, shape and vocabulary of a file, from its metadata."""
    md = read(GOLDEN / "models" / f"{name}.gguf").metadata
    arch = md["general.architecture"]
    of = lambda key, default=0: md.get(f"{arch}.{key}", default)
    keys = {"Hk": "ssm.group_count", "Hv": "ssm.time_step_rank", "S": "ssm.state_size", "K": "ssm.conv_kernel"}
    shape = tiny.Shape(
        E=of("embedding_length"),
        F=of("feed_forward_length"),
        H=of("attention.head_count"),
        G=int(np.max(of("attention.head_count_kv"))),
        D=of("attention.key_length"),
        n_rot=of("rope.dimension_count"),
        experts=of("expert_count"),
        used=of("expert_used_count"),
        Fx=of("expert_feed_forward_length"),
        Fs=of("expert_shared_feed_forward_length"),
        window=of("attention.sliding_window"),
        n_nextn=of("nextn_predict_layers"),
        **({field: of(key) for field, key in keys.items()} if arch in tiny.DELTA else {}),
        **({"K": of("shortconv.l_cache")} if arch == "lfm2" else {}),
    )
    return arch, shape, len(md["tokenizer.ggml.tokens"])
