"""The tokenizer of a folder: golden vocabularies written as the tokenizers package writes them become the keys they came from."""

import json
import re

import pytest
from sentencepiece import SentencePieceProcessor
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from refmodel.errors import MetadataError
from refmodel.gguf.metadata import Metadata
from refmodel.gguf.reader import read
from refmodel.hf.cuts import pieces, pre_of
from refmodel.hf.folder import Folder
from refmodel.hf.settings import Settings
from refmodel.hf.vocabulary import vocabulary
from refmodel.tokenizer import Tokenizer as Ours
from refmodel.tokenizer.pre import PRE

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
BPE = ["gpt-2", "llama-bpe", "qwen2", "qwen35", "smollm"]


@pytest.fixture(scope="module")
def texts(golden):
    return json.loads((golden / "tokenizers" / "texts.json").read_text())


def fields(path, config=None, size=0):
    folder = Folder(path, config or {}, (), {})
    return vocabulary(folder, Settings(path / "config.json", "", {"vocab_size": size}, 1, 0))


def ours(path, **how):
    return Ours.from_metadata(Metadata(path, fields(path, **how)))


def cutting(name):
    """The pre_tokenizer of a tokenizer.json that cuts as llama.cpp's of that name does."""
    cuts = [pre_tokenizers.Split(Regex(cut), "isolated") for cut in PRE[name].cuts]
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return json.loads(engine.to_str())["pre_tokenizer"]


def written(path, file, merges_as):
    """The vocabulary of a GGUF as a tokenizer.json and a tokenizer_config.json."""
    md = file.metadata
    tokens, types = list(md.strings("tokenizer.ggml.tokens")), md["tokenizer.ggml.token_type"].tolist()
    merges = [merges_as(line) for line in md.strings("tokenizer.ggml.merges")]
    plain = {text: i for i, (text, kind) in enumerate(zip(tokens, types, strict=True)) if kind == NORMAL}
    added = [
        {"id": i, "content": text, "special": kind == CONTROL, "normalized": False}
        for i, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]
    name = md.str("tokenizer.ggml.pre")
    whole = {"model": {"type": "BPE", "vocab": plain, "merges": merges, "ignore_merges": PRE[name].ignore_merges}}
    whole |= {"added_tokens": added, "pre_tokenizer": cutting(name)}
    (path / "tokenizer.json").write_text(json.dumps(whole))
    special = {kind: md.int(f"tokenizer.ggml.{kind}_token_id", -1) for kind in ("bos", "eos")}
    named = {f"{kind}_token": tokens[i] for kind, i in special.items() if i >= 0}
    flags = {f"add_{kind}_token": md.bool(f"tokenizer.ggml.add_{kind}_token", False) for kind in ("bos", "eos")}
    (path / "tokenizer_config.json").write_text(json.dumps(named | flags))
    return tokens, types


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("name", BPE)
def test_a_byte_pair_vocabulary_is_the_file_that_it_came_from(name, as_text, texts, golden, tmp_path):
    file = read(golden / "tokenizers" / f"{name}.gguf")
    tokens, types = written(tmp_path, file, (lambda line: line) if as_text else (lambda line: line.split(" ")))
    t, right = ours(tmp_path, size=len(tokens)), Ours.from_metadata(file.metadata)
    assert (t.model, PRE[t.pre]) == ("gpt2", PRE[right.pre])
    kept = [kind in (NORMAL, CONTROL, USER_DEFINED) for kind in types]
    assert [text for text, same in zip(t.md.strings("tokenizer.ggml.tokens"), kept, strict=True) if same] == [
        text for text, same in zip(tokens, kept, strict=True) if same
    ]
    for text in texts:
        for special in (False, True):
            if "<unused0>" not in text:  # a type that a tokenizer.json does not have
                assert t.encode(text, add_special=False, parse_special=special) == right.encode(
                    text, add_special=False, parse_special=special
                )


@pytest.mark.parametrize("name", [name for name, pre in PRE.items() if pre.letters])
def test_every_way_to_cut_is_known_by_what_it_cuts(name):
    found = pre_of(cutting(name), PRE[name].ignore_merges)
    assert found is not None
    assert pieces(PRE[found]) == pieces(PRE[name])
    assert PRE[found].ignore_merges == PRE[name].ignore_merges


def test_ways_that_cut_the_probe_alike_cut_every_text_alike(texts):
    """The probe tells all others apart."""
    alike = {}
    for name, pre in PRE.items():
        if pre.letters:
            alike.setdefault(tuple(pieces(pre)), {})[pre.cuts] = name
    same = [names for names in alike.values() if len(names) > 1]
    assert len(alike) >= 27
    for names in same:
        engines = [Tokenizer.from_str(json.dumps(empty(cutting(name)))).pre_tokenizer for name in names.values()]
        for text in texts:
            assert len({tuple(engine.pre_tokenize_str(text)) for engine in engines}) == 1


