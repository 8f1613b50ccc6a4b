"""The same ids as llama.cpp: its recorded answers for every vocabulary in golden/tokenizers, and live with those of real models."""

import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refmodel.errors import MetadataError, TokenError
from refmodel.gguf.reader import read
from refmodel.tokenizer import Tokenizer

FOLDER = Path(__file__).parent.parent / "golden" / "tokenizers"
sys.path.insert(0, str(FOLDER.parent))
import make_tokenizers as make  # noqa: E402
import tricky  # noqa: E402

TEXTS = json.loads((FOLDER / "texts.json").read_text())
NAMES = sorted(path.stem for path in FOLDER.glob("*.gguf"))
# Vocabularies of real models: two trained ones, and the files ggml-vocab-<name>.gguf that stand in llama.cpp's models/.
REAL = ["smollm2", "gemma3", "llama-bpe", "qwen2", "qwen35", "gpt-2", "starcoder", "aquila", "llama-spm", "phi-3", "baichuan"]
REAL += ["command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "gpt-neox", "mpt", "refact"]


def tricky_text():
    """Parts that are known to be difficult, and any characters between them."""
    anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
    return st.lists(st.one_of(st.sampled_from(tricky.POOL), anything), max_size=8).map("".join)


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    path = FOLDER / f"{request.param}.gguf"
    return Tokenizer.from_metadata(read(path).metadata), json.loads(path.with_suffix(".json").read_text())


def test_there_is_a_vocabulary_for_every_pre_tokenizer_and_for_sentence_pieces():
    assert {"default", "gemma", "gpt-2", "llama-bpe", "qwen2", "qwen35", "smollm", "spm"} <= set(NAMES)


def test_ids_are_those_of_llama_cpp(case):
    tokenizer, answers = case
    for text, plain, parsed in zip(TEXTS, answers["plain"], answers["parsed"], strict=True):
        assert tokenizer.encode(text, add_special=False) == plain, text
        assert tokenizer.encode(text, add_special=False, parse_special=True) == (plain if parsed is None else parsed), text


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


@given(data=st.data())
def test_a_stream_of_tokens_gives_whole_characters_and_in_the_end_the_text(case, data):
    tokenizer, _ = case
    ids = data.draw(st.lists(st.integers(0, tokenizer.n_vocab - 1), max_size=30))
    if data.draw(st.booleans()):
        ids = tokenizer.encode(data.draw(tricky_text()), add_special=False)
    stream = tokenizer.stream()
    parts = [stream.feed(i) for i in ids]
    whole = b"".join(map(tokenizer.piece, ids)).decode("utf-8", "replace")
    assert "".join(parts) + stream.end() == whole
    if "\ufffd" not in whole:
        assert all(part.encode().decode() == part for part in parts)


def test_a_stream_holds_back_a_character_until_its_last_byte():
    tokenizer = Tokenizer.from_metadata(read(FOLDER / "qwen35.gguf").metadata)
    ids = tokenizer.encode("\U0001fae0", add_special=False)
    stream = tokenizer.stream()
    assert len(ids) > 1
    assert [stream.feed(i) for i in ids] == [""] * (len(ids) - 1) + ["\U0001fae0"]
    stream.feed(ids[0])
    assert stream.end() == "\ufffd"


def test_what_cannot_be_encoded_is_said():
    tokenizer = Tokenizer.from_metadata(read(FOLDER / "qwen35.gguf").metadata)
    with pytest.raises(TokenError, match=r"lone surrogate U\+D800"):
        tokenizer.encode("a\ud800")
    with pytest.raises(TokenError, match="outside the vocabulary"):
        tokenizer.piece(10**6)


A, B, AB = ("a", make.NORMAL), ("b", make.NORMAL), ("ab", make.NORMAL)
PLAIN = {"tokenizer.ggml.merges": ["a b"], "tokenizer.ggml.pre": "qwen2"}


def written(folder, model, tokens, keys):
    make.write(folder / "made.gguf", model, tokens, keys)
    return Tokenizer.from_metadata(read(folder / "made.gguf").metadata)


@pytest.mark.parametrize(
    ("model", "keys", "message"),
    [
        ("none", {}, "has no tokenizer .*--tokens takes ids directly"),
        ("no_vocab", {}, "has no tokenizer .*--tokens takes ids directly"),
        ("bert", {}, r"tokenizer.ggml.model is 'bert' \(a WordPiece .*\); known are gpt2, llama, gemma4.*--tokens"),
        ("other", {}, "tokenizer.ggml.model is 'other'; known are gpt2, llama, gemma4.*--tokens"),
        ("gpt2", PLAIN | {"tokenizer.ggml.pre": "qwen-2"}, "pre is 'qwen-2', none of the 91 .*mean 'qwen2'.*--tokens"),
    ],
)
def test_a_file_without_a_known_tokenizer_opens_and_says_so_on_use(tmp_path, model, keys, message):
    tokenizer = written(tmp_path, model, [A, B], keys)
    assert tokenizer.eog == frozenset()
    assert "--tokens" in tokenizer.describe()["problem"]
    for use in (lambda: tokenizer.encode("ab"), lambda: tokenizer.decode([0]), lambda: tokenizer.piece(0)):
        with pytest.raises(TokenError, match=f"made.gguf: .*{message}"):
            use()


@pytest.mark.parametrize(
    ("tokens", "keys", "message"),
    [
        ([A, B, A], PLAIN, "tokenizer.ggml.tokens has 'a' twice"),
        ([A, B], {"tokenizer.ggml.pre": "qwen2"}, "tokenizer.ggml.merges is missing"),
        ([A, B], PLAIN | {"tokenizer.ggml.merges": [1, 2]}, "tokenizer.ggml.merges is .*expected an array of strings"),
    ],
)
def test_a_damaged_vocabulary_is_named(tmp_path, tokens, keys, message):
    tokenizer = written(tmp_path, "gpt2", tokens, keys)
    with pytest.raises(MetadataError, match=f"made.gguf: .*{message}"):
        tokenizer.encode("ab")


def test_scores_must_cover_the_vocabulary(tmp_path):
    tokenizer = written(tmp_path, "llama", [A, B, AB], {"tokenizer.ggml.scores": [0.0, 1.0]})
    with pytest.raises(MetadataError, match=r"tokenizer\.ggml\.scores has 2 values for 3 tokens"):
        tokenizer.encode("ab", add_special=False)


def test_a_begin_token_that_is_asked_for_must_exist(tmp_path):
    tokenizer = written(tmp_path, "gpt2", [A, B], PLAIN | {"tokenizer.ggml.add_bos_token": True})
    assert tokenizer.encode("ab", add_special=False) == [0, 1]
    with pytest.raises(TokenError, match="bos_token_id names no token"):
        tokenizer.encode("ab")


def test_a_byte_without_a_token_is_an_error_in_sentence_pieces(tmp_path):
    tokenizer = written(tmp_path, "llama", [A, B, AB, ("<0xC3>", make.BYTE)], {"tokenizer.ggml.add_space_prefix": False})
    assert tokenizer.encode("abba", add_special=False) == [2, 1, 0]
    with pytest.raises(TokenError, match="no token for byte 0xA9"):
        tokenizer.encode("a\u00e9", add_special=False)


@pytest.mark.parametrize(("text", "found"), [("x" * 70_000, "is 70000 bytes long"), ("a\0b", "has a NUL character")])
def test_a_token_that_sentencepiece_cannot_hold_is_named(tmp_path, text, found):
    tokenizer = written(tmp_path, "llama", [A, B, (text, make.NORMAL)], {})
    with pytest.raises(MetadataError, match=f"made.gguf: tokenizer.ggml.tokens: token 2 {found}; .* --tokens"):
        tokenizer.encode("ab", add_special=False)


@pytest.mark.parametrize("text", ["\n", " ", "a", "\U0001f600", "<tool>"])
@pytest.mark.parametrize("name", ["spm", "gemma"])
def test_a_megabyte_of_one_character_takes_seconds(name, text):
    """A walk that copied what is left at each special token took minutes."""
    tokenizer = Tokenizer.from_metadata(read(FOLDER / f"{name}.gguf").metadata)
    ids = tokenizer.encode(text * (1_000_000 // len(text.encode())), add_special=False)
    few = tokenizer.encode(text * 120, add_special=False)
    assert ids[:10] == few[:10]
    assert len(ids) > 50_000


def test_a_run_of_unknown_characters_is_not_taken_for_the_token_of_its_text(tmp_path):
    bytes_ = [(f"<0x{b:02X}>", make.BYTE) for b in range(256)]
    tokenizer = written(tmp_path, "llama", [*bytes_, ("xyz", make.NORMAL)], {"tokenizer.ggml.add_space_prefix": False})
    assert tokenizer.encode("xyz", add_special=False) == [ord("x"), ord("y"), ord("z")]  # no merge leads to xyz


def test_the_vocabulary_is_read_on_first_use(tmp_path):
    metadata = read(FOLDER / "qwen35.gguf").metadata
    tokenizer = Tokenizer.from_metadata(metadata)
    tokenizer.describe()
    assert not {"vocab", "engine"} & set(vars(tokenizer))
    tokenizer.encode("a")
    assert {"vocab", "engine"} <= set(vars(tokenizer))


@pytest.mark.live
@pytest.mark.parametrize("name", NAMES)
def test_live_texts_of_ids(llama_lib, name):
    ours = Tokenizer.from_metadata(read(FOLDER / f"{name}.gguf").metadata)
    tidied = {"default", "gpt-2", "llama-bpe"}  # llama_detokenize drops spaces before punctuation there
    texts = TEXTS if name not in tidied else [text for text in TEXTS if not {*" '"} & {*text}]
    with make.llama_vocab(llama_lib, FOLDER / f"{name}.gguf") as theirs:
        for text in texts:
            ids = ours.encode(text, parse_special=True)
            for skip in (False, True):
                assert ours.decode(ids, skip_special=skip) == theirs.decode(ids, skip), text


@pytest.fixture
def real(request):
    """The file of a real vocabulary, by name."""
    if request.param in ("smollm2", "gemma3"):
        return request.getfixturevalue(request.param)
    folder = os.environ.get("REFMODEL_VOCABS")
    if not folder:
        pytest.skip("no vocabularies: set REFMODEL_VOCABS to the folder models/ of llama.cpp's source")
    return Path(folder) / f"ggml-vocab-{request.param}.gguf"


def hold_against(ours, theirs, text):
    """Both ways to read a text, with the begin and end tokens."""
    for special in (False, True):
        assert ours.encode(text, parse_special=special) == list(theirs.encode(text, True, special))


@pytest.mark.live
@pytest.mark.parametrize("real", REAL, indirect=True)
def test_live_a_real_vocabulary_on_more_than_three_thousand_texts(real, llama_lib):
    """TEXTS, 1000 from a seeded generator, 2000 and more from Hypothesis."""
    ours, drawn = Tokenizer.from_metadata(read(real).metadata), set()
    with make.llama_vocab(llama_lib, real) as theirs:

        @settings(max_examples=2400)
        @given(tricky_text())
        def same_ids(text):
            drawn.add(text)
            hold_against(ours, theirs, text)

        for text in [*TEXTS, *tricky.texts(1000, seed=2)]:
            hold_against(ours, theirs, text)
        same_ids()
        assert len(drawn) >= 2000
        assert sorted(ours.eog) == theirs.eog()
        assert [-1 if i is None else i for i in (ours.bos, ours.eos)] + [ours.add_bos, ours.add_eos] == theirs.begin_and_end()
        assert [i for i in range(ours.n_vocab) if ours.piece(i) != theirs.piece(i)] == []


@pytest.mark.live
@pytest.mark.parametrize("name", NAMES)
def test_live_a_small_vocabulary_on_two_thousand_texts(name, llama_lib):
    ours = Tokenizer.from_metadata(read(FOLDER / f"{name}.gguf").metadata)
    with make.llama_vocab(llama_lib, FOLDER / f"{name}.gguf") as theirs:
        for text in tricky.texts(2000, seed=3):
            hold_against(ours, theirs, text)
