"""What a llama-cpp-python says of llama.cpp's structures: its Python, or ours, runs describe.py."""

import json
import shutil
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import OracleError
from .asking import environment

PROGRAM = Path(__file__).with_name("describe.py")
PATIENCE = 60.0  # seconds


@cache
def of_python(python: str) -> dict[str, Any]:
    """The answer of describe.py about the llama_cpp that a Python has; a process asks once.

    python  its path, or a name that is looked up as a shell does

    OracleError if that is no Python, or has no llama_cpp that can be read.
    """
    found = shutil.which(python)
    if found is None:
        raise OracleError(f"--llama-python {python}: no such program; give the path of a Python, for example .venv/bin/python")
    return answer(found, (), f"--llama-python {python}")


@cache
def of_package(folder: Path) -> dict[str, Any]:
    """The answer of describe.py about the package in a folder, read by our own Python. OracleError if it cannot be read."""
    return answer(sys.executable, (str(folder),), str(folder))


def answer(python: str, arguments: tuple[str, ...], subject: str) -> dict[str, Any]:
    """Run describe.py. OracleError, about `subject`, if it has no good answer."""
    clean = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run([python, str(PROGRAM), *arguments], capture_output=True, text=True, env=clean, timeout=PATIENCE)
        said = json.loads(done.stdout.splitlines()[-1])
        if not isinstance(said, dict):
            raise ValueError("no answer")
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
        why = (
            error
            if isinstance(error, OSError | subprocess.TimeoutExpired)
            else last_line(done.stderr) or f"status {done.returncode}"
        )
        raise OracleError(
            f"{subject}: does not run as a Python ({why}); give the path of one, for example .venv/bin/python"
        ) from None
    if "error" in said:
        raise OracleError(f"{subject}: {said['error']}; pip install llama-cpp-python there, or name another Python")
    if said["pointer"] != struct.calcsize("P"):
        raise OracleError(
            f"{subject}: has pointers of {said['pointer']} bytes, this Python of {struct.calcsize('P')}; give one alike"
        )
    return said


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
