"""A child process that does one thing with a llama.cpp: how it is asked, how long it may take, and why it ended.

Nothing foreign is loaded here. `ask` starts `python -m refmodel.llamacpp.child`, which loads libllama through ctypes; whatever
happens there, this process gets an answer or an OracleError.
"""

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from ..errors import OracleEndedError, OracleError
from ..machine.files import PACKAGE


def ask(
    files: Mapping[str, Any],
    request: Mapping[str, Any],
    subject: str,
    patience: float,
    seen: Callable[[dict[str, int]], None] = lambda message: None,
) -> dict[str, Any]:
    """Have a fresh child do one thing with a library; its answer.

    files    the library, as Library.request gives it
    subject  what an error is about

    OracleError if there is no answer; OracleEndedError if the child ended without one.
    """
    tiled = request.get("profile", {}).get("tiled", True)
    command = [sys.executable, "-P", "-m", "refmodel.llamacpp.child"]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment(tiled)) as child,
    ):
        try:
            _hand_over(child, {**files, **request})
            for message in _messages(child, patience, subject):
                if "done" in message:
                    return message["done"]
                if "error" in message:
                    named = message["error"].startswith(subject)
                    raise OracleError(message["error"] if named else f"{subject}: {message['error']}")
                if "refused" in message:
                    raise OracleError(
                        f"{subject} {message['refused']}: {reason(log)}; correct what it reports, or give another build"
                    )
                seen(message)
            how = end(child.wait())
            raise OracleEndedError(
                f"{subject}: llama.cpp {how}: {reason(log)}; correct what it reports, or give another build", how
            )
        finally:
            child.kill()  # on Ctrl-C too; a child that has ended does not mind


def environment(tiled: bool = True) -> dict[str, str]:
    """The child's variables: ours, without those that change what llama.cpp computes, and this package first on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GGML_", "LLAMA_"))}
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), kept.get("PYTHONPATH", "")]))
    return kept | {"PYTHONPATH": path, "GGML_NO_BACKTRACE": "1"} | ({} if tiled else {"GGML_CPU_TILED_MM": "0"})


def _hand_over(child: "subprocess.Popen[bytes]", request: Mapping[str, Any]) -> None:
    assert child.stdin
    try:
        with child.stdin:
            child.stdin.write(json.dumps(request).encode())
    except BrokenPipeError:
        pass  # it died at once; who waits for its answer reports that


def _messages(child: "subprocess.Popen[bytes]", patience: float, subject: str) -> Iterator[dict[str, Any]]:
    """The child's lines, until it closes its end. OracleError after `patience` seconds without one."""
    assert child.stdout
    buffer, descriptor = b"", child.stdout.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if not selector.select(patience):
                raise OracleError(
                    f"{subject}: llama.cpp gave no sign of life for {patience:g} s and was ended; try fewer tokens, or a "
                    "smaller model"
                )
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                return
            *lines, buffer = (buffer + chunk).split(b"\n")
            yield from map(json.loads, lines)


def end(status: int) -> str:
    """How a child ended: its status, or the signal, with what that means where it is known."""
    if status >= 0:
        return f"ended with status {status}"
    by = signal.Signals(-status)
    return f"was ended by {by.name}" + (f" ({SIGNALS[by]})" if by in SIGNALS else "")


SIGNALS = {
    signal.SIGILL: "this processor does not execute such an instruction; with AMX, some compilers lose what configures its "
    "tiles (llama.cpp's pull request 26954): then repack=off in a profile keeps weights from AMX",
}


# The telling line of a log is the last one in which the first of these is found that is found at all.
TELLING = ("GGML_ASSERT|GGML_ABORT|what\\(\\):", "error loading model|invalid", "[Ee]rror", "failed", "")
MEANINGS = {
    "GGML_ASSERT\\(buffer\\)": "llama.cpp aborts where an architecture has two kinds of blocks, and the model has one of them; "
    "give the route a block of the other kind, or take a newer llama.cpp, if the kinds are with and without a window",
}


def reason(log: IO[bytes]) -> str:
    """The last line of llama.cpp's log that explains its end, and what that means where it is known."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    found = (line for telling in TELLING for line in reversed(lines) if re.search(telling, line))
    said = re.sub(r"\S*/(?=\S+:\d+: )", "", next(found, "it said nothing"))  # without the folder it was compiled in
    return said + next((f" ({meaning})" for pattern, meaning in MEANINGS.items() if re.search(pattern, said)), "")
