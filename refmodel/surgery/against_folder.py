"""A GGUF held against the folder that it was made of, tensor by tensor, and then as both compute."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..compare.quantized import Trial, trial
from ..errors import RefmodelError
from ..model.model import load
from .verify import Options, Report, verify
from .verify.forward import few_tokens


@dataclass(frozen=True)
class Conversion:
    """What a conversion left of a folder.

    report  its checks: structure, bytes, metadata
    trial   the errors of the pass, position by position; None if it could not be run
    why     why not
    """

    report: Report
    trial: Trial | None
    why: str = ""

    @property
    def status(self) -> int:
        """The exit status: 0 if the file has the folder's tensors and keys, 1 otherwise."""
        return 1 if self.report.findings else 0


def against_folder(file: Path, folder: Path, tokens: Sequence[int], seen: Callable[[str], None]) -> Conversion:
    """Compare a GGUF with its folder.

    tokens  that both run; none: a few, spread over the vocabulary
    seen    gets what is being done, for a spinner

    RefmodelError for a folder that cannot be read; of a file that cannot be run the rest is compared.
    """
    report = verify(file, folder, "identity", Options(forward=False, seen=seen))
    try:
        packed, full = load(file), load(folder)
        done = trial(packed, full, "", list(tokens) or few_tokens(min(packed.n_vocab, full.n_vocab)), seen)
    except RefmodelError as error:
        return Conversion(report, None, str(error))
    return Conversion(report, done)
