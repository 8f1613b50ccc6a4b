"""Numerics llamacpp beside a real llama.cpp: no bit differs. Every operation from llama.cpp's own inputs, and whole runs."""

import numpy as np
import pytest
import tiny
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Q
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

import refmodel
from refmodel.against import compare, live, numerics_beside
from refmodel.ops.ggml_product import PATHS
from refmodel.profile import profile_of
from refmodel.quants import FLOATS

pytestmark = pytest.mark.live

KINDS = [*FLOATS, *PATHS]
TOKENS = (1, 2, 3, 4, 7, 8, 9, 64, 65)
LONG = 300  # tokens: more than 256 cells, so that one token over them is split among threads
CALLS = [[5, 6, 7, 8, 9], [10], [11], [12, 13, 14]]


def beside(path, profile, calls, folder, lib, anchor):
    """The diff of numerics llamacpp, as that llama.cpp runs, with what it recorded."""
    model = refmodel.load(path)
    other = live(model, model.route(), calls, profile_of(profile), lib, False, folder)
    return compare(model, model.route(), other, numerics_beside("llamacpp", other), anchor, lambda name: None)


def differing(result):
    return [(row.name, row.differ, row.problem) for row in result.rows if row.differ or row.problem]


@st.composite
def profiles(draw):
    options = {"fa": ("on", "off"), "kv": ("f16", "f32"), "repack": ("on", "off"), "tiled": ("on", "off"), "threads": ("1", "2")}
    return ",".join(f"{name}={draw(st.sampled_from(values))}" for name, values in options.items())


@st.composite
def models(draw, arch):
    """Sizes with and without tails, and for each matrix one of the types that its rows allow."""
    size = st.sampled_from([20, 24, 30, 32, 36, 64, 100, 256])
    shape = {
        "E": draw(st.sampled_from([20, 33, 64, 96, 256])),
        "F": draw(size),
        "H": draw(st.sampled_from([1, 2, 4, 6])),
        "n_layer": 2,
    }
    shape |= {"D": draw(st.sampled_from([8, 10, 16, 20, 34, 64])), "tied": draw(st.booleans())}
    shape |= {"G": draw(st.sampled_from([g for g in (1, 2) if shape["H"] % g == 0]))}
    shape |= {"n_rot": draw(st.sampled_from([6, 8])) if arch == "qwen35" else shape["D"]}
    if arch == "qwen35":
        shape |= {"interval": 2, "S": draw(st.sampled_from([7, 8, 32, 36])), "K": draw(st.sampled_from([2, 3, 4, 5]))}
    seed, chosen = draw(seeds()), {}

    def types(name):
        rows = np.random.default_rng([seed, *name.encode()])
        width = {"ffn_down": shape["F"], "attn_output": shape["H"] * shape["D"], "ssm_out": 4 * shape.get("S", 1)}
        inputs = next((n for part, n in width.items() if part in name), shape["E"])
        fitting = [kind for kind in KINDS if inputs % GGML_QUANT_SIZES[kind][0] == 0]
        chosen[name] = fitting[rows.integers(len(fitting))]
        return chosen[name]

    return {"seed": seed, "types": types, **shape}


@pytest.mark.parametrize("arch", ["llama", "qwen3", "qwen35"])
@settings(max_examples=60)
@given(data=st.data())
def test_every_operation_and_type_from_llama_cpps_own_inputs(arch, data, tmp_path, llama_lib):
    path = tiny.build(tmp_path / "m.gguf", arch, **data.draw(models(arch)))
    prompt = data.draw(st.sampled_from(TOKENS))
    calls = [list(range(1, 1 + prompt)), [7], list(range(50, 50 + data.draw(st.sampled_from(TOKENS))))]
    assert not differing(beside(path, data.draw(profiles()), calls, tmp_path, llama_lib, "node"))


@pytest.mark.parametrize("kind", PATHS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("options", ["default", "repack=off", "repack=off,tiled=off"])
def test_every_path_of_every_type(kind, options, tmp_path, llama_lib):
    """Rows in eights (which may be repacked) and not, and all numbers of tokens at which a path ends."""
    wide = {"n_layer": 1, "E": 256, "H": 8, "G": 2, "D": 32, "n_rot": 32}
    for F in (256, 260):
        types = lambda name: Q.F32 if "ffn_down" in name else kind
        path = tiny.build(tmp_path / f"{F}.gguf", "llama", seed=3, types=types, F=F, **wide)
        calls = [[*range(1, 1 + n)] for n in (9, 8, 7, 4, 3, 2, 1, 65)]
        assert not differing(beside(path, options, calls, tmp_path, llama_lib, "node"))
