"""`verify` proves what surgery writes, and names what is wrong with a file that was corrupted by hand in one of many ways."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import tiny
from corruptions import FIRST_GGUF
from gguf import GGMLQuantizationType, GGUFValueType
from hypothesis import event, given, reject, settings
from hypothesis import strategies as st
from strategies import examples, routes

import refmodel
from refmodel.arch import ARCHITECTURES
from refmodel.errors import FileError, RouteError
from refmodel.gguf.reader import read
from refmodel.gguf.tensor import Tensor
from refmodel.gguf.writer import field, write
from refmodel.surgery.gguf import plan_of, routed
from refmodel.surgery.runtimes import one_kind, runners
from refmodel.surgery.verify import Options, recovered, verify
from refmodel.surgery.verify.report import BYTES, FORWARD, LLAMACPP, METADATA, SEAMS, STRUCTURE

ROUTE = "blocks:0,4"  # of five blocks: 0 1 2 3 0 1 2 3 4, and the prediction block stays last
A = "qwen35."


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A hybrid with a prediction block, whose per-block arrays have another value for each block."""
    path = tiny.build(tmp_path_factory.mktemp("v") / "plain.gguf", "qwen35", seed=12, n_nextn=1)
    file = read(path)
    lists = {
        f"{A}feed_forward_length": field(GGUFValueType.ARRAY, [26, 27, 28, 29, 30, 31], GGUFValueType.UINT32),
        f"{A}attention.head_count_kv": field(GGUFValueType.ARRAY, [2] * 6, GGUFValueType.UINT32),
    }
    return refmodel.load(write(path.with_name("m.gguf"), dict(file.metadata.fields) | lists, file.tensors.values()))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another model of the same shape."""
    return read(tiny.build(tmp_path_factory.mktemp("o") / "o.gguf", "qwen35", seed=13, n_nextn=1))


@pytest.fixture(scope="module")
def good(source, tmp_path_factory):
    return routed(source, source.route(ROUTE), tmp_path_factory.mktemp("g") / "g.gguf")


class Corrupt:
    """A copy in parts that a corruption changes before it is written again: fields, and tensors by name."""

    def __init__(self, good, source, other):
        file = read(good)
        self.fields, self.tensors = dict(file.metadata.fields), dict(file.tensors)
        self.source, self.other = source.file.tensors, other.tensors

    def set(self, key, value, kind=GGUFValueType.UINT32):
        self.fields[key] = field(kind, value)

    def set_list(self, key, values, kind=GGUFValueType.UINT32):
        self.fields[key] = field(GGUFValueType.ARRAY, values, kind)

    def values(self, key):
        return self.fields[key].value().tolist()

    def put(self, name, tensor):
        """Another tensor's bytes, type and shape under this name."""
        self.tensors[name] = replace(tensor, name=name)

    def edit(self, name, change):
        """The tensor with its bytes changed in place by a function of a writable array."""
        data = self.tensors[name].data.copy()
        change(data)
        self.tensors[name] = replace(self.tensors[name], data=data)

    def block(self, number):
        return [name for name in self.tensors if name.startswith(f"blk.{number}.")]

    def drop(self, *names):
        for name in names:
            del self.tensors[name]

    def put_block(self, number, source, tensors=None):
        """Block `number` becomes block `source` of the source, or of other tensors."""
        self.drop(*self.block(number))
        for name, t in (tensors or self.source).items():
            if name.startswith(f"blk.{source}."):
                self.put(name.replace(f"blk.{source}.", f"blk.{number}.", 1), t)


def flag(c, change):
    key = f"{A}attention.recurrent_layers"
    values = c.values(key)
    c.set_list(key, change(values), GGUFValueType.BOOL)


def flipped(position):
    return lambda values: [v != (i == position) for i, v in enumerate(values)]


def swap(c, a, b):
    c.tensors[a], c.tensors[b] = replace(c.tensors[b], name=a), replace(c.tensors[a], name=b)


