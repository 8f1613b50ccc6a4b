"""README.md and docs/ as lists of steps: what a page tells its reader to type, and what it says will be printed.

A page is a script. Its `$ refmodel ...` lines and its Python run in order, in one folder and one namespace. Blank lines do not
count; `...` on a line of its own stands for any number of lines, at the end of a line for the rest of it. A comment before a
block says why it is not run (`<!-- not run: needs a file of 3 GB -->`), or what it needs (`<!-- live: SmolLM2 -->`).
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXCERPTS = {"adding-an-architecture.md": "an excerpt of a file that the page writes"}  # pages whose unmarked programs are not run
MARKER = re.compile(r"<!-- (not run|live): (.+) -->")


@dataclass(frozen=True)
class Step:
    """One thing that a page has done.

    line      of the page, where it begins
    language  shell or python
    text      a command without its `$ `, or a program
    output    the lines that the page shows after it; None if it shows none
    live      what it needs beyond the repository
    not_run   why nothing runs it
    """

    page: Path
    line: int
    language: str
    text: str
    output: list[str] | None
    live: str = ""
    not_run: str = ""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def steps(page: Path) -> list[Step]:
    """Every `$ ` command and every Python program of a page, in order."""
    found = list[Step]()
    lines = page.read_text().splitlines()
    marker = after_python = None
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if not line.startswith("```"):
            if line.strip():
                marker, after_python = MARKER.fullmatch(line.strip()), None
            continue
        start = number
        while not lines[number].startswith("```"):
            number += 1
        body, language = lines[start:number], line.removeprefix("```").strip()
        number += 1
        words = {"not_run": "", "live": ""} | ({marker[1].replace(" ", "_"): marker[2]} if marker else {})
        if page.name in EXCERPTS and not marker and "assert " not in "\n".join(body):
            words["not_run"] = EXCERPTS[page.name]
        if language == "python":
            found.append(Step(page, start + 1, "python", "\n".join(body), None, **words))
            after_python = len(found) - 1
            marker = None
            continue
        if any(text.startswith("$ ") for text in body):
            found += commands(page, start, body, words)
        elif language == "sh":
            found.append(Step(page, start + 1, "shell", "\n".join(body), None, **words))
        elif after_python is not None and language == "text":
            step = found[after_python]
            found[after_python] = Step(page, step.line, "python", step.text, body, step.live, step.not_run)
        marker = after_python = None
    return found


def commands(page: Path, start: int, body: list[str], words: dict[str, str]) -> list[Step]:
    """The commands of one block, each with the lines up to the next."""
    found = list[Step]()
    for at, text in enumerate(body):
        if text.startswith("$ "):
            found.append(Step(page, start + at + 1, "shell", text[2:], [], **words))
        elif found and found[-1].output is not None:
            last = found[-1]
            if last.text.endswith("\\") and not last.output:
                found[-1] = Step(page, last.line, "shell", last.text[:-1] + text.strip(), [], **words)
            else:
                last.output.append(text)
    return found


def mismatch(want: list[str], got: list[str]) -> str:
    """What the page shows that was not printed; empty if all of it was."""
    want, got = ([line.rstrip() for line in side if line.strip()] for side in (want, got))
    furthest = 0
    reached = {0}  # how many lines of `got` the lines of `want` so far may have used up
    for number, line in enumerate(want):
        if line.strip() == "...":
            reached = set(range(min(reached), len(got) + 1))
            continue
        reached = {at + 1 for at in reached if at < len(got) and same(line, got[at])}
        if not reached:
            near = "\n".join(got[furthest : furthest + 5]) or "(nothing)"
            return f"line {number + 1} of the output is shown as\n{line}\nprinted was\n{near}\n\nof\n" + "\n".join(got)
        furthest = min(reached)
    return "" if len(got) in reached else "not shown, but printed:\n" + "\n".join(got[max(reached) :])


def same(want: str, got: str) -> bool:
    if not want.strip(" ─"):  # the rule of a table is as long as the table is wide
        return not got.strip(" ─")
    return got.startswith(want.removesuffix("...").rstrip()) if want.endswith("...") else want == got
