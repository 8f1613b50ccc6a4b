"""`refmodel diff GGUF --against FOLDER`: what a converter did wrong."""

from pathlib import Path

from ..errors import RefmodelError
from ..report.console import err, out
from .options import token_ids


def is_checkpoint(words: str) -> bool:
    """Whether words are the path of a Hugging Face folder: one with a configuration, and no arrays of NumPy, which are a dump's."""
    return (Path(words) / "config.json").exists() and not any(Path(words).glob("*.np[yz]"))


def with_folder(file: Path, folder: Path, others: bool, prompt: str, tokens: str, special: bool, as_json: bool) -> int:
    """Compare a GGUF with the folder that it was made of. Returns the exit status.

    others                   whether options are given that do not belong here
    prompt, tokens, special  what both run, as token_ids reads it; it may be left out

    RefmodelError for such an option, or for a folder that cannot be read.
    """
    from ..model.model import load
    from ..report import conversion as show
    from ..report.progress import watching
    from ..surgery.against_folder import against_folder

    if others:
        raise RefmodelError("--against a folder takes -p, --tokens, --special and --json only; leave out the rest")
    ids = token_ids(load(folder), prompt, tokens, special) if prompt or tokens else []
    with watching(err, "comparing") as seen:
        done = against_folder(file, folder, ids, seen)
    if as_json:
        out.json(show.conversion_json(done))
    else:
        show.conversion(out, done)
    return done.status
