"""`accord evaluate ratings`: snapshots rated by votes of a file, by scores between evaluations, and taken apart."""

import json
import math
import random
import shutil

import pytest

from accord.cli import main
from accord.data.sources import read_battles
from accord.disk import read_json, read_lines
from accord.evaluation.ratings import ELO, Vote, fit_ratings
from accord.run import verify
from accord.stages.evaluate.ratings import duels_of
from tests.conftest import read_rows


def rate(out, *words):
    return main(["evaluate", "ratings", "--out", str(out), "--bootstrap", "50", *map(str, words)])


def refused(capsys, code):
    err = capsys.readouterr().err
    assert code == 2 and "Traceback" not in err, err
    return err


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def votes(count=240, seed=0):
    """People who mostly find x better than y than z, and a judge that takes whichever is shown first."""
    generator, rows = random.Random(seed), []
    for i in range(count):
        a, b = generator.sample("xyz", 2)
        texts = {name: f"{name} says {i % 20} " + "on and on " * "zyx".index(name) for name in "xyz"}
        talk = {
            f"conversation_{side}": [
                {"role": "user", "content": f"question {i % 20}"},
                {"role": "assistant", "content": texts[name]},
            ]
            for side, name in (("a", a), ("b", b))
        }
        won = generator.random() < 1 / (1 + math.exp("xyz".index(a) - "xyz".index(b)))
        vote = {**talk, "model_a": a, "model_b": b}
        rows.append({**vote, "winner": "model_a" if won else "model_b", "judge": f"expert_{i // 20 % 3}"})
        if generator.random() < 0.5:
            turned = {"conversation_a": talk["conversation_b"], "conversation_b": talk["conversation_a"]}
            rows.append({**vote, "winner": "model_a", "judge": "first"})
            rows.append({**turned, "model_a": b, "model_b": a, "winner": "model_a", "judge": "first"})
    return rows


def people_of(source):
    read = read_battles(str(source), "helpful").records
    return [duel.vote for battle in read for duel in duels_of(battle) if duel.vote.judge.startswith("expert")]


def test_votes_of_people_and_of_a_judge_that_sees_the_order_alone(tmp_path, capsys):
    source = write(tmp_path / "votes.jsonl", votes())
    assert rate(tmp_path / "run", "--data", source, "--anchor", "y") == 0
    verify(tmp_path / "run")
    found = read_json(tmp_path / "run" / "ratings.json")
    people, first = found["judges"]["expert"], found["judges"]["first"]
    elo = {name: value["mean"] for name, value in people["ratings"]["elo"].items()}
    assert list(elo) == ["x", "y", "z"] and elo["y"] == 0 and people["prompts"] == 20
    mine = fit_ratings(people_of(source), anchor="y", resamples=10)
    assert elo == pytest.approx({name: value.mean for name, value in mine.elo.items()})
    assert people["agreement"]["labelers"] == 3 and first["agreement"] == {}
    assert first["order"]["first_wins"]["mean"] == 1 and first["order"]["kept"]["mean"] == 0
    assert people["cycles"]["triples"] > 0
    assert set(people["length_controlled"]) == {"x", "z"} and people["lengths"]["x"] > people["lengths"]["z"]
    # what contradicts itself in the other order is a tie
    assert found["agreement"]["labelers"] == 2 and list(found["agreement"]["cohen_kappa"]) == ["expert and first"]
    assert "expert: 240 votes on 20 prompts; Elo from y: x +" in capsys.readouterr().out


