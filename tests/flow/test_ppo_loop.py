"""What policy optimisation does in which order, and with what: its parts stand aside and say what they were given."""

from types import SimpleNamespace

import pytest
from torch import nn

from accord.models.critics import SeparateCritics
from accord.models.limits import Limit
from accord.models.places import POLICY
from accord.objectives.lagrange import Multiplier
from accord.records import Prompt, Turn
from accord.stages.ppo import run as ppo
from accord.stages.ppo.actors import Prompts
from accord.stages.ppo.state import State
from accord.stages.ppo.update import Targets
from accord.training.distributed import World
from accord.training.order import batch_indices
from tests.flow.test_ppo_road import ONE, make_config

PROMPTS = [Prompt((Turn("user", text),), text, "by hand") for text in "abcdefg"]
SERVED = {"engine": "http://x", "off_policy_steps": 1}
PARTS = {
    "follow": None,
    "collect": "experience",
    "move_multipliers": {"moved": 1},
    "hold_multipliers": {"held": 1},
    "rollout_metrics": {"rolled": 2},
    "importance_metrics": {"importance": 3},
    "watch_metrics": {"watched": 4},
    "add_samples": None,
    "compute_advantages": ("advantages", "returns", {"shaped": 5}),
    "improve": {"improved": 6},
    "move_kl_coefficient": None,
}


@pytest.fixture
def iterate(monkeypatch):
    """`iterate(step, **knobs)` → what was called with what, and the metrics."""
    events = []

    def stand_in(name, found):
        def called(*given):
            events.append((name, *given))
            return dict(found) if isinstance(found, dict) else found

        monkeypatch.setattr(ppo, name, called)

    for name, found in PARTS.items():
        stand_in(name, found)
    roles = {"following": None, "average": None, "limits": "limits", "renderer": "renderer"}
    actors = SimpleNamespace(policy="policy", **roles)

    def once(step, *, action="", world=ONE, following=None, average=None, **knobs):
        events.clear()
        actors.following, actors.average = following, average
        config, state = make_config(steps=5, batch_size=3, seed=4, **knobs), State(step, 0.5, {})

        def look(policy, metrics, given):
            events.append(("look", policy, dict(metrics), given))
            return action

        rest = (actors, "optimizers", SimpleNamespace(look=look), state)
        metrics = ppo.iterate(config, "run", world, PROMPTS, *rest)
        return config, actors, state, list(events), metrics

    return once


def of_step(step):
    return [PROMPTS[i] for i in batch_indices(step, len(PROMPTS), 3, 4)]


def test_one_iteration_from_rollouts_to_weights(iterate):
    knobs = {"refresh_every": 2, "refresh_mix": 0.5, "weight_average": 0.75, "critic_warmup": 2}
    config, actors, state, events, metrics = iterate(2, following="following", average="average", **knobs)
    looked = {"moved": 1, "rolled": 2, "importance": 3, "watched": 4}
    targets = Targets("advantages", "returns", 0.5, 2)
    assert events == [
        ("follow", "following", "policy", 0.5),
        ("collect", config, ONE, actors, of_step(2), state, []),
        ("move_multipliers", config, "limits", "experience", state),
        ("rollout_metrics", actors, "experience", state),
        ("importance_metrics", "experience"),
        ("watch_metrics", config.watch, "experience", state),
        ("add_samples", "run", "renderer", "experience", 3),
        ("look", "policy", looked, state),
        ("compute_advantages", config, "experience", state),
        ("improve", config, ONE, actors, "optimizers", "experience", targets, "run"),
        ("move_kl_coefficient", config, "experience", state, 5),
        ("follow", "average", "policy", 0.25),
    ]
    assert metrics == {**looked, "shaped": 5, "improved": 6}


@pytest.mark.parametrize(("step", "refreshed"), [(0, False), (1, False), (2, True), (3, False), (4, True)])
def test_a_reference_follows_every_so_many_iterations_and_not_at_once(iterate, step, refreshed):
    _, _, _, events, _ = iterate(step, following="following", refresh_every=2)
    assert (events[0][0] == "follow") == refreshed and [event[0] for event in events].count("follow") == refreshed


@pytest.mark.parametrize(("step", "warming"), [(0, True), (1, True), (2, False)])
def test_multipliers_and_the_coefficient_wait_for_the_critics(iterate, step, warming):
    names = [event[0] for event in iterate(step, critic_warmup=2)[3]]
    assert ("hold_multipliers" in names, "move_multipliers" in names) == (warming, not warming)
    assert ("move_kl_coefficient" in names) == (not warming) and "improve" in names


@pytest.mark.parametrize("action", ["stop", "roll-back"])
def test_nothing_is_learned_after_an_alarm_that_ends_the_run(iterate, action):
    _, _, _, events, metrics = iterate(1, action=action, average="average", weight_average=0.5)
    after = events[[event[0] for event in events].index("look") + 1 :]
    assert after == ([("follow", "average", "policy", 1.0)] if action == "roll-back" else [])
    assert metrics == {"moved": 1, "rolled": 2, "importance": 3, "watched": 4}
    assert "improve" in [event[0] for event in iterate(1, action="warn")[3]]


def test_the_main_rank_alone_shows_samples(iterate):
    names = [event[0] for event in iterate(1, world=World(1, 2, ONE.device))[3]]
    assert "add_samples" not in names and "improve" in names


