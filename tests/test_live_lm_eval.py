"""lm-evaluation-harness on local tasks: refmodel's scores are transformers', answer for answer."""

import json
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NEAR = 1e-4  # nats: two float32 implementations, whose sums over some 80 tokens differ by rounding


def scores(python: str, *words: str) -> dict:
    done = subprocess.run([python, str(HERE / "lm_eval_scores.py"), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def found(lm_eval_python):
    return scores(lm_eval_python, "12")


def numbers(answers):
    """All numbers and texts of nested lists, in order."""
    return [leaf for one in answers for leaf in numbers(one)] if isinstance(answers, list) else [answers]


@pytest.mark.live
@pytest.mark.parametrize("task", ["sums", "prose", "written"])
def test_every_answer_is_that_of_transformers(found, task):
    ours, theirs = (found[side][task] for side in ("refmodel", "transformers"))
    pairs = list(zip(numbers(ours["answers"]), numbers(theirs["answers"]), strict=True))
    assert len(pairs) >= 12
    for a, b in pairs:
        assert abs(float(a) - float(b)) <= NEAR if task == "prose" else a == b or abs(float(a) - float(b)) <= NEAR
    assert ours["metrics"].keys() == theirs["metrics"].keys()


@pytest.mark.live
def test_a_route_changes_the_scores(found, lm_eval_python):
    routed = scores(lm_eval_python, "12", "blocks:5,7")["refmodel"]
    assert numbers(routed["sums"]["answers"]) != numbers(found["refmodel"]["sums"]["answers"])
