"""What a reviewer should not have to check: imports point down, nothing goes in circles, every kernel has its twin."""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "refmodel"

# A module imports from its own package and from lower rows, never from another package of its own row.
ROWS = [
    {"cli", "testing", "lm_eval"},
    {"commands"},
    {"report", "laws"},
    {"serve"},
    {"surgery", "faults", "sweep"},
    {"compare", "text", "info", "speed"},
    {"model"},
    {"numerics", "dumps", "hf", "torch"},
    {"arch", "llamacpp"},
    {"forward", "tokenizer"},
    {"ops", "kernels", "gguf"},
    {"quants", "machine", "frames"},
    {"arrays", "errors", "notebook"},
]
LEVEL = {name: level for level, row in enumerate(ROWS) for name in row}
SKIPPED = {PACKAGE / "golden", PACKAGE / "kernels"}  # links to top-level folders
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__main__.py" and not SKIPPED & set(path.parents)]
KERNELS = sorted((ROOT / "kernels").rglob("*.py"))
KERNEL_ROWS = [{"packed", "floats"}, {"types"}, {"language"}]  # the operations themselves are above these
ROOM_MODULES = [path for path in MODULES if path != PACKAGE / "__init__.py"]

LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 300, 50
LINES_OF_AN_ARCHITECTURE = 200
OTHER_PROGRAMS = {("compare", "probes"), ("hf",), ("llamacpp", "rehearsal"), ("model", "exports")}
STEP = 25  # lines of a step of an architecture, and of an operation
# What an op may import beside NumPy, math and arrays, and why
OPS_MAY_IMPORT = {
    "dataclasses": "records of what an operation needs to know, as Rope",
    "collections": "types of functions",
    "functools": "tables that are made once",
    "gguf": "tensor types by name",
    "ctypes": "the C library's expf, logf, sinf and cosf, which llama.cpp calls",
    "quants": "a packed matrix is decoded where it is multiplied",
}


@cache
def parsed(path: Path) -> ast.Module:
    """Read once, for all tests."""
    return ast.parse(path.read_text())


def dotted(path: Path) -> tuple[str, ...]:
    """A module's name below refmodel; a package's is that of its folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported(path: Path, below: Path = PACKAGE, name: str = "refmodel") -> Iterator[tuple[str, ...]]:
    """The absolute dotted names that a file imports, as parts."""
    here = (name, *path.relative_to(below).with_suffix("").parts)
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else ()
            base += tuple((node.module or "").split(".")) if node.module else ()
            yield base
            yield from ((*base, alias.name) for alias in node.names)


def rooms(path: Path) -> set[str]:
    """The packages of refmodel that a file imports from."""
    return {parts[1] for parts in imported(path) if parts[0] == "refmodel" and len(parts) > 1 and parts[1] in LEVEL}


def imports_upwards(path: Path) -> list[str]:
    """The packages that a file imports from and that are not in a lower row."""
    mine = dotted(path)[0]
    return [name for name in rooms(path) if name != mine and LEVEL[name] <= LEVEL[mine]]


@pytest.mark.parametrize("path", ROOM_MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    assert not imports_upwards(path)


def test_every_module_has_a_row():
    assert {dotted(path)[0] for path in ROOM_MODULES} == set(LEVEL) - {"kernels"}


def circle(package: str) -> list[tuple[str, ...]]:
    """Modules of a package that import each other in a circle, if there are any."""
    folder = PACKAGE / package
    known = {dotted(path) for path in folder.rglob("*.py")}
    graph = {}
    for path in folder.rglob("*.py"):
        names = [parts[1:] for parts in imported(path) if parts[0] == "refmodel"]
        homes = {next((parts[:n] for n in range(len(parts), 0, -1) if parts[:n] in known), None) for parts in names}
        graph[dotted(path)] = homes - {None, dotted(path), (package,) if path.name != "__init__.py" else None}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("package", sorted(name for name in LEVEL if (PACKAGE / name).is_dir()))
def test_no_package_has_a_circle(package):
    assert not circle(package)


@pytest.mark.parametrize("path", KERNELS, ids=lambda p: p.name)
def test_kernels_import_numpy_numba_and_llvmlite_only(path):
    allowed = {"ctypes", "functools", "gc", "operator", "typing", "numpy", "numba", "llvmlite", "refmodel"}
    for parts in imported(path, ROOT, "refmodel"):
        assert parts[0] in allowed
        assert parts[0] != "refmodel" or parts[1] == "kernels"


@pytest.mark.parametrize("path", KERNELS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_kernels_import_from_lower_rows(path):
    level = {name: k for k, row in enumerate(KERNEL_ROWS) for name in row}
    room = path.parent.name
    for _, _, other in {parts[:3] for parts in imported(path, ROOT, "refmodel") if parts[0] == "refmodel" and len(parts) > 2}:
        assert other == room or level.get(other, -1) > level.get(room, -1) or room == "kernels", other


@pytest.mark.parametrize("path", sorted((PACKAGE / "ops").glob("*.py")), ids=lambda p: p.name)
def test_ops_import_numpy_and_math_only(path):
    for parts in imported(path):
        name = parts[1] if parts[0] == "refmodel" and len(parts) > 1 else parts[0]
        assert name in {"numpy", "math", "arrays", "ops", "refmodel", *OPS_MAY_IMPORT}, f"{path.name} imports {'.'.join(parts)}"


def signatures(module: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Every public kernel of a module: its name, its parameters, and those of its twin in ops."""
    kernels, ops = import_module(f"refmodel.kernels.{module}"), import_module(f"refmodel.ops.{module}")
    for name, value in vars(kernels).items():
        function = getattr(value, "py_func", value)
        if not name.startswith("_") and inspect.isfunction(function) and function.__module__ == kernels.__name__:
            yield name, *(list(inspect.signature(f).parameters) for f in (function, getattr(ops, name)))


