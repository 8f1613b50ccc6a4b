"""Reports say what was found, in one file that asks nothing of a network and whose words are never read as markup."""

import json
import re

import numpy as np
import pytest
from report_pages import Read, compared

from refmodel.commands.pages import Reports, reports_of
from refmodel.compare.by_token import likeliest, token_errors
from refmodel.compare.rows import compare
from refmodel.errors import RefmodelError
from refmodel.report.console import shown
from refmodel.report.diff import verdict_line
from refmodel.report.diff_page import diff_page
from refmodel.report.html import as_html
from refmodel.report.markdown import as_markdown
from refmodel.report.page import BAD, GOOD, Heat, Line, Lines, Page, Points, Section, Series, Shares, Table
from refmodel.report.pictures import COLOURS, as_png, as_svg

CALLS = [[5, 6, 7, 8, 9], [10], [11]]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The query of block 2, at position 4, is one percent too large."""
    faults = {"Qcur_normed-4": lambda x: x * np.float32(1.01)}
    return compared(tmp_path_factory.mktemp("r"), CALLS, faults, "layers:0,1,2,1,2,3,4")


@pytest.fixture(scope="module")
def page(done):
    return diff_page(done)


@pytest.fixture(scope="module")
def read(page):
    return Read(as_html(page).decode())


def test_the_error_of_each_token_is_that_of_its_row():
    r = np.random.default_rng(1)
    ours, theirs = r.standard_normal((2, 4, 3, 5))
    theirs[2] = ours[2]
    assert token_errors(ours, theirs[:, None]) is not None
    found = token_errors(ours, theirs)
    assert found.tolist() == pytest.approx([compare("x", a, b).nmse for a, b in zip(ours, theirs)])
    assert found[2] == 0
    assert token_errors(ours, theirs[:2]) is None
    assert token_errors(ours, np.where(theirs > 2, np.nan, theirs)) is None


def test_the_likeliest_come_first_and_of_equal_ones_the_smaller_id():
    assert likeliest(np.array([1.0, 3, 2, 3, -1, 3, 0, 2])) == [(1, 3.0), (3, 3.0), (5, 3.0), (2, 2.0), (7, 2.0)]
    assert likeliest(np.array([1.0, 2.0])) == [(1, 2.0), (0, 1.0)]


def test_a_page_says_the_verdict_and_where(done, page):
    assert (page.mark, page.verdict) == (BAD, verdict_line(done.verdict, done.other))
    assert page.verdict.startswith("WRONG, first at Qcur_normed-4")
    depth = page.pictures[0]
    worst = dict(zip(depth.at, depth.series[1].values))
    assert max(worst, key=worst.get) == "block 2 at 4"
    assert depth.kinds == ["delta", "delta", "attention", "delta", "attention", "delta", "delta"]
    assert list(depth.seams) == [3]
    whole = dict(zip(depth.at, depth.series[0].values))
    assert whole["block 1 at 3"] < 1e-10 < whole["block 3 at 5"]


def test_the_map_of_blocks_and_tokens_holds_the_error_of_every_call(done, page):
    (heat,) = [picture for picture in page.pictures if isinstance(picture, Heat)]
    values = np.array(heat.values)
    assert values.shape == (7, 7)
    for position in range(7):
        errors = [done.result.errors[f"l_out-{position}{call}"] for call in ("", "@1", "@2")]
        assert values[position].tolist() == np.concatenate(errors).tolist()
    assert (values[:4] < 1e-10).all()
    assert (values[4, 1:] > 1e-10).any()


def test_every_tap_is_in_the_table_once(done, page, read):
    (table,) = [table for section in page.sections for table in section.tables if table.title == "Operations"]
    taps = [line.cells[0] for outer in table.lines for line in outer.inner.lines]
    assert sorted(taps) == sorted(row.name for row in done.result.rows)
    shown = {text for _, text in read.all("th", scope="row")}
    assert set(taps) <= shown
    wrong = [line.cells[0] for line in table.lines if line.word == "wrong"]
    assert wrong == ["Qcur_normed"]


def test_logits_show_the_best_of_both_sides(done, page):
    (table,) = [table for section in page.sections for table in section.tables if table.title == "Logits of each token"]
    assert len(table.lines) == len(done.result.logits) == 7
    for choice, row in zip(done.result.choices, done.result.logits):
        assert (choice.ours[0][0], choice.theirs[0][0]) == (row.top1_ours, row.top1_theirs)


def test_a_file_is_whole_and_asks_nothing_of_a_network(read, page):
    assert not read.unclosed
    assert not read.twice
    assert [text for _, text in read.all("p", cls="verdict bad")] == [page.verdict]
    for tag, attributes in read.elements:
        for name in ("src", "href", "action", "xlink:href", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
        assert not re.search(r"url\((?!#)|@import", attributes.get("style", ""))
    (css,) = [text for _, text in read.all("style") if ":root" in text]
    assert "url(" not in css
    assert "@import" not in css
    (policy,) = read.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy[0]["content"].startswith("default-src 'none'")


def test_every_picture_has_a_title_words_figures_and_keys(read, page):
    figures = read.all("figure")
    assert len(figures) == len(page.pictures) == 3
    ids = {a["id"] for _, a in read.elements if "id" in a}
    for attributes, _ in figures:
        assert {attributes["aria-labelledby"], attributes["aria-describedby"]} <= ids
    readers = read.all("div", role="slider")
    assert len(readers) == 2 * len(figures)
    for attributes, _ in readers:
        assert attributes["aria-label"]
        assert (attributes["tabindex"], f"{attributes['data-of']}-f" in ids) == ("0", True)
    numbers = [json.loads(text) for _, text in read.all("script", type="application/json")]
    assert numbers[0]["series"][0]["values"] == [float(f"{v:.3g}") for v in page.pictures[0].series[0].values]
    assert np.shape(numbers[2]["values"]) == (7, 7)


def test_the_same_page_is_the_same_file(page):
    assert as_svg(page.pictures[0], "x", True) == as_svg(page.pictures[0], "x", True)
    assert as_png(page.pictures[:1]) == as_png(page.pictures[:1])


EVIL = "\u202e\ud800</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)> & | `code` @somebody *x*"


def evil_page() -> Page:
    inner = Table(EVIL, [EVIL, EVIL], [Line([EVIL, EVIL])])
    table = Table(EVIL, [EVIL, "n"], [Line([EVIL, EVIL], BAD, EVIL, inner)], frozenset({EVIL}), True, True)
    one = [Series("$" + EVIL, [1.0, 0.5])]
    pictures = [
        Lines(EVIL, EVIL, "x", "y", [EVIL, "b"], one),
        Heat(EVIL, EVIL, "y", "x", [EVIL], [EVIL, "b"], [[0.0, float("nan")]], "$$" + EVIL),
        Shares(EVIL, EVIL, "x", "y", [EVIL, "b"], [Series("a", [0.5, -0.5]), Series("b", [0.5, 1.5])]),
        Points(EVIL, EVIL, "x", "y", [EVIL, "b"], [0.0, 1.0], [1.0, 2.0], [0.5, 1.5], [1.5, 2.5], [0, 1]),
    ]
    return Page(EVIL, EVIL, GOOD, [EVIL], [Section(EVIL, [EVIL], pictures, [table])], {EVIL: EVIL})


def test_no_word_is_read_as_markup():
    read = Read(as_html(evil_page()).decode())
    assert not read.unclosed
    assert not read.twice
    assert not read.all("img")
    assert len(read.all("script")) == 4 + 1
    assert [text for _, text in read.all("h1")] == [shown(EVIL)]
    for _, text in read.all("script", type="application/json"):
        assert EVIL in json.loads(text)["at"]


def test_markdown_shows_words_as_they_are():
    text = as_markdown(evil_page())
    assert not re.search(r"(?<!\\)[`*]code|<|>|(?<!&#64;)@somebody", text.replace("**", ""))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}


def test_markdown_has_the_verdict_and_the_wrong_operation_first(page):
    text = as_markdown(page)
    assert text.startswith("**WRONG, first at Qcur\\_normed-4") or text.startswith("**WRONG, first at Qcur_normed-4")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[1].startswith("| Qcur_normed |")


def test_pictures_take_their_colours_from_the_page(page):
    for picture in [*page.pictures, *evil_page().pictures[2:]]:
        for wide in (isinstance(picture, Lines),):
            drawn = as_svg(picture, "x", wide)
            assert not [colour for colour in COLOURS.values() if colour in drawn.svg]
            assert not set(re.findall(r"(?:fill|stroke): (#\w+)", drawn.svg)) - {"#ffffff"}
            left, top, width, height = drawn.box
            assert 0 < left < left + width <= 100
            assert 0 < top < top + height <= 100


@pytest.mark.parametrize("values", [[0.0, 0.0], [float("nan")] * 2, [1e-300, 1e300], [float("inf"), 1.0]])
def test_any_figures_can_be_drawn(values):
    at = ["a", "b"]
    pictures = [
        Lines("t", "s", "x", "y", at, [Series("a", values)]),
        Heat("t", "s", "y", "x", ["r"], at, [values], "n"),
    ]
    for picture in pictures:
        assert as_svg(picture, "x", True).svg.startswith("<svg")


def test_options_are_checked_before_anything_is_computed(tmp_path):
    there = tmp_path / "m.html"
    there.write_text("a model")
    for html, png, why in (
        (tmp_path / "x.htm", None, "ending in .html; call it x.html"),
        (None, tmp_path / "x.svg", "ending in .png"),
        (there, None, "is the file that is read"),
        (tmp_path / "no" / "x.html", None, "does not exist"),
    ):
        with pytest.raises(RefmodelError, match=why):
            reports_of(html, False, png, False, [there])
    assert not reports_of(None, False, None, False)


def test_a_report_that_fails_leaves_nothing(tmp_path, page):
    def fails():
        raise RefmodelError("no")

    with pytest.raises(RefmodelError):
        Reports(tmp_path / "x.html", tmp_path / "x.png", True).give(fails)
    with pytest.raises(RefmodelError, match="no picture"):
        Reports(tmp_path / "x.html", tmp_path / "x.png", True).give(lambda: Page("t", "v", GOOD, [], []))
    assert list(tmp_path.iterdir()) == []
