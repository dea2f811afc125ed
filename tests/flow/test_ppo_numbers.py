"""The numbers of one iteration of policy optimisation, by hand: what is watched, logged, limited and kept."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from accord.errors import BadInput
from accord.evaluation.safety import SafetyCalibration
from accord.models.limits import Limit
from accord.objectives.lagrange import Multiplier
from accord.records import Prompt, Rollout, Turn
from accord.stages.ppo import advantages as ppo_advantages
from accord.stages.ppo import limits as ppo_limits
from accord.stages.ppo import log as ppo_log
from accord.stages.ppo import watch as ppo_watch
from accord.stages.ppo.config import Alarm
from accord.stages.ppo.experience import weighted_sum
from accord.stages.ppo.in_flight import InFlight
from accord.stages.ppo.rollouts import complete
from accord.stages.ppo.state import State, first_state, move_kl_coefficient, restore, save_state
from accord.training.distributed import World
from tests.flow.test_ppo_road import LIMITED, ONE, make_config, make_experience, shaped

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
    Alarm("policy/b", "stop", "below", -2.0),
    Alarm("policy/a", "warn", "above", 1.0),
    Alarm("policy/c", "roll-back", "above", 3.0),
]


@pytest.mark.parametrize("quiet", [False, True])
def test_a_guard_goes_back_to_the_last_weights_that_called_for_no_roll_back(capsys, quiet):
    policy, state = nn.Linear(1, 1, bias=False), State(7, 0.5, {})
    guard = ppo_watch.Guard(RULES, policy, quiet=quiet)

    def look(weight, **metrics):
        nn.init.constant_(policy.weight, weight)
        named = {f"policy/{name}": value for name, value in metrics.items()}
        action = guard.look(policy, named, state)
        return action, named["watch/alarms"], policy.weight.item(), guard.good.weight.item()

    assert look(2.0, a=1.0, b=-2.0, c=3.0) == ("", 0, 2.0, 2.0) and state.ended == ""
    assert look(3.0, a=2.0) == ("warn", 1, 3.0, 3.0) and state.ended == ""
    warned = "alarm at iteration 8: policy/a is 2, above 1 (warn)"
    assert state.alarms == [warned]
    state.step = 8
    assert look(4.0, a=1.23456, b=-3.0) == ("stop", 2, 4.0, 4.0)
    stopped = "alarm at iteration 9: policy/b is -3, below -2 (stop)"
    again = "alarm at iteration 9: policy/a is 1.235, above 1 (warn)"
    assert state.alarms == [warned, stopped, again] and state.ended == stopped
    assert look(5.0, b=-3.0, c=3.5) == ("roll-back", 2, 4.0, 4.0)
    assert state.ended == "alarm at iteration 9: policy/c is 3.5, above 3 (roll-back)"
    assert [(row["metric"], row["side"]) for row in state.diagnoses] == [
        ("policy/a", "above"),
        ("policy/b", "below"),
        ("policy/c", "above"),
    ]
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
    assert guard.look(policy, {"policy/b": -5.0}, state) == "stop"


def test_an_alarm_on_a_metric_that_is_logged_is_taken():
    ppo_watch.refuse_unknown_metrics([Alarm("objective/kl", "warn", "above", 1.0)])
    unknown = [Alarm("objective/kl", "warn", "above", 1.0), Alarm("watch/nothing/at/all", "warn", "above", 1.0)]
    with pytest.raises(BadInput, match="--alarms.watch/nothing/at/all: ppo logs no such metric; docs/metrics.md lists"):
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
    _, returns, metrics = shaped(config, experience, state)
    assert metrics["objective/rlhf_reward"] == pytest.approx((1 - 0.4 * 0.6 + 2 - 0.4 * 0.3) / 2)
    streams = ppo_advantages.signal_streams(config, complete(config, experience), state)
    assert streams["reward"].tolist() == [[0, 0, 1], [0, 2, 0]] and streams["harm"].tolist() == [
        [0, 0, 0.5],
        [0, -1, 0],
    ]


def test_the_reward_is_every_score_times_its_weight():
    scores = {"helpful": torch.tensor([1.0, 2.0, -1.0]), "kind": torch.tensor([0.5, 3.0, 4.0]), "harm": torch.zeros(3)}
    assert weighted_sum(scores, {"helpful": 2.0, "kind": -0.5}).tolist() == [1.75, 2.5, -4.0]


CALIBRATION = SafetyCalibration(2.0, 0.1, 100, 0.0, 0.01, 0.02)


def test_multipliers_move_by_the_mean_of_their_windows():
    """`harm` sees two iterations of unequally many replies, `lies` the last one alone; `spam` has no limit."""
    config = make_config(
        costs={"harm": "c", "lies": "d", "spam": "e"},
        limits={"harm": 0.25, "lies": 1.0},
        limit_slices={"harm": "a"},
        limit_window={"harm": 2.0},
        multiplier_rate={"harm": 0.1, "lies": 0.2},
        multiplier_gain={"harm": 0.5, "lies": 0.0},
        multiplier_bound={"lies": 2.1},
    )
    limits = {"harm": Limit("harm", 0.25, deviation=4.0), "lies": Limit("lies", 1.0)}
    state = State(0, 0.5, {"harm": Multiplier(2.0, 2.0), "lies": Multiplier(2.0, 2.0)})

    def move(slices, harm, lies, spam):
        costs = {"harm": torch.tensor(harm), "lies": torch.tensor(lies), "spam": torch.tensor(spam)}
        shape = {"lengths": (1,) * 3, "finish": ("stop",) * 3, "slices": slices}
        experience = replace(make_experience(**shape, helpful=[0.0] * 3, **costs_of(costs)), raw_costs=costs)
        return ppo_limits.move_multipliers(config, limits, complete(config, experience), state)

    def costs_of(costs):
        return {name: cost.tolist() for name, cost in costs.items()}

    first = move(("a", "b", "b"), [1.5, 7.0, 7.0], [1.0, 2.0, 3.0], [-1.0, 0.0, 4.0])
    integral = 2 * math.exp(0.1 * (1.5 - 0.25) / 4)
    assert first == pytest.approx(
        {
            "cost/harm/mean": 1.5,
            "cost/harm/unsafe": 1.0,
            "cost/harm/window": 1.5,
            "lagrange/harm": integral * math.exp(0.5 * (1.5 - 0.25) / 4),
            "cost/lies/mean": 2.0,
            "cost/lies/unsafe": 1.0,
            "lagrange/lies": 2.1,
            "cost/spam/mean": 1.0,
            "cost/spam/unsafe": 1 / 3,
        }
    )
    second = move(("a", "b", "a"), [0.0, 7.0, -1.5], [0.5, 0.0, 0.25], [0.0] * 3)
    window = (1.5 * 1 - 0.75 * 2) / 3
    integral *= math.exp(0.1 * (window - 0.25) / 4)
    assert second["cost/harm/window"] == pytest.approx(0.0) and second["cost/harm/mean"] == -0.75
    assert state.multipliers["harm"].integral == pytest.approx(integral)
    assert state.multipliers["harm"].value == pytest.approx(integral * math.exp(0.5 * (window - 0.25) / 4))
    assert state.multipliers["lies"].value == pytest.approx(2.1 * math.exp(0.2 * (0.25 - 1)))
    third = move(("a", "b", "b"), [3.0, 7.0, 7.0], [0.0] * 3, [0.0] * 3)
    assert state.windows == {"harm": [(-0.75, 2), (3.0, 1)], "lies": [(0.0, 3)]}
    assert third["cost/harm/window"] == pytest.approx((-0.75 * 2 + 3.0) / 3)


def test_limits_whose_multipliers_are_held_are_reported_and_do_not_move():
    """A share that is bounded stands beside the raw cost; a slice that was not drawn has λ alone."""
    config = make_config(
        costs={"harm": "c", "lies": "d"}, limits={"harm": 0.2, "lies": 1.0}, limit_slices={"lies": "elsewhere"}
    )
    costs = {"harm": torch.tensor([-2.0, 6.0]), "lies": torch.tensor([1.0, 2.0])}
    experience = replace(make_experience(helpful=[0.0, 0.0]), raw_costs=costs)
    limits = {"harm": Limit("harm", 0.2, "unsafe", calibration=CALIBRATION), "lies": Limit("lies", 1.0)}
    state = State(0, 0.5, {"harm": Multiplier(2.0, 2.5), "lies": Multiplier(1.0, 1.5)})
    found = ppo_limits.hold_multipliers(config, limits, complete(config, experience), state)
    share = (1 / (1 + math.e) + 1 / (1 + math.exp(-3))) / 2
    assert found == pytest.approx(
        {
            "cost/harm/mean": 2.0,
            "cost/harm/unsafe": 0.5,
            "cost/harm/expected": share,
            "lagrange/harm": 2.5,
            "lagrange/lies": 1.5,
        }
    )
    assert state == State(0, 0.5, {"harm": Multiplier(2.0, 2.5), "lies": Multiplier(1.0, 1.5)})
    ppo_limits.move_multipliers(config, limits, complete(config, experience), state)
    assert state.windows == {"harm": [(pytest.approx(share), 2)]} and state.multipliers["lies"] == Multiplier(1.0, 1.5)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_limit_is_checked_on_one_reply_to_each_held_out_prompt(monkeypatch, rank):
    """Each of two ranks draws and scores every second prompt, by the prompts' numbers in the whole."""
    prompts = [Prompt((Turn("user", text),), text, "by hand") for text in ("a", "b", "c")]
    own = [0, 2] if rank == 0 else [1]
    seen, written = {}, {}

    def sample(policy, asked, settings):
        seen["policy"], seen["asked"], seen["settings"] = policy, asked, settings
        return [Rollout(ids, (ids[0] + 1,), (-1.0,), "stop", 1.0, "") for ids in asked]

    def raw_scores(some, texts, groups, *, micro_tokens):
        seen["scored"] = [prompt.slice for prompt in some], texts, [g.prefix for g in groups], micro_tokens
        return torch.tensor([float(text) for text in texts])

    monkeypatch.setattr(ppo_limits, "sample", sample)
    both = [[11.0, 13.0], [12.0]]
    monkeypatch.setattr(World, "gather", lambda self, value: both)
    judged = []
    monkeypatch.setattr(
        ppo_limits, "judge_limit", lambda *rest, seed: judged.append((*rest, seed)) or {"verdict": rest[0].name}
    )
    numbers = {"a": 10, "b": 11, "c": 12}
    renderer = SimpleNamespace(
        prompt_ids=lambda turns: (numbers[turns[0].content],),
        text=lambda ids: str(ids[0]),
        stops=frozenset({2}),
        vocabulary=frozenset({1, 2}),
    )
    limits = {"harm": Limit("harm", 0.25), "lies": Limit("lies", 1.0)}
    actors = SimpleNamespace(
        renderer=renderer, limits=limits, costs=dict.fromkeys(limits, SimpleNamespace(raw_scores=raw_scores))
    )
    config = make_config(
        costs={"harm": "c", "lies": "d"}, limits={"harm": 0.25, "lies": 1.0}, limit_slices={"harm": "a,b"}, seed=3
    )
    run = SimpleNamespace(write_json=lambda name, found: written.update({name: found}))
    found = ppo_limits.check_limits(config, run, World(rank, 2, ONE.device), actors, "policy", prompts)
    assert found == {name: {"verdict": name} for name in limits} and written == {"limits.json": found}
    settings = seen["settings"]
    assert seen["policy"] == "policy" and seen["asked"] == [(10 + i,) for i in own]
    assert (settings.n, settings.seed, list(settings.numbers)) == (1, 3 * 1_000_003 + 0x11A17, own)
    assert seen["scored"] == (
        [prompts[i].slice for i in own],
        [str(11 + i) for i in own],
        [(10 + i,) for i in own],
        config.micro_tokens,
    )
    assert [(limit.name, costs.tolist(), of, slices, seed) for limit, costs, of, slices, seed in judged] == [
        ("harm", [11.0, 12.0, 13.0], prompts, "a,b", 3),
        ("lies", [11.0, 12.0, 13.0], prompts, "", 3),
    ]


