"""`accord evaluate refusals`: harm and over-refusal of evaluations and labelled replies, by rules, costs, people."""

import json
import random

import pytest

from accord.cli import main
from accord.disk import read_json, read_lines
from accord.evaluation.prevalence import corrected_share, judge_errors, prediction_powered
from accord.evaluation.statistics import share_interval
from accord.reporting.context import load_context
from accord.run import verify
from accord.stages.evaluate.refusals import OTHERWISE, OWN, TRUE, UNMEASURED, USELESS

REFUSAL, ANSWER, LATE = "I'm sorry, but no.", "Here you go.", "A question! I'd rather leave it."


def judge(out, *words):
    return main(["evaluate", "refusals", "--out", str(out), *map(str, words)])


def refused(capsys, code):
    err = capsys.readouterr().err
    assert code == 2 and "Traceback" not in err, err
    return err


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompt(side, number):
    return f"{'wicked' if side == 'harmful' else 'harmless'} question {number}"


def label(side, number, reply, complied, **more):
    """One person's label of a reply to a prompt."""
    row = {"prompt": prompt(side, number), "completion": f"{reply} ({number})", "label": complied, "slice": side}
    return row | {"labeler": "human:1", **more}


def others(count=80, seed=1):
    """Labelled replies of another model: a fifth of its refusals come late, where the rule does not see them."""
    generator, rows = random.Random(seed), []
    for side in ("harmful", "look-alike"):
        for number in range(count):
            if generator.random() < (0.7 if side == "harmful" else 0.3):
                late = generator.random() < 0.2
                kind = {"category": "partial refusal" if late else "full refusal"}
                rows.append(label(side, number, LATE if late else REFUSAL, False, **kind))
            else:
                rows.append(label(side, number, ANSWER, True, category="full compliance"))
    return rows


def evaluation(folder, replies, scores=None):
    """A folder of `accord evaluate`: (side, number, reply) each, scored."""
    from accord.records import Prompt, Turn

    rows = []
    for k, (side, number, reply) in enumerate(replies):
        turns = [{"role": "user", "content": prompt(side, number)}]
        identity = Prompt(tuple(Turn(**turn) for turn in turns), side, "test").id
        rows.append(
            {"prompt_id": identity, "slice": side, "source": "test", "prompt": turns, "reply": f"{reply} ({number})"}
            | {"scores": scores(k) if scores else {"length": 3.0}}
        )
    write(folder / "samples.jsonl", rows)
    return folder


def answered(count, refusals, side="look-alike", first=0):
    return [(side, number, REFUSAL if number - first < refusals else ANSWER) for number in range(first, first + count)]


def test_what_the_judge_gets_wrong_elsewhere_is_taken_out_here(tmp_path, capsys):
    """Another model's labels on the same prompts: how the judge errs, and the share with that in its interval."""
    source = write(tmp_path / "labels.jsonl", others())
    replies = answered(80, 20) + answered(80, 60, "harmful")
    run = evaluation(tmp_path / "eval", replies)
    assert judge(tmp_path / "out", "--runs.mine", run, "--labels", source) == 0
    verify(tmp_path / "out")
    found = read_json(tmp_path / "out" / "refusals.json")
    for side, refusals in (("look-alike", 20), ("harmful", 60)):
        rows = [row for row in others() if row["slice"] == side]
        said = [row["completion"].startswith(REFUSAL) for row in rows]
        errors = judge_errors(said, [not row["label"] for row in rows])
        measured = found["judges"]["rules"]["sides"][side]
        assert measured["sensitivity"] == errors.sensitivity.json() and measured["replies"] == 80
        assert measured["specificity"]["mean"] == 1 and measured["partial"]["mean"] == 0
        row = found["snapshots"]["mine"][side]["judges"]["rules"]
        answers = [1] * refusals + [0] * (80 - refusals)
        assert row["seen"] == share_interval(answers).json()
        assert row["corrected"] == corrected_share(answers, errors).json()
        assert row["corrected"]["mean"] > row["seen"]["mean"] and row["how"] == "by the judge's known errors"
    assert "mine, look-alike: refused by rules 0." in capsys.readouterr().out
    assert found["labelled"]["labels"]["harmful"]["partial refusal"]["mean"] > 0


def test_a_suite_without_labels_of_its_own_says_so(tmp_path):
    """Labels on other prompts are of another suite; labels on half of the prompts are enough."""
    source = write(tmp_path / "labels.jsonl", others(40))
    run = evaluation(tmp_path / "eval", answered(80, 20, first=39) + answered(70, 20, "harmful"))
    assert judge(tmp_path / "out", "--runs.mine", run, "--labels", source) == 0
    found = read_json(tmp_path / "out" / "refusals.json")["snapshots"]["mine"]
    assert found["look-alike"]["judges"]["rules"] | {"seen": None} == {
        "asks": "refused",
        "seen": None,
        "how": UNMEASURED,
        "corrected": None,
    }
    assert UNMEASURED == "judge unmeasured here"
    assert found["harmful"]["judges"]["rules"]["corrected"] is not None


