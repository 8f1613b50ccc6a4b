"""The only writer of golden/: tiny random models, and what llama.cpp makes of them.

Needs an environment with refmodel and the extra [llamacpp] (llama-cpp-python 0.3.36, built as README.md says). That package's
llama.cpp quantizes and records, whatever REFMODEL_LLAMA_LIB names; another build is refused before anything is written.
Run it from anywhere:

    python golden/make.py                  everything
    python golden/make.py --traces         llama.cpp's runs again, of the files that are there; nothing is quantized
    python golden/make.py qwen2-Q8_0 ...   these files of models/ alone, and llama.cpp's logits for them; hashes of names/ anew

Everything comes from seeds: a second run changes nothing but the dates of files whose bytes changed.
"""

import argparse
import ctypes
import datetime
import hashlib
import importlib.util
import json
import os
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import make_tokenizers  # noqa: E402
import tiny  # noqa: E402
from gguf import GGMLQuantizationType  # noqa: E402

import refmodel  # noqa: E402
from refmodel.compare.dequantized import dequantized  # noqa: E402
from refmodel.compare.probes import known  # noqa: E402
from refmodel.llamacpp.library import Library, locate  # noqa: E402
from refmodel.llamacpp.oracle import record  # noqa: E402
from refmodel.llamacpp.profile import PROFILES  # noqa: E402
from refmodel.surgery.gguf import routed  # noqa: E402

# F32 models with short rows, at most 1 MB: name -> architecture, seed, shape. No two axes agree but where `alike` says why.
FLOATS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "llama": ("llama", 1, {}),
    "llama-tied": ("llama", 2, {"tied": True, "rope_freqs": True, "H": 4, "G": 4, "alike": "a head of keys for each head"}),
    "qwen2": ("qwen2", 21, {}),
    "qwen2-no-biases": ("qwen2", 22, {"biases": (), "tied": True, "n_layer": 2}),
    "qwen3": ("qwen3", 3, {}),
    "qwen3-tied": ("qwen3", 4, {"tied": True, "H": 8, "G": 1, "alike": "one head of keys"}),
    "qwen3moe": ("qwen3moe", 23, {"n_layer": 2}),
    "qwen35": ("qwen35", 5, {"n_layer": 8, "interval": 4}),
    "qwen35moe": ("qwen35moe", 24, {"n_layer": 3}),
    "qwen3next": ("qwen3next", 25, {"n_layer": 3}),
    "gemma3": ("gemma3", 26, {}),
    "mistral3": ("mistral3", 27, {"n_layer": 2, "tied": True}),
    "lfm2": ("lfm2", 28, {"E": 32, "D": 8, "n_rot": 8, "n_layer": 3, "tied": True}),
    "qwen35-equal-heads": ("qwen35", 6, {"Hk": 5, "Hv": 5, "tied": True, "K": 3, "alike": "as many key heads as value heads"}),
    "qwen35-four-to-one": ("qwen35", 7, {"Hk": 5, "Hv": 20, "S": 7, "sections": [3, 1, 1], "recurrent": [1, 0, 0, 1, 1]}),
    "qwen35-nextn": ("qwen35", 8, {"n_nextn": 1, "n_layer": 3, "recurrent": [True, False, True]}),
}

