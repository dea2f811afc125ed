"""Experience of policy optimisation: what engines are asked, and what is made of the replies, by hand."""

import math
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from accord.engine.engines import Served
from accord.engine.packing import reply_group
from accord.records import Prompt, Rollout, Turn
from accord.stages.ppo import rollouts as ppo_rollouts
from accord.stages.ppo.state import State
from accord.training.distributed import World
from tests.flow.test_ppo_road import ONE, make_config, make_experience

PROMPTS = [Prompt((Turn("user", text),), text, "by hand") for text in "abcdefg"]


class Engine:
    """Draws one rollout to each prompt and says what it was asked."""

    def __init__(self, remote=False):
        self.remote, self.asked, self.followed = remote, [], []

    def follow(self, policy):
        self.followed.append(policy)

    def sample(self, prompts, settings, finished=None):
        self.asked.append((prompts, settings, finished))
        return ["drawn", "drawn"]


RENDERER = SimpleNamespace(
    prompt_ids=lambda turns: (ord(turns[0].content),), stops=frozenset({2}), vocabulary=frozenset({1, 2})
)


def test_an_engine_is_asked_by_the_numbers_of_prompts_and_of_the_iteration():
    config = make_config(samples=3, seed=5, max_new_tokens=7, temperature=0.6)
    actors = SimpleNamespace(renderer=RENDERER)
    prompts, settings = ppo_rollouts.request(config, actors, [(4, PROMPTS[1]), (6, PROMPTS[0])], 9, weights=8)
    assert prompts == [(ord("b"),), (ord("a"),)]
    assert (settings.n, settings.seed, settings.version, settings.numbers) == (3, 5 * 1_000_003 + 9, "step-8", [4, 6])
    assert (settings.temperature, settings.max_new_tokens, settings.stop_ids) == (0.6, 7, frozenset({2}))


@pytest.mark.parametrize(
    ("rank", "remote", "follows"), [(0, False, True), (1, False, True), (0, True, True), (1, True, False)]
)
def test_servers_are_given_weights_by_the_main_rank_alone(monkeypatch, rank, remote, follows):
    engine = Engine(remote)
    ppo_rollouts.follow_policy(World(rank, 2, ONE.device), engine, "policy")
    assert engine.followed == (["policy"] if follows else [])
    served, followed = object.__new__(Served), []
    served.pushed = f"of rank {rank}"
    monkeypatch.setattr(Served, "follow", lambda self, policy: followed.append(policy))
    monkeypatch.setattr(World, "gather", lambda self, value: ["of rank 0", value])
    ppo_rollouts.follow_policy(World(rank, 2, ONE.device), served, "policy")
    assert served.pushed == "of rank 0" and followed == (["policy"] if rank == 0 else [])


@pytest.fixture
def collect(monkeypatch):
    """`collect(ahead, following)` → what was asked, scored, begun and evaluated, and of which weights."""

    def once(ahead, following, samples=2):
        added, evaluated, begun = [], [], []
        scoring = SimpleNamespace(add=lambda place, some: added.append((place, list(some))))
        monkeypatch.setattr(ppo_rollouts, "Scoring", lambda *given: nullcontext(scoring))
        monkeypatch.setattr(ppo_rollouts, "whole", lambda policy: nullcontext(f"whole {policy}"))
        evaluate = lambda *given, behind: evaluated.append((given, behind)) or make_experience(helpful=[1.0, 2.0])  # noqa: E731
        monkeypatch.setattr(ppo_rollouts, "evaluate", evaluate)
        engine = Engine()
        in_flight = SimpleNamespace(take=lambda step: ahead if step == 3 else None)
        in_flight.start = lambda step, draw: begun.append((step, draw()))
        actors = SimpleNamespace(policy="policy", engine=engine, in_flight=in_flight, renderer=RENDERER)
        config = make_config(samples=samples, seed=5, precision="f32")
        found = ppo_rollouts.collect(config, ONE, actors, PROMPTS[:2], State(3, 0.5, {}), following)
        assert found.reward.tolist() == [1.0, 2.0]
        ((given, behind),) = evaluated
        assert given[:4] == (config, ONE, actors, PROMPTS[:2]) and given[5] is scoring
        return engine, added, begun, given[4], behind, scoring

    return once


