"""`refmodel dumps write`: logits as llama.cpp's own tools read them."""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..arrays import F
from ..errors import TokenError
from ..machine.files import check_target, text_of
from ..machine.threads import use
from ..report.console import err, out
from .compiling import prepare
from .options import (
    ModelPath,
    NumericsName,
    Prompt,
    RouteText,
    Special,
    Threads,
    TokenText,
    file_of,
    model_of,
    numerics_of,
    token_ids,
)

if TYPE_CHECKING:
    from ..model.model import Model
    from ..model.session import Session


class Format(StrEnum):
    """The formats that are written."""

    KLD_BASE = "kld-base"
    RESULTS = "results"


def write(
    model: ModelPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    kind: Annotated[
        Format,
        typer.Option("--as", help="kld-base: for llama-perplexity --kl-divergence; results: for llama-results --check."),
    ],
    prompt: Prompt = "",
    tokens: TokenText = "",
    text: Annotated[Path | None, typer.Option("--text", help="A file with the text, instead of -p.")] = None,
    ctx: Annotated[int, typer.Option(min=4, help="With kld-base: the tokens of a chunk, as llama-perplexity -c.")] = 512,
    named: Annotated[str, typer.Option(help="With results: the model's path as llama-results is given it. Default: MODEL.")] = "",
    route: RouteText = "",
    numerics: NumericsName = "reference",
    special: Special = False,
    threads: Threads = None,
) -> None:
    """Write logits as llama.cpp's own tools read them, so that they compare with refmodel."""
    use(threads)
    from ..dumps.logit_writers import write_kld_base, write_results
    from ..report.progress import counting

    loaded, policy = model_of(model), numerics_of(numerics)
    words = text_of(file_of(str(text))) if text and not prompt else prompt
    ids = token_ids(loaded, words, tokens, special)
    check_target(output, loaded.file.parts)
    session = loaded.session(loaded.route(route), policy)
    if kind == Format.RESULTS:
        prepare(loaded, policy, [ids])
        with err.status(f"computing {len(ids)} tokens"):
            logits = session.forward(ids)
        write_results(output, named or model, ids, logits)
    else:
        chunks = [ids[start : start + ctx] for start in range(0, len(ids) - ctx + 1, ctx)]
        if not chunks:
            raise TokenError(
                f"--ctx {ctx}: the text has {len(ids)} tokens, fewer than one chunk; give more text, or a smaller --ctx"
            )
        prepare(loaded, policy, chunks[:1])
        with counting(err, "chunks", len(chunks)) as seen:
            write_kld_base(output, chunks, loaded.n_vocab, rows_of(session, begun(loaded, chunks), seen))
    out.print(f"{output}: {output.stat().st_size:,} bytes", markup=False)


def begun(model: "Model", chunks: Sequence[Sequence[int]]) -> list[list[int]]:
    """The chunks as llama-perplexity runs them: with BOS in place of the first token, where texts begin with it."""
    bos = model.tokenizer.encode("", add_special=True, parse_special=False)[:1]
    return [[*(bos or chunk[:1]), *chunk[1:]] for chunk in chunks]


def rows_of(session: "Session", chunks: Sequence[Sequence[int]], seen: Callable[[str], None]) -> Iterator[F]:
    """The scored logits of each chunk: of its second half but for the last token."""
    for number, chunk in enumerate(chunks):
        session.restart()
        yield session.forward(chunk)[len(chunk) // 2 : -1]
        seen(f"chunk {number + 1}")
