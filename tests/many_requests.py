"""A server that is asked many things, killed and started again, and what it then has: texts, memory, speed. Prints its figures.

    python tests/many_requests.py --count 10000 --numerics reference --log memory.jsonl

It starts `refmodel serve MODEL` as a process of its own. --only names a part: parallel, first, throughput, crowd, memory, kill.
--log keeps the memory after every 50 requests, so that a run that is ended has said what it saw. The exit status is 1 if a text is
wrong, a request of the crowd is not answered, or memory grows.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
STARTS = ["Emma was", "Mr. Knightley had", "It was a", "She", "The morning of the ball", "7 + 5 =", "He could not", "There was"]
ROUTES = ["", "blocks:5,7", "layers:0..6,5..11", "blocks:3,6;4,6"]
PORT = 8923


def start(numerics: str, model: str) -> subprocess.Popen:
    words = ["serve", model, "--port", str(PORT), "--numerics", numerics]
    server = subprocess.Popen([sys.executable, "-m", "refmodel", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert server.stderr
    said = ""
    for line in server.stderr:
        said += line
        if "listens on" in line:
            return server
    raise SystemExit(f"the server did not start: {said}")


def resident(server: subprocess.Popen) -> float:
    """MB of memory that no file backs."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


async def ask(http: httpx.AsyncClient, prompt: str, route: str, count: int) -> str:
    body = {"prompt": prompt, "max_tokens": count, "temperature": 0, "route": route}
    answer = await http.post("/v1/completions", json=body)
    answer.raise_for_status()
    return answer.json()["choices"][0]["text"]


async def parallel(http: httpx.AsyncClient, numerics: str) -> bool:
    """32 requests at once against 32 single runs."""
    from serving import alone

    import refmodel

    model = refmodel.load(ROOT / "golden" / "models" / "austen-Q4_K_M.gguf")
    asks = [(STARTS[i % 8], ROUTES[i % 4], 16) for i in range(32)]
    texts = await asyncio.gather(*(ask(http, *one) for one in asks))
    singles = [await ask(http, *one) for one in asks]
    runs = {one: alone(model, one[0], one[2], one[1], numerics=numerics) for one in set(asks)}
    same, as_run = sum(a == b for a, b in zip(texts, singles)), sum(a == runs[one] for a, one in zip(texts, asks))
    print(
        f"32 parallel requests: {same} have the text of a request of its own, {as_run} that of refmodel run ({numerics})",
        flush=True,
    )
    return same == 32 and (as_run == 32 or numerics == "fast")


async def stream(http: httpx.AsyncClient, prompt: str, count: int) -> None:
    body = {"prompt": prompt, "max_tokens": count, "temperature": 0, "stream": True}
    async with http.stream("POST", "/v1/completions", json=body) as answer:
        async for _ in answer.aiter_bytes():
            pass


async def first(http: httpx.AsyncClient) -> bool:
    """Milliseconds to the first byte of a short prompt, next to 8 streams."""
    company = [asyncio.ensure_future(stream(http, STARTS[i], 2000)) for i in range(8)]
    await asyncio.sleep(2)
    found = []
    for _ in range(20):
        begin = time.perf_counter()
        async with http.stream("POST", "/v1/completions", json={"prompt": "She", "max_tokens": 2, "stream": True}) as answer:
            async for _ in answer.aiter_bytes():
                found.append(1000 * (time.perf_counter() - begin))
                break
    running = sum(not one.done() for one in company)
    for one in company:
        one.cancel()
    print(f"time to the first byte next to {running} streams: median {np.median(found):.0f} ms, largest {max(found):.0f} ms")
    return True


async def throughput(http: httpx.AsyncClient, numerics: str) -> bool:
    """Tokens a second of 32 clients against the batch's own, in turns."""
    import refmodel

    model = refmodel.load(ROOT / "golden" / "models" / "austen-Q4_K_M.gguf")
    count, ours, own = 64, [], []
    for _ in range(3):
        begin = time.perf_counter()
        await asyncio.gather(*(ask(http, STARTS[i % 8], "", count) for i in range(32)))
        ours.append(32 * count / (time.perf_counter() - begin))
        batch, begin = model.batch(numerics), time.perf_counter()
        calls = {batch.add(): model.tokenizer.encode(STARTS[i % 8]) for i in range(32)}
        for _ in range(count):
            calls = {handle: [int(ids[0])] for handle, (ids, _) in batch.likeliest(calls).items()}
        own.append(32 * count / (time.perf_counter() - begin))
    a, b = np.median(ours), np.median(own)
    print(f"tokens/s of 32 clients {a:.0f}, of the batch alone {b:.0f}: {a / b:.2f}")
    return True


