"""The update of policy optimisation by hand: models stand aside and say numbers that are chosen."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from accord.engine.packing import pack, reply_group
from accord.stages.ppo import memory as ppo_memory
from accord.stages.ppo import update as ppo_update
from accord.stages.ppo.update import MiniBatch, Targets
from accord.training.finite import NotFinite
from accord.training.order import batch_indices
from tests.flow.test_ppo_road import ONE, make_config, make_experience

GROUPS = [reply_group((1, 2), (3, 4, 5)), reply_group((9,), (8,)), reply_group((1,), (6, 7))]
SHAPE = {"lengths": (3, 1, 2), "finish": ("stop",) * 3, "slices": ("a", "b", "c")}
NOW = {2: [-0.5, -1.5], 0: [-1.0, -0.4, -2.0]}  # log-probs by prompt, in the order in which the prompts come
BEFORE = {2: [-0.4, -2.0], 0: [-1.0, -0.8, -1.2]}
REFERENCE = {2: [-0.7, -1.0], 0: [-0.2, -0.9, -2.5]}
ADVANTAGE = {2: [1.5, -0.5], 0: [-1.0, 2.0, 0.25]}
WEIGHT = {2: [0.5, 0.75], 0: [1.25, 2.0, 1.0]}
VALUE = {2: [0.3, -0.6], 0: [0.1, 0.9, -0.2]}
OLD_VALUE = {2: [0.1, -0.5], 0: [0.4, 0.3, -0.2]}
RETURN = {2: [1.0, 0.5], 0: [-0.5, 0.7, 0.2]}
ENTROPY = {2: [0.9, 0.2], 0: [1.1, 0.3, 0.6]}
EXACT = {2: [0.4, 0.15], 0: [0.25, 0.05, 0.35]}


def flat(numbers):
    return [number for of in numbers.values() for number in of]


def whole(numbers):
    """(3, 3), with what no token may read elsewhere."""
    out = torch.full((3, 3), 99.0)
    for place, of in numbers.items():
        out[place, : len(of)] = torch.tensor(of)
    return out


def losses_by_hand(clip, value_clip, count):
    rows = zip(*map(flat, (NOW, BEFORE, REFERENCE, ADVANTAGE, WEIGHT, VALUE, OLD_VALUE, RETURN)), strict=True)
    policy = kl = value = clipped = approximate = ratios = 0.0
    for now, before, reference, advantage, weight, found, old, wanted in rows:
        ratio = math.exp(now - before)
        held = min(max(ratio, 1 - clip), 1 + clip)
        policy -= weight * min(ratio * advantage, held * advantage) / count
        clipped += (held * advantage < ratio * advantage) / count
        approximate += (ratio - 1 - (now - before)) / count
        ratios += ratio / count
        kl += weight * 0.5 * (now - reference) ** 2 / count
        near = old + min(max(found - old, -value_clip), value_clip)
        value += 0.5 * max((found - wanted) ** 2, (near - wanted) ** 2) / count
    named = {"loss/policy": policy, "policy/clip_fraction": clipped, "policy/ratio": ratios}
    return named | {"policy/kl_old_new": approximate, "loss/kl": kl, "loss/value/reward": value}


@pytest.mark.parametrize("critic", ["separate", "shared"])
@pytest.mark.parametrize("estimator", ["k1", "k2", "exact"])
def test_the_loss_of_some_prompts_of_a_mini_batch_by_hand(monkeypatch, critic, estimator):
    seen, read = [], []

    def logprobs(policy, packing, hidden, *, temperature):
        seen.append((policy, hidden, temperature))
        return torch.tensor(flat(NOW)), torch.tensor(flat(ENTROPY))

    def exact(actors, packing, asked, *, temperature, hidden):
        seen.append((asked, actors.policy, hidden, temperature))
        return torch.tensor(flat(EXACT))

    monkeypatch.setattr(ppo_update, "hidden_states", lambda policy, packing: f"hidden of {policy}")
    monkeypatch.setattr(ppo_update, "logprobs_and_entropy", logprobs)
    monkeypatch.setattr(ppo_update, "exact_kls", exact)
    critics = SimpleNamespace(values=lambda *given: read.append(given) or {"reward": torch.tensor(flat(VALUE))})
    actors = SimpleNamespace(policy="policy", critics=critics)
    kl = {} if estimator == "k1" else {"kl_in": "loss", "kl_estimator": estimator}
    weighed = {"value_weight": 0.3} if critic == "shared" else {}
    config = make_config(clip=0.25, value_clip=0.1, critic=critic, temperature=0.8, precision="f32", **kl, **weighed)
    experience = replace(
        make_experience(**SHAPE),
        groups=GROUPS,
        logprobs=whole(BEFORE),
        reference=whole(REFERENCE),
        values={"reward": whole(OLD_VALUE)},
    )
    targets = Targets(whole(ADVANTAGE), {"reward": whole(RETURN)}, 0.6, 0)
    batch = MiniBatch([2, 1, 0], whole(WEIGHT), 8)
    loss, metrics = ppo_update.micro_loss(config, actors, experience, targets, batch, [2, 0], ONE.device)
    expected = losses_by_hand(0.25, 0.1, 8)
    in_loss = {
        "k1": 0.0,
        "k2": 0.6 * expected.pop("loss/kl"),
        "exact": 0.6 * sum(w * k for w, k in zip(flat(WEIGHT), flat(EXACT), strict=True)) / 8,
    }[estimator]
    expected.pop("loss/kl", None)
    if estimator != "k1":
        expected["loss/kl"] = in_loss
    expected["objective/entropy"] = sum(flat(ENTROPY)) / 8
    assert {name: float(found) for name, found in metrics.items()} == pytest.approx(expected, rel=1e-5)
    value_weight = 1.0 if critic == "separate" else 0.3
    total = expected["loss/policy"] + in_loss + value_weight * expected["loss/value/reward"]
    assert float(loss) == pytest.approx(total, rel=1e-5)
    assert seen[0] == ("policy", "hidden of policy", 0.8)
    ((policy, packing, hidden),) = read
    assert (policy, hidden) == ("policy", "hidden of policy") and packing.targets.tolist() == [6, 7, 3, 4, 5]
    assert seen[1:] == ([("exact", "policy", "hidden of policy", 0.8)] if estimator == "exact" else [])


def test_prompts_come_in_a_fresh_order_that_seed_step_and_epoch_alone_decide():
    experience = replace(
        make_experience(lengths=(1,) * 10, finish=("stop",) * 10, slices=("a",) * 10), groups=[None] * 5
    )
    config = make_config(samples=2, mini_batch_size=5, ppo_epochs=2, seed=3)
    found = [batch.chosen for batch in ppo_update.mini_batches(config, experience, 7)]
    assert list(map(len, found)) == [2, 2, 1] * 2
    for epoch in range(2):
        order = np.random.default_rng([3, 7, epoch]).permutation(5)
        assert [i for chosen in found[3 * epoch : 3 * epoch + 3] for i in chosen] == order.tolist()
    one_by_one = config.model_copy(update={"mini_batch_size": 1})
    assert [len(batch.chosen) for batch in ppo_update.mini_batches(one_by_one, experience, 7)] == [1] * 10


def test_the_weights_of_a_mini_batch_are_those_of_its_own_replies_times_what_they_are_worth():
    """Two replies to each of three prompts, of which the third and the first are taken: 7 tokens of 4 replies."""
    experience = make_experience(lengths=(1, 2, 3, 3, 3, 1), finish=("stop",) * 6, slices=tuple("aabbcc"))
    config = make_config(advantages="rloo", samples=2, max_new_tokens=5)
    batch = ppo_update.mini_batch(config, experience, [2, 0])
    assert batch.chosen == [2, 0] and batch.count == 7
    length = torch.zeros(6, 3)
    length[[0, 1, 4, 5]] = 7 / (4 * 5)
    assert torch.allclose(batch.weights, length)
    importance = torch.arange(18.0).reshape(6, 3)
    weighed = ppo_update.mini_batch(config, replace(experience, importance=importance), [2, 0])
    assert torch.allclose(weighed.weights, length * importance)
    assert ppo_update.rows_of([2, 0], 3) == [6, 7, 8, 0, 1, 2]


@pytest.mark.parametrize(("critic", "critics"), [("separate", 3.0), ("shared", 2.0)])
def test_value_heads_on_the_policy_learn_at_its_rate(critic, critics):
    own = {"critic_learning_rate": 3.0} if critic == "separate" else {}
    config = make_config(critic=critic, learning_rate=2.0, warmup=0.0, steps=9, **own)
    optimizers = {name: torch.optim.SGD([torch.zeros(1)], lr=9.0) for name in ("policy", "critics")}
    ppo_update.set_rates(config, optimizers, 1)
    assert [optimizer.param_groups[0]["lr"] for optimizer in optimizers.values()] == [2.0, critics]


class Weights(nn.Module):
    """Two numbers whose gradients are chosen."""

    def __init__(self):
        super().__init__()
        self.held = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.weight = nn.Parameter(torch.zeros(2))


@pytest.fixture
def learning(monkeypatch):
    """`learning(gradients, kl=…, **knobs)`: what an update makes of gradients of the policy and of two critics."""

    def learn(*, gradients=((3.0, 4.0), (6.0, 8.0), (0.3, 0.4)), kl=(0.0,) * 4, step=0, other_text=(), **knobs):
        modules = [Weights() for _ in gradients]
        modes, told = [], []
        critics = SimpleNamespace(parts=lambda: modules[1:], names=("a", "b"), zero_grad=lambda **_: None)
        critics.parameters = lambda: [p for m in modules[1:] for p in m.parameters()]
        train = lambda mode=True: modes.append(mode)  # noqa: E731
        actors = SimpleNamespace(policy=modules[0], critics=critics, other_text=list(other_text), train=train)

        def micro_loss(config, given, experience, targets, batch, some, device):
            assert given is actors and targets.step == step
            number = len(told)
            told.append((list(batch.chosen), list(some)))
            value = sum((m.weight * torch.tensor(g)).sum() for m, g in zip(modules, gradients, strict=True))
            return value, {"policy/kl_old_new": torch.tensor(kl[number]), "loss/policy": torch.tensor(number + 1.0)}

        monkeypatch.setattr(ppo_update, "micro_loss", micro_loss)
        experience = replace(make_experience(**SHAPE), groups=GROUPS)
        settings = {"batch_size": 3, "mini_batch_size": 2, "ppo_epochs": 2, "warmup": 0.0, "precision": "f32"}
        settings |= {"micro_tokens": 100}
        rates = {"learning_rate": 0.5, "critic_learning_rate": 0.25, "schedule": "constant"}
        config = make_config(**{**settings, **rates, "clip_norm": 1.0, **knobs})
        optimizers = {
            "policy": torch.optim.SGD([modules[0].weight], lr=9.0),
            "critics": torch.optim.SGD([m.weight for m in modules[1:]], lr=9.0),
        }
        targets = Targets(torch.zeros(3, 3), {}, 0.5, step)
        found = ppo_update.improve(config, ONE, actors, optimizers, experience, targets)
        assert modes == [True, False]
        return found, [m.weight.tolist() for m in modules], told

    return learn


def test_every_part_is_clipped_by_its_own_norm_and_metrics_are_means_over_updates(learning):
    """Norms 5 and 10 become 1, 0.5 stays; four updates at rates 0.5 and 0.25."""
    found, weights, told = learning()
    assert [len(chosen) for chosen, _ in told] == [2, 1, 2, 1] and all(chosen == some for chosen, some in told)
    assert weights[0] == pytest.approx([-4 * 0.5 * 0.6, -4 * 0.5 * 0.8], rel=1e-4)
    assert weights[1] == pytest.approx([-4 * 0.25 * 0.6, -4 * 0.25 * 0.8], rel=1e-4)
    assert weights[2] == pytest.approx([-4 * 0.25 * 0.3, -4 * 0.25 * 0.4], rel=1e-4)
    assert found == pytest.approx(
        {
            "policy/kl_old_new": 0.0,
            "loss/policy": (1 + 2 + 3 + 4) / 4,
            "grad_norm/policy": 5.0,
            "grad_norm/critics": math.hypot(10.0, 0.5),
            "policy/updates": 4,
            "learning_rate": 0.5,
        },
        rel=1e-5,
    )


def test_no_step_is_made_beyond_the_bound_except_the_first(learning):
    """The bound itself is not beyond it, and what is measured before the first step is of no step."""
    found, weights, told = learning(kl=(9.0, 0.5, 0.75, 0.1), update_kl=0.5)
    assert len(told) == 3 and found["policy/updates"] == 2
    assert found["policy/kl_old_new"] == pytest.approx((9.0 + 0.5) / 2)
    assert weights[0] == pytest.approx([-2 * 0.5 * 0.6, -2 * 0.5 * 0.8], rel=1e-4)
    assert learning(kl=(9.0,) * 4)[0]["policy/updates"] == 4


@pytest.mark.parametrize(("step", "moves"), [(0, False), (1, False), (2, True)])
def test_while_critics_warm_up_the_policy_and_other_text_stand_still(learning, monkeypatch, step, moves):
    read = []
    monkeypatch.setattr(
        ppo_update, "learn_other_text", lambda *given: read.append(given[3:]) or {"loss/ptx": torch.tensor(2.0)}
    )
    found, weights, _ = learning(step=step, critic_warmup=2, other_text=["text"])
    assert (weights[0] != [0.0, 0.0]) == moves and weights[1] != [0.0, 0.0]
    assert ("grad_norm/policy" in found) == moves and "grad_norm/critics" in found
    assert read == ([(step, number) for number in range(4)] if moves else [])
    assert found.get("loss/ptx") == (2.0 if moves else None) and found["loss/policy"] == 2.5


def test_gradients_and_metrics_are_summed_over_ranks_before_anything_is_made_of_them(learning, monkeypatch):
    """Stands for a second rank that has found the same."""
    summed = []

    def sum_over_ranks(world, parameters, metrics):
        summed.append((world, len(parameters)))
        for parameter in parameters:
            parameter.grad *= 2
        return {name: 2 * metric for name, metric in metrics.items()}

    monkeypatch.setattr(ppo_update, "sum_over_ranks", sum_over_ranks)
    found, _, _ = learning()
    assert summed == [(ONE, 3)] * 4 and found["loss/policy"] == 5.0 and found["grad_norm/policy"] == pytest.approx(10.0)


def test_an_update_without_a_finite_gradient_is_refused(learning):
    with pytest.raises(NotFinite, match="step 3"):
        learning(gradients=((3.0, 4.0), (math.inf, 8.0), (0.3, 0.4)), step=2)


@pytest.mark.parametrize(("size", "updates"), [(4, 3), (1, 5)])
def test_other_text_is_learned_by_its_mean_over_tokens_times_its_weight(monkeypatch, size, updates):
    """Two texts of five, of 1, 2, 3, … tokens; every token's log-prob is −2 times the one parameter."""
    texts = [reply_group((1,), tuple(range(2, 3 + i))) for i in range(5)]
    weight = torch.ones(1, requires_grad=True)
    packed = []

    def token_logprobs(policy, packing):
        packed.append(len(packing.owner))
        return policy * -2.0 * torch.ones(len(packing.owner))

    monkeypatch.setattr(ppo_update, "token_logprobs", token_logprobs)
    rollouts = {"batch_size": 5, "samples": 2, "mini_batch_size": size, "ppo_epochs": 3}
    other = {"ptx_data": "x", "ptx_weight": 0.25, "ptx_batch_size": 2}
    config = make_config(**rollouts, **other, seed=6, micro_tokens=1, precision="f32")
    actors = SimpleNamespace(policy=weight, other_text=texts)
    found = ppo_update.learn_other_text(config, ONE, actors, 2, 4)
    places = batch_indices(2 * (3 * updates) + 4, 5, 2, 6)
    assert packed == [texts[i].trained for i in places]
    assert list(found) == ["loss/ptx"] and float(found["loss/ptx"]) == pytest.approx(2.0)
    assert weight.grad.item() == pytest.approx(0.25 * 2.0)


