"""What a reviewer should not have to check: imports point down, every kernel has its twin, one room for each thing."""

import ast
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "refmodel"

# A module imports from lower rows only (and from its own row where it is a folder).
ROWS = [
    {"cli"},
    {"show"},
    {"demo", "explain", "verify", "operate", "warmup", "trial"},
    {"against", "inspect", "chat", "chat_child"},
    {"memory", "timing"},
    {"diff", "surgery", "generate", "hf"},
    {"compat", "recover"},
    {"model", "llamacpp", "llamacpp_child", "hf_run", "hf_child", "tolerance"},
    {"draft"},
    {"arch"},
    {"call", "meanings", "stored"},
    {"numerics", "state", "trace", "names", "head"},
    {"plan"},
    {"weights", "route", "tokenizer", "sampling"},
    {"kernels", "ops"},
    {"quants"},
    {"gguf"},
    {"profile", "digest", "free"},
    {"threads"},
    {"kernel_cache"},
    {"files"},
    {"arrays", "errors"},
]
LEVEL = {name: level for level, row in enumerate(ROWS) for name in row}
MODULES = [
    path for path in sorted(PACKAGE.rglob("*.py")) if path.name not in ("__main__.py",) and path.parent != PACKAGE / "golden"
]


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """The absolute dotted names of refmodel that a file imports, as parts below the package; others as they are."""
    here = ("refmodel", *path.relative_to(PACKAGE).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else ()
            base += tuple((node.module or "").split(".")) if node.module else ()
            yield base
            yield from ((*base, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", [p for p in MODULES if p != PACKAGE / "__init__.py"], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    mine = LEVEL[room(path)]
    rooms = {parts[1] for parts in imported(path) if parts[0] == "refmodel" and len(parts) > 1 and parts[1] in LEVEL}
    assert not [name for name in rooms if LEVEL[name] < mine], f"{path} imports from a higher row"


def test_every_module_has_a_row():
    assert {room(path) for path in MODULES} - {"__init__"} == set(LEVEL) - {"kernels"}


@pytest.mark.parametrize("path", sorted((ROOT / "kernels").glob("*.py")), ids=lambda p: p.name)
def test_kernels_import_numpy_numba_and_llvmlite_alone(path):
    allowed = {"functools", "operator", "numpy", "numba", "llvmlite", "refmodel"}
    for parts in imported(PACKAGE / "kernels" / path.name):
        assert parts[0] in allowed
        assert parts[0] != "refmodel" or parts[1] == "kernels"


@pytest.mark.parametrize("module", ["activation", "attention", "deltanet", "norm", "rope"])
def test_every_kernel_has_a_twin_of_the_same_name_and_parameters(module):
    kernels, ops = import_module(f"refmodel.kernels.{module}"), import_module(f"refmodel.ops.{module}")
    public = {
        name: getattr(f, "py_func", f)
        for name, f in vars(kernels).items()
        if getattr(f, "__module__", "") == kernels.__name__ and not name.startswith("_")
    }
    assert public
    for name, kernel in public.items():
        assert list(inspect.signature(kernel).parameters) == list(inspect.signature(getattr(ops, name)).parameters)


@pytest.mark.parametrize("module", ["ggml", "ggml_attention", "ggml_floats"])
def test_every_kernel_of_llama_cpps_arithmetic_has_a_definition_of_its_name(module):
    kernels, ops = import_module(f"refmodel.kernels.{module}"), import_module(f"refmodel.ops.{module}")
    own = {name for name, f in vars(kernels).items() if hasattr(f, "py_func") and f.py_func.__module__ == kernels.__name__}
    assert {name for name in own if not name.startswith("_")} <= set(vars(ops))


def test_an_architecture_imports_no_other_architecture():
    names = {path.stem for path in (PACKAGE / "arch").glob("*.py")} - {"__init__", "keys", "nextn", "fused"}
    for name in names:
        assert not [
            p for p in imported(PACKAGE / "arch" / f"{name}.py") if p[:2] == ("refmodel", "arch") and p[-1] in names - {name}
        ]


def test_only_numerics_imports_kernels():
    users = {room(path) for path in MODULES if any(parts[:2] == ("refmodel", "kernels") for parts in imported(path))}
    assert users - {"kernels"} == {"numerics"}


def test_sources_name_no_place_of_one_machine():
    words = ["/" + "home/", "/" + "root/", "/" + "work/", "/" + "opt/"]
    texts = [
        p for p in ROOT.rglob("*") if p.suffix in {".py", ".md", ".toml", ".txt"} and not set(p.parts) & {".venv", "build", ".git"}
    ]
    assert not [(p, word) for p in texts for word in words if word in p.read_text()]