def test_a_ranking_is_a_vote_on_every_two_of_it_in_the_order_shown(tmp_path):
    row = {"record": "comparison", "prompt": [{"role": "user", "content": "q"}], "slice": "", "source": "s"}
    row |= {"replies": ["a", "bb", "ccc"], "ranks": [2, 1, 1], "criterion": "helpful", "labeler": "human:1"}
    row |= {"strength": 0, "order": [2, 0, 1], "snapshots": ["x", "y", "z"]}
    (battle,) = read_battles(str(write(tmp_path / "rows.jsonl", [row])), "helpful").records
    found = [(d.vote.first, d.vote.second, d.vote.outcome, d.vote.lengths) for d in duels_of(battle)]
    assert found == [("x", "y", 0.0, (1, 2)), ("z", "x", 1.0, (3, 1)), ("z", "y", 0.5, (3, 2))]
    assert all(d.vote.ordered and d.vote.cluster == "q" for d in duels_of(battle))


NAMES = ("policy", "other")


@pytest.fixture(scope="module")
def evaluated(commands, tmp_path_factory):
    """Two policies on the same prompts, scored by a preference and a cost model."""
    root = tmp_path_factory.mktemp("evaluated")
    for name in NAMES:
        assert commands.run("evaluate", root / name, model=commands.snapshots / name) == 0
    return root


def runs_of(evaluated):
    return ["--runs.policy", evaluated / "policy", "--runs.other", evaluated / "other"]


def test_scores_between_evaluations_and_the_same_win_rate_as_against(commands, evaluated, tmp_path):
    line = [*runs_of(evaluated), "--judge", "reward/helpful,cost/harmless,length", "--ridge", "0.1"]
    assert rate(tmp_path / "run", *line) == 0
    found = read_json(tmp_path / "run" / "ratings.json")["judges"]
    assert set(found) == {"reward/helpful", "cost/harmless", "length"}
    rows = {n: {r["prompt_id"]: r["scores"] for r in read_lines(evaluated / n / "samples.jsonl")} for n in NAMES}
    for judge, sign in (("reward/helpful", 1), ("cost/harmless", -1), ("length", 1)):
        gaps = [sign * (rows["other"][prompt][judge] - rows["policy"][prompt][judge]) for prompt in rows["other"]]
        share = sum((gap > 0) + 0.5 * (gap == 0) for gap in gaps) / len(gaps)
        (pair,) = found[judge]["pairs"]
        assert (pair["first"], pair["second"]) == ("other", "policy") and pair["rate"]["mean"] == pytest.approx(share)
        assert found[judge]["ratings"]["anchor"] == "policy"  # the first that is named
    extra = {"model": commands.snapshots / "other", "against": evaluated / "policy"}
    assert commands.run("evaluate", tmp_path / "other", **extra) == 0
    theirs = read_json(tmp_path / "other" / "evaluation.json")["win_rate"]["all"]
    assert theirs["mean"] == pytest.approx(found["reward/helpful"]["pairs"][0]["rate"]["mean"])
    parents = read_json(tmp_path / "run" / "lineage.json")["parents"]
    assert [p["role"] for p in parents] == ["run.policy", "run.other"] and all(p["hash"] for p in parents)


def people(count=40, seed=4):
    """Comparisons of two policies' replies to prompts of people's own."""
    generator, rows = random.Random(seed), []
    for i in range(count):
        row = {"record": "comparison", "prompt": [{"role": "user", "content": f"why {i}"}], "slice": "", "source": "s"}
        replies = [f"the cat {generator.choice(['runs', 'sees'])} {i}", f"a dog bakes {i}"]
        row |= {"replies": replies, "ranks": generator.choice([[1, 2], [2, 1]]), "criterion": "helpful"}
        rows.append(row | {"labeler": "human:1", "strength": 0, "order": [0, 1], "snapshots": list(NAMES)})
    return rows


