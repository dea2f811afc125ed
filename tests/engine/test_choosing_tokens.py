"""Greedy replies and parts of the distribution, beside transformers; texts that end a reply."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.generation.logits_process import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from accord.engine.decode.draw import SampleSettings, truncated
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
