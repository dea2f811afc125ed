"""The page stands alone, says where its numbers are from, and shows what is missing."""

import json
import re
from html.parser import HTMLParser

import pytest

from accord.errors import BadInput
from accord.reporting import build_report, drawing, figures, load_run

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, attributes, ids and text; checks that every element is closed."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.ids, self.text, self.open = [], [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make_flow):
    """One flow and its page, for the tests that change nothing."""
    folders = make_flow(tmp_path_factory.mktemp("whole"))
    return folders, build_report(folders, title="A demo")


@pytest.fixture
def unwritten(monkeypatch):
    """Figures are made of their data, but not written as SVG, which takes most of the time."""
    monkeypatch.setattr(figures, "_svg", lambda canvas, label: '<svg role="img"></svg>')


def replace_samples(folder, change):
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().split("\n") if line]
    for row in rows:
        change(row)
    (folder / "samples.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def test_the_whole_flow_gives_every_section_with_figures_and_numbers(whole):
    html = whole[1]
    page = Page(html)
    assert page.open == []
    for section in ("summary", "samples", "outcome", "plane", "kl", "limits", "capability", "preference", "curves"):
        assert section in page.ids, section
        body = html.split(f'<section id="{section}">')[1].split("</section>")[0]
        assert section in ("summary", "samples") or ("<svg" in body and "<table" in body), section
    assert "lineage" in page.ids and "1.5 GiB" in html
    assert len(page.ids) == len(set(page.ids)), "an id occurs twice"


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(whole):
    html = whole[1]
    page = Page(html)
    assert not {"script", "link", "iframe", "img", "object", "embed", "base", "form"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("href", "xlink:href", "src", "action"):
            assert value.startswith("#"), (tag, name, value)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_every_reference_inside_the_page_has_its_target(whole):
    page = Page(whole[1])
    wanted = {value[1:] for _, name, value in page.attributes if name in ("href", "xlink:href")}
    assert wanted and wanted <= set(page.ids)


@pytest.mark.parametrize(
    "poison",
    [
        '"><script>x</script>{{ 7*7 }}',
        pytest.param("<script>alert(1)</script>", marks=pytest.mark.slow),
        pytest.param('"><img src=x onerror=alert(1)>', marks=pytest.mark.slow),
        pytest.param("{{ 7*7 }}", marks=pytest.mark.slow),
    ],
)
def test_g5_model_text_and_names_are_escaped(flow, poison):
    def spoil(row):
        row["reply"] = row["reply"] + poison
        row["prompt"][0]["content"] += poison
        row["prompt"][0]["role"] += poison
        row["finish"] = poison

    for folder in flow[-2:]:
        replace_samples(folder, spoil)
        value = json.loads((folder / "evaluation.json").read_text())
        value["slices"][poison] = value["slices"].pop("benign")
        (folder / "evaluation.json").write_text(json.dumps(value))
    lineage = json.loads((flow[0] / "lineage.json").read_text())
    lineage["version"] = lineage["machine"] = poison
    (flow[0] / "lineage.json").write_text(json.dumps(lineage))
    html = build_report([flow[0], *flow[-2:]], title=f"T {poison}", summary=[f"S {poison}"])
    page = Page(html)
    assert "script" not in page.tags and "img" not in page.tags
    assert poison in page.words  # shown as text, whole
    assert not any(name.startswith("on") for _, name, _ in page.attributes)


def test_replies_are_shown_whole(flow, undrawn):
    long = "word " * 3000 + "the very end"
    replace_samples(flow[-1], lambda row: row.update(reply=long))
    assert "the very end" in build_report(flow[-1:])


def test_snapshots_stand_in_the_order_of_the_flow_whatever_order_the_folders_came_in(flow, undrawn):
    page = Page(build_report(list(reversed([*flow[:2], *flow[4:]]))))
    heads = page.words.split("Helpfulness and harm")[2]
    places = [heads.index(f" {name} ") for name in ("pretrain", "sft", "ppo", "limited")]
    assert places == sorted(places)


def test_numbers_stand_in_the_page_with_interval_and_n(flow, undrawn):
    value = json.loads((flow[-1] / "evaluation.json").read_text())
    value["slices"]["harmful"]["gold/harm"] = {"mean": -0.4321, "low": -0.51, "high": -0.298, "n": 77}
    (flow[-1] / "evaluation.json").write_text(json.dumps(value))
    words = Page(build_report(flow[-1:])).words
    assert re.search(r"−0\.43 \[−0\.51, −0\.30\] n 77", words)


def test_every_section_names_its_files_and_their_hashes(whole):
    flow, html = whole
    for folder in flow:
        run = load_run(folder)
        for name, digest in run.hashes.items():
            assert f"{run.name}/{name}" in html and digest in html
    body = html.split('<section id="limits">')[1].split("</section>")[0]
    assert "ppo/metrics.jsonl" in body and load_run(flow[5]).hashes["metrics.jsonl"][:16] in body


def test_the_page_does_not_say_where_on_the_disk_it_was_made(whole):
    assert str(whole[0][0].parent) not in whole[1]


def test_a_file_that_was_changed_after_the_run_is_said_to_be(flow, undrawn):
    assert "changed later" not in build_report(flow[:1])
    with open(flow[0] / "metrics.jsonl", "a") as stream:
        stream.write(json.dumps({"step": 41, "loss": 1.0}) + "\n")
    assert "changed later" in build_report(flow[:1])


def test_the_summary_given_comes_first_and_otherwise_the_verdicts_are_computed(flow, undrawn):
    given = Page(build_report(flow[-2:], summary=["PPO is better: +0.80 [0.70, 0.90]"])).words
    assert "PPO is better: +0.80 [0.70, 0.90]" in given
    computed = Page(build_report([flow[1], *flow[4:6], *flow[-3:]])).words
    assert re.search(r"Gold helpfulness from sft to ppo, all prompts: \+0\.\d\d \[[^]]*\], higher", computed)
    assert re.search(
        r"Cost model “harmless”, limited on harmful, red-team: −0\.\d\d \[[^]]*\]; limit −0\.20 is met", computed
    )


def test_a_limit_that_does_not_hold_is_said_not_to(flow, undrawn):
    config = flow[4] / "config.yaml"
    config.write_text(config.read_text().replace("-0.2", "-0.9"))
    assert "limit −0.90 is not met" in Page(build_report([flow[4], flow[-1]])).words


def test_the_same_folders_give_the_same_bytes_whoever_draws(whole, monkeypatch):
    monkeypatch.setattr(drawing, "MOST", 1)  # one process, but another than this
    few = whole[0][2:3]
    assert build_report(few, processes=2) == build_report(few)


def test_nan_and_null_neither_crash_nor_hide(flow):
    rows = [json.loads(line) for line in (flow[5] / "metrics.jsonl").read_text().splitlines()]
    for row in rows[3:6]:
        row["reward/helpful"] = float("nan")
    rows[7]["cost/harmless/mean"] = None
    rows[-1]["sqrt_kl"] = rows[-1]["objective/kl"] = float("nan")
    (flow[5] / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    value = json.loads((flow[-1] / "evaluation.json").read_text())
    value["slices"]["benign"]["gold/helpful"] = {"mean": None, "low": None, "high": None, "n": 0}
    value["slices"]["all"]["gold/harm"] = {"mean": float("nan"), "low": float("nan"), "high": float("inf"), "n": 3}
    (flow[-1] / "evaluation.json").write_text(json.dumps(value))
    replace_samples(flow[-1], lambda row: row["scores"].update({"gold/helpful": None}))
    words = Page(build_report([flow[5], flow[-1]])).words
    assert "reward/helpful of ppo: 3 of 40 values are n/a" in words
    assert "cost/harmless/mean of ppo: 1 of 40 values are n/a" in words
    assert "n/a [n/a, n/a] n 0" in words
    assert "n/a [n/a, ∞] n 3" in words
    assert "helpful n/a" in words
    assert "nan" not in re.split(r"\W+", words)


def test_a_slice_that_was_not_measured_is_na_and_a_prompt_that_was_not_asked_too(flow, unwritten):
    value = json.loads((flow[-4] / "evaluation.json").read_text())
    del value["slices"]["benign"]["gold/helpful"]
    (flow[-4] / "evaluation.json").write_text(json.dumps(value))
    replace_samples(flow[-1], lambda row: row.update(prompt_id="other-" + row["prompt_id"]))
    words = Page(build_report(flow[-4:])).words
    assert "not asked this prompt" in words
    assert re.search(r"benign n/a", words)


def test_one_folder_is_enough_and_absent_sections_are_absent(flow, unwritten):
    pages = [Page(build_report([folder])) for folder in flow[:6]]
    assert all(page.open == [] and "lineage" in page.ids for page in pages)
    assert "kl" not in pages[0].ids and "limits" in pages[4].ids and "preference" in pages[2].ids


def test_real_data_without_gold_shows_model_scores(flow, undrawn):
    for folder in flow[-4:]:
        value = json.loads((folder / "evaluation.json").read_text())
        for measured in value["slices"].values():
            for key in [key for key in measured if key.startswith("gold/")]:
                del measured[key]
        (folder / "evaluation.json").write_text(json.dumps(value))
        replace_samples(
            folder,
            lambda row: row.update(scores={k: v for k, v in row["scores"].items() if not k.startswith("gold/")}),
        )
    words = Page(build_report(flow[-4:])).words
    assert "No gold truth exists for these prompts" in words
    assert "Preference model “helpful”, all prompts" in words and "Cost model “harmless”" in words


def test_nothing_to_report_on_is_refused():
    with pytest.raises(BadInput, match="at least one run folder"):
        build_report([])
