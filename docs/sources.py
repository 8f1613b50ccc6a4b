"""Write the table of llama.cpp's functions in docs/reading.md from the docstrings' Source lines: `python docs/sources.py`."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reading.md"
BEGIN, END = "<!-- table: made by docs/sources.py -->", "<!-- end of the table -->"
NAME = re.compile(
    r"(?<![\w.])((?:ggml_(?!product|attention)|build_|llm_tokenizer_|load_|dequantize_row_|quantize_row_|create_tensor_)\w+"
    r"|tinyBLAS_\w+|tinygemm_\w+|GGML_\w+|llama_\w+::[\w:]+|tiled_run_microtile|forward_mul_mat\w*|op_\w+|byte_to_token)"
)


def sources() -> dict[str, list[str]]:
    """llama.cpp's function -> where a docstring here says that it comes from it: `file: function`."""
    found = dict[str, list[str]]()
    for path in sorted((ROOT / "refmodel").rglob("*.py")):
        place = path.relative_to(ROOT / "refmodel").as_posix()
        if place.startswith(("kernels/", "golden/")):
            continue
        tree = ast.parse(path.read_text())
        for node in [tree, *ast.walk(tree)]:
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                where = place if isinstance(node, ast.Module) else f"{place}: {node.name}"
                for name in NAME.findall(text.partition("Source:")[2]):
                    if where not in found.setdefault(name, []):
                        found[name].append(where)
    return found


def table() -> str:
    """The rows, by llama.cpp's name."""
    rows = ["| llama.cpp | here, below `refmodel/` |", "|---|---|"]
    for name, places in sorted(sources().items(), key=lambda item: item[0].lower()):
        rows.append(f"| `{name}` | {', '.join(f'`{place}`' for place in places)} |")
    return "\n".join(rows)


def page_with(rows: str) -> str:
    """The page, with these rows."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{before}{BEGIN}\n\n{rows}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page_with(table()))
