"""Threads: how many, and where computing with them is safe.

The bits of a result do not depend on their number. Numba's layer OpenMP is used where there is one: it is fast and may be entered
from several Python threads, but does not survive os.fork(). Its fallback, workqueue, survives it, but is entered by one at a time.
"""

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import RefmodelError
from .boundary import handed

ONE_AT_A_TIME = threading.RLock()
# name -> what it may be, as a regular expression and in words
VARIABLES = {
    "NUMBA_NUM_THREADS": ("0*[1-9][0-9]{0,3}", "a number of threads from 1 to 9999"),
    "NUMBA_DISABLE_JIT": ("0", "0: kernels are compiled, or the bits would be others"),
    "NUMBA_THREADING_LAYER": ("default|safe|threadsafe|forksafe|omp|tbb|workqueue", "one of Numba's threading layers"),
}
POOLS_OF_BLAS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class State:
    """What this process knows of its threads.

    count   the number that a program asked for; None for as many as there are
    forked  whether this process was forked from one that had started OpenMP's threads, which do not exist here
    """

    count: int | None = None
    forked = False


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def used() -> int:
    """The number of threads that compute."""
    return State.count or most()[0]


def most() -> tuple[int, str]:
    """The largest number of threads, and where it comes from, as the beginning of a sentence."""
    given = os.environ.get("NUMBA_NUM_THREADS", "")
    return (int(given), "NUMBA_NUM_THREADS is") if given.isdigit() else (cores(), "the cores that this process may use are")


def use(count: int | None) -> None:
    """Compute with `count` threads; None for as many as there are. RefmodelError for more than there are, or less than 1.

    Call it at a program's start: once NumPy is imported its BLAS keeps the threads that it has. The plain operations that use BLAS
    are not the fast ones, and two pools of threads would wait for each other.
    """
    check_environment()
    limit, why = most()
    if count is not None and not 1 <= count <= limit:
        raise RefmodelError(f"--threads {count}: {why} {limit}; any number from 1 to {limit} gives the same bits: choose one")
    State.count = count
    for name in POOLS_OF_BLAS:
        os.environ.setdefault(name, "1")
    if "numba" in sys.modules:
        import numba

        numba.set_num_threads(min(count or limit, numba.config.NUMBA_NUM_THREADS))
    elif count is not None:
        os.environ["NUMBA_NUM_THREADS"] = str(count)


def check_environment() -> None:
    """RefmodelError for a variable of Numba's with which nothing can be computed. Numba reads them when it is imported."""
    for name, (pattern, expected) in VARIABLES.items():
        if (found := os.environ.get(name, "")) and not re.fullmatch(pattern, found):
            raise RefmodelError(f"the environment variable {name} is {found[:40]!r}; expected {expected}; correct it, or unset it")


def layer() -> str:
    """The name of Numba's threading layer: omp, tbb or workqueue. This call starts it if it has not started yet.

    RefmodelError if there is none of the kind that the environment asks for.
    """
    with handed("Numba", "the threading layer", RefmodelError, "unset the environment variable NUMBA_THREADING_LAYER"):
        import numba

        numba.get_num_threads()
        return str(numba.threading_layer())


@contextmanager
def computing() -> Iterator[None]:
    """Around all that runs kernels. RefmodelError in a forked child, where OpenMP would end the process without a word."""
    if State.forked:
        raise RefmodelError(
            "this process was forked from one that had computed, and OpenMP's threads do not survive a fork; "
            "start processes with multiprocessing.get_context('spawn'), or compute for the first time in the children"
        )
    if layer() == "workqueue":
        with ONE_AT_A_TIME:
            yield
    else:
        yield


def in_a_forked_child() -> None:
    """Remember in a forked child that OpenMP's threads do not exist in it. Python calls it after each fork."""
    if "numba" in sys.modules:
        import numba

        with suppress(ValueError):  # no threads were started yet: this process starts its own
            State.forked = State.forked or numba.threading_layer() == "omp"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=in_a_forked_child)
