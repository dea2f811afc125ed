"""Rollouts: their log-probs, their random streams, where they end."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from accord.engine.decode.draw import SampleSettings, draw_tokens, uniforms
from accord.engine.decode.fallback import batches, decode_padded
from accord.engine.decode.sampler import decode_in_slots, make_lanes, sample
from accord.engine.forward.causal import token_logprobs
from accord.engine.packing import pack, reply_group

VOCAB = 12
STOP = frozenset({2})
PROMPTS = [(1, 5, 9), (1, 4), (1, 3, 3, 7, 8), (1, 6, 10, 11)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    built = AutoModelForCausalLM.from_config(config, attn_implementation="accord").eval()
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    return built


def draw(model, prompts=PROMPTS, cache_tokens=65536, **changes):
    settings = replace(SampleSettings(3, 1.0, 10, STOP, seed=5), **changes)
    return sample(model, prompts, settings, cache_tokens=cache_tokens)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_c19_log_probs_are_those_of_the_packed_forward_at_the_same_temperature(model, temperature):
    rollouts = draw(model, temperature=temperature)
    packing = pack([reply_group(r.prompt_ids, r.ids) for r in rollouts])
    ours = token_logprobs(model, packing, temperature=temperature)
    drawn = torch.tensor([lp for r in rollouts for lp in r.logprobs])
    assert torch.allclose(ours, drawn, atol=1e-5)
    assert all(r.temperature == temperature for r in rollouts)


def test_a13_prompts_padded_on_the_left_keep_their_positions():
    """A13: prompts of unequal length, learned absolute positions: the log-probs are those of plain texts."""
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    config = GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)
    absolute = AutoModelForCausalLM.from_config(config, attn_implementation="accord").eval()
    with torch.no_grad():
        absolute.transformer.wpe.weight.mul_(50.0)
    for rollout in draw(absolute, n=2):
        text = torch.tensor([[*rollout.prompt_ids, *rollout.ids]])
        with torch.no_grad():
            logs = torch.log_softmax(absolute(input_ids=text).logits[0, len(rollout.prompt_ids) - 1 : -1], -1)
        plain = logs.gather(1, torch.tensor(rollout.ids)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(rollout.logprobs), plain, atol=1e-5)


def test_same_seed_same_replies_whatever_the_batch(model):
    whole = draw(model)
    for cache_tokens in (1, 40, 90):
        again = draw(model, cache_tokens=cache_tokens)
        assert [r.ids for r in again] == [r.ids for r in whole]
        assert np.allclose(
            np.concatenate([r.logprobs for r in again]), np.concatenate([r.logprobs for r in whole]), atol=1e-5
        )
    # one prompt alone, told its place in the whole
    alone = draw(model, PROMPTS[2:3], numbers=[2])
    assert [r.ids for r in alone] == [r.ids for r in whole[6:9]]
    assert [r.prompt_ids for r in whole] == [p for p in PROMPTS for _ in range(3)]


def test_c24_two_samples_of_one_prompt_differ_and_so_do_seeds(model):
    rollouts = draw(model, PROMPTS[:1], n=8, max_new_tokens=8)
    assert len({r.ids for r in rollouts}) > 4
    assert [r.ids for r in draw(model, PROMPTS[:1], n=8, max_new_tokens=8, seed=6)] != [r.ids for r in rollouts]


def test_c25_equal_prompts_in_one_batch_and_on_two_ranks_get_different_replies(model):
    same = [PROMPTS[0]] * 6
    whole = draw(model, same, n=1, max_new_tokens=8)
    assert len({r.ids for r in whole}) > 3
    shares = [[draw(model, [same[i]], n=1, max_new_tokens=8, numbers=[i])[0] for i in range(r, 6, 2)] for r in (0, 1)]
    assert [shares[i % 2][i // 2].ids for i in range(6)] == [r.ids for r in whole]


def test_the_first_draw_of_seed_0_is_not_the_first_token():
    """Seed 0, row 0, step 0 is a fixed point of the mixer unless something is added."""
    assert uniforms(0, np.zeros(1, dtype=np.uint64), 0)[0] > 0.01


def test_uniforms_are_uniform_and_independent():
    rows = np.arange(400, dtype=np.uint64)
    table = np.stack([uniforms(seed, rows, step) for seed in (0, 1, 2) for step in range(10)])
    assert table.min() >= 0 and table.max() < 1
    assert stats.kstest(table.ravel(), "uniform").pvalue > 1e-3
    correlations = np.corrcoef(table) - np.eye(len(table))
    assert np.abs(correlations).max() < 0.25
    assert len(np.unique(table)) == table.size


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_follow_the_softmax(temperature):
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, -30.0])
    uniform = torch.from_numpy(uniforms(3, np.arange(20_000, dtype=np.uint64), 0))
    tokens, logprobs = draw_tokens(logits.expand(20_000, -1), uniform, temperature)
    expected = torch.softmax(logits.double() / temperature, -1)
    counts = torch.bincount(tokens, minlength=5)
    assert counts[4] == 0
    assert stats.chisquare(counts[:4], 20_000 * expected[:4] / expected[:4].sum()).pvalue > 1e-3
    assert torch.allclose(logprobs, expected.log()[tokens].float(), atol=1e-5)


def test_the_last_and_first_token_can_be_drawn_and_impossible_ones_never():
    logits = torch.tensor([[0.0, -torch.inf, 0.0]])
    top = torch.nextafter(torch.tensor(1.0, dtype=torch.double), torch.tensor(0.0, dtype=torch.double))
    assert draw_tokens(logits, top[None], 1.0)[0].item() == 2
    assert draw_tokens(logits, torch.zeros(1, dtype=torch.double), 1.0)[0].item() == 0
    assert draw_tokens(logits, torch.full((1,), 0.5, dtype=torch.double), 1.0)[0].item() == 2


def test_first_tokens_of_a_model_follow_its_softmax(model):
    rollouts = draw(model, PROMPTS[:1], n=4000, max_new_tokens=1)
    logits = model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1]
    expected = torch.softmax(logits.detach().double(), -1).numpy()
    counts = np.bincount([r.ids[0] for r in rollouts], minlength=VOCAB)
    likely = expected * 4000 >= 5
    rest = (counts[~likely].sum(), 4000 * expected[~likely].sum())
    observed = np.append(counts[likely], rest[0])
    wanted = np.append(4000 * expected[likely], rest[1])
    keep = wanted > 0.5
    assert stats.chisquare(observed[keep], wanted[keep] * observed[keep].sum() / wanted[keep].sum()).pvalue > 1e-3


def test_c2_a_reply_ends_with_a_token_of_the_stop_set_and_others_are_flagged(model):
    rollouts = draw(model, n=20, stop_ids=frozenset({2, 7}), max_new_tokens=6)
    finishes = {r.finish for r in rollouts}
    assert finishes == {"stop", "length"}
    for r in rollouts:
        inside = [t in (2, 7) for t in r.ids]
        assert not any(inside[:-1])
        assert (r.finish == "stop") is inside[-1]
        assert r.finish == "stop" or len(r.ids) == 6
        assert len(r.ids) == len(r.logprobs)


class Constant(nn.Module):
    """A head that always wants one token."""

    def __init__(self, token):
        super().__init__()
        self.weight, self.token = nn.Parameter(torch.zeros(VOCAB, 16)), token

    def forward(self, hidden):
        logits = torch.zeros(*hidden.shape[:-1], VOCAB)
        logits[..., self.token] = 100.0
        return logits


def test_c26_an_empty_answer_is_a_reply_of_one_stop_token(model):
    always = copy.deepcopy(model)
    always.lm_head = Constant(2)
    for rollout in draw(always, n=2):
        assert rollout.ids == (2,) and rollout.finish == "stop"
        assert rollout.logprobs == pytest.approx((0.0,))
    always.lm_head = Constant(3)
    for rollout in draw(always, n=2, max_new_tokens=4):
        assert rollout.ids == (3,) * 4 and rollout.finish == "length"


def test_a_mixed_batch_in_which_rows_end_at_different_times_keeps_its_rows(model):
    """Rows that stop leave the batch and its cache; the others must not notice."""
    whole = draw(model, n=12, max_new_tokens=20, stop_ids=frozenset({2, 7, 8}))
    assert len({len(r.ids) for r in whole}) > 4
    packing = pack([reply_group(r.prompt_ids, r.ids) for r in whole])
    drawn = torch.tensor([lp for r in whole for lp in r.logprobs])
    assert torch.allclose(token_logprobs(model, packing), drawn, atol=2e-5)


def test_rows_of_three_lanes_stay_with_their_prompts(model):
    prompts = [(1, *((3 + i + k) % VOCAB for k in range(n - 1))) for i, n in enumerate((40, 40, 18, 18, 6, 6))]
    assert len(make_lanes([40, 40, 18, 18, 6, 6], 16, 3, 65536)) == 3
    whole = draw(model, prompts, n=16, max_new_tokens=3, stop_ids=frozenset({2, 7, 8}))
    packing = pack([reply_group(r.prompt_ids, r.ids) for r in whole])
    drawn = torch.tensor([lp for r in whole for lp in r.logprobs])
    assert torch.allclose(token_logprobs(model, packing), drawn, atol=2e-5)


def test_sampling_leaves_the_mode_of_the_model_as_it_was(model):
    model.train()
    draw(model, n=1, max_new_tokens=1)
    assert model.training
    model.eval()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_rows_without_a_token_are_never_drawn_and_log_probs_are_those_of_the_whole_head(model, kind):
    """By slots and by a model's own steps; without the bound the same draws hit such rows."""
    if kind == "gpt2":
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=VOCAB, n_embd=16, n_layer=1, n_head=2, n_positions=32)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="accord").eval()
    named = frozenset(range(VOCAB)) - {4, 10, 11}
    asked = [(5, 9, 8), (3, 6)]
    free = draw(model, asked, temperature=2.0, n=6)
    assert any(token not in named for rollout in free for token in rollout.ids)
    bound = draw(model, asked, temperature=2.0, n=6, vocabulary=named)
    assert all(set(rollout.ids) <= named for rollout in bound)
    packing = pack([reply_group(r.prompt_ids, r.ids) for r in bound])
    drawn = torch.tensor([lp for r in bound for lp in r.logprobs])
    assert torch.allclose(token_logprobs(model, packing, temperature=2.0), drawn, atol=1e-5)


