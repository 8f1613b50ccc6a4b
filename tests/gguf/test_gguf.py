"""Reading untrusted files, with gguf-py as the judge of what a good file holds."""

import struct

import gguf
import numpy as np
import pytest
import tiny
from gguf import GGUFValueType as V
from hypothesis import given, settings
from hypothesis import strategies as st
from near import same_bits

from refmodel.errors import FileError, MetadataError, RefmodelError
from refmodel.gguf.reader import read
from refmodel.gguf.writer import field, write


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny.build(tmp_path_factory.mktemp("gguf") / "m.gguf", "qwen35", seed=4, recurrent=[True, False, True, True, False])


def pack(*parts):
    """Bytes of a small GGUF out of integers (u64), (format, number) pairs, texts with their length, and raw bytes."""
    out = b""
    for part in parts:
        if isinstance(part, str):
            out += struct.pack("<Q", len(part)) + part.encode()
        elif isinstance(part, tuple):
            out += struct.pack("<" + part[0], part[1])
        else:
            out += part if isinstance(part, bytes) else struct.pack("<Q", part)
    return out


HEAD = (b"GGUF", ("I", 3))


def test_a_file_reads_as_gguf_py_reads_it(path):
    ours, theirs = read(path), gguf.GGUFReader(path)
    assert list(ours.tensors) == [t.name for t in theirs.tensors]
    for t in theirs.tensors:
        same_bits(ours.tensors[t.name].data, np.array(t.data).reshape(-1).view(np.uint8))
        assert ours.tensors[t.name].shape == tuple(t.shape.tolist()[::-1])
        assert not ours.tensors[t.name].data.flags.writeable
    for key, value in ours.metadata.items():
        got = list(value) if hasattr(value, "__len__") and not isinstance(value, str) else value
        assert got == theirs.fields[key].contents(), key


def test_every_value_type(tmp_path):
    w = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    w.add_uint8("a", 200), w.add_int8("b", -3), w.add_uint16("c", 60000), w.add_int16("d", -30000), w.add_uint32("e", 2**32 - 1)
    w.add_int32("f", -5), w.add_float32("g", 0.5), w.add_bool("h", True), w.add_string("i", "é"), w.add_uint64("j", 2**64 - 1)
    w.add_int64("k", -(2**62)), w.add_float64("l", 0.1), w.add_array("m", [1, 2]), w.add_array("n", ["x", ""])
    w.add_array("o", [True, False])
    w.write_header_to_file(), w.write_kv_data_to_file(), w.close()
    md = read(tmp_path / "m.gguf").metadata
    values = [200, -3, 60000, -30000, 2**32 - 1, -5, 0.5, True, "é", 2**64 - 1, -(2**62), 0.1]
    assert [md[key] for key in "abcdefghijkl"] == values
    assert (md.ints("m"), list(md.strings("n")), md.ints("o")) == ((1, 2), ["x", ""], (True, False))


def test_nested_arrays_and_version_2(tmp_path):
    inner = pack(("I", 4), 2, ("I", 7), ("I", 8)) + pack(("I", 8), 1, "text")
    body = pack(b"GGUF", ("I", 2), 0, 1, "k", ("I", 9), ("I", 9), 2) + inner
    (tmp_path / "m.gguf").write_bytes(body)
    first, second = read(tmp_path / "m.gguf").metadata["k"]
    assert (list(first), list(second)) == ([7, 8], ["text"])


BAD = {
    "empty": (b"", "the file is empty"),
    "magic": (b"GGML" + bytes(40), "starts with b'GGML'"),
    "big-endian": (b"GGUF\0\0\0\3" + bytes(40), "big-endian"),
    "version": (b"GGUF\1\0\0\0" + bytes(40), "version 1; versions 2 and 3"),
    "cut": (b"GGUF\3\0", "the version needs 4 bytes"),
    "tensor count": (pack(*HEAD, 2**60, 0), "claims 1152921504606846976 tensors"),
    "key count": (pack(*HEAD, 0, 2**63), "metadata keys"),
    "key length": (pack(*HEAD, 0, 1, 2**40, bytes(20)), "at most 65536"),
    "key text": (pack(*HEAD, 0, 1, 2, b"\xff\xff", bytes(20)), "not UTF-8"),
    "value type": (pack(*HEAD, 0, 1, "k", ("I", 99), bytes(20)), "unknown value type 99"),
    "key twice": (pack(*HEAD, 0, 2, *("k", ("I", 7), b"\1") * 2, bytes(9)), "stands twice"),
    "string array": (pack(*HEAD, 0, 1, "k", ("I", 9), ("I", 8), 2**61), "strings"),
    "string in array": (pack(*HEAD, 0, 1, "k", ("I", 9), ("I", 8), 1, 2**63), "cut off"),
    "number array": (pack(*HEAD, 0, 1, "k", ("I", 9), ("I", 4), 2**62), "are left"),
    "deep nesting": (pack(*HEAD, 0, 1, "k", ("I", 9), *[("I", 9), 1] * 9), "nests arrays"),
    "alignment": (pack(*HEAD, 0, 1, "general.alignment", ("I", 4), ("I", 24)), "power of two"),
    "alignment zero": (pack(*HEAD, 0, 1, "general.alignment", ("I", 4), ("I", 0)), "power of two"),
    "dimensions": (pack(*HEAD, 1, 0, "t", ("I", 5), bytes(40)), "5 dimensions"),
    "no dimensions": (pack(*HEAD, 1, 0, "t", ("I", 0), bytes(40)), "0 dimensions"),
    "shape": (pack(*HEAD, 1, 0, "t", ("I", 2), 2**40, 2**40, ("I", 0), 0, bytes(40)), "shape"),
    "zero axis": (pack(*HEAD, 1, 0, "t", ("I", 2), 32, 0, ("I", 0), 0, bytes(40)), "shape"),
    "row": (pack(*HEAD, 1, 0, "t", ("I", 1), 100, ("I", 12), 0, bytes(40)), "Q4_K needs a multiple of 256"),
    "tensor type": (pack(*HEAD, 1, 0, "t", ("I", 1), 32, ("I", 4000), 0, bytes(40)), "tensor type 4000"),
    "offset": (pack(*HEAD, 1, 0, "t", ("I", 1), 1, ("I", 0), 7, bytes(99)), "not a multiple of 32"),
    "outside": (pack(*HEAD, 1, 0, "t", ("I", 1), 99, ("I", 0), 32, bytes(40)), "t should end at byte"),
    "far outside": (pack(*HEAD, 1, 0, "t", ("I", 1), 8, ("I", 0), 2**63, bytes(40)), "t should end at byte"),
    "overlap": (pack(*HEAD, 2, 0, "t", ("I", 1), 16, ("I", 0), 0, "u", ("I", 1), 8, ("I", 0), 32, bytes(999)), "u overlaps"),
    "tensor twice": (pack(*HEAD, 2, 0, "t", ("I", 1), 8, ("I", 0), 0, "t", ("I", 1), 8, ("I", 0), 32, bytes(999)), "listed twice"),
}


