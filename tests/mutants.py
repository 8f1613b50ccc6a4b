"""Files that nobody would write: good ones of every format that is read, changed where their structure is, one seed for each.

A mutant is read as a user's file would be. What may come out is a value, or one of our own errors in one line; nothing else, within
two seconds of the processor and 256 MB. tests/many_mutants.py runs many of them, in child processes; tests/test_mutants.py some.
"""

import copy
import json
import random
import re
import signal
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import hf_made
import numpy as np
import tiny
from gguf import GGUFValueType as V

import refmodel
from refmodel.commands.options import calls_of, whole_numbers
from refmodel.dumps.map_file import read_map
from refmodel.dumps.read import read as read_dump
from refmodel.errors import RefmodelError
from refmodel.forward.trace import Trace
from refmodel.gguf.format import SCALARS
from refmodel.gguf.reader import read
from refmodel.hf.safetensors import read_safetensors
from refmodel.info.checks import inconsistencies
from refmodel.info.summary import summary
from refmodel.llamacpp.profile import profile_of
from refmodel.model.route import Route
from refmodel.text.templates import kwargs_of
from refmodel.tokenizer import Tokenizer

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
SECONDS, MEGABYTES = 2.0, 256
LONGEST = 4010  # characters of an error, and those that say that it was longer

WHOLE = [0, 1, 2, 3, 5, 7, 31, 32, 33, 63, 255, 256, 4095, 65535, 2**20, 2**24, 2**27, 2**28, 2**30, 2**31 - 1, 2**31, 2**32 - 1]
WHOLE += [2**32, 2**40, 2**53, 2**60, 2**62, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1]
REAL = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-300, 1e-45, 1e-38, 1e30, 3e38, 1e300, float("nan"), float("inf"), float("-inf"), 1e-6, 1e6]
TEXTS = [
    "",
    "a",
    "\0",
    "\x1b[31m",
    "x" * 70_000,
    "é" * 300,
    "\u202e",
    "llama",
    "general.alignment",
    "../../etc/passwd",
    "blk.0.attn_q.weight",
]
TEXTS += [
    "blk.99999999.attn_q.weight",
    "yarn",
    "none",
    "[bold]",
    "%s%n",
    "{0}{1}",
    "\n",
    "NaN",
    "-1",
    "1e999",
    "🙂",
    "token_embd.weight",
]
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    2**31,
    2**63,
    2**64,
    10**400,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    "",
]
VALUES += ["x" * 9_000, "\ud800", "\0", [[[]]], {"a": {"b": []}}, [0] * 2_000, "1", [None], ["a", 1, {}], {"": 1}]


@dataclass(frozen=True)
class Span:
    """One item of a GGUF's header: where it is, and what: u32, u64, a length of text, a scalar's type, bytes of an array."""

    start: int
    end: int
    kind: str


def spans(data: bytes) -> Iterator[Span]:
    """The items of a good GGUF, in order."""
    at = 4

    def item(size: int, kind: str) -> Span:
        nonlocal at
        at += size
        return Span(at - size, at, kind)

    def number(size: int = 8) -> int:
        return int.from_bytes(data[at : at + size], "little")

    def text(kind: str) -> Iterator[Span]:
        length = number()
        yield item(8, "length")
        yield item(length, kind)

    yield Span(0, 4, "magic")
    yield item(4, "u32")
    tensors, keys = number(), int.from_bytes(data[at + 8 : at + 16], "little")
    yield item(8, "count")
    yield item(8, "count")
    for _ in range(keys):
        yield from text("text")
        kind = V(number(4))
        yield item(4, "type")
        if kind == V.STRING:
            yield from text("text")
        elif kind != V.ARRAY:
            yield item(SCALARS[kind].itemsize, SCALARS[kind].str)
        else:
            inner = V(number(4))
            yield item(4, "type")
            count = number()
            yield item(8, "count")
            for i in range(count):
                if inner == V.STRING and i % 50 == 0:
                    yield from text("text")
                elif inner == V.STRING:
                    at += 8 + number()
                elif i % 50 == 0:
                    yield item(SCALARS[inner].itemsize, SCALARS[inner].str)
                else:
                    at += SCALARS[inner].itemsize
    for _ in range(tensors):
        yield from text("text")
        dims = number(4)
        yield item(4, "u32")
        for _ in range(dims):
            yield item(8, "dim")
        yield item(4, "u32")
        yield item(8, "offset")


