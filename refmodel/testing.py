"""For the tests of other projects: goldens as fixtures, and assertions that say what differs. It is a plugin of pytest.

    pytest --refmodel-golden DIR

The fixture `refmodel_golden` opens a golden of DIR by its name. `assert_logits_match` and `assert_trace_match` compare numbers of
any program with it; what is allowed is the noise that was measured when it was recorded. Until then only pytest is imported.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .compare.golden import Golden
    from .compare.rows import LogitRow, Row

OPTION = "--refmodel-golden"
MOST = 8  # lines of each kind in a message


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the folder with goldens."""
    group = parser.getgroup("refmodel", "reference numbers of language models")
    group.addoption(OPTION, metavar="DIR", help="the folder with goldens that `refmodel golden record` wrote")


@pytest.fixture
def refmodel_golden(request: pytest.FixtureRequest) -> "Callable[[str], Golden]":
    """A function that opens a golden of the folder by its name, with or without .safetensors.

    The test is skipped without the option; it fails for a golden that is not there, or was changed after it was recorded.
    """
    folder = request.config.getoption(OPTION)
    if not folder:
        pytest.skip(f"give the folder with goldens: pytest {OPTION} DIR")
    return lambda name: open_golden(Path(str(folder)), name)


def open_golden(folder: Path, name: str) -> "Golden":
    """The golden of that name in a folder. Fails the test if it is not there or cannot be used."""
    __tracebackhide__ = True
    from .compare.golden import Golden
    from .errors import RefmodelError

    path = folder / (name if name.endswith(".safetensors") else f"{name}.safetensors")
    if not path.is_file():
        there = ", ".join(sorted(found.name for found in folder.glob("*.safetensors"))) if folder.is_dir() else "no such folder"
        pytest.fail(f"{path}: no such golden; {OPTION} {folder} has: {there or 'none'}", pytrace=False)
    try:
        return Golden(path)
    except RefmodelError as error:
        pytest.fail(str(error), pytrace=False)


def assert_logits_match(
    logits: Any, golden: "Golden | str | Path", rounds: str = "", call: int = 0, tokens: Sequence[int] | None = None
) -> None:
    """Fail if logits differ from a golden's by more than rounding explains, and say where.

    logits  [T, V] of a call's tokens, those of the golden's tokens, or [V] of its last one; of NumPy, torch or anything alike
    golden  one that was opened, or its path
    rounds  what the program rounds: `reference` (float32), `f16`, `bf16`, `fast` (8-bit activations), `llamacpp`; empty for what
            the golden's engine rounds, or float32 if that is exact
    call    the number of the call, 0 the prompt
    tokens  the ids that the program ran, to be sure that they are the golden's

    AssertionError; GoldenError for a golden that was changed, or has no such call.
    """
    __tracebackhide__ = True
    from .compare.golden import LOGITS
    from .errors import GoldenError
    from .forward.taps import in_call

    known, tap = opened(golden), in_call(LOGITS, call)
    if tap not in known.arrays:
        raise GoldenError(f"{known.path}: has no logits of call {call}; it has {', '.join(known.arrays)}")
    if tokens is not None and list(map(int, tokens)) != known.calls[call]:
        raise AssertionError(f"the program ran the tokens {list(tokens)}, {known.path.name} has {known.calls[call]}; run those")
    compared(known, {tap: in_shape(known, tap, numbers_of(logits))}, rounds, "logits")


def assert_trace_match(
    trace: Mapping[str, Any] | str | Path, golden: "Golden | str | Path", rounds: str = "", some: bool = False
) -> None:
    """Fail if intermediates differ from a golden's by more than rounding explains, and say which is first.

    trace   name -> array, tokens first, or the path of a dump of any format that refmodel reads. A name is llama.cpp's
            (`l_out-3`), or one that refmodel knows (`model.layers.3`)
    rounds  as for `assert_logits_match`
    some    the trace need not have every tensor of the golden

    AssertionError; DumpError for a dump that cannot be read.
    """
    __tracebackhide__ = True
    from .dumps.read import read

    known = opened(golden)
    if isinstance(trace, str | Path):
        arrays = {name: numbers.read() for name, numbers in read(Path(trace)).arrays.items()}
    else:
        arrays = {name: numbers_of(x) for name, x in trace.items()}
    found = {tap_of(known, name): in_shape(known, tap_of(known, name), x) for name, x in arrays.items()}
    lacking = [name for name in known.arrays if name not in found]
    if lacking and not some:
        raise AssertionError(f"the trace lacks {listed(lacking)}, which {known.path.name} has; add them, or say some=True")
    compared(known, {name: found[name] for name in known.arrays if name in found}, rounds, "intermediates")


def opened(golden: "Golden | str | Path") -> "Golden":
    """A golden, opened if it is a path. GoldenError if it cannot be used."""
    from .compare.golden import Golden

    return Golden(Path(golden)) if isinstance(golden, str | Path) else golden


