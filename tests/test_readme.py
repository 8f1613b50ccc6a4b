"""The front door against the program: README's length, figures and two commands; every command and page listed once."""

import json
import re

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
    assert sorted(listed) == sorted(command.callback.__name__ for command in app.registered_commands)


def test_the_figure_of_speed_is_the_measured_one():
    rows = json.loads((ROOT / "benchmarks" / "results.json").read_text())["rows"]
    (measured,) = (row["ours"]["median"] for row in rows if row["name"] == "4b-32 decode, fast")
    shown = re.search(r"writes ([\d.]+) tokens/s", README)[1]
    assert shown == f"{measured:.1f}"


def test_every_link_of_readme_and_contributing_leads_to_a_file():
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text()):
            assert (ROOT / target).exists(), (page, target)


def test_every_page_is_in_the_navigation_once():
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    listed = re.findall(r": ([\w/-]+\.md)$", nav, re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))
