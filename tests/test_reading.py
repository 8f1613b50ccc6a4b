"""Documents name files that exist; the table of docs/reading.md is what the docstrings say of llama.cpp's functions."""

import ast
import importlib.util
import re

import pytest
from pages import ROOT
from test_english import DOCUMENTS, OTHERS

PAGE = (ROOT / "docs" / "reading.md").read_text()


def test_the_table_of_llama_cpp_is_made_from_the_docstrings():
    spec = importlib.util.spec_from_file_location("sources", ROOT / "docs" / "sources.py")
    sources = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sources)
    assert len(sources.sources()) > 80
    assert sources.page_with(sources.table()) == PAGE, "run python docs/sources.py"


def test_every_file_and_function_of_the_order_exists():
    order = PAGE.partition("## One token")[2].partition("## Where the rest is")[0]
    rows = [line for line in order.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == 14
    for row in rows:
        _, _, files, words, _ = row.split("|")
        texts = []
        for name in re.findall(r"`([\w/.]+)`", files):
            place = ROOT / "refmodel" / name
            assert place.exists(), name
            texts += [path.read_text() for path in (place.rglob("*.py") if place.is_dir() else [place])]
        defined = {
            node.name for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        for name in re.findall(r"`([A-Za-z_.]+)`", words):
            if name.endswith(".py") or name == "general.architecture":
                continue
            assert set(name.split(".")) <= defined, (row, name)


def test_the_folders_of_the_map_exist():
    for name in re.findall(
        r"^\| `([\w/.*]+)`", PAGE.partition("## Where the rest is")[2].partition("## Where llama")[0], re.MULTILINE
    ):
        assert (ROOT / "refmodel" / name).exists() or (ROOT / name).exists(), name


@pytest.mark.parametrize(
    "page", [page for page in DOCUMENTS if page.name not in OTHERS], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_file_that_a_document_names_exists(page):
    text = page.read_text()
    for name in re.findall(r"`((?:refmodel|tests|kernels|golden|benchmarks|docs)/[\w/.*-]*)`", text):
        assert list(ROOT.glob(name.rstrip("/"))), f"{page.name} names {name}"
