"""Before the first run of a kind its kernels are compiled in parallel, with a progress bar."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..machine.threads import used
from ..machine.truncated import say_so
from ..report.console import err

if TYPE_CHECKING:
    from ..forward.numerics import Numerics
    from ..model.model import Model
    from ..speed.warmup import Work


def prepare(model: "Model", numerics: "Numerics", calls: Sequence[Sequence[int]]) -> None:
    """Compile what these calls (token ids) need. TokenError, before that, for a token outside the vocabulary."""
    from ..model.session import checked_tokens
    from ..speed.warmup import work

    say_so(model.file.parts)
    lengths = [len(checked_tokens(ids, model.n_vocab)) for ids in calls]
    compile_missing(work(model, numerics.name, lengths))


def compile_missing(works: "Sequence[Work]") -> tuple[int, float]:
    """Compile what is not in the cache. Returns how many pieces of work were compiled, and the seconds."""
    from ..speed.warmup import compile_all, missing

    start, left = time.perf_counter(), missing(works)
    if left:
        from ..report.progress import counting

        with counting(err, "compiling kernels, once", len(left)) as seen:
            compile_all(left, used(), lambda one: seen(one.title))
    return len(left), time.perf_counter() - start
