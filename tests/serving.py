"""A server of this process, in a thread, on a port of its own; and what its clients are compared with."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from refmodel.model.model import Model
from refmodel.numerics import numerics_of
from refmodel.serve.answer import Desk
from refmodel.serve.app import Door
from refmodel.serve.callers import Callers
from refmodel.serve.limits import Limits
from refmodel.serve.served import Served
from refmodel.serve.server import listening
from refmodel.serve.worker import Worker
from refmodel.text.generate import generate
from refmodel.text.reply import Reply
from refmodel.text.sampling import GREEDY, Sampling
from refmodel.text.templates import CHATML


class Running:
    """A server that runs: its port, and the parts that a test may look at."""

    def __init__(self, model: Model, numerics: str, limits: Limits, key: str) -> None:
        self.desk, self.at = Desk(), listening("127.0.0.1", 0)
        self.worker = Worker(model, numerics_of(numerics), limits, self.desk.post)
        self.door = Door(Served("austen", model, CHATML, limits), self.worker, self.desk, key, Callers())
        config = uvicorn.Config(self.door.app(), log_level="critical", lifespan="on", ws="none", timeout_graceful_shutdown=2)
        self.server, self.port = uvicorn.Server(config), self.at.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve([self.at])))

    def socket(self) -> socket.socket:
        """A connection of a client that speaks for itself."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=600)


@contextmanager
def running(model: Model, numerics: str = "reference", limits: Limits | None = None, key: str = "") -> Iterator[Running]:
    """A server, until the end of the block."""
    one = Running(model, numerics, limits or Limits(), key)
    one.thread.start()
    while not one.server.started:
        assert one.thread.is_alive()
        one.thread.join(0.01)
    try:
        yield one
    finally:
        one.server.should_exit = True
        one.thread.join()


def alone(
    model: Model, prompt: str, count: int, route: str | None = None, how: Sampling = GREEDY, numerics: str = "reference"
) -> str:
    """The text that `refmodel run --special` writes."""
    reply = Reply(model.tokenizer)
    ids = model.tokenizer.encode(prompt, parse_special=True)
    return "".join(reply.read(generate(model.session(route, numerics), ids, count, how)))


def post(path: str, body: bytes) -> bytes:
    """A request as a client of few words sends it."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