# models with rows of 256, committed quantized only: name -> architecture, seed, shape, types. In the small ones some rows are
# shorter: these get the types that llama.cpp falls back to.
FTYPES = {"Q8_0": 7, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}  # llama_ftype
FOUR, TWO = tuple(FTYPES), ("Q8_0", "Q4_K_M")
BLOCKS = {"alike": "packed rows are a multiple of 256, or of 32; of other lengths these files would be several times as large"}
WIDE = {"E": 256, "F": 256, "H": 8, "G": 2, "D": 32, "n_rot": 32, **BLOCKS}
DELTA = {"n_rot": 12, "Hk": 4, "Hv": 8, "S": 32, "K": 4, "recurrent": [1, 1, 0, 1]}
SMALL = {"E": 256, "F": 32, "H": 2, "G": 1, "D": 16, "n_rot": 16, "tied": True, **BLOCKS}
MOE_HYBRID = {**SMALL, "n_layer": 2, "interval": 2, "n_rot": 12, "Hk": 2, "Hv": 4, "S": 8, "K": 4}
MOE_HYBRID |= {"experts": 3, "used": 2, "Fx": 32, "Fs": 32}
ROWS_OF_256: dict[str, tuple[str, int, dict[str, Any], tuple[str, ...]]] = {
    "llama": ("llama", 11, {**WIDE, "n_layer": 2}, FOUR),
    "qwen3": ("qwen3", 12, {**WIDE, "n_layer": 2, "tied": True}, FOUR),
    "qwen35": ("qwen35", 13, {**WIDE, **DELTA, "n_layer": 4}, FOUR),
    "qwen2": ("qwen2", 31, {**WIDE, "F": 32, "n_layer": 1, "tied": True}, TWO),
    "qwen3moe": ("qwen3moe", 32, {**SMALL, "n_layer": 1, "experts": 3, "used": 2, "Fx": 32}, TWO),
    "qwen35moe": ("qwen35moe", 33, MOE_HYBRID, TWO),
    "qwen3next": ("qwen3next", 34, MOE_HYBRID, TWO),
    "gemma3": ("gemma3", 35, {**SMALL, "n_layer": 2, "interval": 2}, TWO),
    "mistral3": ("mistral3", 36, {**SMALL, "n_layer": 1}, TWO),
    "lfm2": ("lfm2", 37, {**SMALL, "H": 8, "D": 32, "n_rot": 32, "n_layer": 2, "interval": 2}, TWO),
}

# the trained model (golden/train makes austen-BF16.gguf): these copies are committed, and of those the manifest has the hashes
AUSTEN, COPIES = "austen", ("Q5_K_M", "Q6_K", "UD-Q4_K_XL")
AUSTENS = [f"{AUSTEN}-{kind}" for kind in ("BF16", *TWO)]
UNEVEN = {  # as UD-Q4_K_XL files have it: what is small or delicate gets more bits
    "token_embd": "Q6_K",
    "attn_qkv": "Q5_K",
    "attn_gate": "Q5_K",
    "ssm_out": "Q8_0",
    "ssm_alpha": "F32",
    "ssm_beta": "F32",
    "attn_k.weight": "Q8_0",
    "attn_v.weight": "Q8_0",
    "attn_output": "Q6_K",
    "ffn_down": "Q5_K",
    "ffn_up": "IQ4_XS",
}

NAMES = {*FLOATS, *(f"{name}-{ftype}" for name, (*_, types) in ROWS_OF_256.items() for ftype in types), *AUSTENS}

TOKENS = [84, 104, 101, 220, 116, 104, 105, 110, 103, 9, 77]
CALLS = [TOKENS, [12], [200]]
ROUTE = "blocks:2,6"
SHOWN, SHOWN_ROUTE = "Emma was very glad to see", "blocks:5,7"  # by `refmodel demo`
NAMES_BY = "nodes seen by the scheduler's callback, reasons by hand, definitions by golden/make_sources.py"
COMMIT = "0c1e57098"  # of llama.cpp in llama-cpp-python 0.3.36: the one that golden/ speaks of


def again() -> None:
    """Record all traces again: of the models as they are, with what the manifest says of them."""
    library, notes = judge(), dict[str, dict[str, Any]]()
    before = tomllib.loads((HERE / "manifest.toml").read_text())["files"]
    for folder in sorted((HERE / "traces").iterdir()):
        trace_logits(HERE / "models" / f"{folder.name}.gguf", library, notes)
    trace_route("qwen35", ROUTE, CALLS, "exact", library, notes)
    trace_shown(library, notes)
    for name, note in notes.items():
        note |= {key: value for key, value in before[name].items() if key == "nmse_of_dequantized"}
    write_manifest(notes | others(), keep=True)


