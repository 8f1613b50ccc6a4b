"""The contract of an architecture. It passes by being listed in ARCHITECTURES, which also drives, for each one listed:

tests/test_model.py      beside the straight-line float64 forward: any route, any split, later tokens, repeated blocks
tests/test_surgery.py    the copy of a route computes the route to the bit
tests/test_golden.py     llama.cpp's recorded logits
tests/test_live.py       every node of a live llama.cpp, in order, float32 within 1e-10; random routes
tests/test_live_bits.py  every type of tensor under numerics llamacpp: no bit differs
"""

import re

import numpy as np
import pytest
import tiny
from near import nmse, same_bits
from test_golden import GOLDEN, MODELS

import refmodel
from refmodel.arch import ARCHITECTURES, Architecture
from refmodel.info.meanings import tensor_meaning
from refmodel.llamacpp.nodes import FOLDER, table

each = pytest.mark.parametrize("name", ARCHITECTURES)
TOKENS = [7, 3, 250, 9, 9, 31, 120, 64, 5, 17, 2, 84]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: refmodel.load(tiny.build(folder / f"{name}.gguf", name, seed=3)) for name in ARCHITECTURES}


@each
def test_its_module_has_everything_and_names_its_source(name):
    module = ARCHITECTURES[name]
    assert module.__name__ == f"refmodel.arch.{name}"
    assert {*Architecture.__annotations__, *(k for k in vars(Architecture) if not k.startswith("_"))} <= set(vars(module))
    assert module.__doc__.startswith(f"{name}: ")
    assert f"src/models/{name}.cpp" in module.__doc__


@each
def test_it_has_a_table_of_names_a_tiny_model_and_a_golden_case(name):
    assert {"head", "tail"} < set(table(name).sections)
    assert (FOLDER / f"{name}.txt").read_text().startswith(f"# The nodes of llama.cpp's graph for {name}, ")
    assert name in tiny.SHAPES
    assert name in MODELS, "run golden/make.py"
    assert refmodel.load(GOLDEN / "models" / f"{name}.gguf").architecture == name


@each
def test_a_model_with_kinds_of_blocks_says_so(name, models):
    assert (len(set(models[name].kinds)) > 1) == bool(ARCHITECTURES[name].FACTS.kinds)


@each
def test_info_says_of_every_tensor_what_it_is(name, models):
    model = models[name]
    for block, kind in enumerate(model.kinds):
        names = [*model.arch.shapes(model.hp, block), *(f"{matrix}.bias" for matrix in model.arch.BIASED)]
        names += [*(f"{whole}.weight" for whole in model.arch.FUSED), *(f"{matrix}.scale" for matrix in model.arch.SCALED)]
        assert not [tensor for tensor in names if not tensor_meaning(model.arch, model.hp, tensor, kind)], (
            "say it in FACTS.meanings of the architecture, or in refmodel/info/meanings.py"
        )


@each
def test_every_tap_of_its_table_is_tapped(name, models):
    """The tables are llama.cpp's: what they compare has to be there, in every block of that kind."""
    taps = []
    models[name].forward(TOKENS, tapper=Names(taps), scores=True)
    assert len(taps) == len(set(taps))
    for block, kind in enumerate(models[name].kinds):
        (section,) = (s for s in table(name).blocks if kind in re.split("[ ,]+", s) and "fa=on" not in s)
        wanted = {entry.tap for entry in table(name).sections[section] if entry.tap and not entry.optional}
        assert {re.sub(r"-N\b", f"-{block}", tap) for tap in wanted} <= set(taps)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if tiny.SHAPES[name].experts])
def test_a_sum_of_shares_is_at_least_the_smallest_normal_half_float(name, models):
    """Trained gates never come so low; llama.cpp clamps the sum nevertheless: ggml_clamp(..., 6.103515625e-5, INFINITY)."""
    taps = {}

    def lowered(tap, x):
        taps[tap] = x = x * np.float32(2.0**-20) if tap == "ffn_moe_probs-0" else x
        return x

    models[name].forward(TOKENS, tapper=lowered, scores=True)
    sums, shares = taps["ffn_moe_weights_sum-0"], taps["ffn_moe_weights-0"]
    assert 0 < sums.max() < 2.0**-14
    same_bits(taps["ffn_moe_weights_sum_clamped-0"], np.full_like(sums, 6.103515625e-5))
    same_bits(taps["ffn_moe_weights_norm-0"], shares / np.float32(6.103515625e-5))
    same_bits(taps["ffn_moe_weights_sum_clamped-1"], taps["ffn_moe_weights_sum-1"])


class Names:
    """A tapper that keeps the names alone."""

    def __init__(self, taps):
        self.taps = taps

    def __call__(self, name, x):
        self.taps.append(name)
        return x


@each
@pytest.mark.parametrize("numerics", ["fast", "llamacpp"])
def test_other_numerics_stay_near_on_floats(name, numerics, models):
    exact = models[name].forward(TOKENS, numerics="oracle")
    assert nmse(models[name].forward(TOKENS, numerics=numerics), exact) <= 1e-5  # a cache of half floats under llamacpp
