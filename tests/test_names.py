"""The tables of golden/names, and the walk along them."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refmodel.arch import ARCHITECTURES
from refmodel.errors import OracleError
from refmodel.llamacpp.nodes import FOLDER, Aligner, Entry, Verdict, normalised, parse, table

CACHES = {"cache_k_lN (view)": "cache_k-N", "cache_v_lN (view)": "cache_v-N", "cache_v_lN (reshaped) (view)": "cache_v-N"}

each_section = pytest.mark.parametrize(
    ("architecture", "section"), [(a, section) for a in ARCHITECTURES for section in table(a).sections]
)


def stream(architecture: str, sections: list[str]) -> list[tuple[str, str]]:
    """(op, name) of a whole graph of these sections, with numbers where llama.cpp has them, without optional nodes."""
    nodes: list[tuple[str, str]] = []
    for block, section in enumerate(sections, -1):
        for entry in table(architecture).sections[section]:
            name = entry.name.replace("_lN", f"_l{block}").replace("-N", f"-{block}").replace("node", f"node_{len(nodes)}")
            nodes += [] if entry.optional or entry.instead else [(entry.op, name)]
    return nodes


def walk(architecture: str, nodes: list[tuple[str, str]]) -> list[Verdict]:
    aligner = Aligner(table(architecture))
    verdicts = [aligner.feed(op, name) for op, name in nodes]
    aligner.end()
    return verdicts


def graphs() -> st.SearchStrategy[tuple[str, list[str]]]:
    """An architecture and the sections of a graph of one to four blocks."""

    def of(architecture: str) -> st.SearchStrategy[tuple[str, list[str]]]:
        kinds = st.lists(st.sampled_from(table(architecture).blocks), min_size=1, max_size=4)
        return kinds.map(lambda blocks: (architecture, ["head", *blocks, "tail"]))

    return st.sampled_from(list(ARCHITECTURES)).flatmap(of)


def test_there_is_a_table_for_each_architecture():
    assert sorted(ARCHITECTURES) == sorted(path.stem for path in FOLDER.glob("*.txt"))


def of_one_graph(architecture: str, section: str) -> list[Entry]:
    """The nodes of one graph: without those that are there instead of others."""
    return [entry for entry in table(architecture).sections[section] if not entry.instead]


@each_section
def test_what_is_there_instead_has_the_tap_of_a_line_that_it_replaces(architecture, section):
    entries = table(architecture).sections[section]
    assert entries
    for line, entry in enumerate(entries):
        assert entry.tap in [other.tap for other in entries[line - entry.instead : line + 1]]


@each_section
def test_a_tap_has_its_nodes_name_and_counts_the_earlier_ones(architecture, section):
    seen: Counter[str] = Counter()
    assert of_one_graph(architecture, section)
    for entry in of_one_graph(architecture, section):
        base = f"{entry.op.lower()}-N" if entry.name == "node" else entry.name
        base = base.removesuffix("-N") if section.startswith(("head", "tail")) else base
        if entry.tap.endswith("#bias"):
            assert (entry.optional, entry.op, entry.tap) == (True, "ADD", f"{base.replace('_b-', '-')}#bias")
            continue
        counted = f"{base}#{seen[base]}" if seen[base] else base
        seen[base] += 1
        expected = CACHES[entry.name] if entry.op == "SET_ROWS" else counted
        assert entry.tap in ("", expected)


@each_section
def test_every_node_is_compared_once_or_left_out_for_a_reason(architecture, section):
    entries = of_one_graph(architecture, section)
    taps = [entry.tap for entry in entries if entry.tap]
    assert len(taps) == len(set(taps))
    for entry in entries:
        assert bool(entry.tap) != bool(entry.reason)
        _, claims, others = entry.reason.partition("same numbers as ")
        if claims:
            assert set(others.removesuffix(", one behind the other").split(" and ")) <= set(taps)


@given(graphs())
def test_a_graph_is_walked_to_its_end(graph):
    architecture, sections = graph
    verdicts = walk(architecture, stream(architecture, sections))
    taps = [verdict.tap for verdict in verdicts if verdict.tap]
    assert len(taps) == len(set(taps))
    assert f"l_out-{len(sections) - 3}" in taps
    assert taps[-1] == "result_output"


@given(graphs(), st.data())
def test_a_node_too_few_is_noticed(graph, data):
    nodes = stream(*graph)
    lost = data.draw(st.integers(0, len(nodes) - 1))
    with pytest.raises(OracleError, match="where golden/names"):
        walk(graph[0], nodes[:lost] + nodes[lost + 1 :])


@given(graphs(), st.data())
def test_a_node_too_many_is_named(graph, data):
    nodes = stream(*graph)
    place = data.draw(st.integers(0, len(nodes)))
    with pytest.raises(OracleError, match="ADD 'sideways-0'"):
        walk(graph[0], [*nodes[:place], ("ADD", "sideways-0"), *nodes[place:]])


def test_a_node_of_another_block_is_unknown():
    nodes = stream("llama", ["head", "attention fa=off", "attention fa=off", "tail"])
    swapped = [(op, name.replace("Vcur-1", "Vcur-0")) for op, name in nodes]
    with pytest.raises(OracleError, match=r"MUL_MAT 'Vcur-0' in block 1, where golden/names/llama.txt has MUL_MAT Vcur-N"):
        walk("llama", swapped)


def test_optional_nodes_may_come():
    nodes = stream("llama", ["head", "attention fa=on", "tail"])
    after = nodes.index(("MUL_MAT", "attn_out-0")) + 1
    verdicts = walk("llama", [*nodes[:after], ("GET_ROWS", "node_90"), ("GET_ROWS", "node_91"), *nodes[after:]])
    assert [verdict.tap for verdict in verdicts[after : after + 2]] == ["", ""]


def test_a_node_may_come_instead_of_others_but_not_behind_them():
    nodes = stream("qwen3next", ["head", "delta", "tail"])
    last = nodes.index(("RESHAPE", "q_conv_predelta-0"))
    first = last - 3
    instead = ("SCALE", "q_conv_predelta-0")
    verdicts = walk("qwen3next", [*nodes[:first], instead, *nodes[last + 1 :]])
    assert verdicts[first].tap == "q_conv_predelta-0"
    for wrong in ([*nodes[: last + 1], instead, *nodes[last + 1 :]], [*nodes[: first + 1], instead, *nodes[last + 1 :]]):
        with pytest.raises(OracleError, match="SCALE 'q_conv_predelta-0'"):
            walk("qwen3next", wrong)


@pytest.mark.parametrize(
    ("name", "block", "plain"),
    [
        ("Kcur-3", 3, "Kcur-N"),
        ("Kcur-13", 3, "Kcur-13"),
        ("Kcur-3", 13, "Kcur-3"),
        ("node_57", 3, "node"),
        ("cache_k_l12 (view) (permuted)", 12, "cache_k_lN (view) (permuted)"),
        ("conv_state_update-0 (copy of conv_state_last-0)", 0, "conv_state_update-N (copy of conv_state_last-N)"),
        ("cache_r_l1 (view) (copy of )", 1, "cache_r_lN (view) (copy of )"),
        ("cache_r_l2 (reshaped)", 1, "cache_r_lN+1 (reshaped)"),
        ("cache_r_l0 (reshaped)", -1, "cache_r_lN+1 (reshaped)"),
        ("embd", -1, "embd"),
    ],
)
def test_what_changes_from_block_to_block_is_taken_out_of_a_name(name, block, plain):
    assert normalised(name, block) == plain


def test_an_architecture_without_a_table_is_refused_by_name():
    with pytest.raises(OracleError, match=r"'gemma9'; known: .*llama, mistral3, qwen2"):
        table("gemma9")


def test_a_line_that_cannot_be_read_is_named():
    with pytest.raises(OracleError, match=r"x.txt:3: .* found 'MUL_MAT Qcur-N'"):
        parse(["[head]", "# fine", "MUL_MAT Qcur-N"], Path("x.txt"))


def test_a_line_is_an_entry():
    lines = ["[head]", "? VIEW  cache_k_lN (view)  ! same numbers as cache_k-N", "MUL_MAT node = mul_mat-N#1", "|1 CONT x = x"]
    assert parse(lines, Path("x.txt"))["head"] == (
        Entry("VIEW", "cache_k_lN (view)", "", "same numbers as cache_k-N", optional=True),
        Entry("MUL_MAT", "node", "mul_mat-N#1", ""),
        Entry("CONT", "x", "x", "", instead=1),
    )