def test_the_first_state_has_the_multipliers_that_were_asked_for(tmp_path):
    bounds = {"costs": {"harm": "c", "lies": "d"}, "limits": {"harm": 0.0, "lies": 1.0}}
    assert first_state(make_config(**bounds, multiplier_init={"lies": 0.5}, kl_coefficient=0.3)) == State(
        0, 0.3, {"harm": Multiplier(2.0, 2.0), "lies": Multiplier(0.5, 0.5)}, {}, {}, [], [], ""
    )
    before = tmp_path / "lineage.json"
    before.write_text(json.dumps({"multiplier_integrals": {"harm": 1.25, "lies": 3.5, "spam": 9.0}}))
    config = make_config(**bounds, multipliers_from=str(tmp_path))
    assert first_state(config).multipliers == {"harm": Multiplier(1.25, 1.25), "lies": Multiplier(3.5, 3.5)}
    for kept, there in ({"harm": 1.0, "spam": 2.0}, "harm, spam"), ({"harm": 1.0}, "harm"):
        before.write_text(json.dumps({"multiplier_integrals": kept}))
        with pytest.raises(BadInput, match=f"--multipliers_from {tmp_path} has no limit lies; there are {there}$"):
            first_state(config)
    before.write_text("{}")
    with pytest.raises(BadInput, match="has no limit harm; there are none$"):
        first_state(config)


