"""`accord score` and `accord evaluate preference`: columns, labels, and what a preference model is trusted by."""

import json
import math
import random

import pytest
import torch

from accord.cli import main
from accord.data.sources import read_comparisons
from accord.disk import read_json, read_lines
from accord.engine.forward.causal import token_logprobs
from accord.engine.packing import pack, reply_group
from accord.models.loading import load_policy
from accord.models.scalar import Scorer
from accord.models.tokenizer import load_renderer
from accord.records import Turn
from accord.run import verify
from accord.stages.evaluate.preference import answers

CPU = torch.device("cpu")
WORDS = ["dog", "runs", "sees", "red", "blue", "small", "big", "stone", "river", "bread", "salt"]


@pytest.fixture(scope="module")
def trained(commands, tmp_path_factory):
    """A preference model, a cost model, one of two criteria and an ensemble; cats are good and harmless, stones not."""
    root = tmp_path_factory.mktemp("trained")
    generator = random.Random(3)

    def pairs(count, start):
        return [
            {
                "prompt": f"{generator.choice(WORDS)} {generator.choice(WORDS)} {start + i}",
                "chosen": "the cat " + " ".join(generator.choices(WORDS, k=generator.randint(1, 5))),
                "rejected": "a stone " + " ".join(generator.choices(WORDS, k=generator.randint(1, 5))),
                "margin": i % 3,
                "labeler": f"person:{i % 2}",
            }
            for i in range(count)
        ]

    def write(name, rows):
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    learn, test = pairs(80, 0), pairs(60, 1000)
    for row in test[:12]:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    write("learn.jsonl", learn)
    write("test.jsonl", test + [{**row, "labeler": "person:2"} for row in test[:20]])
    write(
        "strange.jsonl", [{"prompt": "why how me help please", "completion": "please help me " * 4} for _ in range(25)]
    )
    sides = [(row, side) for row in learn for side in ("chosen", "rejected")]
    labels = [{"prompt": r["prompt"], "completion": r[s], "is_safe": s == "chosen"} for r, s in sides]
    write("labels.jsonl", labels)
    fast = {"data": root / "learn.jsonl", "epochs": 4, "learning_rate": 1e-2}
    assert commands.run("preference", root / "one", **fast) == 0
    assert commands.run("preference", root / "two", **fast, criterion="helpful,honest") == 0
    assert commands.run("preference", root / "many", **fast, ensemble=2, combine="worst") == 0
    assert commands.run("cost", root / "cost", **fast, safety_data=root / "labels.jsonl") == 0
    return root


def flags(**knobs):
    return [part for key, value in knobs.items() for part in (f"--{key.replace('__', '.')}", str(value))]


def test_score_gives_every_model_its_columns(commands, trained, tmp_path):
    models = {f"models__{name}": trained / name / "snapshot" for name in ("one", "two", "many", "cost")}
    models["models__policy"] = commands.snapshots / "policy"
    out = tmp_path / "scores"
    line = ["score", *flags(data=trained / "test.jsonl", out=out, threads=1, max_length=64, **models)]
    assert main(line) == 0
    verify(out)
    rows = read_lines(out / "scores.jsonl")
    records = read_comparisons(str(trained / "test.jsonl"), "helpful").records
    assert [row["record_id"] for row in rows[::2]] == [record.id for record in records]
    assert [row["reply"] for row in rows[:2]] == list(records[0].replies)
    one = {"one", "one/logit", "cost", "cost/logit", "many", "many/logit", "many/deviation"}
    two = {f"two/{head}{end}" for head in ("helpful", "honest") for end in ("", "/logit")}
    assert set(rows[0]["scores"]) == one | two | {"policy/logprob", "policy/tokens"}
    renderer = load_renderer(str(trained / "one" / "snapshot"))
    groups = [
        reply_group(renderer.prompt_ids(r.prompt.turns), *map(renderer.reply_ids, r.replies)) for r in records[:4]
    ]
    for name, role in (("one", "preference"), ("many", "preference"), ("cost", "cost")):
        expected = Scorer(str(trained / name / "snapshot"), role=role, device=CPU).scores(groups, micro_tokens=999)
        assert [row["scores"][name] for row in rows[:8]] == pytest.approx(expected.tolist(), abs=1e-5)
    policy = load_policy(str(commands.snapshots / "policy"))
    single = reply_group(groups[0].prefix, groups[0].replies[0])
    expected = token_logprobs(policy, pack([single])).sum().item()
    assert rows[0]["scores"]["policy/logprob"] == pytest.approx(expected, abs=1e-4)
    assert rows[0]["scores"]["policy/tokens"] == len(single.replies[0])