def test_the_rollouts_that_are_imagined_are_as_many_and_as_long_as_they_may_get(monkeypatch):
    seen = []

    def micro_loss(*given):
        seen.append(given)
        return torch.tensor(3.5), {}

    monkeypatch.setattr(ppo_memory, "micro_loss", micro_loss)
    config = make_config(samples=2, max_new_tokens=4, kl_coefficient=0.3, mini_batch_size=6)
    actors = SimpleNamespace(critics=SimpleNamespace(names=("reward", "harm")))
    groups = [reply_group((1,), (2,) * 4, (2,) * 4)] * 3
    assert float(ppo_memory.imagined_loss(config, actors, groups, ONE.device)) == 3.5
    ((given, who, experience, targets, batch, chosen, device),) = seen
    assert given is config and who is actors and device == ONE.device
    assert experience.groups == groups and experience.prompts == experience.rollouts == [] and experience.scores == {}
    assert experience.mask.shape == (6, 4) and experience.mask.all() and experience.mask.dtype == torch.bool
    for matrix in (experience.logprobs, experience.reference, experience.kl, *experience.values.values()):
        assert matrix.shape == (6, 4) and not matrix.any()
    assert list(experience.values) == list(targets.returns) == ["reward", "harm"]
    assert targets.advantages.shape == (6, 4) and targets.kl_coefficient == 0.3 and targets.step == 0
    assert list(batch.chosen) == list(chosen) == [0, 1, 2] and batch.count == 24


