"""The dumpers of docs/howto/dump.md: each is short, compiles, and writes what refmodel reads."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from pages import ROOT

from refmodel.dumps.read import read

PAGE = (ROOT / "docs" / "howto" / "dump.md").read_text()
LANGUAGES = {  # the block's word -> the program that compiles or runs it, the file, the commands
    "c": ("gcc", "dump.c", [["gcc", "-std=c99", "-Wall", "-Werror", "-o", "dump", "dump.c"], ["./dump", "out"]]),
    "cpp": ("g++", "dump.cpp", [["g++", "-std=c++11", "-Wall", "-Werror", "-o", "dump", "dump.cpp"], ["./dump", "out"]]),
    "rust": ("rustc", "dump.rs", [["rustc", "--edition", "2021", "-D", "warnings", "dump.rs"], ["./dump", "out"]]),
    "swift": ("swiftc", "dump.swift", [["swiftc", "-o", "dump", "dump.swift"], ["./dump", "out"]]),
    "js": ("node", "dump.js", [["node", "dump.js", "out"]]),
}
LONGEST = 30


def program(language):
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_dumper_is_short(language):
    assert len(program(language).splitlines()) <= LONGEST


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_dumper_writes_what_is_read(language, tmp_path):
    tool, file, commands = LANGUAGES[language]
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not on this machine")
    (tmp_path / "out").mkdir()
    (tmp_path / file).write_text(program(language))
    for words in commands:
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    dump = read(tmp_path / "out")
    assert dump.calls == [[5, 6]]
    assert {name: x.read().tolist() for name, x in dump.arrays.items()} == {
        "layer_0": [[0, 1, 2], [3, 4, 5]],
        "logits": [[0.5, -1, 2, 7]],
    }
    assert all(x.read().dtype == np.float32 for x in dump.arrays.values())
