"""Reports in a real Chromium: nothing on the console, nothing asked of a network, every control works.

Needs the extra [browser] and a Chromium, in the path or named in REFMODEL_CHROMIUM. Without them the tests are skipped, and say
what is missing. With npm's axe-core/axe.min.js in REFMODEL_AXE nothing serious may be found by axe. REFMODEL_SCREENSHOTS names a
folder for pictures of the pages.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from report_pages import checked_golden, diagnosed
from test_report import evil_page

from refmodel.report.html import as_html
from refmodel.report.page import BAD, Heat, Line, Lines, Page, Section, Series, Table

MOST = 3_000_000  # bytes of a report of 64 blocks and 512 tokens
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
SIZES = {"phone": (375, "dark"), "tablet": (768, "light"), "desk": (1280, "dark")}


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="reports are not tried in a browser: pip install 'refmodel[browser]'")
    path = os.environ.get("REFMODEL_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("reports are not tried in a browser: install chromium, or name one in REFMODEL_CHROMIUM")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


def large_page() -> Page:
    """A page as a comparison of 64 blocks and 512 tokens has it: 45 operations a block, five best tokens of both sides."""
    r = np.random.default_rng(1)
    blocks, tokens = [f"block {i}" for i in range(64)], [f"“ word{i}” token {i}" for i in range(512)]
    error = lambda *shape: (10 ** r.uniform(-9, -1, shape)).tolist()
    depth = Lines(
        "Depth", "says", "position", "NMSE", blocks, [Series("run", error(64)), Series("alone", error(64))], ["a", "b"] * 32
    )
    along = Lines("Tokens", "says", "token", "NMSE", tokens, [Series("logits", error(512)), Series("last", error(512))])
    heat = Heat("Map", "says", "position", "token", blocks, tokens, error(64, 512), "NMSE")
    columns = ["operation", "taps", "NMSE", "verdict"]
    taps = ["tap", "shape", "NMSE alone", "NMSE in the run", "max |a−b|", "cosine", "other bits", "verdict"]
    figures = ["512×2048", "1.2e-07", "1.3e-07", "1.4e-03", "0.9999999", "1,048,576", "explained"]
    lines = []
    for n in range(45):
        inner = Table(f"Taps of op{n}", taps, [Line([f"op{n}-{p}", *figures]) for p in range(64)], frozenset({"verdict"}))
        word = "wrong" if n == 7 else "explained"
        lines.append(Line([f"op{n}", "64", "1.2e-07", word], BAD if n == 7 else "", word, inner))
    best = [Line([str(n), "“ theirs”", "12.345", "“ ours”", "12.345"]) for n in range(5)]
    logits = [
        Line(
            [name, "1e-3", "0.1", "same first"],
            "",
            "same first",
            Table("best", ["place", "theirs", "logit", "ours", "logit "], best),
        )
        for name in tokens
    ]
    tables = [
        Table("Operations", columns, lines, frozenset({"verdict"}), searched=True),
        Table("Logits", columns, logits, frozenset({"verdict"}), searched=True),
    ]
    return Page("A large one", "WRONG: one operation", BAD, [], [Section("All", [], [depth, along, heat], tables)], {"a": "b"})


def opened(browser, path: Path, size: str):
    """A page at one of SIZES, and what it said or asked for meanwhile."""
    width, scheme = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url != path.as_uri() else None)
    page.goto(path.as_uri())
    return page, said


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    made = {"large": large_page(), "evil": evil_page(), "diagnosis": diagnosed(folder), "golden": checked_golden(folder)}
    for name, page in made.items():
        (folder / f"{name}.html").write_bytes(as_html(page))
    return folder


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["large", "evil", "diagnosis", "golden"])
def test_a_page_is_quiet_fits_and_can_be_read_by_everybody(browser, files, name, size):
    page, said = opened(browser, files / f"{name}.html", size)
    data = [text for text in said if not text.startswith("data:")]
    assert not data
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    if folder := os.environ.get("REFMODEL_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}-{size}.png", full_page=True)
    if (axe := os.environ.get("REFMODEL_AXE")) and name != "large":  # the evil one has every element that the large one has
        page.evaluate(Path(axe).read_text())
        found = page.evaluate("axe.run().then(r => r.violations.map(v => [v.id, v.impact, v.nodes[0].html]))")
        assert not [violation for violation in found if violation[1] in ("serious", "critical")]
    page.close()


def test_a_large_page_is_small():
    assert len(as_html(large_page())) < MOST


def test_every_control_works(browser, files):
    page, said = opened(browser, files / "large.html", "desk")
    tip = page.locator("#tip")
    for index, words in enumerate(["block 0\nrun", "token 0\nlogits", "block 0, “ word0” token 0\nNMSE"]):
        area = page.locator(".plot.wide .reader").nth(index)
        area.focus()
        page.keyboard.press("End")
        last = tip.inner_text()
        page.keyboard.press("Home")
        assert words in tip.inner_text() != last
        assert area.get_attribute("aria-valuetext") == tip.inner_text().replace("\n", ", ")
        page.keyboard.press("ArrowRight")
        assert area.get_attribute("aria-valuenow") == "1"
        page.keyboard.press("Escape")
        assert not tip.is_visible()
        area.hover(position={"x": 3, "y": 3})
        assert tip.is_visible()
    table, form = page.locator("table").first, page.locator(".finder").first
    opener = table.locator(".opener").nth(3)
    opener.press("Enter")
    assert opener.get_attribute("aria-expanded") == "true"
    assert table.get_by_text("op3-63").is_visible()
    opener.click()
    assert not table.get_by_text("op3-63").is_visible()
    form.locator("select").select_option("wrong")
    assert form.locator("output").inner_text() == "1 of 45 lines"
    form.locator("select").select_option("")
    form.locator("input").fill("op12-40")
    assert form.locator("output").inner_text() == "1 of 45 lines"
    table.locator(".opener:visible").click()
    assert table.locator(".inner:visible tbody tr:visible").count() == 1
    assert not [text for text in said if not text.startswith("data:")]


def test_a_printed_page_has_no_controls(browser, files):
    page, _ = opened(browser, files / "large.html", "desk")
    page.emulate_media(media="print")
    assert not page.locator(".finder").first.is_visible()
    assert not page.locator("nav").is_visible()
    assert page.locator(".plot.wide svg").first.is_visible()
