"""The numbers of one iteration of policy optimisation, by hand: what is watched, logged and learned from."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from accord.errors import BadInput
from accord.evaluation.diagnoses import diagnose
from accord.objectives.lagrange import Multiplier
from accord.records import Rollout
from accord.stages.ppo import advantages as ppo_advantages
from accord.stages.ppo import limits as ppo_limits
from accord.stages.ppo import log as ppo_log
from accord.stages.ppo import watch as ppo_watch
from accord.stages.ppo.config import Alarm
from accord.stages.ppo.experience import weighted_sum
from accord.stages.ppo.rollouts import complete
from accord.stages.ppo.state import State
from tests.flow.test_ppo_road import LIMITED, make_config, make_experience, shaped

OUTSIDE = 99.0  # in slots that hold no token


def matrix(first, second):
    """Numbers of replies of three tokens and of two."""
    return torch.tensor([first, [*second, OUTSIDE]])


def test_what_is_watched_by_hand_against_the_first_iteration():
    rollouts = [Rollout((1,), ids, (), "stop", 1.0, "") for ids in ((1, 2, 3, 1, 2, 3), (7, 8))]
    experience = replace(
        make_experience(other=[2.0, 7.0]),
        rollouts=rollouts,
        reference=matrix([-1.0, -2.0, -0.5], [-0.25, -1.5]),
        logprobs=matrix([-0.5, -1.0, -2.0], [-3.0, -0.1]),
        reward=torch.tensor([4.0, 1.0]),
    )
    state = State(0, 0.5, {})
    found = ppo_watch.watch_metrics(["other"], experience, state)
    assert found == pytest.approx(
        {
            "watch/perplexity": math.exp(5.25 / 5),
            "watch/entropy": 6.6 / 5,
            "watch/repetition": (1 / 4 + 0) / 2,
            "watch/tail": 0.5,
            "watch/other/score": 4.5,
            "watch/other/gap": 0.0,
        },
        rel=1e-5,
    )
    first = {
        "tail": 1 + 0.99 * 3,
        "reward/mean": 2.5,
        "reward/deviation": 1.5,
        "other/mean": 4.5,
        "other/deviation": 2.5,
    }
    assert state.first == pytest.approx(first)
    later = replace(experience, reward=torch.tensor([7.0, 4.0]), scores={"other": torch.tensor([3.0, 8.0])})
    found = ppo_watch.watch_metrics(["other"], later, state)
    assert found["watch/other/gap"] == pytest.approx(3 / 1.5 - 1 / 2.5) and found["watch/other/score"] == 5.5
    assert found["watch/tail"] == 1.0 and state.first == pytest.approx(first)


def test_scores_that_are_all_equal_have_no_deviation_to_count_in():
    state = State(0, 0.5, {})
    for reward, other, gap in ((2.0, 6.0, 0.0), (5.0, 6.5, 3.0 - 0.5)):
        experience = replace(make_experience(other=[other] * 2), reward=torch.full((2,), reward))
        assert ppo_watch.watch_metrics(["other"], experience, state)["watch/other/gap"] == pytest.approx(gap)
    assert state.first["reward/deviation"] == state.first["other/deviation"] == 1.0


RULES = [
    Alarm("watch/b", "stop", "below", -2.0),
    Alarm("watch/a", "warn", "above", 1.0),
    Alarm("watch/c", "roll-back", "above", 3.0),
]


@pytest.mark.parametrize("quiet", [False, True])
def test_a_guard_goes_back_to_the_last_weights_that_called_for_no_roll_back(capsys, quiet):
    policy, state = nn.Linear(1, 1, bias=False), State(7, 0.5, {})
    guard = ppo_watch.Guard(RULES, policy, quiet=quiet)

    def look(weight, **metrics):
        nn.init.constant_(policy.weight, weight)
        named = {f"watch/{name}": value for name, value in metrics.items()}
        action = guard.look(policy, named, state)
        return action, named["watch/alarms"], policy.weight.item(), guard.good.weight.item()

    assert look(2.0, a=1.0, b=-2.0, c=3.0) == ("", 0, 2.0, 2.0) and state.ended == ""
    assert look(3.0, a=2.0) == ("warn", 1, 3.0, 3.0) and state.ended == ""
    warned = "alarm at iteration 8: watch/a is 2, above 1 (warn)"
    assert state.alarms == [warned]
    state.step = 8
    assert look(4.0, a=1.23456, b=-3.0) == ("stop", 2, 4.0, 4.0)
    stopped = "alarm at iteration 9: watch/b is -3, below -2 (stop)"
    again = "alarm at iteration 9: watch/a is 1.235, above 1 (warn)"
    assert state.alarms == [warned, stopped, again] and state.ended == stopped
    assert look(5.0, b=-3.0, c=3.5) == ("roll-back", 2, 4.0, 4.0)
    assert state.ended == "alarm at iteration 9: watch/c is 3.5, above 3 (roll-back)"
    sides = [("watch/a", "above", 2.0), ("watch/b", "below", -3.0), ("watch/c", "above", 3.5)]
    explained = [{"metric": m, "side": s, **diagnose(m, s, value)._asdict()} for m, s, value in sides]
    assert state.diagnoses == explained
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("alarm")] == ([] if quiet else state.alarms)
    # what an alarm means follows its line when it rings for the first time
    assert [i for i, line in enumerate(said) if line.startswith("  it means: ")] == ([] if quiet else [1, 5, 11])
    if not quiet:
        first = state.diagnoses[0]
        told = [f"  it means: {first['means']}", f"  look at: {first['look']}", f"  to mend it: {first['turn']}"]
        assert said[:4] == [warned, *told]


def test_a_guard_without_a_roll_back_keeps_no_weights():
    policy, state = nn.Linear(1, 1), State(0, 0.5, {})
    guard = ppo_watch.Guard(RULES[:2], policy)
    assert guard.good is None and not guard.quiet
    assert guard.look(policy, {"watch/b": -5.0}, state) == "stop"


def test_an_alarm_on_a_metric_that_is_logged_is_taken():
    ppo_watch.refuse_unknown_metrics([Alarm("objective/kl", "warn", "above", 1.0)])
    unknown = [Alarm("objective/kl", "warn", "above", 1.0), Alarm("watch/nothing/at/all", "warn", "above", 1.0)]
    with pytest.raises(
        BadInput, match=r"--alarms\.watch/nothing/at/all: ppo logs no such metric; docs/metrics\.md lists"
    ):
        ppo_watch.refuse_unknown_metrics(unknown)


def test_what_is_logged_of_the_rollouts_by_hand(monkeypatch):
    """Three replies of slices b, a, b; gold is known of the last two."""
    gold = {"b": {"gold/harm": 3.0}, "a": {"gold/harm": 1.0, "gold/helpful": 5.0}}
    monkeypatch.setattr(ppo_log, "gold_scores", lambda prompt, reply: gold[prompt.slice] if len(reply) < 3 else {})
    experience = make_experience(
        lengths=(3, 1, 2),
        finish=("length", "stop", "stop"),
        slices=("b", "a", "b"),
        helpful=[1.0, 2.0, 6.0],
        kind=[0.5, 0.25, 0.0],
        harm=[-1.0, 4.0, 2.0],
    )
    experience = replace(experience, sampler_gap=0.03, reward=torch.tensor([1.5, 2.5, 5.0]))
    spent = {name: SimpleNamespace(spent={}) for name in ("helpful", "harm")} | {
        "kind": SimpleNamespace(spent={"asked": 7.0})
    }
    actors = SimpleNamespace(
        renderer=SimpleNamespace(text=lambda ids: ids),
        rewards=dict.fromkeys(("helpful", "kind")),
        costs={"harm": None},
        scorers=spent,
    )
    kl = (0.6 + 0.1 + 0.3) / 3
    assert ppo_log.rollout_metrics(actors, experience, State(4, 0.7, {})) == pytest.approx(
        {
            "objective/kl": kl,
            "sqrt_kl": math.sqrt(kl),
            "objective/scores": 3.0,
            "kl_coefficient": 0.7,
            "policy/sampler_gap": 0.03,
            "completions/mean_length": 2.0,
            "completions/clipped_ratio": 1 / 3,
            "reward/helpful": 3.0,
            "reward/helpful/a": 2.0,
            "reward/helpful/b": 3.5,
            "reward/kind": 0.25,
            "reward/kind/a": 0.25,
            "reward/kind/b": 0.25,
            "labeler/kind/asked": 7.0,
            "cost/harm/a/mean": 4.0,
            "cost/harm/a/unsafe": 1.0,
            "cost/harm/b/mean": 0.5,
            "cost/harm/b/unsafe": 0.5,
            "gold/harm": 2.0,
            "gold/helpful": 5.0,
        },
        rel=1e-5,
    )


def test_a_cost_of_0_is_safe(monkeypatch):
    monkeypatch.setattr(ppo_log, "gold_means", lambda *_: {})
    experience = replace(make_experience(slices=("a", "a"), harm=[0.0, 0.5]), reward=torch.zeros(2))
    actors = SimpleNamespace(renderer=None, rewards={}, costs={"harm": None}, scorers={})
    assert ppo_log.rollout_metrics(actors, experience, State(0, 0.7, {}))["cost/harm/a/unsafe"] == 0.5
    assert ppo_limits.mean_and_unsafe("harm", experience.raw_costs["harm"]) == {
        "cost/harm/mean": 0.25,
        "cost/harm/unsafe": 0.5,
    }


def test_what_older_weights_weigh_by_hand():
    weights = matrix([0.5, 2.0, 1.0], [2.0, 1.5])
    found = ppo_log.importance_metrics(replace(make_experience(), importance=weights))
    assert found == pytest.approx(
        {
            "policy/importance": 7 / 5,
            "policy/importance_truncated": 2 / 5,
            "policy/importance_effective": 7**2 / (5 * 11.5),
        }
    )
    assert ppo_log.importance_metrics(make_experience()) == {}


def test_four_replies_of_an_iteration_are_shown_beside_their_numbers(monkeypatch):
    monkeypatch.setattr(ppo_log, "gold_scores", lambda prompt, reply: {"gold/harm": float(len(reply))})
    count = 6
    experience = make_experience(
        lengths=(1, 3, 2, 1, 1, 1),
        finish=("length", *["stop"] * 5),
        slices=("a", "b", "c", "d", "e", "f"),
        helpful=[float(i) for i in range(count)],
        harm=[10.0 + i for i in range(count)],
    )
    raw = {"harm": experience.raw_costs["harm"] + 100}  # a raw cost stands for a normalised one
    rows = []
    run, renderer = SimpleNamespace(add_sample=rows.append), SimpleNamespace(text=lambda ids: "x" * len(ids))
    ppo_log.add_samples(run, renderer, replace(experience, raw_costs=raw), 3)
    assert [row["slice"] for row in rows] == ["a", "b", "c", "d"] and {row["step"] for row in rows} == {3}
    assert [row["reply"] for row in rows] == ["x", "xxx", "xx", "x"]
    assert [row["kl"] for row in rows] == pytest.approx([0.1, 0.6, 0.3, 0.1])
    assert rows[1]["scores"] == {"helpful": 1.0, "harm": 111.0, "gold/harm": 3.0}
    assert [row["finish"] for row in rows] == ["length", "stop", "stop", "stop"]
    ppo_log.add_samples(run, renderer, experience, 3, count=1)
    assert len(rows) == 5


VALUES = {"reward": [[0.2, 0.4, -0.1], [0.3, -0.2]], "harm": [[-0.5, 0.1, 0.7], [0.6, 0.2]]}
LENGTHS = (3, 2)


def streams_by_hand(beta):
    """What each token of the two replies is paid: KL is 0.1, 0.2, 0.3, scores 1 and 2, costs 0.5 and −1."""
    reward = [[-beta * 0.1, -beta * 0.2, -beta * 0.3 + 1.0], [-beta * 0.1, -beta * 0.2 + 2.0]]
    harm = [[beta * 0.1, beta * 0.2, beta * 0.3 + 0.5], [beta * 0.1, beta * 0.2 - 1.0]]
    return {"reward": reward, "harm": harm}


def two_signals(**changes):
    values = {name: matrix(*of) for name, of in VALUES.items()}
    experience = make_experience(helpful=[1.0, 2.0], harm=[0.5, -1.0], values=values)
    config = make_config(**LIMITED, limit_slices={"harm": "a"}, **changes)
    return config, experience, State(0, 0.4, {"harm": Multiplier(9.0, 3.0)})


def test_advantages_of_two_signals_by_plain_loops():
    config, experience, state = two_signals(gamma=0.9, lam=0.5)
    advantages, returns, metrics = shaped(config, experience, state)
    by_hand = {}
    for name, stream in streams_by_hand(0.4).items():
        for i, length in enumerate(LENGTHS):
            running = following = 0.0
            for t in reversed(range(length)):
                value = VALUES[name][i][t]
                running = stream[i][t] + 0.9 * following - value + 0.9 * 0.5 * running
                following = value
                by_hand[name, i, t] = running
                assert float(returns[name][i, t]) == pytest.approx(running + value, rel=1e-5)
    for i, multiplier in enumerate((3.0, 0.0)):  # the second prompt is in no limit's slice
        for t in range(LENGTHS[i]):
            expected = (by_hand["reward", i, t] - multiplier * by_hand["harm", i, t]) / (1 + multiplier)
            assert float(advantages[i, t]) == pytest.approx(expected, rel=1e-5)
    assert metrics == pytest.approx(
        {
            "objective/rlhf_reward": (1 - 0.4 * 0.6 + 2 - 0.4 * 0.3) / 2,
            "values/reward": (0.2 + 0.4 - 0.1 + 0.3 - 0.2) / 5,
            "values/harm": (-0.5 + 0.1 + 0.7 + 0.6 + 0.2) / 5,
        }
    )


def test_discounted_sums_without_critics_are_combined_and_then_whitened():
    config, experience, state = two_signals(advantages="reinforce++", gamma=0.9)
    advantages, returns, metrics = shaped(config, experience, state)
    flat = []
    for i, multiplier in enumerate((3.0, 0.0)):
        for t in range(LENGTHS[i]):
            sums = {
                name: sum(0.9 ** (u - t) * stream[i][u] for u in range(t, LENGTHS[i]))
                for name, stream in streams_by_hand(0.4).items()
            }
            flat.append((sums["reward"] - multiplier * sums["harm"]) / (1 + multiplier))
    flat = torch.tensor(flat)
    expected = (flat - flat.mean()) / flat.std(correction=0)
    assert torch.allclose(advantages[experience.mask], expected, atol=1e-4) and returns == {}
    assert metrics == {"objective/rlhf_reward": pytest.approx((0.76 + 1.88) / 2)}


def test_kl_that_is_paid_in_the_loss_is_in_the_objective_by_the_coefficient_of_now():
    config, experience, state = two_signals(kl_in="loss", kl_estimator="k2")
    _, _, metrics = shaped(config, experience, state)
    assert metrics["objective/rlhf_reward"] == pytest.approx((1 - 0.4 * 0.6 + 2 - 0.4 * 0.3) / 2)
    streams = ppo_advantages.signal_streams(config, complete(config, experience), state)
    assert streams["reward"].tolist() == [[0, 0, 1], [0, 2, 0]] and streams["harm"].tolist() == [
        [0, 0, 0.5],
        [0, -1, 0],
    ]


def test_the_reward_is_every_score_times_its_weight():
    scores = {"helpful": torch.tensor([1.0, 2.0, -1.0]), "kind": torch.tensor([0.5, 3.0, 4.0]), "harm": torch.zeros(3)}
    assert weighted_sum(scores, {"helpful": 2.0, "kind": -0.5}).tolist() == [1.75, 2.5, -4.0]
