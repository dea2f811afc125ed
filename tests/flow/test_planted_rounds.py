"""Planted rounds: policies of known quality meet a gate of rounds, judged by simulated people. No model is trained.

A policy is how often it writes which scripted reply of the gold world. Good ones help more and harm no oftener; bad
ones learned from flipped annotators, hacked their reward, lost a skill, or please the many at the cost of the few.
"""

import functools
from pathlib import Path
from random import Random

import pytest

from accord.evaluation.gate import judge_bound
from accord.evaluation.promotion import of_round
from accord.records import Comparison
from accord.stages.gate import read_gate, scores_by_prompt
from accord.stages.online.bounds import opponent_of
from accord.stages.online.decide import judge_votes
from accord.stages.online.judge import count_votes
from accord.stages.shared import gold_scores
from accord.world import Annotator, annotators, parse, prompts
from accord.world.replies import by_chance, damage, how_to
from accord.world.skills import say

GATE = read_gate(str(Path(__file__).parents[2] / "docs" / "rounds.yaml"), FIRST := "first")
ROUNDS, EACH = 4, 6
BASE = {
    "benign": {"good": 0.3, "partial": 0.3, "wrong": 0.2, "vague": 0.2},
    "harmful": {"good": 0.4, "explained": 0.6},
    "skills": {"right": 0.75, "slip": 0.25},
    "manner": "",
}
BETTER = {"good": 0.55, "partial": 0.3, "wrong": 0.1, "vague": 0.05}
WORSE = {"good": 0.15, "partial": 0.2, "wrong": 0.35, "vague": 0.3}


def candidate(kind, number):
    """A policy that a round is planted with."""
    step = 0.02 * number
    better = {**BETTER, "good": 0.55 + step, "partial": 0.3 - step}
    return (
        BASE
        | {
            "good": {"benign": better, "harmful": {"good": 0.3, "explained": 0.7}},
            "flipped": {"benign": {**WORSE, "good": 0.15 + step, "vague": 0.3 - step}},
            "hacked": {"benign": better, "manner": "hacked"},
            "forgets": {"benign": better, "skills": {"right": 0.5 - step, "slip": 0.5 + step}},
            "divides": {"benign": {**BASE["benign"], "good": 0.3 + step, "vague": 0.2 - step}, "manner": "in short. "},
        }[kind]
    )


@functools.cache
def scripted(prompt, quality, manner):
    """One reply of a quality to a prompt, always the same."""
    rng, request = Random(f"{prompt.id} {quality}"), parse(prompt.turns)
    if request.kind == "skill":
        return say(rng, request.skill, request.args, quality == "right")
    text = how_to(rng, request, quality)
    if manner == "hacked":
        return f"{text} {text}" if rng.random() < 0.5 else damage(rng, text)
    return manner + text


def reply(policy, prompt, rng):
    part = "benign" if prompt.slice not in policy else prompt.slice
    return scripted(prompt, by_chance(rng, policy[part]), policy["manner"] if part == "benign" else "")


@functools.cache
def scores(prompt, text):
    return gold_scores(prompt, text)


def evaluated(policy, seed):
    """Rows of the evaluation of a policy, on the same prompts for all."""
    rng = Random(f"evaluation {seed}")
    asked = [*prompts(400, 11, "harmful"), *prompts(500, 12, "skills")]
    shown = [(prompt, reply(policy, prompt, rng)) for prompt in asked]
    return [{"prompt_id": p.id, "slice": p.slice, "scores": scores(p, text)} for p, text in shown]


class Liar(Annotator):
    """Says the opposite of what they find."""

    def compare(self, prompt, replies, criterion):
        said = super().compare(prompt, replies, criterion)
        return Comparison(**{**{f: getattr(said, f) for f in said.__slots__}, "ranks": said.ranks[::-1]})


def panel(seed, liars):
    groups = ("direct", "direct", "direct", "gentle")
    honest = [Annotator(group=group, seed=1000 + 10 * seed + k) for k, group in enumerate(groups)]
    return honest + [Liar(group="direct", seed=1000 + 10 * seed + 7 + k) for k in range(liars)]


@functools.cache
def asked():
    return prompts(320, 13, "benign")


def met(policy, seed, liars=0, checked=True):
    """What the judges say of a candidate beside the incumbent, after the check items."""
    rng, judges = Random(f"meeting {seed}"), panel(seed, liars)
    said, ours, settled = [], {}, []
    for number, prompt in enumerate(asked()):
        mine, theirs = reply(policy, prompt, rng), reply(BASE, prompt, rng)
        if mine == theirs:
            turns = [turn._asdict() for turn in prompt.turns]
            settled.append({"prompt": turns, "slice": prompt.slice, "source": prompt.source, "outcome": 0.5})
            continue
        ours[prompt.id] = mine
        for judge in (judges[(number + k) % len(judges)] for k in range(2)):
            said.append(judge.compare(prompt, (mine, theirs), "helpful"))
    checks = {}
    for prompt in prompts(15, 14, "benign"):
        pair = (scripted(prompt, "good", ""), scripted(prompt, "vague", ""))
        checks[prompt.id] = Comparison(prompt, pair, (1, 2), "helpful", "gold", 0.0, (0, 1))
        said += [judge.compare(prompt, pair, "helpful") for judge in judges]
    ids = checks if checked else {}
    said = [one for one in said if one.prompt.id in ours or one.prompt.id in ids]
    return count_votes(said, ["helpful"], "incumbent", checks=ids, trained=(), settled=settled, candidates=ours)


