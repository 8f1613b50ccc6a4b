"""The contract of the fault library: a fault changes what it says, nothing before it, on every architecture that it claims."""

import ast
import importlib.util
import inspect
import json
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tiny
from gguf import GGMLQuantizationType
from pages import ROOT
from typer.testing import CliRunner

from refmodel.arch import ARCHITECTURES
from refmodel.cli import app
from refmodel.commands.faulty import with_faults
from refmodel.errors import RefmodelError
from refmodel.faults import library
from refmodel.faults.fault import LATER, PROMPT, ROUTED, ROUTED_LATER, SECOND, SHORT, Engine, with_all
from refmodel.faults.sites import GROUPS, OPTIONAL, SITES, places, taps
from refmodel.model.model import load
from refmodel.numerics import NUMPY

SEQUENCES = [[[5, 9, 200, 31, 7], [3], [99]], [[8], [120]]]
ROUTE = [0, 1, 1, 2, 2]
WHEN = {PROMPT: (0, 0), LATER: (0, 1), SECOND: (1, 0), SHORT: (1, 0), ROUTED: (0, 0), ROUTED_LATER: (0, 1)}
UNDER_A_ROUTE = (ROUTED, ROUTED_LATER)
FAULTS = library.FAULTS


def some(name):
    """Two of the architectures that a fault claims, others for other faults; tests/many_faults.py takes them all."""
    claimed = library.architectures(name)
    first = sum(map(ord, name))
    return {claimed[(first + step) % len(claimed)] for step in (0, len(claimed) // 2)} if claimed else ()


CLAIMS = [(name, arch) for name in FAULTS for arch in sorted(some(name)) if not FAULTS[name].types]
TYPED = [(name, kind) for name, fault in FAULTS.items() for kind in fault.types[:2]]


def engine_of(path):
    """The healthy engine of a file; its base of RoPE is not the default one."""
    model = load(path)
    return Engine(model.with_hparams(rope=replace(model.hp.rope, base=3e4, scale=0.25)), NUMPY)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Architecture -> the healthy engine of a tiny model."""
    folder = tmp_path_factory.mktemp("models")
    return cache(lambda arch: engine_of(tiny.build(folder / f"{arch}.gguf", arch, n_layer=3, trained=True, tied=False)))


@pytest.fixture(scope="module")
def healthy(engine):
    """Architecture -> (sequence, call, tap) -> the healthy numbers."""
    return cache(lambda arch: dict(passes(engine(arch), {})))


@pytest.fixture(scope="module")
def routed(engine):
    """The same under ROUTE."""
    return cache(lambda arch: dict(passes(engine(arch), {}, ROUTE)))


def passes(engine, theirs, route=None):
    """Both sequences on one session; each tap goes on with `theirs`, where there is one. Yields what was computed."""
    rows, here = [], [0, 0]

    def tapper(name, x):
        key = (*here, name)
        rows.append((key, x.copy()))
        return theirs[key].copy() if key in theirs else x

    session = engine.session(route, tapper)
    for number, sequence in enumerate(SEQUENCES):
        if number:
            session.restart()
        for call, tokens in enumerate(engine.feed(sequence)):
            here[:] = number, call
            session.forward(tokens)
    return rows


def place(model, name, route=None):
    """The group and the tap of a full name: `Qcur-3#2` -> attention, Qcur#2."""
    number = re.search(r"-(\d+)(#|$)", name)
    if not number:
        return "", name
    source = (route or range(model.n_layer))[int(number[1])]
    return GROUPS[model.kinds[source]], re.sub(r"-\d+(?=#|$)", "", name)


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
def test_a_fault_changes_what_it_says_and_nothing_else(name, arch, engine, healthy, routed):
    """Every tap starts from healthy numbers, so what differs is what the fault does itself."""
    theirs = routed if FAULTS[name].when in UNDER_A_ROUTE else healthy
    keeps_its_contract(FAULTS[name], engine(arch), theirs(arch))


@pytest.mark.parametrize(("name", "kind"), TYPED)
def test_a_fault_of_a_type_changes_products_with_it(name, kind, tmp_path):
    sizes = {"E": 256, "F": 256, "H": 4, "G": 2, "D": 64, "n_rot": 64, "n_layer": 1}
    path = tiny.build(tmp_path / "m.gguf", "llama", types=lambda tensor: GGMLQuantizationType[kind], **sizes)
    base = engine_of(path)
    keeps_its_contract(FAULTS[name], base, dict(passes(base, {})))


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.family in ("tokens", "surgery")])
def test_a_fault_of_a_harness_changes_the_logits(name, engine):
    """Of the last token, under a route that repeats a block before the last one."""
    base, route = engine(library.architectures(name)[0]), [0, 1, 0, 1, 2]
    tokens = [base.model.n_vocab - 3, 9, 200, 31, 7]  # the first one begins a sequence
    logits = [e.session(route).forward(e.fed(tokens))[-1] for e in (base, FAULTS[name].on(base))]
    assert not np.array_equal(*logits)


