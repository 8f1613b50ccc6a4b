"""Write the table of faults in docs/faults.md from the library: `python docs/faults.py`."""

from collections import Counter
from pathlib import Path

from refmodel.arch import ARCHITECTURES
from refmodel.faults import library
from refmodel.faults.fault import Fault

PAGE = Path(__file__).parent / "faults.md"
BEGIN, END = "<!-- table: made by docs/faults.py -->", "<!-- end of the table -->"


def claims(fault: Fault) -> str:
    """The architectures of a fault, in few words."""
    found = library.architectures(fault.name)
    return "all" if len(found) == len(ARCHITECTURES) else ", ".join(found)


def table() -> str:
    """The faults, by family and in the library's order."""
    rows = []
    for family, count in Counter(fault.family for fault in library.FAULTS.values()).items():
        title = family.capitalize().replace("_", " ")
        rows += [f"### {title} ({count})", "", "| class | fault | what goes wrong | what to do | architectures |"]
        rows += ["|---|---|---|---|---|"]
        for fault in library.FAULTS.values():
            if fault.family == family:
                number = fault.id if fault.id != fault.name else ""
                rows.append(f"| {number} | `{fault.name}` | {fault.says} | {fault.fix} | {claims(fault)} |")
        rows.append("")
    return "\n".join(rows).rstrip()


def page_with(rows: str) -> str:
    """The page, with these rows."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{before}{BEGIN}\n\n{rows}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page_with(table()))