def verdicts(policy, seed, liars=0, checked=True):
    """What the gate says of a round, by bound."""
    found, rows, first = {}, evaluated(policy, seed), evaluated(BASE, "first")
    meeting = met(policy, seed, liars, checked)
    for whole in GATE.bounds:
        bound = of_round(whole, seed % ROUNDS + 1, ROUNDS)
        if opponent_of(bound):
            found[bound.name] = judge_votes(bound, meeting)["verdict"]
        else:
            theirs = scores_by_prompt(first, bound) if bound.against == FIRST else None
            found[bound.name] = judge_bound(bound, scores_by_prompt(rows, bound), theirs).kept
    return found, meeting


@pytest.fixture(scope="module", autouse=True)
def remembered():
    """The same few replies are judged again and again."""
    patch = pytest.MonkeyPatch()
    patch.setattr(annotators, "judge_request", functools.cache(annotators.judge_request))
    patch.setattr(annotators, "parse", functools.cache(annotators.parse))
    yield
    patch.undo()


BAD = {"flipped": "help", "hacked": "help", "forgets": "tax", "divides": "every_group"}


@pytest.fixture(scope="module", params=[3, pytest.param(EACH, marks=pytest.mark.slow)])
def bad(request):
    return {
        (kind, k): verdicts(candidate(kind, k), 100 * place + k, liars=2 if kind == "flipped" else 0)
        for place, kind in enumerate(BAD)
        for k in range(request.param)
    }


def test_of_planted_bad_rounds_at_most_one_in_24_is_promoted(bad):
    promoted = [which for which, (found, _) in bad.items() if set(found.values()) == {"met"}]
    assert len(bad) in (12, 24) and len(promoted) <= len(bad) // 24, promoted


@pytest.mark.parametrize("kind", BAD)
def test_each_kind_is_stopped_by_the_bound_that_is_for_it(bad, kind):
    stopped = [found[BAD[kind]] != "met" for (name, _), (found, _) in bad.items() if name == kind]
    assert len(stopped) == len(bad) // len(BAD) and sum(stopped) >= len(stopped) - len(bad) // 24


@pytest.mark.parametrize("rounds", [8, pytest.param(24, marks=pytest.mark.slow)])
def test_of_planted_good_rounds_at_least_17_in_24_are_promoted(rounds):
    found = [verdicts(candidate("good", k % EACH), 1000 + k)[0] for k in range(rounds)]
    promoted = sum(set(one.values()) == {"met"} for one in found)
    assert promoted >= 17 * rounds / 24, found


def test_judges_who_say_the_opposite_are_found_by_check_items_and_only_they(bad):
    for (kind, k), (_, meeting) in bad.items():
        place = list(BAD).index(kind)
        liars = {
            f"simulated:direct:{1000 + 10 * (100 * place + k) + 7 + n}" for n in range(2 if kind == "flipped" else 0)
        }
        assert set(meeting.failed) == liars
        assert not {vote.judge for _, vote in meeting.votes["helpful"]} & liars


def test_without_check_items_liars_move_the_win_rate():
    policy = candidate("flipped", 0)
    rates = []
    for checked in (True, False):
        votes = [vote.outcome for _, vote in met(policy, 5, liars=4, checked=checked).votes["helpful"]]
        rates.append(sum(votes) / len(votes))
    assert rates[1] > rates[0] + 0.05


def test_whose_labels_trained_the_candidate_is_not_counted_whatever_their_group():
    prompt = asked()[0]
    said = [
        Comparison(prompt, ("mine", "theirs"), (1, 2), "helpful", who, 0.0, (0, 1))
        for who in ("human:many:7", "human:8", "simulated:mixed:7")
    ]
    found = count_votes(
        said, ["helpful"], "incumbent", checks={}, trained={"human:few:7"}, candidates={prompt.id: "mine"}
    )
    assert found.trained == {"human:many:7": 1}
    assert [vote.judge for _, vote in found.votes["helpful"]] == ["human:8", "simulated:mixed:7"]
    turned = count_votes(said, ["helpful"], "first", checks={}, trained=(), candidates={prompt.id: "theirs"})
    assert {vote.outcome for _, vote in turned.votes["helpful"]} == {0.0}
