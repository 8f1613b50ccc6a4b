"""Graphs of other versions: a recorded list of nodes, with nodes that are named otherwise, fused, split, new or gone."""

import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shares import only
from strategies import examples

import refmodel
from refmodel.compare.other_side import recorded
from refmodel.compare.verdict import WRONG, judge
from refmodel.forward.taps import in_call
from refmodel.forward.trace import Spool, Trace
from refmodel.llamacpp.graph import Definitions, of_block, roots
from refmodel.llamacpp.nodes import UnknownNode, table
from refmodel.llamacpp.placing import Placed, Placing
from refmodel.report.diff import verdict_line

TABLE = table("qwen35")


@pytest.fixture(scope="module")
def trace(golden):
    return Trace(golden / "traces" / "qwen35" / "route.safetensors")


@pytest.fixture(scope="module")
def calls(trace):
    return json.loads(trace.metadata["nodes"])


@pytest.fixture(scope="module")
def nodes(calls):
    return calls[0]


def placed(nodes):
    """The verdicts on the nodes, and tap -> whether it is judged."""
    verdicts = Placing(nodes, TABLE).verdicts()
    return verdicts, {verdict.tap: verdict.more["judged"] for verdict in verdicts if verdict.tap}


def taps(nodes):
    return {node["tap"] for node in nodes if node["tap"]}


def edited(nodes, edits):
    """A list with some nodes replaced by others: number -> new nodes, the last of which takes its place.

    A new node names its sources by their old numbers; -1 is the new node before it. A node that is replaced by none shows its first
    source.
    """
    out, at = [], {}
    for i, node in enumerate(nodes):
        if i in edits and not edits[i]:
            at[i] = at[node["src"][0]]
            continue
        for new in edits.get(i, [node]):
            sources = [source if isinstance(source, str) else len(out) - 1 if source < 0 else at[source] for source in new["src"]]
            out.append({**new, "src": sources})
        at[i] = len(out) - 1
    return out


def find(nodes, name, op=None):
    return next(i for i, node in enumerate(nodes) if node["name"] == name and op in (None, node["op"]))


def like(node, **changes):
    return {**node, **changes}


# --- the recorded graph -------------------------------------------------------------------------------------------------


def test_the_tables_own_graph_is_placed_as_the_walk_places_it(calls):
    for nodes in calls:
        verdicts, judged = placed(nodes)
        assert [verdict.tap for verdict in verdicts] == [node["tap"] for node in nodes]
        assert all(judged.values())
        assert not any("unknown" in verdict.more for verdict in verdicts)


def test_every_line_with_a_tap_says_what_it_is_computed_from():
    """But for what no graph of one sequence has, and for second names of the same numbers."""
    for architecture in ("llama", "qwen2", "qwen3", "qwen35", "gemma3"):
        entries = [entry for section in table(architecture).sections.values() for entry in section if entry.tap]
        assert sum(not entry.made for entry in entries) <= 4
        for entry in entries:
            assert all(re.fullmatch(r"[A-Z0-9_]+\(.+\)", made) for made in entry.made)


def test_a_definition_names_sources_by_tap_and_tensor(nodes):
    graph = Definitions(nodes, {roots(nodes)[i]: node["tap"] for i, node in enumerate(nodes) if node["tap"]})
    made = {node["tap"]: graph.of(graph.roots[i]) for i, node in enumerate(nodes) if node["tap"]}
    assert made["alpha-1"] == "MUL_MAT(blk.1.ssm_alpha.weight, attn_norm-1)"
    assert made["attn_pregate-3"] == "PERMUTE(kqv-3)"
    assert made["norm-1"] == "RMS_NORM(l_out-0)"
    assert of_block(made["norm-1"], 1, "model.input_embed") == "RMS_NORM(input)"
    assert of_block(made["norm-0"], 0, "model.input_embed") == "RMS_NORM(input)"
    assert of_block("ADD(input, l_out-11)", 1, "embd") == "ADD(input, l_out-11)"


# --- other names --------------------------------------------------------------------------------------------------------


