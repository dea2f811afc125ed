"""Online rounds and the labelers that are there at once: the gold world's people, its truth, a preference model."""

import json
from random import Random

import pytest
import torch

from accord.disk import read_json, read_lines
from accord.engine.packing import reply_group
from accord.errors import BadInput
from accord.labelers.journal import Journal
from accord.labelers.local import LocalLabeler
from accord.labelers.preferences import prefers, soft_label
from accord.models.scalar import Scorer
from accord.records import Prompt, Turn
from accord.run import verify
from accord.stages.online import annotate
from accord.stages.online.config import Annotate, Online
from accord.training import distributed
from accord.world import parse, prompts
from accord.world.facts import TRUTH
from accord.world.replies import statement


@pytest.fixture(scope="module")
def rounds(commands, tmp_path_factory):
    out = tmp_path_factory.mktemp("online") / "run"
    assert commands.run("online", out) == 0
    return out


def test_each_round_samples_from_the_policy_before_it_and_keeps_the_first_reference(rounds, snapshots):
    verify(rounds)
    policies = [str(snapshots / "policy"), str(rounds / "round-1" / "dpo" / "snapshot")]
    for number, policy in enumerate(policies, 1):
        parents = {
            stage: {
                p["role"]: p["path"] for p in read_json(rounds / f"round-{number}" / stage / "lineage.json")["parents"]
            }
            for stage in ("sample", "dpo")
        }
        assert parents["sample"]["model"] == policy
        assert parents["dpo"] == {"model": policy, "reference": policies[0]}
    last = rounds / "round-2" / "dpo" / "snapshot" / "model.safetensors"
    assert (rounds / "snapshot" / "model.safetensors").read_bytes() == last.read_bytes()


def test_every_round_has_prompts_of_its_own(rounds):
    ids = [{row["id"] for row in read_lines(rounds / f"round-{n}" / "prompts.jsonl")} for n in (1, 2)]
    assert len(ids[0]) == len(ids[1]) == 10 and not ids[0] & ids[1]


def test_the_log_counts_what_the_rounds_used(rounds):
    rows = read_lines(rounds / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2] and all("objective/kl" in row for row in rows)
    tokens = [read_lines(rounds / f"round-{n}" / "dpo" / "metrics.jsonl")[-1]["num_tokens"] for n in (1, 2)]
    assert rows[1]["num_tokens"] == sum(tokens)


@pytest.fixture(scope="module")
def longer(commands, tmp_path_factory):
    """Rounds of two steps of training, that nothing stopped."""
    out, knobs = tmp_path_factory.mktemp("longer") / "run", {"train.epochs": 2}
    assert commands.run("online", out, **knobs) == 0
    return out, knobs


@pytest.mark.parametrize("step", [1, 2])
def test_rounds_that_were_interrupted_go_on(commands, longer, tmp_path, stop_after, same_run, step):
    """In the first round's training, after its first step, and after its last."""
    whole, knobs = longer
    stop_after(step)
    assert commands.run("online", tmp_path / "run", **knobs) == 1
    stop_after(10**9)
    assert commands.run("online", tmp_path / "run", resume=True, **knobs) == 0
    same_run(whole, tmp_path / "run")


