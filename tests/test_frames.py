"""What a pass showed, in xarray and polars where they are installed; one clear line where they are not."""

import sys

import numpy as np
import pytest

from refmodel.errors import RefmodelError
from refmodel.frames import by_stem, to_polars, to_xarray
from refmodel.sweep.anatomy import Anatomy, BlockFacts

R = np.random.default_rng(1)
KEPT = {f"l_out-{n}": R.standard_normal((3, 4)).astype(np.float32) for n in (2, 0)}
KEPT |= {"Qcur-0#1": R.standard_normal((3, 2, 2)).astype(np.float32), "result_output": R.standard_normal((3, 7)).astype(np.float32)}
KEPT |= {"kq-0": np.zeros((2, 3, 3)), "kq-1": np.zeros((2, 3, 4))}
FOUND = Anatomy(
    [BlockFacts(i, "delta", 2.0 + i, 0.1, i, 0.5, None, (0.5, 0.75)) for i in range(3)], np.arange(16.0).reshape(4, 4), "x"
)


def test_taps_of_one_shape_are_together_and_none_is_lost():
    groups = by_stem(KEPT)
    assert {stem: list(group) for stem, group in groups.items()} == {
        "l_out": [2, 0], "Qcur#1": [0], "result_output": [-1], "kq": [0], "kq-1": [-1],
    }  # fmt: skip
    assert sum(map(len, groups.values())) == len(KEPT)


@pytest.mark.parametrize("make", [to_xarray, to_polars, lambda kept: FOUND.to_xarray(), lambda kept: FOUND.to_polars()])
def test_without_the_library_it_is_one_line(monkeypatch, make):
    for name in ("xarray", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RefmodelError, match=r"^to_(xarray|polars) needs (xarray|polars): pip install (xarray|polars)$"):
        make(KEPT)


def test_a_dataset_has_every_number():
    pytest.importorskip("xarray", reason="no datasets are made: pip install 'refmodel[frames]'")
    found = to_xarray(KEPT)
    for position in (0, 2):
        chosen = found["l_out"].sel({"l_out.position": position})
        assert np.array_equal(chosen.values, KEPT[f"l_out-{position}"])
    assert found["l_out"].dims == ("l_out.position", "l_out.token", "l_out.axis_1")
    assert np.array_equal(found["result_output"].values, KEPT["result_output"])
    assert np.array_equal(found["Qcur#1"].values[0], KEPT["Qcur-0#1"])
    about = FOUND.to_xarray()
    assert about["norm"].values.tolist() == [2.0, 3.0, 4.0]
    assert about["angle"].sel(first=1, end=2).item() == 6.0
    assert about.attrs["token"] == "x"


def test_a_frame_has_a_row_for_each_tap_and_token():
    pytest.importorskip("polars", reason="no frames are made: pip install 'refmodel[frames]'")
    found = to_polars(KEPT)
    assert len(found) == sum(map(len, KEPT.values()))
    (row,) = found.filter(stem="l_out", position=2, token=1).to_dicts()
    assert row["values"] == KEPT["l_out-2"][1].astype(np.float64).tolist()
    assert FOUND.to_polars()["decays"].to_list() == [[0.5, 0.75]] * 3
