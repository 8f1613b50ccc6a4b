"""Tensor types as Numba types: one driver serves them all, and what a row does is chosen when the driver is compiled."""

from numba import types
from numba.extending import NativeValue, models, register_model, typeof_impl, unbox


class Kind:
    """A tensor type as an argument of a kernel; it carries no value."""

    def __init__(self, name):
        self.name = name


class KindType(types.Type):
    def __init__(self, kind):
        self.kind = kind
        super().__init__(name=f"Kind({kind})")


register_model(KindType)(models.OpaqueModel)


@typeof_impl.register(Kind)
def _type_of_kind(kind, context):
    return KindType(kind.name)


@unbox(KindType)
def _unbox_kind(kind_type, kind, context):
    return NativeValue(context.context.get_dummy_value())
