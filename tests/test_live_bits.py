"""Numerics llamacpp beside a real llama.cpp: no bit differs. Every operation from llama.cpp's own inputs, and whole runs."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from english import TEXT
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Q
from hypothesis import given, settings
from hypothesis import strategies as st
from near import same_bits
from strategies import examples, seeds
from test_machine_code import AVX2

import refmodel
from refmodel.arch import ARCHITECTURES
from refmodel.compare.other_side import compare, numerics_against
from refmodel.compare.verdict import judge
from refmodel.llamacpp.library import locate
from refmodel.llamacpp.profile import profile_of
from refmodel.numerics import LLAMACPP, REFERENCE
from refmodel.ops.ggml import gelu_table
from refmodel.ops.ggml_paths import PATHS
from refmodel.quants import FLOATS
from refmodel.surgery.live import live

pytestmark = pytest.mark.live

KINDS = [*FLOATS, *PATHS]
ADDED_TO = (Q.Q8_0, Q.Q4_0, Q.Q4_1)
MORE = [path for path in os.environ.get("REFMODEL_LLAMA_LIBS", "").split(os.pathsep) if path]


@pytest.fixture(scope="session", params=["", *MORE], ids=lambda path: Path(path).name or "judge")
def llama_lib(request, llama_lib):
    """The judge of bits, and other builds of which the same is promised: those that REFMODEL_LLAMA_LIBS names."""
    return Path(request.param) if request.param else llama_lib


TOKENS = (1, 2, 3, 4, 7, 8, 9, 64, 65)


def beside(path, profile, calls, folder, lib, anchor):
    """The diff of numerics llamacpp, as that llama.cpp runs, with what it recorded."""
    model = refmodel.load(path)
    other = live(model, model.route(), calls, profile_of(profile), lib, False, folder)
    return compare(model, model.route(), other, numerics_against(LLAMACPP, other), anchor, lambda name: None)


def differing(result):
    return [(row.name, row.differ, row.problem) for row in result.rows if row.differ or row.problem]


@st.composite
def profiles(draw):
    options = {
        "fa": ("on", "off", "auto"),
        "kv": ("f16", "f32"),
        "repack": ("on", "off"),
        "tiled": ("on", "off"),
        "threads": ("1", "2"),
    }
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
        "trained": draw(st.booleans()),
    }
    shape |= {"G": draw(st.sampled_from([g for g in (1, 2) if shape["H"] % g == 0])), "tied": draw(st.booleans())}
    # with AVX-512 a rotated tensor of 8 numbers is computed otherwise if the next one in memory is what it is computed from
    shape |= {"D": draw(st.sampled_from([8 if shape["G"] > 1 else 12, 10, 16, 20, 34, 64]))}
    shape |= {"n_rot": draw(st.sampled_from([6, 8])) if arch in tiny.DELTA else shape["D"]}
    if arch in ("qwen2", "lfm2"):  # whose heads are the embedding's width
        shape |= {"E": shape["H"] * shape["D"]}
    if tiny.SHAPES[arch].experts:
        shape |= {"Fx": draw(size)}
    if tiny.SHAPES[arch].Fs:
        shape |= {"Fs": draw(size)}
    if arch == "lfm2":
        shape |= {"interval": 2, "K": draw(st.sampled_from([2, 3, 4, 5]))}
    if arch in tiny.DELTA:
        shape |= {"interval": 2, "S": draw(st.sampled_from([7, 8, 32, 36])), "K": draw(st.sampled_from([2, 3, 4, 5]))}
    seed, chosen = draw(seeds()), {}

    def types(name):
        rows = np.random.default_rng([seed, *name.encode()])
        width = {"down_exps": shape.get("Fx"), "down_shexp": shape.get("Fs"), "ffn_down": shape["F"]}
        width |= {"attn_output": shape["H"] * shape["D"], "ssm_out": tiny.Shape.Hv * shape.get("S", 1)}
        inputs = next((n for part, n in width.items() if part in name), shape["E"])
        # of rows of one block and 32 tokens AMX's kernels add the products to what was in memory: a fault of llama.cpp's own
        fitting = [kind for kind in KINDS if inputs % GGML_QUANT_SIZES[kind][0] == 0 and (inputs != 32 or kind not in ADDED_TO)]
        chosen[name] = fitting[rows.integers(len(fitting))]
        return chosen[name]

    return {"seed": seed, "types": types, **shape}


@pytest.mark.parametrize("arch", ARCHITECTURES)
@settings(max_examples=examples(8))
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


QUANTIZED = [f"{arch}-{kind}" for arch in ("llama", "qwen3", "qwen35") for kind in ("Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")]
QUANTIZED += [f"{arch}-{kind}" for arch in ARCHITECTURES for kind in ("Q4_K_M", "Q8_0") if f"{arch}-{kind}" not in QUANTIZED]
QUANTIZED += ["austen-BF16", "austen-Q8_0", "austen-Q4_K_M"]  # trained


def added_to(path):
    """The matrices whose products with 32 tokens and more AMX's kernels add to what was in memory."""
    tensors = refmodel.load(path).file.tensors.values()
    return [t.name for t in tensors if t.type in ADDED_TO and len(t.shape) == 2 and t.shape[1] == 32 and t.shape[0] % 32 == 0]


