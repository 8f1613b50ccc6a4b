"""The gates: what text may reach a terminal, what a library may raise, and what a command does when its streams are gone.

tests/test_house.py holds that nothing goes around them.
"""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from refmodel.errors import FileError, RefmodelError
from refmodel.gguf.reader import read
from refmodel.machine import partial, truncated
from refmodel.machine.boundary import expecting, from_json, handed
from refmodel.machine.files import contents, text_of, whole
from refmodel.report.console import Terminal, shown
from refmodel.report.tables import pairs, plain_table

AUSTEN = Path(__file__).parent.parent / "golden" / "models" / "austen-Q4_K_M.gguf"
HOSTILE = "\x1b[31mred\x1b]0;title\x07 [bold]b[/bold] :smile: \x9b2J \u202eback \ud800 \x00end"


def refmodel(words: str, **how) -> "subprocess.CompletedProcess[bytes]":
    """A shell runs the command line, where `$R` is the program."""
    env = {**os.environ, "R": f"{sys.executable} -m refmodel", "A": str(AUSTEN), **how.pop("env", {})}
    return subprocess.run(["bash", "-c", words], capture_output=True, env=env, timeout=100, **how)


def test_no_control_character_is_shown():
    text = shown(HOSTILE)
    assert text == "\\x1b[31mred\\x1b]0;title\\x07 [bold]b[/bold] :smile: \\x9b2J \\u202eback \\ud800 \\x00end"
    assert shown("plain\ttext\n漢字 é 👩\u200d👧") == "plain\ttext\n漢字 é 👩\u200d👧"
    assert shown(text) == text


def test_of_a_long_line_the_ends_are_shown():
    text = shown("a\n" + "x" * 50_000 + "yz\nb", 100)
    assert text.startswith("a\n" + "x" * 50 + "[... 49,902 characters ...]")
    assert text.endswith("x" * 48 + "yz\nb")
    assert shown("x" * 100, 100) == "x" * 100


def printed(*things, **how) -> str:
    console = Terminal()
    console.file = io.StringIO()
    for thing in things:
        console.print(thing, **how)
    return console.file.getvalue()


def test_whatever_way_text_takes_to_the_console_it_is_the_same(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    table = plain_table("a", "b")
    table.add_row(HOSTILE, "x")
    for text in (printed(HOSTILE, soft_wrap=True), printed(pairs({"key": HOSTILE})), printed(table)):
        assert "\\x1b[31mred\\x1b]0;title\\x07 [bold]b[/bold] :smile: \\x9b2J \\u202eback \\ud800 \\x00end" in text
        assert not set(text) & {"\x1b", "\x07", "\x9b", "\x00", "\u202e"}
    from rich.text import Text

    assert "\\x1b" in printed(Text(HOSTILE))


def test_json_has_no_numbers_that_json_has_not():
    console = Terminal()
    console.file = io.StringIO()
    console.json({"a": float("nan"), "b": [float("inf"), 1.5], "c": "\x1b"})
    assert json.loads(console.file.getvalue(), parse_constant=pytest.fail) == {"a": None, "b": [None, 1.5], "c": "\x1b"}


class Panic(BaseException):
    """As Rust's panics arrive in Python."""


@pytest.mark.parametrize("raised", [RuntimeError("INTERNAL:\n piece"), Exception("bare"), Panic("panicked"), ZeroDivisionError()])
def test_what_a_library_raises_is_one_line_of_ours(raised):
    with pytest.raises(FileError) as caught, handed("somelib", "a.gguf: a key", FileError, "get it again"):
        raise raised
    assert str(caught.value).startswith("a.gguf: a key: cannot be read by somelib (")
    assert str(caught.value).endswith("; get it again")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(3), MemoryError(), FileError("ours")])
def test_what_is_not_the_librarys_passes(raised):
    with pytest.raises(type(raised)) as caught, handed("somelib", "a", RefmodelError, "b"):
        raise raised
    assert caught.value is raised


def test_json_that_is_none_is_an_error_of_ours():
    for text in ("{", "[" * 100_000, b"\xff\xff", "9" * 10_000):
        with pytest.raises(FileError, match=r"a\.json: is not JSON"):
            from_json(text, "a.json", FileError, "c")
    assert from_json('{"a": 1}', "a.json", FileError, "c") == {"a": 1}
    with pytest.raises(FileError, match="x: has another shape than expected"), expecting("x", FileError, "c"):
        {}["missing"]


