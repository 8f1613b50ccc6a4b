"""Values that are known when a kernel is compiled: one driver serves all tensor types, and its branches cost nothing."""

from functools import wraps

from numba import njit, types
from numba.core import cgutils
from numba.core.imputils import lower_constant
from numba.extending import NativeValue, intrinsic, models, overload_attribute, register_model, typeof_impl, unbox


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


def entry(kernel, known, *others):
    """The compiled machine code of a kernel, to be called directly; keep what is returned.

    known   the values of its first parameters, which are Statics; None is passed for each of them in a call
    others  the Numba types of its other parameters

    Numba's dispatcher would look up the type of every Static in every call, which takes longer than a small operation. Nothing is
    checked here: arrays must have exactly these types.
    """
    return kernel.compile((*map(StaticType, known), *others))


def address(kernel, known, *others):
    """The address of such a kernel, for `call`. The kernel returns nothing and stays in memory."""
    given = (*map(StaticType, known), *others)
    kernel.compile(given)
    compiled = kernel.overloads[given]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


@intrinsic
def call(typingctx, address, arguments):
    """Call the kernel at an address with a tuple of arguments, None for each Static. Nothing is checked.

    Numba compiles the body of a `prange` four times. Where it is only such a call, the kernel itself is compiled once.
    """

    def emit(context, builder, sig, args):
        kinds = list(sig.args[1])
        code = context.call_conv.get_function_type(types.none, kinds).as_pointer()
        values = cgutils.unpack_tuple(builder, args[1], len(kinds))
        status, _ = context.call_conv.call_function(builder, builder.inttoptr(args[0], code), types.none, kinds, values)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.none(types.int64, arguments), emit


# how functions are compiled that kernels alone call: without the ways in from Python and C, which cost as much as a small function
WITHIN = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
INLINE = {**WITHIN, "forceinline": True}


def within(function):
    """Compile a function that kernels call."""
    return njit(no_cfunc_wrapper=True)(function)


def inline(function):
    """The same, inlined into its callers."""
    return njit(no_cfunc_wrapper=True, forceinline=True)(function)


def for_kernels(declared):
    """Declare a function that only kernels can call; its `overload` says what it does for which Static.

    Called from Python it raises NotImplementedError.
    """

    @wraps(declared)
    def outside(*_):
        raise NotImplementedError(f"{declared.__name__} is for kernels only; call it in a function that Numba compiles")

    return outside


@overload_attribute(StaticType, "value")
def _value(static):
    """static.value inside a kernel, where it is a number."""
    value = static.value
    return lambda static: value
