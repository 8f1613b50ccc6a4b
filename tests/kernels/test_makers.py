"""Makers: what they return is made once, and its names tell apart what was made for different values."""

import pytest
from near import from_python

from refmodel.kernels.language.compile_time import inline, maker, within
from refmodel.kernels.packed import panels
from refmodel.kernels.types.contract import packed


@maker
def adding(number):
    @inline
    def add(x):
        return x + number

    return add


@maker
def both(first, second):
    add_first, add_second = adding(first), adding(second)

    @within
    def add(x):
        return add_second(add_first(x))

    return add


def name(kernel):
    return kernel.py_func.__qualname__


def test_a_kernel_is_made_once():
    assert adding(3) is adding(3)
    assert from_python(both(1, 2))(10) == 13


def test_what_only_kernels_call_is_an_error_in_python():
    """And no crash: there is no machine code of it alone."""
    with pytest.raises(TypeError):
        both(1, 2)(10)


def test_names_are_those_of_the_values():
    """And not of the order in which things are made: compiled code is taken from the cache by name."""
    assert name(adding(1)) != name(adding(2))
    assert name(both(1, 2)) != name(both(2, 1))
    assert "(1,)" in name(adding(1))
    assert "both" not in name(adding(1))  # though `both` was the first to ask for it


def test_names_of_products_tell_their_paths_apart():
    """Functions of two paths have equal names and types in the source, and were once taken for each other."""
    names = [name(panels.driver("Q2_K", path)) for path in ("halves_of_q2_k", "sums_of_q4_k", "super_blocks")]
    assert len(set(names)) == 3
    kinds = "Q4_K", "Q4_1", "Q6_K"
    assert len({name(packed(kind).read_d) for kind in kinds}) == 2  # it is at byte 0 in two of them
    assert len({name(packed(kind).read_dmin) for kind in ("Q4_K", "Q4_1")}) == 2  # one is added, one is taken away
