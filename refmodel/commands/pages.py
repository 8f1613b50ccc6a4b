"""The options that write a report, and what becomes of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FileError, RefmodelError
from ..machine.files import check_target, whole
from ..report.console import out

if TYPE_CHECKING:
    from ..report.page import Page

Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write a report with pictures: one HTML file (extra [report]).")
]
Md = Annotated[bool, typer.Option("--md", help="Print Markdown, to paste into an issue.")]
Png = Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Write the report's pictures as PNG (extra [report]).")]
NEEDS = ("jinja2", "matplotlib")


@dataclass(frozen=True)
class Reports:
    """Which reports a command is to give.

    html, png  files to write, if they are wanted
    md         Markdown on standard output, instead of the table
    """

    html: Path | None
    png: Path | None
    md: bool

    def __bool__(self) -> bool:
        return bool(self.html or self.png or self.md)

    def give(self, made: "Callable[[], Page]") -> None:
        """Make the page, if a report of it is wanted, and write or print that. FileError if a file cannot be written."""
        if not self:
            return
        page = made()
        texts = {}
        if self.html:
            from ..report.html import as_html

            texts[self.html] = as_html(page)
        if self.png:
            from ..report.pictures import as_png

            if not page.pictures:
                raise RefmodelError(f"--png {self.png}: this report has no picture; take --html or --md")
            texts[self.png] = as_png(page.pictures)
        for path, content in texts.items():
            with whole([path]) as (file,):
                file.write(content)
        if self.md:
            from ..report.markdown import as_markdown

            out.say(as_markdown(page))


def reports_of(html: Path | None, md: bool, png: Path | None, as_json: bool, sources: Iterable[Path] = ()) -> Reports:
    """The reports that options ask for, checked before anything is computed.

    sources  files that are read, and must not be written

    RefmodelError for a name with another ending, a place that cannot be written, or a missing package.
    """
    if md and as_json:
        raise RefmodelError("--md and --json both print; take one of them")
    for option, path in (("--html", html), ("--png", png)):
        if path is None:
            continue
        ending = f".{option[2:]}"
        if path.suffix != ending:
            raise FileError(f"{option} {path}: expected a name ending in {ending}; call it {path.stem or 'report'}{ending}")
        check_target(path, sources)
        if missing := [name for name in NEEDS if find_spec(name) is None]:
            raise RefmodelError(f"{option} needs {' and '.join(missing)}: pip install 'refmodel[report]'")
    return Reports(html, png, md)
