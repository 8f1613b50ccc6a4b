"""Who may ask a server: its own names only, and no web page that was not allowed."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from refmodel.commands.serve import check_origins
from refmodel.errors import RefmodelError
from refmodel.serve.callers import Callers

APP = Starlette(routes=[Route("/x", lambda request: JSONResponse({}), methods=["GET", "POST"])])


def asked(callers: Callers, method: str = "GET", **headers: str) -> httpx.Response:
    """The answer to a request with these headers."""

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(callers.around(APP)), base_url="http://x") as http:
            return await http.request(method, "/x", headers={name.replace("_", "-"): value for name, value in headers.items()})

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "localhost.:1", "127.0.0.1:8080", "[::1]:8080", "192.168.1.7", "box:1"]
)
def test_a_server_answers_to_its_names(host):
    assert asked(Callers.of(["Box", "127.0.0.1"], []), Host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "box.evil",
        "",
        "a b",
        "[::1",
        "x@localhost.evil",
    ],
)
def test_it_answers_to_no_other(host):
    done = asked(Callers.of(["box"], []), "POST", Host=host)
    assert (done.status_code, done.json()["error"]["code"]) == (421, "unknown_host")
    assert "--allow-host" in done.json()["error"]["message"]


def test_any_name_can_be_allowed():
    assert asked(Callers.of(["*"], []), Host="evil.example").status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:3000", "https://localhost:8080", "http://localhost"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_web_pages_may_not_ask(origin, method):
    done = asked(Callers(), method, Host="localhost:8080", Origin=origin, Access_Control_Request_Method="POST")
    assert done.status_code == 403
    assert not [name for name in done.headers if name.startswith("access-control")]


def test_a_page_of_the_server_itself_may():
    assert asked(Callers(), "POST", Host="localhost:8080", Origin="http://localhost:8080").status_code == 200


def test_allowed_pages_may_ask_and_are_told():
    callers = Callers.of([], ["http://localhost:3000/"])
    done = asked(callers, "POST", Host="localhost:8080", Origin="http://localhost:3000")
    assert (done.status_code, done.headers["access-control-allow-origin"]) == (200, "http://localhost:3000")
    before = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,content-type"}
    assert asked(callers, "OPTIONS", Host="localhost", Origin="http://localhost:3000", **before).status_code == 200
    assert asked(callers, "OPTIONS", Host="localhost", Origin="http://other", **before).status_code == 403


@pytest.mark.parametrize("word", ["*", "http://localhost:3000", "https://example.org/", "HTTP://A", "tauri://localhost"])
def test_an_origin_that_a_browser_sends_may_be_allowed(word):
    check_origins([word])


@pytest.mark.parametrize("word", ["nonsense", "localhost:3000", "http://", "http://a/page", "http://a b", ""])
def test_a_word_that_no_browser_sends_is_no_origin(word):
    with pytest.raises(RefmodelError, match="expected an origin"):
        check_origins(["*", word])
