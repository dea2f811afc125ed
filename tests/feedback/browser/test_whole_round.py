"""A whole round with people in a browser: 200 comparisons, a preference model, PPO, and the gate's verdict.

Both programs run as people start them. The people are Playwright's: they read what stands on the page, value it as the
gold world's annotators do, and press the key. The round begins from the snapshot in $ACCORD_SNAPSHOT, as that of a
demo, else from a small one that is trained first. Pictures go to $ACCORD_SCREENSHOTS; docs/round.md shows them.
"""

import os
import re
import subprocess
import sys

import pytest
import yaml

from accord.claims.lab.recipes import GoldFlow, Scale
from accord.claims.lab.workers import run_stage
from accord.disk import read_json, read_lines
from accord.evaluation.promotion import comparisons_needed
from accord.records import Prompt, Turn
from accord.reporting import build_report
from accord.run import verify
from accord.world import Annotator
from tests.fixtures.browsing import after
from tests.fixtures.feedback import PASSWORD

pytestmark = pytest.mark.slow
QUESTION = "#question[data-mode]"
# a fifth of a demo's training: the model answers, and not always well
BASE = Scale("tiny", 4_000, 150, 1_200, 60, 60, 60, 60, 2, 8, 8, "f32")
LABELLED, JUDGED = 125, 100  # prompts; where two replies are the same nobody is asked
STEPS = 10  # of PPO
GATE = {"confidence": 0.9, "bounds": {"help": {"metric": "win/helpful", "at_least": 0.5}}}
# name, tag of the link, width and theme of the browser, seed of what they value
PEOPLE = (
    ("Ada", "training", 1200, "light", 1),
    ("Ben", "training", 390, "dark", 2),
    ("Cleo", "judging", 1200, "dark", 3),
    ("Dan", "judging", 390, "light", 4),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model of the gold world, pretrained and fine-tuned."""
    if given := os.environ.get("ACCORD_SNAPSHOT"):
        return given
    flow = GoldFlow(tmp_path_factory.mktemp("base"), BASE, 0, False, 1)
    for stage in ("pretrain", "sft"):
        run_stage(stage, getattr(flow, stage)())
    return flow.snapshot("sft")


class Player:
    """Somebody at the page."""

    def __init__(self, page, link, name, seed):
        self.page, self.person, self.name, self.answers = page, Annotator(seed=seed), name, 0
        page.goto(link)
        page.fill("[name=name]", name)
        page.fill("[name=password]", PASSWORD)
        after(page, lambda: page.click("button.main"))

    def wait(self):
        """Until there is a question: the page shows it by itself."""
        self.page.wait_for_selector(QUESTION, timeout=240_000)

    def answer(self):
        """Read, decide, press; whether there was a question."""
        page = self.page
        if not page.locator(QUESTION).count():
            return False
        turns = page.eval_on_selector_all(
            ".prompt .turn", "all => all.map(one => [one.classList[1], one.querySelector('.said').textContent])"
        )
        replies = page.eval_on_selector_all("section.replies .said", "all => all.map(one => one.textContent)")
        said = self.person.compare(Prompt(tuple(Turn(*turn) for turn in turns), "", ""), replies, "helpful")
        page.keyboard.press("2" if said.ranks[0] == 1 else "6")
        after(page, lambda: page.keyboard.press("Enter"))
        page.wait_for_timeout(100)  # nobody reads faster than the page lets them
        self.answers += 1
        return True


def start(*words):
    return subprocess.Popen([sys.executable, "-m", "accord", *map(str, words)], stdout=subprocess.PIPE, text=True)


@pytest.fixture
def programs(base, tmp_path):
    """`accord online` that waits for people, and the page that asks them; the page's links by tag."""
    (tmp_path / "gate.yaml").write_text(yaml.safe_dump(GATE), encoding="utf-8")
    run, store = tmp_path / "round", tmp_path / "feedback.db"
    who = ["--labeler", "people", "--judge", "people", "--database", store, "--wait"]
    size = ["--rounds", 1, "--prompts", LABELLED, "--judge_prompts", JUDGED, "--eval_prompts", 20, "--threads", 1]
    train = {"steps": STEPS, "batch_size": 32, "samples": 2, "mini_batch_size": 32, "learning_rate": 4e-4}
    knobs = [part for name, value in train.items() for part in (f"--train.{name}", value)]
    knobs += ["--train.max_length", 200, "--preference.max_length", 200, "--preference.epochs", 3]
    knobs += ["--train.precision", "f32", "--preference.precision", "f32"]
    rounds = start(
        *("online", "--model", base, "--data", "world:prompts/benign?count=1600&seed=1", "--policy", "ppo"),
        *("--gate", tmp_path / "gate.yaml", "--max_new_tokens", 40, "--out", run),
        *(*who, *size, *knobs),
    )
    page = start("collect", "--rounds", run, "--database", store, "--port", 0)
    try:
        links = {}
        while len(links) < 2:
            line = page.stdout.readline()
            assert line, "the page ended"
            if found := re.search(r"for (\w+): (http\S+)", line):
                links[found[1]] = found[2]
        yield rounds, run, links
    finally:
        for program in (rounds, page):
            program.kill()
            program.wait()
            program.stdout.close()


def test_people_in_a_browser_decide_whether_a_policy_is_promoted(programs, open_page, pictures):
    rounds, run, links = programs
    players = []
    for name, tag, width, theme, seed in PEOPLE:
        player = Player(open_page(width, theme), links[tag], name, seed)
        assert "No question" in player.page.text_content("main") or tag == "training"
        players.append((player, tag, f"{width}-{theme}"))
    for step in ("training", "judging"):
        there = [(player, look) for player, tag, look in players if tag == step]
        for player, look in there:
            player.wait()
            player.page.screenshot(path=pictures / f"round-{step}-{look}.png")
        while [player for player, _ in there if player.answer()]:
            pass
    assert rounds.wait(timeout=200) in (0, 3)
    assert rounds.stdout.read().count("waits for people") == 2
    assert sum(player.answers for player, *_ in players) >= 200
    assert [player.page.noted for player, *_ in players] == [[]] * len(players)
    look_at_decision(run, players)
    look_at_report(run, open_page, pictures)


def look_at_decision(run, players):
    """The verdict with its interval and the n needed; who labelled has not judged."""
    verify(run)
    (told,) = read_json(run / "rounds.json")["rounds"]
    (bound,) = told["decision"]["bounds"]
    assert bound["low"] < bound["mean"] < bound["high"] and bound["verdict"] in ("met", "not met", "not decided")
    assert told["decision"]["promoted"] == (bound["verdict"] == "met") == (bound["low"] > 0.5)
    assert bound["needed_to_detect"] == comparisons_needed(0.55, confidence=0.95, against=0.5) == 617
    assert bound["comparisons"] == sum(player.answers for player, tag, _ in players if tag == "judging")
    labelled = told["steps"]["label"]["labelers"]
    assert sum(labelled.values()) == sum(player.answers for player, tag, _ in players if tag == "training")
    assert not set(labelled) & set(told["decision"]["judges"]["incumbent"])
    model = read_json(run / "round-1" / "models" / "helpful" / "evaluation.json")["rows"][0]
    assert model["n"] > 0 and len(read_lines(run / "round-1" / "ppo" / "metrics.jsonl")) == STEPS
    print(f"\n{bound['verdict']}: {bound['mean']:.3f} [{bound['low']:.3f}, {bound['high']:.3f}], n {bound['prompts']}")


def look_at_report(run, open_page, pictures):
    """The page of the rounds says so, in both themes."""
    report = run.with_name("report.html")
    report.write_text(build_report([run]), encoding="utf-8")
    for width, theme in ((1200, "light"), (390, "dark")):
        page = open_page(width, theme)
        page.goto(report.as_uri())
        heading = page.locator("h2", has_text=re.compile("round", re.I)).first
        heading.scroll_into_view_if_needed()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=pictures / f"round-report-{width}-{theme}.png")