def test_what_is_left_of_a_run_is_counted_in_mini_batches(monkeypatch):
    config = make_config(steps=10, batch_size=6, samples=4, mini_batch_size=8, ppo_epochs=3, micro_tokens=9)
    _, left = ppo_memory.imagined_pass(config, None, [], 3, ONE.device)
    assert left == 7 * 3 * 3


def test_the_imagined_pass_is_of_the_longest_micro_batch_and_in_training_mode(monkeypatch):
    """Prompts of 2, 5 and 3 tokens with replies of 4: nine tokens are one prompt, sixteen are two."""
    modes, seen = [], []
    weight = torch.zeros(1, requires_grad=True)

    def imagined_loss(config, actors, groups, device):
        seen.append(([len(group.prefix) for group in groups], modes[-1]))
        return 2 * weight.sum()

    monkeypatch.setattr(ppo_memory, "imagined_loss", imagined_loss)
    renderer = SimpleNamespace(end=7, prompt_ids=lambda turns: [1] * turns)
    actors = SimpleNamespace(renderer=renderer, train=lambda mode=True: modes.append(mode))
    prompts = [SimpleNamespace(turns=length) for length in (2, 5, 3)]
    config = make_config(samples=1, max_new_tokens=4, mini_batch_size=3)
    sizes = [group.tokens for group in ppo_memory.longest_rollouts(config, actors, prompts)]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 3
    config = make_config(samples=4, max_new_tokens=4, mini_batch_size=3)
    (alone,) = ppo_memory.longest_rollouts(config, actors, prompts)  # a prompt's replies stay together
    assert len(alone.prefix) == 5 and len(alone.replies) == 4
    for budget, taken in ((sizes[0], [5]), (sizes[0] + sizes[1], [5, 3])):
        config = make_config(samples=1, max_new_tokens=4, mini_batch_size=3, micro_tokens=budget)
        once, _ = ppo_memory.imagined_pass(config, actors, prompts, 0, ONE.device)
        once()
        assert seen.pop() == (taken, True) and modes[-2:] == [True, False]
    assert weight.grad.item() == 4.0