@pytest.mark.parametrize("module", ["activation", "attention", "deltanet", "norm", "rope"])
def test_every_kernel_has_a_twin_of_the_same_name_and_parameters(module):
    found = list(signatures(module))
    assert found
    for name, kernel, op in found:
        assert kernel == op, name


@pytest.mark.parametrize("module", ["ggml", "ggml_attention", "ggml_floats"])
def test_every_kernel_of_llama_cpps_arithmetic_has_a_definition_of_its_name(module):
    kernels, ops = import_module(f"refmodel.kernels.{module}"), import_module(f"refmodel.ops.{module}")
    functions = {name: getattr(f, "py_func", f) for name, f in vars(kernels).items()}
    own = {name for name, f in functions.items() if inspect.isfunction(f) and f.__module__ == kernels.__name__}
    assert {name for name in own if not name.startswith("_")} <= {*vars(ops), "product"}  # in any of the orders of ops


def test_an_architecture_imports_no_other_architecture():
    from refmodel.arch import ARCHITECTURES

    for name in ARCHITECTURES:
        found = {p[-1] for p in imported(PACKAGE / "arch" / f"{name}.py") if p[:2] == ("refmodel", "arch")}
        assert not found & set(ARCHITECTURES) - {name}


def test_only_numerics_imports_kernels():
    assert {dotted(path)[0] for path in MODULES if path.name != "__init__.py" and "kernels" in rooms(path)} == {"numerics"}


def test_every_function_of_numerics_numpy_is_an_op():
    """And oracle's but its product, which a kernel computes in float64."""
    from refmodel.numerics import NUMPY, ORACLE

    def home(function):
        inner = getattr(function, "func", function)
        return inner.__module__, *(home(arg)[0] for arg in getattr(function, "args", ()))

    for num, kernels in ((NUMPY, set()), (ORACLE, {"linear", "experts"})):
        named = {field.name: getattr(num, field.name) for field in fields(num)}
        found = {name: home(f) for name, f in named.items() if callable(f) and not isinstance(f, type)}
        assert len(found) > 15
        assert {name for name, homes in found.items() if not all(h.startswith("refmodel.ops.") for h in homes)} == kernels


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_fits_in_a_head(path):
    assert len(path.read_text().splitlines()) <= LINES_OF_A_FILE
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions(path) if f.end_lineno - f.lineno + 1 > LINES_OF_A_FUNCTION}
    assert not long


