"""The measures of the house: `python tests/measures.py` prints a line for each, with its target.

Lines of an architecture are code: no blank line, comment, docstring or import. Files to open are those of refmodel whose functions
run for one token in one block, found by a profile hook; what Numba has compiled is not seen, only the function that starts it.
"""

import ast
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import test_house as house
import tiny

import refmodel
from refmodel.arch import ARCHITECTURES


def code(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of code of a file, without their indentation, each with the function that it is in."""
    text = path.read_text()
    lines, skipped, owner = text.splitlines(), set[int](), dict[int, str]()
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if docstring or isinstance(node, ast.Import | ast.ImportFrom):
            skipped |= set(range(node.lineno, node.end_lineno + 1))
        if isinstance(node, ast.FunctionDef):
            steps = any(arg.arg == "c" for arg in node.args.args)
            owner |= dict.fromkeys(range(node.lineno, node.end_lineno + 1), "step" if steps else "function")
    for number, line in enumerate(lines, 1):
        words = " ".join(line.split("  #")[0].split())
        if words and not words.startswith("#") and number not in skipped:
            yield words, owner.get(number, "")


def shared(steps: bool) -> str:
    """How many lines of all architectures are in another one too: of the whole files, or without the forward passes."""
    files = {name: list(code(house.PACKAGE / "arch" / f"{name}.py")) for name in ARCHITECTURES}
    counted = {name: [line for line, owner in lines if steps or owner != "step"] for name, lines in files.items()}
    alike = sum(any(line in counted[other] for other in counted if other != name) for name in counted for line in counted[name])
    total = sum(map(len, counted.values()))
    return f"{100 * alike / total:.0f} % ({alike} of {total})"


def longest_file() -> str:
    path = max(house.MODULES, key=lambda p: len(p.read_text().splitlines()))
    return f"{len(path.read_text().splitlines())} ({path.relative_to(house.ROOT)})"


def longest_function() -> str:
    found = [(f.end_lineno - f.lineno + 1, f.name, path) for path in house.MODULES for f in house.functions(path)]
    length, name, path = max(found)
    return f"{length} ({path.relative_to(house.ROOT)}, {name})"


def broken_rows() -> str:
    wrong = sorted({house.dotted(path)[0] for path in house.ROOM_MODULES if house.imports_upwards(path)})
    return f"{len(house.ROWS)} rows; broken by {', '.join(wrong) or 'none'}"


def circles() -> str:
    packages = sorted(name for name in house.LEVEL if (house.PACKAGE / name).is_dir())
    return ", ".join(name for name in packages if house.circle(name)) or "none"


def opened(kind: str) -> str:
    """The files for a block of that kind, of a small qwen35 under numerics oracle."""
    with tempfile.TemporaryDirectory() as folder:
        model = refmodel.load(tiny.build(Path(folder) / "m.gguf", "qwen35", seed=1))
        session = model.session([model.kinds.index(kind)], "oracle")
        session.forward([1])  # what happens once, at the first token
        files, inside = set[str](), [False]

        def seen(frame, event, arg):
            name = frame.f_code.co_filename
            if event == "call" and name.startswith(str(house.PACKAGE)) and inside[0]:
                files.add(str(Path(name).relative_to(house.PACKAGE)))

        block = model.arch.block

        def watched(*args):
            inside[0] = True
            try:
                return block(*args)
            finally:
                inside[0] = False

        model.arch.block = watched
        sys.setprofile(seen)
        try:
            session.forward([2])
        finally:
            sys.setprofile(None)
            model.arch.block = block
    return f"{len(files)} ({', '.join(sorted(files))})"


MEASURES = {
    "lines of an architecture that another one has too": (lambda: shared(steps=True), "40 %"),
    "the same without the forward passes": (lambda: shared(steps=False), "-"),
    "longest file": (longest_file, house.LINES_OF_A_FILE),
    "longest function": (longest_function, house.LINES_OF_A_FUNCTION),
    "import rows, packages that break them": (broken_rows, "12 rows; none"),
    "packages with a circle": (circles, "none"),
    "files to open for a block of the delta rule": (lambda: opened("delta"), 8),
    "files to open for a block of attention": (lambda: opened("attention"), 8),
}

if __name__ == "__main__":
    for name, (measure, target) in MEASURES.items():
        print(f"{name}: {measure()}; target {target}")
