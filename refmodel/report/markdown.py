"""A report as Markdown, to paste into an issue."""

import re
from collections.abc import Iterator

from .page import BAD, Page, Table

MOST = 25  # lines of a table that are shown


def as_markdown(page: Page) -> str:
    """The verdict, the facts and the brief tables, wrong lines first."""
    tables = [table for section in page.sections for table in section.tables if table.brief and table.lines]
    parts = [f"**{plain(page.verdict)}**", plain(page.title), *map(plain, page.says)]
    parts += ["\n".join(f"- {plain(name)}: {plain(value)}" for name, value in page.facts.items())] if page.facts else []
    return "\n\n".join([*parts, *("\n".join(rows(table)) for table in tables)]) + "\n"


def rows(table: Table) -> Iterator[str]:
    """The lines of a table, under its title."""
    yield plain(table.title)
    yield ""
    yield f"| {' | '.join(map(plain, table.columns))} |"
    yield "|" + "|".join("---" if i == 0 or name in table.texts else "---:" for i, name in enumerate(table.columns)) + "|"
    ordered = sorted(table.lines, key=lambda line: line.mark != BAD)
    for line in ordered[:MOST]:
        yield f"| {' | '.join(map(plain, line.cells))} |"
    if len(ordered) > MOST:
        yield ""
        yield f"and {len(ordered) - MOST} more"


def plain(text: str) -> str:
    """Text that Markdown shows as it is: on one line, without marks, tags and mentions."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    return re.sub(r"([\\`*|\[\]])", r"\\\1", " ".join(text.split()))
