"""Numbers that models give, against a plain forward pass; limits, learned scales and critics by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn, tensor
from transformers import LlamaForCausalLM

from accord.config import Adapters
from accord.engine.forward.adapters import is_adapted
from accord.engine.forward.causal import hidden_states, token_logprobs
from accord.engine.packing import Group, pack, reply_group
from accord.errors import BadInput
from accord.evaluation.safety import SafetyCalibration
from accord.models import critics as critics_
from accord.models import likelihood, policy
from accord.models.critics import Critics, SeparateCritics, SharedCritics, make_critics
from accord.models.knowledge import prompt_group, prompt_logits
from accord.models.learner import PreferenceLearner
from accord.models.likelihood import Likelihood, likelihoods
from accord.models.limits import Limit, open_limits
from accord.models.loading import load_policy
from accord.models.policy import SIZES, compute_logprobs, mean_loss, new_policy, reply_logprobs
from accord.models.scalar import Normalizer, new_scalar, values
from accord.training.distributed import World

CPU = torch.device("cpu")
ONE = World(0, 1, CPU)


@pytest.fixture(scope="module")
def model(snapshots):
    return load_policy(str(snapshots / "policy"), trainable=False)


def plain(model, prefix, reply, temperature=1.0):
    """Log-probs (n, V) at the places that predict a reply's tokens."""
    ids = torch.tensor([[*prefix, *reply]])
    logits = model(input_ids=ids).logits[0] / temperature
    return torch.log_softmax(logits, -1)[len(prefix) - 1 : -1]


def summed(model, prefix, reply, temperature=1.0):
    found = plain(model, prefix, reply, temperature)
    return float(found.gather(1, torch.tensor(reply)[:, None]).sum())


def greedy(model, prefix, count):
    ids = list(prefix)
    for _ in range(count):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return tuple(ids[len(prefix) :])


@pytest.mark.parametrize("rows", [2, 3, 1024])
def test_likelihoods_are_sums_of_a_plain_forward_and_say_what_greedy_decoding_does(model, monkeypatch, rows):
    """A reply that begins as greedy decoding does is not what it says; one that is cut short is."""
    monkeypatch.setattr(likelihood, "ROWS", rows)
    prefix = (1, 20, 30)
    said = greedy(model, prefix, 4)
    other = (*said[:3], (said[3] + 1) % 250)
    groups = [reply_group(prefix, said, other, said[:2]), reply_group((1, 40), (50, 60, 70))]
    for micro_tokens in (1, 100):
        for asked in (True, False):
            found = list(likelihoods(model, groups, micro_tokens, CPU, greedy=asked))
            assert [[one.tokens for one in part] for part in found] == [[4, 4, 2], [3]]
            assert [[one.greedy for one in part] for part in found] == [[asked, False, asked], [False]]
            for group, part in zip(groups, found, strict=True):
                expected = [summed(model, group.prefix, reply) for reply in group.replies]
                assert [one.logprob for one in part] == pytest.approx(expected, abs=1e-4)
    assert Likelihood(-1.0, 2).greedy is False
    (part,) = likelihoods(model, groups[:1], 100, CPU)
    assert not any(one.greedy for one in part)


def test_a_mean_loss_is_over_every_trained_token_whatever_the_cut(model, monkeypatch):
    groups = [
        Group((1, 20), ((30, 40, 50),), ((True, False, True),)),
        Group((), ((1, 21, 31, 41),), ((True,) * 4,)),
        reply_group((1, 22), (32,)),
    ]
    first = plain(model, (1, 20), (30, 40, 50))
    losses = [first[0, 30], first[2, 50]]
    losses += [*plain(model, (1,), (21, 31, 41)).gather(1, tensor([[21], [31], [41]]))[:, 0]]
    losses += [plain(model, (1, 22), (32,))[0, 32]]
    expected = -float(sum(losses)) / 6
    for micro_tokens in (1, 9, 100):
        assert mean_loss(model, groups, micro_tokens, ONE, "f32") == pytest.approx(expected, abs=1e-5)

    def in_step(sharded, parts, filler):
        return [*((part, True) for part in parts), ([filler], False)]

    monkeypatch.setattr(policy, "in_step", in_step)
    assert mean_loss(model, groups[:1], 100, ONE, "f32") == pytest.approx(
        -float(first[0, 30] + first[2, 50]) / 2, abs=1e-5
    )
    world = SimpleNamespace(share=list, sharded=False, device=CPU, gather=lambda pair: [pair, (5.0, 4)])
    total = -float(first[0, 30] + first[2, 50])
    assert mean_loss(model, groups[:1], 100, world, "f32") == pytest.approx((total + 5.0) / 6, abs=1e-5)


