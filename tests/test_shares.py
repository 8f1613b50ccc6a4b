"""The share of a long list that runs in every suite leaves out combinations, and no value."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shares import cover, diagonal, only, share

LISTS = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=7, unique=True), min_size=1, max_size=3)


def short(parameters):
    return [one.values for one in parameters if not one.marks]


@given(lists=LISTS)
def test_every_value_of_every_place_is_among_the_short_ones(lists):
    cases = list(itertools.product(*lists))
    for parameters in (share(cases), diagonal(*lists)):
        assert [one.values for one in parameters] == cases
        assert [set(values) for values in zip(*short(parameters))] == [set(values) for values in lists]
        assert all(mark.name == "long" for one in parameters for mark in one.marks)
    assert len(short(diagonal(*lists))) == max(map(len, lists))


def test_a_cover_has_each_part_that_is_asked_for():
    assert cover(["ab", "bc", "cd", "abd"], set) == [1, 3]
    assert cover([], set) == []


def test_a_short_case_that_is_none_is_a_mistake():
    assert short(only("abc", "b")) == [("b",)]
    with pytest.raises(AssertionError, match="'d'"):
        only("abc", "d")