def near(r: random.Random, value: int, size: int) -> bytes:
    """A whole number near another, or one of the odd ones."""
    new = r.choice([value + 1, value - 1, value * 2, value // 2, value + 32, *(r.choice(WHOLE) for _ in range(4))])
    return (new % (1 << 8 * size)).to_bytes(size, "little")


def changed_span(r: random.Random, data: bytes, span: Span) -> bytes:
    """Other bytes for one item."""
    old = data[span.start : span.end]
    if span.kind == "text":
        new = r.choice(TEXTS).encode("utf-8", "surrogatepass")
        return new if r.random() < 0.5 else new[: len(old)].ljust(len(old), b"a")
    if span.kind == "type":
        return r.choice([0, 1, 4, 5, 6, 7, 8, 9, 10, 12, 13, 99, 2**32 - 1]).to_bytes(4, "little")
    if "f" in span.kind and "<" in span.kind:
        with np.errstate(over="ignore"):
            return np.array(r.choice(REAL)).astype(span.kind).tobytes()
    return near(r, int.from_bytes(old, "little"), len(old))


@cache
def spans_of(data: bytes) -> tuple[Span, ...]:
    return tuple(spans(data))


def gguf_mutant(r: random.Random, data: bytes) -> bytes:
    """A GGUF with one to three items changed, a text with its length, or bytes flipped, cut or added."""
    listed = spans_of(data)
    chosen = sorted(r.sample(range(len(listed)), r.choice([1, 1, 1, 2, 3])), reverse=True)
    out = bytearray(data)
    for i in chosen:
        span = listed[i]
        new = changed_span(r, data, span)
        out[span.start : span.end] = new
        if span.kind == "text" and r.random() < 0.9:
            out[span.start - 8 : span.start] = len(new).to_bytes(8, "little")
    return bytes_mutant(r, bytes(out)) if r.random() < 0.15 else bytes(out)


def bytes_mutant(r: random.Random, data: bytes) -> bytes:
    """Bytes flipped, cut, added, or a number written over some."""
    out = bytearray(data)
    for _ in range(r.choice([1, 1, 2, 4])):
        at = r.randrange(len(out) + 1) if r.random() < 0.5 else r.randrange(min(len(out), 64) + 1)
        how = r.randrange(5)
        if how == 0:
            del out[at:]
        elif how == 1:
            out[at:at] = r.randbytes(r.choice([1, 4, 8, 100]))
        elif how == 2 and out:
            out[at % len(out)] ^= 1 << r.randrange(8)
        elif how == 3:
            size = r.choice([2, 4, 8])
            out[at : at + size] = (r.choice(WHOLE) % (1 << 8 * size)).to_bytes(size, "little")
        else:
            del out[at : at + r.choice([1, 4, 8])]
    return bytes(out)


def json_mutant(r: random.Random, value: Any) -> Any:
    """A JSON value with one to three parts replaced, removed, doubled, or given another name."""
    value = copy.deepcopy(value)
    for _ in range(r.choice([1, 1, 2, 3])):
        holder, key = value, None
        while isinstance(holder, dict | list) and holder:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            key = r.choice(keys)
            if r.random() < 0.35 or not isinstance(holder[key], dict | list) or not holder[key]:
                break
            holder = holder[key]
        if key is None or not holder:
            return r.choice(VALUES)
        how = r.randrange(6)
        if how == 0:
            del holder[key]
        elif how == 1 and isinstance(holder, dict):
            holder[r.choice([*map(str, holder), "", "x" * 300, "\ud800"])] = holder[key]
        elif how == 2 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif how == 3 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = r.choice([-holder[key], holder[key] * 2, holder[key] + 1, holder[key] * 10**9, 0])
        else:
            holder[key] = copy.deepcopy(r.choice(VALUES))
    return value


def json_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def text_mutant(r: random.Random, text: str) -> str:
    """A text with numbers or words replaced, lines doubled or removed, or characters changed."""
    how = r.randrange(5)
    if how < 2 and (found := list(re.finditer(r"-?\d+(?:\.\d+)?", text))):
        one = r.choice(found)
        return text[: one.start()] + str(r.choice([*WHOLE, *REAL, -1, "9" * 5000, "1e999", ""])) + text[one.end() :]
    if how == 2:
        lines = text.split("\n")
        i = r.randrange(len(lines))
        lines[i : i + 1] = r.choice([[], [lines[i]] * 2, [lines[i][: len(lines[i]) // 2]], [r.choice(TEXTS)]])
        return "\n".join(lines)
    at = r.randrange(len(text) + 1)
    return (
        text[:at]
        + r.choice([*TEXTS, "(", ")", "[", "]", "{", "}", ",", ":", ";", "..", "=", '"', "-"])
        + text[at + r.choice([0, 1, 5]) :]
    )


def header_mutant(r: random.Random, data: bytes) -> bytes:
    """A safetensors file with another header, whose length is mostly right."""
    length = int.from_bytes(data[:8], "little")
    head = json_bytes(json_mutant(r, json.loads(data[8 : 8 + length])))
    said = len(head) if r.random() < 0.9 else r.choice(WHOLE)
    out = said.to_bytes(8, "little") + head + data[8 + length :]
    return bytes_mutant(r, out) if r.random() < 0.2 else out


# How each format is read


def read_model(path: Path) -> None:
    """Load a model and say what it is; a pass of every fiftieth that loads."""
    model = refmodel.load(path)
    summary(model)
    list(inconsistencies(model))
    model.tokenizer.describe()
    if not model.tokenizer.problem and model.tokenizer.n_vocab < 5000:
        model.tokenizer.decode(model.tokenizer.encode("The cat's  hat 12")[:20])
    if path.stat().st_size % 50 == 0:
        model.session(numerics="numpy").likeliest([0, 1], 2)


def read_tokenizer(path: Path) -> None:
    tokenizer = Tokenizer.from_metadata(read(path).metadata)
    tokenizer.decode(tokenizer.encode("The cat's <|im_end|> hat\n\n 12 é", parse_special=True))


def read_arrays(path: Path) -> None:
    for array in list(read_dump(path).arrays.values())[:5]:
        array.read()


def read_trace(path: Path) -> None:
    trace = Trace(path)
    for name in list(trace)[:5]:
        trace[name]
    read_safetensors(path)
    read_arrays(path)


Made = Callable[[random.Random, Path], Any]
"""Makes the mutant of a seed in a folder, and reads it."""


def of_file(
    name: str, mutate: Callable[[random.Random, bytes], bytes], sources: Callable[[], list[bytes]], use: Callable[[Path], Any]
) -> Made:
    def made(r: random.Random, folder: Path) -> Any:
        path = folder / name
        path.write_bytes(mutate(r, r.choice(sources())))
        return use(path)

    return made


def of_text(use: Callable[[str], Any], *texts: str) -> Made:
    return lambda r, folder: use(text_mutant(r, r.choice(texts)))


@cache
def models() -> list[bytes]:
    """A small file of each architecture; and golden ones with a vocabulary."""
    with TemporaryDirectory() as folder:
        made = [tiny.build(Path(folder) / f"{arch}.gguf", arch, seed=1, n_layer=4).read_bytes() for arch in tiny.SHAPES]
    return made + [(GOLDEN / "models" / f"{name}.gguf").read_bytes() for name in ("mistral3", "llama-tied", "qwen3-tied")]


@cache
def tokenizers() -> list[bytes]:
    return [path.read_bytes() for path in sorted((GOLDEN / "tokenizers").glob("*.gguf"))]


@cache
def traces() -> list[bytes]:
    head = {"__metadata__": {"provenance": json.dumps({"calls": [[1, 2]], "route": "blocks:0,0", "sha256": "0" * 64})}}
    head |= {"l_out-0": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    head |= {"x": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}}
    text = json_bytes(head)
    return [struct.pack("<Q", len(text)) + text + bytes(range(32))]


@cache
def arrays() -> list[bytes]:
    import io

    out = []
    for array in (
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.arange(6, dtype=">f8"),
        np.asfortranarray(np.ones((2, 3), np.float16)),
    ):
        file = io.BytesIO()
        np.save(file, array)
        out.append(file.getvalue())
    return out


@cache
def archives() -> list[bytes]:
    import io

    out = []
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, a=np.ones((2, 3), np.float32), l_out=np.zeros(5), __metadata__=np.array(json.dumps({"provenance": "{}"})))
        out.append(file.getvalue())
    return out


ANSWER = {
    "choices": [
        {
            "logprobs": {
                "content": [
                    {"token": "a", "id": 5, "logprob": -0.1, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -2}]}
                ]
            }
        }
    ]
}
COMPLETION = {
    "completion_probabilities": [
        {"id": 3, "token": "x", "logprob": -0.5, "top_logprobs": [{"id": 4, "token": "y", "logprob": -1.5}]}
    ]
}
LOGITS = {"tokens": [1, 2], "logits": [[0.5, 1.5], [2.0, -1.0]]}
INDEX = {"tokens": [1, 2], "tensors": [{"name": "l_out-0", "file": "0.bin", "dtype": "bf16", "shape": [2, 4], "offset": 0}]}
TREE = {
    "module_path": "Model",
    "inputs": {"args": [], "kwargs": {}},
    "outputs": {"shape": "[2]", "value": "SafeTensor:./a.safetensors"},
    "children": [],
}
MAP = '[[map]]\npattern = "dec(\\\\d+)/out"\ntap = "l_out-{0}"\nlayer_offset = -1\naxes = [1, 0, 2]\n'
MAP += 'heads = "tiled heads"\ndtype = "bf16"\ntokens = [0, 5]\n'


def json_file(name: str, *values: Any, use: Callable[[Path], Any] = read_arrays) -> Made:
    def made(r: random.Random, folder: Path) -> Any:
        (folder / "0.bin").write_bytes(bytes(16))
        data = json_bytes(json_mutant(r, r.choice(values)))
        (folder / name).write_bytes(bytes_mutant(r, data) if r.random() < 0.2 else data)
        return use(folder / name)

    return made


def dump(name: str) -> Callable[[], list[bytes]]:
    return cache(lambda: [(GOLDEN / "dumps" / name).read_bytes()])


def read_metadata_words(text: str) -> None:
    """The words of a user: tokens, chunks, profiles, values for templates."""
    for read_words in (lambda: calls_of(whole_numbers(text), 0), lambda: profile_of(text), lambda: kwargs_of(text)):
        try:
            read_words()
        except RefmodelError as error:
            check_line(error)


@cache
def checkpoints() -> dict[str, dict[str, bytes]]:
    """Small Hugging Face folders, file by file."""
    out = {}
    for kind in hf_made.KINDS:
        with TemporaryDirectory() as folder:
            made = hf_made.build(Path(folder) / "made", kind)
            out[kind] = {path.name: path.read_bytes() for path in made.iterdir()}
    return out


VOCABULARY = {
    "version": "1.0",
    "added_tokens": [{"id": 5, "content": "<|im_end|>", "special": True, "normalized": False}],
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "post_processor": None,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3, "Ġ": 4}, "merges": ["a b"], "byte_fallback": False},
}
SETTINGS = {"bos_token": "a", "eos_token": {"content": "<|im_end|>"}, "add_bos_token": True, "chat_template": "{{ messages }}"}


def folder_mutant(r: random.Random, folder: Path) -> None:
    """A folder with its configuration, its tokenizer, or the header of its weights changed; loaded."""
    files = dict(checkpoints()[r.choice(sorted(checkpoints()))])
    files |= {"tokenizer.json": json_bytes(VOCABULARY), "tokenizer_config.json": json_bytes(SETTINGS)}
    for name in r.sample(
        ["config.json", "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"], r.choice([1, 1, 2])
    ):
        weights = name.endswith(".safetensors")
        files[name] = header_mutant(r, files[name]) if weights else json_bytes(json_mutant(r, json.loads(files[name])))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    model = refmodel.load(folder)
    summary(model)
    list(inconsistencies(model))


def split_mutant(r: random.Random, folder: Path) -> None:
    """Two parts of a split file, one of them changed."""
    from refmodel.gguf.writer import Limit, write

    (folder / "m.gguf").write_bytes(r.choice(models()))
    file = read(folder / "m.gguf")
    first = write(folder / "s.gguf", file.metadata.fields, file.tensors.values(), limit=Limit(tensors=-(-len(file.tensors) // 2)))
    part = r.choice(sorted(folder.glob("s-0*.gguf")))
    part.write_bytes(gguf_mutant(r, part.read_bytes()))
    read(first)


def read_template(r: random.Random, folder: Path) -> None:
    """A chat template in its child process."""
    from refmodel.text.chat import TemplateLimits, render

    text = "{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}{% if loop.last %}{{ 1 + 2 }}{% endif %}{% endfor %}"
    odd = [
        "{{ 'a' * 10**9 }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ ''.__class__ }}",
        "{{ raise_exception('\x1b[31m') }}",
        "{{ 9 ** 9 ** 9 }}",
    ]
    mutant = text_mutant(r, r.choice([text, *odd]))
    render(
        mutant, {"messages": [{"role": "user", "content": "hi"}]}, TemplateLimits(seconds=1, memory=256 << 20, characters=10_000)
    )


FORMATS: dict[str, Made] = {
    "gguf": of_file("m.gguf", gguf_mutant, models, read_model),
    "gguf tokenizer": of_file("m.gguf", gguf_mutant, tokenizers, read_tokenizer),
    "gguf split": split_mutant,
    "safetensors": of_file("t.safetensors", header_mutant, traces, read_trace),
    "npy": of_file("a.npy", bytes_mutant, arrays, read_arrays),
    "npz": of_file("a.npz", bytes_mutant, archives, read_arrays),
    "aprt": of_file("a.bin", bytes_mutant, lambda: [struct.pack("<4sII3f", b"APRT", 1, 3, 1, 2, 3)], read_arrays),
    "kld base": of_file("kld.bin", bytes_mutant, dump("kld.bin"), read_arrays),
    "results": of_file("results.gguf", gguf_mutant, dump("results.gguf"), read_arrays),
    "saved logits": of_file("llamacpp-a.bin", bytes_mutant, dump("llamacpp-austen-Q4_K_M.bin"), read_arrays),
    "log": lambda r, folder: of_file(
        "a.log", lambda r, d: text_mutant(r, d.decode()).encode("utf-8", "surrogatepass"), dump("llama-debug.log"), read_arrays
    )(r, folder),
    "json answers": json_file("a.json", ANSWER, COMPLETION, LOGITS),
    "raw with an index": json_file("index.json", INDEX),
    "module tree": json_file("m_debug_tree_FULL_TENSORS.json", TREE),
    "logits as text": lambda r, folder: of_file(
        "l.txt",
        lambda r, d: text_mutant(r, d.decode()).encode("utf-8", "surrogatepass"),
        lambda: [b"1.5 2.5\n3.5 -1\n", b"0: 1.5\n1: 2.5\n"],
        read_arrays,
    )(r, folder),
    "map": lambda r, folder: of_file(
        "map.toml", lambda r, d: text_mutant(r, d.decode()).encode("utf-8", "surrogatepass"), lambda: [MAP.encode()], read_map
    )(r, folder),
    "route": of_text(
        lambda text: Route.parse(text, 12), "blocks:5,7", "blocks:3,6;4,6", "layers:0..4,1,2..7", "(1,5)", "[0,1,2,3]", "identity"
    ),
    "words": of_text(read_metadata_words, "1,2,3", "5,5,3", "fa=off,kv=f32", "exact", '{"effort": "high"}'),
    "folder": folder_mutant,
    "template": read_template,
}
SLOW = {"template"}  # a process for each


class TooLong(BaseException):
    """A mutant that takes more than its time."""


def check_line(error: RefmodelError) -> None:
    """AssertionError for an error that is not a line that a user can read."""
    text = str(error)
    assert 0 < len(text) < LONGEST, f"an error of {len(text)} characters"


def late(number: int, frame: Any) -> NoReturn:
    raise TooLong


def outcome(name: str, seed: int) -> str:
    """Read one mutant: `read`, `refused`, or a sentence about what should not have been."""
    made, r = FORMATS[name], random.Random(f"{name} {seed}")
    with TemporaryDirectory(prefix="mutant-") as folder:
        signal.setitimer(signal.ITIMER_PROF, SECONDS if name not in SLOW else 60)
        try:
            with np.errstate(all="ignore"):
                made(r, Path(folder))
        except RefmodelError as error:
            try:
                check_line(error)
            except AssertionError as fault:
                return str(fault)
            return "refused"
        except TooLong:
            return f"took more than {SECONDS:g} s"
        except MemoryError:
            return f"took more than {MEGABYTES} MB"
        except BaseException as error:
            last = error.__traceback__
            while last and last.tb_next:
                last = last.tb_next
            where = f"{Path(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno}" if last else "?"
            return f"{type(error).__name__} at {where}: {str(error)[:100]}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return "read"


def limited(megabytes: int = MEGABYTES) -> None:
    """Limit this process: a signal after the time of a mutant, and memory above what is taken now."""
    import resource

    signal.signal(signal.SIGPROF, late)
    for made in (models, tokenizers, checkpoints):
        made()
    taken = int(re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (taken + (megabytes << 20),) * 2)
