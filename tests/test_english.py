"""The wording of documents and help texts: words that read as translated are not there, and sentences are short."""

import re

import pytest
from pages import PAGES, ROOT
from typer.testing import CliRunner

from refmodel.cli import app
from refmodel.report.demo import next_steps

DOCUMENTS = [*PAGES, ROOT / "CHANGELOG.md", *(ROOT / place for place in ("kernels/README.md", "golden/README.md"))]
DOCUMENTS += [ROOT / "golden/austen/README.md", ROOT / "benchmarks/README.md"]
OTHERS = {"adding-an-architecture.md"}  # its text is rewritten elsewhere

# pattern -> what to write instead
TELL_TALES = {
    r"\bbeside\b": "against (compared with), next to",
    r"\bbehind\b": "after",
    r"\bin front of\b": "before",
    r"\b(stands?|stood|lies|lie|lay) in\b": "is in, are in",
    r"\bso (many|much) (tokens|blocks|rows|bytes|numbers|weights)\b": "n tokens",
    r"\bis (said|told)\b": "is reported",
    r"\bno bit (of|differs)\b": "all bits match",
    r"\bfed (alone|by itself)\b": "fed one at a time",
    r"\b(that|this|tensors?|rows?|tokens?|models?|names?|one|file|logits|position|bits) alone\b": "only",
    r"\bof which\b": "whose, that",
    r"\bnobody\b|\bwhoever\b|\bonlookers?\b": "name who or what",
    r"\bwants to\b(?= (be|have))": "needs",
    r"\band so it is\b": "right",
    r"\bkin\b": "similar",
    r"\bforetells?\b": "says beforehand",
    r"\bone (behind|after) another\b": "in order",
    r"\bthat no file backs\b|\bnot backed by the file\b": "peak memory without the mapped weights",
    r"\bnot a bit\b|\bto the bit of\b": "bit for bit",
}
MOST_WORDS = 60  # of a sentence; lists between semicolons count piece by piece


def prose(text: str) -> str:
    """A page without its code, its tables' rules and its comments."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"<!--.*?-->|`[^`\n]*`", "", text, flags=re.DOTALL)


def helps() -> dict[str, str]:
    commands = [*([command.callback.__name__] for command in app.registered_commands)]
    for group in app.registered_groups:
        commands += [
            [group.name],
            *([group.name, command.callback.__name__] for command in group.typer_instance.registered_commands),
        ]
    said = {" ".join(["refmodel", *words]): CliRunner().invoke(app, [*words, "--help"]).stdout for words in ([], *commands)}
    return said | {"refmodel alone": CliRunner().invoke(app, []).stdout, "after the demo": next_steps().plain}


@pytest.mark.parametrize(
    "page", [page for page in DOCUMENTS if page.name not in OTHERS], ids=lambda page: str(page.relative_to(ROOT))
)
def test_a_document_has_no_words_that_read_as_translated(page):
    found = [
        f"{match[0]!r}: {instead}; in {text[max(0, match.start() - 40) : match.end() + 40]!r}"
        for text in [" ".join(prose(page.read_text()).split())]
        for pattern, instead in TELL_TALES.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]
    assert not found, "\n".join(found)


def test_a_help_text_has_none_either():
    for command, text in helps().items():
        words = " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())
        assert not (found := [match[0] for pattern in TELL_TALES for match in re.finditer(pattern, words)]), (command, found)


@pytest.mark.parametrize(
    "page", [page for page in DOCUMENTS if page.name not in OTHERS], ids=lambda page: str(page.relative_to(ROOT))
)
def test_sentences_are_short(page):
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n|\n\s*- |\n\|", prose(page.read_text()))]
    sentences = [one for part in paragraphs for one in re.split(r"[.:;!?]\s", part)]
    assert not (found := [one for one in sentences if len(one.split()) > MOST_WORDS]), found


def test_the_patterns_find_what_they_are_for():
    for words in (
        "compared beside llama.cpp",
        "right behind the block",
        "it lies in the file",
        "for so many tokens",
        "tensors alone",
    ):
        assert any(re.search(pattern, words) for pattern in TELL_TALES), words
