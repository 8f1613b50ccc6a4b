"""Many random batches: no bit of a sequence depends on its company.

    python tests/many_batches.py OUT [--count 200] [--numerics fast,reference,oracle,llamacpp]

Batches are made in turn of the quantized models of golden/models, one or more of each architecture; sequences join, are fed in
random groups and pieces, fork and leave (tests/companies.py). Each is then computed alone, in one call where the numerics lets any
split give the same bits, and in a session where its bits are the same. OUT is a file of JSON lines, one for each batch; what is
there already is not done again. The exit status is 1 if a bit differs.
"""

import argparse
import json
import sys
from pathlib import Path

import companies
import numpy as np

import refmodel

MODELS = Path(__file__).parent.parent / "golden" / "models"
LIKE_A_SESSION = {"reference", "oracle", "llamacpp"}


def files() -> list[Path]:
    """The files with the mixes of types that are common, each architecture in turn."""
    return sorted(path for path in MODELS.glob("*-*.gguf") if path.stem.endswith(("Q4_K_M", "Q8_0")) and "austen" not in path.stem)


def tried(path: Path, numerics: str, number: int) -> dict[str, object]:
    """One random batch: how many sequences, calls and tokens it had, and how many bits differ."""
    model = refmodel.load(path)
    lives = companies.live(model.batch(numerics), np.random.default_rng(number), steps=30, most=12)
    bits = other = 0
    for life in lives:
        logits = np.concatenate(life.logits)
        bits += companies.differing(logits, companies.alone(model, numerics, life))
        other += companies.differing(logits, companies.in_session(model, numerics, life)) if numerics in LIKE_A_SESSION else 0
    calls = [call for life in lives for call in life.calls]
    return {
        "number": number,
        "file": path.stem,
        "architecture": model.architecture,
        "numerics": numerics,
        "sequences": len(lives),
        "routes": len({tuple(life.route) for life in lives}),
        "decoding": sum(len(call) == 1 for call in calls),
        "reading": sum(len(call) > 1 for call in calls),
        "tokens": sum(map(len, calls)),
        "bits": bits,
        "bits_in_session": other,
    }


def main() -> int:
    """Try the batches that OUT lacks, and say what they were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--numerics", default="fast,reference,oracle,llamacpp")
    given = parser.parse_args()
    lines = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done, names, models = {line["number"] for line in lines}, given.numerics.split(","), files()
    with given.out.open("a") as file:
        for number in range(given.count):
            if number not in done:
                lines.append(tried(models[number % len(models)], names[number // len(models) % len(names)], number))
                file.write(json.dumps(lines[-1]) + "\n")
                file.flush()
    wrong = [line for line in lines if line["bits"] or line["bits_in_session"]]
    sums = {
        key: sum(line[key] for line in lines) for key in ("sequences", "decoding", "reading", "tokens", "bits", "bits_in_session")
    }
    kinds = len({line["architecture"] for line in lines})
    print(f"{len(lines)} batches of {kinds} architectures, {json.dumps(sums)}; {len(wrong)} with differing bits")
    for line in wrong:
        print(json.dumps(line))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