def test_a_state_comes_back_as_it_was_saved():
    state = State(
        3,
        0.25,
        {"harm": Multiplier(1.5, 2.5)},
        {"harm": [(0.75, 4), (1.25, 6)]},
        {"tail": 2.0},
        ["one", "two"],
        [{"metric": "m"}],
        "two",
    )
    saved = json.loads(json.dumps(save_state(state)))
    assert saved["multipliers"] == {"harm": [1.5, 2.5]}
    assert restore(saved) == state


def test_the_coefficient_of_kl_is_annealed_adapted_or_kept():
    experience = make_experience()  # 0.6 and 0.3 nats
    for changes, expected in (
        ({}, 0.7),
        ({"kl_anneal": 0.25}, 0.5 * 0.25 ** (3 / 4)),
        ({"kl_target": 0.5, "kl_horizon": 50.0}, 0.7 * (1 - 0.1 * 2 / 50)),
    ):
        state = State(2, 0.7, {})
        move_kl_coefficient(make_config(**changes), experience, state, 5)
        assert state.kl_coefficient == pytest.approx(expected)


def rollout(number):
    return Rollout((number,), (number, 2), (-0.5, -0.25), "stop", 0.8, f"step-{number}")


def test_replies_that_are_drawn_ahead_are_taken_once_and_by_their_iteration():
    ahead = InFlight()
    assert ahead.take(0) is None and ahead.saved(ONE, 2) == {}
    ahead.start(3, lambda: [rollout(1)])
    assert ahead.take(3) == [rollout(1)] and ahead.take(3) is None
    ahead.start(4, lambda: [rollout(1)])
    assert ahead.take(5) is None and ahead.take(4) is None, "replies of another iteration are of no use"


