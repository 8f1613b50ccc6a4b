"""The server in numbers: its throughput against that of a batch, the time to the first piece, and its memory.

    python -m benchmarks.serving MODEL [--rounds 7] [--requests 10000]

The server runs in a process of its own, as `refmodel serve` starts it, and its clients in this one. Throughput takes turns: a batch
of PARALLEL sequences in this process, then as many requests at once, both from prompt to last token. The first piece is waited for
beside STREAMS clients that read streams without end. Memory is what the server keeps for itself, without mapped files, after each
tenth of the requests.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import numpy as np

import refmodel

PARALLEL, PROMPT, COUNT = 32, 16, 64
STREAMS, TRIALS = 8, 60
AT_ONCE = 16  # clients while memory is watched


@contextmanager
def server(model: str) -> Iterator[tuple[str, int]]:
    """A server: its address and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "refmodel", "serve", model, "--port", str(port)]
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx.get(f"{url}/health").raise_for_status()
                break
            except httpx.TransportError:
                if child.poll() is not None:
                    raise SystemExit(f"the server ended with status {child.returncode}") from None
                time.sleep(0.2)
        yield url, child.pid
    finally:
        child.terminate()
        child.wait()


def asked(prompt: list[int] | str, count: int, **more: object) -> dict[str, object]:
    """A request that is answered greedily."""
    return {"prompt": prompt, "max_tokens": count, "temperature": 0, **more}


def prompts(model: refmodel.Model) -> list[list[int]]:
    """Random tokens for each of the sequences."""
    return np.random.default_rng(0).integers(20, model.n_vocab - 20, (PARALLEL, PROMPT)).tolist()


def in_a_batch(model: refmodel.Model, asks: list[list[int]]) -> tuple[float, list[list[int]]]:
    """Tokens a second of a batch that writes greedily, and what it wrote."""
    batch, start = model.batch("fast"), time.perf_counter()
    fed = {batch.add(): ids for ids in asks}
    found: list[list[int]] = [[] for _ in asks]
    for _ in range(COUNT):
        logits = batch.head([rows[-1:] for rows in batch.hidden(fed).values()])
        chosen = [int(row.argmax()) for row in logits]
        for written, token in zip(found, chosen, strict=True):
            written.append(token)
        fed = {handle: [token] for handle, token in zip(fed, chosen, strict=True)}
    return PARALLEL * COUNT / (time.perf_counter() - start), found


async def served(client: httpx.AsyncClient, asks: list[list[int]]) -> tuple[float, list[str]]:
    """Tokens a second of as many requests at once, and their texts."""
    start = time.perf_counter()
    answers = await asyncio.gather(*(client.post("/v1/completions", json=asked(ids, COUNT)) for ids in asks))
    took, bodies = time.perf_counter() - start, [answer.raise_for_status().json() for answer in answers]
    return sum(body["usage"]["completion_tokens"] for body in bodies) / took, [body["choices"][0]["text"] for body in bodies]


async def throughput(client: httpx.AsyncClient, model: refmodel.Model, rounds: int) -> dict[str, Any]:
    """Medians of both sides and of the ratios; how many texts are those of the batch."""
    asks, pairs, equal = prompts(model), [], 0
    for number in range(rounds + 1):
        ours, written = await asyncio.to_thread(in_a_batch, model, asks)
        theirs, texts = await served(client, asks)
        equal = sum(model.tokenizer.decode(ids) == text for ids, text in zip(written, texts, strict=True))
        if number:  # the first round warms up
            pairs.append((ours, theirs))
    ratios = [theirs / ours for ours, theirs in pairs]
    return {
        "tokens a second": [round(median(side), 1) for side in zip(*pairs, strict=True)],
        "server / batch": [round(value, 3) for value in (median(ratios), min(ratios), max(ratios))],
        "equal texts": [equal, len(asks)],
    }


@asynccontextmanager
async def beside_streams(client: httpx.AsyncClient) -> Any:
    """Clients that read one long stream after the other, until the end of the block."""

    async def read(number: int) -> None:
        while True:
            body = asked(f"Chapter {number}", 400, stream=True)
            async with client.stream("POST", "/v1/completions", json=body) as answer:
                async for _ in answer.aiter_lines():
                    pass

    tasks = [asyncio.create_task(read(number)) for number in range(STREAMS)]
    await asyncio.sleep(2)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def first_pieces(client: httpx.AsyncClient) -> dict[str, Any]:
    """Milliseconds from a request to the first line of its stream: median and the 95th of 100."""
    waited = []
    for number in range(TRIALS):
        start = time.perf_counter()
        async with client.stream("POST", "/v1/completions", json=asked(f"Emma {number} was", 2, stream=True)) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    waited.append(1000 * (time.perf_counter() - start))
                    break
        await asyncio.sleep(0.05)
    return {"first piece, ms": [round(median(waited), 1), round(quantiles(waited, n=20)[-1], 1)], "of": len(waited)}


def own_memory(pid: int) -> float:
    """MB of a process that are its own."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.partition("RssAnon:")[2].split()[0]) / 1000, 1)


async def memory(client: httpx.AsyncClient, pid: int, requests: int) -> dict[str, Any]:
    """MB after each tenth of the requests, every second of which is a stream."""
    found = [own_memory(pid)]

    async def some(first: int, last: int) -> None:
        for number in range(first, last, AT_ONCE):
            body = asked(f"Emma {number} was", 2, stream=number // AT_ONCE % 2 == 0)
            (await client.post("/v1/completions", json=body)).raise_for_status()

    for tenth in range(10):
        first, last = (requests * n // 10 for n in (tenth, tenth + 1))
        await asyncio.gather(*(some(first + n, last) for n in range(AT_ONCE)))
        found.append(own_memory(pid))
    return {"requests": requests, "MB": found}


async def measured(given: argparse.Namespace) -> dict[str, Any]:
    """All three."""
    model = refmodel.load(given.model)
    with server(given.model) as (url, pid):
        async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=64)) as client:
            found = await throughput(client, model, given.rounds)
            async with beside_streams(client):
                found |= await first_pieces(client)
            return found | (await memory(client, pid, given.requests) if given.requests else {})


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=10000)
    print(json.dumps(asyncio.run(measured(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