def test_batches_of_the_fallback_by_hand():
    """As many prompts as fit into the cache at the length of the longest; beyond 64 rows none twice another one."""
    assert list(batches([10, 9, 8, 1], 1, 2, 24)) == [(0, 2), (2, 4)]
    assert list(batches([20, 19, 3], 40, 2, 10**6)) == [(0, 2), (2, 3)]
    assert list(batches([20, 19, 3], 20, 2, 10**6)) == [(0, 3)]
    assert list(batches([20], 1, 2, 1)) == [(0, 1)]


def watched(model, seen):
    """The model, which notes rows, tokens, and tokens that are masked or not, at every call."""

    class Watched(type(model)):
        def forward(self, input_ids, attention_mask, **more):
            seen.append((*input_ids.shape, attention_mask.shape[1]))
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, **more)

    made = copy.deepcopy(model)
    made.__class__ = Watched
    return made


@torch.no_grad()
@pytest.mark.parametrize(("cache_tokens", "rows"), [(66, [2, 2, 1]), (1, [1] * 5)])
def test_batches_of_the_fallback_draw_what_one_batch_draws(model, cache_tokens, rows):
    """Of two prompts with three replies each, and of one; every prompt has a number of its own."""
    prompts = [(1, 3, 3, 7, 8), (1, 6, 10, 11), (1, 5, 9), (1, 4), (3,)]
    settings = SampleSettings(3, 1.0, 6, STOP, seed=5, numbers=[9, 2, 4, 0, 7])
    whole = dict(decode_padded(model, prompts, settings, cache_tokens=10**6))
    seen = []
    parts = dict(decode_padded(watched(model, seen), prompts, settings, cache_tokens=cache_tokens))
    before = 0
    begun = []
    for count, width, masked in seen:
        if masked != before + 1:  # no step behind the last call
            begun.append((count, width, masked))
        before = masked
    assert [count for count, _, _ in begun] == rows and all(width == masked for _, width, masked in begun)
    assert sorted(parts) == sorted(whole) == list(range(15))
    assert [parts[k][0] for k in range(15)] == [whole[k][0] for k in range(15)]
    logprobs = (np.concatenate([some[k][1] for k in range(15)]) for some in (parts, whole))
    assert np.allclose(*logprobs, atol=1e-5)


