"""Multipliers, β and replies that are drawn ahead: how they move, what a checkpoint keeps of them, by hand."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from accord.errors import BadInput
from accord.evaluation.safety import SafetyCalibration
from accord.models.limits import Limit
from accord.objectives.lagrange import Multiplier
from accord.records import Prompt, Rollout, Turn
from accord.stages.ppo import limits as ppo_limits
from accord.stages.ppo.in_flight import InFlight
from accord.stages.ppo.rollouts import complete
from accord.stages.ppo.state import State, first_state, move_kl_coefficient, restore, save_state
from accord.training.distributed import World
from tests.flow.test_ppo_road import ONE, make_config, make_experience

CALIBRATION = SafetyCalibration(2.0, 0.1, 100, 0.0, 0.01, 0.02)


def test_multipliers_move_by_the_mean_of_their_windows():
    """`harm` sees two iterations of unequally many replies, `lies` the last one alone; `spam` and `rude` have none."""
    config = make_config(
        costs={"harm": "c", "lies": "d", "spam": "e", "rude": "f"},
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
        costs["rude"] = torch.tensor([-0.5, -1.0, 0.0])
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
            "cost/rude/mean": -0.5,
            "cost/rude/unsafe": 0.0,
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
    with pytest.raises(BadInput, match=r"has no limit harm; there are none$"):
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
