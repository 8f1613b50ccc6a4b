"""A delta rule in a Python of its own, with torch, for the adapters: each call is one request to a child process that stays.

REFMODEL_HF_PYTHON names the Python. The program of the child defines `rule`, which takes torch's arrays of a call and returns two.
"""

import atexit
import io
import os
import struct
import subprocess
import sys
from typing import Any, BinaryIO

import numpy as np

ANSWERING = """
import io, os, struct, sys
import numpy as np, torch

torch.set_num_threads(1)
ask, answer = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
while head := ask.read(8):
    with torch.no_grad():
        arrays = np.load(io.BytesIO(ask.read(struct.unpack("<Q", head)[0]))).values()
        found = rule(*(torch.from_numpy(x) for x in arrays))
    held = io.BytesIO()
    np.savez(held, *(np.ascontiguousarray(x.numpy()) for x in found))
    answer.write(struct.pack("<Q", held.tell()) + held.getvalue())
    answer.flush()
"""


class Child:
    """The process, started by the first call. `program` is text of Python that defines `rule`."""

    process: "subprocess.Popen[bytes] | None" = None

    def __init__(self, program: str) -> None:
        self.program = program

    def pipes(self) -> tuple[BinaryIO, BinaryIO]:
        if self.process is None:
            python = os.environ.get("REFMODEL_HF_PYTHON", sys.executable)
            words = [python, "-c", self.program + ANSWERING]
            self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            atexit.register(end, self.process)
        assert self.process.stdin
        assert self.process.stdout
        return self.process.stdin, self.process.stdout  # type: ignore[return-value]

    def __call__(self, *arguments: Any) -> tuple[Any, Any]:
        ask, answer = self.pipes()
        held = io.BytesIO()
        np.savez(held, *arguments)
        ask.write(struct.pack("<Q", held.tell()) + held.getvalue())
        ask.flush()
        size = struct.unpack("<Q", answer.read(8))[0]
        out, after = np.load(io.BytesIO(answer.read(size))).values()
        return out, after


def end(process: "subprocess.Popen[bytes]") -> None:
    with process:
        process.kill()