@pytest.mark.parametrize("name", ["one", "cost"])
def test_labels_are_the_models_order_with_its_probability(trained, tmp_path, name):
    models = {f"models__{name}": trained / name / "snapshot", "label": name}
    out = tmp_path / "out"
    assert main(["score", *flags(data=trained / "test.jsonl", out=out, threads=1, **models)]) == 0
    labelled = read_comparisons(str(out / "labels.jsonl"), "helpful").records
    rows = read_lines(out / "scores.jsonl")
    sign = -1 if name == "cost" else 1
    for i, comparison in enumerate(labelled):
        first, second = (sign * row["scores"][f"{name}/logit"] for row in rows[2 * i : 2 * i + 2])
        assert comparison.ranks == ((1, 2) if first > second else (2, 1))
        assert comparison.probability == pytest.approx(1 / (1 + math.exp(-abs(first - second))), abs=1e-6)
        assert comparison.labeler == f"model:{name}"
    # the model disagrees with those labels that were turned round, and with few others
    original = read_comparisons(str(trained / "test.jsonl"), "helpful").records
    changed = [a.ranks != b.ranks for a, b in zip(original, labelled, strict=True)]
    assert sum(changed[:12]) >= 10 and sum(changed[12:60]) <= 5


def test_score_reads_judgements_and_demonstrations_and_nulls_what_is_too_long(commands, trained, tmp_path):
    files = commands.files
    renderer = load_renderer(str(trained / "one" / "snapshot"))
    for name in ("judgements", "demonstrations"):
        rows = [json.loads(line) for line in (files / f"{name}.jsonl").read_text().splitlines()]
        asked = [renderer.prompt_ids((Turn("user", row["prompt"]),)) for row in rows]
        lengths = sorted(
            len(a) + len(renderer.reply_ids(row["completion"])) for a, row in zip(asked, rows, strict=True)
        )
        line = flags(
            data=files / f"{name}.jsonl", out=tmp_path / name, threads=1, models__a=trained / "one" / "snapshot"
        )
        assert main(["score", *line, "--max_length", str(lengths[len(lengths) // 2])]) == 0
        scores = [row["scores"]["a"] for row in read_lines(tmp_path / name / "scores.jsonl")]
        assert None in scores and any(score is not None for score in scores)
        assert read_json(tmp_path / name / "data" / "a-too-long.json")["dropped"] == scores.count(None)


def test_what_cannot_label_is_refused(commands, trained, tmp_path, capsys):
    for name, where in (("p", commands.snapshots / "policy"), ("two", trained / "two" / "snapshot")):
        models = {f"models__{name}": where, "label": name, "max_rows": 8}
        line = flags(data=trained / "test.jsonl", out=tmp_path / name, **models)
        assert main(["score", *line]) == 2
        assert "gives no single score" in capsys.readouterr().err
    line = flags(data=trained / "test.jsonl", out=tmp_path / "x", models__a=trained / "one" / "snapshot", label="b")
    assert main(["score", *line]) == 2
    assert "--label b" in capsys.readouterr().err


@pytest.fixture(scope="module")
def measured(commands, trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("trust") / "run"
    models = {f"models__{name}": trained / name / "snapshot" for name in ("one", "two", "many")}
    line = flags(
        data=trained / "test.jsonl",
        baseline_data=trained / "learn.jsonl",
        familiar_data=trained / "learn.jsonl",
        background_data=commands.files / "demonstrations.jsonl",
        strange_data=trained / "strange.jsonl",
        out=out,
        threads=1,
        bootstrap=30,
        errors=5,
        **models,
    )
    assert main(["evaluate", "preference", *line]) == 0
    return out


def test_the_cross_table_has_every_model_and_head_on_every_criterion(measured):
    result = read_json(measured / "evaluation.json")
    rows = {(row["model"], row["criterion"]): row for row in result["cross"]}
    for model in ("one", "two, helpful", "two, honest", "many", "a bag of words"):
        for criterion in ("helpful", "honest"):
            assert rows[model, criterion]["n"] == 80, (model, criterion)
    assert any(model.startswith("the ") for model, _ in rows)
    # of 80 labels, the first 12 and their 12 copies were turned round
    assert rows["one", "helpful"]["accuracy"]["mean"] == pytest.approx(56 / 80, abs=0.08)
    assert rows["a bag of words", "helpful"]["accuracy"]["mean"] == pytest.approx(56 / 80, abs=0.05)


def test_every_two_models_are_compared_pair_by_pair(measured):
    result = read_json(measured / "evaluation.json")
    accuracy = {row["model"]: row["accuracy"]["mean"] for row in result["cross"] if row["criterion"] == "helpful"}
    rows = {(row["model"], row["less"]): row for row in result["paired"]["helpful"]}
    assert len(rows) == len(accuracy) * (len(accuracy) - 1) / 2 and ("one", "a bag of words") in rows
    # 20 of the 80 pairs stand in the file twice, and are compared once
    whole = rows["one", "two, helpful"]
    assert whole["n"] == 60 and abs(whole["difference"]["mean"]) <= 1
    assert whole["difference"]["low"] <= whole["difference"]["mean"] <= whole["difference"]["high"]


def test_heads_that_learned_the_same_differ_in_little_and_share_the_weight(measured):
    found = read_json(measured / "evaluation.json")["groups"]["two-helpful"]
    (row,) = found["heads"]
    assert row["heads"] == ["helpful", "honest"] and row["opposed"]["mean"] < 0.3 and row["correlation"] > 0.5
    assert set(found["values"]["person"]) == {"helpful", "honest"}


def test_calibration_is_measured_with_intervals_and_refitted(measured):
    result = read_json(measured / "evaluation.json")
    assert set(result["calibration"]) == {
        "one on helpful", "two, helpful on helpful", "two, honest on honest", "many on helpful",
    }  # fmt: skip
    one = result["calibration"]["one on helpful"]
    for metric in ("ece", "ece_width", "brier", "log_loss", "slope", "elo_per_point"):
        interval = one["intervals"][metric]
        assert interval["low"] <= interval["mean"] <= interval["high"], metric
    # sure of itself where a fifth of the labels are wrong: the temperature from the other half takes it back
    assert one["intervals"]["slope"]["high"] < 1 and one["refitted"]["temperatures"][0] > 1
    assert one["refitted"]["log_loss"]["mean"] < one["intervals"]["log_loss"]["mean"]
    assert sum(point["n"] for point in one["curve"]) == 80


def test_the_analysis_says_where_the_model_is_wrong(measured):
    analysis = read_json(measured / "evaluation.json")["analysis"]["one on helpful"]
    by = {row["by"] for row in analysis["breakdown"]}
    assert {"strength", "labeler", "length difference", "score level"} <= by
    assert len(analysis["errors"]) == 5
    assert all(e["preferred_by_labeler"].startswith("a stone") for e in analysis["errors"])
    margins = [e["margin"] for e in analysis["errors"]]
    assert margins == sorted(margins) and margins[-1] < 0
    assert -1 <= analysis["length"]["correlation"] <= 1


def test_agreement_of_the_labelers_and_the_distance_of_strange_texts(measured):
    result = read_json(measured / "evaluation.json")
    agreement = result["agreement"]["helpful"]
    assert agreement["questions"] == 20 and agreement["raw"]["mean"] == 1.0
    assert agreement["krippendorff_alpha"]["mean"] == pytest.approx(1.0)
    assert result["distance"]["one"]["auroc"]["mean"] > 0.9
    assert result["distance"]["one"]["strange"]["n"] == 25


def test_g1_the_order_in_which_replies_are_listed_is_no_disagreement(tmp_path):
    """G1: the same answer to the same two replies, once shown the other way round."""
    rows = [
        {"prompt": "p", "responses": ["a", "b"], "ranks": [1, 2], "labeler": "x"},
        {"prompt": "p", "responses": ["b", "a"], "ranks": [2, 1], "labeler": "y"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = answers(read_comparisons(str(tmp_path / "rows.jsonl"), "helpful").records)
    assert first.question == second.question and first.answer == second.answer


def test_a_model_is_not_measured_on_what_it_learned_from(trained, tmp_path, capsys):
    line = flags(data=trained / "learn.jsonl", out=tmp_path / "x", models__one=trained / "one" / "snapshot")
    assert main(["evaluate", "preference", *line]) == 2
    assert "must not be measured on" in capsys.readouterr().err


def test_a_policy_is_no_preference_model(commands, trained, tmp_path, capsys):
    line = flags(data=trained / "test.jsonl", out=tmp_path / "x", models__p=commands.snapshots / "policy")
    assert main(["evaluate", "preference", *line]) == 2
    assert "is a policy" in capsys.readouterr().err
    assert main(["evaluate", "preference", *line, "--strange_data", "x.jsonl"]) == 2
    assert "go together" in capsys.readouterr().err


def test_the_report_shows_it(measured, tmp_path):
    page = tmp_path / "page.html"
    assert main(["report", str(measured), "--out", str(page)]) == 0
    html = page.read_text()
    for words in (
        "a bag of words",
        "krippendorff",
        "pair by pair",
        "Most confident errors",
        "both above the 0% quantile",
    ):
        assert words.lower() in html.lower(), words
