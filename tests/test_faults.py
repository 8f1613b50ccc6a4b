"""The contract of the fault library: a fault changes what it says, nothing before it, on every architecture that it claims."""

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tiny

from refmodel.arch import ARCHITECTURES
from refmodel.faults import library
from refmodel.faults.fault import LATER, PROMPT, SECOND, Engine, with_all
from refmodel.faults.sites import GROUPS, SITES, places
from refmodel.model.model import load
from refmodel.numerics import NUMPY

SEQUENCES = [[[5, 9, 200, 31, 7], [3]], [[8, 120]]]
WHEN = {PROMPT: (0, 0), LATER: (0, 1), SECOND: (1, 0)}
FAULTS = library.FAULTS
CLAIMS = [(name, arch) for name in FAULTS for arch in library.architectures(name)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Architecture -> the healthy engine of a tiny model; its base of RoPE is not the default one."""
    folder = tmp_path_factory.mktemp("models")

    @cache
    def of(arch):
        model = load(tiny.build(folder / f"{arch}.gguf", arch, n_layer=3, trained=True))
        return Engine(model.with_hparams(rope=replace(model.hp.rope, base=3e4)), NUMPY)

    return of


@pytest.fixture(scope="module")
def healthy(engine):
    """Architecture -> (sequence, call, tap) -> the healthy numbers."""
    return cache(lambda arch: dict(passes(engine(arch), {})))


def passes(engine, theirs):
    """Both sequences on one session; each tap goes on with `theirs`, where there is one. Yields what was computed."""
    rows, here = [], [0, 0]

    def tapper(name, x):
        key = (*here, name)
        rows.append((key, x.copy()))
        return theirs[key].copy() if key in theirs else x

    session = engine.session(tapper=tapper)
    for number, sequence in enumerate(SEQUENCES):
        if number:
            session.restart()
        for call, tokens in enumerate(engine.feed(sequence)):
            here[:] = number, call
            session.forward(tokens)
    return rows


def place(model, name):
    """The group and the tap of a full name: `Qcur-3#2` -> attention, Qcur#2."""
    number = re.search(r"-(\d+)(#|$)", name)
    if not number:
        return "", name
    return GROUPS[model.kinds[int(number[1])]], re.sub(r"-\d+(?=#|$)", "", name)


def test_the_library_has_no_two_faults_of_a_name():
    faults = [fault for family in library.FAMILIES for fault in family.FAULTS]
    assert len(faults) == len(FAULTS)
    assert all(fault.id == fault.name or re.fullmatch(r"F\d\d", fault.id) for fault in faults)
    assert not {fault.name for fault in faults} & {fault.id for fault in faults if fault.id != fault.name}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_described(name):
    fault = FAULTS[name]
    assert fault.says.endswith(".")
    assert ". " not in fault.says
    assert fault.evidence
    assert fault.fix
    assert library.architectures(name)
    assert fault.at
    assert set(fault.at) <= set(SITES)
    assert re.fullmatch(r"[a-z0-9-]+", name)
    assert library.the_one(name) is fault
    assert fault in library.named(fault.id)


@pytest.mark.parametrize(("name", "arch"), CLAIMS)
def test_a_fault_changes_what_it_says_and_nothing_else(name, arch, engine, healthy):
    """Every tap starts from healthy numbers, so what differs is what the fault does itself."""
    fault, base, theirs = FAULTS[name], engine(arch), healthy(arch)
    faulty = fault.on(base)
    assert faulty is not None
    if faulty.feed is not base.feed:
        return
    differ = {key for key, x in passes(faulty, theirs) if not np.array_equal(x, theirs[key], equal_nan=True)}
    changed = {place(base.model, tap) for _, _, tap in differ}
    assert changed == {(group, tap) for group, names in fault.touches(base.model).items() for tap in names}
    first = min(key[:2] for key in differ)
    assert first == WHEN[fault.when]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_faults_leave_the_healthy_engine_as_it_was(arch, engine, healthy):
    base = engine(arch)
    made = [fault.on(base) for fault in FAULTS.values()]
    assert any(made)
    assert np.array_equal(base.forward(SEQUENCES[0][0]), healthy(arch)[0, 0, "result_output"])


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_has_its_sites_in_its_pass(arch, engine, healthy):
    seen = {place(engine(arch).model, tap) for _, _, tap in healthy(arch)}
    mine = {(group, tap) for site in SITES for group, tap in places(site, arch).items()}
    dense = {("attention", tap) for tap in ("ffn_moe_probs", "ffn_moe_weights_norm", "ffn_moe_out")}
    assert mine - seen <= dense


def test_two_faults_are_both_there(engine):
    base, tokens = engine("qwen35"), SEQUENCES[0][0]
    a, b = FAULTS["rope-all-dims"], FAULTS["z-sigmoid"]
    logits = [e.forward(tokens) for e in (base, a.on(base), b.on(base), with_all([a, b], base), with_all([b, a], base))]
    assert len({x.tobytes() for x in logits}) == 4
    assert np.array_equal(logits[3], logits[4])