def empty(spec):
    return {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": [], "pre_tokenizer": spec}


def test_a_pre_tokenizer_that_none_of_them_is_has_no_name():
    cuts = {"type": "Split", "pattern": {"Regex": "[a-z]+|."}, "behavior": "Isolated", "invert": False}
    for spec in (cuts, None, {"type": "NoSuch"}, [], "x"):
        assert pre_of(spec, False) is None


def like_merges(engine):
    """A SentencePiece vocabulary as a tokenizer.json has it: every pair that makes a piece is a merge, best score first."""
    vocab = {engine.IdToPiece(i): i for i in range(engine.vocab_size())}
    halves = ((piece[:k], piece[k:]) for piece in vocab for k in range(1, len(piece)))
    pairs = [(a, b) for a, b in halves if a in vocab and b in vocab]
    return vocab, sorted(pairs, key=lambda p: (-engine.GetScore(vocab[p[0] + p[1]]), vocab[p[0]], vocab[p[1]]))


@pytest.fixture(scope="module", params=[True, False], ids=["prefix", "bare"])
def sentencepiece(request, tmp_path_factory, texts):
    """A SentencePiece model learned from the texts, with a space before the first word or without."""
    from io import BytesIO

    from sentencepiece import SentencePieceTrainer

    out = BytesIO()
    lines = [line for text in texts for line in text.split("\n") if line.isprintable() and line.strip()]
    SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, vocab_size=600, model_type="bpe", byte_fallback=True, minloglevel=2,
        add_dummy_prefix=request.param, remove_extra_whitespaces=False, normalization_rule_name="identity", character_coverage=0.98,
        allow_whitespace_only_pieces=True,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("spm")
    (folder / "tokenizer.model").write_bytes(out.getvalue())
    return folder, request.param


def test_a_sentencepiece_model_and_its_merges_encode_as_the_package(sentencepiece, texts, tmp_path):
    folder, prefix = sentencepiece
    engine = SentencePieceProcessor(str(folder / "tokenizer.model"))
    vocab, merges = like_merges(engine)
    other = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps = [normalizers.Prepend("▁")] if prefix else []
    other.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    other.add_special_tokens(["<unk>", "<s>", "</s>"])
    other.save(str(tmp_path / "tokenizer.json"))
    by_model, by_merges = ours(folder, size=610), ours(tmp_path, size=610)
    assert (by_model.model, by_model.prefixes, by_model.n_vocab) == ("llama", prefix, 610)
    assert (by_merges.model, by_merges.prefixes, by_merges.n_vocab) == ("llama", prefix, 610)
    assert by_model.vocab.texts[605] == "[PAD605]"
    checked = 0
    for text in texts:
        if text and not re.search("<(s|/s|unk|0x..)>", text):
            right, checked = engine.EncodeAsIds(text), checked + 1
            assert by_model.encode(text, add_special=False) == right
            assert by_merges.encode(text, add_special=False) == right
    assert checked > 100


def test_special_tokens_and_templates_are_those_that_the_files_name(golden, tmp_path):
    file = read(golden / "tokenizers" / "qwen2.gguf")
    written(tmp_path, file, lambda line: line)
    whole = json.loads((tmp_path / "tokenizer.json").read_text())
    begin, end = "<|im_start|>", "<|im_end|>"
    one = {"SpecialToken": {"id": begin, "type_id": 0}}
    single = [one, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": end, "type_id": 0}}]
    whole["post_processor"] = {
        "type": "Sequence",
        "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": single}],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    config = {
        "bos_token": {"content": begin},
        "eos_token": "<|endoftext|>",
        "chat_template": [{"name": "default", "template": "{{a}}"}],
    }
    config["chat_template"].append({"name": "tool use", "template": "{{b}}"})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    t, ids = ours(tmp_path), {text: i for i, text in enumerate(file.metadata.strings("tokenizer.ggml.tokens"))}
    assert (t.bos, t.eos, t.add_bos, t.add_eos) == (ids[begin], ids[end], True, True)
    assert t.md["tokenizer.ggml.eot_token_id"] == ids["<|endoftext|>"]
    assert t.md["tokenizer.chat_template"] == "{{a}}"
    assert t.md["tokenizer.chat_template.tool_use"] == "{{b}}"
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("{{c}}")
    assert "tokenizer.chat_template" not in fields(tmp_path)  # an empty configuration counts for none, as for the converter
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    found = ours(tmp_path, config={"eos_token_id": 5, "bos_token_id": [3], "text_config": {"pad_token_id": 7}})
    assert found.md["tokenizer.chat_template"] == "{{c}}"
    named = (found.eos, found.add_bos, found.md["tokenizer.ggml.padding_token_id"])
    assert named == (ids[end], True, 7)  # what the template ends with comes before config.json


@pytest.mark.parametrize("kind", ["Unigram", "WordPiece", "Nothing"])
def test_a_vocabulary_of_another_kind_is_named_when_text_is_encoded(kind, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": kind, "vocab": []}}))
    found = ours(tmp_path)
    assert found.problem
    assert "tokenizer.ggml.model is" in found.problem
    assert ours(tmp_path / "nowhere").problem.startswith("The file has no tokenizer")


@pytest.mark.parametrize(
    "whole",
    [
        {"model": []},
        {"model": {"type": "BPE"}},
        {"model": {"type": "BPE", "vocab": {"a": -1}}},
        {"model": {"type": "BPE", "vocab": {"a": 1 << 40}}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}},
        {"model": {"type": "BPE", "vocab": {"\ud800": 0}}},
        {"model": {"type": "BPE", "vocab": {"a": 0}}, "added_tokens": [{"id": "1", "content": "x"}]},
        {"model": {"type": "BPE", "vocab": {"a": 0}}, "added_tokens": [{"id": 1}]},
        {"model": {"type": "BPE", "vocab": {"a": 0}}, "post_processor": [1]},
    ],
)
def test_a_damaged_tokenizer_is_one_line(whole, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(MetadataError, match="its tokenizer cannot be read") as caught:
        fields(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "tokenizer.model").write_bytes(b"\x00nothing")
    with pytest.raises(MetadataError, match=r"tokenizer\.model: cannot be read by sentencepiece"):
        fields(tmp_path)
