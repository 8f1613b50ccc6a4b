"""Compiled kernels: which folder they are kept in, and several processes that save into it at once."""

import os
import threading
from pathlib import Path

import pytest
from numba.core.caching import IndexDataCacheFile

import refmodel.kernels.packed.product
from refmodel.machine import kernel_cache


def test_kernels_are_kept_under_the_digest_of_their_sources(monkeypatch, tmp_path):
    kept = Path(refmodel.kernels.packed.product._multiply.stats.cache_path)
    assert kept.parent == kernel_cache.folder() == kernel_cache.base() / kernel_cache.digest()
    before = kernel_cache.digest()
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(kernel_cache, "SOURCES", tmp_path)
    first = kernel_cache.digest()
    assert first != before
    (tmp_path / "b.py").write_text("x = 2\n")
    assert kernel_cache.digest() not in (first, before)


@pytest.mark.skipif(os.name != "posix", reason="the XDG rule")
def test_the_users_words_about_the_folder_are_heard(monkeypatch, tmp_path):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert kernel_cache.base() == tmp_path / ".cache" / "refmodel" / "kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert kernel_cache.base() == tmp_path / "xdg" / "refmodel" / "kernels"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "given"))
    assert kernel_cache.base() == tmp_path / "given"


def test_a_user_without_a_home_has_a_temporary_folder(monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", nowhere)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")  # set again by the code under test, taken back behind it
    with pytest.warns(UserWarning, match="cannot be written.*home directory.*set XDG_CACHE_HOME or NUMBA_CACHE_DIR"):
        assert kernel_cache.folder.__wrapped__().is_dir()


def test_other_users_of_numba_keep_their_settings(monkeypatch, tmp_path):
    import numba
    from numba.core import caching

    monkeypatch.setattr(numba.config, "CACHE_DIR", "theirs")
    with kernel_cache.of_kernels():
        assert str(kernel_cache.folder()) == numba.config.CACHE_DIR
        assert caching.IndexDataCacheFile is not IndexDataCacheFile
    assert numba.config.CACHE_DIR == "theirs"
    assert caching.IndexDataCacheFile is IndexDataCacheFile


def test_a_folder_that_cannot_be_written_is_said_and_replaced(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot be written.*set XDG_CACHE_HOME or NUMBA_CACHE_DIR"):
        path = kernel_cache.folder.__wrapped__()
    assert path.is_dir()
    assert path.parent == Path(os.environ["NUMBA_CACHE_DIR"])  # processes that are started find it too


def test_old_digests_are_removed(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    old = [tmp_path / f"{n:016x}" for n in range(6)]
    for n, path in enumerate(old):
        (path / "kernels_x").mkdir(parents=True)
        os.utime(path, (1000 + n, 1000 + n))
    (tmp_path / "somebody's").mkdir()
    new = kernel_cache.folder.__wrapped__()
    assert {path.name for path in tmp_path.iterdir()} == {new.name, "somebody's", *(path.name for path in old[-3:])}


def test_processes_that_save_at_once_lose_nothing_and_mix_nothing(tmp_path):
    """Threads stand for processes: the lock belongs to an open file, not to a process."""
    files = [kernel_cache.shared(IndexDataCacheFile)(str(tmp_path), "kernel-1.py", "stamp") for _ in range(4)]

    def save(who):
        for n in range(25):
            files[who].save((who, n), f"code {who} {n}")

    threads = [threading.Thread(target=save, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for who in range(4):
        assert [files[0].load((who, n)) for n in range(25)] == [f"code {who} {n}" for n in range(25)]


def test_what_a_killed_process_was_writing_is_removed_by_the_next_that_saves(tmp_path):
    file = kernel_cache.shared(IndexDataCacheFile)(str(tmp_path), "kernel-1.py", "stamp")
    (tmp_path / "kernel-1.py.0123.nbc.tmp.4567").write_bytes(b"half")
    file.save("a", "code")
    assert not list(tmp_path.glob("*.tmp.*"))
    assert file.load("a") == "code"


def test_a_kernel_that_cannot_be_kept_is_a_warning(tmp_path):
    file = kernel_cache.shared(IndexDataCacheFile)(str(tmp_path / "taken away"), "kernel-1.py", "stamp")
    with pytest.warns(UserWarning, match="taken away: a kernel cannot be kept: No such file"):
        file.save("a", "code")
    assert file.load("a") is None
