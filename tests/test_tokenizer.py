"""The same ids as llama.cpp: its recorded answers for every vocabulary in golden/tokenizers, and live with a trained model."""

import json
from pathlib import Path

import pytest

from refmodel.errors import TokenError
from refmodel.gguf.reader import read
from refmodel.tokenizer import Tokenizer

FOLDER = Path(__file__).parent.parent / "golden" / "tokenizers"
TEXTS = json.loads((FOLDER / "texts.json").read_text())
NAMES = sorted(path.stem for path in FOLDER.glob("*.gguf"))


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    path = FOLDER / f"{request.param}.gguf"
    return Tokenizer.from_metadata(read(path).metadata), json.loads(path.with_suffix(".json").read_text())


def test_there_is_a_vocabulary_for_every_pre_tokenizer_and_for_sentence_pieces():
    assert {"gpt-2", "llama-bpe", "qwen2", "qwen35", "smollm", "spm"} <= set(NAMES)


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_ids_are_those_of_llama_cpp(case, number):
    tokenizer, answers = case
    plain, parsed = answers["plain"][number], answers["parsed"][number]
    assert tokenizer.encode(TEXTS[number], add_special=False) == plain
    assert tokenizer.encode(TEXTS[number], add_special=False, parse_special=True) == (plain if parsed is None else parsed)


def test_begin_and_end_tokens(case):
    tokenizer, answers = case
    ids = [-1 if i is None else i for i in (tokenizer.bos, tokenizer.eos)]
    assert [*ids, tokenizer.add_bos, tokenizer.add_eos] == answers["begin_and_end"]
    assert tokenizer.encode(TEXTS[5]) == answers["begun"]


def test_tokens_that_end_a_generation(case):
    tokenizer, answers = case
    assert sorted(tokenizer.eog) == answers["eog"]


def test_pieces(case):
    tokenizer, answers = case
    assert [tokenizer.piece(i).hex() for i in range(tokenizer.n_vocab)] == answers["pieces"]


@pytest.mark.parametrize("text", ["hello", "I'm 1234 é 你好 \U0001f468‍\U0001f469", "  a\n b"])
@pytest.mark.parametrize("name", ["qwen35", "llama-bpe", "smollm", "spm"])
def test_decoding_gives_the_text_back(name, text):
    tokenizer = Tokenizer.from_metadata(read(FOLDER / f"{name}.gguf").metadata)
    assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text


def test_what_cannot_be_encoded_is_said():
    tokenizer = Tokenizer.from_metadata(read(FOLDER / "qwen35.gguf").metadata)
    with pytest.raises(TokenError, match=r"lone surrogate U\+D800"):
        tokenizer.encode("a\ud800")
    with pytest.raises(TokenError, match="outside the vocabulary"):
        tokenizer.piece(10**6)


@pytest.mark.live
def test_live_ids_of_the_trained_model(smollm2, llama_lib):
    import sys

    sys.path.insert(0, str(FOLDER.parent))
    from make_tokenizers import llama_vocab

    tokenizer = Tokenizer.from_metadata(read(smollm2).metadata)
    with llama_vocab(llama_lib, smollm2) as theirs:
        for text in TEXTS:
            for special in (False, True):
                assert tokenizer.encode(text, parse_special=special) == list(theirs.encode(text, True, special)), text
