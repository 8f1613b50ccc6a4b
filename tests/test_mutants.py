"""A few mutants of each format; tests/many_mutants.py runs very many."""

import signal

import mutants
import pytest

EACH = {"template": 0, "gguf": 60, "gguf split": 15, "folder": 15}  # of the others 40


@pytest.mark.parametrize("name", mutants.FORMATS)
def test_a_mutant_is_read_or_refused_in_one_line(name, monkeypatch):
    before = signal.signal(signal.SIGPROF, mutants.late)
    monkeypatch.setattr(mutants, "SECONDS", 60.0)  # a cold cache: the script holds the time
    try:
        found = {seed: mutants.outcome(name, seed) for seed in range(EACH.get(name, 40))}
    finally:
        signal.signal(signal.SIGPROF, before)
    assert not {seed: said for seed, said in found.items() if said not in ("read", "refused")}


def test_a_mutant_is_known_by_its_seed():
    import random

    data = mutants.models()[0]
    made = [[mutants.gguf_mutant(random.Random(seed), data) for seed in range(20)] for _ in range(2)]
    assert made[0] == made[1]
    assert len(set(made[0])) == 20