@torch.no_grad()
def test_rows_that_have_ended_leave_the_fallbacks_batch_once_they_are_an_eighth(model, monkeypatch):
    """Sixteen rows, of which one ends after the first token, one after the second, and three after the third."""
    lengths = np.array([5, 5, 1, 5, 3, 2, 3, *[5] * 8, 3])
    asked = []

    def tokens(self, logits, streams, step):
        asked.append((step, streams.tolist(), len(logits)))
        ended = torch.from_numpy(lengths[streams.astype(int)] == step + 1)
        return torch.where(ended, 2, 5), torch.full((len(streams),), -0.5 - step)

    monkeypatch.setattr(SampleSettings, "tokens", tokens)
    settings = SampleSettings(16, 1.0, 5, STOP, seed=5)
    told = list(decode_padded(model, [(1, 4)], settings, cache_tokens=10**6))
    assert [number for number, _ in told] == [2, 5, 4, 6, 15, 0, 1, 3, *range(7, 15)]
    assert all(ids == [5] * (len(ids) - 1) + [2] and len(ids) == lengths[number] for number, (ids, _) in told)
    assert all(logprobs == [-0.5, -1.5, -2.5, -3.5, -4.5][: len(ids)] for _, (ids, logprobs) in told)
    assert [(step, rows) for step, _, rows in asked] == [(0, 16), (1, 16), (2, 14), (3, 11), (4, 11)]
    assert asked[2][1] == [0, 1, 3, 4, *range(6, 16)] and asked[3][1] == [0, 1, 3, *range(7, 15)]


