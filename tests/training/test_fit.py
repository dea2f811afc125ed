"""How a batch is cut, over micro-batches or ranks, changes nothing; the optimizer and its schedule by hand."""

import math
import weakref

import pytest
import torch
from torch import nn

from accord.engine.forward.causal import token_logprobs
from accord.engine.packing import Group, cut_by_tokens, pack, reply_group
from accord.models.learner import PreferenceLearner
from accord.models.loading import load_policy
from accord.models.scalar import new_scalar
from accord.objectives.likelihood import likelihood_loss
from accord.records import Prompt, Turn
from accord.run import RunFolder
from accord.stages.ppo.config import Ppo
from accord.stages.preference.config import Preference
from accord.stages.preference.items import Label, PreferenceItem
from accord.stages.preference.loss import item_loss, totals
from accord.stages.sft.config import Sft
from accord.training.distributed import World
from accord.training.fit import backward, fit
from accord.training.optimizer import build_optimizer, clip_gradients, rate_at

ONE = World(0, 1, torch.device("cpu"))


def gradients(module, compute, parts):
    module.zero_grad()
    sums = {}
    for part in parts:
        loss, metrics = compute(part)
        loss.backward()
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return [p.grad.clone() for p in module.parameters() if p.grad is not None], sums


def cuts(items):
    """1, 2 and 5 uneven micro-batches."""
    yield [items]
    yield [items[:3], items[3:]]
    yield [items[:1], items[1:2], items[2:5], items[5:6], items[6:]]


def conversations(count=8):
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: tuple(torch.randint(7, 200, (n,), generator=generator).tolist())  # noqa: E731
    return [(draw(2 + i % 3), draw(1 + (i * 5) % 7), draw(2 + i % 4)) for i in range(count)]


def test_c15_c16_supervised_gradients_do_not_depend_on_the_cut(snapshots):
    """C15 and C16: the mean is over the tokens of the whole batch, and micro-batches add up."""
    model = load_policy(str(snapshots / "policy"))
    items = [Group((), (a + b,), ((False,) * len(a) + (True,) * len(b),)) for a, b, _ in conversations()]
    count = sum(item.trained for item in items)

    def compute(part):
        return likelihood_loss(token_logprobs(model, pack(part)), count=count)

    results = [gradients(model, compute, parts) for parts in cuts(items)]
    for found, metrics in results[1:]:
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, results[0][0], strict=True))
        assert metrics["loss"] == pytest.approx(results[0][1]["loss"], rel=1e-5)


