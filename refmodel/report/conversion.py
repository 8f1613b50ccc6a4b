"""The comparison of a GGUF with the folder that it was made of, as text and as JSON."""

from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:  # what only shows a file or a route starts without Numba
    from ..surgery.against_folder import Conversion
from . import quantized
from .tables import pairs

MOST = 20  # findings of a check that are shown; --json has all
SAYS = {"structure": "names, shapes, types", "bytes": "values", "metadata": "metadata"}


def conversion(console: Console, done: "Conversion") -> None:
    """Print what was compared and what is wrong, then the pass."""
    report = done.report
    checks = [check for check in report.checks if check.name in SAYS]
    console.print(pairs({SAYS[check.name]: result(check.compared, len(check.findings), check.skipped) for check in checks}))
    for check in checks:
        for finding in check.findings[:MOST]:
            console.print(f"! {finding.where} {finding.what}", markup=False, soft_wrap=True)
        if len(check.findings) > MOST:
            console.print(f"! and {len(check.findings) - MOST} more; --json has all", markup=False)
    for note in report.notes:
        console.print(f"  {note}", markup=False, soft_wrap=True)
    if done.trial:
        quantized.trial(console, done.trial)
    else:
        console.print(f"the pass was not run: {done.why}", markup=False, soft_wrap=True)
    found = report.findings
    verdict = f"DIFFERENT: {len(found)} found, first: {found[0][1].where}" if found else "EQUAL: the file has what the folder has"
    console.print(verdict, markup=False, soft_wrap=True)


def result(compared: int, wrong: int, skipped: str) -> str:
    """The outcome of a check in a few words."""
    return f"not compared: {skipped}" if skipped else f"{compared} compared, " + (f"{wrong} wrong" if wrong else "all right")


def conversion_json(done: "Conversion") -> dict[str, Any]:
    """The same for --json."""
    of_pass = quantized.trial_json(done.trial) if done.trial else {"not_run": done.why}
    return {"equal": not done.status, **done.report.as_json(), "pass": of_pass}
