"""Figures are valid SVG with text as text, colours as variables, and leave nothing behind."""

import functools
import math
import re
from xml.etree import ElementTree

import pytest

from accord.evaluation.statistics import Interval
from accord.reporting import figures as fg

NAN = math.nan
INTERVAL = Interval(0.4, 0.3, 0.5, 10)
UNKNOWN = Interval(NAN, NAN, NAN, 0)


def draw(**how):
    lines = [fg.Line("a", 0, [1, 2, 3], [1.0, NAN, 2.0]), fg.Line("b", 1, [1, 2, 3], [3.0, 2.0, 1.0], dashed=True)]
    return {
        "curves": fg.curves([fg.Panel("Loss", "step", "nats", lines, level=1.5, level_label="limit 1.5")] * 3, **how),
        "dots": fg.dots(
            ["benign", "harmful"],
            [
                fg.Column(
                    "Help", "score", [fg.Dots("sft", 0, [INTERVAL, None]), fg.Dots("ppo", 1, [UNKNOWN, INTERVAL])], 0
                )
            ],
            **how,
        ),
        "reliability": fg.reliability([fg.Reliability("m", 0, [(0.6, 0.6, 0.5, 0.7, 10), (NAN, 1, 0, 1, 0)])], **how),
        "plane": fg.plane(
            [fg.Point("sft", 0, INTERVAL, INTERVAL), fg.Point("x", 1, UNKNOWN, INTERVAL)], "help", "harm", **how
        ),
        "bars": fg.bars(["pretrain", "sft"], [95.0, NAN], "time (s)", **how),
    }


@functools.cache
def made(width=fg.WIDTH):
    return draw(width=width)


@pytest.mark.parametrize("name", ["curves", "dots", "reliability", "plane", "bars"])
def test_a_figure_is_valid_svg_with_text_as_text(name):
    svg = made()[name]
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and root.get("role") == "img" and root.get("aria-label")
    texts = ["".join(element.itertext()).strip() for element in root.iter() if element.tag.endswith("text")]
    expected = {
        "curves": "limit 1.5",
        "dots": "harmful",
        "reliability": "pairs per bin",
        "plane": "help",
        "bars": "n/a",
    }
    assert expected[name] in texts
    assert "DejaVu" not in svg and "<style" not in svg and "metadata" not in svg
    assert not re.search(r"(href|src)=\"(?!#)", svg)


def test_colours_are_variables_of_the_page_with_a_fallback():
    svg = made()["curves"]
    assert "currentColor" in svg and "var(--s0, #3568c9)" in svg and "var(--grid, #e2e5ea)" in svg
    bare = re.sub(r"var\([^)]*\)", "", svg)
    assert not set(re.findall(r"#[0-9a-f]{6}\b", bare)) - {"#000000"}
    assert "--s0: #3568c9;" in fg.css_variables(dark=False) and "--s0: #85abff;" in fg.css_variables(dark=True)


