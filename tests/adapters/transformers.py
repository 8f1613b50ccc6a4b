"""An adapter for transformers' torch implementations of the gated delta rule, in a Python of their own.

REFMODEL_HF_PYTHON names it; DELTA_RULE is recurrent or chunk. Each call is one request to a child process that stays.
"""

import atexit
import io
import os
import struct
import subprocess
import sys
from typing import Any, BinaryIO

import numpy as np

CHILD = """
import io, os, struct, sys
import numpy as np, torch
from transformers.models.qwen3_next import modeling_qwen3_next as m

rule = getattr(m, f"torch_{os.environ['DELTA_RULE']}_gated_delta_rule")
ask, answer = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
while head := ask.read(8):
    q, k, v, g, beta, state = (torch.from_numpy(x) for x in np.load(io.BytesIO(ask.read(struct.unpack("<Q", head)[0]))).values())
    with torch.no_grad():
        out, after = rule(q[None] * q.shape[-1] ** 0.5, k[None], v[None], g[None], beta[None],
                          initial_state=state.transpose(1, 2)[None].contiguous(), output_final_state=True)
    held = io.BytesIO()
    np.savez(held, out[0].numpy(), after[0].transpose(1, 2).contiguous().numpy())
    answer.write(struct.pack("<Q", held.tell()) + held.getvalue())
    answer.flush()
"""


class Child:
    """The process, started by the first call."""

    process: "subprocess.Popen[bytes] | None" = None


def pipes() -> tuple[BinaryIO, BinaryIO]:
    if Child.process is None:
        python = os.environ.get("REFMODEL_HF_PYTHON", sys.executable)
        Child.process = subprocess.Popen([python, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        atexit.register(end, Child.process)
    assert Child.process.stdin
    assert Child.process.stdout
    return Child.process.stdin, Child.process.stdout  # type: ignore[return-value]


def end(process: "subprocess.Popen[bytes]") -> None:
    with process:
        process.kill()


def rule(*arguments: Any) -> tuple[Any, Any]:
    """transformers divides queries by the root of Dk, and has states [H, Dk, Dv]."""
    ask, answer = pipes()
    held = io.BytesIO()
    np.savez(held, *arguments)
    ask.write(struct.pack("<Q", held.tell()) + held.getvalue())
    ask.flush()
    size = struct.unpack("<Q", answer.read(8))[0]
    out, after = np.load(io.BytesIO(answer.read(size))).values()
    return out, after