def test_labels_of_the_very_replies_need_no_other_model(tmp_path):
    replies = answered(80, 20) + [("look-alike", 100 + k, LATE) for k in range(10)]
    rows = [label("look-alike", number, reply, reply == ANSWER) for _, number, reply in replies[::2]]
    source = write(tmp_path / "labels.jsonl", rows)
    assert judge(tmp_path / "out", "--runs.mine", evaluation(tmp_path / "eval", replies), "--labels.mine", source) == 0
    row = read_json(tmp_path / "out" / "refusals.json")["snapshots"]["mine"]["look-alike"]["judges"]["rules"]
    said = [float(reply == REFUSAL) for *_, reply in replies]
    true = [float(reply != ANSWER) for *_, reply in replies[::2]]
    # the same words by another are no random part of what this one says
    assert judge(tmp_path / "other", "--runs.mine", tmp_path / "eval", "--labels.other", source) == 0
    other = read_json(tmp_path / "other" / "refusals.json")["snapshots"]["mine"]["look-alike"]["judges"]["rules"]
    assert other["how"] != OWN
    assert row["how"] == OWN and row["corrected"] == prediction_powered(said[1::2], said[::2], true).json()


def test_costs_are_judges_of_harm_and_other_labelers_of_refusal(tmp_path):
    """A cost model is right about harmful prompts where it calls compliance unsafe; of look-alikes nobody knows."""
    rows = others(60)
    gpt = [{**row, "label": True, "labeler": "gpt"} for row in rows]
    source = write(tmp_path / "labels.jsonl", rows + gpt)
    cost = {row["completion"]: 1.0 if row["label"] and number % 5 else -1.0 for number, row in enumerate(rows)}
    scored = evaluation(tmp_path / "scores", [])
    identities = {}
    for row in rows:
        folder = evaluation(tmp_path / "one", [(row["slice"], int(row["prompt"].split()[-1]), ANSWER)])
        identities[row["prompt"]] = read_lines(folder / "samples.jsonl")[0]["prompt_id"]
    write(
        scored / "scores.jsonl",
        [
            {"prompt_id": identities[row["prompt"]], "reply": row["completion"]}
            | {"scores": {"harm": 0.0, "harm/logit": cost[row["completion"]]}}
            for row in rows
        ],
    )
    run = evaluation(
        tmp_path / "eval", answered(60, 10, "harmful"), lambda k: {"cost/harm": k - 50.0, "cost/harm/unsafe": 1.0}
    )
    line = ["--runs.mine", run, "--labels", source, "--scores", scored]
    assert judge(tmp_path / "out", *line) == 0
    found = read_json(tmp_path / "out" / "refusals.json")
    assert list(found["judges"]) == ["rules", "cost/harm", "labeler/gpt"]
    harm = found["judges"]["cost/harm"]
    assert (
        harm["asks"] == "harmful" and list(harm["sides"]) == ["harmful"] and "partial" not in harm["sides"]["harmful"]
    )
    on = [row for row in rows if row["slice"] == "harmful"]
    errors = judge_errors([cost[row["completion"]] > 0 for row in on], [row["label"] for row in on])
    assert harm["sides"]["harmful"]["sensitivity"] == errors.sensitivity.json()
    row = found["snapshots"]["mine"]["harmful"]["judges"]["cost/harm"]
    assert row["seen"]["mean"] == pytest.approx(9 / 60)
    assert row["corrected"] == corrected_share([0] * 51 + [1] * 9, errors).json()
    # a labeler that never sees a refusal tells nothing apart, and was not asked about the evaluation's replies
    assert found["judges"]["labeler/gpt"]["sides"]["harmful"]["sensitivity"]["mean"] == 0
    assert "labeler/gpt" not in found["snapshots"]["mine"]["harmful"]["judges"]
    assert judge(tmp_path / "one judge", *line, "--judge", "rules") == 0
    assert list(read_json(tmp_path / "one judge" / "refusals.json")["judges"]) == ["rules"]


def test_a_judge_that_cannot_tell_is_not_corrected_by(tmp_path):
    rows = [label("look-alike", k, REFUSAL if k % 2 else ANSWER, k % 4 < 2) for k in range(60)]
    source = write(tmp_path / "labels.jsonl", rows)
    run = evaluation(tmp_path / "eval", [("look-alike", k, LATE) for k in range(60)])
    assert judge(tmp_path / "out", "--runs.mine", run, "--labels", source) == 0
    row = read_json(tmp_path / "out" / "refusals.json")["snapshots"]["mine"]["look-alike"]["judges"]["rules"]
    assert row["how"] == USELESS and row["corrected"] is None


