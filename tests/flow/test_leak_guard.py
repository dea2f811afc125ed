"""What is learned on is not measured on: by the run itself, by its children, and by theirs."""

import json

import pytest

from accord.data.sources import read_demonstrations, read_prompts
from accord.disk import read_json
from tests.conftest import sentence


def listed(folder, name="trained_prompts.txt"):
    return set((folder / "snapshot" / name).read_text(encoding="utf-8").split())


def ids(file):
    return {d.prompt.id for d in read_demonstrations(str(file)).records}


def learned(folder, file):
    """The prompts of a file that a run of sft did not hold out."""
    return listed(folder) & ids(file)


@pytest.fixture(scope="module")
def child(commands, tmp_path_factory):
    """A policy of sft and its child by ppo."""
    root = tmp_path_factory.mktemp("generations")
    assert commands.run("sft", root / "sft", epochs=0.5) == 0
    assert commands.run("ppo", root / "ppo", model=root / "sft" / "snapshot", steps=1) == 0
    return root


def test_prompts_of_sft_are_known_to_the_evaluation_of_its_grandchild(child, commands, tmp_path, capsys):
    assert learned(child / "sft", commands.files / "demonstrations.jsonl")
    grandchild = {"model": child / "ppo" / "snapshot", "epochs": 0.5}
    assert commands.run("dpo", tmp_path / "dpo", data=commands.files / "fresh.jsonl", **grandchild) == 0
    assert listed(tmp_path / "dpo") >= listed(child / "ppo") >= listed(child / "sft")
    asked = {"model": tmp_path / "dpo" / "snapshot", "data": commands.files / "demonstrations.jsonl"}
    capsys.readouterr()
    assert commands.run("evaluate", tmp_path / "evaluation", **asked) == 2
    assert "--data" in (said := capsys.readouterr().err) and "share" in said
    assert not (tmp_path / "evaluation").exists()


def test_a_policy_remembers_the_prompts_that_its_scorers_learned_from(commands, tmp_path):
    assert commands.run("preference", tmp_path / "reward", epochs=0.5) == 0
    assert commands.run("ppo", tmp_path / "ppo", **{"rewards.helpful": tmp_path / "reward" / "snapshot"}, steps=1) == 0
    assert listed(tmp_path / "ppo") >= listed(tmp_path / "reward")


def test_a_scorer_of_an_sft_trunk_scores_its_prompts_but_not_those_that_it_has_labels_of(
    child, commands, tmp_path, capsys
):
    files = commands.files
    trunk = {"model": child / "sft" / "snapshot", "epochs": 0.5}
    assert commands.run("preference", tmp_path / "reward", data=files / "fresh.jsonl", **trunk) == 0
    labels = listed(tmp_path / "reward", "labelled_prompts.txt")
    assert labels < listed(tmp_path / "reward") and listed(child / "sft") <= listed(tmp_path / "reward")
    assert not labels & listed(child / "sft")
    common = {"rewards.helpful": tmp_path / "reward" / "snapshot", "steps": 1}
    assert commands.run("ppo", tmp_path / "on-sft", data=files / "demonstrations.jsonl", **common) == 0
    capsys.readouterr()
    assert commands.run("ppo", tmp_path / "on-labels", data=files / "fresh.jsonl", **common) == 2
    assert "training data of" in capsys.readouterr().err
    # a scorer that goes on from a scorer knows the labels of both
    more = {"model": tmp_path / "reward" / "snapshot", "epochs": 0.5}
    assert commands.run("preference", tmp_path / "more", **more) == 0
    assert listed(tmp_path / "more", "labelled_prompts.txt") > labels


def test_online_keeps_the_prompts_of_all_rounds(commands, tmp_path):
    assert commands.run("online", tmp_path / "run") == 0
    rounds = [listed(tmp_path / "run" / f"round-{number}" / "dpo") for number in (1, 2)]
    asked = [
        {prompt.id for prompt in read_prompts(str(tmp_path / "run" / f"round-{n}" / "prompts.jsonl")).records}
        for n in (1, 2)
    ]
    assert listed(tmp_path / "run") == rounds[0] | rounds[1] > rounds[0]
    assert all(listed(tmp_path / "run") & prompts for prompts in asked)


def test_demonstrations_against_forgetting_are_remembered(commands, tmp_path):
    shown = {"ptx_data": commands.files / "demonstrations.jsonl", "ptx_kind": "demonstrations"}
    assert commands.run("ppo", tmp_path / "run", steps=1, **shown) == 0
    assert listed(tmp_path / "run") >= ids(commands.files / "demonstrations.jsonl")


@pytest.mark.parametrize("name", ["sft", "pretrain"])
def test_eval_data_that_are_trained_on_are_refused(name, commands, tmp_path, capsys):
    data = commands.files / ("demonstrations.jsonl" if name == "sft" else "documents.jsonl")
    some = tmp_path / "some.jsonl"
    some.write_text("".join(data.read_text().splitlines(keepends=True)[:2]))
    assert commands.run(name, tmp_path / "run", eval_data=some) == 2
    said = capsys.readouterr().err
    assert "--eval_data and --data share 2 " in said and ("documents" in said) == (name == "pretrain")
    assert not (tmp_path / "run").exists()


def test_eval_data_that_an_ancestor_learned_from_are_refused(child, commands, tmp_path, capsys):
    files = commands.files
    new = {"data": files / "fresh.jsonl", "eval_data": files / "demonstrations.jsonl"}
    assert commands.run("sft", tmp_path / "run", model=child / "sft" / "snapshot", **new) == 2
    assert "--eval_data" in capsys.readouterr().err
    limited = {"eval_data.plain": files / "demonstrations.jsonl", "eval_data.harmful": files / "held-harmful.jsonl"}
    assert commands.run("limited", tmp_path / "ppo", model=child / "sft" / "snapshot", **limited) == 2
    assert "--eval_data" in capsys.readouterr().err


def test_an_evaluation_s_demonstrations_are_not_those_of_training(child, commands, tmp_path, capsys):
    asked = {"model": child / "sft" / "snapshot", "eval_data": commands.files / "demonstrations.jsonl"}
    assert commands.run("evaluate", tmp_path / "run", **asked) == 2
    assert "--eval_data" in capsys.readouterr().err


@pytest.mark.parametrize("given", [pytest.param(False, marks=pytest.mark.slow), True])
def test_what_sft_measures_on_is_cut_by_max_length_as_what_it_learns_from(given, commands, tmp_path, generator):
    rows = [json.loads(line) for line in (commands.files / "demonstrations.jsonl").read_text().splitlines()]
    held_out = [{"prompt": row["prompt"] + " " + sentence(generator), "completion": "the cat"} for row in rows[:9]]
    long = {"completion": "why " * 100}
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(r | long) + "\n" + json.dumps(r) + "\n" for r in rows))
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [held_out[0] | long, *held_out]))
    more = {"eval_data": tmp_path / "eval.jsonl"} if given else {}
    assert commands.run("sft", tmp_path / "run", data=tmp_path / "data.jsonl", epochs=0.5, **more) == 0
    dropped = read_json(tmp_path / "run" / "data" / "eval_data-too-long.json")["dropped"]
    assert dropped == 1 if given else dropped >= 1