@pytest.mark.parametrize(("step", "ahead"), [(0, True), (3, True), (4, False)])
def test_the_next_prompts_are_handed_on_where_an_iteration_follows(iterate, step, ahead):
    (collected,) = [event for event in iterate(step, **SERVED)[3] if event[0] == "collect"]
    assert collected[4] == of_step(step) and collected[6] == (of_step(step + 1) if ahead else [])


def test_the_last_step_is_looked_at_with_the_multipliers_held(monkeypatch, iterate):
    events = []
    for name, found in PARTS.items():
        monkeypatch.setattr(ppo, name, lambda *given, name=name, found=found: events.append((name, *given)) or found)
    actors = SimpleNamespace(policy="policy", limits="limits", average="average")
    config, state = make_config(batch_size=3, seed=4), State(2, 0.5, {})
    guard = SimpleNamespace(look=lambda *given: events.append(("look", *given)) or "roll-back")
    ppo.last_look(config, ONE, PROMPTS, actors, guard, state)
    assert events == [
        ("collect", config, ONE, actors, of_step(2), state),
        ("hold_multipliers", config, "limits", "experience", state),
        ("rollout_metrics", actors, "experience", state),
        ("watch_metrics", config.watch, "experience", state),
        ("look", "policy", {"held": 1, "rolled": 2, "watched": 4}, state),
        ("follow", "average", "policy", 1.0),
    ]


def test_an_alarm_ends_by_its_action_and_a_roll_back_takes_the_average_along(monkeypatch):
    followed = []
    monkeypatch.setattr(ppo, "follow", lambda *given: followed.append(given))
    for average in (None, "average"):
        actors = SimpleNamespace(policy="policy", average=average)
        assert [ppo.ends(actors, action) for action in ("", "warn", "stop", "roll-back")] == [False, False, True, True]
    assert followed == [("average", "policy", 1.0)]


def test_the_policy_alone_decays_and_every_module_that_changes_is_kept():
    policy, critic = nn.Linear(2, 1), nn.Linear(3, 1)
    actors = SimpleNamespace(
        policy=policy, critics=SeparateCritics({"reward": critic}, {}), following=None, average=None
    )
    config = make_config(weight_decay=0.3)
    optimizers = ppo.build_optimizers(config, actors)
    assert list(optimizers) == ["policy", "critics"]
    decays = {name: {group["weight_decay"] for group in o.param_groups} for name, o in optimizers.items()}
    assert 0.3 in decays["policy"] and decays["critics"] == {0.0}
    held = [p for group in optimizers["critics"].param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in critic.parameters()}
    guard = SimpleNamespace(good=None)
    assert ppo.trained_modules(config, actors, guard) == {"policy": policy, "critics": actors.critics}
    actors = SimpleNamespace(policy=1, critics=2, following=3, average=4)
    everything = {"policy": 1, "critics": 2, "reference": 3, "average": 4, "good": 5}
    assert ppo.trained_modules(config, actors, SimpleNamespace(good=5)) == everything
    actors = SimpleNamespace(policy=policy, critics=SeparateCritics({}, {}))
    assert list(ppo.build_optimizers(config, actors)) == ["policy"]


def test_what_a_finished_run_says_of_itself(monkeypatch):
    saved, said = [], []
    monkeypatch.setattr(ppo, "save_snapshot", lambda *given: saved.append(given))
    run = SimpleNamespace(finish=lambda **facts: said.append(facts))
    renderer = SimpleNamespace(tokenizer="tokenizer")
    limits = {"harm": Limit("harm", 0.25, "unsafe"), "lies": Limit("lies", 1.0)}
    prompts = Prompts(PROMPTS[:2], PROMPTS[2:4], PROMPTS[4:5])
    knobs = {"costs": {"harm": "c", "lies": "d"}, "limits": {"harm": 0.25, "lies": 1.0}}
    state = State(3, 0.7, {"harm": Multiplier(1.5, 2.5), "lies": Multiplier(3.5, 4.5)})
    found = {"harm": {"verdict": "met"}}
    config, actors = make_config(**knobs), SimpleNamespace(renderer=renderer, limits=limits)
    ppo.finish(config, run, prompts, actors, "weights", found, state)
    facts = {"rewards": {"helpful": "r"}, "limits": knobs["limits"], "parent": "m"}
    judged = {"limit_of": {"harm": "unsafe", "lies": "cost"}, "verdicts": {"harm": "met"}}
    trained_on = [*PROMPTS[:2], PROMPTS[4]]
    assert saved == [(run, "weights", "tokenizer", POLICY, facts | judged, trained_on)]
    told = {
        "multipliers": {"harm": 2.5, "lies": 4.5},
        "multiplier_integrals": {"harm": 1.5, "lies": 3.5},
        "kl_coefficient": 0.7,
    }
    assert said == [{**told, "limits": found}]
    state = State(3, 0.7, {}, alarms=["rang"], diagnoses=[{"metric": "m"}], ended="rang")
    actors = SimpleNamespace(renderer=renderer, limits={})
    ppo.finish(make_config(), run, prompts, actors, "weights", {}, state)
    assert saved[1][4] == {"rewards": {"helpful": "r"}, "limits": {}, "parent": "m"}
    told = {"multipliers": {}, "multiplier_integrals": {}, "kl_coefficient": 0.7, "ended": "rang"}
    assert said[1] == {**told, "alarms": ["rang"], "diagnoses": [{"metric": "m"}]}
