"""The options of `refmodel sweep run`."""

from pathlib import Path
from typing import Annotated

import typer

PROBES = (
    "What routes are scored by; may be given again: nll:TEXT, kl:TEXT, choices:FILE, digits:FILE, lm_eval:TASK; ng-math, cf-math, "
    "ng-eq, cf-eq, reasoning, each with :FILE, :NUMBER of our own questions, or nothing."
)
LOCAL, RAY = "local", "ray"

Ledger = Annotated[Path, typer.Option("-o", "--output", help="The ledger: a file that is begun, or continued.")]
Probes = Annotated[list[str], typer.Option("--probe", metavar="KIND[:FILE]", help=PROBES)]
Every = Annotated[bool, typer.Option("--all", help="Every window (i, j).")]
Windows = Annotated[
    list[str] | None, typer.Option("--windows", help='Some windows: "size=4 stride=1 start=8..32"; may be given again.')
]
Skip = Annotated[bool, typer.Option("--skip", help="Leave each window out.")]
Swap = Annotated[bool, typer.Option("--swap", help="Exchange each window with the next one of its size.")]
Times = Annotated[int, typer.Option("--times", min=0, help="Run each window N times in all.", metavar="N")]
Beam = Annotated[bool, typer.Option("--beam", help="Also routes of two and three of the best windows, by beam search.")]
TwoPass = Annotated[bool, typer.Option("--two-pass", help="Large windows first, then small ones where those are best.")]
Routes = Annotated[Path | None, typer.Option("--routes", help="A file with routes, one a line, or JSON.")]
HeldOut = Annotated[
    list[str] | None,
    typer.Option("--held-out", metavar="KIND:FILE", help="Questions that only check the best routes; may be given again."),
]
Racing = Annotated[
    bool | None,
    typer.Option(
        "--race/--full",
        help="Race: losers leave after a few questions. Full: all meet all, as a heatmap needs. Default: a race.",
        show_default=False,
    ),
]
Prior = Annotated[
    float,
    typer.Option(
        "--prior",
        min=0,
        max=1,
        metavar="SHARE",
        help="Race only this share of the windows, those that turn the stream least (see anatomy); 0 races all.",
    ),
]
Tokens = Annotated[int, typer.Option("--tokens", min=0, help="Only the first N tokens of each text; 0 is all.", metavar="N")]
Memory = Annotated[
    float, typer.Option("--memory", min=0, help="At most so many GiB for states; 0 is half of what is free.", metavar="GIB")
]
EngineName = Annotated[
    str, typer.Option("--engine", metavar="WHERE", help=f"Where passes run: {LOCAL}, or {RAY} (a cluster; extra [ray]).")
]
Address = Annotated[
    str, typer.Option("--address", help=f"With {RAY}: the cluster's address, auto, or nothing for one of this machine.")
]
