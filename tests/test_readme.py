"""The front door against the program: README's length, figures and two commands; every command and page listed once."""

import json
import re

import pytest
from pages import ROOT

from refmodel.cli import app

README = (ROOT / "README.md").read_text()


def test_the_readme_is_short():
    prose = re.sub(r"```.*?```|<!--.*?-->", "", README, flags=re.DOTALL)
    assert len(prose.split()) < 800
    assert len(README.split()) < 1100


def test_ci_calls_the_commands_of_the_readme():
    ci = (ROOT / ".ci" / "run").read_text()
    main_job, tests = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert "pip install -e . && .venv/bin/refmodel demo" in main_job
    assert "pip install -e '.[test]' && .venv/bin/pytest" in tests
    for words in ("install --quiet -e .\n", '/refmodel" demo', "-e '.[test]'", '/pytest"', '/mkdocs" build --quiet --strict'):
        assert words in ci


def test_the_commands_page_lists_every_command_and_no_other():
    page = (ROOT / "docs" / "commands.md").read_text()
    listed = re.findall(r"^\| `refmodel (\w+)", page, re.MULTILINE)
    commands = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert sorted(set(listed)) == sorted([*commands, *(group.name for group in app.registered_groups)])


SPEED = [  # rows of docs/speed.md -> group and name in benchmarks/results.json
    ("decode, 32 layers", "model", "4b-32 decode, fast"),
    ("the same under numerics", "model", "4b-32 decode, llamacpp"),
    ("prefill of 128 tokens, the same 32 layers", "model", "4b-32 prefill 128, fast"),
    ("Q4_K matrix times one token", "matvec", "Q4_K, fast"),
    ("Q4_K matrix times 512 tokens", "prefill", "Q4_K x 512 tokens, fast"),
    ("Q4_K matrix times one float32 token", "matvec", "Q4_K, reference"),
    ("gated delta rule, 512 tokens", "delta", "512 tokens"),
    ("Q4_K decoded to float32", "dequantize", "Q4_K, libggml"),
    ("decode |", "transformers", "decode, fast"),
    ("prefill of 128 tokens |", "transformers", "prefill 128, fast"),
]


MATRICES = ("Q4_K", "Q5_K", "Q6_K", "Q8_0")
NATIVE = [  # the same of results-native.json, and of results-avx2.json in the last column
    ("native: decode, the 32 layers", "model", "4b-32 decode, fast"),
    ("native: prefill of 128 tokens", "model", "4b-32 prefill 128, fast"),
    *((f"native: {kind} matrix times one token", "matvec", f"{kind}, fast") for kind in MATRICES),
    *(
        (f"native: {kind} matrix times {T} tokens", "prefill", f"{kind} x {T} tokens, fast")
        for kind in MATRICES
        for T in (128, 512)
    ),
]


def measured(group, name, results="results"):
    rows = json.loads((ROOT / "benchmarks" / f"{results}.json").read_text())["rows"]
    (row,) = (row for row in rows if (row["group"], row["name"]) == (group, name))
    return [row["ours"]["median"], row["theirs"]["median"], *(row["ratio"][key] for key in ("median", "low", "high"))]


def assert_shown(words, values):
    """The line of docs/speed.md that begins with these words shows these numbers, rounded."""
    lines = (ROOT / "docs" / "speed.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"| {words}"))
    shown = re.findall(r"[\d.,]*\d", line.partition("|")[2].partition("|")[2])
    for text, value in zip(shown, values, strict=False):
        number = float(text.replace(",", ""))
        step = 10.0 ** -len(text.partition(".")[2]) if "." in text else 10 ** (len(text) - len(text.rstrip("0")))
        assert abs(number - value) <= step, (words, text, value)


@pytest.mark.parametrize(("words", "group", "name"), SPEED, ids=[name for _, _, name in SPEED])
def test_the_page_of_speed_shows_what_was_measured(words, group, name):
    assert_shown(words, measured(group, name))


@pytest.mark.parametrize(("words", "group", "name"), NATIVE, ids=[name for _, _, name in NATIVE])
def test_the_page_of_speed_shows_both_builds_of_llama_cpp(words, group, name):
    assert_shown(words, [*measured(group, name, "results-native"), measured(group, name, "results-avx2")[2]])


def test_the_readme_has_the_same_figure():
    assert re.search(r"generates ([\d.]+) tokens/s", README)[1] == f"{measured('model', '4b-32 decode, fast')[0]:.1f}"


def test_every_link_of_readme_and_contributing_leads_to_a_file():
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text()):
            assert (ROOT / target).exists(), (page, target)


def test_every_page_is_in_the_navigation_once():
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    listed = re.findall(r": ([\w/-]+\.md)$", nav, re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))