def test_ids_of_two_figures_on_one_page_differ_and_references_hold():
    ids = [re.findall(r'\bid="([^"]+)"', svg) for svg in made().values()]
    flat = [name for own in ids for name in own]
    assert len(flat) == len(set(flat))
    for svg, own in zip(made().values(), ids, strict=True):
        wanted = set(re.findall(r'xlink:href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg))
        assert wanted <= set(own)


def test_the_same_data_give_the_same_bytes():
    assert draw() == made()


def test_names_are_text_not_formulas_and_not_markup():
    svg = fg.curves([fg.Panel("a $x^2$ <b>&", "step", "nats", [fg.Line("<script>", 0, [1, 2], [1, 2])])], label='"<x>')
    root = ElementTree.fromstring(svg)
    assert "a $x^2$ <b>&" in [element.text for element in root.iter() if element.tag.endswith("text")]
    assert root.get("aria-label") == '"<x>. a $x^2$ <b>&, <script>: from 1 to 2.'
    assert "<script>" not in svg


def test_a_figure_says_in_words_what_it_shows():
    lines = [fg.Line("a", 0, [1, 2, 3], [1.0, NAN, 2.0]), fg.Line("gone", 1, [1], [NAN]), fg.Line("b", 1, [1], [0.5])]
    said = ElementTree.fromstring(fg.curves([fg.Panel("Loss", "step", "nats", lines)], label="Training")).get
    assert said("aria-label") == "Training. Loss, a: from 1 to 2; Loss, b: 0.5."
    column = fg.Column("Help", "score", [fg.Dots("sft", 0, [INTERVAL, None]), fg.Dots("ppo", 1, [UNKNOWN, INTERVAL])])
    said = ElementTree.fromstring(fg.dots(["benign", "harmful"], [column], label="Scores")).get
    assert said("aria-label") == "Scores. Help, sft: benign 0.4; Help, ppo: harmful 0.4."
    assert ElementTree.fromstring(fg.bars(["x", "y"], [95.0, NAN], "time (s)")).get("aria-label") == "time (s). x 95."
    many = [fg.Line(f"l{i}", 0, [1], [1.0]) for i in range(30)]
    said = ElementTree.fromstring(fg.curves([fg.Panel("t", "x", "y", many)])).get
    assert said("aria-label").endswith("l23: 1; and 6 more.")


def boxes(svg):
    """Frame and panels of a figure, in points: width, height, number of axes."""
    root = ElementTree.fromstring(svg)
    return (*map(float, root.get("viewBox").split()[2:]), len(re.findall(r'id="f\w+-axes_\d+"', svg)))


@pytest.mark.parametrize("name", ["curves", "dots", "reliability", "plane", "bars"])
def test_on_a_phone_panels_stand_below_each_other(name):
    wide, narrow = boxes(made()[name]), boxes(made(fg.NARROW)[name])
    assert wide[0] == pytest.approx(72 * fg.WIDTH) and narrow[0] == pytest.approx(72 * fg.NARROW)
    assert narrow[2] == wide[2]
    if name in ("curves", "reliability"):
        assert narrow[1] > 1.4 * wide[1]


def test_names_of_points_keep_apart():
    """Four points on one spot, one of them at the right edge: no name on another, none outside."""
    near = [Interval(0.4 + i / 1000, 0.3, 0.5, 10) for i in range(4)]
    svg = fg.plane([fg.Point(f"snapshot {i}", i, x, x) for i, x in enumerate(near)], "help", "harm", width=fg.NARROW)
    places = {
        "".join(one.itertext()).strip(): one.get("transform") or (one.get("x"), one.get("y"))
        for one in ElementTree.fromstring(svg).iter()
        if one.tag.endswith("text")
    }
    assert len({places[f"snapshot {i}"] for i in range(4)}) == 4


def test_the_name_of_a_point_below_a_level_stands_below_it_too():
    spots = {"above": 1.0, "close": -0.15, "below": -1.0}
    points = [fg.Point(name, 0, Interval(0.1, 0.0, 0.2, 10), Interval(y, y, y, 10)) for name, y in spots.items()]

    def height(level):
        root = ElementTree.fromstring(fg.plane(points, "help", "harm", level=level))
        (text,) = [
            one for one in root.iter() if one.tag.endswith("text") and "".join(one.itertext()).strip() == "close"
        ]
        return float(text.get("y"))

    assert height(0.0) > height(None) + 10  # of SVG, whose y points down


def test_figures_leave_pyplot_and_its_settings_alone():
    import matplotlib
    from matplotlib import pyplot

    fg.bars(["a"], [1.0], "s")
    fg.plane([fg.Point("sft", 0, INTERVAL, INTERVAL)], "help", "harm")
    assert pyplot.get_fignums() == []
    assert matplotlib.rcParams["font.size"] == matplotlib.rcParamsDefault["font.size"]


def test_nothing_but_nan_still_draws():
    line = fg.Line("a", 0, [NAN, NAN], [NAN, NAN])
    ElementTree.fromstring(fg.curves([fg.Panel("t", "x", "y", [line])]))
    ElementTree.fromstring(fg.plane([fg.Point("x", 0, UNKNOWN, UNKNOWN)], "x", "y", level=0.0, level_label="limit"))
    ElementTree.fromstring(fg.dots(["a"], [fg.Column("t", "x", [fg.Dots("s", 0, [UNKNOWN])])]))
    ElementTree.fromstring(fg.bars(["a"], [NAN], "s"))


@pytest.mark.parametrize("width", [pytest.param(fg.WIDTH, marks=pytest.mark.slow), fg.NARROW])
def test_a_legend_of_many_names_leaves_the_panels_their_room(width):
    """Thirty models of two commands on a phone took the whole figure, and Matplotlib gave up laying it out."""
    bins = [(0.6, 0.6, 0.5, 0.7, 10), (0.9, 0.8, 0.7, 0.9, 10)]

    def height(count):
        models = [fg.Reliability(f"a run of some name: model {n}, harmless-base", n, bins) for n in range(count)]
        return float(re.search(r'<svg[^>]* viewBox="0 0 [\d.]+ ([\d.]+)"', fg.reliability(models, width=width))[1])

    assert height(30) - height(1) > 72 * 0.15 * (30 / (2 if width == fg.WIDTH else 1) - 2)
