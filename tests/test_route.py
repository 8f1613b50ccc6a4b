from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refmodel.errors import RouteError
from refmodel.model.route import MAX_POSITIONS, Route


def routes() -> st.SearchStrategy[Route]:
    return st.integers(1, 12).flatmap(
        lambda n: st.lists(st.integers(0, n - 1), min_size=1, max_size=30).map(lambda layers: Route(tuple(layers), n))
    )


def rys(n, pairs):
    """RYS in its own words: each window is put behind the last place of its last block."""
    layers = list(range(n))
    for i, j in pairs:
        last = max(p for p, layer in enumerate(layers) if layer == j - 1)
        layers[last + 1 : last + 1] = range(i, j)
    return tuple(layers)


def windows(n):
    return st.lists(st.tuples(st.integers(0, n - 1), st.integers(1, n)).filter(lambda w: w[0] < w[1]), max_size=4)


def test_the_route_that_everybody_runs():
    route = Route.parse("blocks:15,20", 64)
    assert route.layers == (*range(20), *range(15, 64))
    assert len(route.layers) == 69
    assert route.seams == [(19, 19), (20, 15), (24, 19), (25, 20)]
    assert route.overhead == pytest.approx(7.8125)
    assert route.describe()["notations"] == {
        "canonical": "blocks:15,20",
        "layers": "layers:0..19,15..63",
        "PEFT layer_replication": "[[0, 20], [15, 64]]",
        "mergekit layer_range": "[0, 20] [15, 64]",
        "RYS (i, j)": "(15, 20)",
    }


@pytest.mark.parametrize(("words", "pair"), [("blocks:0,2;4,6", None), ("layers:1,0,2", None), ("layers:0..3", "(0, 0)")])
def test_only_a_route_of_one_window_or_none_has_a_pair_of_numbers(words, pair):
    assert Route.parse(words, 8 if ";" in words else 4).describe()["notations"].get("RYS (i, j)") == pair


@given(data=st.data(), n=st.integers(1, 12))
def test_windows_are_applied_in_sequence(data, n):
    pairs = data.draw(windows(n))
    text = ";".join(data.draw(st.sampled_from([f"{i},{j}", f"({i},{j})", f" ( {i} , {j} ) "])) for i, j in pairs) or "0,0"
    assert Route.parse(f"blocks:{text}", n).layers == rys(n, pairs)


@given(routes())
def test_every_notation_of_a_route_reads_back_as_that_route(route):
    assert Route.parse(route.canonical, route.n_layer) == route
    assert Route.parse(route.as_layers, route.n_layer) == route
    assert tuple(layer for a, b in route.slices for layer in range(a, b)) == route.layers


@given(data=st.data(), n=st.integers(1, 12))
def test_one_window_is_written_as_one_window(data, n):
    i, j = data.draw(st.tuples(st.integers(0, n - 1), st.integers(1, n)).filter(lambda w: w[0] < w[1]))
    route = Route.parse(f"({i},{j})", n)
    assert route.layers == (*range(j), *range(i, n))
    assert route.canonical == f"blocks:{i},{j}"


@given(routes())
def test_between_seams_the_source_goes_on_at_one_visit(route):
    at_seam = {p for p, _ in route.seams}
    for p in range(len(route.layers) - 1):
        if p not in at_seam or p + 1 not in at_seam:
            assert route.layers[p + 1] == route.layers[p] + 1
            assert route.visits[p + 1] == route.visits[p]


