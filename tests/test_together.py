"""Several texts in one batch: each is the text that it is alone, whoever is written next to it; and `run` with several prompts."""

import json

import pytest
import tiny
from test_cli import refmodel as command

import refmodel
from refmodel.report.console import shown
from refmodel.text.generate import generate
from refmodel.text.reply import Reply
from refmodel.text.sampling import GREEDY, Sampling
from refmodel.text.together import Task, write_together

PROMPTS = [[1, 2, 3], [7], [250, 9, 9, 31, 2], [4, 4], [120]]
WARM = Sampling(temperature=1.5, repeat_penalty=1.1, seed=5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("together") / "m.gguf", "qwen35", seed=8))


@pytest.mark.parametrize("how", [GREEDY, WARM])
@pytest.mark.parametrize("at_once", [1, 2, 32])
def test_each_text_is_the_one_of_a_session(model, how, at_once):
    """Those that wait join when others have ended, while these are being written."""
    tasks = [Task(prompt, 3 + n, Reply(model.tokenizer)) for n, prompt in enumerate(PROMPTS)]
    batch = model.batch("numpy")
    ended = list(write_together(batch, tasks, model.route("blocks:1,3"), how, at_once))
    assert sorted(ended) == list(range(len(PROMPTS)))
    assert not batch.members
    for task in tasks:
        reply = Reply(model.tokenizer)
        list(reply.read(generate(model.session("blocks:1,3", "numpy"), task.prompt, task.count, how)))
        assert (task.reply.tokens, task.reply.text, task.reply.end) == (reply.tokens, reply.text, reply.end)


def test_run_writes_several_prompts(model, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("the cat\n\nthe dog sat\n")
    words = [str(model.path), "--numerics", "numpy", "-n", "3", "--route", "blocks:1,3"]
    several = command("run", *words, "-p", "a", "--file", str(file), "--json")
    assert several.returncode == 0
    replies = json.loads(several.stdout)["replies"]
    assert [reply["prompt"] for reply in replies] == ["a", "the cat", "the dog sat"]
    for reply in replies:
        assert reply["text"] == json.loads(command("run", *words, "-p", reply["prompt"], "--json").stdout)["text"]
    plain = command("run", *words, "-p", "a", "-p", "the cat")
    assert plain.stdout == "".join(shown(f"{n}. {r['prompt']}\n{r['text']}\n\n") for n, r in enumerate(replies[:2], 1))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-p", "a", "-p", "b", "--tokens", "1"], "are for one reply"),
        (["-p", "a", "-p", "b", "--timing"], "are for one reply"),
        (["-p", "a", "-p", "b", "--chat"], "--chat is one conversation"),
        (["--file", "EMPTY"], "has no prompt"),
        (["--file", "BINARY"], "is not UTF-8"),
        (["--file", "NOWHERE"], "no such file"),
        (["-p", "a", "-p", ""], "give either a text"),
    ],
)
def test_what_does_not_go_together_is_refused(model, tmp_path, words, message):
    for name, content in (("EMPTY", b" \n"), ("BINARY", b"\xff\xfe\x00")):
        (tmp_path / name).write_bytes(content)
    result = command("run", model.path, *(tmp_path / word if word.isupper() else word for word in words))
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())
