"""Who works: a name for this process, and whether the process of a name still lives."""

import os
import socket
from functools import cache
from pathlib import Path


def started(pid: int) -> str:
    """When a process started, in ticks since the machine did; empty if it does not run any more, or the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


@cache
def named(pid: int) -> str:
    """The name of one of this machine's processes: machine, number and start, so that a number given again is another name."""
    return f"{socket.gethostname()}:{pid}:{started(pid)}"


def me() -> str:
    """The name of this process."""
    return named(os.getpid())


def alive(worker: str, until: float, now: float) -> bool:
    """Whether the holder of a lease still works: on this machine whether it runs, on another one until the lease ends."""
    host, pid, since = worker.rsplit(":", 2)
    if host != socket.gethostname() or not since:
        return now < until
    return started(int(pid)) == since
