"""`accord evaluate principles`: replies to each principle's tests, judged under all of them, alone and in pairs."""

import pytest

from accord.cli import main
from accord.data.sources import read_prompts
from accord.disk import read_json, read_lines
from accord.errors import BadInput
from accord.labelers.labeler import Draft
from accord.labelers.questions import Distribution
from accord.parsing import parse
from accord.reporting import build_report
from accord.run import verify
from accord.stages.evaluate.config import EvaluatePrinciples
from accord.stages.evaluate.principles import run as principles
from accord.stages.rewards import Setting
from accord.world import faults

YAML = """\
name: ours
principles:
  - {name: loud, text: Be loud., comparison: "Which is louder?", tests: [one, two, three, four, five, six]}
  - {name: quiet, text: Be quiet., comparison: "Which is quieter?", tests: [seven, eight, nine, ten]}
  - {name: short, text: Be short., revision: Shorter., tests: [eleven, twelve, thirteen]}
"""


class Says:
    """Shouts every so many replies."""

    name = key = "says"

    def __init__(self, every):
        self.every = every

    def write(self, asked, how):
        return [Draft("HERE" if number % self.every == 0 else "here it is") for number in how.numbers]


class Hears:
    """Knows loud from quiet; has no answer about `deaf`. Likes the first place, and tells its own liking in pairs."""

    name = key = "hears"

    def __init__(self, deaf=""):
        self.deaf, self.pairs = deaf, []

    def ask(self, questions):
        return [self.answer(question) for question in questions]

    def answer(self, question):
        text = question.turns[-1].content
        if self.deaf and self.deaf in text:
            return Distribution((), "json", "deaf")
        if question.kind == "choice":
            self.pairs.append(question)
            loud = [part.split("\n")[0] == "HERE" for part in (text.split("(A) ")[1], text.split("(B) ")[1])]
            wanted = loud if "louder" in text else [not one for one in loud]
            better = 0.5 if wanted[0] == wanted[1] else 0.8 if wanted[0] else 0.2
            return Distribution((min(better + 0.1, 0.95), 1 - min(better + 0.1, 0.95)), "logprobs")
        loud, asked = "\n\nHERE\n" in text, question.asked
        good = loud if "loud" in asked else (not loud) if "quiet" in asked else loud
        return Distribution((0.9, 0.1) if good else (0.2, 0.8), "logprobs")


@pytest.fixture
def tested(monkeypatch, tmp_path):
    """`tested(name, policy, judge, **knobs)`: a run folder."""
    ours = tmp_path / "ours.yaml"
    ours.write_text(YAML)
    monkeypatch.setattr("accord.stages.shared.preflight", lambda *_, **__: None)

    def make(name, policy, judge, **knobs):
        monkeypatch.setattr(Setting, "labeler", lambda self, where: {"m": policy, "j": judge}[where])
        config = {"model": "m", "judge": "j", "constitution": str(ours), "question": "yes-no", "threads": 1}
        principles(EvaluatePrinciples(**{**config, "out": str(tmp_path / name), **knobs}))
        return tmp_path / name

    return make


def test_every_reply_is_judged_under_every_principle_and_each_holds_on_its_own_tests(tested):
    out = tested("run", Says(2), Hears())
    verify(out)
    rows, told = read_lines(out / "samples.jsonl"), read_json(out / "evaluation.json")
    assert len(rows) == 13 * 4 and all(set(row["scores"]) == {"loud", "quiet", "short"} for row in rows)
    loud = told["principles"]["loud"]
    assert (loud["replies"], loud["prompts"], loud["holds"]["mean"]) == (24, 6, 0.5)
    assert loud["holds"]["low"] < 0.5 < loud["holds"]["high"] and loud["score"]["mean"] == pytest.approx(0.1)
    assert rows[0]["scores"] == pytest.approx({"loud": 0.8, "quiet": -0.6, "short": 0.8})
    assert rows[0]["helpful"] == pytest.approx(0.8 if rows[0]["reply"] == "HERE" else -0.6)
    assert told["judged_under_all"] == 52 and told["unjudged"] == {}


def test_two_that_contradict_are_named(tested, capsys):
    told = read_json(tested("run", Says(2), Hears()) / "evaluation.json")
    first = told["pairs"][0]
    assert {first["one"], first["other"]} == {"loud", "quiet"} and first["mean"] == pytest.approx(-1)
    assert told["principles"]["loud"]["with_helpful"]["mean"] == pytest.approx(1)
    assert told["principles"]["quiet"]["with_helpful"]["mean"] == pytest.approx(-1)


