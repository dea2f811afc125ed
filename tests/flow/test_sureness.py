"""RLCR's reward as a scorer: by gold's judge, by answers of a file, declining, numbers, prompts without an answer."""

import json

import pytest

from accord.disk import read_json, read_lines
from accord.errors import BadInput
from accord.records import Prompt, Turn
from accord.stages.sureness import SurenessScorer
from accord.world import parse, prompts
from accord.world.facts import TRUTH


def score(scorer, prompt, *replies):
    found = scorer.raw_scores([prompt] * len(replies), list(replies), [], micro_tokens=0)
    return pytest.approx(found.tolist(), abs=1e-6)


def test_the_gold_world_is_judged_by_its_judge():
    scorer = SurenessScorer("world", None)
    prompt = next(p for p in prompts(60, 2, "how-sure") if parse(p.turns).relation == "town")
    name = parse(prompt.turns).name
    truth = TRUTH[name, "town"]
    wrong = next(t for t in ("arden", "corin") if t != truth)
    said = [
        f"{name} lives in {town}. {how}" for town in (truth, wrong) for how in ("i am fairly sure.", "i am certain.")
    ]
    expected = [1 - 0.25**2, 1 - 0.05**2, -(0.75**2), -(0.95**2)]
    assert expected == score(scorer, prompt, *said)
    # without a word about it an answer is certain; declining is worth nothing, a sure wrong answer less
    plain = [f"{name} lives in {town}." for town in (truth, wrong)]
    assert score(scorer, prompt, *plain, "i do not know.") == [1.0, -1.0, 0.0]
    with pytest.raises(BadInput, match="has no answer to"):
        scorer.raw_scores([Prompt((Turn("user", "who?"),), "", "file")], ["x"], [], micro_tokens=0)


def test_answers_of_a_file(tmp_path):
    rows = [
        {"context": "capital of France?", "answer": "Paris", "aliases": ["paris city"]},
        {"context": "six times seven?", "answer": "42"},
        {"context": "a", "continuation": "b"},
    ]
    file = tmp_path / "q.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scorer = SurenessScorer(str(file), None)
    capital, product = (Prompt((Turn("user", rows[i]["context"]),), "", "f") for i in (0, 1))
    expected = [0.96, 1.0, -0.64, 0.0, -1.0]
    assert expected == score(
        scorer, capital, "It is Paris. I am 80% sure.", "Paris", "Rome, 80 percent sure.", "I don't know.", "Rome."
    )
    # the number that says how sure it is is no answer, and one beyond a hundred no chance
    assert score(scorer, product, "42. I am 90% sure.", "40. 90% sure.", "200% of it. 42") == [0.99, -0.81, 1.0]
    with pytest.raises(BadInput, match="has no answer to 'a'"):
        scorer.raw_scores([Prompt((Turn("user", "a"),), "", "f")], ["b"], [], micro_tokens=0)
    only = tmp_path / "only.jsonl"
    only.write_text(json.dumps(rows[2]) + "\n")
    with pytest.raises(BadInput, match="no question there has an answer"):
        SurenessScorer(str(only), None)


def test_ppo_is_paid_for_stated_chances(commands, tmp_path, capsys):
    facts = {"data": "world:prompts/how-sure?count=40&seed=3", "split": "policy", "max_length": 300, "steps": 2}
    plain = {"rewards.helpful": None, "rewards.sure": "rlcr:world", "batch_size": 4}
    assert commands.run("ppo", tmp_path / "run", **facts, **plain) == 0
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert all(-1 <= row["reward/sure"] <= 1 for row in rows)
    assert not any(role.startswith("model.sure") for role in read_json(tmp_path / "run" / "data" / "parents.json"))
    assert commands.run("ppo", tmp_path / "no", **plain) == 2
    assert "rlcr:world has no answer to" in capsys.readouterr().err
    assert commands.run("ppo", tmp_path / "no2", **facts, **{**plain, "rewards.sure": "rlcr:nowhere.jsonl"}) == 2
    assert "no such file" in capsys.readouterr().err
