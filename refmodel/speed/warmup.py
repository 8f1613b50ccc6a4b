"""Kernels that a model needs, compiled before they are needed: by several processes, each a part of the work.

Nothing here knows a kernel. The work is a pass itself, cut along the record of numerics: `linear` on a few rows of one matrix for
each tensor type and for one, a few and many tokens; and everything else, a pass whose products are zeros. A mark in the cache
folder says that a piece of work was done.
"""

import hashlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import active_children, connection, get_context, parent_process
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Q

from ..arch import ARCHITECTURES
from ..arrays import F, Matrix
from ..errors import RefmodelError
from ..forward.weights import Rows
from ..machine import kernel_cache
from ..machine.partial import temporary_folder
from ..model.made import made, zeros_of
from ..model.model import Model, load
from ..numerics import Numerics, numerics_of, packed

COMMON = (Q.Q4_K, Q.Q5_K, Q.Q6_K, Q.Q8_0, Q.F32)  # the types of a usual K-quant
# tokens: which kernels run depends on whether there are 2, 5, 8 or enough for matrix registers, and on what 4 or 8 leave over
ONE, PAIRS, FEW, SOME, MANY = 1, 3, 7, 23, 71
ROWS = 64  # of a matrix that is tried


@dataclass(frozen=True)
class Work:
    """What one process compiles at a time.

    files     the model's, and that of its prediction block if it is another one
    numerics  its name
    title     for the progress bar
    kind      what is compiled: pieces of work of equal kind need equal kernels
    tokens    how many tokens each call has
    matrices  names of those to multiply with, all of one type; empty for everything that is not a product
    """

    files: tuple[Path, ...]
    numerics: str
    title: str
    kind: str
    tokens: tuple[int, ...]
    matrices: tuple[str, ...] = ()


def lengths(calls: Iterable[int]) -> list[int]:
    """The numbers of tokens to compile for, the largest first. ONE is always among them, as the head has one token."""
    some = packed.MANY if packed.matrices() else 0  # above it all calls are alike
    up_to = {1: ONE, packed.FEW: PAIRS, 7: FEW, some: SOME}
    return sorted({ONE, *(next((n for most, n in up_to.items() if most >= T), MANY) for T in calls)}, reverse=True)


def work(model: Model, numerics: str, calls: Sequence[int] = (ONE, PAIRS, FEW, SOME, MANY)) -> list[Work]:
    """All pieces of work for passes with these numbers of tokens, the longest first."""
    types: dict[str, dict[tuple[int, int], str]] = {}  # what is left over from eight rows or columns may choose a path too
    for name, w in model.weights.items():
        taps = name.endswith("conv1d.weight")  # of a convolution: two axes, and no product
        if len(w.shape) == 2 and (name.startswith("blk.") or w is model.output) and not taps:
            types.setdefault(w.type.name, {}).setdefault((w.shape[0] % 8, w.shape[1] % 8), name)
    all_calls, files = (MANY, FEW, ONE), (model.path, *filter(None, [model.file.draft]))
    rest = Work(files, numerics, "all but products", f"{model.architecture} {model.hp}", all_calls)
    products = [
        Work(files, numerics, f"{name}, {T} token{'s' * (T > 1)}", f"{name} {sorted(of_type)}", (T,), tuple(of_type.values()))
        for T in lengths(calls)
        for name, of_type in types.items()
    ]
    return [rest, *products]


def do(one: Work) -> None:
    """Compile what a piece of work needs, or load it from the cache; then mark it as done."""
    model, num = opened(*one.files), numerics_of(one.numerics)
    for T in one.tokens if one.matrices else ():
        for w in map(model.weights.__getitem__, one.matrices):
            some = Rows(w, 0, min(ROWS + w.shape[0] % 8, w.shape[0]))
            num.linear(some, np.zeros((T, w.shape[1]), num.dtype))
    if not one.matrices:
        rest(model, num, one.tokens)
    mark(one).parent.mkdir(exist_ok=True)
    mark(one).touch()


def rest(model: Model, num: Numerics, calls: Sequence[int]) -> None:
    """A pass over one block of each kind, without its products."""
    one_of_each = [model.kinds.index(kind) for kind in dict.fromkeys(model.kinds)]
    session = model.session(one_of_each, replace(num, linear=zeros))
    for T in calls:
        session.forward([0] * T, "last")


def zeros(w: Matrix, x: F) -> F:
    """A product that computes nothing: zeros [T, O] of the dtype of x [T, I]."""
    return np.zeros((len(x), w.shape[0]), x.dtype)


def mark(one: Work) -> Path:
    """The file whose existence says that this work was compiled, for these sources, this Python and this processor."""
    words = (one.kind, one.tokens, one.numerics, kernel_cache.SOURCES, sys.version_info, *target())
    return kernel_cache.folder() / "done" / hashlib.sha256(repr(words).encode()).hexdigest()[:32]


@lru_cache
def target() -> tuple[str, ...]:
    """The processor that Numba compiles for: its name and features."""
    from numba.core.registry import cpu_target

    return tuple(map(str, cpu_target.target_context.codegen().magic_tuple()))


def missing(works: Iterable[Work]) -> list[Work]:
    """The pieces of work that are not marked as done."""
    return [one for one in works if not mark(one).exists()]


@lru_cache
def opened(path: Path, mtp_file: Path | None = None) -> Model:
    """The model of a file, loaded once; with the prediction block of another file."""
    return load(path, mtp_file)


def compile_all(works: Sequence[Work], processes: int, seen: Callable[[Work], None] = lambda one: None) -> None:
    """Do all the work in at most `processes` processes; `seen` gets each piece that is done.

    RefmodelError if a process was killed.
    """
    pool = workers(min(processes, len(works)))
    if pool is None:
        for one in works:
            do(one)
            seen(one)
        return
    others = set(active_children())
    with pool:
        with no_interrupt():
            done = {pool.submit(do, one): one for one in works}
        try:
            for future in as_completed(done):
                future.result()
                seen(done[future])
        except BrokenProcessPool:
            raise RefmodelError(
                "a process that compiled kernels was killed, perhaps because memory ran out (each needs about 0.4 "
                "GB); try --threads 1"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(active_children()) - others:  # a worker may be in the compiler for seconds
                child.terminate()
            raise


@contextmanager
def no_interrupt() -> Iterator[None]:
    """Ctrl-C waits until the block ends. Processes that are started in it never get it: a terminal sends it to them too."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def workers(count: int) -> ProcessPoolExecutor | None:
    """A pool of processes; None if one is enough, or where the system lets none be made, as without shared memory."""
    if count < 2:
        return None
    try:
        return ProcessPoolExecutor(count, get_context("spawn"), ready_worker)
    except OSError:
        return None


def ready_worker() -> None:
    """Prepare a worker process: few threads, because it compiles and computes almost nothing; Ctrl-C is left to its parent.

    It ends with its parent, also if that is killed.
    """
    import numba

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    numba.set_num_threads(1)


def end_with_parent() -> None:
    """Wait until the parent process is gone, and end this one."""
    if parent := parent_process():
        connection.wait([parent.sentinel])
        os._exit(1)


@contextmanager
def typical_models(types: Sequence[Q] = COMMON) -> Iterator[list[Path]]:
    """A small file of each architecture with matrices of these types, in a temporary folder."""
    with temporary_folder() as folder:
        yield [made(folder / f"{name}.gguf", name, types, zeros_of) for name in ARCHITECTURES]
