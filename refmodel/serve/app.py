"""The HTTP application: paths, keys, limits of what comes in, and errors as OpenAI's JSON."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ..errors import RefmodelError
from ..machine.boundary import from_json
from .answer import Answer, Desk, as_json
from .asked import Asked, Json
from .callers import Callers
from .llama_server import Completion, apply_template, detokenize, props, tokenize
from .openai import Chat, Completions, models
from .served import Served
from .wishes import Refusal
from .worker import Worker, refusal_of

Dialect = Callable[[Served, Any], Asked]
Endpoint = Callable[[Request], Awaitable[Response]]


class Door:
    """What all paths share.

    key      of the API; empty: everyone may ask
    callers  which names and which web pages are answered
    open     requests for texts that are being answered
    """

    def __init__(self, served: Served, worker: Worker, desk: Desk, key: str, callers: Callers) -> None:
        self.served, self.worker, self.desk, self.key, self.callers, self.open = served, worker, desk, key, callers, 0

    def app(self) -> ASGIApp:
        """The application. Its lifespan starts the worker, and ends it."""
        write = partial(self._routes, ["POST"])
        texts: list[tuple[Dialect, list[str]]] = [
            (Completions, ["/v1/completions", "/completions"]),
            (Chat, ["/v1/chat/completions", "/chat/completions"]),
            (Completion, ["/completion"]),
        ]
        answers = {tokenize: "/tokenize", detokenize: "/detokenize", apply_template: "/apply-template"}
        routes = [
            *self._routes(["GET"], self._health, ["/health", "/v1/health"]),
            *self._routes(["GET"], partial(self._facts, models), ["/v1/models", "/models"]),
            *self._routes(["GET"], partial(self._facts, props), ["/props"]),
            *(route for dialect, paths in texts for route in write(partial(self._text, dialect), paths)),
            *(route for function, path in answers.items() for route in write(partial(self._value, function), [path])),
        ]
        handlers: dict[Any, Any] = {HTTPException: not_found}
        return self.callers.around(Starlette(routes=routes, exception_handlers=handlers, lifespan=self._life))

    def _routes(self, methods: list[str], answer: Endpoint, paths: list[str]) -> list[Route]:
        async def endpoint(request: Request) -> Response:
            try:
                return await answer(request)
            except ClientDisconnect:
                return Response(status_code=499)  # nobody reads it
            except Exception as error:
                return as_json(refusal_of(error))

        return [Route(path, endpoint, methods=methods) for path in paths]

    @asynccontextmanager
    async def _life(self, app: Starlette) -> AsyncIterator[None]:
        self.desk.loop = asyncio.get_running_loop()
        self.worker.start()
        yield
        await asyncio.to_thread(self.worker.stop)

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _facts(self, function: Callable[[Served], Json], request: Request) -> Response:
        self._check_key(request)
        return JSONResponse(function(self.served))

    async def _value(self, function: Callable[[Served, Any], Json], request: Request) -> Response:
        self._check_key(request)
        body = await self._body(request)
        return JSONResponse(await asyncio.to_thread(function, self.served, body))

    async def _text(self, dialect: Dialect, request: Request) -> Response:
        self._check_key(request)
        limits = self.served.limits
        if self.open >= limits.parallel + limits.waiting:
            raise Refusal("the server has as many requests as it takes; ask again later", 503, "server_error", code="overloaded")
        self.open += 1
        try:
            body = await self._body(request)
            asked = await asyncio.to_thread(dialect, self.served, body)
            if not self.worker.thread.is_alive():
                raise Refusal("the server is shutting down; ask again later", 503, "server_error")
            answer = Answer(asked, self.worker, self.desk, limits.patience)
        except BaseException:
            self.open -= 1
            raise
        return Counted(answer, self)

    def _check_key(self, request: Request) -> None:
        """Refusal without the right key."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key", "")
        if self.key and not hmac.compare_digest(given.encode(), self.key.encode()):
            message = "the API key is missing or wrong; send the server's as Authorization: Bearer KEY"
            raise Refusal(message, 401, "authentication_error", code="invalid_api_key")

    async def _body(self, request: Request) -> Any:
        """The JSON of a request. Refusal if it is too large, too slow, or no JSON."""
        most, parts, size = self.served.limits.body, list[bytes](), 0
        try:
            async with asyncio.timeout(self.served.limits.patience):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise Refusal(f"the body has more than {most:,} bytes, the most that this server reads; send less", 413)
                    parts.append(part)
        except TimeoutError:
            raise Refusal("the body did not arrive in time; send it at once", 408) from None
        return from_json(b"".join(parts), "the body", RefmodelError, "send a JSON object")


class Counted(Response):
    """An answer that counts as open until it is over."""

    def __init__(self, answer: Answer, door: Door) -> None:
        self.answer, self.door, self.background = answer, door, None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""
        try:
            await self.answer(scope, receive, send)
        finally:
            self.door.open -= 1


async def not_found(request: Request, error: HTTPException) -> Response:
    """A path or a method that is not there."""
    what = f"{request.method} {request.url.path}: {error.detail.lower()}; the documentation lists the paths"
    return as_json(Refusal(what, error.status_code))