def test_a_pipe_a_folder_and_a_large_file_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(100))
    (tmp_path / "latin").write_bytes(b"\xe9")
    for name, words in (
        ("pipe", "not a regular file"),
        (".", "not a regular file"),
        ("none", "No such file"),
        ("large", "at most 99"),
    ):
        with pytest.raises(FileError, match=words):
            contents(tmp_path / name, 99)
    with pytest.raises(FileError, match="is not UTF-8"):
        text_of(tmp_path / "latin")


def test_what_killed_processes_left_is_removed_and_what_others_make_is_not(tmp_path):
    left, folder, mine = (tmp_path / f".{name}.{'0' * 12}.partial" for name in ("a.gguf", "folder", "mine"))
    left.write_bytes(b"x")
    folder.mkdir()
    (folder / "inner").write_bytes(b"x")
    theirs = [tmp_path / name for name in ("a.partial", ".a.gguf.partial", f".x.{'0' * 11}.partial")]
    for path in theirs:
        path.write_bytes(b"y")
    with partial.create(mine), whole([tmp_path / "b.gguf"]) as (file,):
        file.write(b"whole")
        assert sorted(tmp_path.iterdir()) == sorted([*theirs, mine, Path(file.name)])
    partial.remove_left_over(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*theirs, tmp_path / "b.gguf"])


