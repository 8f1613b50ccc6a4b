"""Files made to hang, to swell or to mislead, and the rarer things that a good file may hold."""

import os
import struct
import subprocess
import sys

import gguf
import numpy as np
import pytest
from gguf import GGUFValueType as V
from near import same_bits
from test_gguf import HEAD, pack

from refmodel.errors import FileError, MetadataError
from refmodel.gguf import format as limits
from refmodel.gguf.metadata import Field
from refmodel.gguf.reader import read
from refmodel.gguf.tensor import Tensor
from refmodel.gguf.writer import field, write


def entry(name, *ne, offset=0, kind=0):
    """One line of a tensor directory."""
    return pack(name, ("I", len(ne)), *ne, ("I", kind), offset)


def array(item, count, *body):
    """One metadata key `k` that holds an array."""
    return pack(*HEAD, 0, 1, "k", ("I", 9), ("I", item), count, *body)


LONG = "x" * (limits.MAX_NAME + 1)
BAD = {
    "version 0": (b"GGUF" + bytes(60), "is GGUF version 0; versions 2 and 3 are supported"),
    "version of three bytes": (b"GGUF" + struct.pack("<I", 0x30000) + bytes(60), "is GGUF version 196608"),
    "big-endian version 1": (b"GGUF" + struct.pack(">I", 1) + bytes(60), "big-endian GGUF (version 1 read backwards)"),
    "empty key": (pack(*HEAD, 0, 1, "", ("I", 7), bytes(9)), "a metadata key is 0 bytes long; at least 1"),
    "empty name": (pack(*HEAD, 1, 0) + entry("", 1) + bytes(99), "a tensor's name is 0 bytes long; at least 1"),
    "long name": (pack(*HEAD, 1, 0) + entry(LONG, 1) + bytes(99), "a tensor's name is 257 bytes long; at least 1 and at most 256"),
    "control characters": (pack(*HEAD, 0, 1, "a\nb", ("I", 7), bytes(9)), "a metadata key has control characters"),
    "bytes of a header": (pack(*HEAD, 2, 0) + bytes(65), "the header claims 2 tensors, 65 bytes are left"),
    "bytes of an array": (array(9, 3, bytes(35)), "metadata key k claims 3 arrays, 35 bytes are left"),
    "bytes of strings": (array(8, 3, bytes(23)), "metadata key k claims 3 strings, 23 bytes are left"),
    "last string": (array(8, 2, "ab", 9, b"12345678"), "metadata key k is cut off"),
    "alignment of an exabyte": (pack(*HEAD, 0, 1, "general.alignment", ("I", 10), 1 << 60), "a power of two up to 16777216"),
    "negative alignment": (pack(*HEAD, 0, 1, "general.alignment", ("I", 5), ("i", -32)), "general.alignment is -32"),
    "overlap": (
        pack(*HEAD, 2, 0) + entry("t", 16) + entry("u", 8, offset=32) + bytes(999),
        "u overlaps t: it starts at byte 128, t ends at byte 160",
    ),
    "negative split": (pack(*HEAD, 0, 1, "split.count", ("I", 5), ("i", -5)), "split.count is -5; expected the number of parts"),
    "too many splits": (pack(*HEAD, 0, 1, "split.count", ("I", 10), 1 << 60), "is one of 1152921504606846976 parts"),
}


@pytest.mark.parametrize("name", BAD)
def test_each_trick_is_named_in_one_line(name, tmp_path):
    content, words = BAD[name]
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(FileError) as caught:
        read(tmp_path / "m.gguf")
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "m.gguf"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("tensors", lambda n: pack(*HEAD, n, 0)),
        ("metadata keys", lambda n: pack(*HEAD, 0, n)),
        ("strings", lambda n: array(8, n)),
        ("arrays", lambda n: array(9, n)),
    ],
)
def test_a_sparse_file_cannot_make_the_reader_walk_for_minutes(kind, head, tmp_path):
    """Its zeros would count as so many empty strings, and its size on disk is nothing."""
    path, most = tmp_path / "m.gguf", limits.MAX_COUNT[kind]
    path.write_bytes(head(most + 1))
    os.truncate(path, 1 << 32)
    with pytest.raises(FileError, match=f"claims {most + 1} {kind}; at most {most} are read from a file"):
        read(path)


def test_the_walk_is_bounded_over_all_arrays_of_a_file(tmp_path):
    path, half = tmp_path / "m.gguf", limits.MAX_COUNT["arrays"] // 2 + 1
    empty = pack(("I", 4), 0) * half
    path.write_bytes(pack(*HEAD, 0, 2, "a", ("I", 9), ("I", 9), half) + empty + pack("b", ("I", 9), ("I", 9), half) + empty)
    with pytest.raises(FileError, match="metadata key b claims 131073 arrays; at most 262144 are read from a file"):
        read(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="pipe: cannot be opened: it is not a regular file"):
        read(tmp_path / "pipe")


