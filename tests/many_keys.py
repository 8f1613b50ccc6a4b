"""Every key of llama.cpp's table of metadata, many values of each, all architectures: what does llama.cpp make of a file that has
it, and what do we? Run by hand, with REFMODEL_LLAMA_LIB set:

    python tests/many_keys.py keys llama-arch.cpp results.jsonl      # goes on where it ended; --only REGEX for some keys,
                                                                     # --every 5 for every fifth case
    python tests/many_keys.py tensors llama-arch.cpp results.jsonl   # the same with every name of its table of tensors
    python tests/many_keys.py report results.jsonl                   # the table, and each case that is not as it should be

A case is a tiny model whose file has one key (or one tensor) more, less or changed. llama.cpp runs it in a fork of its own, so that
it may abort. The words for what comes out:

    same       both run, and the logits, and the token ids of a text, are the same to the last bit
    both       both refuse
    named      llama.cpp runs it, and our refusal names the key or the tensor
    alone      llama.cpp refuses, and we run it
    UNNAMED    llama.cpp runs it, and our refusal names something else
    IGNORED    llama.cpp computes something else than without it, and we do not
    DIFFERENT  both compute something else, and not the same
    CRASHED    ours ends with something else than a refusal
"""

import argparse
import ctypes
import hashlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

if __name__ == "__main__":
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")  # tiny products; read at import. Tests import this file, too

import numpy as np
import tiny
from gguf import GGMLQuantizationType as Q
from gguf import GGUFValueType as T

from refmodel.errors import RefmodelError
from refmodel.gguf.metadata import Field
from refmodel.gguf.reader import GgufFile, Tensor, read
from refmodel.gguf.writer import field, write

TOKENS = [[84, 104, 101, 220, 9, 77], [31]]
TEXT = "  The cat's  hat,\n<|im_end|> and 12 Ä\u0301pfel </s>"
YARN = {"type": "yarn", "factor": 4.0, "original_context_length": 64}
HYBRID = {"n_layer": 4, "interval": 2}

# What the cases change, beginning with one model of each architecture; the keys that are tried on it.
BASES: dict[str, tuple[str, dict[str, Any], str]] = {
    **{arch: (arch, HYBRID if arch in tiny.DELTA else {}, "") for arch in tiny.SHAPES},
    **{f"{arch}, yarn": (arch, {**(HYBRID if arch in tiny.DELTA else {}), "scaling": YARN}, "rope") for arch in tiny.SHAPES},
    "gemma3, no window": ("gemma3", {"window": 0, "n_layer": 2}, "sliding|swa|rope"),
    "llama, divisors": ("llama", {"rope_freqs": True}, "rope"),
    "qwen35, mtp": ("qwen35", {**HYBRID, "n_nextn": 1}, "nextn|block_count|recurrent|interval"),
}
ARCHITECTURE_OF = {name: arch for name, (arch, _, _) in BASES.items()}


def all_sorts(base: str, key: str, file: GgufFile) -> bool:
    """Whether a key gets values of all sorts: one that the file has, or that is near those; a tokenizer's with one base."""
    return base == "llama" if key.startswith("tokenizer") else key in file.metadata or bool(re.search("rope|attention|expert", key))


def strings(values: list[str]) -> Field:
    """A metadata value that is an array of strings."""
    body = b"".join(struct.pack("<Q", len(value.encode())) + value.encode() for value in values)
    return Field(T.ARRAY, T.STRING, len(values), memoryview(struct.pack("<IQ", T.STRING, len(values)) + body))


def values(there: Field | None, blocks: int, all_sorts: bool) -> dict[str, Field | None]:
    """What a key is set to, by a word for it: a few sorts of numbers, or all, texts, lists, and what is near the value there."""
    out: dict[str, Field | None] = {"u32 1": field(T.UINT32, 1), "f32 0.5": field(T.FLOAT32, 0.5), "true": field(T.BOOL, True)}
    out["numbers"] = field(T.ARRAY, [i % 2 + 1 for i in range(blocks)], T.UINT32)
    if not all_sorts:
        return out
    out |= {f"u32 {n}": field(T.UINT32, n) for n in (0, 3)} | {f"f32 {x}": field(T.FLOAT32, x) for x in (0.0, -2.0)}
    out |= {"i32 -1": field(T.INT32, -1), "false": field(T.BOOL, False)}
    out |= {f"text {text!r}": field(T.STRING, text) for text in ("", "none", "linear", "yarn", "longrope")}
    out["bools"] = field(T.ARRAY, [i % 2 for i in range(blocks)], T.BOOL)
    out["numbers of length 4"] = field(T.ARRAY, [1, 1, 1, 0], T.INT32)
    out["reals"] = field(T.ARRAY, [0.5 + i for i in range(blocks)], T.FLOAT32)
    out["texts"] = strings(["blk.0.attn_v.weight", "output.weight"])
    out["nothing listed"] = field(T.ARRAY, [], T.UINT32)
    return out | near(there, blocks)