def test_without_any_name_nothing_is_taken_for_something_else(nodes):
    bare = [like(node, name=f"node_{i}") for i, node in enumerate(nodes)]
    verdicts, judged = placed(bare)
    for node, verdict in zip(nodes, verdicts, strict=True):
        root = roots(nodes)[nodes.index(node)]
        same = {nodes[i]["tap"] for i, r in enumerate(roots(nodes)) if r == root}
        assert verdict.tap == "" or verdict.tap in same
    unsure = {re.sub(r"-\d+", "", tap) for tap, is_judged in judged.items() if not is_judged}
    assert unsure == {"state_predelta", "conv_states_reshaped"}  # what is written to these states is not known then
    lost = {re.sub(r"-\d+", "", tap) for tap in taps(nodes) - set(judged)}
    assert {"q_conv", "k_conv", "v_conv_predelta"} <= lost  # views of one tensor: only their names tell them apart


@settings(max_examples=examples(10))
@given(data=st.data())
def test_one_other_name_costs_at_most_what_hangs_on_it(nodes, data):
    i = data.draw(st.integers(0, len(nodes) - 1))
    _, judged = placed([like(node, name="something else") if k == i else node for k, node in enumerate(nodes)])
    assert set(judged) <= taps(nodes)
    assert len(taps(nodes) - set(judged)) <= 2  # a view of which there are three, and its norm


def test_names_that_are_exchanged_do_not_exchange_the_nodes(nodes):
    a, b = find(nodes, "ffn_gate-2"), find(nodes, "ffn_up-2")
    verdicts, judged = placed(edited(nodes, {a: [like(nodes[a], name="ffn_up-2")], b: [like(nodes[b], name="ffn_gate-2")]}))
    assert (verdicts[a].tap, verdicts[b].tap) == ("ffn_gate-2", "ffn_up-2")
    assert all(judged.values())


def test_a_name_that_is_another_operations_now_is_not_believed(nodes):
    i = find(nodes, "ffn_out-2")
    source, residual = nodes[i]["src"][1], find(nodes, "attn_residual-2")
    verdicts, judged = placed(edited(nodes, {i: [like(nodes[i], op="ADD", src=[source, residual])]}))
    assert "ffn_out-2" not in judged
    assert verdicts[i].more == {"unknown": True}
    assert judged.get("l_out-2") is not True


# --- fused, split, new, gone --------------------------------------------------------------------------------------------


def fuse_norm(nodes):
    """The norm and its product with the weights are one operation."""
    norm = find(nodes, "norm-1")
    weighted = find(nodes, "attn_norm-1")
    fused = like(nodes[weighted], op="RMS_NORM_MUL", src=[nodes[norm]["src"][0], *nodes[weighted]["src"][1:]])
    return {weighted: [fused], norm: []}, {"norm-1", "attn_norm-1"}, {"RMS_NORM_MUL attn_norm-1"}


def split_product(nodes):
    """One product is two, and their sum."""
    i = find(nodes, "ffn_out-1")
    halves = [like(nodes[i], op="MUL_MAT_HALF", name="ffn_out_a-1"), like(nodes[i], op="MUL_MAT_HALF", name="ffn_out_b-1")]
    return {i: [*halves, like(nodes[i], op="SUM_OF", src=[-1])]}, {"ffn_out-1"}, {"MUL_MAT_HALF ffn_out_a-1", "SUM_OF ffn_out-1"}


def new_node(nodes):
    """Something is computed that no table has."""
    i = find(nodes, "ffn_out-1")
    return {i: [nodes[i], like(nodes[i], op="CLAMP", name="ffn_out_clamped-1", src=[-1])]}, set(), {"CLAMP ffn_out_clamped-1"}


def another_norm(nodes):
    """An operation is another one, under its old name, and the one before it is gone."""
    norm, scaled = find(nodes, "q_conv-1") + 1, find(nodes, "q_conv_predelta-1")
    assert nodes[norm]["op"] == "RMS_NORM"
    other = like(nodes[scaled], op="L2_NORM", src=nodes[norm]["src"])
    return {norm: [], scaled: [other]}, {"rms_norm-1", "q_conv_predelta-1"}, {"L2_NORM q_conv_predelta-1"}


CHANGES = [fuse_norm, split_product, new_node, another_norm]
each_change = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)