def keeps_its_contract(fault, base, theirs):
    """Assert that a fault changes all of its sites and nothing else, first in the call that it says."""
    faulty, arch = fault.on(base), base.model.architecture
    assert faulty is not None
    if faulty.feed is not base.feed or faulty.follow is not base.follow:
        return
    route = ROUTE if fault.when in UNDER_A_ROUTE else None
    differ = {key for key, x in passes(faulty, theirs, route) if not np.array_equal(x, theirs[key], equal_nan=True)}
    changed = {place(base.model, tap, route) for _, _, tap in differ}
    changed = {(group, tap) for group, tap in changed if tap in taps(arch, base.model.hp.n_expert > 0)[group]}
    mine = {(group, tap) for group, names in fault.touches(base.model).items() for tap in names}
    assert changed
    in_part = fault.family in ("quantization", "loading")  # of some types, or of some blocks
    assert changed <= mine if in_part else changed == mine
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
    mine = {
        (group, tap)
        for site in SITES
        if site not in OPTIONAL
        for group, tap in places(site, arch, engine(arch).model.hp.n_expert > 0).items()
    }
    assert mine <= seen


def test_two_faults_are_both_there(engine):
    base, tokens = engine("qwen35"), SEQUENCES[0][0]
    a, b = FAULTS["rope-all-dims"], FAULTS["z-sigmoid"]
    logits = [e.forward(tokens) for e in (base, a.on(base), b.on(base), with_all([a, b], base), with_all([b, a], base))]
    assert len({x.tobytes() for x in logits}) == 4
    assert np.array_equal(logits[3], logits[4])


def test_a_name_that_is_not_known_is_answered_with_the_nearest():
    with pytest.raises(RefmodelError, match="did you mean rope-all-dims"):
        library.named("rope-all-dim")
    with pytest.raises(RefmodelError, match="F39: has 2 forms; name one: z-sigmoid, gate-before-norm"):
        library.the_one("F39")


def test_the_commands_list_run_and_compare(tmp_path):
    listed = CliRunner().invoke(app, ["faults", "--json"])
    assert {f["name"] for f in json.loads(listed.stdout)} == set(FAULTS)
    assert {"id", "name", "family", "architectures"} <= json.loads(listed.stdout)[0].keys()
    assert "ssm.group_count" in CliRunner().invoke(app, ["faults", "delta-heads-grouped"]).stdout
    path = str(tiny.build(tmp_path / "m.gguf", "qwen35", n_layer=3))
    words = [path, "--tokens", "5,9,200,31", "--numerics", "numpy"]
    texts = {CliRunner().invoke(app, ["run", *words, "-n", "3", *more, "--json"]).stdout for more in ([], ["--fault", "z-sigmoid"])}
    assert len(texts) == 2
    compared = CliRunner().invoke(app, ["diff", *words, "--fault", "z-sigmoid", "--json"])
    assert compared.exit_code == 1
    assert {row["name"].partition("-")[0] for row in json.loads(compared.stdout)["operations"] if not row["within"]} == {"silu"}
    trace = str(tmp_path / "t.safetensors")
    assert CliRunner().invoke(app, ["trace", *words, "--fault", "z-sigmoid", "-o", trace]).exit_code == 0
    compared = CliRunner().invoke(app, ["diff", path, "--against", trace, "--anchor-nodes", "--json"])
    assert "with the fault z-sigmoid" in compared.stdout
    assert {row["name"].partition("-")[0] for row in json.loads(compared.stdout)["operations"] if not row["within"]} == {"silu"}


def test_a_fault_that_makes_no_difference_is_refused(tmp_path):
    path = str(tiny.build(tmp_path / "m.gguf", "llama"))
    with pytest.raises(RefmodelError, match=r"--fault z-sigmoid: makes no difference to .*; typical files of qwen35"):
        with_faults(load(path), NUMPY, "z-sigmoid")
    with pytest.raises(RefmodelError, match="leave out the rest"):
        CliRunner().invoke(app, ["diff", path, "--tokens", "5", "--fault", "rope-pairing", "--explain"], catch_exceptions=False)


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_right_is_a_function_here(name):
    module, _, function = FAULTS[name].right.partition(":")
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_the_page_has_the_library():
    spec = importlib.util.spec_from_file_location("faults", ROOT / "docs" / "faults.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    assert page.page_with(page.table()) == page.PAGE.read_text(), "run python docs/faults.py"