def test_a_preference_model_taken_apart_against_people_on_prompts_of_their_own(commands, evaluated, tmp_path, capsys):
    """People judge other prompts than those of the evaluations, so what is promised is promised elsewhere."""
    source = write(tmp_path / "people.jsonl", people())
    model = ["--models.helpful", commands.snapshots / "reward", "--max_length", 64]
    assert main(list(map(str, ["score", *model, "--data", source, "--out", tmp_path / "scores"]))) == 0
    line = ["--data", source, *runs_of(evaluated), "--decompose", "helpful", "--ridge", "0.1"]
    assert "give --scores RUN" in refused(capsys, rate(tmp_path / "run", *line))
    assert rate(tmp_path / "run", *line, "--scores", tmp_path / "scores") == 0
    found = read_json(tmp_path / "run" / "ratings.json")
    part = found["decomposition"]["human"]
    assert found["decomposed"] == "helpful" and not part["same_prompts"] and part["votes"] == 40
    parts = {name: value["mean"] for name, value in part["snapshots"]["other"].items()}
    scored = read_rows(tmp_path / "scores" / "scores.jsonl")
    logits = {(row["prompt_id"], row["reply"]): row["scores"]["helpful/logit"] for row in scored}
    duels = [duel for battle in read_battles(str(source), "helpful").records for duel in duels_of(battle)]
    gaps = [logits[d.prompt_id, d.replies[1]] - logits[d.prompt_id, d.replies[0]] for d in duels]
    assert parts["scored"] == pytest.approx(ELO * sum(gaps) / len(gaps), rel=1e-5)
    chosen = [Vote("other", "policy", (gap > 0) + 0.5 * (gap == 0), i) for i, gap in enumerate(gaps)]
    assert parts["chosen"] == pytest.approx(fit_ratings(chosen, anchor="policy", ridge=0.1).elo["other"].mean)
    assert parts["judged"] == pytest.approx(found["judges"]["human"]["ratings"]["elo"]["other"]["mean"])
    slices = [read_json(evaluated / name / "evaluation.json")["slices"]["all"]["reward/helpful"] for name in NAMES]
    assert parts["promised"] == pytest.approx(ELO * (slices[1]["mean"] - slices[0]["mean"]), rel=1e-5)


def test_the_same_prompts_promise_what_they_score(evaluated, tmp_path):
    line = [*runs_of(evaluated), "--judge", "length", "--decompose", "helpful", "--ridge", "0.1"]
    assert rate(tmp_path / "run", *line) == 0
    part = read_json(tmp_path / "run" / "ratings.json")["decomposition"]["length"]
    plain = part["snapshots"]["other"]
    assert part["same_prompts"] and plain["step/prompts"]["mean"] == pytest.approx(0, abs=1e-6)
    # scores are written as stages use them, normalised; Elo is a matter of logits
    for name in NAMES:
        file = shutil.copytree(evaluated / name, tmp_path / name) / "evaluation.json"
        found = read_json(file)
        assert found["normalizers"] == {"helpful": {"kind": "none", "shift": 0.0, "scale": 1.0}}
        found["normalizers"]["helpful"] |= {"shift": 5.0, "scale": 2.0}
        file.write_text(json.dumps(found))
    assert rate(tmp_path / "scaled", *runs_of(tmp_path), *line[4:]) == 0
    scaled = read_json(tmp_path / "scaled" / "ratings.json")["decomposition"]["length"]["snapshots"]["other"]
    assert scaled["promised"]["mean"] == pytest.approx(2 * plain["promised"]["mean"])
    assert scaled["chosen"]["mean"] == pytest.approx(plain["chosen"]["mean"])