def swap_blocks(c, a, b):
    first, second = ({n.split(".", 2)[2]: c.tensors[n] for n in c.block(x)} for x in (a, b))
    c.drop(*c.block(a), *c.block(b))
    for number, tensors in ((a, second), (b, first)):
        for rest, t in tensors.items():
            c.put(f"blk.{number}.{rest}", t)


def shifted(c):
    """Every trunk block is its neighbour: the map is off by one."""
    for position, layer in enumerate([1, 2, 3, 4, 1, 2, 3, 4, 0]):
        c.put_block(position, layer)


def flip_bit(data):
    data[len(data) // 2] ^= 1


def zero_last(data):
    data[-1] ^= 0x40


def as_half(c, name):
    t = c.tensors[name]
    half = t.data.view(np.float32).astype(np.float16).view(np.uint8)
    c.tensors[name] = Tensor(name, GGMLQuantizationType.F16, t.shape, t.file, half)


def reshaped(c, name):
    t = c.tensors[name]
    c.tensors[name] = replace(t, shape=t.shape[::-1])


def one_more_block(c):
    for name, t in c.source.items():
        if name.startswith("blk.0."):
            c.put(name.replace("blk.0.", "blk.10.", 1), t)


def nextn_first(c):
    for position, layer in enumerate([5, 0, 1, 2, 3, 0, 1, 2, 3, 4]):
        c.put_block(position, layer)


def tokens_changed(c):
    words = list(c.fields["tokenizer.ggml.tokens"].value())
    body = b"".join(len(w.encode()).to_bytes(8, "little") + w.encode() for w in ["X" + words[0], *words[1:]])
    old = c.fields["tokenizer.ggml.tokens"]
    c.fields["tokenizer.ggml.tokens"] = replace(old, raw=memoryview(bytes(old.raw[:12]) + body))


Corruption = Callable[[Corrupt], object]
FFL, KV, KIND = f"{A}feed_forward_length", f"{A}attention.head_count_kv", f"{A}attention.recurrent_layers"

# What is done to the copy -> the check that must find it, and what its finding must name.
CORRUPTIONS: dict[str, tuple[Corruption, str, str]] = {
    "one stale kind": (lambda c: flag(c, flipped(6)), METADATA, r"recurrent_layers\[6\] .* block 6 is delta; it is source block 2"),
    "kinds not remapped": (lambda c: flag(c, lambda v: [True, True, False] * 3 + [False]), METADATA, r"_layers\[5\]"),
    "kinds shifted by one": (lambda c: flag(c, lambda v: [v[-1], *v[:-1]]), METADATA, r"recurrent_layers\[0\]"),
    "kinds inverted": (lambda c: flag(c, lambda v: [not x for x in v]), METADATA, r"recurrent_layers\[0\] .* it is source block 0"),
    "kinds too few": (lambda c: flag(c, lambda v: v[:-1]), METADATA, r"recurrent_layers .*expected .* length 10"),
    "kinds too many": (lambda c: flag(c, lambda v: [*v, False]), METADATA, r"recurrent_layers .*expected .* length 10"),
    "kinds of the source": (lambda c: flag(c, lambda v: [True, True, False, True, True, False]), METADATA, "recurrent_layers"),
    "prediction block called recurrent": (lambda c: flag(c, flipped(9)), METADATA, r"recurrent_layers\[9\]"),
    "one stale width": (
        lambda c: c.set_list(FFL, [26, 27, 28, 29, 26, 27, 27, 29, 30, 31]),
        METADATA,
        r"feed_forward_length\[6\] is 27; block 6 is source block 2, which has 28",
    ),
    "widths not remapped": (
        lambda c: c.set_list(FFL, [26, 27, 28, 29, 30, 31, 31, 31, 31, 31]),
        METADATA,
        r"feed_forward_length\[4\]",
    ),
    "widths of the source": (lambda c: c.set_list(FFL, [26, 27, 28, 29, 30, 31]), METADATA, "feed_forward_length .*length 10"),
    "one width for all": (lambda c: c.set(FFL, 26), METADATA, r"feed_forward_length\[1\] is 26"),
    "widths missing": (lambda c: c.fields.pop(FFL), METADATA, "feed_forward_length"),
    "one wrong head count": (lambda c: c.set_list(KV, [2, 2, 2, 1, 2, 2, 2, 2, 2, 2]), METADATA, r"head_count_kv\[3\] is 1"),
    "block count of the source": (lambda c: c.set(f"{A}block_count", 6), STRUCTURE, "block_count is 6; the route makes 10"),
    "block count one too high": (lambda c: c.set(f"{A}block_count", 11), STRUCTURE, "block_count is 11"),
    "block count a word": (lambda c: c.set(f"{A}block_count", "10", GGUFValueType.STRING), STRUCTURE, "block_count is STRING"),
    "prediction blocks forgotten": (lambda c: c.fields.pop(f"{A}nextn_predict_layers"), STRUCTURE, "nextn_predict_layers is 0"),
    "prediction blocks doubled": (lambda c: c.set(f"{A}nextn_predict_layers", 2), STRUCTURE, "nextn_predict_layers is 2"),
    "rope base": (lambda c: c.set(f"{A}rope.freq_base", 1e6, GGUFValueType.FLOAT32), METADATA, "rope.freq_base is 1000000.0"),
    "rope sections": (
        lambda c: c.set_list(f"{A}rope.dimension_sections", [2, 1, 0, 0], GGUFValueType.INT32),
        METADATA,
        "rope.dimension_sections",
    ),
    "epsilon": (lambda c: c.set(f"{A}attention.layer_norm_rms_epsilon", 1e-6, GGUFValueType.FLOAT32), METADATA, "rms_epsilon"),
    "heads": (lambda c: c.set(f"{A}attention.head_count", 3), METADATA, r"attention.head_count\[0\] is 3; .* has 6"),
    "interval": (lambda c: c.set(f"{A}full_attention_interval", 5), METADATA, "full_attention_interval is 5; the source has 3"),
    "context": (lambda c: c.set(f"{A}context_length", 64), METADATA, "context_length is 64"),
    "state size": (lambda c: c.set(f"{A}ssm.state_size", 4), METADATA, "ssm.state_size is 4"),
    "end token": (lambda c: c.set("tokenizer.ggml.eos_token_id", 3), METADATA, "eos_token_id is 3"),
    "one token": (tokens_changed, METADATA, r"tokenizer.ggml.tokens has 'X.*' at 0, of \d+; the source has '"),
    "merges missing": (lambda c: c.fields.pop("tokenizer.ggml.merges"), METADATA, "tokenizer.ggml.merges is missing"),
    "a key that the source lacks": (
        lambda c: c.set(f"{A}expert_count", 8),
        METADATA,
        "expert_count is 8; the source has no such key",
    ),
    "another architecture": (
        lambda c: c.set("general.architecture", "qwen3", GGUFValueType.STRING),
        STRUCTURE,
        "is qwen3, the source's qwen35",
    ),
    "a lying route": (
        lambda c: c.set("refmodel.route", "blocks:1,5", GGUFValueType.STRING),
        METADATA,
        r"blocks:1,5.*but the tensors",
    ),
    "a lying map": (
        lambda c: c.set_list("refmodel.map", [0, 1, 2, 3, 1, 2, 3, 4, 4]),
        METADATA,
        r"refmodel.map .*but the tensors are",
    ),
    "a map that is none": (lambda c: c.set("refmodel.map", 5), METADATA, r"refmodel.map says 5 \(that is no route of 5 blocks\)"),
    "a map of words": (lambda c: c.set("refmodel.map", "x", GGUFValueType.STRING), METADATA, "refmodel.map says x"),
    "two tensors of a block swapped": (
        lambda c: swap(c, "blk.4.ffn_gate.weight", "blk.4.ffn_up.weight"),
        BYTES,
        r"blk.4.ffn_gate.weight has the bytes of blk.0.ffn_up.weight; it should have those of blk.0.ffn_gate.weight",
    ),
    "a tensor swapped between blocks": (
        lambda c: swap(c, "blk.0.attn_norm.weight", "blk.6.attn_norm.weight"),
        BYTES,
        r"blk.0.attn_norm.weight has the bytes of blk.2.attn_norm.weight",
    ),
    "a tensor of the next block": (
        lambda c: c.put("blk.5.ffn_down.weight", c.source["blk.3.ffn_down.weight"]),
        BYTES,
        "blk.5.ffn_down.weight has the bytes of blk.3.ffn_down.weight",
    ),
    "decays of another block": (lambda c: c.put("blk.1.ssm_a", c.source["blk.0.ssm_a"]), BYTES, "blk.1.ssm_a"),
    "a whole block off by one": (lambda c: c.put_block(4, 1), SEAMS, "position 4 should run source block 0, but .* source block 1"),
    "two blocks swapped": (lambda c: swap_blocks(c, 3, 4), SEAMS, "position 3 should run source block 3, but .* source block 0"),
    "the map shifted": (shifted, SEAMS, "position 4 should run source block 0, but block 4 is source block 1"),
    "a block of another kind": (lambda c: c.put_block(5, 2), STRUCTURE, r"blk.5.attn_qkv.weight is missing"),
    "a block of another model": (lambda c: c.put_block(8, 4, c.other), BYTES, r"blk.8.attn_norm.weight has bytes that no tensor"),
    "embedding of another model": (lambda c: c.put("token_embd.weight", c.other["token_embd.weight"]), BYTES, "token_embd.weight"),
    "final norm of another model": (lambda c: c.put("output_norm.weight", c.other["output_norm.weight"]), BYTES, "output_norm"),
    "the embedding for a head": (lambda c: c.put("output.weight", c.source["token_embd.weight"]), BYTES, "of token_embd.weight"),
    "no head": (lambda c: c.drop("output.weight"), STRUCTURE, "output.weight is missing"),
    "a tensor missing": (lambda c: c.drop("blk.3.ssm_dt.bias"), STRUCTURE, "blk.3.ssm_dt.bias is missing"),
    "a tensor too many": (
        lambda c: c.put("blk.0.attn_q.bias", c.source["blk.0.attn_norm.weight"]),
        STRUCTURE,
        "attn_q.bias is not",
    ),
    "the last block missing": (lambda c: c.drop(*c.block(9)), STRUCTURE, r"blk.9.* is missing"),
    "one block too many": (one_more_block, STRUCTURE, r"blk.10.attn_norm.weight is not expected; the route has blocks 0 to 9"),
    "the prediction block first": (nextn_first, STRUCTURE, r"blk.0.attn_q.weight is not expected"),
    "prediction tensors dropped": (
        lambda c: c.drop("blk.9.nextn.eh_proj.weight"),
        STRUCTURE,
        "blk.9.nextn.eh_proj.weight is missing",
    ),
    "one bit": (lambda c: c.edit("blk.5.ssm_out.weight", flip_bit), BYTES, "blk.5.ssm_out.weight has bytes that no tensor"),
    "the last byte": (lambda c: c.edit("output.weight", zero_last), BYTES, "output.weight has bytes that no tensor"),
    "a tensor of zeros": (lambda c: c.edit("blk.2.attn_k.weight", lambda d: d.fill(0)), BYTES, "blk.2.attn_k.weight"),
    "half a tensor": (lambda c: c.edit("blk.7.ffn_up.weight", lambda d: d[len(d) // 2 :].fill(0)), BYTES, "blk.7.ffn_up.weight"),
    "another precision, another tensor": (
        lambda c: (c.put("blk.0.ffn_up.weight", c.source["blk.1.ffn_up.weight"]), as_half(c, "blk.0.ffn_up.weight")),
        STRUCTURE,
        "blk.0.ffn_up.weight has type F16; blk.0.ffn_up.weight has F32, and its values are not those",
    ),
    "rows for columns": (lambda c: reshaped(c, "blk.0.ffn_up.weight"), STRUCTURE, r"blk.0.ffn_up.weight has shape \(22, 26\)"),
}


def hold(path, source, **options):
    return verify(path, source.path, ROUTE, Options(**options))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_found_and_named(name, good, source, other, tmp_path):
    corrupt, check, named = CORRUPTIONS[name]
    c = Corrupt(good, source, other)
    corrupt(c)
    report = hold(write(tmp_path / "bad.gguf", c.fields, c.tensors.values()), source)
    assert report.status == 1
    assert report.findings[0][1].key == FIRST_GGUF[name]
    said = [f"{finding.where} {finding.what}" for found_by, finding in report.findings if found_by == check]
    assert any(re.search(named, line) for line in said), report.findings


RAW: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a truncated tail": (lambda b: b[:-600], "was it downloaded whole"),
    "only the header": (lambda b: b[:3000], "damaged|downloaded whole"),
    "half the file": (lambda b: b[: len(b) // 2], "was it downloaded whole"),
    "an empty file": (lambda b: b"", "empty"),
    "another magic": (lambda b: b"GGML" + b[4:], "not a GGUF"),
    "another version": (lambda b: b[:4] + b"\x09" + b[5:], "GGUF version 9"),
    "one tensor too many in the count": (lambda b: b[:8] + bytes([b[8] + 1]) + b[9:], "damaged"),
    "one tensor too few in the count": (lambda b: b[:8] + bytes([b[8] - 1]) + b[9:], "."),
    "a tensor twice": (lambda b: b.replace(b"blk.5.ffn_up.weight", b"blk.4.ffn_up.weight"), "blk.4.ffn_up.weight is listed twice"),
}


@pytest.mark.parametrize("name", RAW)
def test_a_damaged_file_is_found_and_named(name, good, source, tmp_path):
    damage, named = RAW[name]
    (tmp_path / "bad.gguf").write_bytes(damage(good.read_bytes()))
    report = hold(tmp_path / "bad.gguf", source)
    assert report.status == 1
    assert report.findings[0][1].key == ("position 3" if name == "one tensor too few in the count" else "the file")
    assert re.search(named, report.findings[0][1].what)


def test_there_are_forty_corruptions_at_least():
    assert len(CORRUPTIONS) + len(RAW) >= 40


def test_an_off_by_one_window_is_named_at_its_seam(source, tmp_path):
    report = hold(routed(source, source.route("blocks:0,5"), tmp_path / "w.gguf"), source)
    assert any(f.where == "position 4" and "should run source block 0" in f.what for check, f in report.findings if check == SEAMS)
    assert report.recovered == source.route("blocks:0,5").canonical


def test_a_good_copy_is_proved_in_every_check(good, source):
    report = hold(good, source)
    assert report.status == 0
    assert {check.name: check.word for check in report.checks} == dict.fromkeys([STRUCTURE, SEAMS, BYTES, METADATA, FORWARD], "ok")
    assert all(check.compared for check in report.checks)
    assert report.seams == [(p, s, True) for p, s in source.route(ROUTE).seams]
    assert report.as_json()["verdict"] == "proved"


def test_the_forward_proof_alone_finds_what_the_file_computes_differently(good, source, tmp_path):
    """Values that no tensor hash sees: the kinds and the epsilon."""
    for change in (CORRUPTIONS["epsilon"][0], CORRUPTIONS["rope base"][0]):
        c = Corrupt(good, source, source.file)
        change(c)
        report = hold(write(tmp_path / "bad.gguf", c.fields, c.tensors.values()), source)
        assert any(check == FORWARD and f.where.startswith("l_out-") for check, f in report.findings)


def test_a_list_in_the_place_of_the_interval(tmp_path):
    """Gemma's windows are said by a list or an interval, under one key; a runtime that reads no list takes 6 for the interval."""
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "gemma3", seed=4))
    key, route = "gemma3.attention.sliding_window_pattern", model.route([3, 2, 2, 1])
    path = routed(model, route, tmp_path / "r.gguf")
    report = verify(path, model.path, options=Options(forward=False))
    assert report.status == 0, report.findings
    assert any("interval" not in note and "sliding_window_pattern = 6 cannot run this file" in note for note in report.notes)
    listless = next(r for r in runners(model, plan_of(model, route)) if "without the list" in r.name)
    assert (listless.runs, listless.why) == (False, "by attention.sliding_window_pattern = 6 block 1 would be of the other kind")
    file = read(path)
    listed = file.metadata.fields[key].value().tolist()
    fields = dict(file.metadata.fields) | {key: field(GGUFValueType.ARRAY, [not listed[0], *listed[1:]], GGUFValueType.BOOL)}
    report = verify(write(tmp_path / "bad.gguf", fields, file.tensors.values()), model.path)
    assert f"{key}[0]" in [f.where for check, f in report.findings if check == METADATA]
    assert "l_out-0" in [f.where for check, f in report.findings if check == FORWARD]


def test_windows_alone_arise_from_an_interval_beyond_the_last_block(tmp_path):
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "gemma3", seed=4))
    path = routed(model, model.route([0, 1, 3] * 3), tmp_path / "r.gguf", layout="interval")
    assert refmodel.load(path).file.metadata["gemma3.attention.sliding_window_pattern"] == 10
    assert refmodel.load(path).kinds == ["sliding"] * 9
    assert verify(path, model.path, options=Options(forward=False)).status == 0


def test_a_file_of_another_tool_without_our_keys_is_proved_and_a_new_name_is_a_note(good, source, tmp_path):
    c = Corrupt(good, source, source.file)
    for key in [key for key in c.fields if key.startswith("refmodel.")]:
        del c.fields[key]
    c.set("general.name", "My RYS-0-4 model", GGUFValueType.STRING)
    report = verify(write(tmp_path / "theirs.gguf", c.fields, c.tensors.values()), source.path)
    assert report.status == 0
    assert report.origin == "recovered from the hashes"
    assert any(re.search("general.name says RYS-0-4, half-open blocks:0,4: right", note) for note in report.notes)


def test_what_was_asked_for_and_cannot_be_done_is_status_2(tmp_path):
    """llama.cpp aborts on a hybrid with one kind of block; the file may still be proved by all other checks."""
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "qwen35", seed=3))
    plan = plan_of(model, model.route([0, 1, 3]))
    assert one_kind(model, plan) == "delta"
    names = plan.origins(model.file.tensors)
    fields = dict(model.file.metadata.fields) | {
        f"{A}block_count": field(GGUFValueType.UINT32, 3),
        KIND: field(GGUFValueType.ARRAY, [True] * 3, GGUFValueType.BOOL),
    }
    path = write(tmp_path / "d.gguf", fields, [replace(model.file.tensors[s], name=n) for n, s in names.items()])
    assert verify(path, model.path).status == 0
    report = verify(path, model.path, options=Options(llamacpp=True))
    assert report.status == 2
    assert "llama.cpp aborts" in next(check.skipped for check in report.checks if check.name == LLAMACPP)


