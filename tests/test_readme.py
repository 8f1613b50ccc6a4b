"""README.md against the program: its commands exist, its two headline commands are CI's, its Python runs."""

import re
import shlex
from pathlib import Path

import tiny
from typer.testing import CliRunner

from refmodel.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_every_command_stands_in_the_readme_and_no_other():
    listed = set(re.findall(r"^\| `refmodel (\w+)", README, re.MULTILINE))
    assert listed == {command.callback.__name__ for command in app.registered_commands}


def test_ci_calls_the_commands_of_the_readme():
    ci = (ROOT / ".ci" / "run").read_text()
    main_job, tests, *_ = blocks("sh")
    assert "pip install -e . && .venv/bin/refmodel demo" in main_job
    assert "pip install -e '.[test]' && .venv/bin/pytest" in tests
    for words in ("install --quiet -e .\n", '/refmodel" demo', "-e '.[test]'", '/pytest"'):
        assert words in ci


def test_the_shell_examples_run():
    for example in blocks("sh")[2:]:
        for line in example.strip().splitlines():
            done = CliRunner().invoke(app, shlex.split(line)[1:])
            assert done.exit_code == 0, line


def test_the_python_example_runs(tmp_path, monkeypatch):
    tiny.build(tmp_path / "model.gguf", "qwen35", seed=6)
    monkeypatch.chdir(tmp_path)
    for example in blocks("python"):
        values = {}
        exec(example, values)
        assert values["logits"].shape[1] == values["model"].n_vocab