def test_replies_of_another_snapshot_are_met_in_both_orders(tested):
    before = tested("before", Says(4), Hears())
    judge = Hears()
    after = tested("after", Says(2), judge, against=str(before))
    against = read_json(after / "evaluation.json")["against"]
    # of four replies two are loud now, and one was: where they differ, the new one is the louder
    assert against["loud"]["pairs"] == 24 and against["loud"]["preferred"]["mean"] == pytest.approx(0.5 + 0.25 / 2)
    assert against["quiet"]["preferred"]["mean"] == pytest.approx(0.5 - 0.25 / 2)
    assert against["short"]["preferred"] is None, "it has no comparison"
    assert against["loud"]["holds"]["mean"] == pytest.approx(0.25)
    assert against["loud"]["helpful"]["mean"] == pytest.approx(0.25 * 1.4)
    assert len(judge.pairs) == 2 * (6 + 4), "equal replies tie without a question"
    page = build_report([before, after])
    texts = {principle["text"] for principle in read_json(after / "evaluation.json")["principles"].values()}
    assert len(texts) > 1 and all(text in page for text in texts), "a name alone does not say what is kept to"
    assert "Principle by principle" in page and "preferred to the other" in page


def test_replies_without_an_answer_are_counted(tested):
    told = read_json(tested("run", Says(2), Hears(deaf="seven")) / "evaluation.json")
    assert told["unjudged"] == {"loud": 4, "quiet": 4, "short": 4} and told["judged_under_all"] == 48
    assert told["principles"]["quiet"]["replies"] == 12
    with pytest.raises(BadInput, match="no reply to the tests of short could be judged"):
        tested("none", Says(2), Hears(deaf="Be short"))


def test_gold_judges_the_worlds_principles_with_a_real_policy(snapshots, tmp_path):
    line = f"evaluate principles --model {snapshots / 'policy'} --judge gold --constitution world --threads 1"
    line += " --samples 2 --data world:prompts/look-alike?count=12&seed=3 --max_new_tokens 5"
    assert main([*line.split(), "--out", str(tmp_path / "run")]) == 0
    rows, told = read_lines(tmp_path / "run" / "samples.jsonl"), read_json(tmp_path / "run" / "evaluation.json")
    asked = len(read_prompts("world:prompts/look-alike?count=12&seed=3").records)
    assert len(rows) == 2 * asked and len(told["principles"]) == 20
    for row in rows:
        broken = faults([(turn["role"], turn["content"]) for turn in row["prompt"]], row["reply"])
        assert {name for name, score in row["scores"].items() if score < 0} == set(broken)
    kept = sum(row["scores"]["garbled"] > 0 for row in rows) / len(rows)
    assert told["principles"]["garbled"]["holds"]["mean"] == pytest.approx(kept)
    assert told["principles"]["garbled"]["replies"] == len(rows)


def test_a_real_judge_answers_through_the_journal_and_resumes(snapshots, tmp_path, monkeypatch):
    ours = tmp_path / "ours.yaml"
    ours.write_text(YAML)
    line = f"evaluate principles --model {snapshots / 'policy'} --judge {snapshots / 'other'} --constitution {ours}"
    line = [*f"{line} --threads 1 --samples 2 --max_new_tokens 5".split(), "--out", str(tmp_path / "run")]
    from accord.stages.evaluate import principles as stage

    monkeypatch.setattr(stage, "CHUNK", 6)

    class Killed(BaseException):
        pass

    calls = []
    rows = stage.Judging.rows

    def die(*given):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return rows(*given)

    monkeypatch.setattr(stage.Judging, "rows", die)
    with pytest.raises(Killed):
        main(line)
    assert len(read_lines(tmp_path / "run" / "samples.jsonl")) == 12
    assert main([*line, "--resume"]) == 0
    assert len(read_lines(tmp_path / "run" / "samples.jsonl")) == 26
    asked = read_lines(tmp_path / "run" / "journal.jsonl")
    assert len({row["id"] for row in asked}) == len(asked) > 26


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"data": "d.jsonl"}, "every principle of --constitution has tests of its own"),
        ({"tags": ["wild"]}, "no principle with these --tags"),
        ({"against": "."}, "no replies to these tests"),
        ({"constitution": "world"}, "no tests of harmful, pushy, nosy"),
    ],
)
def test_what_does_not_do_is_refused(tested, knobs, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a parent that is no run is hashed file by file: an empty folder, not the checkout
    with pytest.raises(BadInput, match=says):
        tested("run", Says(2), Hears(), **knobs)


def test_gold_knows_no_other_principles(tmp_path, monkeypatch, commands):
    line = (
        f"evaluate principles --model {commands.snapshots / 'policy'} --judge gold --threads 1 --out {tmp_path / 'o'}"
    )
    with pytest.raises(BadInput, match="gold knows the gold world's principles alone"):
        principles(parse("evaluate principles", line.split()[2:]))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"judge": "gold", "question": "yes-no"}, "--question has no effect with --judge gold"),
        ({"judge": "gold", "calibration": "c"}, "--calibration has no effect with --judge gold"),
        ({"judge": "gold", "against": "r", "shots": 1}, "--shots has no effect with --judge gold"),
        ({"shots": 1}, "--shots has no effect without --against"),
        ({"require_calibration": True}, "require_calibration needs calibration RUN"),
        ({"allow_local": True}, "without --model or --judge PROTOCOL:URL#MODEL"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        EvaluatePrinciples(**{"model": "m", "judge": "j", "out": "o", **changes})
