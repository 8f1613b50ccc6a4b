"""Draw docs/numerics.png: per-block NMSE to llama.cpp of two numerics, each with the right and with a slightly wrong RoPE base.

Needs the extras [plots] and [llamacpp]: `python docs/numerics_plot.py SmolLM2-135M-Instruct.Q4_1.gguf`
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt

import refmodel
from refmodel.compare.other_side import compare, numerics_against
from refmodel.llamacpp.profile import DEFAULT
from refmodel.numerics import numerics_of
from refmodel.surgery.live import live

TEXT = "The keeper counted the steps as he climbed them, and stood for a while beside the great lamp before he wrote the letter."
FLOOR = 1e-12  # where a difference of nothing is drawn
WRONG = 1.01  # factor of the RoPE base


def main(path: str) -> None:
    model = refmodel.load(path)
    right = model.hp
    tokens = list(map(int, model.tokenizer.encode(TEXT)))
    with tempfile.TemporaryDirectory() as folder:
        other = live(model, model.route(), [tokens], DEFAULT, None, False, Path(folder))
        figure, axes = plt.subplots(figsize=(9, 4.2))
        for numerics, color in (("reference", "tab:orange"), ("llamacpp", "tab:blue")):
            for factor, line in ((1.0, {"linewidth": 6, "alpha": 0.35}), (WRONG, {"linestyle": "--", "marker": "."})):
                broken = model.with_hparams(rope=replace(right.rope, base=right.rope.base * factor))
                policy = numerics_against(numerics_of(numerics), other)
                rows = compare(broken, model.route(), other, policy, "block", lambda name: None).rows
                figures = [max(row.nmse, FLOOR) for row in rows if row.name.startswith("l_out")]
                label = numerics if factor == 1 else f"{numerics}, RoPE base off by {factor - 1:.0%}"
                axes.semilogy(figures, color=color, label=label, **line)
    axes.axhline(FLOOR, color="gray", linewidth=0.5)
    axes.text(0, FLOOR * 1.5, "no bit differs", fontsize=8, color="gray")
    axes.set(xlabel="block", ylabel="NMSE to llama.cpp", title=f"{Path(path).name}, {len(tokens)} tokens, blocks anchored")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.12), fontsize=8)
    figure.tight_layout()
    figure.savefig(Path(__file__).with_name("numerics.png"), dpi=110)


if __name__ == "__main__":
    main(sys.argv[1])
