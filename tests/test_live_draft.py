"""The draft head beside llama.cpp's own: a second context of type MTP over the same model, every node of both graphs."""

import pytest
import tiny
from gguf import GGMLQuantizationType as Type

import refmodel
from refmodel.compare.other_side import compare
from refmodel.compare.verdict import judge
from refmodel.errors import OracleError
from refmodel.llamacpp.oracle import record
from refmodel.llamacpp.profile import PROFILES, profile_of
from refmodel.numerics import numerics_of
from refmodel.surgery.live import live

pytestmark = pytest.mark.live

CALLS = [[84, 104, 101, 220, 9, 77, 31, 200, 5], [12], [200], [44, 7]]
SHAPES = {"shared": {}, "own": {"own_head": True}, "tied": {"tied": True}, "scales": {"scales": True, "own_head": True}}
SHAPES |= {"biases": {"biases": tiny.QKV}, "scales and biases": {"biases": tiny.QKV, "scales": True}}
AS_ONE = {"fused": ["attn_qkv", "ffn_gate_up_exps"]}
SHAPES |= {"stored as one": AS_ONE, "stored as one, with biases and scales": {**AS_ONE, "biases": tiny.QKV, "scales": True}}


def compared(model, route, profile, numerics, folder, lib, anchor=""):
    route = model.route(route)
    other = live(model, route, CALLS, profile_of(profile), lib, False, folder, mtp=True)
    result = compare(model, route, other, numerics_of(numerics), anchor, lambda name: None)
    assert judge(model, route, other, lambda name: None).first is None
    assert {row.name for row in result.rows} == set(other.taps)
    assert sum(row.name.startswith("mtp_result_output") for row in result.rows) == len(CALLS)
    return result


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("arch", sorted(tiny.DELTA))
def test_every_node_on_floats(arch, shape, tmp_path, llama_lib):
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", arch, seed=6, n_nextn=1, **SHAPES[shape]))
    for anchor in ("", "node"):
        compared(model, None, "exact", "reference", tmp_path, llama_lib, anchor)
    for route, profile in ((None, "default"), ("blocks:1,3", "exact")):
        result = compared(model, route, profile, f"llamacpp:{profile}", tmp_path, llama_lib)
        assert not any(row.differ for row in result.rows)


@pytest.mark.parametrize("kind", [Type.Q4_K, Type.Q8_0, Type.F16], ids=lambda kind: kind.name)
def test_no_bit_differs_on_packed_weights(kind, tmp_path, llama_lib):
    shape = {"E": 256, "F": 256, "H": 4, "D": 64, "n_rot": 12, "Hk": 2, "Hv": 4, "S": 64, "n_layer": 3, "n_nextn": 1}
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "qwen35", seed=5, types=lambda name: kind, **shape))
    result = compared(model, None, "default", "llamacpp", tmp_path, llama_lib)
    assert not any(row.differ for row in result.rows)


def test_it_cannot_be_recorded_without_taps(tmp_path, llama_lib):
    path = tiny.build(tmp_path / "m.gguf", "qwen35", seed=5, n_nextn=1)
    with pytest.raises(OracleError, match="draft head reads the trunk's taps"):
        record(path, CALLS, PROFILES["exact"], tmp_path / "t.safetensors", llama_lib, taps=False, mtp=True)
