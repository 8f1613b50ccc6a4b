"""The Python in docs/ that asserts something runs."""

import re
from pathlib import Path

import pytest

DOCS = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))


EXAMPLES = [
    (page, text) for page in DOCS for text in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) if "assert" in text
]


@pytest.mark.parametrize(("page", "example"), EXAMPLES, ids=lambda value: getattr(value, "name", ""))
def test_an_example_runs_and_what_it_asserts_holds(page, example):
    exec(compile(example, str(page), "exec"), {})