def test_c15_c16_ranking_and_sign_gradients_do_not_depend_on_the_cut(snapshots):
    model = PreferenceLearner(new_scalar(str(snapshots / "policy"), "harmless", 0), ["harmless"], ["x"], tie_rate=0.1)
    config = Preference(model="m", data="d", out="o", role="cost", score_weight=0.1, centring_weight=0.2)
    prompt = Prompt((Turn("user", "x"),), "", "by hand")
    items = []
    for i, (a, b, c) in enumerate(conversations()):
        replies = (b, c, (9, 9)) if i % 3 == 0 else (b, c)
        ranks = () if i == 5 else tuple(range(1, len(replies) + 1))
        unsafe = (Label(0, "above", 0.0, 1.0), Label(1, "below", 0.0, 2.0)) if i % 2 else ()
        texts = ("r",) * len(replies)
        group = reply_group(a, *replies)
        items.append(
            PreferenceItem(prompt, texts, group, ranks, head="harmless", labeler="x", margin=0.1 * i, labels=unsafe)
        )
    whole = totals(items)

    def compute(part):
        return item_loss(model, part, whole, config, torch.device("cpu"))

    results = [gradients(model, compute, parts) for parts in cuts(items)]
    for found, metrics in results[1:]:
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, results[0][0], strict=True))
        assert metrics == pytest.approx(results[0][1], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["sft", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cost", "limited"))])
def test_c15_c16_micro_tokens_changes_no_result(name, commands, tmp_path):
    rows = []
    for micro_tokens in (40, 100_000):
        out = tmp_path / str(micro_tokens)
        assert commands.run(name, out, micro_tokens=micro_tokens) == 0
        import json

        rows.append([json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()])
    for a, b in zip(*rows, strict=True):
        for key in set(a) - {"tokens_per_second"}:
            assert a[key] == pytest.approx(b[key], rel=2e-3, abs=2e-4), key


def test_no_spent_graph_is_held_while_the_next_micro_batch_passes():
    weight, made, alive = torch.ones(2, requires_grad=True), [], []

    def loss(micro):
        alive.append([of() is not None for of in made])
        value = (weight * micro[0]).sum()
        made.append(weakref.ref(value))
        return value, {"loss": value.detach()}

    assert float(backward(ONE, [[1.0], [2.0], [3.0]], 1.0, loss)["loss"]) == 12.0
    assert alive == [[], [False], [False, False]] and weight.grad.tolist() == [6.0, 6.0]


def test_fit_counts_its_steps_and_evaluates_when_asked(tmp_path, snapshots):
    model = nn.Linear(1, 1)
    seen, evaluated = [], []

    def loss(items, count):
        seen.append(list(items))
        return model(torch.tensor([[float(i)] for i in items])).sum() / count, {"loss": torch.tensor(0.5)}

    config = Sft(model="m", data="d", out=str(tmp_path / "run"), eval_every=2, micro_tokens=2)
    with RunFolder("sft", config) as run:
        fit(
            run,
            ONE,
            config,
            module=model,
            steps=3,
            batch_at=lambda step: [step, 10 + step, 20 + step],
            size=lambda item: 1,
            totals=len,
            loss=loss,
            evaluate=lambda: evaluated.append(1) or {"eval/loss": 1.0},
        )
    assert seen == [[0, 10], [20], [1, 11], [21], [2, 12], [22]]
    assert len(evaluated) == 2  # after step 2 and at the end
    import json

    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert [row["loss"] for row in rows] == [1.0, 1.0, 1.0]  # two micro-batches of 0.5: metrics add up
    assert ["eval/loss" in row for row in rows] == [False, True, True]


def test_a_loss_that_is_not_finite_stops_the_run_with_its_weights_untouched(tmp_path):
    model = nn.Linear(1, 1)
    before = model.weight.clone()
    config = Sft(model="m", data="d", out=str(tmp_path / "run"))
    with RunFolder("sft", config) as run, pytest.raises(RuntimeError, match="non-finite"):
        fit(
            run,
            ONE,
            config,
            module=model,
            steps=1,
            batch_at=lambda step: [1.0],
            size=lambda item: 1,
            totals=len,
            loss=lambda items, count: (model(torch.tensor([[math.nan]])).sum(), {"loss": torch.tensor(0.0)}),
        )
    assert torch.equal(model.weight, before)


def test_rates_by_hand():
    # 10 steps, warm-up over 2: 1/3 and 2/3 of the peak, then the fall from step 2 to step 9
    rates = [rate_at(step, 10, peak=3.0, warmup=0.2, schedule="linear") for step in range(10)]
    assert rates[:3] == pytest.approx([1.0, 2.0, 3.0])
    assert rates[9] == pytest.approx(0.3) and rates[5] == pytest.approx(3 * (1 - 0.9 * 3 / 7))
    assert rate_at(9, 10, peak=3.0, warmup=0.0, schedule="cosine") == pytest.approx(0.3)
    assert rate_at(7, 10, peak=3.0, warmup=0.0, schedule="constant") == 3.0
    assert rate_at(5, 10, peak=3.0, warmup=0.0, schedule="linear", hold=0.5) == 3.0
    assert rate_at(0, 1, peak=3.0, warmup=0.0, schedule="cosine") == 3.0


def test_vectors_never_decay_and_clipping_keeps_the_direction():
    model = nn.Linear(3, 2)
    groups = build_optimizer(model.parameters(), weight_decay=0.1).param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.1), (1, 0.0)]
    model.weight.grad, model.bias.grad = torch.full((2, 3), 2.0), torch.zeros(2)
    norm = clip_gradients(model.parameters(), 1.0)
    assert norm == pytest.approx(2 * 6**0.5)
    assert torch.allclose(model.weight.grad, torch.full((2, 3), 1 / 6**0.5), atol=1e-5)


def test_shares_of_two_ranks_are_a_partition():
    items = list(range(7))
    shares = [World(rank, 2, torch.device("cpu")).share(items) for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == items
    assert ONE.interleave(ONE.share(items)) == items
    assert cut_by_tokens(items, lambda _: 1, 3) == [[0, 1, 2], [3, 4, 5], [6]]


def test_ppo_config_keeps_its_word_on_limits():
    with pytest.raises(ValueError, match="has no cost model"):
        Ppo(model="m", data="d", out="o", rewards={"a": "b"}, limits={"harm": 0.0})