@each_change
def test_what_is_not_known_is_listed_and_the_rest_goes_on(nodes, change):
    edits, lost, strangers = change(nodes)
    graph = edited(nodes, edits)
    verdicts, judged = placed(graph)
    assert taps(nodes) - set(judged) == lost
    found = {f"{node['op']} {node['name']}" for node, verdict in zip(graph, verdicts, strict=True) if verdict.more.get("unknown")}
    assert strangers <= found
    unjudged = {tap for tap, is_judged in judged.items() if not is_judged}
    assert 1 <= len(unjudged) <= 4  # what is computed from it, and no more
    assert all(tap.endswith("-1") for tap in unjudged)


def test_views_that_are_gone_or_more_change_nothing(nodes):
    views = [i for i, node in enumerate(nodes) if node["op"] in ("RESHAPE", "CONT") and isinstance(node["src"][0], int)]
    gone = {i: [] for i in views if not nodes[i]["tap"]}
    more = {i: [nodes[i], like(nodes[i], op="RESHAPE", name="(reshaped)", src=[-1])] for i in range(0, len(nodes), 7)}
    for edits in (gone, more):
        _, judged = placed(edited(nodes, edits))
        assert set(judged) == taps(nodes)
        assert all(judged.values())


def test_an_order_of_its_own_changes_nothing(nodes):
    """Keys before values and queries: the graph is the same."""
    order = sorted(range(len(nodes)), key=lambda i: (depth(nodes)[i], -i))
    at = {i: k for k, i in enumerate(order)}
    turned = [{**nodes[i], "src": [at[s] if isinstance(s, int) else s for s in nodes[i]["src"]]} for i in order]
    assert [node["name"] for node in turned] != [node["name"] for node in nodes]
    _, judged = placed(turned)
    assert set(judged) == taps(nodes)
    assert all(judged.values())


def depth(nodes):
    found = []
    for node in nodes:
        found.append(1 + max((found[source] for source in node["src"] if isinstance(source, int)), default=0))
    return found


def test_a_part_of_a_sum_is_not_the_sum():
    """The experts' outputs are added one by one: each partial sum has the words of the whole."""
    node = lambda op, name, src, ne=(8, 5, 1, 1): {"op": op, "name": name, "ne": list(ne), "src": src}
    views = [node("VIEW", "v", [0], (8, 1, 5, 1)) for _ in range(3)]
    sums = [node("ADD", "node_1", [1, 2]), node("ADD", "ffn_moe_out-0", [4, 3])]
    graph = Definitions([node("MUL", "ffn_moe_weighted-0", [], (8, 3, 5, 1)), *views, *sums], {0: "ffn_moe_weighted-0"})
    assert graph.of(4) == graph.of(5) == "ADD(VIEW(ffn_moe_weighted-0), ...)"
    verdicts = Placing(
        [like(node("MUL", "w", ["blk.0.ffn_gate_inp.weight"], (8, 3, 5, 1))), *views, *sums], table("qwen3moe")
    ).verdicts()
    assert "ffn_moe_out-0" not in [verdict.tap for verdict in verdicts[:5]]


@pytest.mark.parametrize(("state", "read"), [("cache_s_l0", "state_predelta-0"), ("cache_r_l0", "conv_states_reshaped-0")])
def test_a_state_that_is_written_otherwise_is_not_judged_where_it_is_read(state, read, nodes):
    """llama.cpp b8121 kept the states of the delta rule transposed: what is read is not what the table means."""
    written = next(i for i in Definitions(nodes).written(state))
    copy = next(i for i, node in enumerate(nodes) if node["op"] == "CPY" and node["src"][0] == written)
    turned = edited(
        nodes, {copy: [like(nodes[copy], op="TRANSPOSE", name="t", src=[written]), like(nodes[copy], src=[-1, written + 1])]}
    )
    _, judged = placed(turned)
    assert set(judged) == taps(nodes)
    assert {tap for tap, is_judged in judged.items() if not is_judged} == {read}


def test_a_node_without_a_name_is_not_taken_for_another_one(nodes):
    at = find(nodes, "final_output-0")
    strange = edited(nodes, {at: [like(nodes[at], op="MUL", name="node_7", src=nodes[find(nodes, "z-0")]["src"] * 2), nodes[at]]})
    verdicts, _ = placed(strange)
    assert [verdict.reason for verdict in verdicts if verdict.more.get("unknown")] == [
        "not known here: MUL(attn_norm-0, blk.0.attn_gate.weight, ...)"
    ]


