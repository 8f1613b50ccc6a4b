"""`refmodel serve`: answer other programs over HTTP."""

import importlib.util
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RefmodelError
from ..machine.threads import use
from ..report.console import err
from .compiling import prepare
from .options import ModelPath, NumericsName, Threads, file_of, model_of, numerics_of

LOCAL = ("127.0.0.1", "localhost", "::1")
NEEDED = ("starlette", "uvicorn")
CALLS = [[0], [0] * 7, [0] * 8]  # one token, a few, many: what a batch will have
SWITCH = 0.0005  # seconds after which the thread that computes lets the one that answers go on


AllowHost = Annotated[
    list[str] | None,
    typer.Option(help="Another name under which clients reach it, or * for any; may be given again.", metavar="NAME"),
]
Cors = Annotated[
    list[str] | None,
    typer.Option(help="A web page that may ask, such as http://localhost:3000; may be given again.", metavar="ORIGIN"),
]


def serve(
    model: ModelPath,
    host: Annotated[str, typer.Option(help="The address to listen on. 0.0.0.0 is every one of this machine.")] = LOCAL[0],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any free one.")] = 8080,
    name: Annotated[str, typer.Option(help="What clients call the model. Default: the file's name.")] = "",
    numerics: NumericsName = "fast",
    ctx: Annotated[int, typer.Option(min=2, help="At most N tokens of a prompt and its text.", metavar="N")] = 4096,
    parallel: Annotated[int, typer.Option(min=1, help="At most N texts are computed at once.", metavar="N")] = 64,
    waiting: Annotated[int, typer.Option(min=0, help="At most N more requests wait for their turn.", metavar="N")] = 256,
    body: Annotated[int, typer.Option(min=1024, help="At most N bytes of a request.", metavar="N")] = 4 << 20,
    seconds: Annotated[float, typer.Option(min=0.1, help="At most this long for one request.")] = 600,
    patience: Annotated[float, typer.Option(min=0.1, help="Seconds that a client may take to send, or to read a piece.")] = 30,
    api_key: Annotated[str, typer.Option(envvar="REFMODEL_API_KEY", help="Only requests with this key are answered.")] = "",
    allow_host: AllowHost = None,
    cors: Cors = None,
    chat_template: Annotated[
        str, typer.Option(help="A template's name in the file, chatml, a file, or Jinja itself.", metavar="NAME")
    ] = "",
    threads: Threads = None,
) -> None:
    """Answer OpenAI's and llama-server's requests over HTTP, each under a route of its own."""
    check_installed()
    check_origins(cors or ())
    use(threads)
    from ..serve.callers import Callers
    from ..serve.limits import Limits
    from ..serve.served import Served
    from ..serve.server import listening
    from ..serve.server import serve as answer
    from ..text.templates import template_of

    loaded, policy = model_of(model), numerics_of(numerics)
    template = template_of(loaded.file.metadata, chat_template)
    limits = Limits(body, ctx, parallel, waiting, seconds, patience)
    served = Served(name or Path(file_of(model)).name.removesuffix(".gguf"), loaded, template.text, limits)
    at = listening(host, port)
    prepare(loaded, policy, CALLS)
    if template.note:
        err.print(template.note, style="dim")
    if host not in LOCAL and not api_key:
        err.print("warning: anyone who reaches this address may ask; --api-key closes it", style="yellow")
    sys.setswitchinterval(SWITCH)
    where = f"http://{f'[{host}]' if ':' in host else host}:{at.getsockname()[1]}"
    callers = Callers.of([host, *(allow_host or ())], cors or ())
    answer(
        served, policy, at, api_key, callers, lambda: err.print(f"{served.name} listens on {where}; Ctrl-C ends", soft_wrap=True)
    )


def check_installed() -> None:
    """RefmodelError if a package that a server needs is not there."""
    if missing := [module for module in NEEDED if importlib.util.find_spec(module) is None]:
        raise RefmodelError(f"serve needs {' and '.join(missing)}: pip install 'refmodel[serve]'")


def check_origins(words: Iterable[str]) -> None:
    """RefmodelError for a word that no browser sends as the origin of a page."""
    for word in words:
        if word != "*" and not re.fullmatch(r"(?i:[a-z][a-z0-9+.-]*)://[^/?#\s]+/?", word):
            raise RefmodelError(
                f"--cors {word}: expected an origin, such as http://localhost:3000, or *; give scheme, name and port"
            )
