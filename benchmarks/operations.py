"""Single operations against ggml's, in one process: products, the gated delta rule, decoding of whole tensors."""

from collections.abc import Iterator
from functools import partial

import gguf.quants
import numpy as np
from gguf import GGMLQuantizationType as T
from numpy.typing import NDArray

from refmodel.machine.memory import beyond_caches

from . import ggml, goals, limits, ours
from .bench import Bench
from .results import Row, Spread, paired
from .turns import alternate, sides

COLUMNS = 2560
LARGE = beyond_caches(1 << 27)  # bytes of a matrix
PREFILL_ROWS, PREFILL_TOKENS = 9216, (128, 512)
DECODED = 1 << 28  # bytes of float32 that a decoding fills


def activations(tokens: int, columns: int) -> NDArray[np.float32]:
    """Random tokens [tokens, columns] float32, always the same."""
    return np.random.default_rng(tokens).standard_normal((tokens, columns)).astype(np.float32)


def matvec(bench: Bench) -> Iterator[Row]:
    """Rows of group `matvec`: one token times rows of 2560 columns, more rows than any cache holds."""
    for name in bench.types:
        rows = LARGE // ours.row_bytes(T[name], COLUMNS) // 1024 * 1024
        yield from product(bench, "matvec", name, rows, 1)


def prefill(bench: Bench) -> Iterator[Row]:
    """Rows of group `prefill`: 128 and 512 tokens times 9216 rows of 2560 columns."""
    for name in bench.types:
        for tokens in PREFILL_TOKENS:
            yield from product(bench, "prefill", name, PREFILL_ROWS, tokens)


def product(bench: Bench, group: str, name: str, rows: int, tokens: int) -> Iterator[Row]:
    """Rows of one product: each numerics against the faster of llama.cpp's two ways, and against only reading the weights.

    name  of a tensor type
    """
    w, x = ours.weight(T[name], rows, COLUMNS), activations(tokens, COLUMNS)
    packed, read = w.tensor.data, limits.reading(w.tensor.data, bench.threads)
    theirs = {"plain": ggml.mul_mat(bench.ggml, T[name], w.rows, x, None)[0]}
    if (repack := bench.ggml.repacking(T[name], w.shape)) is not None:
        theirs["repacked"] = ggml.mul_mat(bench.ggml, T[name], w.rows, x, repack)[0]
    policies = [ours.numerics(numerics, bench.threads) for numerics in bench.numerics]
    calls = [ours.linear(policy, w, x) for policy in policies] + list(theirs.values()) + ([read] if tokens == 1 else [])
    seconds = alternate(sides(*calls), bench.pairs)
    of_theirs = dict(zip(theirs, seconds[len(policies) :]))
    way = min(of_theirs, key=lambda way: float(np.median(of_theirs[way])))
    work, unit = (packed.nbytes / 1e9, "GB/s") if tokens == 1 else (float(tokens), "tokens/s")
    label = name if tokens == 1 else f"{name} x {tokens} tokens"
    for numerics, mine in zip(bench.numerics, seconds):
        numbers = paired(mine, of_theirs[way], work)
        yield Row(group, f"{label}, {numerics}", goals.product(group, name, numerics), f"llama.cpp ({way})", unit, **numbers)
        kind = goals.kind_of(name)
        if tokens == 1 and numerics == "fast" and kind in goals.BANDWIDTH:
            numbers = paired(mine, seconds[-1], work)
            share = Spread(*(100 * value for value in (numbers["ratio"].low, numbers["ratio"].median, numbers["ratio"].high)))
            yield Row(group, f"{label}, % of reading", goals.BANDWIDTH[kind], "pure reading", unit, **{**numbers, "ratio": share})


def delta(bench: Bench) -> Iterator[Row]:
    """Rows of group `delta`: the gated delta rule of one block, 32 heads of 128 x 128, for 512 tokens and for one."""
    heads, size, r = 32, 128, np.random.default_rng(0)
    for tokens in (512, 1):
        q, k, v = (r.standard_normal((tokens, heads, size)).astype(np.float32) for _ in range(3))
        q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
        log_decay = -np.exp(r.standard_normal((tokens, heads)) - 2).astype(np.float32)
        beta = r.uniform(0.1, 0.9, (tokens, heads)).astype(np.float32)
        state = r.standard_normal((heads, size, size)).astype(np.float32)
        calls = [ours.delta_rule(ours.numerics("fast", bench.threads), q, k, v, log_decay, beta, state)]
        calls.append(ggml.gated_delta_net(bench.ggml, q, k, v, log_decay, beta, state)[0])
        mine, theirs = alternate(sides(*calls), bench.pairs)
        label = "512 tokens" if tokens > 1 else "1 token"
        yield Row("delta", label, goals.DELTA[tokens], "llama.cpp", "tokens/s", **paired(mine, theirs, tokens))


def dequantize(bench: Bench) -> Iterator[Row]:
    """Rows of group `dequantize`: a whole tensor to float32, against gguf-py, ggml's get_rows and filling the same memory."""
    rows = DECODED // (4 * COLUMNS)
    for name in bench.types:
        w = ours.weight(T[name], rows, COLUMNS)
        decode, note = ours.dequantize(w)
        of_rows, _ = ggml.get_rows(bench.ggml, T[name], w.rows, COLUMNS)
        fill = limits.filling(DECODED, bench.threads)
        mine, of_ggml, of_fill = alternate(sides(decode, of_rows, fill), bench.pairs)
        work = w.shape[0] * w.shape[1] * 4 / 1e9
        yield Row(
            "dequantize",
            f"{name}, libggml",
            goals.DEQUANTIZE["libggml"],
            "libggml",
            "GB/s",
            note=note,
            **paired(mine, of_ggml, work),
        )
        numbers = paired(mine, [seconds * work * 1e9 / DECODED for seconds in of_fill], work)
        share = Spread(*(100 * value for value in (numbers["ratio"].low, numbers["ratio"].median, numbers["ratio"].high)))
        goal = goals.DEQUANTIZE["fill"]
        yield Row("dequantize", f"{name}, % of filling", goal, "pure filling", "GB/s", note=note, **{**numbers, "ratio": share})
        if name == "F32":
            continue  # gguf-py hands out the same memory
        few = w.rows[: max(1, rows // 4)]  # still more than a cache; it is slow
        small = ours.weight(T[name], len(few), COLUMNS)
        decode, note = ours.dequantize(small)
        theirs = partial(gguf.quants.dequantize, few, T[name])
        mine, of_py = alternate(sides(decode, theirs), bench.pairs)
        numbers = paired(mine, of_py, few.shape[0] * COLUMNS * 4 / 1e9)
        yield Row("dequantize", f"{name}, gguf-py", goals.DEQUANTIZE["gguf-py"], "gguf-py", "GB/s", note=note, **numbers)