def test_replies_are_drawn_by_the_policy_as_it_is(collect):
    engine, added, begun, rollouts, behind, scoring = collect(None, ())
    assert engine.followed == ["whole policy"] and added == begun == [] and rollouts == ["drawn", "drawn"]
    ((prompts, settings, finished),) = engine.asked
    assert prompts == [(ord("a"),), (ord("b"),)] and finished == scoring.add and not behind
    assert (settings.seed, settings.version, settings.numbers) == (5 * 1_000_003 + 3, "step-3", [0, 1])


def test_replies_that_were_drawn_ahead_are_scored_prompt_by_prompt(collect):
    engine, added, begun, rollouts, behind, _ = collect([1, 2, 3, 4], ())
    assert added == [(0, [1, 2]), (1, [3, 4])] and rollouts == [1, 2, 3, 4] and behind
    assert engine.followed == engine.asked == begun == []


def test_the_next_replies_are_begun_by_the_weights_of_now(collect):
    for ahead in (None, [1, 2, 3, 4]):
        engine, _, begun, _, behind, _ = collect(ahead, PROMPTS[4:6])
        assert engine.followed == ["whole policy"] and behind == (ahead is not None)
        assert begun == [(4, ["drawn", "drawn"])]
        prompts, settings, finished = engine.asked[-1]
        assert prompts == [(ord("e"),), (ord("f"),)] and finished is None and len(engine.asked) == 1 + (ahead is None)
        assert (settings.seed, settings.version, settings.numbers) == (5 * 1_000_003 + 4, "step-3", [0, 1])


def test_the_gap_is_the_mean_over_tokens_of_every_sixteenth_prompt_of_all_ranks(monkeypatch):
    """18 prompts, two replies each: the first and the 17th are asked about; another rank says 3 nats on 2 tokens."""
    temperatures = []

    def token_logprobs(policy, packing, *, temperature):
        temperatures.append(temperature)
        return torch.full((len(packing.owner),), -1.0)

    monkeypatch.setattr(ppo_rollouts, "token_logprobs", token_logprobs)
    monkeypatch.setattr(World, "gather", lambda self, value: [value, (3.0, 2)])
    groups = [reply_group((1,), (2, 3), (4,)) for _ in range(18)]
    sampled = torch.full((36, 2), 50.0)
    for prompt, first, second, third in ((0, -1.5, -0.75, -1.25), (16, -3.0, -1.0, -0.5)):
        sampled[2 * prompt] = torch.tensor([first, second])
        sampled[2 * prompt + 1, 0] = third
    for budget, passes in ((1, 2), (1000, 1)):
        config = make_config(samples=2, micro_tokens=budget, temperature=0.7, precision="f32")
        gap = ppo_rollouts.measure_gap(config, ONE, SimpleNamespace(policy=None), groups, sampled)
        assert gap == pytest.approx((0.5 + 0.25 + 0.25 + 2.0 + 0.0 + 0.5 + 3.0) / (6 + 2))
        assert temperatures == [0.7] * passes
        temperatures.clear()
    monkeypatch.setattr(World, "gather", lambda self, value: [value])
    assert ppo_rollouts.measure_gap(config, ONE, SimpleNamespace(policy=None), [], sampled[:0]) == 0.0