def test_paths_and_words_that_cannot_be_held_against_each_other_raise(good, source, tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        verify(tmp_path / "nothing.gguf", source.path)
    with pytest.raises(FileError, match="cannot be opened"):
        verify(good, tmp_path / "nothing.gguf")
    with pytest.raises(FileError, match=r"config.json: cannot be opened"):
        verify(good, tmp_path)
    with pytest.raises(RouteError):
        verify(good, source.path, "blocks:1,99")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request, tmp_path_factory):
    shape = {"n_nextn": 1} if request.param in tiny.DELTA else {"n_layer": 4}
    return refmodel.load(tiny.build(tmp_path_factory.mktemp("r") / "m.gguf", request.param, seed=4, **shape))


@settings(max_examples=examples(4))
@given(data=st.data())
def test_random_routes_are_recovered_and_proved(model, tmp_path, data):
    route = model.route(data.draw(routes(model.n_layer)))
    if one_kind(model, plan_of(model, route)):
        event("one kind of block: refused, llama.cpp aborts")
        with pytest.raises(RouteError, match=r"llama\.cpp aborts"):
            routed(model, route, tmp_path / "r.gguf")
        reject()  # counted apart
    path = routed(model, route, tmp_path / "r.gguf")
    report = verify(path, model.path)
    assert report.status == 0, report.findings
    assert report.recovered == report.route == route.canonical
    found = recovered(path, model.path)
    assert found.status == 0
    assert found.recovery.exact
    assert found.recovery.route.layers == route.layers
