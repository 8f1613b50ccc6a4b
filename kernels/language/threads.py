"""Work that several threads share: one parallel function for all kernels, compiled once.

A kernel does the units `first` to `last` of its work, the last two of its parameters. Who does a unit changes no bit.
"""

from functools import cache

import numpy as np
from llvmlite import ir
from numba import get_num_threads, njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from .compile_time import address, call, called_at, entry, inline, within
from .memory import fetch_add

NUMBER = types.int64
COUNTER = types.Array(NUMBER, 1, "C")
WORTH = 1 << 15  # nanoseconds of work for which another thread is worth starting, and worth waiting for


def worth(nanoseconds):
    """How many units of work, of so many nanoseconds each, a thread claims at once: if that is all, no thread is started."""
    return max(int(WORTH / max(nanoseconds, 1e-3)), 1)


@intrinsic
def _at_address(typingctx, kernel, arguments):
    """The addresses of a function (arguments, first, last) and of its first argument: it calls the kernel with all of them.

    kernel     the kernel's address
    arguments  a tuple: its parameters but the last two, None for each Static

    So a parallel function need not know the types. The arguments live as long as the calling function runs.
    """
    kinds = [*arguments, NUMBER, NUMBER]

    def emit(context, builder, sig, args):
        given = [args[0], *cgutils.unpack_tuple(builder, args[1], len(arguments))]
        packed = cgutils.pack_struct(builder, given)
        place = cgutils.alloca_once_value(builder, packed)
        three = [NUMBER] * 3
        code = context.call_conv.get_function_type(types.none, three)
        function = ir.Function(builder.module, code, builder.module.get_unique_name("unpacked"))
        function.linkage = "internal"
        inner = ir.IRBuilder(function.append_basic_block())
        pointer, first, last = context.call_conv.get_arguments(function)
        values = cgutils.unpack_tuple(inner, inner.load(inner.inttoptr(pointer, packed.type.as_pointer())), len(given))
        called_at(context, inner, values[0], kinds, [*values[1:], first, last])
        context.call_conv.return_value(inner, context.get_dummy_value())
        whole = ir.IntType(64)
        return cgutils.pack_array(builder, [builder.ptrtoint(function, whole), builder.ptrtoint(place, whole)])

    return types.UniTuple(NUMBER, 2)(NUMBER, arguments), emit


@within
def _claim(kernel, arguments, units, many, claimed):
    """One thread's work: `many` units at a time, until none are left."""
    while True:
        first = fetch_add(claimed, many)
        if first >= units:
            break
        call(kernel, (arguments, first, min(first + many, units)))


@njit(parallel=True, cache=True)
def _in_threads(kernel, arguments, units, many, claimed, threads):
    for _ in prange(threads):
        _claim(kernel, arguments, units, many, claimed)


@cache
def all_threads():
    """The address of the parallel function, for `share`."""
    return address(_in_threads, (), *[NUMBER] * 4, COUNTER, NUMBER)


@inline
def share(threads, count, kernel, arguments, units, many):
    """Run a kernel at an address over `units` units; a thread claims `many` at once. If that is all, no thread is started.

    threads    from all_threads()
    count      of threads
    arguments  a tuple: the kernel's parameters but the last two, None for each Static
    """
    if units <= many:
        call(kernel, (*arguments, np.int64(0), units))
    else:
        function, place = _at_address(kernel, arguments)
        call(threads, (function, place, units, many, np.zeros(1, np.int64), count))


_start = njit(cache=True)(share.py_func)


@cache
def in_threads(kernel, known, *others):
    """A function (units, many, *arguments) that runs a kernel in threads.

    kernel  compiled by njit; its last two parameters are the first unit and the one after the last. It returns nothing
    known   the values of its first parameters, which are Statics
    others  the Numba types of those between; in a call arrays must have exactly these types, for nothing is checked
    """
    nothing, threads = (None,) * len(known), all_threads()
    place = address(kernel, known, *others, NUMBER, NUMBER)
    arguments = types.Tuple([*[types.none] * len(known), *others])
    start = entry(_start, (), NUMBER, NUMBER, NUMBER, arguments, NUMBER, NUMBER)
    return lambda units, many, *given: start(threads, get_num_threads(), place, (*nothing, *given), units, many)