def test_what_drawing_ahead_raised_is_raised_where_the_replies_are_asked_for():
    def fail():
        raise BadInput("no server")

    ahead = InFlight()
    ahead.start(1, fail)
    with pytest.raises(BadInput, match="no server"):
        ahead.take(1)


def test_a_checkpoint_keeps_the_replies_of_all_ranks_prompt_by_prompt(monkeypatch):
    """Of two ranks that have drawn two replies to each of two prompts, and to one."""
    shares = [[rollout(n) for n in (0, 1, 4, 5)], [rollout(n) for n in (2, 3)]]
    parts = [[share[i : i + 2] for i in range(0, len(share), 2)] for share in shares]
    sent = []
    monkeypatch.setattr(World, "gather", lambda self, value: sent.append(value) or parts)
    ranks = [World(rank, 2, ONE.device) for rank in (0, 1)]
    for world, share, part in zip(ranks, shares, parts, strict=True):
        ahead = InFlight()
        ahead.start(6, lambda share=share: share)
        kept = json.loads(json.dumps(ahead.saved(world, 2)))
        assert sent.pop() == part
        assert kept["in_flight"]["step"] == 6
        assert [[row["prompt_ids"] for row in rows] for rows in kept["in_flight"]["replies"]] == [
            [[0], [1]],
            [[2], [3]],
            [[4], [5]],
        ]
        back = InFlight()
        back.restore({}, world)
        assert back.take(6) is None
        back.restore(kept, world)
        assert back.take(6) == share
