"""The options of `refmodel diff` that no other command has."""

from typing import Annotated

import typer

LIVE = "llamacpp"

Against = Annotated[
    str,
    typer.Option(
        help=f"{LIVE}, a trace or dump of any program (a file or a folder), another GGUF of the same model and route, or the "
        "Hugging Face folder that it was made of."
    ),
]
ProfileText = Annotated[
    str,
    typer.Option(
        "--profile",
        help="How llama.cpp runs: exact (fa=off,kv=f32), default (its own settings), or options such as fa=on,threads=2. "
        "Default: its own settings, or what --numerics names; exact for floats.",
    ),
]
DiffNumerics = Annotated[
    str,
    typer.Option(
        "--numerics",
        help="How to compute: fast, reference (float32), numpy, oracle (float64), llamacpp[:fa=off,...]. "
        "Default: as the other side computes.",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 if one bit differs, whatever explains it.")]
Anchor = Annotated[bool, typer.Option("--anchor", help="Start every block from the other side's own input.")]
AnchorNodes = Annotated[bool, typer.Option("--anchor-nodes", help="Start every operation from the other side's own input.")]
Explain = Annotated[
    bool, typer.Option("--explain", help="Show how much of the distance to the float64 result each kind of rounding causes.")
]
Full = Annotated[str, typer.Option(help="With --explain: the same model in a higher precision.")]
Dequantized = Annotated[bool, typer.Option("--dequantized", help="Let llama.cpp run the file's weights as F32.")]
Every = Annotated[bool, typer.Option("--all", help="Show every tensor, not one per block.")]
