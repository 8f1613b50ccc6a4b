"""Whole models against llama.cpp and transformers, which run in child processes; the growth of a DeltaNet layer."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import refmodel

from . import goals, ours
from .bench import Bench
from .child import Child, environment, taking_turns
from .results import Row, paired
from .synthesize import SHAPES, Shape, synthesize
from .turns import alternate, timed

PROMPT = [7 * i % 4096 for i in range(128)]  # of the prefill
BEFORE, AFTER = PROMPT[:16], PROMPT[16:20]  # what is there before the decode, and the tokens of a turn of it
CELLS = 1024
FILES = {
    "q35-4b-32": Shape(),
    "q35-4b-4": Shape(layers=4),
    "q35-4b-4-8k": Shape(layers=4, V=8192),
    "q35-27b-64": SHAPES["27b"],
}
LONG, BRIEF = 4096, 256


def file(bench: Bench, name: str) -> Path:
    """One of FILES, by name; it is made if it is missing."""
    bench.models.mkdir(parents=True, exist_ok=True)
    path = bench.models / f"{name}.gguf"
    return path if path.exists() else synthesize(path, FILES[name])


def model(bench: Bench) -> Iterator[Row]:
    """Rows of group `model`: prefill and decode of the large files against llama.cpp."""
    for name in bench.files:
        path = file(bench, name)
        child = Child([sys.executable, "-P", "-m", "benchmarks.llama_child"], environment(bench.threads))
        try:
            child.ask(open=str(path), **bench.library.request, threads=bench.threads, cells=CELLS)
            for numerics, phase, numbers, note in against(bench, child, path, ("fast", "llamacpp")):
                yield Row(
                    "model",
                    f"{name[4:]} {phase}, {numerics}",
                    goals.MODEL.get((numerics, phase.split()[0])),
                    "llama.cpp",
                    "tokens/s",
                    note=note,
                    **numbers,
                )
        finally:
            child.close()


def against(bench: Bench, child: Child, path: Path, wanted: tuple[str, ...]) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """Prefill and decode of a file against a child that has opened it: numerics, phase, the row's numbers, a note.

    wanted  names of numerics
    """
    loaded = refmodel.load(path)
    policies = {name: ours.numerics(name, bench.threads) for name in wanted if name in bench.numerics}
    for phase in bench.phases:
        if phase == "decode":
            child.ask(prefill=BEFORE)
            calls = [ours.decoding(loaded, p, BEFORE, AFTER) for p in policies.values()]
            *mine, theirs, note = rounds(bench, child, calls, {"decode": AFTER})
            words, work = "decode", len(AFTER)
        else:
            calls = [ours.reading(loaded, p, PROMPT) for p in policies.values()]
            *mine, theirs, note = rounds(bench, child, calls, {"prefill": PROMPT})
            words, work = f"prefill {len(PROMPT)}", len(PROMPT)
        for name, seconds in zip(policies, mine, strict=True):
            yield name, words, paired(seconds, theirs, work), note


def rounds(bench: Bench, child: Child, calls: Sequence[Callable[[], Any]], request: dict[str, Any]) -> list[Any]:
    """The seconds of each of our calls and those of the child, in turns; last, a note if the waiting side was not idle."""
    turns, spun = taking_turns(child, calls, **request)
    seconds: list[Any] = list(alternate(turns, bench.pairs))
    worst = sorted(spun)[len(spun) // 2]
    return [*seconds, f"the waiting side used {worst:.0%} of a core" if worst > 0.01 else ""]


def transformers(bench: Bench) -> Iterator[Row]:
    """Rows of group `transformers`: float32, 4 layers, a vocabulary of 8k, random weights of the same sizes."""
    child = Child([bench.hf_python, "-P", "-m", "benchmarks.hf_child"], environment(bench.threads))
    try:
        opened = child.ask(open=True, sizes=sizes(FILES["q35-4b-4-8k"]), threads=bench.threads)
        if "missing" in opened:
            for phase in ("prefill", "decode"):
                yield Row("transformers", phase, goals.TRANSFORMERS[phase], "transformers", missing=opened["missing"])
            return
        beside = f"transformers {opened['versions']['transformers']}, torch {opened['versions']['torch']}"
        for numerics, phase, numbers, note in against(bench, child, file(bench, "q35-4b-4-8k"), ("fast", "reference")):
            goal = goals.TRANSFORMERS[phase.split()[0]] if numerics == "fast" else None
            yield Row("transformers", f"{phase}, {numerics}", goal, beside, "tokens/s", note=note or "random weights", **numbers)
    finally:
        child.close()


def sizes(s: Shape) -> dict[str, Any]:
    """The fields of transformers' Qwen3_5TextConfig for a shape."""
    return {
        "vocab_size": s.V,
        "hidden_size": s.E,
        "intermediate_size": s.F,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.H,
        "num_key_value_heads": s.G,
        "head_dim": s.D,
        "linear_num_key_heads": s.Hk,
        "linear_num_value_heads": s.Hv,
        "linear_key_head_dim": s.S,
        "linear_value_head_dim": s.S,
        "linear_conv_kernel_dim": s.K,
        "layer_types": ["linear_attention" if (i + 1) % s.interval else "full_attention" for i in range(s.layers)],
        "tie_word_embeddings": True,
    }


def growth(bench: Bench) -> Iterator[Row]:
    """The row of group `growth`: seconds per token of one DeltaNet block at 4096 tokens over those at 256."""
    loaded = refmodel.load(file(bench, "q35-4b-4-8k"))
    policy, tokens = ours.numerics("fast", bench.threads), [i % 8000 for i in range(LONG)]
    calls = [ours.first_token(loaded, policy, tokens[:count], "layers:0") for count in (BRIEF, LONG)]
    brief, long = alternate([timed(call) for call in calls], bench.pairs)
    numbers = paired(brief, [seconds * BRIEF / LONG for seconds in long], BRIEF)
    yield Row("growth", f"{LONG} tokens over {BRIEF}", goals.GROWTH, f"itself at {LONG}", "tokens/s", **numbers)
