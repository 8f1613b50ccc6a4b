"""Who may ask: the names that a server answers to, and the web pages that it lets ask.

A browser lets any page send requests to any address. Two checks keep pages away from a server on this machine. A page that gives
its own name this machine's address (DNS rebinding) still sends that name as Host, and the server answers to its own names only.
A page that asks under the server's name sends its Origin, and only origins that were allowed are answered: CORS is off by
default. Programs that are no browser send no Origin, and the address or localhost as Host.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from .answer import as_json
from .wishes import Refusal

ANY = "*"
LOCAL = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


@dataclass(frozen=True)
class Callers:
    """Who may ask.

    hosts    names that the server answers to, beside localhost and addresses; * for any
    origins  web pages that may ask, such as http://localhost:3000; * for any
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    @classmethod
    def of(cls, hosts: Iterable[str], origins: Iterable[str]) -> "Callers":
        """From words: names without a port, and origins, both in any case."""
        return cls(frozenset(name.lower().rstrip(".") for name in hosts), frozenset(word.lower().rstrip("/") for word in origins))

    def known(self, host: str) -> bool:
        """Whether a Host header names this server. An address does: it cannot be another server's name."""
        name = name_of(host)
        return ANY in self.hosts or name in self.hosts | LOCAL or is_address(name)

    def allowed(self, origin: str, host: str) -> bool:
        """Whether a page of that origin may ask: one that was allowed, or one of this very server."""
        return ANY in self.origins or origin.lower() in self.origins or origin.lower() == f"http://{host.lower()}"

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application with both checks before it; allowed origins are told to their browsers."""
        if self.origins:
            app = CORSMiddleware(app, sorted(self.origins), allow_methods=["GET", "POST"], allow_headers=["*"])
        return Gate(app, self)


def name_of(host: str) -> str:
    """The name in a Host header, without its port; empty if it cannot be read."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    """Whether a name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Gate:
    """Refuses requests to another name, and those of web pages that were not allowed. Its own lifespan passes."""

    def __init__(self, app: ASGIApp, callers: Callers) -> None:
        self.app, self.callers = app, callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        hosts, origins = (headers(scope, name) for name in (b"host", b"origin"))
        answer: ASGIApp = self.app
        if wrong := [host for host in hosts if not self.callers.known(host)]:
            why = f"this server does not answer to {shown(wrong[0])}; ask localhost or its address, or start it with --allow-host"
            answer = as_json(Refusal(why, 421, "permission_error", code="unknown_host"))
        elif wrong := [one for one in origins if not self.callers.allowed(one, next(iter(hosts), ""))]:
            why = f"web pages of {shown(wrong[0])} may not ask this server; start it with --cors to let them"
            answer = as_json(Refusal(why, 403, "permission_error", code="unknown_origin"))
        await answer(scope, receive, send)


def headers(scope: Scope, name: bytes) -> list[str]:
    """All values of a header."""
    return [value.decode("latin-1").strip() for key, value in scope["headers"] if key == name]


def shown(words: str) -> str:
    """A header's words as a message has them: at most 60 characters."""
    return repr(words if len(words) <= 60 else f"{words[:57]}...")
