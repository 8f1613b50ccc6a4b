"""Every command on a machine that fails: what is left of it must be a line and a status, and no file that is not whole.

    python tests/many_breakdowns.py breakdowns.jsonl [--only full,cut] [--commands surgery,trace]

Linux only, as root: each circumstance is made in a mount namespace of its own (unshare). A command that fails ends with status 2
and one line; one that is not concerned ends with 0. The status, the end of standard error and what is wrong are kept. The
exit status is 1 if anything is wrong. Not collected by pytest: it starts some hundreds of processes.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

AUSTEN = HERE.parent / "golden" / "models" / "austen-Q4_K_M.gguf"
PROGRAM = f"{sys.executable} -m refmodel"
FEW = "--tokens 5,9,200,31,7 --numerics numpy"
COMMANDS = {
    "info": "info {m}",
    "info-json": "info {m} --json",
    "run": "run {m} --tokens 5,9 -n 4 --numerics numpy",
    "several": "run {austen} -p Emma -p She -n 4 --numerics numpy",
    "diff": "diff {m} --against {here}/t.safetensors --numerics numpy --html {out}/r.html --png {out}/r.png",
    "diff-md": "diff {m} --against {here}/t.safetensors --numerics numpy --md",
    "faults": "faults",
    "diagnose": "diagnose {m} --against {here}/t.safetensors --html {out}/r.html",
    "trace": f"trace {{m}} {FEW} -o {{out}}/o.safetensors",
    "trace-npz": f"trace {{m}} {FEW} -o {{out}}/o.npz",
    "anatomy": f"anatomy {{m}} {FEW} --html {{out}}/r.html --png {{out}}/r.png",
    "route": "route blocks:5,7 --layers 12",
    "route-recover": "route --recover {here}/c.gguf --source {m}",
    "surgery": "surgery {m} --route blocks:5,7 -o {out}/o.gguf",
    "surgery-split": "surgery {m} --route blocks:5,7 -o {out}/o.gguf --split-max-tensors 50",
    "verify": "verify {here}/c.gguf --source {m} --no-forward --html {out}/r.html",
    "warmup": "warmup {tiny} --numerics oracle",
    "version": "version",
    "golden-record": f"golden record {{m}} {FEW} -o {{out}}/o.safetensors",
    "golden-check": "golden check {here}/g.safetensors --model {m} --numerics numpy --html {out}/r.html",
    "golden-show": "golden show {here}/g.safetensors",
    "dumps-match": "dumps match {here}/t.safetensors --model {m} --tokens 5,9,200,31,7 -o {out}/o.toml",
    "dumps-write": f"dumps write {{m}} {FEW} --as results -o {{out}}/o.gguf",
    "sweep": "sweep {austen} --windows size=12 --probe nll:{here}/t.txt --tokens 8 --numerics numpy --full -o {out}/o.db",
    "sweep-show": "sweep show {here}/s.db --html {out}/r.html --ng {out}/o.pkl",
    "sweep-jsonl": "sweep show {here}/s.db --jsonl",
    "sweep-trial": "sweep trial {here}/s.db {here}/s.db",
}
MADE = {"trace": "t.safetensors", "surgery": "c.gguf", "golden-record": "g.safetensors", "sweep": "s.db"}
OWN_FILES = ("o.db-wal", "o.db-shm", "o.db")  # SQLite's


@dataclass(frozen=True)
class Circumstance:
    """What is wrong with the machine.

    words   of a shell, before {run}, which is the command; {out}, {here} and {free} are folders
    right   the statuses that are right for a command that writes files
    others  those of the other commands
    kept    whether what was written whole may be there although the status is another
    """

    words: str
    right: tuple[int, ...]
    others: tuple[int, ...] = (0, 1)
    kept: bool = False


PATIENCE = 1800  # seconds for a command: a machine may be busy
DONE = (0, 1)  # a comparison may fail: that is an answer
CIRCUMSTANCES = {
    "well": Circumstance("{run}", DONE),
    "read-only": Circumstance("mount --bind -r {out} {out} && {run}", (2,)),
    "missing": Circumstance("rmdir {out} && {run}", (2,)),
    "full": Circumstance("mount -t tmpfs -o size=16k none {out} && dd if=/dev/zero of={out}/x bs=4k 2>/dev/null; {run}", (2,)),
    "nearly full": Circumstance("mount -t tmpfs -o size=24k none {out} && {run}", (0, 1, 2)),
    "nowhere to print": Circumstance("{run} >/dev/full", (2,), (2,), kept=True),
    "standard output is closed": Circumstance("{run} >&-", DONE),
    "one line is read": Circumstance("{run} | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}", (0, 1, 141), (0, 1, 141), kept=True),
    "no cache": Circumstance(
        "mount -t tmpfs -o ro none {free} && NUMBA_CACHE_DIR={free}/c XDG_CACHE_HOME={free} HOME={free} {run}", DONE
    ),
    "no temporary folder": Circumstance(
        "for d in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o ro none $d; done; {run}", (0, 1, 2), (0, 1, 2)
    ),
    "no shared memory": Circumstance("mount -t tmpfs -o ro none /dev/shm && {run}", DONE),
    "plain terminal": Circumstance("LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0 NO_COLOR=1 COLUMNS=40 {run}", DONE),
    "no home": Circumstance("env -i PATH=$PATH PYTHONPATH=$PYTHONPATH {run}", DONE),
    "few files": Circumstance("ulimit -n 20; {run}", (0, 1, 2), (0, 1, 2)),
    "small files only": Circumstance("ulimit -f 8; trap '' XFSZ; {run}", (0, 1, 2), (0, 1, 2)),
    "one core": Circumstance("taskset -c 0 {run}", DONE),
}


def filled(name: str, here: Path, out: Path) -> str:
    """A command's words."""
    return PROGRAM + " " + COMMANDS[name].format(m=here / "m.gguf", tiny=here / "tiny.gguf", austen=AUSTEN, here=here, out=out)