@pytest.mark.parametrize("name", BAD)
def test_each_damage_is_named_in_one_line(name, tmp_path):
    content, words = BAD[name]
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(FileError) as caught:
        read(tmp_path / "m.gguf")
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "m.gguf"))
    assert "\n" not in str(caught.value)


@settings(max_examples=300)
@given(data=st.data())
def test_no_damage_gets_past_the_reader(path, tmp_path, data):
    """Truncations and changed bytes: either the file still reads, or a clear error says why not."""
    content = bytearray(path.read_bytes())
    head = content.index(b"output_norm.weight") + 100  # up to here stand metadata and directory
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            at = data.draw(st.integers(0, min(head, len(content)) - 1))
            content[at] = data.draw(st.integers(0, 255))
    (tmp_path / "m.gguf").write_bytes(content)
    try:
        file = read(tmp_path / "m.gguf")
        for value in file.metadata.values():
            if isinstance(value, gguf.GGUFValueType):
                raise AssertionError
        for tensor in file.tensors.values():
            assert tensor.rows.size == tensor.data.size
    except RefmodelError as error:
        assert "\n" not in str(error)


def test_a_path_that_is_no_file(tmp_path):
    for path in (tmp_path / "nothing.gguf", tmp_path):
        with pytest.raises(FileError, match="cannot be opened"):
            read(path)


def split(path, folder, parts=3):
    """The file in parts, as llama-gguf-split names and marks them."""
    file = read(path)
    names = list(file.tensors)
    marks = {"split.count": (V.UINT16, parts), "split.tensors.count": (V.INT32, len(names))}
    for i in range(parts):
        fields = dict(file.metadata.fields) if i == 0 else {}
        fields |= {"split.no": field(V.UINT16, i), **{key: field(kind, value) for key, (kind, value) in marks.items()}}
        write(folder / f"m-{i + 1:05}-of-{parts:05}.gguf", fields, [file.tensors[name] for name in names[i::parts]])
    return folder / f"m-00001-of-{parts:05}.gguf"


def test_split_files_are_one_model(path, tmp_path):
    whole, joined = read(path), read(split(path, tmp_path))
    assert set(whole.tensors) == set(joined.tensors)
    for name, tensor in whole.tensors.items():
        same_bits(tensor.data, joined.tensors[name].data)
    assert len(joined.parts) == 3


def test_split_files_with_faults(path, tmp_path):
    first = split(path, tmp_path)
    with pytest.raises(FileError, match="is not the first part; open m-00001-of-00003"):
        read(tmp_path / "m-00002-of-00003.gguf")
    third = tmp_path / "m-00003-of-00003.gguf"
    content = third.read_bytes()
    third.write_bytes((tmp_path / "m-00002-of-00003.gguf").read_bytes())
    with pytest.raises(FileError, match=r"split\.no is 1; expected 2"):
        read(first)
    third.unlink()
    with pytest.raises(FileError, match="is missing, part"):
        read(first)
    third.write_bytes(content)
    first.rename(tmp_path / "renamed.gguf")
    with pytest.raises(FileError, match="one of 3 parts"):
        read(tmp_path / "renamed.gguf")


def test_writing_what_was_read_gives_the_same_file(path, tmp_path):
    file = read(path)
    write(tmp_path / "again.gguf", file.metadata.fields, file.tensors.values())
    assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()


def test_an_interrupted_writer_leaves_nothing(path, tmp_path):
    def failing():
        yield from list(read(path).tensors.values())[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "m.gguf", {}, failing())
    assert list(tmp_path.iterdir()) == []


def test_look_ups_name_key_file_and_type(path):
    md = read(path).metadata
    with pytest.raises(MetadataError, match=r"m\.gguf: metadata key qwen35\.nothing is missing"):
        md.int("qwen35.nothing")
    with pytest.raises(MetadataError, match=r"general\.architecture is STRING; expected an integer"):
        md.int("general.architecture")
    with pytest.raises(MetadataError, match="an array of 4 INT32; expected an array of integers of length 3"):
        md.ints("qwen35.rope.dimension_sections", 3)
    assert md.int("qwen35.nothing", 7) == 7
    assert md.per_block("qwen35.attention.head_count", 3) == (6, 6, 6)
