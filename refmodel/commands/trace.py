"""`refmodel trace`: record every intermediate."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..machine.files import check_target
from ..machine.threads import use
from ..report.console import err, out
from .compiling import prepare
from .faulty import FaultName, with_faults
from .options import (
    Chunks,
    Decode,
    ModelPath,
    Mtp,
    MtpFile,
    NumericsName,
    Prompt,
    RouteText,
    Special,
    Threads,
    TokenText,
    calls_of,
    model_of,
    numerics_of,
    token_ids,
)


def trace(
    model: ModelPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="The trace file: .safetensors or .npz")],
    prompt: Prompt = "",
    tokens: TokenText = "",
    route: RouteText = "",
    numerics: NumericsName = "reference",
    threads: Threads = None,
    keep: Annotated[str, typer.Option("--filter", help="Keep only names that match this regular expression anywhere.")] = "",
    decode: Decode = 0,
    chunks: Chunks = "",
    special: Special = False,
    mtp: Mtp = False,
    mtp_file: MtpFile = None,
    fault: FaultName = "",
) -> None:
    """Record every intermediate of a forward pass under llama.cpp's names."""
    use(threads)
    from .. import __version__
    from ..forward.trace import Recorder, Spool
    from ..model.session import run_calls
    from ..report.progress import watching

    engine = with_faults(model_of(model, mtp_file), numerics_of(numerics), fault)
    loaded, policy = engine.model, engine.numerics
    calls = engine.feed(calls_of(token_ids(loaded, prompt, tokens, special), decode, chunks))
    asked = loaded.route(route)
    chosen = engine.follow(asked)
    check_target(output, loaded.file.parts)
    with err.status("reading the file for its sha256"):
        digest = loaded.file.sha256()
    producer = f"refmodel {__version__}" + (f" with the fault {fault}" if fault else "")
    provenance = {"producer": producer, "sha256": digest, "calls": [list(map(int, call)) for call in calls]}
    provenance |= {"route": asked.canonical, "numerics": policy.name}
    with Spool(output, {"provenance": json.dumps(provenance)}) as writer:
        recorder = Recorder(writer, keep)
        session = loaded.session(
            chosen, policy, recorder, mtp or mtp_file is not None, scores=recorder.keeps_scores(len(chosen.layers))
        )
        prepare(loaded, policy, calls)
        with watching(err, "tracing") as recorder.seen:
            for _ in run_calls(session, calls, recorder):
                pass
        loaded.file.check_unchanged()
    out.print(f"{output}: {len(writer)} tensor{'s' * (len(writer) != 1)}, {output.stat().st_size:,} bytes", markup=False)
