"""What `refmodel info` says of a file, beside the published table of a Qwen3.5-4B in UD-Q4_K_XL and how that table was misread."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
from near import same_bits
from test_benchmarks import TINY
from test_cli import refmodel as command

import refmodel
from benchmarks import synthesize
from refmodel.info.checks import inconsistencies
from refmodel.info.summary import kind_table, ranges, summary

# Tensor -> type and the sizes as llama.cpp lists them, inputs first: an inspection of the real file of 2026-04-13.
DELTA = {
    "ssm_a": ("F32", [32]),
    "ssm_alpha.weight": ("Q8_0", [2560, 32]),
    "ssm_beta.weight": ("Q8_0", [2560, 32]),
    "ssm_conv1d.weight": ("F32", [4, 8192]),
    "ssm_dt.bias": ("F32", [32]),
    "ssm_norm.weight": ("F32", [128]),
    "ssm_out.weight": ("Q5_K", [4096, 2560]),
    "attn_qkv.weight": ("Q5_K", [2560, 8192]),
    "attn_gate.weight": ("Q4_K", [2560, 4096]),
}
ATTENTION = {
    "attn_q.weight": ("Q4_K", [2560, 8192]),
    "attn_k.weight": ("Q4_K", [2560, 1024]),
    "attn_v.weight": ("Q6_K", [2560, 1024]),
    "attn_output.weight": ("Q4_K", [4096, 2560]),
    "attn_q_norm.weight": ("F32", [256]),
    "attn_k_norm.weight": ("F32", [256]),
}
METADATA = {
    "block_count": 32,
    "embedding_length": 2560,
    "attention.head_count": 16,
    "attention.head_count_kv": 4,
    "attention.key_length": 256,
    "rope.freq_base": 10_000_000.0,
    "rope.dimension_count": 64,
    "full_attention_interval": 4,
    "ssm.time_step_rank": 32,
    "ssm.group_count": 16,
    "ssm.state_size": 128,
    "ssm.inner_size": 4096,
    "ssm.conv_kernel": 4,
}
SMALL = replace(TINY, layers=8)


@pytest.fixture(scope="module")
def replica(tmp_path_factory):
    """The names, types and kinds of metadata of that file, with random blocks; small."""
    return synthesize.synthesize(tmp_path_factory.mktemp("replica") / "replica.gguf", SMALL)


def test_the_replica_of_full_size_has_the_published_table():
    shape = synthesize.Shape()
    listed = {name: (kind.name, list(size)[::-1]) for name, kind, size in synthesize.tensors(shape)}
    fields = synthesize.metadata(shape)
    for block in range(32):
        mixing = ATTENTION if block in (3, 7, 11, 15, 19, 23, 27, 31) else DELTA
        found = {name.split(".", 2)[2]: entry for name, entry in listed.items() if name.startswith(f"blk.{block}.")}
        assert {name: found[name] for name in mixing} == mixing
        assert "post_attention_norm.weight" in found
    assert listed["token_embd.weight"][1] == [2560, 248_320]
    assert {key: fields[f"qwen35.{key}"].value() for key in METADATA} == METADATA


def test_info_prints_the_table_of_the_file(replica):
    found = {(row.kind, row.tensor): row for row in kind_table(refmodel.load(replica))}
    for kind, table in (("delta", DELTA), ("attention", ATTENTION)):
        for name, (type_, sizes) in table.items():
            row = found.pop((kind, name))
            assert row.types == type_
            assert len(row.shape) == len(sizes)
    common = ("attn_norm", "post_attention_norm", "ffn_gate", "ffn_up", "ffn_down")
    assert set(found) == {(kind, f"{name}.weight") for kind in ("delta", "attention") for name in common}
    assert found["delta", "ffn_down.weight"].types == "4 Q5_K, 2 Q6_K"  # blocks 0 and 6 have more bits
    report = json.loads(command("info", replica, "--json").stdout)
    (row,) = (row for row in report["tensors"] if (row["kind"], row["tensor"]) == ("attention", "attn_v.weight"))
    assert (row["types"], row["shape"]) == ("Q6_K", [128, 256])


# What has been read into that table, and what the file's own sizes say.
MISREAD = {
    "which blocks are which": "6 delta (0-2, 4-6), 2 attention (3, 7); by qwen35.full_attention_interval = 4",
    "width of a head": "4 query, 2 key/value, of 64",
    "partial rotation": "16 of 64 dims, pairs i and i + 8 (NeoX); the other 48 stay as they are",
    "no head of its own": "tied to the embedding",
    "attn_q: first half, second half": "head by head 64 rows of a query, then 64 of its gate (not all queries, then all gates)",
    "attn_gate: a sigmoid": "z, whose SiLU multiplies the normed output of the delta rule; attention's gate is another, in attn_q",
    "attn_qkv": "2 queries, 2 keys and 4 values of 64, in this order; all pass the convolution",
    "which key head": "4 value heads of 64 share 2 query and key heads: value head h uses h mod 2",
    "Gemma's norm": "RMS norm of the residual sum, before the feed-forward part; what is added to the sum is not normed",
    "ssm_norm: value norm": "RMS norm of each head's output, the same for all heads; not of the values",
    "ssm_a: decay": "-exp(A_log), below zero",
    "ssm_out": "from 4 heads of 64 back to 256, in place of attn_output",
}


@pytest.mark.parametrize("misread", MISREAD)
def test_info_corrects_what_is_misread(misread, replica):
    model = refmodel.load(replica)
    said = [*summary(model).values(), *(row.meaning for row in kind_table(model))]
    assert any(MISREAD[misread] in words for words in said)


def test_info_shows_the_tables(replica):
    shown = command("info", replica).stdout
    for words in ("attn_gate.weight", "256, 256", "h mod 2", "tied to the embedding", "4 Q5_K, 2 Q6_K", "no inconsistencies"):
        assert words in shown


def test_the_words_are_those_of_the_file(tmp_path):
    """Gemma's norm of that name is another one; a Qwen3-Next has its key heads in groups; lists and rules are told apart."""
    norm = {}
    for arch in ("gemma3", "qwen3next"):
        model = refmodel.load(tiny.build(tmp_path / f"{arch}.gguf", arch))
        norm[arch] = next(row.meaning for row in kind_table(model) if row.tensor == "post_attention_norm.weight")
    assert "of what attention gives, before it is added" in norm["gemma3"]
    assert "of the residual sum" in norm["qwen3next"]
    assert "value head h uses h // 3" in summary(model)["delta"]
    listed = refmodel.load(tiny.build(tmp_path / "listed.gguf", "qwen35", n_layer=3, recurrent=[True, False, True]))
    assert summary(listed)["kinds"] == "2 delta (0, 2), 1 attention (1); as qwen35.attention.recurrent_layers lists them"
    conv = summary(refmodel.load(tiny.build(tmp_path / "lfm2.gguf", "lfm2")))
    assert conv["kinds"] == "3 conv (0-1, 3), 1 attention (2); lfm2.attention.head_count_kv is 0 for conv"
    assert conv["conv"] == "a convolution over the last 3 tokens; it remembers 40 numbers of each but the newest"
    many = {"E": 24, "H": 4, "G": 4, "D": 6, "n_rot": 6, "alike": "the words for a head of keys for each head"}
    heads = summary(refmodel.load(tiny.build(tmp_path / "llama.gguf", "llama", **many)))["heads"]
    assert heads == "4 query, 4 key/value, of 6"