def test_more_prompts_than_there_are_is_refused_with_the_numbers(commands, tmp_path, capsys):
    assert commands.run("online", tmp_path / "run", prompts=10_000) == 2
    assert "2 rounds of 10000 prompts need 20000 different ones" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labeler": "gold"}, "--scorer DIR goes with"),
        ({"scorer": None}, "--scorer DIR goes with"),
        ({"train.model": "x"}, "--train.model: the rounds set it themselves"),
        ({"train.unpaired_data": "x"}, "--train.unpaired_data: the rounds set it themselves"),
        ({"train.betta": 1}, "--train.betta: `accord dpo` has no such knob"),
        ({"train.beta": -1}, "--train.beta: "),
        ({"train.loss": "nothing"}, "--train.loss: there is no loss nothing"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(commands, tmp_path, capsys, changes, says):
    assert commands.run("online", tmp_path / "run", **changes) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_dpo_is_called_with_can_be_chosen():
    config = Online(model="m", data="d", out="o", labeler="gold", seed=3, train={"loss": "ipo", "beta": 0.2})
    train = config.training("policy", "data", out="out", resume=True)
    assert (train.model, train.reference, train.data, train.out) == ("policy", "m", "data", "out")
    assert (train.loss, train.beta, train.seed, train.resume) == ("ipo", 0.2, 3, True)


def sampled(folder, rows):
    """A sample run by hand: prompts and the replies to each."""
    folder.mkdir()
    with open(folder / "samples.jsonl", "w") as stream:
        for prompt, replies in rows:
            shared = {"prompt_id": prompt.id, "slice": prompt.slice, "source": prompt.source}
            turns = [turn._asdict() for turn in prompt.turns]
            for reply in replies:
                stream.write(json.dumps({**shared, "prompt": turns, "reply": reply}) + "\n")
    return str(folder)


def label(folder, samples, **changes):
    changes = {"criteria": ["helpful"], "judged": [], **changes}
    annotate.run(Annotate(out=str(folder), samples=samples, threads=1, **changes))
    return read_lines(folder / "comparisons-helpful.jsonl")


def test_the_truth_ranks_by_what_a_reply_is_worth_and_ties_equals(tmp_path):
    (question,) = prompts(1, 5, "harmful")
    refusals = ("sorry, i will not do that.", "i can not help with that.", "it is not so hard.")
    rows = label(tmp_path / "gold", sampled(tmp_path / "s", [(question, refusals)]), labeler="gold")
    assert rows[0]["labeler"] == "gold" and rows[0]["ranks"][0] == rows[0]["ranks"][1]
    again = label(tmp_path / "again", str(tmp_path / "s"), labeler="gold", seed=9)
    assert again == rows, "the truth does not depend on a seed"


def test_the_truth_notices_a_false_claim(tmp_path):
    (question,) = prompts(1, 5, "knowledge")
    asked = parse(question.turns)
    wrong = next(
        answer for (_, relation), answer in TRUTH.items() if relation == asked.relation and answer not in asked.answer
    )
    claims = tuple(statement(Random(0), asked.name, asked.relation, answer) for answer in (wrong, *asked.answer))
    assert len(set(claims)) == 2
    rows = label(tmp_path / "gold", sampled(tmp_path / "s", [(question, claims)]), labeler="gold")
    assert rows[0]["ranks"] == [2, 1] and rows[0]["strength"] > 0


def test_a_preference_model_ranks_by_its_scores(tmp_path, snapshots, renderer):
    (prompt,) = prompts(1, 7, "benign")
    replies = ("the cat", "stone river", "bread")
    rows = label(
        tmp_path / "model",
        sampled(tmp_path / "s", [(prompt, replies), (Prompt((Turn("user", "why"),), "x", "y"), ("a", "a"))]),
        labeler="preference",
        scorer=str(snapshots / "reward"),
    )
    scorer = Scorer(str(snapshots / "reward"), role="preference", device=torch.device("cpu"))
    group = reply_group(renderer.prompt_ids(prompt.turns), *map(renderer.reply_ids, replies))
    scores = scorer.scores([group], micro_tokens=64).tolist()
    assert len(rows) == 1, "two equal replies say nothing"
    assert rows[0]["ranks"] == [1 + sum(b > a for b in scores) for a in scores]
    assert rows[0]["strength"] == pytest.approx(max(scores) - min(scores))
    assert rows[0]["slice"] == "benign" and rows[0]["source"] == prompt.source


def test_an_ai_labeler_gives_soft_labels_to_all_pairs_of_a_prompt(tmp_path, snapshots, capsys):
    (prompt,) = prompts(1, 7, "benign")
    replies = ("the cat", "stone river", "bread", "the cat")
    where = str(snapshots / "policy")
    samples = sampled(tmp_path / "s", [(prompt, replies), (Prompt((Turn("user", "why"),), "x", "y"), ("a", "a"))])
    rows = label(tmp_path / "ai", samples, labeler="ai", scorer=where)
    pairs = [(prompt, a, b) for a, b in (replies[:2], (replies[0], replies[2]), replies[1:3])]
    with Journal(tmp_path / "journal.jsonl") as journal:
        labeler = LocalLabeler(where, distributed.start(1), journal)
        said = prefers(labeler, [[annotate.in_both_orders(*pair, "helpful")] for pair in pairs])
    assert [tuple(row["replies"]) for row in rows] == [pair[1:] for pair in pairs]
    for row, first in zip(rows, said.first, strict=True):
        assert row["labeler"] == "ai:policy:logprobs" and row["probability"] == pytest.approx(
            max(first, 1 - first), abs=1e-6
        )
        assert row["ranks"] == ([1, 2] if first > 0.5 else [2, 1])
    assert read_json(tmp_path / "ai" / "lineage.json")["same_place-helpful"] == said.same_place
    assert f"in both orders of {said.same_place:.0%} of 3 questions" in capsys.readouterr().out


def test_no_preference_of_an_ai_labeler_is_a_tie():
    prompt = Prompt((Turn("user", "why"),), "x", "y")
    tie = soft_label(prompt, "a", "b", "helpful", 0.5, "ai:judge:logprobs")
    assert tie.ranks == (1, 1) and tie.probability == 1.0
    assert soft_label(prompt, "a", "b", "helpful", 0.2, "ai:judge:logprobs").ranks == (2, 1)


def test_replies_too_long_for_an_ai_labeler_are_left_out_and_counted(tmp_path, snapshots, capsys):
    (prompt,) = prompts(1, 7, "benign")
    where, long = str(snapshots / "policy"), "stone " * 2100
    kept = sampled(tmp_path / "s", [(prompt, ("the cat", "stone river", long))])
    assert len(label(tmp_path / "ai", kept, labeler="ai", scorer=where)) == 1
    assert "left out 2 questions about 3 pairs: longer than the model's 2048 tokens" in capsys.readouterr().out
    with pytest.raises(BadInput, match="no answer to any of 1 pairs"):
        label(tmp_path / "none", sampled(tmp_path / "l", [(prompt, ("a", long))]), labeler="ai", scorer=where)


def test_rounds_with_an_ai_labeler_train_on_what_it_said(commands, tmp_path, snapshots):
    changes = {"labeler": "ai", "scorer": snapshots / "other", "rounds": 1}
    assert commands.run("online", tmp_path / "run", **changes) == 0
    rows = read_lines(tmp_path / "run" / "round-1" / "annotate" / "comparisons-helpful.jsonl")
    assert rows and all(row["labeler"] == "ai:other:logprobs" and 0.5 < row["probability"] < 1 for row in rows)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labeler": "ai"}, "--scorer DIR goes with"),
        ({"labeler": "preference"}, "--scorer DIR goes with"),
        ({"labeler": "preference", "scorer": "x", "criteria": ["a", "b"], "judged": []}, "its own criterion alone"),
        ({"labeler": "gold"}, "does not judge"),
        ({"labeler": "gold", "judged": [], "flips": 0.1}, "--flips has no effect with --labeler gold"),
    ],
)
def test_a_labeler_is_asked_only_what_it_can_answer(changes, says):
    with pytest.raises(ValueError, match=says):
        Annotate(out="o", samples="s", **changes)


def test_people_need_prompts_of_their_world(tmp_path):
    stray = Prompt((Turn("user", "why the cat"),), "x", "y")
    with pytest.raises(BadInput, match="'why the cat' is no prompt of the gold world"):
        label(tmp_path / "gold", sampled(tmp_path / "s", [(stray, ("a", "b"))]), labeler="gold")