@torch.no_grad()
@pytest.mark.parametrize("decode", [decode_in_slots, decode_padded])
def test_both_ways_give_a_sequences_tokens_and_log_probs_by_hand(model, decode):
    """Token by token from the model's own forward: which uniform, which distribution, where it ends."""
    prompts, settings = [(1, 3, 3, 7, 8), (1, 4)], SampleSettings(2, 0.8, 5, STOP, seed=5, numbers=[6, 3])
    found = dict(decode(model, prompts, settings, cache_tokens=10**6))
    for number, stream in enumerate((12, 13, 6, 7)):
        ids, logprobs = list(prompts[number // 2]), []
        while len(logprobs) < 5 and ids[-1] not in STOP:
            logs = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, -1].double() / 0.8, -1)
            uniform = uniforms(5, np.array([stream], dtype=np.uint64), len(logprobs))[0]
            ids.append(int((logs.exp().cumsum(0) > uniform).nonzero()[0]))
            logprobs.append(float(logs[ids[-1]]))
        assert found[number][0] == ids[len(prompts[number // 2]) :]
        assert found[number][1] == pytest.approx(logprobs, abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("decode", [decode_in_slots, decode_padded])
def test_a_reply_that_has_ended_is_told_once_while_its_neighbours_go_on(model, decode):
    """One of twelve ends after each token: too few for rows to be dropped at once."""
    prompts = [(1, 4)]
    settings = SampleSettings(12, 1.0, 9, STOP, seed=5)
    free = dict(decode(model, prompts, replace(settings, stop_ids=frozenset({-1})), cache_tokens=10**6))
    lengths = {tuple(free[k][0][: k % 9 + 1]): k % 9 + 1 for k in range(12)}
    bound = replace(settings, stop_ids=frozenset({-1}), ends=lambda ids: tuple(ids) in lengths)
    told = list(decode(model, prompts, bound, cache_tokens=10**6))
    assert sorted(number for number, _ in told) == list(range(12))
    for number, (ids, logprobs) in told:
        length = next(k for k in range(1, 10) if k == 9 or tuple(free[number][0][:k]) in lengths)
        assert ids == free[number][0][:length]
        assert logprobs == pytest.approx(free[number][1][:length], abs=1e-5)


def test_lanes_by_hand():
    """A lane's longest prompt is at most twice its shortest, once it has 32 replies; all hold one share in slots."""
    lengths = [40] * 20 + [21] * 20 + [19] * 40
    for micro_tokens, slots in ((10**6, 40), (1580, 20), (1, 1)):
        first, second = make_lanes(lengths, 1, 10, micro_tokens)
        assert (list(first.waiting), list(second.waiting)) == (list(range(40)), list(range(40, 80)))
        assert (first.capacity, second.capacity) == (50, 29) and first.slots == second.slots == slots
    assert len(make_lanes([40] * 10 + [19] * 10, 1, 10, 10**6)) == 1
    assert [lane.slots for lane in make_lanes([40] * 10 + [19] * 10, 4, 10, 10**6)] == [40, 40]
