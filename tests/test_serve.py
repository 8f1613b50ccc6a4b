"""`refmodel serve` and its real clients: the same texts as alone, whatever the company does."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from serving import alone, post, running

import refmodel
from refmodel.errors import RefmodelError
from refmodel.serve.fields import Fields
from refmodel.serve.limits import Limits
from refmodel.text.sampling import Sampling

httpx = pytest.importorskip("httpx", reason="the extra [test] has httpx")
openai = pytest.importorskip("openai", reason="the extra [test] has openai")

AUSTEN = Path(__file__).parent.parent / "golden" / "models" / "austen-Q4_K_M.gguf"
PROMPT = "Emma was very glad to"
STARTS = ["Emma was", "Mr. Knightley had", "It was a", "She", "The morning of the ball"]
ROUTES = ["", "blocks:5,7", "layers:0..6,5..11", "blocks:3,6;4,6"]


@pytest.fixture(scope="module")
def model():
    return refmodel.load(AUSTEN)


@pytest.fixture(scope="module")
def server(model):
    with running(model, limits=Limits(tokens=256)) as one:
        yield one


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, timeout=600) as one:
        yield one


def idle(server):
    """Wait until nothing is computed or waited for. The limit only ends a test that would hang."""
    end = time.monotonic() + 600
    while server.worker.live or server.worker.waiting or server.desk.queues or server.worker.batch.members or server.door.open:
        assert time.monotonic() < end, "a request that nobody waits for is still there"
        time.sleep(0.01)


def test_parallel_requests_of_many_routes_have_the_texts_of_single_runs(model, server, client):
    asks = [(STARTS[i % len(STARTS)], ROUTES[i % len(ROUTES)], 2 + i % 5) for i in range(16)]
    ask = lambda prompt, route, n: (
        client.completions.create(
            model=f"austen@{route}" if n % 2 else "austen",
            prompt=prompt,
            max_tokens=n,
            temperature=0,
            extra_body={} if n % 2 else {"route": route},
        )
        .choices[0]
        .text
    )
    with ThreadPoolExecutor(len(asks)) as pool:
        texts = list(pool.map(lambda one: ask(*one), asks))
    assert texts == [alone(model, prompt, n, route) for prompt, route, n in asks]
    assert server.worker.fed / server.worker.steps > 2  # they shared steps


def test_a_stream_is_the_text_in_pieces(client):
    same = {"model": "austen", "prompt": PROMPT, "max_tokens": 8, "temperature": 0.9, "seed": 5, "stop": [" the"], "logprobs": 1}
    whole = client.completions.create(**same)
    *parts, counted = client.completions.create(**same, stream=True, stream_options={"include_usage": True})
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    assert [part.choices[0].finish_reason for part in parts if part.choices[0].finish_reason] == [whole.choices[0].finish_reason]
    assert counted.usage == whole.usage
    values = [value for part in parts if part.choices[0].logprobs for value in part.choices[0].logprobs.token_logprobs]
    assert values == whole.choices[0].logprobs.token_logprobs


def test_a_seed_draws_what_run_draws_and_several_texts_follow_each_other(model, client):
    texts = [
        choice.text
        for choice in client.completions.create(
            model="austen", prompt=[PROMPT, "She was"], max_tokens=6, temperature=0.8, seed=7, n=2, extra_body={"top_k": 40}
        ).choices
    ]
    how = lambda seed: Sampling(0.8, 40, 1.0, 0.0, seed=seed)
    assert texts == [alone(model, prompt, 6, None, how(seed)) for prompt in (PROMPT, "She was") for seed in (7, 8)]


def test_echoed_log_probabilities_are_those_of_the_logits(model, client):
    done = client.completions.create(
        model="austen@blocks:5,7", prompt=PROMPT, max_tokens=3, temperature=0, echo=True, logprobs=2
    ).choices[0]
    tokens = model.tokenizer.encode(done.text)
    rows = model.forward(tokens, "blocks:5,7").astype(np.float64)
    logs = rows - rows.max(axis=1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
    shown = done.logprobs
    assert shown.tokens == [model.tokenizer.piece(token).decode() for token in tokens]
    assert [shown.text_offset[3], shown.token_logprobs[0]] == [len("".join(shown.tokens[:3])), None]
    assert shown.token_logprobs[1:] == [logs[i, token] for i, token in enumerate(tokens[1:])]
    assert [max(top.values()) for top in shown.top_logprobs[1:]] == list(logs[:-1].max(axis=1))
    only = client.completions.create(model="austen@blocks:5,7", prompt=tokens, max_tokens=0, echo=True, logprobs=2)
    assert only.choices[0].logprobs.token_logprobs == shown.token_logprobs


def test_penalties_and_biases_reach_the_sampler(client):
    ask = lambda **more: client.completions.create(
        model="austen", prompt="She was not at all", max_tokens=12, temperature=0, logprobs=0, **more
    )
    free = ask().choices[0]
    first = httpx.post(f"{client.base_url}".replace("/v1/", "/tokenize"), json={"content": free.logprobs.tokens[0]}).json()[
        "tokens"
    ]
    assert ask(logit_bias={str(first[0]): -100}).choices[0].logprobs.tokens[0] != free.logprobs.tokens[0]
    penalized = ask(frequency_penalty=2, presence_penalty=2).choices[0].logprobs.tokens
    assert len(set(penalized)) > len(set(free.logprobs.tokens)) or len(set(penalized)) == 12


def test_a_chat_is_what_the_template_makes_of_it(model, server, client):
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "/no_think Who is Emma?"}]
    prompt = httpx.post(f"{server.url}/apply-template", json={"messages": messages}).json()["prompt"]
    assert prompt.endswith("/no_think Who is Emma?<|im_end|>\n<|im_start|>assistant\n")
    done = client.chat.completions.create(
        model="austen@(5,7)", messages=messages, max_tokens=6, temperature=0, logprobs=True, top_logprobs=2
    )
    assert done.choices[0].message.content == alone(model, prompt, 6, "blocks:5,7")
    assert done.model == "austen@blocks:5,7"
    assert len(done.choices[0].logprobs.content[0].top_logprobs) == 2
    pieces = list(client.chat.completions.create(model="austen@(5,7)", messages=messages, max_tokens=6, temperature=0, stream=True))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == done.choices[0].message.content
    assert pieces[0].choices[0].delta.role == "assistant"


def test_a_probe_script_for_llama_server_works_with_a_route_in_place_of_a_patched_file(model, server):
    """Wait for /health, read /props, ask digits at temperature 0, read the first number: the form of the layer-search scripts."""
    with httpx.Client(base_url=server.url, timeout=600) as http:
        assert http.get("/health").json() == {"status": "ok"}
        assert http.get("/props").json()["default_generation_settings"]["n_ctx"] == 256
        assert http.get("/v1/models").json()["data"][0]["id"] == "austen"
        scores = {}
        for route in ("blocks:0,0", "blocks:5,7"):
            answers = []
            for question in ("2 + 2 =",):
                chat = {"model": "local", "messages": [{"role": "user", "content": question}], "temperature": 0.0, "max_tokens": 8}
                answers.append(
                    http.post("/v1/chat/completions", json=chat | {"route": route}).json()["choices"][0]["message"]["content"]
                )
            plain = {"prompt": "2 + 2 =", "n_predict": 4, "temperature": 0, "cache_prompt": True, "n_probs": 3, "route": route}
            done = http.post("/completion", json=plain).json()
            assert done["content"] == alone(model, "2 + 2 =", 4, route)
            assert [done["stop_type"], done["tokens_predicted"], len(done["completion_probabilities"])] == ["limit", 4, 4]
            with http.stream("POST", "/completion", json=plain | {"stream": True}) as lines:
                told = [json.loads(line.removeprefix("data: ")) for line in lines.iter_lines() if line]
            assert "".join(piece["content"] for piece in told) == done["content"]
            assert told[-1]["stop"]
            scores[route] = sum(any(c.isdigit() for c in answer) for answer in answers)
        assert scores.keys() == {"blocks:0,0", "blocks:5,7"}
        ids = http.post("/tokenize", json={"content": PROMPT}).json()["tokens"]
        assert http.post("/detokenize", json={"tokens": ids}).json()["content"] == PROMPT


WRONG = {  # path, body -> the status, and a word of the message
    ("/v1/completions", b"{"): (400, "not JSON"),
    ("/v1/completions", b"[1]"): (400, "JSON object"),
    ("/v1/completions", b"{}"): (400, "prompt"),
    ("/v1/completions", b'{"prompt": ""}'): (400, "no tokens"),
    ("/v1/completions", b'{"prompt": [99999]}'): (400, "token ids from 0 to 2047"),
    ("/v1/completions", b'{"prompt": "a", "route": "blocks:7,5"}'): (400, "did you mean blocks:5,7"),
    ("/v1/completions", b'{"prompt": "a", "model": "austen@blocks:1,99"}'): (400, "out of range"),
    ("/v1/completions", b'{"prompt": "a", "model": "x@(1,2)", "route": "(1,2)"}'): (400, "two routes"),
    ("/v1/completions", b'{"prompt": "a", "temperature": "hot"}'): (400, "temperature is 'hot'"),
    ("/v1/completions", b'{"prompt": "a", "temperature": NaN}'): (400, "temperature is nan"),
    ("/v1/completions", b'{"prompt": "a", "n": 65}'): (400, "n is 65"),
    ("/v1/completions", b'{"prompt": "a", "stop": [1]}'): (400, "stop is [1]"),
    ("/v1/completions", b'{"prompt": "a", "logit_bias": {"x": 1}}'): (400, "logit_bias"),
    ("/v1/completions", b'{"prompt": "a", "logit_bias": {"' + b"9" * 4400 + b'": 1}}'): (400, "logit_bias"),
    ("/v1/completions", b'{"prompt": "a", "top_p": 1' + b"0" * 400 + b"}"): (400, "top_p is 1"),
    ("/v1/completions", b'{"prompt": "a", "stream_options": [1]}'): (400, "stream_options is [1]"),
    ("/completion", b'{"prompt": "a", "stop": "\\ud800"}'): (400, "expected a text"),
    ("/v1/completions", b'{"prompt": "\\ud800"}'): (400, "surrogate"),
    ("/v1/completions", json.dumps({"prompt": "word " * 600}).encode()): (400, "shorten it"),
    ("/v1/completions", b'{"prompt": "' + b"a" * (4 << 20) + b'"}'): (413, "more than 4,194,304 bytes"),
    ("/v1/chat/completions", b'{"messages": []}'): (400, "messages is []"),
    ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}'): (400, "no text"),
    ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": "a"}], "tools": [{}]}'): (400, "tools is not supported"),
    ("/completion", b'{"prompt": "a", "grammar": "root ::= a"}'): (400, "grammar is not supported"),
    ("/detokenize", b'{"tokens": [99999]}'): (400, "outside the vocabulary"),
    ("/v1/embeddings", b"{}"): (404, "not found"),
    ("/health", b"{}"): (405, "not allowed"),
}


@pytest.mark.parametrize(("path", "body"), WRONG, ids=lambda value: value[:48] if isinstance(value, str) else None)
def test_a_mistake_is_one_json_object_with_its_status(server, path, body):
    status, word = WRONG[path, body]
    answer = httpx.post(f"{server.url}{path}", content=body, timeout=600)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert word in error["message"]
    assert "Traceback" not in answer.text


def test_fields_at_the_edge_are_taken():
    fields = Fields({"top_p": 10**300, "stop": "é🙂", "logit_bias": {"2047": 1}, "stream_options": {}, "prompt": "a"})
    assert (fields.number("top_p", 1, 0), fields.stops(), fields.options("stream_options")) == (1e300, ("é🙂",), {})
    assert fields.biases(2048) == ((2047, 1.0),)


def test_clients_that_leave_or_do_not_read_cost_the_others_nothing(model, server):
    body = json.dumps({"prompt": PROMPT, "max_tokens": 240, "temperature": 0, "stream": True}).encode()
    leaving, dawdling = [server.socket() for _ in range(4)], [server.socket() for _ in range(4)]
    for one in (*leaving, *dawdling):
        one.sendall(post("/v1/completions", body))
    half = server.socket()
    half.sendall(post("/v1/completions", body)[:-10])
    for one in leaving:
        assert b"200 OK" in one.recv(100)
        one.close()
    text = httpx.post(f"{server.url}/v1/completions", json={"prompt": "She", "max_tokens": 9, "temperature": 0}, timeout=600)
    assert text.json()["choices"][0]["text"] == alone(model, "She", 9)
    for one in (*dawdling, half):
        one.close()
    idle(server)


def test_sixty_clients_at_once(model, server):
    async def ask(http, i):
        body = {"prompt": STARTS[i % 5], "max_tokens": 2, "temperature": 0, "route": ROUTES[i % 4], "stream": i % 2 == 0}
        async with http.stream("POST", "/v1/completions", json=body) as answer:
            lines = [line.removeprefix("data: ") async for line in answer.aiter_lines() if line and "[DONE]" not in line]
        return "".join(json.loads(line)["choices"][0]["text"] for line in lines)

    async def all_of_them():
        limits = httpx.Limits(max_connections=60)
        async with httpx.AsyncClient(base_url=server.url, timeout=600, limits=limits) as http:
            return await asyncio.gather(*(ask(http, i) for i in range(60)))

    texts = asyncio.run(all_of_them())
    want = {i: alone(model, STARTS[i % 5], 2, ROUTES[i % 4]) for i in range(20)}
    assert texts == [want[i % 20] for i in range(60)]
    idle(server)


def test_more_requests_than_the_server_takes_are_refused(model):
    with running(model, limits=Limits(parallel=1, waiting=0, tokens=100_000)) as server:
        long = {"prompt": "a", "max_tokens": 90_000, "temperature": 0, "stream": True}
        with httpx.Client(base_url=server.url, timeout=600) as http, http.stream("POST", "/v1/completions", json=long):
            answer = httpx.post(f"{server.url}/v1/completions", json={"prompt": "a"}, timeout=600)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        idle(server)


def test_limits_of_time_and_the_key(model):
    limits = Limits(parallel=1, waiting=0, seconds=0.4, tokens=100_000)
    with running(model, limits=limits, key="secret") as server, httpx.Client(base_url=server.url, timeout=600) as http:
        assert http.post("/v1/completions", json={"prompt": "a"}).status_code == 401
        assert http.get("/v1/models", headers={"Authorization": "Bearer other"}).json()["error"]["code"] == "invalid_api_key"
        assert http.get("/health").status_code == 200
        http.headers["Authorization"] = "Bearer secret"
        long = {"prompt": "a", "max_tokens": 90_000, "temperature": 0}
        assert http.post("/v1/completions", json=long).status_code == 504
        idle(server)
        with http.stream("POST", "/v1/completions", json=long | {"stream": True}) as answer:
            assert answer.status_code == 200
            assert json.loads(list(answer.iter_lines())[-2].removeprefix("data: "))["error"]["code"] == "timeout"


@pytest.mark.parametrize(("error", "status"), [(RefmodelError("no"), 400), (ZeroDivisionError("a secret place"), 500)])
def test_what_goes_wrong_in_a_step_is_told_without_a_traceback_and_the_server_goes_on(server, client, monkeypatch, error, status):
    head = server.worker.batch.head

    def once(hidden):
        monkeypatch.setattr(server.worker.batch, "head", head)
        raise error

    monkeypatch.setattr(server.worker.batch, "head", once)
    with pytest.raises(openai.APIStatusError) as caught:
        client.completions.create(model="austen", prompt="She", max_tokens=3)
    assert caught.value.status_code == status
    assert "secret" not in caught.value.response.text
    assert client.completions.create(model="austen", prompt="She", max_tokens=3).choices[0].text
    idle(server)


def test_running_answers_end_with_an_error_when_the_server_ends(model):
    with running(model) as server:
        one = server.socket()
        one.sendall(post("/v1/completions", b'{"prompt": "a", "max_tokens": 4000, "temperature": 0, "stream": true}'))
        with closing(one):
            assert b"200 OK" in one.recv(200)
            server.worker.arrived.put(None)
            rest = b""
            while more := one.recv(1 << 16):
                rest += more
                if rest.endswith(b"0\r\n\r\n"):
                    break
    assert b"shutting down" in rest