async def crowd(http: httpx.AsyncClient) -> bool:
    """200 clients at once: 140 ask and get their texts, 30 read slowly, 30 leave in the middle."""
    alone = {prompt: await ask(http, prompt, "", 4) for prompt in STARTS}

    async def slow(prompt: str) -> None:
        async with http.stream("POST", "/v1/completions", json={"prompt": prompt, "max_tokens": 40, "stream": True}) as answer:
            async for _ in answer.aiter_bytes(16):
                await asyncio.sleep(0.02)

    begin = time.perf_counter()
    leaving = [asyncio.ensure_future(stream(http, STARTS[i % 8], 500)) for i in range(30)]
    slowly = [asyncio.ensure_future(slow(STARTS[i % 8])) for i in range(30)]
    listening = [asyncio.ensure_future(ask(http, STARTS[i % 8], "", 4)) for i in range(140)]
    await asyncio.sleep(1)
    for one in leaving:
        one.cancel()
    texts = await asyncio.gather(*listening)
    right = sum(text == alone[STARTS[i % 8]] for i, text in enumerate(texts))
    ended = await asyncio.gather(*slowly, return_exceptions=True)
    slow_well = sum(one is None for one in ended)
    up = (await http.get("/health")).status_code == 200
    print(f"200 clients in {time.perf_counter() - begin:.0f} s: {right} of 140 texts right, {slow_well} of 30 slow readers served")
    return right == 140 and slow_well == 30 and up


async def memory(http: httpx.AsyncClient, server: subprocess.Popen, count: int, log: Path | None) -> bool:
    """Memory over many small requests, some of whose clients leave: how much it grew after the first thousand."""
    found, begin = [], time.perf_counter()
    for done in range(0, count, 50):
        todo = [ask(http, STARTS[i % 8], ROUTES[i % 4], 2) for i in range(45)]
        leaving = [asyncio.ensure_future(stream(http, STARTS[i], 500)) for i in range(5)]
        await asyncio.gather(*todo)
        for one in leaving:
            one.cancel()
        found.append(resident(server))
        if log:
            with log.open("a") as file:
                file.write(json.dumps({"requests": done + 50, "megabytes": found[-1]}) + "\n")
        if done % 1000 == 0:
            print(f"{done + 50} requests, {found[-1]:.0f} MB", flush=True)
    after = found[min(1000, count // 2) // 50 :]
    grown = float(np.median(after[-10:]) - np.median(after[:10]))
    seconds = time.perf_counter() - begin
    print(
        f"{count} requests in {seconds:.0f} s; {found[0]:.0f} MB at first, {max(found):.0f} at most; after the first 1,000 "
        f"grown by {grown:.1f} MB"
    )
    return grown < 8


async def parts(server: subprocess.Popen, only: str, numerics: str, count: int, log: Path | None) -> bool:
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", timeout=600, limits=limits) as http:
        asked = {"parallel": lambda: parallel(http, numerics), "first": lambda: first(http)}
        asked |= {"throughput": lambda: throughput(http, numerics), "crowd": lambda: crowd(http)}
        asked |= {"memory": lambda: memory(http, server, count, log)}
        return all([await part() for name, part in asked.items() if only in ("", name)])


def killed(server: subprocess.Popen, numerics: str, model: str) -> bool:
    """SIGKILL in the middle of answers, a new start on the same port, then SIGTERM in the middle of answers."""
    body = json.dumps({"prompt": "She", "max_tokens": 3000, "temperature": 0, "stream": True}).encode()
    for number in (signal.SIGKILL, signal.SIGTERM):
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=60) as http,
            http.stream("POST", "/v1/completions", content=body) as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            os.kill(server.pid, number)
            begin = time.perf_counter()
            try:
                last = [line for line in lines if line][-1]
            except httpx.HTTPError as error:
                last = type(error).__name__
        status = server.wait(30)
        print(f"{number.name}: ended in {time.perf_counter() - begin:.1f} s with status {status}; the client heard {last[:120]}")
        if number == signal.SIGKILL:
            server = start(numerics, model)
    return "shutting down" in last


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__)
    read.add_argument("--count", type=int, default=10_000)
    read.add_argument("--numerics", default="reference")
    read.add_argument("--only", default="")
    read.add_argument("--model", default="austen", help="for crowd, memory and kill any model; the other parts are about austen")
    read.add_argument("--log", type=Path)
    given = read.parse_args()
    server = start(given.numerics, given.model)
    try:
        well = asyncio.run(parts(server, given.only, given.numerics, given.count, given.log))
        well = (given.only not in ("", "kill") or killed(server, given.numerics, given.model)) and well
    finally:
        server.kill()
    sys.exit(not well)


if __name__ == "__main__":
    main()
