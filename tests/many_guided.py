"""Readers of strangers' bytes under a fuzzer that sees which code an input reaches (atheris). Linux, run by hand:

    pip install atheris
    python tests/many_guided.py gguf corpus/gguf --seconds 300
    python tests/many_guided.py all corpus --seconds 120       # each reader in turn

What may come out is a value or one of our own errors. Everything else is printed once for each place, with the input in a file
next to the corpus, and the search goes on; an input that takes four seconds or 300 MB at once ends it. The exit status is 1 if
anything was found. Each reader is a process of its own.
"""

import argparse
import json
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import atheris  # noqa: E402

with atheris.instrument_imports(include=["refmodel"]):  # says so on standard error
    from refmodel.commands.options import calls_of, whole_numbers
    from refmodel.dumps.map_file import read_map
    from refmodel.dumps.read import read as read_dump
    from refmodel.errors import RefmodelError
    from refmodel.forward.trace import Trace
    from refmodel.gguf.reader import read as read_gguf
    from refmodel.hf.safetensors import read_safetensors
    from refmodel.llamacpp.profile import profile_of
    from refmodel.machine.boundary import from_json
    from refmodel.model.model import load
    from refmodel.model.route import Route
    from refmodel.serve.limits import Limits
    from refmodel.serve.llama_server import Completion, detokenize, tokenize
    from refmodel.serve.openai import Completions
    from refmodel.serve.served import Served
    from refmodel.serve.wishes import Refusal
    from refmodel.text.templates import CHATML
    from refmodel.tokenizer import Tokenizer

import mutants  # noqa: E402

Use = Callable[[bytes], object]
BODIES = [
    {"prompt": "Emma", "max_tokens": 3, "temperature": 0.5, "top_p": 0.9, "stop": ["a"], "n": 2, "seed": 1, "logprobs": 2},
    {"prompt": [1, 2], "route": "blocks:5,7", "stream": True, "stream_options": {"include_usage": True}, "logit_bias": {"5": -1}},
    {"prompt": "x", "n_predict": 4, "model": "austen@(1,2)", "logit_bias": [[5, False]], "n_probs": 3, "echo": True},
    {"content": "Emma was", "with_pieces": True, "tokens": [5, 9]},
]


def of_file(name: str, use: Callable[[Path], object]) -> Use:
    """A reader of files, given bytes."""
    path = Path(mkdtemp(prefix="guided-")) / name

    def read(data: bytes) -> None:
        path.write_bytes(data)
        use(path)

    return read


def gguf(path: Path) -> None:
    file = read_gguf(path)
    Tokenizer.from_metadata(file.metadata)


def trace(path: Path) -> None:
    for reader in (Trace, read_safetensors):
        try:
            reader(path)
        except RefmodelError:
            continue


def dump(path: Path) -> None:
    for array in list(read_dump(path).arrays.values())[:3]:
        array.read()


def words(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for use in (lambda: Route.parse(text, 12), lambda: calls_of(whole_numbers(text), 0), lambda: profile_of(text)):
        try:
            use()
        except RefmodelError as error:
            mutants.check_line(error)


def request() -> Use:
    served = Served("austen", load(mutants.GOLDEN / "models" / "austen-Q4_K_M.gguf"), CHATML, Limits())

    def asked(data: bytes) -> None:
        for use in (Completions, Completion, tokenize, detokenize):
            try:
                found = use(served, from_json(data, "the body", RefmodelError, "send a JSON object"))
                said = found if isinstance(found, dict) else vars(found).get("settings", {}) | {"model": found.name}
            except (RefmodelError, Refusal) as error:
                said = str(error)
            json.dumps(said, ensure_ascii=False).encode()

    return asked


def golden(*names: str) -> list[bytes]:
    return [(mutants.GOLDEN / name).read_bytes() for name in names]


READERS: dict[str, tuple[Callable[[], Use], Callable[[], list[bytes]]]] = {
    "gguf": (lambda: of_file("m.gguf", gguf), lambda: [data[:6000] for data in mutants.models()] + mutants.models()[:2]),
    "safetensors": (lambda: of_file("t.safetensors", trace), mutants.traces),
    "dumps": (
        lambda: of_file("dump", dump),
        lambda: (
            [*mutants.traces(), *mutants.arrays(), *mutants.archives(), *golden("dumps/results.gguf", "dumps/kld.bin")]
            + [json.dumps(one).encode() for one in (mutants.ANSWER, mutants.COMPLETION, mutants.LOGITS)]
            + golden("dumps/llama-debug.log")
        ),
    ),
    "map": (lambda: of_file("map.toml", read_map), lambda: [mutants.MAP.encode()]),
    "words": (
        lambda: words,
        lambda: [b"blocks:5,7", b"layers:0..4,1,2..7", b"(1,5)", b"blocks:3,6;4,6", b"5,5,3", b"fa=off,kv=f32"],
    ),
    "request": (request, lambda: [json.dumps(body).encode() for body in BODIES]),
}


def search(name: str, corpus: Path, seconds: int) -> None:
    """Let the fuzzer look for inputs of one reader; it ends this process."""
    corpus.mkdir(parents=True, exist_ok=True)
    made, seeds = READERS[name]
    use, seen = made(), set[str]()
    for number, data in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(data)

    def once(data: bytes) -> None:
        try:
            use(data)
        except (RefmodelError, Refusal):
            return
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
            if where not in seen:
                seen.add(where)
                kept = corpus.parent / f"found-{name}-{len(seen)}"
                kept.write_bytes(data)
                print(f"FOUND {name}: {where}: {str(error)[:120]}; {kept}", flush=True)

    limits = [f"-max_total_time={seconds}", "-timeout=4", "-rss_limit_mb=1500", "-malloc_limit_mb=300", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *limits, "-max_len=20000", f"-artifact_prefix={corpus.parent}/{name}-", str(corpus)], once)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", choices=["all", *READERS])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seconds", type=int, default=120)
    given = parser.parse_args()
    if given.reader != "all":
        search(given.reader, given.corpus, given.seconds)
    bad = False
    for name in READERS:
        line = [sys.executable, __file__, name, str(given.corpus / name), "--seconds", str(given.seconds)]
        done = subprocess.run(line, capture_output=True, text=True, errors="replace")
        figures = [one for one in done.stderr.splitlines() if "number_of_executed_units" in one or "cov:" in one][-2:]
        found = [one for one in done.stdout.splitlines() if one.startswith("FOUND")]
        bad = bad or bool(found) or done.returncode != 0
        print(f"{name}: status {done.returncode}; {'; '.join(figures)}", *found, sep="\n", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
