"""The tables of names for files that store matrices otherwise: each graph is walked, and what is compared stays the same."""

import pytest

from refmodel.arch import ARCHITECTURES
from refmodel.errors import OracleError
from refmodel.llamacpp.node_variants import as_stored, rewritten
from refmodel.llamacpp.nodes import Aligner, Entry, Table, table

QKV = ["blk.1.attn_output.weight", "blk.1.attn_qkv.weight"]
each = pytest.mark.parametrize("architecture", ARCHITECTURES)


each_attention = pytest.mark.parametrize(
    ("architecture", "section"), [(a, name) for a in ARCHITECTURES for name in table(a).blocks if "fa=" in name]
)
each_way = pytest.mark.parametrize("bias", ["", " with a bias"])


def without_options(section: tuple[Entry, ...]) -> list[tuple[str, str]]:
    """(op, name) of block 0 without optional nodes."""
    return [
        (entry.op, entry.name.replace("_lN", "_l0").replace("-N", "-0").replace("node", "node_9"))
        for entry in section
        if not entry.optional and not entry.instead
    ]


def walked(tables: Table, sections: list[list[tuple[str, str]]]) -> list[str]:
    aligner = Aligner(tables)
    taps = [aligner.feed(op, name).tap for nodes in sections for op, name in nodes]
    aligner.end()
    return [tap for tap in taps if tap]


@each
def test_a_file_of_plain_matrices_has_the_plain_table(architecture):
    plain = [f"blk.0.{name}.weight" for name in ("attn_q", "attn_output", "ffn_up_exps")]
    assert as_stored(table(architecture), plain) == table(architecture)


@pytest.mark.parametrize("architecture", ["qwen35", "qwen35moe", "qwen3next"])
def test_the_matrix_of_a_delta_block_is_no_attention(architecture):
    tensors = ["blk.0.attn_qkv.weight", "blk.0.ssm_out.weight", "blk.1.attn_output.weight"]
    assert as_stored(table(architecture), tensors) == table(architecture)


@each_attention
@each_way
def test_from_one_product_come_the_taps_that_come_from_three(architecture, section, bias):
    before, after = (
        table(architecture).sections[section],
        as_stored(table(architecture), QKV).sections[f"{section}, attn_qkv{bias}"],
    )
    old, new = ([entry.tap for entry in s if entry.tap and not entry.optional and not entry.instead] for s in (before, after))
    products = {entry.tap for entry in before if entry.op == "MUL_MAT" and entry.tap.startswith(("Qcur", "Kcur", "Vcur"))}
    assert len(products) == 3
    assert [f"{tap}#bias" if bias and tap in products else tap for tap in old] == new
    assert not {entry.tap for entry in after if entry.op == "MUL_MAT"} & products


@each_attention
@each_way
def test_blocks_of_one_file_may_be_stored_in_several_ways(architecture, section, bias):
    tables = as_stored(table(architecture), QKV)
    names = ("head", f"{section}, attn_qkv{bias}", section, "tail")
    head, one, three, tail = (without_options(tables.sections[name]) for name in names)
    second = [(op, name.replace("-0", "-1").replace("_l0", "_l1")) for op, name in three]
    taps = walked(tables, [head, one, second, tail])
    assert {"l_out-0", "l_out-1", "result_output"} <= set(taps)
    assert len(taps) == len(set(taps))
    with pytest.raises(OracleError, match="'wqkv-0' in block 0, where golden/names"):
        walked(table(architecture), [head, one, tail])


def test_the_experts_gate_and_up_come_apart_or_from_one():
    tables = as_stored(table("qwen35moe"), ["blk.0.ffn_gate_up_exps.weight"])
    nodes = without_options(tables.sections["delta"])
    gate, up = nodes.index(("MUL_MAT_ID", "ffn_moe_gate-0")), nodes.index(("MUL_MAT_ID", "ffn_moe_up-0"))
    one = [("MUL_MAT_ID", "ffn_moe_gate_up-0"), ("VIEW", "ffn_moe_gate-0"), ("VIEW", "ffn_moe_up-0")]
    head, tail = (without_options(tables.sections[name]) for name in ("head", "tail"))
    apart, together = (walked(tables, [head, delta, tail]) for delta in (nodes, [*nodes[:gate], *one, *nodes[up + 1 :]]))
    assert apart == together


@each
def test_what_is_there_instead_of_lines_is_there_instead_of_all_that_replace_them(architecture):
    assert all(table(architecture).sections.values())
    for section in table(architecture).sections.values():
        doubled = rewritten(section, lambda entry: [entry, entry])
        for line, entry in enumerate(section):
            many = [2 * entry.instead, 2 * entry.instead + 1] if entry.instead else [0, 0]
            assert [new.instead for new in doubled[2 * line : 2 * line + 2]] == many