def test_version_2_and_its_tensors(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    values = np.arange(24, dtype=np.float32).reshape(3, 8)
    writer.add_tensor("t", values)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    content = bytearray((tmp_path / "m.gguf").read_bytes())
    content[4] = 2  # the two versions differ in nothing else
    (tmp_path / "m.gguf").write_bytes(content)
    file = read(tmp_path / "m.gguf")
    assert (file.version, file.tensors["t"].shape) == (2, (3, 8))
    same_bits(file.tensors["t"].rows.view(np.float32), values)


def test_arrays_as_deep_as_the_reader_lets_in_are_decoded(tmp_path):
    leaf = pack(("I", 4), 2, ("I", 7), ("I", 8)) + pack(("I", 8), 2, "text", "")
    deep = pack(("I", 9), 1) + pack(("I", 9), 2) + leaf
    (tmp_path / "m.gguf").write_bytes(pack(*HEAD, 0, 1, "k", ("I", 9), ("I", 9), 2) + deep + pack(("I", 7), 1, b"\1"))
    first, last = read(tmp_path / "m.gguf").metadata["k"]
    ((numbers, texts),) = first
    assert (list(numbers), list(texts), list(last)) == ([7, 8], ["text", ""], [True])


def test_tensors_may_stand_in_another_order_than_their_names(tmp_path):
    body = pack(*HEAD, 2, 0) + entry("late", 8, offset=32) + entry("early", 8)
    data = np.arange(16, dtype=np.float32)
    (tmp_path / "m.gguf").write_bytes(body + bytes(-len(body) % 32) + data.tobytes())
    file = read(tmp_path / "m.gguf")
    assert list(file.tensors) == ["late", "early"]
    same_bits(file.tensors["late"].data.view(np.float32), data[8:])
    same_bits(file.tensors["early"].data.view(np.float32), data[:8])


@pytest.mark.parametrize("alignment", [1, 8, 4096])
def test_a_file_with_its_own_alignment_reads_as_gguf_py_reads_it(alignment, tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_custom_alignment(alignment)
    for name, n in (("a", 3), ("b", 5)):
        writer.add_tensor(name, np.arange(n, dtype=np.float32))
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    ours, theirs = read(tmp_path / "m.gguf"), gguf.GGUFReader(tmp_path / "m.gguf")
    assert [tensor.name for tensor in theirs.tensors] == list(ours.tensors) == ["a", "b"]
    for tensor in theirs.tensors:
        same_bits(ours.tensors[tensor.name].data.view(np.float32), np.array(tensor.data))


def test_what_is_written_reads_in_gguf_py(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    fields = {
        "general.architecture": field(V.STRING, "llama"),
        "n": field(V.UINT64, 2**64 - 1),
        "list": field(V.ARRAY, [1.5, -2.0], V.FLOAT32),
        "flags": field(V.ARRAY, [True, False], V.BOOL),
    }
    t = Tensor("t", gguf.GGMLQuantizationType.F32, (3, 4), tmp_path, values.reshape(-1).view(np.uint8))
    theirs = gguf.GGUFReader(write(tmp_path / "m.gguf", fields, [t]))
    assert {key: theirs.fields[key].contents() for key in fields} == {
        "general.architecture": "llama",
        "n": 2**64 - 1,
        "list": [1.5, -2.0],
        "flags": [True, False],
    }
    same_bits(np.array(theirs.tensors[0].data), values)


def test_a_tensor_whose_bytes_belie_its_shape_is_not_written(tmp_path):
    t = Tensor("t", gguf.GGMLQuantizationType.F32, (3, 4), tmp_path, np.zeros(47, np.uint8))
    with pytest.raises(AssertionError, match="t has 47 bytes; its type and shape make 48"):
        write(tmp_path / "m.gguf", {}, [t])
    assert list(tmp_path.iterdir()) == []


def parts(folder, counts, numbers=(0, 1), stated=None):
    """Two parts of a model with a tensor each; what they state about themselves is given. Returns the first."""
    paths = [folder / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    for i, path in enumerate(paths):
        t = Tensor(f"t{i}", gguf.GGMLQuantizationType.F32, (8,), path, np.full(32, i, np.uint8))
        marks = {"split.no": numbers[i], "split.count": counts[i], "split.tensors.count": stated}
        write(path, {key: field(V.UINT16, value) for key, value in marks.items() if value is not None}, [t])
    return paths[0]


def test_parts_that_state_their_count_once_are_enough(tmp_path):
    assert list(read(parts(tmp_path, (2, None))).tensors) == ["t0", "t1"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"counts": (2, 3)}, FileError, r"split\.count is 3, in the first part it is 2"),
        ({"counts": (2, 2), "numbers": (0, 7)}, FileError, r"split\.no is 7; expected 1"),
        ({"counts": (2, 2), "numbers": (0, None)}, MetadataError, r"00002-of-00002\.gguf: metadata key split\.no is missing"),
        ({"counts": (2, 2), "stated": 9}, FileError, r"split\.tensors\.count is 9, the 2 parts hold 2"),
    ],
)
def test_parts_that_contradict_each_other(arguments, error, words, tmp_path):
    with pytest.raises(error, match=words):
        read(parts(tmp_path, **arguments))


def test_a_vocabulary_is_located_and_not_decoded(tmp_path):
    tokens = [f"token {i}" for i in range(1000)]
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_token_list(tokens)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.close()
    md = read(tmp_path / "m.gguf").metadata
    raw: Field = md.fields["tokenizer.ggml.tokens"]
    assert (raw.count, raw.item) == (1000, V.STRING)
    assert isinstance(raw.raw.obj, np.ndarray)  # still a view of the mapping
    assert md.strings("tokenizer.ggml.tokens")[998:] == tokens[998:]


def test_opening_files_needs_no_compiler():
    """`info` on a file, or a refusal of one, must not wait for Numba."""
    code = "import sys, refmodel.gguf.reader, refmodel.gguf.writer; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