def writes(name: str) -> bool:
    return "{out}" in COMMANDS[name]


def shell(words: str, seconds: float = PATIENCE) -> subprocess.CompletedProcess:
    """A shell with mounts of its own."""
    line = ["unshare", "--mount", "bash", "-c", words]
    return subprocess.run(line, capture_output=True, text=True, errors="replace", timeout=seconds, stdin=subprocess.DEVNULL)


def said(err: str) -> list[str]:
    """The lines that say why a command failed."""
    return [line for line in err.splitlines() if line.startswith("refmodel: ")]


def faults(status: int, right: tuple[int, ...], err: str, left: list[str]) -> list[str]:
    """What is wrong with the end of a command."""
    found = []
    if status not in right:
        found.append(f"status {status}")
    if "Traceback" in err or "Exception ignored" in err:
        found.append("a traceback")
    if status == 2 and len(said(err)) != 1:
        found.append(f"{len(said(err))} lines say why")
    return found + [f"left: {name}" for name in left]


def strangers(out: Path, kept: bool) -> list[str]:
    """Names that a command has left; what is whole counts too, unless it may be kept. A ledger that was begun is a ledger."""
    names = [path.name for path in out.iterdir() if path.name not in OWN_FILES] if out.exists() else []
    return [name for name in names if not kept or name.endswith(".partial")]


def in_circumstance(name: str, command: str, here: Path, folder: Path) -> dict[str, object]:
    out, free = folder / "out", folder / "free"
    out.mkdir(parents=True)
    free.mkdir()
    made = CIRCUMSTANCES[name]
    words = made.words.format(run=filled(command, here, out), out=out, here=here, free=free)
    begin = time.perf_counter()
    done = shell(words)
    left = strangers(out, made.kept or done.returncode in DONE)
    right = made.right if writes(command) else made.others
    wrong = faults(done.returncode, right, done.stderr, left)
    return {"status": done.returncode, "seconds": round(time.perf_counter() - begin, 1), "wrong": wrong, "said": done.stderr[-600:]}