def test_what_cannot_be_rated_is_refused_by_its_name(evaluated, tmp_path, capsys):
    out, runs = tmp_path / "run", runs_of(evaluated)
    source = write(tmp_path / "votes.jsonl", votes(60))
    for line, words in (
        ([], "nothing to rate"),
        (runs, "--judge gold/helpful"),
        (["--data", source, "--judge", "reward/helpful"], "--judge has no effect without --runs"),
        (["--data", source, "--ties_within", 1], "--ties_within has no effect without --runs"),
        ([*runs, "--judge", "length", "--criterion", "honest"], "--criterion has no effect without --data"),
        ([*runs, "--judge", "length", "--split", "policy"], "--split has no effect without --data"),
        ([*runs, "--judge", "length", "--scores", "x"], "--scores has no effect without --decompose"),
        (
            [*runs, "--judge", "gold/helpful"],
            "in --runs.policy; there are cost/harmless",
        ),
        (["--runs.a", tmp_path / "gone", "--judge", "length"], "gone has no samples.jsonl"),
        (["--data", source, "--anchor", "w"], "--anchor w: expert has no votes on it; there are x, y, z"),
        ([*runs, "--judge", "length", "--decompose", "honest"], "--runs.policy was not scored by it"),
        (["--data", source, "--split", "nowhere"], "there is no split 'nowhere'"),
    ):
        assert words in refused(capsys, rate(out, *line)), line
        assert not out.exists()
    two = [row for row in votes(60) if {row["model_a"], row["model_b"]} == {"x", "z"}]
    sure = [{**row, "winner": "model_a" if row["model_a"] == "x" else "model_b"} for row in two]
    source = write(tmp_path / "sure.jsonl", sure)
    assert "votes by expert: some players never lost" in refused(capsys, rate(out, "--data", source))
    assert rate(out, "--data", source, "--ridge", "0.1") == 0
    other = shutil.copytree(evaluated / "other", tmp_path / "elsewhere")
    moved = [{**row, "prompt_id": f"other {row['prompt_id']}"} for row in read_lines(other / "samples.jsonl")]
    write(other / "samples.jsonl", moved)
    line = ["--runs.policy", evaluated / "policy", "--runs.other", other, "--judge", "length"]
    assert "have no prompt in common" in refused(capsys, rate(tmp_path / "more", *line))


class Longer:
    """A labeler that finds the longer reply better, surer where it stands first."""

    name = key = "longer"

    def ask(self, questions):
        from accord.labelers.questions import Distribution

        found = []
        for question in questions:
            first, second = question.state.rpartition("(A) ")[2].split("\n\n(B) ")
            sure = (0.9 if len(first) > len(second) else 0.3) if "question 3" not in question.state else None
            answer = Distribution((), "json", "cut") if sure is None else Distribution((sure, 1 - sure), "json")
            found.append(answer)
        return found


def test_a_labeler_judges_in_both_orders(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("accord.labelers.backends.Labelers.named", lambda self, where: Longer())
    folders = []
    for name, text in (("short", "no"), ("long", "no no no"), ("same", "no")):
        rows = [
            {
                "prompt_id": f"p{i}",
                "slice": "s",
                "source": "t",
                "reply": text if i else "alike",
                "scores": {"length": 1},
            }
            | {"prompt": [{"role": "user", "content": f"question {i}"}]}
            for i in range(12)
        ]
        (tmp_path / name).mkdir()
        write(tmp_path / name / "samples.jsonl", rows)
        folders += [f"--runs.{name}", tmp_path / name]
    line = (*folders, "--labelers.longer", "openai:https://x#y", "--criterion", "honest", "--ridge", "1")
    assert rate(tmp_path / "run", *line) == 0
    found = read_json(tmp_path / "run" / "ratings.json")["judges"]["labeler/longer"]
    elo = {name: value["mean"] for name, value in found["ratings"]["elo"].items()}
    assert elo["long"] > elo["short"] + 50 and abs(elo["short"] - elo["same"]) < 1
    # question 3 has no answer where the replies differ, and equal replies are a tie that nobody is asked about
    assert found["votes"] == 3 * 12 - 2
    assert "left out" in capsys.readouterr().out
    code = rate(tmp_path / "no", "--data", write(tmp_path / "votes.jsonl", votes(40)), "--labelers.a", "x")
    assert "--labelers has no effect without --runs.NAME RUN" in refused(capsys, code)
    code = rate(tmp_path / "no", *folders)
    assert "--runs needs what decides between replies" in refused(capsys, code)