def test_log_probs_of_replies_are_summed_at_a_temperature(model):
    groups = [reply_group((1, 20), (30, 40, 50)), reply_group((1, 20, 25), (35,)), reply_group((1, 22), (32, 33))]
    for temperature in (1.0, 0.5):
        expected = [summed(model, group.prefix, group.replies[0], temperature) for group in groups]
        for micro_tokens in (1, 100):
            found = reply_logprobs(model, groups, temperature, micro_tokens, CPU)
            assert found == pytest.approx(expected, abs=1e-4)
    packing = pack(groups)
    assert torch.equal(compute_logprobs(model, packing, "f32"), token_logprobs(model, packing))


@pytest.mark.parametrize(("max_length", "positions"), [(64, 2048), (2048, 2048), (3000, 3000)])
def test_a_new_policy_has_the_ladders_size_and_the_tokenizers_ids(tokenizer, max_length, positions):
    made = new_policy("pico", tokenizer, max_length=max_length, seed=3)
    config = made.config
    sizes = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.intermediate_size)
    assert sizes == SIZES["pico"] == (24, 2, 3, 64)
    assert (config.vocab_size, config.max_position_embeddings) == (len(tokenizer), positions)
    assert config.tie_word_embeddings and made.lm_head.weight is made.model.embed_tokens.weight
    ids = (config.bos_token_id, config.eos_token_id, config.pad_token_id)
    assert ids == (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    again, other = (new_policy("pico", tokenizer, max_length=64, seed=seed) for seed in (3, 4))
    assert torch.equal(again.lm_head.weight, made.lm_head.weight)
    assert not torch.equal(other.lm_head.weight, made.lm_head.weight)


def test_what_a_policy_knows_is_read_at_a_prompts_last_token(snapshots):
    head = new_scalar(str(snapshots / "policy"), "knows", 4)
    assert prompt_group((1, 20, 30)) == reply_group((1, 20), (30,))
    prompts = [(1, 20, 30), (1, 25), (1, 26, 27, 28)]
    with torch.no_grad():
        expected = [float(head(input_ids=torch.tensor([prompt])).logits[0, 0]) for prompt in prompts]
    for micro_tokens in (4, 100):
        found = prompt_logits(head, [prompt_group(prompt) for prompt in prompts], micro_tokens, CPU)
        assert found.tolist() == pytest.approx(expected, abs=1e-5) and not found.requires_grad
    assert prompt_logits(head, [], 100, CPU).shape == (0,)


# What is learned beside a scorer


@pytest.mark.parametrize(("rate", "nu"), [(0.25, 0.5 / 0.75), (0.0, 1e-3), (1.0, 2e3), (0.0004, 1e-3)])
def test_a_learner_begins_with_the_ties_there_are_and_with_people_who_mean_what_they_say(rate, nu):
    """Between replies of equal score P(tie) = ν / (2 + ν)."""
    learner = PreferenceLearner(nn.Linear(1, 1), ["a", "b"], ["ann", "bob", "carl"], tie_rate=rate)
    assert learner.log_ties.exp().tolist() == pytest.approx([nu, nu], rel=1e-5)
    assert learner.gain.tolist() == pytest.approx([1.0, 1.0]) and learner.bias.tolist() == [0.0, 0.0]
    assert learner.reliability.tolist() == pytest.approx([0.9] * 3)
    assert learner.language is None and (learner.heads, learner.labelers) == (["a", "b"], ["ann", "bob", "carl"])


def test_what_a_learner_learns_moves_thirty_times_as_fast_and_nobody_is_sure():
    learner = PreferenceLearner(nn.Linear(1, 1), ["a"], ["ann", "bob"], tie_rate=0.1)
    for name in ("_log_ties", "_gain", "_bias"):
        getattr(learner, name).data.fill_(0.02)
    learner._reliability.data.copy_(tensor([2.0, -2.0]))
    found = [learner.log_ties, learner.gain, learner.bias]
    assert [value.item() for value in found] == pytest.approx([0.6] * 3)
    assert learner.reliability.tolist() == pytest.approx([1 - 1e-4, 1e-4])


def test_a_learners_scores_have_a_column_for_each_head(snapshots):
    scorer = new_scalar(str(snapshots / "policy"), ["a", "b"], 4)
    packing = pack([reply_group((1, 20), (30,), (40, 50))], rows="last")
    both = values(scorer, packing)
    assert both.shape == (2, 2)
    learner = PreferenceLearner(scorer, ["a", "b"], ["ann"], tie_rate=0.1)
    assert torch.equal(learner.scores(packing), both)
    one = PreferenceLearner(new_scalar(str(snapshots / "policy"), "a", 4), ["a"], ["ann"], tie_rate=0.1)
    assert one.scores(packing).shape == (2, 1)


# Limits


CALIBRATED = {"temperature": 0.5, "relative_error": 0.4, "n": 60, "flips": 0.0, "ece": 0.02, "ece_before": 0.1}


def test_a_limit_bounds_a_cost_by_its_spread_or_a_share_by_its_calibration():
    costs = tensor([0.4, -1.2])
    cost = Limit("harm", 0.25, deviation=0.4)
    assert cost.bounded(costs) is costs and cost.error(0.75) == pytest.approx(1.25)
    share = Limit("harm", 0.25, "unsafe", calibration=SafetyCalibration(**CALIBRATED))
    expected = [1 / (1 + math.exp(-c / 0.5)) for c in (0.4, -1.2)]
    assert share.bounded(costs).tolist() == pytest.approx(expected) and share.error(0.75) == pytest.approx(1.0)
    assert share.error(0.1) == pytest.approx(-0.3) and Limit("harm", 0.1).deviation == 1.0


def test_limits_are_opened_with_what_their_cost_models_say(capsys):
    def scorer(where, **measured):
        return SimpleNamespace(where=where, measured=measured)

    scorers = {
        "a": scorer("wa", deviation=0.25, calibration=CALIBRATED),
        "b": scorer("wb"),
        "c": scorer("wc", deviation=0.5),
    }
    found = open_limits({"a": 0.1, "b": 2.0, "c": 3.0}, {"a": "unsafe"}, scorers)
    assert found == {
        "a": Limit("a", 0.1, "unsafe", 1.0, SafetyCalibration(**CALIBRATED)),
        "b": Limit("b", 2.0, "cost", 1.0),
        "c": Limit("c", 3.0, "cost", 0.5),
    }
    assert capsys.readouterr().out == "wb does not say how far its costs spread: λ moves by them as they are\n"
    for name in ("b", "c"):
        words = rf"--limit_of\.{name} unsafe: σ\(cost\) of w{name} was not calibrated.* 50 held-out .*{name} cost"
        with pytest.raises(BadInput, match=words):
            open_limits({name: 0.1}, "unsafe", scorers)


# Critics


def test_a_critic_is_its_scorer_on_the_scale_of_its_score(snapshots):
    """Of a preference model (s − shift) / scale; of a cost C / 2, as 2σ(C) − 1 is near 0."""
    model = load_policy(str(snapshots / "policy"))
    spoken = [("reward", Normalizer("standard", 0.7, 2.5)), ("cost", Normalizer("sign-probability", 0.0, 1.0))]

    def scorer(name, normalizer, renderer=None):
        role = "preference" if name == "reward" else "cost"
        return SimpleNamespace(
            renderer=renderer,
            where=str(snapshots / name),
            role=role,
            on="",
            heads=["other", "own"],
            read=["own"],
            members=[{"own": normalizer, "other": Normalizer("standard", 9.0, 9.0)}],
        )

    starts = {name: scorer(name, normalizer) for name, normalizer in spoken} | {"far": scorer("cost", None, "its own")}
    made = make_critics("separate", str(snapshots / "policy"), model, starts, 4)
    assert made.names == ("reward", "cost", "far") and len(made.parts()) == 3
    assert all(part is made.models[name] for part, name in zip(made.parts(), made.names, strict=True))
    packing = pack([reply_group((1, 20), (30,), (40, 50))])
    found = made.values(model, packing)
    for name, shift, scale in (("reward", 0.7, 2.5), ("cost", 0.0, 2.0), ("far", 0.0, 1.0)):
        assert torch.allclose(found[name], (values(made.models[name], packing) - shift) / scale, atol=1e-6)
    assert torch.equal(made.models["far"].score.weight, new_scalar(str(snapshots / "policy"), "far", 4).score.weight)
    assert all(p.requires_grad for p in made.parameters())


def test_a_critic_keeps_the_head_that_is_read_and_is_adapted_once(monkeypatch):
    asked = []

    class Adapted(nn.Linear):
        def disable_adapter(self):
            raise AssertionError

    starts = {"plain": nn.Linear(1, 1), "adapted": Adapted(1, 1)}
    monkeypatch.setattr(critics_, "load_scalar", lambda where, **more: asked.append((where, more)) or starts[where])
    monkeypatch.setattr(critics_, "keep_head", lambda model, head: asked.append(head) or model)
    monkeypatch.setattr(
        critics_, "add_adapters", lambda *given, **more: asked.append((given[1], more)) or Adapted(1, 1)
    )
    scorers = {
        name: SimpleNamespace(
            renderer=None,
            where=name,
            role="cost",
            on="base",
            heads=["a", "b"],
            read=["b"],
            members=[{"b": Normalizer()}],
        )
        for name in starts
    }
    adapters = Adapters(lora_rank=2)
    made = make_critics("separate", "policy", nn.Linear(1, 1), scorers, 4, adapters)
    loaded = {"role": "cost", "trainable": True, "on": "base"}
    adapting = (adapters, {"scalar": True, "seed": 4})
    assert asked == [("plain", loaded), 1, adapting, ("adapted", loaded), 1]
    assert made.models["adapted"] is starts["adapted"] and is_adapted(made.models["plain"])
    asked.clear()
    assert not is_adapted(make_critics("separate", "policy", nn.Linear(1, 1), scorers, 4).models["plain"])


def test_shared_critics_are_heads_on_the_policys_trunk_that_begin_at_0(model):
    made = make_critics("shared", "unused", model, {"reward": None, "cost": None}, 4)
    assert isinstance(made, SharedCritics) and made.names == ("reward", "cost") and made.parts() == [made]
    packing = pack([reply_group((1, 20), (30,), (40, 50))])
    assert all(value.tolist() == [0.0] * 3 for value in made.values(model, packing).values())
    made.heads.bias.data.copy_(tensor([0.5, -0.25]))
    made.heads.weight.data[1, 0] = 2.0
    hidden = hidden_states(model, packing)
    found = made.values(model, packing)
    assert found["reward"].tolist() == [0.5] * 3
    assert torch.allclose(found["cost"], 2 * hidden[:, 0] - 0.25, atol=1e-5)
    given = made.values(model, packing, hidden + 1)
    assert torch.allclose(given["cost"], 2 * hidden[:, 0] + 1.75, atol=1e-5)


def test_a_kind_of_critic_computes_values(model):
    with pytest.raises(TypeError, match="computes values"):
        Critics().values(model, None)
    assert SeparateCritics({}, {}).parts() == []


class Vocabulary(list):
    bos_token_id, eos_token_id, pad_token_id = 1, 2, 3


LADDER = dict(SIZES)  # before a fixture makes one smaller
NUMBERS = {"pico": 37_944, "nano": 214_976, "tiny": 539_232, "small": 919_680, "base": 5_002_496}
NUMBERS |= {"medium": 25_817_600, "large": 99_880_704}


@pytest.mark.parametrize(
    ("name", "heads", "numbers"), zip(NUMBERS, (3, 4, 4, 4, 8, 8, 12), NUMBERS.values(), strict=True)
)
def test_a_size_of_the_ladder_has_so_many_numbers_with_a_vocabulary_of_1000(monkeypatch, name, heads, numbers):
    """The embedding once, in a layer four squares of the width, three matrices of the inner width, two norms."""
    width, layers, _, inner = LADDER[name]
    assert numbers == 1000 * width + layers * (4 * width**2 + 3 * width * inner + 2 * width) + width
    monkeypatch.setitem(SIZES, name, LADDER[name])
    asked = []
    monkeypatch.setattr(policy.AutoModelForCausalLM, "from_config", lambda config: asked.append(config))
    new_policy(name, Vocabulary(range(1000)), max_length=3000, seed=0)
    (config,) = asked
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert sum(p.numel() for p in model.parameters()) == numbers
    assert config.max_position_embeddings == 3000 and config.num_attention_heads == heads
