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
    """The machine code of a kernel whose first parameters are the Statics of `known` and whose other parameters have these types.

    Numba's dispatcher would look up the types of a Static on every call, which takes longer than a small operation. Nothing is
    checked: arrays must have exactly these types. None is given for each Static. Who calls it keeps what comes back.
    """
    return kernel.compile((*map(StaticType, known), *others))


def address(kernel, known, *others):
    """Where the machine code of such a kernel stands, for `call`. The kernel returns nothing, and stays where it is."""
    given = (*map(StaticType, known), *others)
    kernel.compile(given)
    compiled = kernel.overloads[given]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


@intrinsic
def call(typingctx, address, arguments):
    """Call the kernel at an address. Nothing is checked: the tuple has the types that it was compiled for, None for each Static.

    The body of a `prange` is compiled four times: as it stands, for the loop, for its caller, and for the function around it. So
    it is such a call and no more, and the kernel behind the address is compiled once.
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
    """A function for kernels."""
    return njit(no_cfunc_wrapper=True)(function)


def inline(function):
    """The same, compiled into its callers."""
    return njit(no_cfunc_wrapper=True, forceinline=True)(function)


def for_kernels(declared):
    """A function that kernels alone can call: what it does for which Static, its overload says."""

    @wraps(declared)
    def outside(*_):
        raise NotImplementedError(f"{declared.__name__} is for kernels only")

    return outside


@overload_attribute(StaticType, "value")
def _value(static):
    """static.value inside a kernel, where it is a number."""
    value = static.value
    return lambda static: value
