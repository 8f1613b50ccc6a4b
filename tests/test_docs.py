"""README.md, CONTRIBUTING.md and docs/ do what they say: their commands print what they show, their Python runs."""

import contextlib
import io
import shlex

import pytest
from pages import PAGES, ROOT, Step, mismatch, steps
from typer.testing import CliRunner

from refmodel.cli import app
from refmodel.errors import RefmodelError
from refmodel.report import console

STEPS = [step for page in PAGES for step in steps(page)]
RUN = [page for page in PAGES if any(not step.not_run and not step.live for step in STEPS if step.page == page)]
LIVE = [page for page in PAGES if any(step.live for step in STEPS if step.page == page)]
NOT_RUN = [step for step in STEPS if step.not_run]


def run(step: Step, values: dict) -> list[str]:
    """What a step prints on its standard output; of a command that could not be done, also its one line."""
    if step.language == "python":
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(step.text, step.where, "exec"), values)
        return printed.getvalue().splitlines()
    words = shlex.split(step.text)
    assert words[0] == "refmodel", (
        f"{step.where}: a test runs only commands of refmodel; say above the block why this one is not run"
    )
    done = CliRunner().invoke(app, words[1:])
    if isinstance(done.exception, RefmodelError):
        return [*done.stdout.splitlines(), f"refmodel: {done.exception}"]
    assert done.exit_code in (0, 1), f"{step.where}: {done.output}{done.exception!r}"
    return done.stdout.splitlines()


def runs(page, chosen, folder, monkeypatch):
    """Run those steps of a page in a folder from which the repository's golden/ is seen, and compare what they print."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(console.out, "width", 120)
    (folder / "golden").symlink_to(ROOT / "golden")
    values = {}
    for step in chosen:
        printed = run(step, values)
        if step.output is not None:
            assert not (wrong := mismatch(step.output, printed)), f"{step.where}: {step.text}\n{wrong}"


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_a_page_does_what_it_says(page, tmp_path, monkeypatch):
    runs(page, [step for step in steps(page) if not step.not_run and not step.live], tmp_path, monkeypatch)


@pytest.mark.live
@pytest.mark.parametrize("page", LIVE, ids=lambda page: page.name)
def test_a_page_does_what_it_says_with_a_llama_cpp(page, tmp_path, monkeypatch, llama_lib, smollm2):
    monkeypatch.setenv("REFMODEL_LLAMA_LIB", str(llama_lib))
    (tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf").symlink_to(smollm2)
    runs(page, [step for step in steps(page) if not step.not_run], tmp_path, monkeypatch)


@pytest.mark.parametrize("step", NOT_RUN, ids=lambda step: step.where)
def test_what_is_not_run_says_why(step):
    pytest.skip(f"{step.where}: {step.text.splitlines()[0][:60]}: {step.not_run}")


def test_no_page_is_passed_over():
    """Every `$ ` of every page is one of the steps that are run, run live, or say why not."""
    assert {step.page for step in STEPS} >= set(RUN) | set(LIVE)
    for page in PAGES:
        shown = sum(line.startswith("$ ") for line in page.read_text().splitlines())
        found = [step for step in STEPS if step.page == page and step.language == "shell" and step.output is not None]
        assert len(found) == shown, page


def test_a_gap_is_no_more_than_a_gap():
    assert not mismatch(["a", "...", "d e..."], ["a", "b", "", "c", "d e f"])
    assert not mismatch(["...", "b", "..."], ["a", "b", "b"])
    assert mismatch(["a", "c"], ["a", "b", "c"])
    assert mismatch(["a"], ["a", "b"])
    assert mismatch(["a", "...", "x"], ["a", "b", "c"])
    assert mismatch(["a", "b"], ["a"])