@pytest.mark.parametrize("path", sorted((PACKAGE / "arch").glob("*.py")), ids=lambda p: p.name)
def test_a_step_of_an_architecture_has_at_most_25_lines(path):
    assert not {f.name: f.end_lineno - f.lineno + 1 for f in functions(path) if f.end_lineno - f.lineno + 1 > STEP}


def test_an_architecture_fits_in_a_head():
    from refmodel.arch import ARCHITECTURES

    lengths = {name: len((PACKAGE / "arch" / f"{name}.py").read_text().splitlines()) for name in ARCHITECTURES}
    assert not {name: n for name, n in lengths.items() if n > LINES_OF_AN_ARCHITECTURE}


def test_an_architecture_is_named_in_one_place_outside_of_its_file():
    """Its line in arch/__init__.py. Words of other files may cite an architecture; code that chooses by its name may not.

    The tokenizer's `llama` and `qwen35` are kinds of vocabularies. compare/probes.py chooses those that have all operations.
    hf/ holds tables of other programs: transformers' classes, and what their model types and llama.cpp derive from a place;
    model/exports.py is one of what Ollama's converter writes otherwise. llamacpp/rehearsal.py runs a file of golden/.
    """
    from refmodel.arch import ARCHITECTURES

    found = []
    for path in ROOM_MODULES:
        if dotted(path)[0] not in ("arch", "tokenizer") and not {dotted(path)[:1], dotted(path)[:2]} & OTHER_PROGRAMS:
            texts = [n.value for n in ast.walk(parsed(path)) if isinstance(n, ast.Constant)]
            found += [f"{path.relative_to(PACKAGE)}: {text}" for text in texts if text in ARCHITECTURES]
    assert not found


@pytest.mark.parametrize("path", [*sorted((PACKAGE / "ops").glob("*.py")), *KERNELS], ids=lambda p: f"{p.parent.name}/{p.name}")
def test_ops_and_kernels_have_no_default_values(path):
    assert not [f.name for f in functions(path) if f.args.defaults or any(f.args.kw_defaults)]


def test_sources_name_no_place_of_one_machine():
    words = ["/" + "home/", "/" + "root/", "/" + "work/", "/" + "opt/"]
    texts = [
        p for p in ROOT.rglob("*") if p.suffix in {".py", ".md", ".toml", ".txt"} and not set(p.parts) & {".venv", "build", ".git"}
    ]
    assert not [(p, word) for p in texts for word in words if word in p.read_text()]


# One gate each for numbers from files, texts to the terminal, and calls into libraries. What may do without one, and why.
PRINT_ELSEWHERE = {
    "surgery/hf_child.py": "a child's answers to its parent",
    "llamacpp/taker.py": "a child's answers to its parent",
    "llamacpp/describe.py": "a child's answers to its parent",
    "text/template_child.py": "a child's answers to its parent",
    "cli.py": "a traceback of a fault of ours",
    "report/console.py": "the gate",
}
PARSE_ELSEWHERE = {
    "machine/boundary.py": "the gate",
    "text/chat.py": "what our own child process answers",
    "surgery/hf_run.py": "what our own child process answers",
    "surgery/hf_child.py": "what our own parent process asks; transformers reads the folder",
    "text/template_child.py": "what our own parent process asks; jinja2 is why it is a process of its own",
    "llamacpp/taker.py": "what our own parent process asks",
    "llamacpp/describe.py": "what our own parent process asks",
    "llamacpp/asking.py": "what our own child process answers",
    "llamacpp/bindings.py": "what our own child process answers; every error is caught there",
    "llamacpp/library.py": "what our own child process answered",
    "llamacpp/child.py": "what our own parent process asks",
    "tokenizer/__init__.py": "its engines are Bpe and Spm, which are held to it",
    "llamacpp/rehearsal.py": "a file of golden/",
    "hf/spelling.py": "a file of the package",
    "compare/probes.py": "a file of the cache; every error is caught there",
    "compare/other_side.py": "its caller turns every error into a TraceError",
}
PARSERS = {
    "json.loads",
    "json.load",
    "tomllib.loads",
    "tomllib.load",
    "zipfile.ZipFile",
    "np.load",
    "safe_open",
    "np.lib.format.read_magic",
}
PARSERS |= {"SentencePieceProcessor", "tokenizers.Tokenizer", "tokenizers.Tokenizer.from_str", "models.BPE"}
PARSERS |= {"self.engine.encode", "engine.LoadFromSerializedProto", "self._file.get_tensor"}
RAW_NUMBERS = {"gguf/metadata.py", "gguf/writer.py", "surgery/gguf.py", "surgery/verify/gguf.py", "surgery/verify/meaning_gguf.py"}
RAW_NUMBERS |= {"model/exports.py", "model/draft_file.py", "info/checks.py", "hf/vocabulary.py"}  # what is only compared, or copied
READ_ELSEWHERE = {
    "machine",
    "hf/spelling.py",
    "compare/probes.py",
    "llamacpp/nodes.py",
}  # the gate; files of the package and the cache


