"""Quantization as the second trial: what is added block by block, what accumulates, and what the repetition makes of it."""

import re

import numpy as np
import pytest
import tiny

import refmodel
from refmodel.compare.dequantized import dequantized
from refmodel.compare.quantized import Position, Trial, distance, trial
from refmodel.errors import MetadataError
from refmodel.model.route import Route
from refmodel.report.pictures import as_png
from refmodel.report.quantized_page import trial_page
from refmodel.surgery.gguf import routed

TOKENS = [5, 80, 9, 9, 44, 120]
ROUTE = "blocks:1,3"


def silent(name):
    pass


@pytest.fixture(scope="module")
def pair(golden):
    """A file in 4 bits, and the same model in 8."""
    return [refmodel.load(golden / "models" / f"qwen35-{name}.gguf") for name in ("Q4_K_M", "Q8_0")]


@pytest.fixture(scope="module")
def done(pair):
    return trial(*pair, ROUTE, TOKENS, silent)


def test_errors_are_those_of_two_plain_forward_passes(pair, done):
    packed, full = pair
    route = full.route(ROUTE)
    assert done.logits == distance(packed.forward(TOKENS, route), full.forward(TOKENS, route))
    assert done.unrouted == distance(packed.forward(TOKENS), full.forward(TOKENS))
    assert [(s.position, s.source, s.visit) for s in done.steps] == list(zip(range(6), [0, 1, 2, 1, 2, 3], [0, 0, 0, 1, 1, 0]))
    assert all(s.added > 0 and s.accumulated > 0 for s in done.steps)
    assert done.steps[0].added == done.steps[0].accumulated  # nothing has accumulated before the first block
    assert all(s.added < s.accumulated for s in done.steps[1:])


def test_one_wrong_block_is_the_only_one_that_adds(golden, tmp_path):
    """A matrix of block 1 made wrong: blocks that start from the other file's input add nothing but at its two visits."""
    full = refmodel.load(tiny.build(tmp_path / "m.gguf", "qwen35", seed=3))
    data = bytearray(full.path.read_bytes())
    where = data.find(full.file.tensors["blk.1.ffn_down.weight"].data.tobytes())
    data[where + 3] ^= 0x40
    (tmp_path / "w.gguf").write_bytes(data)
    found = trial(refmodel.load(tmp_path / "w.gguf"), full, ROUTE, TOKENS, silent)
    assert [s.source for s in found.steps if s.added] == [1, 1]
    assert [s.position for s in found.steps if s.accumulated] == [1, 2, 3, 4, 5, 6]
    same = trial(full, full, ROUTE, TOKENS, silent)
    assert same.sentences()[-1] == "logits: no difference"


def test_copies_of_one_route_are_read_by_their_map(pair, done, tmp_path):
    copies = [refmodel.load(routed(m, m.route(ROUTE), tmp_path / f"{i}.gguf")) for i, m in enumerate(pair)]
    found = trial(*copies, "", TOKENS, silent)
    assert found == done


def test_a_copy_and_its_source_are_compared_in_the_copys_order(pair, done, tmp_path):
    packed, full = pair
    copies = [refmodel.load(routed(m, m.route(ROUTE), tmp_path / f"{i}.gguf")) for i, m in enumerate(pair)]
    assert trial(copies[0], full, "", TOKENS, silent) == done
    assert trial(packed, copies[1], "", TOKENS, silent) == done
    twice = trial(copies[0], full, "layers:0..2,3..5,3..5", TOKENS, silent)
    assert [step.source for step in twice.steps] == [0, 1, 2, 1, 2, 3, 1, 2, 3]
    with pytest.raises(MetadataError, match="or a copy and its source"):
        trial(packed, copies[1], "blocks:0,1", TOKENS, silent)


def test_files_of_another_route_or_model_are_refused(pair, tmp_path):
    packed, _ = pair
    copies = [
        refmodel.load(routed(m, m.route(words), tmp_path / f"{words}.gguf")) for m, words in zip(pair, ("blocks:0,3", "blocks:1,4"))
    ]
    with pytest.raises(MetadataError, match="not two files of one model and one route"):
        trial(*copies, "", TOKENS, silent)
    other = refmodel.load(tiny.build(tmp_path / "o.gguf", "qwen35", seed=3))
    for one in (packed, copies[0]):
        with pytest.raises(MetadataError, match="not two files of one model and one route"):
            trial(one, other, "", TOKENS, silent)


def test_the_sentences_say_which_way_it_went():
    def steps(*accumulated):
        return [Position(p, s, v, 1e-4, a) for p, (s, v, a) in enumerate(zip([0, 1, 2, 1, 2, 3], [0, 0, 0, 1, 1, 0], accumulated))]

    route = Route.of(ROUTE, 4)
    up = Trial(route, steps(1e-4, 2e-4, 2e-4, 6e-4, 8e-4, 8e-4), 8e-4, 4e-4)
    assert up.repeats == [(3, 4)]
    assert up.sentences() == [
        "positions 3 to 4 repeat blocks 1, 2: the error grows 4.00 times, in their first pass 2.00 times",
        "logits: NMSE 8.0e-04 under the route, 4.0e-04 without it: the route amplifies it 2.00 times",
    ]
    assert "damps it 2.00 times" in Trial(route, up.steps, 4e-4, 8e-4).sentences()[-1]
    assert "leaves it as it is" in Trial(route, up.steps, 4e-4, 4.1e-4).sentences()[-1]
    assert re.search("NMSE 4.0e-04$", Trial(route, up.steps, 4e-4, None).sentences()[-1])


def test_a_route_that_skips_a_block_has_no_unrouted_run(pair, tmp_path):
    for layers in ([0, 2, 2], [1, 2, 3], [0, 1, 2]):
        copies = [refmodel.load(routed(m, m.route(layers), tmp_path / f"{i}.gguf")) for i, m in enumerate(pair)]
        assert trial(*copies, "", TOKENS, silent).amplification is None


def test_the_report_has_every_position_and_shades_the_repeated_ones(done, pair):
    page = trial_page(done, *pair, TOKENS)
    (picture,) = page.pictures
    assert picture.bands == done.repeats
    assert [list(series.values) for series in picture.series] == [
        [getattr(s, n) for s in done.steps] for n in ("accumulated", "added")
    ]
    assert as_png(page.pictures)[:4] == b"\x89PNG"


def test_a_dequantized_copy_differs_by_the_order_of_sums_alone(pair, tmp_path):
    """Packed rows and floats have an order of their own; quantization would be a million times as much."""
    packed, _ = pair
    plain = refmodel.load(dequantized(packed.file, tmp_path / "d.gguf"))
    found = trial(packed, plain, ROUTE, TOKENS, silent)
    assert np.all([s.accumulated <= 1e-11 for s in found.steps])
