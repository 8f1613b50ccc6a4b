"""The options that several commands share, and how their words become values. Nothing below this folder reads a word."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FileError, TokenError
from ..machine.files import PACKAGE, nearest

if TYPE_CHECKING:
    from ..forward.numerics import Numerics
    from ..llamacpp.library import Given
    from ..llamacpp.profile import Profile
    from ..model.model import Model

MOST = (1 << 31) - 1  # of any number on the command line: more is a typing mistake, and longer than what is printed
SHIPPED = "austen"  # the trained model that the package carries
PIECES = {SHIPPED: ("models", "austen-Q4_K_M.gguf"), f"{SHIPPED}-trace": ("traces", "austen-Q4_K_M", "route.safetensors")}

ModelPath = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=f"A GGUF (the first part of a split one), a Hugging Face folder, or {SHIPPED}, the small model"
        " that comes with refmodel.",
    ),
]
RouteText = Annotated[
    str,
    typer.Option(
        "--route", help="Which blocks run in which order: blocks:i,j · layers:0..14,12,13 · (i,j). Default: the file's own order."
    ),
]
Prompt = Annotated[str, typer.Option("-p", "--prompt", help="The text to run.")]
TokenText = Annotated[str, typer.Option("--tokens", help="Token ids instead of a text: 1,2,3")]
NumericsName = Annotated[
    str,
    typer.Option(
        "--numerics",
        help="How to compute: fast (8-bit activations), reference (float32), numpy (float32, no kernels), oracle (float64), "
        "llamacpp[:fa=off,...] (llama.cpp's own arithmetic, bit for bit).",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, envvar="REFMODEL_THREADS", help="Default: one per core. Results are bit-identical for any number."
    ),
]
Decode = Annotated[
    int, typer.Option(min=0, max=MOST, help="Feed the last N tokens one at a time, as generation does.", metavar="N")
]
Chunks = Annotated[str, typer.Option(help="Feed the tokens in calls of these sizes, for example 5,5,3.", metavar="N,N,...")]
Special = Annotated[bool, typer.Option("--special", help="Read special tokens such as <|im_start|> in the prompt.")]
Mtp = Annotated[bool, typer.Option("--mtp", help="Also run the file's prediction block (MTP), as a draft head.")]
MtpFile = Annotated[
    Path | None, typer.Option("--mtp-file", help="--mtp with a prediction block that is in a file of its own.", metavar="FILE")
]
LlamaLib = Annotated[Path | None, typer.Option(help="The llama.cpp to run: a libllama, or the folder with it.")]
LlamaPython = Annotated[
    str,
    typer.Option(
        metavar="PYTHON",
        help="A Python that has llama-cpp-python, which says how its llama.cpp is laid out. Without --llama-lib it is run.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def shipped(name: str) -> Path:
    """The path of a file that comes with refmodel, by its short name. FileError if it is missing."""
    path = PACKAGE.joinpath("golden", *PIECES[name])
    if not path.exists():
        raise FileError(f"{path}: this file comes with refmodel and is missing; install refmodel again")
    return path


ELSEWHERE = (  # words for a model that is no path -> what to do
    (r"https?:/.*", "an address is no file: download it first"),
    (r"(?:hf\.co/|huggingface\.co/)?[\w.-]+/[\w.-]+(?::[\w.-]+)?", "if it is a name on a hub, download the model first"),
    (r"[\w.-]+:[\w.-]+", "if it is a name of Ollama's, give the file that `ollama show --modelfile` names"),
)


def missing(words: str, path: Path) -> str:
    """The message for a path at which nothing is: the nearest name, or what to do with a name that is no path."""
    if hint := nearest(path):
        return f"{path}: no such file; did you mean {hint}?"
    named = next((advice for pattern, advice in ELSEWHERE if re.fullmatch(pattern, words)), "")
    if named and (":" in words or not path.parent.is_dir()):
        return f"{words}: no such file; {named}"
    return f"{path}: no such file in {path.parent.absolute()}; check the path"


def file_of(words: str) -> Path:
    """The path that a user means: their own file, or the short name of one that comes with refmodel.

    FileError for a missing file; it suggests the nearest name.
    """
    path = Path(words)
    if words in PIECES and not path.exists():
        return shipped(words)
    if not path.exists():
        raise FileError(missing(words, path))
    return path


def model_of(words: str, mtp_file: Path | None = None) -> "Model":
    """The loaded and checked model of that file, with the prediction block of another one. RefmodelError if it cannot be read."""
    from ..model.model import load

    return load(file_of(words), mtp_file and file_of(str(mtp_file)))


def numerics_of(words: str) -> "Numerics":
    """The policy of that name. RefmodelError for an unknown one."""
    from ..numerics import numerics_of

    return numerics_of(words)


def profile_of(words: str) -> "Profile":
    """The profile of a live llama.cpp in the words of --profile. RefmodelError for unknown words."""
    from ..llamacpp.profile import profile_of

    return profile_of(words)


def llama_of(lib: Path | None, python: str) -> "Given":
    """The llama.cpp that a user names; as they name it where it need not be there. OracleError for a Python that has none."""
    if not python:
        return lib
    from ..llamacpp.library import locate

    return locate(lib, python)


def token_ids(model: "Model", prompt: str, tokens: str, special: bool) -> list[int]:
    """The token ids of --tokens, or those of the prompt's text. TokenError unless one of the two is given.

    special  whether the texts of special tokens in the prompt are read as those tokens
    """
    if bool(prompt) == bool(tokens):
        raise TokenError("give either a text, -p TEXT, or token ids, --tokens 1,2,3")
    if prompt:
        ids: list[int] = model.tokenizer.encode(prompt, add_special=True, parse_special=special)
        return ids
    return whole_numbers(tokens)


def whole_numbers(words: str, option: str = "--tokens") -> list[int]:
    """`1,2,3` as a list of numbers. TokenError, which names the option, for anything else."""
    if not re.fullmatch(r"\s*[0-9]{1,99}\s*(,\s*[0-9]{1,99}\s*)*", words):
        raise TokenError(f"{option} {shown(words)}: expected whole numbers between commas, such as 1,2,3")
    return [int(word) for word in words.split(",")]


def shown(words: str) -> str:
    """A user's words as a message shows them: on one line, at most 60 characters."""
    line = re.sub(r"\s+", " ", words)
    return line if len(line) <= 60 else f"{line[:57]}..."


def calls_of(ids: Sequence[int], decode: int, chunks: str = "") -> list[list[int]]:
    """The calls of a session: in `chunks` of those sizes, or the prompt, then the last `decode` tokens one at a time.

    TokenError if no prompt is left, or the sizes do not add up to the tokens.
    """
    if chunks:
        sizes = whole_numbers(chunks, "--chunks")
        if decode or 0 in sizes or sum(sizes) != len(ids):
            why = (
                "leave out --decode"
                if decode
                else f"the sizes add up to {sum(sizes)}, and there are {len(ids)} tokens; correct them"
            )
            raise TokenError(
                f"--chunks {shown(chunks)}: {why if 0 not in sizes else 'a call has at least one token; leave out the 0'}"
            )
        ends = [sum(sizes[:n]) for n in range(len(sizes) + 1)]
        return [list(ids[start:end]) for start, end in pairwise(ends)]
    if decode >= len(ids):
        raise TokenError(f"--decode {decode} leaves no prompt: there are {len(ids)} tokens; take at most --decode {len(ids) - 1}")
    prompt = len(ids) - decode
    return [list(ids[:prompt]), *([token] for token in ids[prompt:])]