@pytest.mark.parametrize("anchor", ["", "block"])
@pytest.mark.parametrize("profile", ["default", "exact"])
@pytest.mark.parametrize("name", [*QUANTIZED, "qwen35", "qwen35-four-to-one", "qwen35-equal-heads", "llama-tied", "qwen3-tied"])
def test_whole_models_prefill_and_steps(name, profile, anchor, golden, tmp_path, llama_lib):
    path, calls = golden / "models" / f"{name}.gguf", [[*range(1, 71)], *([token] for token in range(100, 108)), [*range(30, 39)]]
    if profile_of(profile).repack and "AMX_INT8" in locate(llama_lib).build["features"] and (lost := added_to(path)):
        pytest.skip(f"with AMX llama.cpp adds the products of {lost[0]} to what was in memory: its rows have one block")
    result = beside(path, profile, calls, tmp_path, llama_lib, anchor)
    assert not differing(result)
    assert len(result.logits) == 87


@pytest.mark.parametrize("threads", [1, 2])
def test_one_token_over_a_long_cache(threads, golden, tmp_path, llama_lib):
    """From 512 cells on llama.cpp splits the keys of a single token among its threads: then their number changes bits."""
    calls = [[*range(1, 200)], [*range(1, 250)], [*range(1, 90)], [7], [8]]
    assert not differing(beside(golden / "models" / "llama.gguf", f"threads={threads}", calls, tmp_path, llama_lib, ""))


@pytest.mark.parametrize("profile", ["default", "exact", "repack=off,tiled=off"])
def test_a_trained_model(profile, smollm2, tmp_path, llama_lib):
    ids = list(map(int, refmodel.load(smollm2).tokenizer.encode(TEXT)))
    result = beside(smollm2, profile, [ids[:70], *([token] for token in ids[70:73]), ids[73:100]], tmp_path, llama_lib, "")
    assert not differing(result)
    assert [row.nmse for row in result.logits] == [0.0] * 100


BITS = """
import hashlib, sys, numpy, refmodel
for numerics in sys.argv[2:]:
    seen = hashlib.sha256()
    def tapper(name, x):
        seen.update(name.encode() + numpy.ascontiguousarray(x, numpy.float32).tobytes())
        return x
    session = refmodel.load(sys.argv[1]).session(numerics=numerics, tapper=tapper, scores=True)
    session.forward(range(1, 12)), session.forward([11])
    print(numerics, seen.hexdigest())
"""
HASWELL = {**os.environ, "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": AVX2}


def test_kernels_for_a_haswell_compute_any_library(golden, llama_lib):
    """Also one that is compiled for AVX-512: its registers are emulated."""
    model = golden / "models" / "qwen35-Q4_K_M.gguf"
    words = [str(model), "--tokens", "1,2,3,4,5,6,7,8,9", "--decode", "2", "--llama-lib", str(llama_lib), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "refmodel", "diff", *words], env=HASWELL, capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    assert (answer["verdict"], sum(row["differ"] for row in answer["rows"])) == ("within", 0)


