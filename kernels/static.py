"""Values that are known when a kernel is compiled: one driver serves all tensor types, and its branches cost nothing."""

from functools import wraps

from numba import njit, types
from numba.core.imputils import lower_constant
from numba.extending import NativeValue, models, overload_attribute, register_model, typeof_impl, unbox


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