def test_a_temporary_folder_is_gone_at_the_end_and_that_of_a_killed_process_in_the_next_run(tmp_path, monkeypatch):
    monkeypatch.setattr(partial.tempfile, "tempdir", str(tmp_path))
    words = "from refmodel.machine.partial import *\nwith temporary_folder() as f:\n print(f, flush=True); input()"

    def another():
        env = os.environ | {"TMPDIR": str(tmp_path)}
        return subprocess.Popen([sys.executable, "-c", words], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with another() as killed, another() as alive:
        left, used = (Path(child.stdout.readline().strip()) for child in (killed, alive))
        (left / "large").write_bytes(b"x")
        killed.kill()
        killed.wait()
        assert left.is_dir()
        with partial.temporary_folder() as folder:
            assert sorted(tmp_path.iterdir()) == sorted([used, folder])
            assert folder.stat().st_mode & 0o777 == 0o700
        alive.communicate("\n")
    assert not list(tmp_path.iterdir())


def test_a_file_that_was_replaced_is_not_hashed_for_the_one_that_was_read(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(AUSTEN.read_bytes())
    file = read(path)
    file.check_unchanged()
    other = tmp_path / "other"
    other.write_bytes(AUSTEN.read_bytes())
    os.replace(other, path)
    with pytest.raises(FileError, match="was changed or replaced while it was used"):
        file.sha256()


CUT = """
import os, sys
from pathlib import Path
from refmodel.gguf.reader import mapped
from refmodel.machine.truncated import say_so
path = Path(sys.argv[1])
data = mapped(path)
say_so([path])
os.truncate(path, 0)
print(data.sum())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the signal")
def test_a_mapped_file_that_is_cut_ends_the_process_with_a_line(tmp_path):
    (tmp_path / "m.gguf").write_bytes(bytes(1 << 16))
    done = subprocess.run([sys.executable, "-c", CUT, str(tmp_path / "m.gguf")], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"refmodel: {tmp_path / 'm.gguf'}: became shorter while it was read; ")
    assert done.stderr.count("\n") == 1


def test_a_program_that_handles_the_signal_itself_keeps_it():
    before = signal.signal(signal.SIGBUS, signal.SIG_IGN)
    try:
        kept = len(truncated.KEPT)
        truncated.say_so([Path("x")])
        assert len(truncated.KEPT) == kept
    finally:
        signal.signal(signal.SIGBUS, before)


# What is run, in a shell; the exit status; what stderr says. $A is a model, $R the program.
STREAMS = {
    "nobody reads": ("$R version | true; exit ${PIPESTATUS[0]}", 141, ""),
    "a full device": ("$R version > /dev/full", 2, "refmodel: what is printed: No space left on device\n"),
    "a full device, help": ("$R --help > /dev/full", 2, "refmodel: what is printed: No space left on device\n"),
    "no output": ("$R version >&-", 0, ""),
    "nowhere to complain": ("$R info /none 2> /dev/full", 2, ""),
    "no error output": ("$R info /none 2>&-", 2, ""),
    "wrong words": ("$R route --layers x y", 2, "refmodel: Invalid value for '--layers': 'x' is not a valid int"),
    "a number of 5000 digits": ("$R route x --layers $(printf '9%.0s' {1..5000})", 2, "refmodel: Invalid value for '--layers'"),
    "a name with escapes": (r"$R info $'/tmp/\e[31m\a[bold]:x:\nb'", 2, r"refmodel: /tmp/\x1b[31m\x07[bold]:x:\nb: no such file"),
    "a pipe": ("mkfifo f; $R info f", 2, "refmodel: f: cannot be opened: it is not a regular file"),
    "letters that ASCII lacks": ("PYTHONIOENCODING=ascii $R info $'/tmp/\u00e9'", 2, r"refmodel: /tmp/\xe9: no such file"),
    "no threads": ("NUMBA_NUM_THREADS=0 $R warmup", 2, "refmodel: the environment variable NUMBA_NUM_THREADS is '0'; expected"),
    "no compiler": ("NUMBA_DISABLE_JIT=1 $R warmup", 2, "refmodel: the environment variable NUMBA_DISABLE_JIT is '1'; expected 0"),
    "no colour": ("NO_COLOR=1 FORCE_COLOR=1 $R info /none", 2, "refmodel: /none: no such file"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams(name, tmp_path):
    words, status, says = STREAMS[name]
    done = refmodel(words, cwd=tmp_path)
    assert done.returncode == status
    assert done.stderr.decode().startswith(says)
    assert bool(says) == bool(done.stderr)
    assert done.stderr.count(b"\n") <= 1
    assert len(done.stderr) < 2000


def test_a_narrow_width_is_kept(tmp_path):
    done = refmodel("COLUMNS=40 $R info $A")
    assert max(map(len, done.stdout.decode().splitlines())) <= 40
    assert done.returncode == 0


def test_ctrl_c_while_the_program_starts_says_nothing():
    """From the moment on at which our own code runs. What runs in the background ignores Ctrl-C, so that is set back first."""
    program = (
        "import os, signal, refmodel.__main__ as m; s = signal.signal; s(signal.SIGINT, signal.default_int_handler);"
        "signal.signal = lambda n, f: (s(n, f), os.kill(os.getpid(), n))[0]; m.main()"
    )
    done = subprocess.run([sys.executable, "-c", program, "version"], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_a_full_disk_names_the_file(tmp_path):
    """A limit of the size of files is as a full disk: writing fails."""
    done = refmodel("ulimit -f 50; $R surgery $A --route blocks:5,7 -o copy.gguf", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.decode().lstrip().startswith(f"refmodel: copy.gguf: cannot be written: {os.strerror(errno.EFBIG)}")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_what_the_next_run_removes(tmp_path):
    """Killed at the moment at which a temporary file is there."""
    program = (
        "import os, sys; import refmodel.gguf.writer as w; w.write_part = lambda *a: os.kill(os.getpid(), 9);"
        "from refmodel.cli import main; sys.argv[1:] = sys.argv[1:]; main()"
    )
    words = ["surgery", str(AUSTEN), "--route", "blocks:5,7", "-o", str(tmp_path / "copy.gguf")]
    assert subprocess.run([sys.executable, "-c", program, *words]).returncode == -9
    (left,) = tmp_path.iterdir()
    assert partial.NAME.fullmatch(left.name)
    assert subprocess.run([sys.executable, "-m", "refmodel", *words], capture_output=True).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["copy.gguf"]


ENDS_WITH_PARENT = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from refmodel.speed.warmup import ready_worker

def number():
    return os.getpid()

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), ready_worker)
    print(pool.submit(os.getpid).result(), flush=True)
    os.kill(os.getpid(), 9)
"""


def test_a_worker_ends_with_its_parent(tmp_path):
    (tmp_path / "p.py").write_text(ENDS_WITH_PARENT)
    done = subprocess.run([sys.executable, str(tmp_path / "p.py")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    worker = int(done.stdout)  # the pipe is closed: nobody has it any more
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{worker}/stat").read_text().split()[2] == "Z":  # nobody collects orphans here
            return
        time.sleep(0.05)
    pytest.fail("the worker lives on")