@pytest.mark.long  # its types need kernels that nothing else needs
def test_the_replica_runs(replica):
    done = command("run", replica, "-p", "a prompt", "-n", 3, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["tokens"]) == 3
    model = refmodel.load(replica)
    same_bits(model.forward([5, 6, 7], numerics="fast"), model.forward([5, 6, 7], numerics="fast"))
    assert np.isfinite(model.forward([5, 6, 7])).all()


def test_a_decay_that_is_not_below_zero_is_an_inconsistency(tmp_path):
    path = tiny.build(tmp_path / "m.gguf", "qwen35")
    model = refmodel.load(path)
    assert inconsistencies(model) == []
    a = model.weights["blk.1.ssm_a"].dense(np.float32)
    bytes_ = path.read_bytes()
    assert bytes_.count(a.tobytes()) == 1
    path.write_bytes(bytes_.replace(a.tobytes(), (-a).tobytes()))
    assert "blk.1.ssm_a is not below zero everywhere" in inconsistencies(refmodel.load(path))[0]


def test_a_key_of_yarn_that_llama_cpp_does_not_read_is_an_inconsistency(tmp_path):
    scaling = {"type": "yarn", "factor": 4.0, "yarn_beta_fast": 64.0, "yarn_beta_slow": 1.0}
    model = refmodel.load(tiny.build(tmp_path / "m.gguf", "gemma3", seed=1, window=0, scaling=scaling))
    key = "gemma3.rope.scaling.yarn_beta_fast"
    assert inconsistencies(model) == [f"{key} is 64.0: llama.cpp does not read it for gemma3 and computes with 32"]
    plain = refmodel.load(tiny.build(tmp_path / "n.gguf", "gemma3", seed=1, scaling=scaling | {"type": "linear"}))
    assert inconsistencies(plain) == []
    read = refmodel.load(tiny.build(tmp_path / "read.gguf", "mistral3", seed=1, scaling=scaling | {"yarn_attn_factor": 2.0}))
    key = "mistral3.rope.scaling.yarn_attn_factor"
    assert inconsistencies(read) == [f"{key} is 2.0: llama.cpp does not read it for mistral3 and computes with 1"]


def test_ranges_of_numbers():
    assert ranges([0, 1, 2, 4, 7, 8]) == "0-2, 4, 7-8"
    assert ranges([]) == ""
