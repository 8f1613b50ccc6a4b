"""The sha256 of files: what is remembered, and what makes it forgotten."""

import hashlib
import os
import time

import pytest

from refmodel.machine import sha256 as digest

LONG_AGO = time.time() - 3600


@pytest.fixture
def large(monkeypatch, tmp_path):
    """A file that is large and old enough for its digest to be remembered, in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(digest, "WORTH", 1000)
    monkeypatch.setattr(digest, "SETTLED", 0)
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(range(256)) * 8)
    time.sleep(0.02)  # its ctime is now in the past
    return path


@pytest.fixture
def readings(monkeypatch):
    """How often files were really read."""
    seen = []
    real = digest.hashed
    monkeypatch.setattr(digest, "hashed", lambda paths: seen.append(paths) or real(paths))
    return seen


def truth(*paths):
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def test_a_large_file_is_read_once(large, readings):
    assert [digest.sha256_of([large]) for _ in range(3)] == [truth(large)] * 3
    assert len(readings) == 1


def test_a_change_of_the_same_length_and_time_is_seen(large, readings):
    digest.sha256_of([large])
    before = large.stat()
    large.write_bytes(bytes(2048))
    os.utime(large, ns=(before.st_atime_ns, before.st_mtime_ns))  # a copy that keeps times; the inode's time tells
    assert digest.sha256_of([large]) == truth(large)
    assert len(readings) == 2


def test_another_file_under_the_name_is_seen(large, readings):
    digest.sha256_of([large])
    other = large.with_name("other")
    other.write_bytes(bytes(2048))
    other.replace(large)
    assert digest.sha256_of([large]) == truth(large)
    assert len(readings) == 2


def test_parts_have_a_digest_of_their_own(large, readings):
    digest.sha256_of([large])
    assert digest.sha256_of([large, large]) == truth(large, large)
    assert digest.sha256_of([large, large]) == truth(large, large)
    assert len(readings) == 2


def test_a_small_file_or_one_just_written_is_not_remembered(monkeypatch, large, readings):
    with monkeypatch.context() as patch:
        patch.setattr(digest, "WORTH", 2049)
        digest.sha256_of([large])
    with monkeypatch.context() as patch:
        patch.setattr(digest, "SETTLED", 3600)
        digest.sha256_of([large])
    assert not digest.remembered().exists()
    assert len(readings) == 2


def test_a_file_that_changes_while_it_is_read_is_not_remembered(monkeypatch, large):
    real = digest.hashed

    def and_change(paths):
        found = real(paths)
        large.write_bytes(bytes(4096))
        return found

    monkeypatch.setattr(digest, "hashed", and_change)
    digest.sha256_of([large])
    assert not digest.remembered().exists()


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"0" * 63, b"0" * 64 + b"\n", b"G" * 64])
def test_a_damaged_entry_is_read_again(large, readings, damage):
    digest.sha256_of([large])
    (entry,) = digest.remembered().iterdir()
    entry.write_bytes(damage)
    assert digest.sha256_of([large]) == truth(large)
    assert len(readings) == 2
    assert entry.read_text() == truth(large)


def test_a_folder_that_cannot_be_written_is_done_without(large, readings):
    large.with_name("cache").write_text("a file where the folder should be")
    assert [digest.sha256_of([large]) for _ in range(2)] == [truth(large)] * 2
    assert len(readings) == 2


def test_a_user_without_a_home_is_served(monkeypatch, large, readings):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")  # what Path.home says to a number without a name

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("LOCALAPPDATA")
    monkeypatch.setattr("pathlib.Path.home", nowhere)
    assert [digest.sha256_of([large]) for _ in range(2)] == [truth(large)] * 2
    assert len(readings) == 2


def test_the_last_used_stay(monkeypatch, large):
    monkeypatch.setattr(digest, "KEPT", 2)
    names = [large.with_name(f"{i}.gguf") for i in range(3)]
    for name in names:
        name.write_bytes(large.read_bytes())
    time.sleep(0.02)
    for age, name in enumerate(names):
        digest.sha256_of([name])
        for entry in digest.remembered().iterdir():
            os.utime(entry, (LONG_AGO + age, LONG_AGO + age))
    assert len(list(digest.remembered().iterdir())) == 2
