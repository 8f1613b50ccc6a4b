"""The answer to a request, as its events come: in one piece or as server-sent events, to a client that may leave or dawdle."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from .asked import Asked, Json
from .job import Job
from .wishes import Ended, Event, Failed, Piece, Read, Refusal, Written
from .worker import Worker

Events = asyncio.Queue[tuple[int, Event]]


class Desk:
    """Where the event loop hands wishes in, and hears of them: the only thing that both threads use.

    worker  it must be given `post` of this desk
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.queues = dict[Job, tuple[int, Events]]()

    def post(self, parcels: list[tuple[Job, list[Event]]]) -> None:
        """Hand events over to the event loop; the worker calls it in its thread."""
        if self.loop is not None:
            with suppress(RuntimeError):  # the loop was closed: nobody is there to hear
                self.loop.call_soon_threadsafe(self._hand_out, parcels)

    def _hand_out(self, parcels: list[tuple[Job, list[Event]]]) -> None:
        for job, events in parcels:
            if job in self.queues:
                number, queue = self.queues[job]
                for event in events:
                    queue.put_nowait((number, event))


class Answer(Response):
    """An answer in the making.

    patience  seconds that the client may take for one piece
    """

    def __init__(self, asked: Asked, worker: Worker, desk: Desk, patience: float) -> None:
        self.asked, self.desk, self.patience = asked, desk, patience
        self.events, self.background = Events(), None
        self.reads, self.texts = dict[int, Read](), dict[tuple[int, int], Written]()
        self.jobs = [worker.submit(wish, asked.stream) for wish in asked.wishes]
        for number, job in enumerate(self.jobs):
            desk.queues[job] = (number, self.events)

    def close(self) -> None:
        """Nobody waits any more: the worker forgets what is not complete."""
        for job in self.jobs:
            job.gone = True
            self.desk.queues.pop(job, None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell the client everything, or stop when it has left."""
        left, told = asyncio.ensure_future(departure(receive)), asyncio.ensure_future(self._tell(scope, receive, send))
        try:
            await asyncio.wait({left, told}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.close()
            for task in (left, told):
                task.cancel()
            _, outcome = await asyncio.gather(left, told, return_exceptions=True)
        if isinstance(outcome, Exception) and not isinstance(outcome, OSError | TimeoutError):
            raise outcome

    async def _tell(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self.asked.stream:
                await self._stream(send)
            else:
                async for _ in self._heard():
                    pass
                await JSONResponse(self.asked.whole(self.reads, self.texts))(scope, receive, send)
        except Refusal as refusal:  # nothing was sent yet
            await as_json(refusal)(scope, receive, send)

    async def _heard(self) -> AsyncIterator[tuple[int, Event]]:
        """All events, each kept; Refusal when the request has failed."""
        while sum(text.ended is not None for text in self.texts.values()) < sum(len(wish.how) for wish in self.asked.wishes):
            number, event = await self.events.get()
            if isinstance(event, Failed):
                raise event.refusal
            if isinstance(event, Read):
                self.reads[number] = event
            elif isinstance(event, Piece | Ended):
                self.texts.setdefault((number, event.index), Written()).add(event)
            yield number, event

    async def _stream(self, send: Send) -> None:
        """Server-sent events. A failure before the first one is raised, a later one is told as the last."""
        started = False
        try:
            async for number, event in self._heard():
                pieces = self.asked.pieces(number, event)
                if pieces and not started:
                    started = True
                    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
                    await self._send(send, {"type": "http.response.start", "status": 200, "headers": headers})
                if pieces:
                    await self._send_lines(send, list(pieces))
            await self._send_lines(send, self.asked.last(self.texts))
        except Refusal as refusal:
            if not started:
                raise
            await self._send_lines(send, [error_of(refusal)])
        await self._send(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_lines(self, send: Send, lines: list[Json | str]) -> None:
        text = "".join(f"data: {line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)}\n\n" for line in lines)
        await self._send(send, {"type": "http.response.body", "body": text.encode("utf-8", "replace"), "more_body": True})

    async def _send(self, send: Send, message: Message) -> None:
        """Send one piece; TimeoutError if the client does not take it."""
        async with asyncio.timeout(self.patience):
            await send(message)


async def departure(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def error_of(refusal: Refusal) -> Json:
    """OpenAI's error object."""
    facts = {"message": refusal.message, "type": refusal.kind, "param": refusal.param, "code": refusal.code}
    return {"error": facts}


def as_json(refusal: Refusal) -> JSONResponse:
    """An error as a response."""
    headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {"Retry-After": "1"} if refusal.status == 503 else {}
    return JSONResponse(error_of(refusal), refusal.status, headers)