def test_what_the_machine_decides_is_decided_on_the_longest_rollouts(monkeypatch):
    asked, computed = [], []
    monkeypatch.setattr(ppo_memory, "settle", lambda *given: asked.append(given) or "settled")
    monkeypatch.setattr(ppo_memory, "imagined_loss", lambda *given: computed.append(given) or "loss")
    renderer = SimpleNamespace(end=7, prompt_ids=lambda turns: [1] * turns)
    actors = SimpleNamespace(renderer=renderer, policy="policy", critics="critics")
    prompts = [SimpleNamespace(turns=length) for length in (2, 5, 3)]
    config = make_config(samples=2, max_new_tokens=3, mini_batch_size=5)
    assert ppo_memory.settle_actors(config, "run", ONE, prompts, actors) == "settled"
    ((given, run, world, trained, groups, compute),) = asked
    assert (given, run, world, trained) == (config, "run", ONE, ["policy", "critics"])
    assert groups == [reply_group((1,) * length, (7,) * 3, (7,) * 3) for length in (5, 3)]
    assert compute(groups[:1], "bf16") == "loss"
    ((lowered, who, some, device),) = computed
    assert lowered == config.model_copy(update={"precision": "bf16"}) and lowered.precision == "bf16"
    assert (who, some, device) == (actors, groups[:1], ONE.device)


def test_the_places_of_rows_are_those_of_a_packing():
    """What the tests above take for granted: a packing holds the tokens prompt by prompt."""
    packing = pack([GROUPS[2], GROUPS[0]])
    assert packing.owner.tolist() == [0, 0, 1, 1, 1] and packing.slots.tolist() == [0, 1, 0, 1, 2]
