"""What a recipe next to a folder's weights says of its route: mergekit writes the one that it followed."""

import re
from pathlib import Path

from ..hf.folder import Folder
from ..machine.files import text_of
from .recover import Claim, attempt

MERGEKIT = "mergekit_config.yml"
# in a line, or in three
RANGE = re.compile(r"layer_range:\s*(?:\[\s*(\d{1,6})\s*,\s*(\d{1,6})\s*\]|-\s*(\d{1,6})\s*-\s*(\d{1,6}))")
PASSTHROUGH = re.compile(r"^merge_method:\s*[\"']?passthrough\b", re.MULTILINE)
MODEL = re.compile(r"\bmodel:\s*(\S+)")


def recipe_claims(copy: Folder, source: Path, n_layer: int) -> list[Claim]:
    """The claim of mergekit's recipe: slices of one model, one after the other. Empty if there is no such recipe.

    source   the path of the source: a recipe that lies there too tells how the source was made
    n_layer  layers of the source

    Source: mergekit 0.1.5, passthrough.
    """
    text = recipe(copy.path)
    if not PASSTHROUGH.search(text) or text == recipe(source) or len(set(MODEL.findall(text))) > 1:
        return []
    ranges = [(int(a or c), int(b or d)) for a, b, c, d in RANGE.findall(text)]
    words = " ".join(f"[{a}, {b}]" for a, b in ranges)
    fits = ranges and all(b <= n_layer for _, b in ranges)
    layers = [layer for a, b in ranges for layer in range(a, b)] if fits else []
    return [Claim(MERGEKIT, words, {"that is": attempt(layers, n_layer) if layers else f"no route of {n_layer} blocks"})]


def recipe(folder: Path) -> str:
    """The text of the recipe in a folder; empty if there is none."""
    path = folder / MERGEKIT
    return text_of(path) if path.is_file() else ""