def interrupted(command: str, here: Path, folder: Path, r: random.Random) -> dict[str, object]:
    """Ctrl-C at a random moment, once or twice: half a second later nothing runs, nothing is said, nothing is left."""
    (out := folder / "out").mkdir(parents=True)
    after, twice = r.uniform(0.05, 2.5), r.random() < 0.3
    words = filled(command, here, out).split()
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True) as child:
        try:
            child.wait(after)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGINT)
        begin = time.process_time(), time.perf_counter()
        if twice and child.poll() is None:
            time.sleep(0.03)
            os.killpg(child.pid, signal.SIGINT)
        _, err = child.communicate(timeout=60)
    took = time.perf_counter() - begin[1]
    left = strangers(out, child.returncode in DONE)
    wrong = faults(child.returncode, (0, 1, 130, -signal.SIGINT), err, left) if after > 0.3 else []
    return {"status": child.returncode, "after": round(after, 2), "took": round(took, 2), "wrong": wrong, "said": err[-600:]}


def together(command: str, here: Path, folder: Path) -> dict[str, object]:
    """Two processes at once: the file of one of them is there, whole."""
    (out := folder / "out").mkdir(parents=True)
    words = filled(command, here, out).split()
    children = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errs = [child.communicate(timeout=PATIENCE)[1] for child in children]
    statuses = [child.returncode for child in children]
    wrong = [fault for child, err in zip(children, errs) for fault in faults(child.returncode, (0, 1, 2), err, [])]
    wrong += ["none is done"] * (min(statuses) not in DONE) + [f"left: {n}" for n in strangers(out, True)]
    return {"status": statuses, "wrong": wrong, "said": "".join(errs)[-600:]}


def cut(command: str, here: Path, folder: Path, r: random.Random) -> dict[str, object]:
    """The model becomes shorter at a random moment: a line and status 2, or the command was done before."""
    (out := folder / "out").mkdir(parents=True)
    own = folder / "own"
    shutil.copytree(here, own)
    words = filled(command, own, out).split()
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        time.sleep(after := r.uniform(0.1, 2))
        os.truncate(own / "m.gguf", r.choice([0, 1000, 20_000, 60_000]))
        _, err = child.communicate(timeout=PATIENCE)
    wrong = faults(child.returncode, (0, 1, 2), err, strangers(out, child.returncode in DONE))
    return {"status": child.returncode, "after": round(after, 2), "wrong": wrong, "said": err[-600:]}


ALIVE: dict[str, Callable[[str, Path, Path, random.Random], dict[str, object]]] = {
    "Ctrl-C": interrupted,
    "two at once": lambda command, here, folder, r: together(command, here, folder),
    "cut": cut,
}


def sources(here: Path) -> None:
    """What the commands read, made by themselves."""
    import english
    import tiny

    here.mkdir()
    tiny.build(here / "m.gguf", "llama", n_layer=8)
    tiny.build(here / "tiny.gguf", "llama", n_layer=1)
    (here / "t.txt").write_text(english.TEXT[:400])
    for command, name in MADE.items():
        (out := here / "out").mkdir()
        done = shell(filled(command, here, out))
        assert done.returncode == 0, done.stderr
        next(path for path in out.iterdir() if path.suffix == Path(name).suffix).rename(here / name)
        shutil.rmtree(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a line for each command in each circumstance")
    parser.add_argument("--only", default=",".join([*CIRCUMSTANCES, *ALIVE]))
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--times", type=int, default=3, help="of what happens at random moments")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has it ignored, and children inherit that
    count = bad = 0
    with TemporaryDirectory(prefix="breakdowns-", dir=HERE.parent.parent) as name, given.file.open("a") as file:
        sources(here := Path(name) / "here")
        for what in given.only.split(","):
            for command in given.commands.split(","):
                for turn in range(given.times if what in ALIVE else 1):
                    r, folder = random.Random(f"{what} {command} {turn} {given.seed}"), Path(name) / f"{count}"
                    row = ALIVE[what](command, here, folder, r) if what in ALIVE else in_circumstance(what, command, here, folder)
                    shutil.rmtree(folder)
                    count, bad = count + 1, bad + bool(row["wrong"])
                    file.write(json.dumps({"what": what, "command": command, "turn": turn} | row) + "\n")
                    file.flush()
                    if row["wrong"]:
                        print(f"{what}, {command}: {row['wrong']}: {str(row['said'])[-300:]}", flush=True)
            print(f"{what}: so far {bad} of {count} are wrong", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
