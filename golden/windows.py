"""Which blocks of the trained model may be repeated? The held-out loss under every route of one window, as a picture.

    python golden/windows.py [--model golden/models/austen-Q8_0.gguf]

Writes golden/austen/windows.json and windows.png: nats a token over held-out text for `blocks:i,j`, all 0 <= i < j <= n, beside the
model's own order. A window of the whole model is in it, too.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "train"))

from measure import AUSTEN, held_out, nll  # noqa: E402
from rich.progress import track  # noqa: E402

import refmodel  # noqa: E402


def losses(model: refmodel.Model, rows: list[list[int]]) -> dict[str, float]:
    """Nats a token by route; "" is the model's own order."""
    n = model.n_layer
    routes = ["", *(f"blocks:{i},{j}" for i in range(n) for j in range(i + 1, n + 1))]
    return {route: round(nll(model, rows, route or None), 4) for route in track(routes, "windows")}


def draw(found: dict[str, float], kinds: list[str], path: Path) -> None:
    """A triangle: the first repeated block down, the last one across, coloured by how much the loss grew."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    n = len(kinds)
    grown = np.full((n, n), np.nan)
    for route, loss in found.items():
        if route:
            i, j = map(int, route.removeprefix("blocks:").split(","))
            grown[i, j - 1] = loss - found[""]
    figure, axes = plt.subplots(figsize=(7.2, 5.6), layout="constrained")
    image = axes.imshow(grown, cmap="magma_r", vmin=0, vmax=np.nanquantile(grown, 0.95))
    for i, last in np.argwhere(~np.isnan(grown)):
        dark = grown[i, last] > 0.55 * image.norm.vmax
        axes.text(last, i, f"{grown[i, last]:+.2f}", ha="center", va="center", fontsize=7, color="white" if dark else "black")
    labels = [f"{i}{'*' if kind == 'attention' else ''}" for i, kind in enumerate(kinds)]
    axes.set_xticks(range(n), labels)
    axes.set_yticks(range(n), labels)
    axes.set(xlabel="last repeated block (* full attention, the others DeltaNet)", ylabel="first repeated block")
    axes.set_title(f"nats a token that repeating a window costs (its own order: {found['']:.2f})", fontsize=10)
    figure.colorbar(image, label="nats more, clipped")
    figure.savefig(path, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE / "models" / "austen-Q8_0.gguf")
    arguments = parser.parse_args()
    model = refmodel.load(arguments.model)
    found = losses(model, held_out(model))
    (AUSTEN / "windows.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found, model.kinds, AUSTEN / "windows.png")
    best = min((route for route in found if route), key=found.__getitem__)
    print(f"own order {found['']} nats; the best window is {best} with {found[best]}")