def part_of(rank, lengths):
    """A rank's experience, every matrix with numbers of its own."""
    base = make_experience(
        lengths=lengths,
        finish=("stop",) * len(lengths),
        slices=tuple("xyz"[rank] * len(lengths)),
        helpful=[10.0 * rank + i for i in range(len(lengths))],
        harm=[20.0 * rank + i for i in range(len(lengths))],
    )
    shape = base.mask.shape
    numbers = {name: torch.full(shape, rank + n / 10) for n, name in enumerate(("logprobs", "reference", "kl"), 1)}
    values = {"reward": torch.full(shape, rank + 0.4), "harm": torch.full(shape, rank + 0.5)}
    groups = [f"group {rank} {i}" for i in range(len(lengths) // 2)]
    return replace(
        base, **numbers, values=values, groups=groups, sampler_gap=0.5, sampled=torch.full(shape, rank + 0.6)
    )


def test_the_experience_of_two_ranks_has_every_number_of_both_in_the_order_of_prompts(monkeypatch):
    """Rank 0 has the first and the third prompt with replies of two tokens, rank 1 the second with one of three."""
    parts = [part_of(0, (2, 1, 1, 2)), part_of(1, (3, 1))]
    told = []
    for part in parts:
        calls = []
        answer = lambda self, value, calls=calls: calls.append(value) or ([3] if type(value) is int else [value])  # noqa: E731
        monkeypatch.setattr(World, "gather", answer)
        ppo_rollouts.gather(World(0, 2, ONE.device), part, 2)
        told.append(calls)
    both = iter(zip(*told, strict=True))
    monkeypatch.setattr(World, "gather", lambda self, value: list(next(both)))
    found = ppo_rollouts.gather(World(0, 2, ONE.device), parts[0], 2)
    rank = torch.tensor([0, 0, 1, 1, 0, 0]).unsqueeze(1)
    place = torch.tensor([0, 1, 0, 1, 2, 3])
    assert found.mask.sum(1).tolist() == [2, 1, 3, 1, 1, 2] and found.mask.shape == (6, 3)
    filled = torch.tensor([2, 2, 3, 3, 2, 2]).unsqueeze(1) > torch.arange(3)
    numbers = [found.logprobs, found.reference, found.kl, found.values["reward"], found.values["harm"], found.sampled]
    for tenths, matrix in enumerate(numbers, 1):
        assert torch.allclose(matrix, torch.where(filled, rank + tenths / 10, 0.0))
    assert torch.equal(found.scores["helpful"], 10.0 * rank[:, 0] + place)
    assert torch.equal(found.raw_costs["harm"], 20.0 * rank[:, 0] + place) and found.sampler_gap == 0.5
    assert [prompt.slice for prompt in found.prompts] == ["x", "x", "y", "y", "x", "x"]
    assert [len(rollout.ids) for rollout in found.rollouts] == [2, 1, 3, 1, 1, 2]
    assert found.groups == ["group 0 0", "group 1 0", "group 0 1"] and found.importance is None


def test_tokens_of_older_weights_weigh_their_ratio_up_to_a_cap():
    experience = make_experience(helpful=[1.0, 2.0])
    logprobs = torch.tensor([[-1.0, -0.5, -2.0], [-0.1, -1.0, 9.0]])
    sampled = torch.tensor([[-1.5, -2.5, -1.0], [-0.1, -1.2, 0.0]])
    found = ppo_rollouts.complete(make_config(), replace(experience, logprobs=logprobs, sampled=sampled))
    e = math.exp
    assert torch.allclose(found.importance, torch.tensor([[e(0.5), 2.0, e(-1)], [1.0, e(0.2), 0.0]]))
    assert ppo_rollouts.complete(make_config(), experience).importance is None and found.inside == {}


IDS = [(20, 30), (40,), (50, 60, 70), (80,), (90, 25), (35,)]  # two replies to each of three prompts
DRAWN = [(-0.2, -0.3), (-0.4,), (-0.5, -0.6, -0.7), (-0.8,), (-0.9, -0.35), (-0.45,)]


@pytest.fixture
def evaluate(monkeypatch):
    """`evaluate(gap, behind, **knobs)`: every role says of a token its id over a number of its own."""
    asked = []

    def says(name, divisor):
        def of_tokens(*given, temperature):
            (packing,) = [one for one in given if hasattr(one, "targets")]
            asked.append((name, packing.replies, temperature))
            return packing.targets / divisor

        return of_tokens

    def once(gap=0.0, *, behind=False, rollouts=True, **knobs):
        asked.clear()
        monkeypatch.setattr(ppo_rollouts, "token_logprobs", says("policy", -200.0))
        exact = says("exact", 500.0)
        monkeypatch.setattr(ppo_rollouts, "exact_kls", lambda actors, packing, _, **more: exact(packing, **more))
        monkeypatch.setattr(ppo_rollouts, "measure_gap", lambda *given: gap)
        critics = SimpleNamespace(names=("reward", "harm"))
        critics.values = lambda policy, packing: {"reward": packing.targets / 10, "harm": packing.targets / -10}
        policy = SimpleNamespace(eval=lambda: asked.append("eval"))
        scorers = {"helpful": SimpleNamespace(normalizer=lambda raw: 2 * raw)}
        scorers["harm"] = SimpleNamespace(normalizer=lambda raw: raw - 1)
        reference = SimpleNamespace(token_logprobs=says("reference", -160.0))
        actors = SimpleNamespace(policy=policy, critics=critics, reference=reference, scorers=scorers, costs=["harm"])
        number = 6 if rollouts else 0
        groups = [reply_group((1,), *IDS[i : i + 2]) for i in range(0, number, 2)]
        raw = {"helpful": torch.arange(6.0)[:number], "harm": torch.arange(10.0, 16.0)[:number]}
        scoring = SimpleNamespace(groups=groups, result=lambda: raw)
        drawn = [Rollout((1,), ids, of, "stop", 1.0, "") for ids, of in zip(IDS, DRAWN, strict=True)][:number]
        config = make_config(samples=2, temperature=0.7, **{"precision": "f32", "micro_tokens": 1, **knobs})
        prompts = PROMPTS[: number // 2]
        return ppo_rollouts.evaluate(config, ONE, actors, prompts, drawn, scoring, behind=behind), list(asked)

    return once


def in_slots(rows):
    return torch.tensor([[*row, *[0.0] * (3 - len(row))] for row in rows])


def over(divisor):
    return in_slots([[i / divisor for i in ids] for ids in IDS])


@pytest.mark.parametrize(("budget", "passes"), [(1, [2, 2, 2]), (1000, [6])])
def test_what_every_role_says_of_a_reply_stands_in_its_slots(evaluate, budget, passes):
    found, asked = evaluate(gap=1e-6, micro_tokens=budget)
    assert asked == ["eval", *[("reference", replies, 0.7) for replies in passes]]
    assert torch.allclose(found.reference, over(-160)) and torch.allclose(found.logprobs, in_slots(DRAWN))
    assert torch.allclose(found.values["reward"], over(10)) and torch.allclose(found.values["harm"], over(-10))
    assert torch.allclose(found.kl, in_slots(DRAWN) - over(-160)) and found.mask.sum(1).tolist() == [2, 1, 3, 1, 2, 1]
    assert found.scores["helpful"].tolist() == [0, 2, 4, 6, 8, 10] and found.scores["harm"].tolist() == [
        9,
        10,
        11,
        12,
        13,
        14,
    ]
    assert list(found.raw_costs) == ["harm"] and found.raw_costs["harm"].tolist() == [10, 11, 12, 13, 14, 15]
    assert found.prompts == [PROMPTS[i // 2] for i in range(6)] and found.sampler_gap == 1e-6
    assert [rollout.ids for rollout in found.rollouts] == IDS and len(found.groups) == 3
    assert found.sampled is None and found.importance is None


@pytest.mark.parametrize(
    ("gap", "knobs", "apart"),
    [
        (0.99e-5, {}, False),
        (1.01e-5, {}, True),
        (0.99e-4, {"precision": "bf16"}, False),
        (1.01e-4, {"precision": "bf16"}, True),
        (0.2, {"sampler_gap": 0.2}, False),
        (0.21, {"sampler_gap": 0.2}, True),
        (0.0, {"behind": True}, True),
    ],
)
def test_beyond_a_gap_or_behind_it_the_policys_own_log_probs_are_learned_from(evaluate, gap, knobs, apart):
    found, asked = evaluate(gap, micro_tokens=1000, **{"precision": "f32", **knobs})
    assert (("policy", 6, 0.7) in asked) == apart
    assert torch.allclose(found.logprobs, over(-200) if apart else in_slots(DRAWN))
    if "behind" in knobs:
        assert torch.allclose(found.sampled, in_slots(DRAWN))
    else:
        assert found.sampled is None


@pytest.mark.parametrize("estimator", ["k2", "exact"])
def test_kl_is_the_estimate_that_was_asked_for(evaluate, estimator):
    found, asked = evaluate(kl_in="loss", kl_estimator=estimator, micro_tokens=1000)
    sampled = 0.5 * (in_slots(DRAWN) - over(-160)) ** 2
    assert torch.allclose(found.kl, sampled if estimator == "k2" else over(500))
    assert (("exact", 6, 0.7) in asked) == (estimator == "exact")


def test_a_rank_without_a_prompt_has_empty_numbers(evaluate):
    found, asked = evaluate(rollouts=False)
    assert asked == ["eval"] and found.mask.shape == found.kl.shape == (0, 0) and found.prompts == []