def main(only: set[str]) -> None:
    """Make the models that are named, or everything where none is."""
    if unknown := only - NAMES:
        raise SystemExit(f"golden/make.py: no model is called {', '.join(sorted(unknown))}; there are {', '.join(sorted(NAMES))}")
    wanted = only or NAMES
    library, notes = judge(), dict[str, dict[str, Any]]()
    for name in ("models", "traces"):
        (HERE / name).mkdir(exist_ok=True)
    for name, (arch, seed, shape) in FLOATS.items():
        if name in wanted:
            path = tiny.build(HERE / "models" / f"{name}.gguf", arch, seed, **shape)
            notes[f"models/{name}.gguf"] = {"producer": "gguf package, tests/tiny.py", "seed": seed}
            trace_logits(path, library, notes)
    for name, (arch, seed, shape, types) in ROWS_OF_256.items():
        with tempfile.TemporaryDirectory() as folder:
            parent = tiny.build(Path(folder) / "parent.gguf", arch, seed, **shape)
            for ftype in (ftype for ftype in types if f"{name}-{ftype}" in wanted):
                path = HERE / "models" / f"{name}-{ftype}.gguf"
                quantize(parent, path, FTYPES[ftype])
                notes[f"models/{path.name}"] = {"producer": "llama_model_quantize", "seed": seed, "flags": ftype}
                note = trace_logits(path, library, notes)
                note["nmse_of_dequantized"] = distance_to_dequantized(path, library)
    for name in AUSTENS:
        if name in wanted:
            make_austen(HERE / "models" / f"{name}.gguf", library, notes)
    notes |= others()
    if only:
        write_manifest(notes, keep=True)
        return
    trace_route("qwen35", ROUTE, CALLS, "exact", library, notes)
    for path in make_tokenizers.make(HERE / "tokenizers", library.path):
        notes[f"tokenizers/{path.name}"] = {"producer": "gguf package" if path.suffix == ".gguf" else "llama_tokenize"}
    write_manifest(notes)


def others() -> dict[str, dict[str, Any]]:
    """Notes on the files that are not made here."""
    notes = dict[str, dict[str, Any]]()
    for path in sorted((HERE / "names").rglob("*.txt")):
        notes[f"names/{path.relative_to(HERE / 'names')}"] = {"producer": NAMES_BY}
    for path in sorted((HERE / "hf").glob("*")):
        notes[f"hf/{path.name}"] = {"producer": "golden/make_hf.py, transformers 5.23.0, torch 2.13.0"}
    for path in sorted((HERE / AUSTEN).glob("*[!d]")):
        notes[f"{AUSTEN}/{path.name}"] = {"producer": "golden/train/, golden/windows.py"}
    for path in sorted((HERE / "pre").glob("*")):
        notes[f"pre/{path.name}"] = {"producer": "golden/make_pre.py, llama_tokenize"}
    for path in sorted((HERE / "dumps").glob("*")):
        notes[f"dumps/{path.name}"] = {"producer": "llama-debug, llama-results, llama-perplexity, golden/make_dumps.py"}
    notes["models/qwen35-hf.gguf"] = {"producer": "golden/make_hf.py, gguf package"}
    return notes


def make_austen(path: Path, library: Library, notes: dict[str, dict[str, Any]]) -> None:
    """One file of the trained model: quantized, unless it is the original; its logits; and what `refmodel demo` compares with."""
    original, kind = HERE / "models" / f"{AUSTEN}-BF16.gguf", path.stem.removeprefix(f"{AUSTEN}-")
    note = notes[f"models/{path.name}"] = {"producer": "golden/train/", "seed": 35}
    if path == original:
        with tempfile.TemporaryDirectory() as folder:
            for copy in COPIES:
                target = Path(folder) / "copy.gguf"
                quantize(original, target, FTYPES.get(copy, FTYPES["Q4_K_M"]), {} if copy in FTYPES else UNEVEN)
                note[f"sha256_as_{copy}"] = sha256(target)
    else:
        quantize(original, path, FTYPES[kind])
        note |= {"producer": "llama_model_quantize", "flags": kind}
    note = trace_logits(path, library, notes)
    note["nmse_of_dequantized"] = distance_to_dequantized(path, library)
    if kind == "Q4_K_M":
        trace_shown(library, notes)


def trace_shown(library: Library, notes: dict[str, dict[str, Any]]) -> None:
    """What `refmodel demo` compares with."""
    prompt = refmodel.load(HERE / "models" / f"{AUSTEN}-Q4_K_M.gguf").tokenizer.encode(
        SHOWN, add_special=False, parse_special=False
    )
    trace_route(f"{AUSTEN}-Q4_K_M", SHOWN_ROUTE, [[0, *prompt]], "default", library, notes)


def judge() -> Library:
    """The installed llama_cpp package's llama.cpp; the program ends if there is none, or it is not the one of the manifest."""
    os.environ.pop("LLAMA_CPP_LIB_PATH", None)  # would lead that package to another library
    package = importlib.util.find_spec("llama_cpp")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("golden/make.py: llama_cpp is not installed here; pip install 'refmodel[llamacpp]' as README.md says")
    library = locate(Path(package.submodule_search_locations[0]))
    found = library.build["commit"].removesuffix("-dirty")
    if not COMMIT.startswith(found):
        raise SystemExit(f"golden/make.py: the installed llama.cpp is {found}; golden/ is made by {COMMIT} alone")
    return library


