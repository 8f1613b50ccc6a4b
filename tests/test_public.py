"""The public names are documented: each says what it is, and the reference page has it."""

import inspect
from importlib.resources import files

import pytest
from pages import ROOT

import refmodel
from refmodel import errors
from refmodel.forward import taps, trace

OBJECTS = [getattr(refmodel, name) for name in refmodel.__all__ if name != "__version__"]
OBJECTS += [error for _, error in inspect.getmembers(errors, inspect.isclass)] + [trace.Recorder, trace.Spool, trace.Trace]
CLASSES = [value for value in OBJECTS if inspect.isclass(value) and not issubclass(value, Exception)]


def members(cls):
    """The methods and properties that a class itself adds, without those of Python's own protocols."""
    for name, value in vars(cls).items():
        value = getattr(value, "func", getattr(value, "__func__", value))  # a cached property, a class method
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            yield name, value


@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: getattr(value, "__name__", value.__class__.__name__))
def test_a_public_name_has_a_docstring(value):
    assert len(inspect.getdoc(value).split()) > 3


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_so_has_every_method_of_it(cls):
    assert not [name for name, value in members(cls) if not inspect.getdoc(value)]


def test_the_reference_page_has_every_one():
    page = (ROOT / "docs" / "reference" / "api.md").read_text()
    for value in OBJECTS:
        if inspect.isclass(value) and issubclass(value, Exception):
            assert "::: refmodel.errors" in page
        elif inspect.isclass(value) or inspect.isfunction(value):
            assert f"::: {value.__module__}.{value.__name__}" in page, value
        else:
            assert f"`refmodel.{value.name.upper()}`" in page, value
    assert f"::: {taps.__name__}" in page


def test_the_package_says_that_it_is_typed():
    assert (files("refmodel") / "py.typed").is_file()
