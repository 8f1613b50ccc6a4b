"""The Python in docs/ runs, and its assertions hold."""

import re
from pathlib import Path

import pytest

DOCS = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))


@pytest.mark.parametrize("page", [p for p in DOCS if "```python" in p.read_text()], ids=lambda p: p.name)
def test_the_examples_run(page):
    for example in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        assert "assert" in example
        exec(compile(example, str(page), "exec"), {})