def spelled(node: ast.expr) -> str:
    """What is called, as it is written: json.loads, self.engine.encode; empty for anything longer."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *parts[::-1]]) if isinstance(node, ast.Name) else ""


def calls_outside(path: Path, gates: set[str]) -> Iterator[tuple[str, ast.Call]]:
    """The calls in a file that are not within a `with` of one of these functions, each with what is called."""

    def walk(node: ast.AST) -> Iterator[tuple[str, ast.Call]]:
        if isinstance(node, ast.With):
            items = [item.context_expr for item in node.items]
            if any(isinstance(item, ast.Call) and spelled(item.func) in gates for item in items):
                return
        if isinstance(node, ast.Call):
            yield spelled(node.func), node
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    return walk(parsed(path))


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_every_text_passes_the_consoles():
    """Nothing else prints, and no text is markup: a name in a file could be any of both."""
    found = []
    for path in MODULES:
        text = path.read_text()
        called = {name for name, _ in calls_outside(path, set())}
        loose = called & {"print", "sys.stdout.write", "sys.stderr.write", "Console", "typer.echo", "traceback.print_exc"}
        found += [(place(path), name) for name in loose if place(path) not in PRINT_ELSEWHERE]
        found += [(place(path), word) for word in ("from_markup", "rich.markup", "markup=True", "[/]", "[bold]") if word in text]
    assert not found


def test_every_parser_is_behind_the_boundary():
    found = []
    for path in MODULES:
        if place(path) not in PARSE_ELSEWHERE:
            loose = [(name, call) for name, call in calls_outside(path, {"handed"}) if name in PARSERS]
            writes = {call for _, call in loose if len(call.args) > 1 and ast.unparse(call.args[1]) == "'w'"}
            found += [
                (place(path), call.lineno, name) for name, call in loose if (call.args or call.keywords) and call not in writes
            ]
    assert not found


def test_every_number_of_a_file_has_a_range():
    """The look-ups of Metadata check it; what takes a value past them only compares or copies it."""
    import refmodel.gguf.metadata as metadata

    for name in ("int", "ints", "per_block", "float"):
        assert "most" in inspect.signature(getattr(metadata.Metadata, name)).parameters
    found = []
    for path in MODULES:
        if place(path) in RAW_NUMBERS:
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Subscript) and spelled(node.value).endswith(("md", "file.metadata")):
                found.append((place(path), node.lineno))
            if isinstance(node, ast.Attribute) and node.attr == "raw" and "fields" in spelled(node):
                found.append((place(path), node.lineno))
    assert not found


def test_every_file_of_a_stranger_is_read_by_one_function():
    """`contents`, `text_of` and `mapped` refuse what is no regular file: a pipe would be waited for."""
    found = []
    for path in MODULES:
        if not {place(path), place(path).split("/")[0]} & READ_ELSEWHERE:
            called = {name.rpartition(".")[2] for name, _ in calls_outside(path, set()) if name != "logit_text.read_text"}
            found += [(place(path), name) for name in called & {"read_text", "read_bytes"}]
    assert not found


def test_the_tests_of_gates_find_what_goes_around(tmp_path):
    (tmp_path / "a.py").write_text("import json\nwith handed('x'):\n    json.loads('1')\njson.load('2')\nprint(3)\n")
    assert [name for name, _ in calls_outside(tmp_path / "a.py", {"handed"})] == ["json.load", "print"]
