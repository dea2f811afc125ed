"""Greedy replies and parts of the distribution, beside transformers; texts that end a reply."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.generation.logits_process import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from accord.engine.decode.draw import SampleSettings, draw_tokens, tokenless, truncated, uniforms
from accord.engine.decode.fallback import decode_padded
from accord.engine.decode.sampler import decode_in_slots, sample
from accord.models.loading import load_policy

PROMPTS = [(5, 9, 14, 3), (7,), (20, 21, 22, 23, 24, 25)]
NO_STOP = frozenset({-1})


@pytest.mark.parametrize("how", [(3, 1.0, 0.0), (0, 0.6, 0.0), (0, 1.0, 0.2), (9, 0.8, 0.1), (500, 0.999, 1e-4)])
def test_what_is_left_out_is_what_transformers_leaves_out(how):
    top_k, top_p, min_p = how
    logits = torch.randn(40, 300, generator=torch.Generator().manual_seed(3)) * 3
    expected = logits
    for wanted, warper in (
        (top_k, TopKLogitsWarper(top_k or 1)),
        (top_p < 1, TopPLogitsWarper(top_p)),
        (min_p, MinPLogitsWarper(min_p)),
    ):
        expected = warper(None, expected) if wanted else expected
    assert torch.equal(truncated(logits, top_k, top_p, min_p).isinf(), expected.isinf())


def test_log_probs_are_those_of_what_is_drawn_from():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).repeat(4000, 1)
    settings = SampleSettings(1, 2.0, 4, NO_STOP, seed=0, top_k=2)
    token, logprob = settings.tokens(logits, np.arange(4000, dtype=np.uint64), 0)
    chances = torch.tensor([1.0, 0.5]).softmax(0)  # of the first two at temperature 2
    assert set(token.tolist()) == {0, 1}
    assert (token == 0).float().mean().item() == pytest.approx(float(chances[0]), abs=0.03)
    assert torch.allclose(logprob, chances.log()[token], atol=1e-6)


def test_greedy_replies_are_those_of_generate(snapshots):
    where = snapshots / "policy"
    plain = AutoModelForCausalLM.from_pretrained(where)
    settings = SampleSettings(1, 0.0, 12, NO_STOP, seed=0)
    for prompt, rollout in zip(PROMPTS, sample(load_policy(str(where)), PROMPTS, settings), strict=True):
        ids = torch.tensor([prompt])
        theirs = plain.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=None
        )
        assert list(rollout.ids) == theirs[0, len(prompt) :].tolist() and rollout.temperature == 0
        logs = plain(theirs).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = logs.gather(1, torch.tensor(rollout.ids).unsqueeze(1)).squeeze(1)
        assert torch.allclose(torch.tensor(rollout.logprobs), expected, atol=1e-4)


@pytest.mark.parametrize("decode", [decode_in_slots, decode_padded])
def test_a_reply_ends_where_what_it_says_ends_it(snapshots, decode):
    """After its third token, or where a token of its own does, whatever its neighbours do."""
    model = load_policy(str(snapshots / "policy"))
    free = SampleSettings(2, 1.0, 8, NO_STOP, seed=0)
    bound = SampleSettings(2, 1.0, 8, NO_STOP, seed=0, ends=lambda ids: len(ids) == 3 and ids[0] % 2 == 0)
    longest_first = sorted(PROMPTS, key=len, reverse=True)
    whole, cut = (dict(decode(model, longest_first, s, cache_tokens=40)) for s in (free, bound))
    assert {len(ids) for ids, _ in cut.values()} == {3, 8}
    for number, (ids, _) in cut.items():
        assert ids == whole[number][0][: len(ids)] and (len(ids) == 3) == (whole[number][0][0] % 2 == 0)
        assert bound.finish(ids) == ("stop" if len(ids) == 3 else "length")


BITS = 2**64


def uniform_of(seed, row, step):
    """The stream in whole numbers of any size, after Steele, Lea and Flood 2014 (splitmix64)."""
    state = (row * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03) % BITS
    state ^= (seed * 0x2545F4914F6CDD1D + 0xA0761D6478BD642F) % BITS
    for _ in range(3):
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % BITS
        state = (state ^ state >> 27) * 0x94D049BB133111EB % BITS
        state ^= state >> 31
    return (state >> 11) / 2**53


def test_uniforms_are_those_of_whole_numbers():
    rows, steps = np.array([0, 1, 7, 2**40 + 3], dtype=np.uint64), np.array([0, 5, 2, 900])
    for seed in (0, 3, 2**63 + 11):
        expected = [uniform_of(seed, int(row), int(step)) for row, step in zip(rows, steps, strict=True)]
        assert uniforms(seed, rows, steps).tolist() == expected
        assert uniforms(seed, rows, 4).tolist() == [uniform_of(seed, int(row), 4) for row in rows]


def test_a_reply_has_the_stream_of_its_prompts_number_and_its_own():
    settings = SampleSettings(3, 1.0, 4, NO_STOP, seed=0)
    streams = settings.streams(2)
    assert streams.tolist() == [0, 1, 2, 3, 4, 5] and streams.dtype == np.uint64
    numbered = SampleSettings(3, 1.0, 4, NO_STOP, seed=0, numbers=[5, 2])
    assert numbered.streams(2).tolist() == [15, 16, 17, 6, 7, 8]


def turned_round(chances, uniform):
    """The first token whose chances, with those before it, are more than the uniform: (B, V), (B,) to (B,)."""
    whole = chances.cumsum(-1)
    return (whole > uniform[:, None] * whole[:, -1:]).argmax(-1)


@pytest.mark.parametrize("size", [5, 32, 33, 300])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_draws_invert_the_cumulative_distribution(size, temperature):
    generator = np.random.default_rng(size)
    logits = 2 * generator.standard_normal((500, size))
    uniform = generator.random(500)
    uniform[:2] = 0.0, 1 - 2.0**-53
    token, logprob = draw_tokens(torch.from_numpy(logits).float(), torch.from_numpy(uniform), temperature)
    chances = np.exp(logits / temperature)
    chances /= chances.sum(-1, keepdims=True)
    assert token.tolist() == turned_round(chances, uniform).tolist()
    assert logprob.dtype == torch.float32
    assert np.allclose(logprob.numpy(), np.log(chances[np.arange(500), token.numpy()]), atol=1e-5)


LOGITS = torch.tensor([[1.0, 3.0, -0.5, 2.5, 0.25, 2.75, -1.0]])


@pytest.mark.parametrize(
    ("how", "kept"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6]),
        ({"top_k": 2}, [1, 5]),
        ({"top_k": 7}, [0, 1, 2, 3, 4, 5, 6]),
        ({"top_p": 0.6}, [1, 3, 5]),  # two have 0.52 of all
        ({"min_p": 0.5}, [1, 3, 5]),
        ({"top_k": 3, "top_p": 0.7}, [1, 5]),  # of what three have, two have 0.71
    ],
)
def test_what_is_kept_is_drawn_from_as_if_it_were_all(how, kept):
    settings = SampleSettings(1, 2.0, 4, NO_STOP, seed=9, **how)
    streams = np.arange(3, 303, dtype=np.uint64)
    token, logprob = settings.tokens(LOGITS.expand(300, -1), streams, 6)
    chances = np.zeros((1, 7))
    chances[0, kept] = torch.softmax(LOGITS.double() / 2, 1).numpy()[0, kept]
    chances /= chances.sum()
    assert token.tolist() == turned_round(chances.repeat(300, 0), uniforms(9, streams, 6)).tolist()
    assert np.allclose(logprob.numpy(), np.log(chances[0, token.numpy()]), atol=1e-6)
    assert set(token.tolist()) == set(kept)


@pytest.mark.parametrize("how", [{}, {"top_k": 1}, {"top_p": 0.1}, {"min_p": 0.9}])
def test_the_likeliest_token_has_the_log_prob_of_the_whole_head_at_temperature_1(how):
    settings = SampleSettings(1, 0.0, 4, NO_STOP, seed=9, **how)
    token, logprob = settings.tokens(torch.cat([LOGITS, LOGITS.flip(1)]), np.arange(2, dtype=np.uint64), 0)
    assert token.tolist() == [1, 5]
    assert torch.allclose(logprob, torch.log_softmax(LOGITS, 1)[0, [1, 1]], atol=1e-6)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
def test_among_rows_without_a_token_what_is_drawn_has_the_log_prob_of_the_whole_head(temperature):
    settings = SampleSettings(1, temperature, 4, NO_STOP, seed=9, vocabulary=frozenset({0, 2, 3, 4, 5, 8}))
    streams = np.arange(200, dtype=np.uint64)
    token, logprob = settings.tokens(LOGITS.expand(200, -1), streams, 1)
    at = LOGITS.double() / (temperature or 1.0)
    chances = torch.softmax(at, 1).numpy()
    chances[0, [1, 6]] = 0.0
    drawn = turned_round(chances.repeat(200, 0), uniforms(9, streams, 1)) if temperature else np.full(200, 5)
    assert token.tolist() == drawn.tolist()
    assert torch.allclose(logprob.double(), torch.log_softmax(at, 1)[0, token], atol=1e-6)


def test_what_is_left_out_of_rows_without_a_token_is_of_those_that_have_one():
    settings = SampleSettings(1, 2.0, 4, NO_STOP, seed=9, vocabulary=frozenset({0, 2, 3, 4, 5, 6}), top_k=2)
    token, logprob = settings.tokens(LOGITS.expand(50, -1), np.arange(50, dtype=np.uint64), 0)
    assert set(token.tolist()) == {3, 5}
    log_chances = torch.log_softmax(torch.tensor([2.5, 2.75]) / 2, 0)
    assert torch.allclose(logprob, log_chances[(token == 5).long()], atol=1e-6)


def test_rows_without_a_token():
    assert tokenless(frozenset({0, 2, 3, 9}), 6) == (1, 4, 5) and tokenless(frozenset(), 6) == ()


def test_a_reply_is_finished_by_its_last_token_or_what_it_says():
    settings = SampleSettings(1, 1.0, 4, frozenset({2, 7}), seed=0, ends=lambda ids: list(ids[-2:]) == [5, 6])
    assert [settings.finish(ids) for ids in ((), (2, 3), (3, 7), (4, 5, 6), (5, 6, 4))] == [
        "length",
        "length",
        "stop",
        "stop",
        "length",
    ]
    assert not SampleSettings(1, 1.0, 4, frozenset({2}), seed=0).stopped((5, 6))