@pytest.mark.parametrize("text", ["", "identity", "(0,0)", "blocks:0,0", "layers:0..7"])
def test_the_identity(text):
    route = Route.parse(text, 8)
    assert route.is_identity
    assert (route.canonical, route.seams, route.overhead) == ("blocks:0,0", [], 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3,6", "two bare numbers are ambiguous; write blocks:3,6 .* or layers:3,6"),
        ("blocks:6,3", "6 is not before 3.*did you mean blocks:3,6"),
        ("blocks:3,3", "3 is not before 3"),
        ("blocks:1", "is not a pair i,j"),
        ("blocks:1,99", "block 98 is out of range; the model has blocks 0 to 7"),
        ("layers:0..9", "block 9 is out of range"),
        ("layers:5..3", "the range 5..3 falls"),
        ("layers:", "is not a block or a range"),
        ("layers:1,,2", "is not a block or a range"),
        ("layers:0..999999999", "out of range"),
        ("blocks:" + ";".join(["0,8"] * 600), "more than 4096 positions"),
        ("something", "not a route; expected"),
        ("0,0", "blocks:0,0 for the identity, or layers:0,0"),
        ("[3,6]", "two bare numbers are ambiguous"),
        ("6,3", "write blocks:3,6 to run blocks 3 to 5 twice, or layers:6,3"),
        ("block:3,6", "did you mean blocks:3,6"),
        ("Layers:0..3", "did you mean layers:0..3"),
        ("blocks:1," + "9" * 50, "is out of range"),
        ("layers:" + "9" * 200, "is not a block or a range"),
    ],
)
def test_what_does_not_fit_is_said(text, words):
    with pytest.raises(RouteError, match=words):
        Route.parse(text, 8)


@given(st.text(alphabet="blocksayer:.,;()[]0123456789 -x\n\t\x1b", max_size=30) | st.text() | st.integers().map("layers:{}".format))
def test_any_text_is_a_route_or_an_error_of_one_line(text):
    try:
        Route.parse(text, 8)
    except RouteError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 500


@pytest.mark.parametrize("text", ["0..3,2,3,4..7", "[0,1,2,3,2,3,4,5,6,7]", "0,1,2,3,2,3,4,5,6,7"])
def test_a_list_that_cannot_be_a_window_needs_no_prefix(text):
    assert Route.parse(text, 8) == Route.parse("blocks:2,4", 8)


@pytest.mark.parametrize("layers", [[], [0, 8], [-1], [0] * 5000, ["1"], [1.5], [None], 5, {"layers": [1]}, range(10**12)])
def test_lists_are_checked(layers):
    with pytest.raises(RouteError) as caught:
        Route.of(layers, 8)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("n_layer", [0, -1, 4097, 10**15])
@pytest.mark.parametrize("value", [None, "", "blocks:1,2", "layers:0", [0]])
def test_a_number_of_blocks_is_bounded_before_anything_is_made_of_it(value, n_layer):
    with pytest.raises(RouteError, match=f"a model of {n_layer} blocks"):
        Route.of(value, n_layer)


@given(routes())
def test_places_say_where_each_block_runs(route):
    assert [[p for p, layer in enumerate(route.layers) if layer == block] for block in range(route.n_layer)] == route.places
    assert route.describe()["skipped"] == [block for block, places in enumerate(route.places) if not places]


def test_windows_are_found_whenever_they_make_the_route_and_are_the_fewest():
    n = 4
    pairs = [(i, j) for j in range(1, n + 1) for i in range(j)]
    fewest: dict[tuple[int, ...], int] = {}
    for count in range(4):
        for chosen in product(pairs, repeat=count):
            fewest.setdefault(rys(n, chosen), count)
    assert len(fewest) == 803
    for layers, count in fewest.items():
        canonical = Route(layers, n).canonical
        assert canonical.startswith("blocks:")
        assert canonical.count(";") == max(count - 1, 0)


def test_a_route_belongs_to_its_number_of_blocks():
    with pytest.raises(RouteError, match="for 6 blocks, the model has 8"):
        Route.of(Route.identity(6), 8)


def test_a_route_may_have_as_many_positions_as_are_allowed_and_not_one_more():
    most = "blocks:" + ";".join(["0,8"] * 511)
    assert len(Route.parse(most, 8).layers) == MAX_POSITIONS == 4096
    with pytest.raises(RouteError, match="more than 4096 positions"):
        Route.parse(f"{most};0,1", 8)
    numbers = "layers:" + ",".join(["0..7"] * 512)
    assert len(Route.parse(numbers, 8).layers) == MAX_POSITIONS
    with pytest.raises(RouteError, match="more than 4096 positions"):
        Route.parse(f"{numbers},0", 8)
