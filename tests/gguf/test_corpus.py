"""Files that were made to break readers of GGUF: what llama.cpp's own tests try, and what advisories report."""

import contextlib
import itertools

import pytest
from gguf import GGUFValueType as V
from test_gguf import HEAD, pack
from test_gguf_reader import array, entry

from refmodel.errors import RefmodelError
from refmodel.gguf.reader import read


def key(*body, name="k"):
    return pack(*HEAD, 0, 1, name, *body)


def tensor(*ne, name="t", kind=0, offset=0, more=b"", dims=None):
    line = pack(name, ("I", len(ne) if dims is None else dims), *ne, ("I", kind), offset)
    return pack(*HEAD, 1, 0) + line + more + bytes(4096)


U64 = 2**64 - 1
REFUSED = {
    "header: bad magic": b"FUGG" + pack(("I", 3), 0, 0) + bytes(64),
    "header: version 0": pack(b"GGUF", ("I", 0), 0, 0) + bytes(64),
    "header: version 1": pack(b"GGUF", ("I", 1), 0, 0) + bytes(64),
    "header: version future": pack(b"GGUF", ("I", 4), 0, 0) + bytes(64),
    "header: bad n_tensors": pack(*HEAD, U64, 0) + bytes(64),
    "header: bad n_kv": pack(*HEAD, 0, U64) + bytes(64),
    "kv: bad key size": pack(*HEAD, 0, 1, U64) + bytes(64),
    "kv: empty key": key(("I", 4), ("I", 1), name="") + bytes(64),
    "kv: bad type": key(("I", 13), b"\0") + bytes(64),
    "kv: duplicate key": pack(*HEAD, 0, 2, *("k", ("I", 4), ("I", 1)) * 2) + bytes(64),
    "kv: bad align": key(("I", 4), ("I", 13), name="general.alignment") + bytes(64),
    "kv: a string as alignment": key(("I", 8), "32", name="general.alignment") + bytes(64),
    "kv: an array as alignment": key(("I", 9), ("I", 4), 1, ("I", 32), name="general.alignment") + bytes(64),
    "kv: alignment 2^30": key(("I", 4), ("I", 1 << 30), name="general.alignment") + bytes(64),
    "kv: alignment 2^31": key(("I", 4), ("I", 1 << 31), name="general.alignment") + bytes(64),
    "kv: a string of 2^63": key(("I", 8), 1 << 63) + bytes(64),
    "kv: an array of 2^62 strings": array(8, 1 << 62) + bytes(64),
    "kv: an array whose size wraps": array(10, (1 << 61) + 1) + bytes(64),
    "kv: an array of arrays of no end": key(*[("I", 9)] * 2, 1, *[("I", 9), 1] * 60) + bytes(64),
    "kv: an array of a type that is none": array(77, 3) + bytes(64),
    "tensors: bad n_dims": tensor(1, 1, 1, 1, 1),
    "tensors: n_dims 2^32 - 1": tensor(1, dims=2**32 - 1),
    "tensors: n_dims 0": tensor(),
    "tensors: bad shape": tensor(U64, U64),
    "tensors: zero dim": tensor(32, 0),
    "tensors: ne too big": tensor(4 * (2**31 - 1), 4 * (2**31 - 1)),
    "tensors: nbytes too big": tensor(1534000000, 1534000000, kind=27),
    "tensors: nbytes pad wrap": tensor(4, 1073741823, 1073741825),
    "tensors: product wraps to 0": tensor(1 << 32, 1 << 32),
    "tensors: product wraps to 1": tensor(3, 6148914691236517205, 1),
    "tensors: bad type": tensor(32, kind=4096),
    "tensors: bad offset": tensor(32, offset=U64),
    "tensors: offset wraps": tensor(32, offset=2**64 - 4096),
    "tensors: duplicate name": pack(*HEAD, 2, 0) + entry("t", 8) + entry("t", 8, offset=32) + bytes(4096),
    "tensors: bad align": tensor(8, offset=13),
    "tensors: a name of 2^63": pack(*HEAD, 1, 0, 1 << 63) + bytes(64),
    "tensors: overlap": pack(*HEAD, 2, 0) + entry("t", 64) + entry("u", 8, offset=32) + bytes(4096),
    "data: not enough": pack(*HEAD, 1, 0) + entry("t", 4096) + bytes(64),
    "data: mem size overflow": pack(*HEAD, 2, 0) + b"".join(entry(n, 0x7FFFFFFFFFFFFFC0, kind=24) for n in "tu") + bytes(64),
    "data: inconsistent align": pack(*HEAD, 2, 0) + entry("t", 1) + entry("u", 1, offset=4) + bytes(64),
}
READ = {
    "header: empty": pack(*HEAD, 0, 0) + bytes(8),
    "kv: alignment 1": key(("I", 4), ("I", 1), name="general.alignment") + bytes(64),
    "kv: every type": key(("I", 9), ("I", 8), 2, "a", "") + bytes(64),
    "tensors: a long name": tensor(8, name="my_tensor_with_a_very_long_name_which_is_longer_than_what_is_allowed_there"),
    "data: two tensors": pack(*HEAD, 2, 0) + entry("t", 8) + entry("u", 8, offset=32) + bytes(4096),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_was_made_to_break_readers_is_refused(name, tmp_path):
    (tmp_path / "m.gguf").write_bytes(REFUSED[name])
    with pytest.raises(RefmodelError) as caught:
        read(tmp_path / "m.gguf")
    assert str(caught.value).startswith(str(tmp_path / "m.gguf"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", READ)
def test_what_only_looks_odd_is_read(name, tmp_path):
    (tmp_path / "m.gguf").write_bytes(READ[name])
    assert read(tmp_path / "m.gguf").parts


@pytest.mark.parametrize(("kind", "other"), list(itertools.permutations([V.UINT32, V.STRING, V.FLOAT32, V.ARRAY, V.BOOL], 2)))
def test_a_key_of_another_type_is_refused_where_it_is_read(kind, other, tmp_path):
    """Readers of GGUF files have taken the bytes of one type for those of another."""
    body = {V.UINT32: [("I", 1)], V.STRING: ["x"], V.FLOAT32: [("f", 1.0)], V.ARRAY: [("I", 4), 1, ("I", 1)], V.BOOL: [b"\1"]}
    (tmp_path / "m.gguf").write_bytes(pack(*HEAD, 0, 1, "k", ("I", int(other)), *body[other]) + bytes(64))
    md = read(tmp_path / "m.gguf").metadata
    look_up = {V.UINT32: md.int, V.STRING: md.str, V.FLOAT32: md.float, V.ARRAY: md.ints, V.BOOL: md.bool}[kind]
    with pytest.raises(RefmodelError, match="metadata key k is"):
        look_up("k")
    with contextlib.suppress(RefmodelError):
        md["k"]
