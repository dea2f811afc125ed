"""The report at a desk and on a phone, light, dark and on paper: nothing sticks out or overlaps, axe-core is content.

Pictures go to $ACCORD_SCREENSHOTS, else to pytest's folder; $ACCORD_REPORT names a page to look at beside the made-up
one, such as that of a demo.
"""

import os
import re
from pathlib import Path

import pytest

from accord.reporting import build_report
from tests.fixtures.chromium import LOOKS, serious_faults
from tests.reporting.conftest import write_flow, write_run

pytestmark = pytest.mark.slow
# elements that are wider than the page and not inside something that scrolls
STICKING = """() => [...document.querySelectorAll("body *")].filter(one => {
  const box = one.getBoundingClientRect();
  return box.width && (box.right > innerWidth + 1 || box.left < -1) && !one.closest(".scroll");
}).map(one => one.tagName + " " + one.textContent.trim().slice(0, 60))"""
# pairs of words of one figure whose boxes overlap by more than a pixel or two; of turned words the boxes are loose
OVERLAPPING = """() => [...document.querySelectorAll("figure svg")].flatMap(svg => {
  const words = [...svg.querySelectorAll("text")].map(one => [one.textContent.trim(), one.getBoundingClientRect()])
    .filter(([said, box]) => said && box.width);
  const found = [];
  words.forEach(([said, a], i) => words.slice(i + 1).forEach(([other, b]) => {
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 1.5 && down > 2.5) found.push([said, other]);
  }));
  return found;
})"""
OUTSIDE = """() => [...document.querySelectorAll("figure svg")].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return frame.width ? [...svg.querySelectorAll("text")].filter(one => {
    const box = one.getBoundingClientRect();
    return box.left < frame.left - 2 || box.right > frame.right + 2;
  }).map(one => one.textContent.trim()) : [];
})"""
# how high letters are, whichever way a text runs: one figure alone, a 1, is narrower than it is high
SMALLEST = """() => Math.min(...[...document.querySelectorAll("figure svg text")]
  .filter(one => one.getBoundingClientRect().width)
  .map(one => { const seen = one.getScreenCTM(); return one.getBBox().height * Math.hypot(seen.a, seen.b); }))"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A made-up flow with points that lie close together, long names and an alarm; and the page of $ACCORD_REPORT."""
    folders = write_flow(tmp_path_factory.mktemp("looks"))
    words = "a number that is past its bound proves nothing by itself " * 3
    rung = [{"metric": "watch/other/gap", "side": "above", "means": words, "look": words, "turn": words}]
    rows = [{"step": i + 1, "watch/perplexity": 3.0 + i / 9, "watch/other/gap": i / 20} for i in range(40)]
    watched = write_run(folders[0].parent / "watched-by-another-model", "ppo", metrics=rows)
    lineage = watched / "lineage.json"
    more = f'"alarms": ["alarm at iteration 30"], "diagnoses": {rung!r}, '.replace("'", '"')
    lineage.write_text("{" + more + lineage.read_text().removeprefix("{"))
    pages = {"made-up": build_report([*folders, watched], title="A report to look at")}
    if named := os.environ.get("ACCORD_REPORT"):
        pages["named"] = Path(named).read_text(encoding="utf-8")
    return pages


@pytest.mark.parametrize(("width", "theme"), LOOKS, ids=[f"{width}-{theme}" for width, theme in LOOKS])
def test_the_report_fits_reads_and_is_accessible(open_page, reports, pictures, width, theme):
    for name, html in reports.items():
        page = open_page(width, theme)
        page.set_content(html)
        page.screenshot(path=pictures / f"report-{name}-{width}-{theme}.png", full_page=True)
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.evaluate(STICKING) == [], name
        assert page.evaluate(OVERLAPPING) == [], name
        assert page.evaluate(OUTSIDE) == [], name
        assert page.evaluate(SMALLEST) >= 7, "letters that nobody can read"
        assert serious_faults(page) == [], name
        assert page.noted == []


def test_the_report_on_paper(open_page, reports, pictures):
    """Light whatever the theme, at the width of a sheet, and tables are whole."""
    for name, html in reports.items():
        page = open_page(720, "dark")
        page.set_content(html)
        page.emulate_media(media="print")
        page.screenshot(path=pictures / f"report-{name}-paper.png", full_page=True)
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert min(map(int, re.findall(r"\d+", paper)[:3])) > 240
        assert page.evaluate("[...document.querySelectorAll('.narrow')].every(one => !one.offsetWidth)")
        assert page.evaluate(OVERLAPPING) == [] and page.evaluate(OUTSIDE) == [], name
        page.pdf(path=pictures / f"report-{name}.pdf", format="A4")


def test_every_figure_has_units_a_caption_and_words_for_who_does_not_see_it(open_page, reports):
    for name, html in reports.items():
        page = open_page()
        page.set_content(html)
        figures = page.locator("figure")
        assert figures.count() >= 8, name
        for place in range(figures.count()):
            figure = figures.nth(place)
            caption = figure.locator("figcaption").inner_text()
            assert len(caption.split()) >= 6 and caption.endswith("."), caption
            svg = figure.locator(".wide svg")
            said = svg.get_attribute("aria-label")
            assert svg.get_attribute("role") == "img" and len(said) > 30 and re.search(r"\d", said), said
            assert figure.locator(".narrow svg").get_attribute("aria-label") == said