def quantize(source: Path, target: Path, ftype: int, types: Mapping[str, str] = MappingProxyType({})) -> None:
    """llama.cpp's own quantizer, one thread. `types`: of tensors whose names contain a word."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = ftype, 1
    if types:
        rules = [(word.encode(), int(GGMLQuantizationType[kind])) for word, kind in types.items()]
        params.tt_overrides = (llama_cpp.llama_model_tensor_override * (len(rules) + 1))(*rules)
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)):
        raise SystemExit(f"{target}: llama_model_quantize failed")


def provenance(path: Path, route: str, library: Library) -> dict[str, Any]:
    return {"route": route, "sha256": sha256(path), "model": path.name, "oracle": known(library).as_json()}


def trace_logits(path: Path, library: Library, notes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """llama.cpp's logits for a prompt and two single tokens behind it."""
    model = refmodel.load(path)
    out = HERE / "traces" / path.stem / "logits.safetensors"
    out.parent.mkdir(exist_ok=True)
    record(
        path, CALLS, PROFILES["exact"], out, library.path, provenance=provenance(path, model.route().canonical, library), taps=False
    )
    note = notes[f"traces/{path.stem}/{out.name}"] = {"producer": "llama_decode", "flags": "profile exact", "inputs": str(CALLS)}
    return note


def distance_to_dequantized(path: Path, library: Library) -> float:
    """NMSE of llama.cpp's logits on the quantized file, from its own on the dequantized copy: what 8-bit activations cost."""
    from refmodel.forward.trace import Trace

    model = refmodel.load(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = dequantized(model.file, Path(folder) / "dequantized.gguf")
        out = Path(folder) / "logits.safetensors"
        record(copy, CALLS, PROFILES["exact"], out, library.path, taps=False)
        exact, rounded = Trace(out), Trace(HERE / "traces" / path.stem / "logits.safetensors")
        lost = sum(float(((rounded[n] - exact[n]).astype(float) ** 2).sum()) for n in exact)
        return float(f"{lost / sum(float((exact[n].astype(float) ** 2).sum()) for n in exact):.3e}")


def trace_route(
    name: str, route: str, calls: list[list[int]], profile: str, library: Library, notes: dict[str, dict[str, Any]]
) -> None:
    """Every node of llama.cpp's run of a materialised route."""
    path, out = HERE / "models" / f"{name}.gguf", HERE / "traces" / name / "route.safetensors"
    model = refmodel.load(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = routed(model, model.route(route), Path(folder) / "routed.gguf")
        record(copy, calls, PROFILES[profile], out, library.path, provenance=provenance(path, route, library))
    notes[f"traces/{name}/{out.name}"] = {
        "producer": "llama_decode, every node",
        "flags": f"profile {profile}, {route}",
        "inputs": str(calls),
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_manifest(notes: dict[str, dict[str, Any]], keep: bool = False) -> None:
    """Every file with its hash, size, origin, and the date on which its bytes last changed; `keep`: beside those of other files."""
    manifest = HERE / "manifest.toml"
    before = tomllib.loads(manifest.read_text()) if manifest.exists() else {}
    today = datetime.date.today().isoformat()
    files = before.get("files", {})
    made = {name: entry(name, note, files.get(name, {}), today) for name, note in notes.items()}
    lines = [f'# Written by golden/make.py. llama.cpp is {COMMIT} (llama-cpp-python 0.3.36), AVX2, GCC 12.\ncommit = "{COMMIT}"\n']
    kept = {name: values for name, values in files.items() if keep and (HERE / name).exists()}
    for name, values in sorted((kept | made).items()):
        lines.append(f'\n[files."{name}"]\n' + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    manifest.write_text("".join(lines))


def entry(name: str, note: dict[str, Any], old: dict[str, Any], today: str) -> dict[str, Any]:
    digest = sha256(HERE / name)
    date = old.get("date", today) if old.get("sha256") == digest else today
    return {"sha256": digest, "bytes": (HERE / name).stat().st_size, **note, "date": date}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a model; everything if none is named")
    parser.add_argument("--traces", action="store_true", help="record again, and quantize nothing")
    given = parser.parse_args()
    again() if given.traces else main(set(given.names))