def test_a_judge_that_errs_otherwise_here_is_said_to(tmp_path):
    """It takes four of ten of the others' answers for refusals, and none of 60 here."""
    rows = [
        label("look-alike", k, REFUSAL, k % 2 == 0) if k % 5 < 2 else label("look-alike", k, ANSWER, True)
        for k in range(200)
    ]
    rows += [label("look-alike", k, REFUSAL + "!", False) for k in range(60)]
    source = write(tmp_path / "labels.jsonl", rows)
    run = evaluation(tmp_path / "eval", [("look-alike", k, ANSWER) for k in range(60)])
    assert judge(tmp_path / "out", "--runs.mine", run, "--labels", source) == 0
    row = read_json(tmp_path / "out" / "refusals.json")["snapshots"]["mine"]["look-alike"]["judges"]["rules"]
    assert row["how"] == OTHERWISE and row["corrected"] is None


def test_gold_knows_both_and_its_slices_are_the_sides(commands, tmp_path, capsys):
    """Prompts of the gold world: the tiny policy's replies are judged by gold, by the rule and by a cost model."""
    lines = {
        "data.harmful": "world:prompts/harmful?count=12&seed=3",
        "data.look-alike": "world:prompts/look-alike?count=8&seed=3",
    }
    extra = {"data": None, "rewards.helpful": None, **lines}
    assert commands.run("evaluate", tmp_path / "eval", **extra) == 0
    assert judge(tmp_path / "out", "--runs.policy", tmp_path / "eval") == 0
    found = read_json(tmp_path / "out" / "refusals.json")
    assert list(found["judges"]) == ["rules", "cost/harmless", "gold/harm_share", "gold/refusal"]
    rows = read_lines(tmp_path / "eval" / "samples.jsonl")
    for side, count in (("harmful", 12), ("look-alike", 8)):
        part = found["snapshots"]["policy"][side]
        gold = [row["scores"]["gold/harm_share"] for row in rows if row["slice"] == side]
        assert part["replies"] == count and part["judges"]["gold/harm_share"]["seen"]["mean"] == sum(gold) / count
        assert part["evasive"]["n"] == count and part["judges"]["gold/refusal"]["how"] == TRUE
    assert main(["report", str(tmp_path / "out"), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "Harm and over-refusal" in page and "judge unmeasured here" in page


def test_a_slice_is_measured_with_its_parts(commands, tmp_path):
    rows = [{"prompt": f"the cat {n}", "slice": "harmful/fraud" if n % 3 else "harmful/hate"} for n in range(9)]
    assert commands.run("evaluate", tmp_path / "eval", data=write(tmp_path / "prompts.jsonl", rows)) == 0
    found = read_json(tmp_path / "eval" / "evaluation.json")["slices"]
    assert {name: part["n"] for name, part in found.items()} == {
        "all": 9,
        "harmful": 9,
        "harmful/fraud": 6,
        "harmful/hate": 3,
    }
    assert judge(tmp_path / "out", "--runs.a", tmp_path / "eval") == 0
    assert read_json(tmp_path / "out" / "refusals.json")["snapshots"]["a"]["harmful"]["replies"] == 9
    (snapshot,) = load_context([tmp_path / "eval"]).snapshots
    assert len(snapshot.by_prompt("length", ["harmful"])) == 9 and len(snapshot.by_prompt("length", ["harm"])) == 0


def test_what_cannot_be_judged_is_refused_by_its_name(tmp_path, capsys):
    source = write(tmp_path / "labels.jsonl", others(10))
    run = evaluation(tmp_path / "eval", answered(4, 2))
    elsewhere = evaluation(tmp_path / "elsewhere", [("other", 1, ANSWER)])
    for line, words in (
        ([], "nothing to judge"),
        (
            ["--runs.a", elsewhere],
            "no prompt is in one of the slices harmful, red-team, look-alike, benign; its slices: other",
        ),
        (["--runs.a", tmp_path / "gone"], "its slices: none"),
        (["--runs.a", run, "--truth", "gpt"], "--truth has no effect without --labels"),
        (["--runs.a", run, "--scores", "x"], "--scores has no effect without --labels"),
        (
            ["--runs.a", run, "--judge", "cost/harm"],
            "cost/harm: no such score in these replies; there are rules",
        ),
        (["--labels", source, "--truth", "gpt"], "is by gpt (--truth); labelers: human"),
        (["--labels", source, "--scores", tmp_path], "has no scores.jsonl"),
        (["--labels", write(tmp_path / "p.jsonl", [{"prompt": "p"}])], "no judgements can be read"),
    ):
        assert words in refused(capsys, judge(tmp_path / "out", *line)), line
        assert not (tmp_path / "out").exists()


def test_language_models_and_cost_models_judge_every_reply(commands, tmp_path, capsys):
    labels = write(tmp_path / "labels.jsonl", others(24))
    replies = [(side, n, REFUSAL if n % 2 else ANSWER) for side in ("harmful", "look-alike") for n in range(24)]
    ours = evaluation(tmp_path / "ours", replies)
    asked = ("--labelers.tiny", commands.snapshots / "policy", "--costs.harm", commands.snapshots / "cost")
    assert judge(tmp_path / "run", "--runs.ours", ours, "--labels", labels, *asked) == 0
    verify(tmp_path / "run")
    found = read_json(tmp_path / "run" / "refusals.json")
    assert set(found["judges"]) == {"rules", "labeler/tiny", "cost/harm"}
    # by hand: the labeler's own answers, the cost model's own scores
    journal = read_lines(tmp_path / "run" / "journal.jsonl")
    asked_about = {(row["prompt"], row["completion"]) for row in others(24)}
    asked_about |= {(prompt(side, n), f"{text} ({n})") for side, n, text in replies}
    assert len(journal) == len(asked_about)
    seen = found["snapshots"]["ours"]["harmful"]["judges"]
    assert seen["labeler/tiny"]["asks"] == "refused" and seen["cost/harm"]["asks"] == "harmful"
    said = [float(row["probabilities"][0] > 0.5) for row in journal]
    assert 0 <= seen["labeler/tiny"]["seen"]["mean"] <= 1 and set(said) <= {0.0, 1.0}
    # who was asked judges, whatever the replies' own judges are
    narrow = ("--judge", "rules", *asked)
    assert judge(tmp_path / "narrow", "--runs.ours", ours, "--labels", labels, *narrow) == 0
    assert set(read_json(tmp_path / "narrow" / "refusals.json")["judges"]) == {"rules", "labeler/tiny", "cost/harm"}
    assert judge(tmp_path / "none", "--runs.ours", ours, "--judge", "rules") == 0
    assert set(read_json(tmp_path / "none" / "refusals.json")["judges"]) == {"rules"}
    before = len(journal)
    assert judge(tmp_path / "run", "--runs.ours", ours, "--labels", labels, *asked, "--resume", "true") == 0
    assert len(read_lines(tmp_path / "run" / "journal.jsonl")) == before
    capsys.readouterr()
    code = judge(tmp_path / "no", "--runs.ours", ours, "--costs.harm", commands.snapshots / "reward")
    assert "is a preference model" in refused(capsys, code)
    code = judge(tmp_path / "no", "--runs.ours", ours, "--max_calls", "5")
    assert "--max_calls has no effect without --labelers.NAME" in refused(capsys, code)


def test_a_labeler_that_sees_refusals_is_measured_and_corrected(tmp_path, monkeypatch):
    """What it says enters the interval by its errors on the labelled replies of the same suite."""
    from accord.labelers.questions import Distribution

    class Reader:
        name = key = "reader"

        def ask(self, questions):
            sure = [0.9 if "sorry" in q.state or "rather" in q.state else 0.2 for q in questions]
            return [
                Distribution((), "json", "cut")
                if "question 7\n" in q.state + "\n"
                else Distribution((p, 1 - p), "json")
                for p, q in zip(sure, questions, strict=True)
            ]

    monkeypatch.setattr("accord.labelers.backends.Labelers.named", lambda self, where: Reader())
    labels = write(tmp_path / "labels.jsonl", others())
    ours = evaluation(tmp_path / "ours", [("harmful", n, LATE if n % 2 else ANSWER) for n in range(80)])
    line = ("--runs.ours", ours, "--labels", labels, "--labelers.reader", "openai:https://x#y")
    assert judge(tmp_path / "run", *line) == 0
    found = read_json(tmp_path / "run" / "refusals.json")
    sides = found["judges"]["labeler/reader"]["sides"]
    assert sides["harmful"]["sensitivity"]["mean"] == 1 and sides["harmful"]["specificity"]["mean"] == 1
    own = found["snapshots"]["ours"]["harmful"]["judges"]["labeler/reader"]
    assert own["seen"]["mean"] == pytest.approx(0.5, abs=0.01) and own["corrected"] is not None
    # the rule does not see a late refusal, and says so by its sensitivity
    assert found["snapshots"]["ours"]["harmful"]["judges"]["rules"]["seen"]["mean"] == 0
