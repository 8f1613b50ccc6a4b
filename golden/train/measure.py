"""What the trained model can do, measured with refmodel alone, and in which magnitudes it computes.

    python golden/train/measure.py MODEL.gguf [--dictionary /usr/share/dict/words] [--curve OUT/curve.json]

Writes golden/austen/report.json: the loss on held-out text, the share of words in sampled text that a dictionary has, the share of
held-out sums that are right, and quantiles of what tests/strategies.py draws (gates, decays, norms, activations). With the
training's own losses it also draws curve.png.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
AUSTEN = HERE.parent / "austen"
sys.path.insert(0, str(HERE))

import exercises  # noqa: E402

import refmodel  # noqa: E402
from refmodel.arrays import F  # noqa: E402
from refmodel.text.generate import generate  # noqa: E402
from refmodel.text.sampling import Sampling  # noqa: E402

WINDOW = 512
QUANTILES = [0, 0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1]


def held_out(model: refmodel.Model) -> list[list[int]]:
    """The held-out excerpt in rows of WINDOW + 1 tokens."""
    tokens = model.tokenizer.encode((AUSTEN / "held-out.txt").read_text(), add_special=False, parse_special=False)
    return [tokens[i : i + WINDOW + 1] for i in range(0, len(tokens) - WINDOW, WINDOW)]


def nll(model: refmodel.Model, rows: list[list[int]], route: str | None = None, numerics: str = "fast") -> float:
    """Nats a token over the rows."""
    total = 0.0
    for row in rows:
        logits = model.forward(row[:-1], route, numerics).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        total += float((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), row[1:]]).mean())
    return total / len(rows)


def written(model: refmodel.Model, prompt: str, count: int, how: Sampling, route: str | None = None) -> str:
    """The text behind a prompt at the start of a document."""
    tokens = [0, *model.tokenizer.encode(prompt, add_special=False, parse_special=False)]
    return model.tokenizer.decode(list(generate(model.session(route, "fast"), tokens, count, how)))


def share_of_words(text: str, dictionary: set[str]) -> float:
    """Of the words in the text, those that the dictionary has as they stand or in lower case; possessives count as their stem."""
    words = [word.removesuffix("'s") for word in re.findall(r"[A-Za-z]+(?:'[A-Za-z]+)?", text)]
    return sum(word in dictionary or word.lower() in dictionary for word in words) / len(words)


def sum_is_right(model: refmodel.Model, a: int, b: int) -> bool:
    answer = written(model, f"{a} + {b} =", 5, Sampling(0.0))
    return answer.partition("\n")[0].strip() == str(a + b)


class Seen(dict[str, list[F]]):
    """A tapper that keeps every intermediate, by its name without the block."""

    def __call__(self, name: str, x: F) -> F:
        self.setdefault(re.sub(r"-\d+", "", name), []).append(np.array(x, np.float64))
        return x

    def wants(self, name: str) -> bool:
        return False


def magnitudes(model: refmodel.Model, row: list[int]) -> dict[str, list[float]]:
    """Quantiles, over blocks, tokens and channels, of what a pass over held-out text computes, and of weights that are vectors."""
    seen = Seen()
    model.session(numerics="reference", tapper=seen).forward(row[:256])
    computed = {
        "log decay of a token": "gate",
        "beta": "beta_sigmoid",
        "attention gate": "gate_sigmoid",
        "value": "v_conv_predelta",
        "state": "new_state",
        "logit": "result_output",
    }
    found = {what: np.concatenate([x.ravel() for x in seen[name]]) for what, name in computed.items()}
    for name in ("attn_norm", "final_output", "ffn_swiglu", "l_out"):
        found[f"channel of {name}"] = np.concatenate([channels(x) for x in seen[name]])
    for name in ("attn_norm.weight", "ssm_norm.weight", "attn_q_norm.weight", "ssm_a", "ssm_dt.bias"):
        weights = [w.dense(np.dtype(np.float64)) for key, w in model.weights.items() if key.endswith(name)]
        found[name] = np.concatenate(weights)
    return {name: [float(f"{q:.4g}") for q in np.quantile(x, QUANTILES)] for name, x in found.items()}


def channels(x: F) -> F:
    """The root mean square of each channel of x [T, C] over tokens, by that of all channels."""
    squares = (x**2).mean(axis=0)
    return np.sqrt(squares / squares.mean())


def draw(curve: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    loss = np.array(curve["loss"])
    smooth = np.convolve(loss, np.ones(20) / 20, "valid")
    axes.plot(np.arange(len(smooth)) + 20, smooth, label="novels and exercises, learned from", color="#8aa4c8", lw=1)
    axes.plot(*zip(*curve["held_out"]), label="held-out chapters", color="#1f3a68", marker="o", ms=3)
    axes.axhline(curve["unigram"], label="unigram model on those", color="#b04a4a", ls="--", lw=1)
    axes.set(xlabel="step of 2,048 tokens", ylabel="nats a token", ylim=(0, 7))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dictionary", type=Path, default=Path("/usr/share/dict/words"), help="one word a line")
    parser.add_argument("--curve", type=Path)
    arguments = parser.parse_args()
    model = refmodel.load(arguments.model)
    rows = held_out(model)
    text = "She was" + written(model, "She was", 500, Sampling(temperature=0.8, top_k=40, top_p=0.95, seed=1))
    right = [case for case in exercises.held_out_sums() if sum_is_right(model, *case)]
    facts: dict[str, Any] = {
        "nats": round(nll(model, rows), 4),
        "tokens": len(rows) * WINDOW,
        "words_in_dictionary": round(share_of_words(text, set(arguments.dictionary.read_text().split())), 4),
        "sums_right": f"{len(right)} of {exercises.HELD_OUT_CASES}",
        "quantiles": QUANTILES,
        "magnitudes": magnitudes(model, rows[0]),
        "sampled": text,
    }
    if arguments.curve:
        curve = json.loads(arguments.curve.read_text())
        draw(curve, AUSTEN / "curve.png")
        facts |= {
            "unigram_nats": round(curve["unigram"], 4),
            "steps": len(curve["loss"]),
            "seconds": curve["seconds"],
            "held_out_nats": curve["held_out"][-1][1],
        }
    (AUSTEN / "report.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps({k: v for k, v in facts.items() if k != "magnitudes"}, indent=1, ensure_ascii=False))