@pytest.mark.usefixtures("llama_lib")  # it needs none, but compiles for half a minute
def test_kernels_for_a_haswell_have_the_bits_of_those_for_this_processor(golden):
    command = [sys.executable, "-c", BITS, str(golden / "models" / "qwen35-Q4_K_M.gguf")]
    command += [f"llamacpp:{profile}cpu={cpu}" for profile in ("", "exact,") for cpu in ("avx2", "skylakex", "zen4")]
    here, there = (subprocess.run(command, env=env, capture_output=True, text=True, check=True) for env in (None, HASWELL))
    assert here.stdout == there.stdout


def test_under_a_route(golden, tmp_path, llama_lib):
    model = refmodel.load(golden / "models" / "qwen35-Q4_K_M.gguf")
    route = model.route("blocks:1,3")
    other = live(model, route, [[*range(1, 20)], [4], [5]], profile_of("default"), llama_lib, False, tmp_path)
    assert not differing(compare(model, route, other, numerics_against(LLAMACPP, other), "", lambda name: None))


def test_a_wrong_rope_base_hides_in_the_noise_of_reference_and_is_found_by_the_verdict(smollm2, tmp_path, llama_lib):
    """The same fault: the free run in float32 is as far from llama.cpp's with it as without, and the first rotation is named."""
    model = refmodel.load(smollm2)
    ids = list(map(int, model.tokenizer.encode(TEXT)))[:40]
    other = live(model, model.route(), [ids], profile_of("default"), llama_lib, False, tmp_path)
    wrong = model.with_hparams(rope=replace(model.hp.rope, base=model.hp.rope.base * 1.01))
    right, off = (compare(m, m.route(), other, REFERENCE, "", lambda name: None).logits for m in (model, wrong))
    assert max(row.nmse for row in off) < 10 * max(row.nmse for row in right)
    assert judge(model, model.route(), other, lambda name: None).first is None
    assert judge(wrong, wrong.route(), other, lambda name: None).first.name == "Qcur-0#2"


def test_the_table_of_gelu_is_llama_cpps(llama_lib):
    """Read in a process of its own, from the library of CPU kernels beside libllama."""
    program = (
        "import ctypes, sys\n"
        "from pathlib import Path\n"
        "folder = Path(sys.argv[1]).parent\n"
        "libraries = [ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL) for name in ('libggml-base.so', 'libggml-cpu.so')]\n"
        "libraries[1].ggml_cpu_init()\n"
        "sys.stdout.buffer.write(bytes((ctypes.c_uint16 * 65536).in_dll(libraries[1], 'ggml_table_gelu_f16')))"
    )
    theirs = subprocess.run([sys.executable, "-c", program, str(llama_lib)], capture_output=True, check=True).stdout
    theirs, ours = np.frombuffer(theirs, np.float16).astype(np.float32), gelu_table()
    numbers = ~np.isnan(theirs)
    same_bits(np.isnan(ours), ~numbers)
    same_bits(ours[numbers], theirs[numbers])


@pytest.mark.parametrize("options", ["default", "repack=off"])
def test_values_equally_far_from_zero(options, tmp_path, llama_lib):
    """A block with −x and +x as its extremes, of which llama.cpp's quantizers choose one or the other: no product changes."""
    wide = {"n_layer": 1, "E": 256, "F": 256, "H": 8, "G": 2, "D": 32, "n_rot": 32}
    path = tiny.build(tmp_path / "m.gguf", "llama", seed=5, types=lambda name: Q.F32 if "embd" in name else Q.Q4_K, **wide)
    tensors = refmodel.load(path).file.tensors
    file = np.memmap(path, np.uint8, "r+")
    norm, embedding = (tensors[name] for name in ("blk.0.attn_norm.weight", "token_embd.weight"))
    start = {t.name: file_offset(file, t) for t in (norm, embedding)}
    file[start[norm.name] :][: 4 * 256].view(np.float32)[:] = 1
    rows = file[start[embedding.name] :][: 4 * 256 * 9].view(np.float32).reshape(9, 256)
    rows[:, 17], rows[:, 200] = -6, 6
    rows[::2] *= -1
    file.flush()
    assert not differing(beside(path, options, [[*range(9)], [0], [1]], tmp_path, llama_lib, "node"))


def file_offset(file, tensor):
    """Where the bytes of a tensor stand."""
    packed = tensor.rows.tobytes()
    return file.tobytes().find(packed)