def numbers_of(x: Any) -> Any:
    """Numbers as an array; a tensor of torch is detached and brought to the host first."""
    import numpy as np

    detach = getattr(x, "detach", None)
    x = detach().cpu().float() if detach else x
    return np.asarray(x)


def tap_of(golden: "Golden", name: str) -> str:
    """The tensor of a golden that a name means. AssertionError if none is."""
    __tracebackhide__ = True
    from .compare.placing import candidates
    from .dumps.names import taken_apart

    if name in golden.arrays:
        return name
    blocks = 1 + max((int(tap.split("-")[1].split("@")[0].split("#")[0]) for tap in golden.arrays if "-" in tap), default=0)
    found = candidates(taken_apart(name), dict.fromkeys(golden.arrays), blocks)  # type: ignore[arg-type]
    if not found:
        raise AssertionError(f"{name}: {golden.path.name} has no such tensor; it has {listed(list(golden.arrays))}")
    return found[0]


def in_shape(golden: "Golden", tap: str, x: Any) -> Any:
    """An array as the golden has it: of all tokens of the call those that it kept, or [V] as the last one's row."""
    want, tokens = golden.arrays[tap].shape, golden.rows(tap)
    length = len(golden.calls[int(tap.partition("@")[2] or 0)])
    x = x.reshape(x.shape[1:]) if x.ndim == len(want) + 1 and x.shape[0] == 1 else x
    if tokens is not None and x.ndim == len(want) and len(x) == length:
        x = x[tokens]
    return x.reshape(want) if x.size == golden.arrays[tap].size else x


def compared(golden: "Golden", arrays: Mapping[str, Any], rounds: str, what: str) -> None:
    """AssertionError if one of the arrays is further from the golden's than rounding explains."""
    __tracebackhide__ = True
    from .compare.golden_tolerance import EXACT, ROUND, allowed, engine_named_or_own
    from .compare.rows import compare

    if rounds not in ("", EXACT, *ROUND):
        raise ValueError(f"rounds={rounds!r}: expected one of {', '.join(ROUND)}")
    engine, alike = engine_named_or_own(golden, rounds)
    rows = {}
    for name, x in arrays.items():
        x, theirs = last_rows(x, golden.arrays[name])
        rows[name] = compare(name, x, theirs), allowed(golden, name, engine, alike)
    wrong = [(row, limit) for row, limit in rows.values() if row.problem or not row.nmse <= limit]
    if wrong:
        raise AssertionError(message(golden, arrays, wrong, len(rows), what))


def last_rows(x: Any, theirs: Any) -> tuple[Any, Any]:
    """Both arrays; where one row was given for several, the golden's last one."""
    return (x.reshape(1, -1), theirs[-1:]) if theirs.ndim == 2 and x.size == theirs.shape[-1] else (x, theirs)


def message(golden: "Golden", arrays: Mapping[str, Any], wrong: "Sequence[tuple[Row, float]]", total: int, what: str) -> str:
    """What differs, as lines: the tensors in the golden's order, the tokens of logits, and the number that is furthest off."""
    engine = golden.said["engine"]
    lines = [
        f"{what} differ from {golden.path.name} ({golden.said['model']}, {engine['who']}): {len(wrong)} of {total} tensors",
        f"  {'tensor':<20} {'shape':>16} {'NMSE':>9} {'allowed':>9} {'max |a-b|':>10}",
    ]
    for row, limit in wrong[:MOST]:
        figures = row.problem or f"{row.nmse:9.1e} {limit:9.1e} {row.max_abs:10.1e}"
        lines.append(f"  {row.name:<20} {list(row.shape)!s:>16} {figures}")
    lines += ["  ..."] * (len(wrong) > MOST)
    first = wrong[0][0]
    if not first.problem:
        x, theirs = last_rows(arrays[first.name], golden.arrays[first.name])
        lines += furthest(first.name, x, theirs) + tokens_of(first.name, x, theirs)
    return "\n".join(lines)


def furthest(name: str, x: Any, theirs: Any) -> list[str]:
    """The number of an array that is furthest off, as a line."""
    import numpy as np

    at = np.unravel_index(int(np.abs(x.astype(np.float64) - theirs).argmax()), theirs.shape)
    return [f"  furthest: {name}[{', '.join(map(str, at))}] is {float(x[at]):.9g}, expected {float(theirs[at]):.9g}"]


def tokens_of(name: str, x: Any, theirs: Any) -> list[str]:
    """A line for each token of logits that differ: which token is likeliest, and how far the probabilities are apart."""
    from .compare.golden_check import is_logits
    from .compare.rows import compare_logits

    if not is_logits(name) or x.ndim != 2:
        return []
    rows: list[LogitRow] = sorted(compare_logits(x, theirs), key=lambda row: -row.nmse)[:MOST]
    head = f"  {'row':>5} {'NMSE':>9} {'KL':>9} {'likeliest':>10} {'expected':>9}"
    return [head, *(f"  {r.token:5} {r.nmse:9.1e} {r.kl:9.1e} {r.top1_ours:10} {r.top1_theirs:9}" for r in rows)]


def listed(names: Sequence[str]) -> str:
    """Some names, at most four."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
