"""The server as a process: a socket, signals, and a clean end."""

import asyncio
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from ..forward.numerics import Numerics
from .answer import Desk
from .app import Door
from .callers import Callers
from .served import Served
from .worker import Worker

GRACE = 5  # seconds that connections may take to end after the worker has ended


class Server(uvicorn.Server):
    """uvicorn's server; the worker hears of a signal too, so that running answers end at once and not after minutes."""

    worker: Worker

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGINT or SIGTERM."""
        self.worker.arrived.put(None)
        super().handle_exit(sig, frame)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is any free one. OSError if it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from None


def serve(
    served: Served, numerics: Numerics, at: socket.socket, key: str, callers: Callers, ready: Callable[[], None] = lambda: None
) -> None:
    """Answer requests until SIGINT or SIGTERM; then KeyboardInterrupt or SystemExit, as the command line takes signals.

    at       the socket, which listens
    callers  which names and which web pages are answered
    ready    called when requests are answered
    """
    desk = Desk()
    worker = Worker(served.model, numerics, served.limits, desk.post)
    config = uvicorn.Config(
        Door(served, worker, desk, key, callers).app(),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=GRACE,
        h11_max_incomplete_event_size=64 << 10,
        lifespan="on",
        ws="none",
    )
    server = Server(config)
    server.worker = worker

    async def run() -> None:
        running = asyncio.ensure_future(server.serve([at]))
        while not (server.started or running.done()):
            await asyncio.sleep(0.01)
        ready()
        await running

    asyncio.run(run())