def test_a_head_that_is_the_embedding_is_the_head(nodes):
    at = find(nodes, "result_output")
    tied = edited(nodes, {at: [like(nodes[at], src=["token_embd.weight", *nodes[at]["src"][1:]])]})
    assert placed(tied)[1]["result_output"]


def test_another_graph_than_the_one_that_was_listed_is_noticed(nodes):
    follower = Placed([nodes, nodes], TABLE)
    follower.begin()
    with pytest.raises(UnknownNode, match="has ADD 'x', where it had GET_ROWS"):
        follower.feed("ADD", "x")
    follower.begin()
    for node in nodes[:-1]:
        follower.feed(node["op"], node["name"])
    with pytest.raises(UnknownNode, match="fewer nodes"):
        follower.end()
    assert follower.feed(nodes[-1]["op"], nodes[-1]["name"]).tap == "result_output"
    assert follower.block == 11
    with pytest.raises(UnknownNode, match="where it had  ''"):
        follower.feed("ADD", "x")


# --- and the diff goes on -----------------------------------------------------------------------------------------------


def written(trace, calls, change, path, spoil=()):
    """The recorded run as a trace of a llama.cpp with another graph, with some taps spoilt."""
    lists = []
    with Spool(path, {"provenance": trace.metadata["provenance"]}) as spool:
        for k, nodes in enumerate(calls):
            graph = edited(nodes, change(nodes)[0])
            verdicts, _ = placed(graph)
            lists.append([{**node, "tap": v.tap, "reason": v.reason, **v.more} for node, v in zip(graph, verdicts, strict=True)])
            for tap in filter(None, (verdict.tap for verdict in verdicts)):
                name = in_call(tap, k)
                spool.add(name, trace[name] * np.float32(1.01) if name in spoil else trace[name])
        spool.metadata["nodes"] = json.dumps(lists)
    return path


@pytest.mark.parametrize("change", only(CHANGES, another_norm), ids=lambda change: change.__name__)
def test_the_diff_goes_on_and_says_what_it_left_out(trace, calls, change, golden, tmp_path):
    model = refmodel.load(golden / "models" / "qwen35.gguf")
    other = recorded(model, written(trace, calls, change, tmp_path / "t.safetensors"))
    found = judge(model, model.route(other.route), other, lambda name: None)
    assert found.word != WRONG, found.first
    assert change(calls[0])[2] <= set(other.strangers)
    assert other.unjudged
    assert not other.unjudged & set(found.rows)
    assert "every operation that was judged" in verdict_line(found, other)
    assert len(found.rows) > 1000


@pytest.mark.parametrize(
    ("tap", "first"), only([("kqv-3@1", "kqv-3@1"), ("attn_norm-2", "attn_norm-2"), ("l_out-1", "norm-2")], ("l_out-1", "norm-2"))
)
def test_a_wrong_operation_is_still_named(tap, first, trace, calls, golden, tmp_path):
    """The last one is computed from what is not known, so that what starts from it is the first that can be judged."""
    model = refmodel.load(golden / "models" / "qwen35.gguf")
    other = recorded(model, written(trace, calls, new_node, tmp_path / "t.safetensors", [tap]))
    found = judge(model, model.route(other.route), other, lambda name: None)
    assert found.word == WRONG
    assert found.first.name == first


def test_what_has_another_shape_than_ours_is_not_judged_nor_what_starts_from_it(trace, calls, golden, tmp_path):
    model = refmodel.load(golden / "models" / "qwen35.gguf")
    other = recorded(model, written(trace, calls, new_node, tmp_path / "t.safetensors"))
    taps = dict(other.taps.items())
    taps["attn_norm-2"] = taps["attn_norm-2"][:, :-1]
    taps["kqv-3"] = taps["kqv-3"] * np.float32(np.nan)
    found = judge(model, model.route(other.route), replace(other, taps=taps), lambda name: None)
    assert not {"attn_norm-2", "linear_attn_qkv_mixed-2", "z-2"} & set(found.rows)
    assert "attn_residual-2" in found.rows
    assert [row.name for row in found.rows.values() if not row.within][:1] == ["kqv-3"]


def test_taps_are_counted_once(calls):
    for nodes in calls:
        counted = Counter(verdict.tap for verdict in placed(nodes)[0] if verdict.tap)
        assert max(counted.values()) == 1