def near(there: Field | None, blocks: int) -> dict[str, Field | None]:
    """Values near that of a key that the file has, and the file without it."""
    if there is None:
        return {}
    out: dict[str, Field | None] = {"absent": None}
    value = there.value()
    if there.item is not None and there.item != T.STRING:
        numbers = [list(value[:-1]), [*value, value[-1]], list(value[::-1]), [2 * x for x in value], [0] * len(value)]
        return out | {f"list {i}": field(T.ARRAY, x, there.item) for i, x in enumerate(numbers)}
    if there.type == T.UINT32:
        out |= {f"near {n}": field(T.UINT32, n) for n in (value - 1, value + 1, 2 * value, value // 2) if n >= 0}
        listed = {
            "alike": [value] * blocks,
            "last less": [*[value] * (blocks - 1), value - 1],
            "last 0": [*[value] * (blocks - 1), 0],
        }
        listed |= {"first 0": [0, *[value] * (blocks - 1)], "last more": [*[value] * (blocks - 1), value + 1]}
        out |= {f"by block, {word}": field(T.ARRAY, x, T.UINT32) for word, x in listed.items() if min(x) >= 0}
        out |= {"alike, i32": field(T.INT32, value), "alike, u64": field(T.UINT64, value), "alike, f32": field(T.FLOAT32, value)}
        out |= {
            "by block, i32": field(T.ARRAY, [value] * blocks, T.INT32),
            "by block, u64": field(T.ARRAY, [value] * blocks, T.UINT64),
        }
    if there.type == T.FLOAT32:
        out |= {f"near {x:g}": field(T.FLOAT32, x) for x in (2 * value, value / 3, -value)}
        out |= {"alike, f64": field(T.FLOAT64, value), "alike, u32": field(T.UINT32, int(value))}
    return out


@dataclass(frozen=True)
class Case:
    """One file: a base, what is changed in it (a key, or a tensor), and how."""

    base: str
    what: str
    how: str
    tensor: bool = False

    @property
    def id(self) -> str:
        return f"{self.base} | {self.what} | {self.how}"


@cache
def base_file(name: str, folder: Path) -> GgufFile:
    arch, shape, _ = BASES[name]
    return read(tiny.build(folder / f"{name}.gguf", arch, seed=22, **shape))


def keys_of(source: str, arch: str) -> list[str]:
    """llama.cpp's own table, with the architecture's name filled in."""
    table = re.search(r"LLM_KV_NAMES = \{(.*?)\n\};", source, re.S)
    assert table
    return [key.replace("%s", arch) for key in re.findall(r'\{ LLM_KV_\w+,\s*"([^"]+)"', table[1])]


def tensors_of(source: str) -> list[str]:
    table = re.search(r"LLM_TENSOR_NAMES = \{(.*?)\n\};", source, re.S)
    assert table
    return sorted(set(re.findall(r'\{ LLM_TENSOR_\w+,\s*"([^"]+)"', table[1])))


def key_cases(source: str, folder: Path) -> Iterator[Case]:
    for base, (arch, _, only) in BASES.items():
        file = base_file(base, folder)
        blocks = file.metadata[f"{arch}.block_count"]
        for key in keys_of(source, arch):
            if re.search(only, key):
                for how in values(file.metadata.fields.get(key), blocks, all_sorts(base, key, file)):
                    yield Case(base, key, how)


def tensor_shapes(file: GgufFile) -> dict[str, tuple[int, ...]]:
    """Shapes that an added tensor may have: those that the file's own tensors have, by a word for it."""
    md, arch = file.metadata, file.metadata["general.architecture"]
    E, H, D = (md[f"{arch}.{key}"] for key in ("embedding_length", "attention.head_count", "attention.key_length"))
    G, V, n_rot = (
        int(np.max(md[f"{arch}.attention.head_count_kv"])),
        len(md["tokenizer.ggml.tokens"]),
        md[f"{arch}.rope.dimension_count"],
    )
    out = {
        "1": (1,),
        "E": (E,),
        "V": (V,),
        "D": (D,),
        "H": (H,),
        "n_rot/2": (n_rot // 2,),
        "E, E": (E, E),
        "V, E": (V, E),
        "1, E": (1, E),
    }
    out |= {"Q": (H * D,), "KV": (G * D,), "QKV": ((H + 2 * G) * D,), "QKV, E": ((H + 2 * G) * D, E), "2Q": (2 * H * D,)}
    out |= {"2QKV": ((2 * H + 2 * G) * D,)}
    if f"{arch}.feed_forward_length" in md:
        F = md[f"{arch}.feed_forward_length"]
        out |= {"F": (F,), "F, E": (F, E), "E, F": (E, F)}
    if f"{arch}.expert_count" in md:
        X, Fx = md[f"{arch}.expert_count"], md[f"{arch}.expert_feed_forward_length"]
        out |= {"X": (X,), "Fx": (Fx,), "X, Fx": (X, Fx), "X, E": (X, E), "X, 2Fx, E": (X, 2 * Fx, E)}
    if f"{arch}.ssm.time_step_rank" in md:
        Hv, S, Hk = (md[f"{arch}.ssm.{key}"] for key in ("time_step_rank", "state_size", "group_count"))
        out |= {"Hv": (Hv,), "S": (S,), "C": ((2 * Hk + Hv) * S,)}
    return out


def tensor_cases(source: str, folder: Path) -> Iterator[Case]:
    for base in tiny.SHAPES:
        file = base_file(base, folder)
        for pattern in tensors_of(source):
            for end in (".weight", ".bias", ".scale", ".input_scale", ""):
                for block in (0, 1) if "%d" in pattern else (0,):
                    name = pattern.replace("%d", str(block), 1).replace("%d", "0") + end
                    if name in file.tensors:
                        yield Case(base, name, "absent", tensor=True)
                    else:
                        yield from (Case(base, name, shape, tensor=True) for shape in tensor_shapes(file))


def written(case: Case, folder: Path) -> Path:
    """The case's file."""
    file = base_file(case.base, folder)
    fields, tensors = dict(file.metadata.fields), dict(file.tensors)
    if case.tensor and case.how == "absent":
        del tensors[case.what]
    elif case.tensor:
        shape = tensor_shapes(file)[case.how]
        data = (1.5 + np.random.default_rng([*case.what.encode()]).standard_normal(shape)).astype(np.float32)
        tensors[case.what] = Tensor(case.what, Q.F32, shape, file.path, data.reshape(-1).view(np.uint8))
    else:
        there = fields.pop(case.what, None)
        value = values(there, file.metadata[f"{ARCHITECTURE_OF[case.base]}.block_count"], True)[case.how]
        fields |= {} if value is None else {case.what.replace("alignment", "ALIGNMENT"): value}
    path = write(folder / "case.gguf", fields, list(tensors.values()))
    path.write_bytes(path.read_bytes().replace(b"general.ALIGNMENT", b"general.alignment"))  # which the writer would honour
    return path


class LlamaCpp:
    """llama.cpp in a process that forks for each file, so that loading the library is paid once and an abort ends a fork only."""

    def __init__(self, lib: Path) -> None:
        command = [sys.executable, __file__, "forks", str(lib)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, path: Path) -> tuple[Any, str]:
        """Logits and token ids, or None; and what it said where it refuses."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if answer["status"]:
            return None, answer["log"]
        arrays = np.load(path.with_suffix(".npz"))
        return {name: arrays[name] for name in arrays.files}, ""


def forks(lib: str) -> None:
    """Read paths from stdin; run each in a fork; answer with its status and the telling line of its log."""
    from refmodel.llamacpp import child
    from refmodel.llamacpp.asking import reason
    from refmodel.llamacpp.library import locate

    library = locate(Path(lib))
    api = child.Api(library.request)
    for line in sys.stdin:
        path = Path(line.strip())
        log = path.with_suffix(".log").open("w+b")
        if not (pid := os.fork()):
            signal.alarm(60)
            for descriptor in (1, 2):
                os.dup2(log.fileno(), descriptor)
            try:
                one(api, path)
                os._exit(0)
            except BaseException as error:
                print("error", error, file=sys.stderr, flush=True)
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        said = reason(log) if status else ""
        print(json.dumps({"status": status, "log": said}), flush=True)


def one(api: Any, path: Path) -> None:
    """In a fork: the logits of TOKENS and the ids of TEXT, to a file."""
    from refmodel.llamacpp.profile import DEFAULT
    from refmodel.llamacpp.running import decode, load_model, logits, new_context
    from refmodel.llamacpp.structures import CALLBACK

    lib, profile = api.lib, vars(DEFAULT)
    model = load_model(lib, str(path), profile)
    vocab = ctypes.c_void_p(lib.llama_model_get_vocab(model))
    out = {}
    for parse in (False, True):
        ids = (ctypes.c_int32 * 500)()
        n = lib.llama_tokenize(vocab, TEXT.encode(), len(TEXT.encode()), ids, 500, ctypes.c_bool(True), ctypes.c_bool(parse))
        out[f"ids {parse}"] = np.array(ids[:n])
    context, past = new_context(api, model, TOKENS, profile, CALLBACK()), 0
    for k, tokens in enumerate(TOKENS):
        decode(api, context, k, past, tokens, None)
        past += len(tokens)
        out[f"logits {k}"] = logits(api, context, model, len(tokens)).copy()
    np.savez(path.with_suffix(".npz"), **out)


def ours(path: Path) -> tuple[Any, str]:
    """The same of ours, or None and our error."""
    import refmodel

    try:
        model = refmodel.load(path)
        out = {
            f"ids {parse}": np.array(model.tokenizer.encode(TEXT, add_special=True, parse_special=parse)) for parse in (False, True)
        }
        session = model.session(numerics="llamacpp")
        return out | {f"logits {k}": session.forward(tokens) for k, tokens in enumerate(TOKENS)}, ""
    except RefmodelError as error:
        return None, str(error)
    except Exception as error:  # whatever it is, it is an outcome
        return None, f"CRASHED {type(error).__name__}: {error}"


def digest(found: Mapping[str, Any] | None) -> str:
    """A few letters that tell apart what was computed; empty for a refusal. All NaNs are one."""
    if found is None:
        return ""
    parts = (np.where(np.isnan(x), np.float32(np.nan), x) if x.dtype == np.float32 else x.astype(np.int32) for x in found.values())
    return hashlib.sha256(b"".join(np.ascontiguousarray(x).tobytes() for x in parts)).hexdigest()[:12]


def verdict(case: Case, plain: str, theirs: str, mine: str, said: str) -> str:
    if said.startswith("CRASHED "):
        return "CRASHED"
    if not theirs:
        return "alone" if mine else "both"
    if not mine:
        whole = case.tensor or case.what.startswith(
            ("general", "tokenizer", "split")
        )  # else a refusal may leave the architecture out
        return "named" if (case.what if whole else case.what.split(".", 1)[1]) in said else "UNNAMED"
    return "same" if mine == theirs else "IGNORED" if mine == plain else "DIFFERENT"


def unchanged(path: Path, llama: LlamaCpp) -> str:
    """The digest of a base itself, which is the same on both sides, or nothing else could be judged."""
    (theirs, refusal), (mine, said) = llama.run(path), ours(path)
    assert mine, f"{path}: {said}"
    assert digest(theirs) == digest(mine), f"{path}: {refusal or 'other logits'}"
    return digest(mine)


def sweep(cases: Iterator[Case], out: Path, only: str, folder: Path) -> None:
    done = {json.loads(line)["id"] for line in out.read_text().splitlines()} if out.exists() else set()
    llama, plain = LlamaCpp(Path(os.environ["REFMODEL_LLAMA_LIB"])), dict[str, str]()
    with out.open("a") as results:
        for case in cases:
            if case.id in done or not re.search(only, case.id):
                continue
            if case.base not in plain:
                plain[case.base] = unchanged(base_file(case.base, folder).path, llama)
            path = written(case, folder)
            theirs, refusal = llama.run(path)
            mine, said = ours(path)
            row = {"id": case.id, "verdict": verdict(case, plain[case.base], digest(theirs), digest(mine), said)}
            row |= {"changes": bool(theirs) and digest(theirs) != plain[case.base], "theirs": refusal, "ours": said}
            results.write(json.dumps(row) + "\n")
            results.flush()


def report(out: Path) -> None:
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    for word, count in Counter(row["verdict"] for row in rows).most_common():
        print(f"{count:7} {word}")
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        base, what, _ = row["id"].split(" | ")
        if row["verdict"] not in ("same", "both", "named"):
            groups.setdefault((row["verdict"], base, what), []).append(row)
    for (word, base, what), some in sorted(groups.items()):
        print(f"{word} {base} {what}: {'; '.join(row['id'].split(' | ')[2] for row in some)}")
        print(f"    {some[0]['ours'] or some[0]['theirs']}"[:200])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("keys", "tensors", "report", "forks"))
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--only", default="")
    parser.add_argument("--every", type=int, default=1, help="take every so many of the cases")
    given = parser.parse_args()
    if given.what == "forks":
        forks(given.paths[0])
    elif given.what == "report":
        report(Path(given.paths[0]))
    else:
        source = Path(given.paths[0]).read_text()
        with TemporaryDirectory(prefix="refmodel-", dir="/dev/shm") as name:
            folder = Path(name)
            cases = key_cases(source, folder) if given.what == "keys" else tensor_cases(source, folder)
            sweep(islice(cases, None, None, given.every), Path(given.paths[1]), given.only, folder)


if __name__ == "__main__":
    main()
