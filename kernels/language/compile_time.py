"""Kernels that are made for a case: Python functions build them, and what they know is a constant in the machine code.

A maker is a Python function that takes names and numbers, and returns a kernel that has them built in. Inside a kernel
`made(maker)` gives that kernel for the values of Statics, with which compiled code is found in Numba's cache.
"""

import ctypes
import gc
from functools import cache, wraps

from numba import njit, types
from numba.core import cgutils
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.imputils import lower_constant
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox


class Static:
    """A value that becomes a part of the type, and so of the compiled code: the name of a tensor type, a number of lanes."""

    def __init__(self, value):
        self.value = value


class StaticType(types.Type):
    """The Numba type of a Static: one type for each value."""

    def __init__(self, value):
        self.value = value
        super().__init__(name=f"Static({value!r})")


register_model(StaticType)(models.OpaqueModel)


@typeof_impl.register(Static)
def _type_of_static(static, context):
    return StaticType(static.value)


@unbox(StaticType)
def _unbox_static(static_type, static, context):
    return NativeValue(context.context.get_dummy_value())


@lower_constant(StaticType)
def _static_constant(context, builder, static_type, static):
    return context.get_dummy_value()


MAKING = [""]  # what is being made just now, the innermost last


def maker(function):
    """Make each kernel once; and give its functions names that say what they were made for.

    Names of machine code are global in a process. What it compiles and what it takes from the cache must not have one name for two
    things, or the first of them runs in the place of the other. So a maker does the same for the same values, which have a repr.
    """

    @cache
    @wraps(function)
    def make(*values):
        MAKING.append(f"{function.__module__}.{function.__qualname__}{values}")
        try:
            return function(*values)
        finally:
            MAKING.pop()

    return make


def named(function):
    """The function, with a name that says what it was made for."""
    function.__qualname__ = f"{MAKING[-1]}{function.__qualname__}"
    return function


def made(maker):
    """What a kernel calls to get the maker's kernel: made(maker)(kind, path) is maker(kind.value, path.value)."""

    @intrinsic
    def kernel(typingctx, *statics):
        result = types.Dispatcher(maker(*(static.value for static in statics)))
        return result(types.StarArgTuple(statics)), lambda context, *_: context.get_dummy_value()

    return kernel


@intrinsic
def value(typingctx, static):
    """The value of a Static that is a whole number: a constant in the machine code."""
    return types.int64(static), lambda context, *_: context.get_constant(types.int64, static.value)


def typed(known, others):
    """The signature of a kernel: Statics of the values `known`, then the Numba types `others`."""
    return (*map(StaticType, known), *others)


def entry(kernel, known, *others):
    """The compiled machine code of a kernel, to be called directly; keep what is returned.

    known   the values of its first parameters, which are Statics; None is passed for each of them in a call
    others  the Numba types of its other parameters

    Numba's dispatcher would look up the type of every Static in every call, which takes longer than a small operation. Nothing is
    checked here: arrays must have exactly these types.
    """
    return compiled(kernel, typed(known, others))


def compiled(kernel, signature):
    """Compile a kernel for a signature.

    Python's garbage collector waits meanwhile: it would look at all that Numba makes again and again, and find little.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return kernel.compile(signature)
    finally:
        if collecting:
            gc.enable()


def address(kernel, known, *others):
    """The address of such a kernel, for `call`. The kernel returns nothing and stays in memory."""
    compiled(kernel, typed(known, others))
    done = kernel.overloads[typed(known, others)]
    return done.library.get_pointer_to_function(done.fndesc.llvm_func_name)


def called_at(context, builder, place, kinds, values):
    """Call the kernel at an address, as IR; its errors become the caller's."""
    code = context.call_conv.get_function_type(types.none, kinds).as_pointer()
    status, _ = context.call_conv.call_function(builder, builder.inttoptr(place, code), types.none, kinds, values)
    with cgutils.if_unlikely(builder, status.is_error):
        context.call_conv.return_status_propagate(builder, status)


@intrinsic
def call(typingctx, address, arguments):
    """Call the kernel at an address with a tuple of arguments, None for each Static. Nothing is checked."""

    def emit(context, builder, sig, args):
        kinds = list(sig.args[1])
        called_at(context, builder, args[0], kinds, cgutils.unpack_tuple(builder, args[1], len(kinds)))
        return context.get_dummy_value()

    return types.none(types.int64, arguments), emit


# ---- small functions that only kernels call

NOT_FROM_PYTHON = ctypes.cast(ctypes.pythonapi.PyErr_BadArgument, ctypes.c_void_p).value  # a function that leaves a TypeError


class Unfinished(JITCodeLibrary):
    """The code of a function that is called by kernels alone: kept as LLVM has it, to be a part of theirs.

    Numba would optimize each by itself and write machine code for it, with a way in from Python; what a kernel needs of it is
    optimized and written again with the kernel. So Python gets a TypeError that calls it.
    """

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalized = True

    def get_pointer_to_function(self, name):
        return NOT_FROM_PYTHON

    @property
    def codegen(self):
        return self

    def set_env(self, name, env):
        """There is no machine code that an environment could be given to."""


class Within(Compiler):
    """Numba's compiler, to a library of that kind."""

    def __init__(self, typingctx, targetctx, library, *others):
        super().__init__(typingctx, targetctx, library or Unfinished(targetctx.codegen(), "within"), *others)


WITHIN = {"no_cfunc_wrapper": True, "no_cpython_wrapper": True, "pipeline_class": Within}


def within(function):
    """Compile a function that kernels call."""
    return njit(**WITHIN)(named(function))


def inline(function):
    """The same, inlined into its callers."""
    return njit(**WITHIN, forceinline=True)(named(function))
