"""The command line in processes of its own: the same bits from each, no network, and a clean end whatever ends it."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

AUSTEN = Path(__file__).parent.parent / "golden" / "models" / "austen-Q4_K_M.gguf"
PROGRAM = [sys.executable, "-m", "refmodel"]

# A process that ends as soon as anything is looked up or connected
NO_NETWORK = """
import os, sys
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto", "urllib.Request"):
        os.write(2, f"network: {event} {arguments}".encode())
        os._exit(99)
sys.addaudithook(hook)
from refmodel.cli import main
main()
"""
OFFLINE = [
    ["info", str(AUSTEN)],
    ["route", "blocks:5,7", "--model", str(AUSTEN)],
    ["surgery", str(AUSTEN), "--route", "blocks:5,7", "-o", "copy.gguf"],
]


@pytest.mark.parametrize("words", OFFLINE, ids=lambda words: words[0])
def test_no_command_asks_the_network(words, tmp_path):
    done = subprocess.run([sys.executable, "-c", NO_NETWORK, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_hook_of_the_network_ends_a_process():
    program = NO_NETWORK.replace("from refmodel.cli import main\nmain()", "import socket; socket.getaddrinfo('localhost', 1)")
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 99


@pytest.mark.long
@pytest.mark.parametrize("words", [["run", "austen", "-p", "Emma was", "-n", "3"], ["diff", "austen", "--against", "austen-trace"]])
def test_no_command_that_computes_asks_the_network(words, tmp_path):
    done = subprocess.run([sys.executable, "-c", NO_NETWORK, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("numerics", ["fast", "reference", "oracle", "llamacpp"])
def test_threads_processes_and_caches_change_no_bit(numerics, tmp_path):
    """One, two and four threads; another process; a cache that is cold."""
    digests = set()
    for name, environment in {
        "1": {"NUMBA_NUM_THREADS": "1"},
        "2": {"NUMBA_NUM_THREADS": "2"},
        "4": {"NUMBA_NUM_THREADS": "4"},
        "workqueue": {"NUMBA_THREADING_LAYER": "workqueue"},
        "cold": {"NUMBA_CACHE_DIR": str(tmp_path / "cache")},
    }.items():
        out = tmp_path / f"{name}.safetensors"
        words = ["trace", "austen", "-p", "Emma was very glad to see", "--decode", "3", "--numerics", numerics, "-o", out]
        done = subprocess.run([*PROGRAM, *map(str, words)], capture_output=True, text=True, env={**os.environ, **environment})
        assert done.returncode == 0, done.stderr
        digests.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_while_kernels_compile_ends_cleanly(threads, count, tmp_path):
    """Once and twice; no worker lives on, and nothing is said but the progress."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    words = [*PROGRAM, "warmup", str(AUSTEN), "--threads", str(threads)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, start_new_session=True) as child:
        time.sleep(6)
        for _ in range(count):
            os.killpg(child.pid, signal.SIGINT)
            time.sleep(0.05)
        out, err = child.communicate(timeout=100)  # the pipes are closed once no process has them
    assert child.returncode in (130, -signal.SIGINT)  # the second one may meet Python when it ends: a shell says 130 of both
    assert b"Traceback" not in err
    assert not out


@pytest.mark.long
def test_damaged_kernels_are_compiled_again(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    words = [*PROGRAM, "run", "austen", "--tokens", "1", "-n", "2", "--numerics", "oracle"]
    first = subprocess.run(words, capture_output=True, env=environment)
    assert first.returncode == 0
    damages = {
        "empty": lambda content: b"",
        "cut": lambda content: content[: len(content) // 2],
        "other": lambda content: bytes(reversed(content)),
    }
    for suffix in ("*.nbc", "*.nbi"):
        for name, damage in damages.items():
            for path in tmp_path.rglob(suffix):
                path.write_bytes(damage(path.read_bytes()))
            again = subprocess.run(words, capture_output=True, env=environment)
            assert (again.returncode, again.stdout) == (0, first.stdout), (suffix, name, again.stderr)


@pytest.mark.long
def test_killed_writers_leave_nothing_that_is_not_whole(tmp_path):
    """At thirty moments; what is left over is removed by the next run, and the source is what it was."""
    source, before = tmp_path / "m.gguf", AUSTEN.read_bytes()
    source.write_bytes(before)
    words = [*PROGRAM, "surgery", str(source), "--route", "blocks:5,7", "-o", str(tmp_path / "copy.gguf")]
    start = time.perf_counter()
    assert subprocess.run(words, capture_output=True).returncode == 0
    seconds, whole = time.perf_counter() - start, (tmp_path / "copy.gguf").read_bytes()
    for moment in range(30):
        (tmp_path / "copy.gguf").unlink(missing_ok=True)
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds * (0.5 + moment / 50))
        child.kill()
        child.wait()
        if (tmp_path / "copy.gguf").exists():
            assert (tmp_path / "copy.gguf").read_bytes() == whole
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.gguf", "m.gguf"]
    assert source.read_bytes() == before


@pytest.mark.long
@pytest.mark.parametrize("command", ["run", "trace", "verify"])
def test_a_model_that_is_cut_while_it_is_used_ends_with_a_line(command, tmp_path):
    source = tmp_path / "m.gguf"
    source.write_bytes(AUSTEN.read_bytes())
    copy = tmp_path / "copy.gguf"
    assert (
        subprocess.run([*PROGRAM, "surgery", str(source), "--route", "blocks:5,7", "-o", str(copy)], capture_output=True).returncode
        == 0
    )
    words = {
        "run": ["run", str(source), "--tokens", "1,2", "-n", "100000"],
        "trace": ["trace", str(source), "--tokens", ",".join(["1"] * 900), "-o", str(tmp_path / "t.npz")],
        "verify": ["verify", str(copy), "--source", str(source)],
    }[command]
    with subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        maps = Path(f"/proc/{child.pid}/maps")
        while child.poll() is None and str(source) not in maps.read_text():
            time.sleep(0.05)
        time.sleep(2)
        os.truncate(source, 300_000)
        _, err = child.communicate(timeout=300)
    assert child.returncode == 2
    assert str(source) in err.decode().splitlines()[-1]
    assert not list(tmp_path.glob("t.npz"))
