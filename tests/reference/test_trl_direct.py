"""Every loss of the direct family that TRL has: its value and gradient by TRL 1.16.0 on the same weights and tokens.

trl_direct.json holds TRL's numbers, so that TRL need not be there; where it is, the slow test asks it again and
compares every entry of the gradient.
"""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import trl_direct

from accord.engine.forward.attention import IMPLEMENTATION
from accord.engine.forward.causal import token_logprobs
from accord.engine.packing import pack, reply_group
from accord.objectives.direct import LOSSES, Pairs, match_ranks, weighted_losses
from accord.objectives.direct_unpaired import Singles, kl_estimate
from accord.objectives.implicit import sequence_logprobs, token_counts

EXPECTED = json.loads((Path(trl_direct.__file__).parent / "trl_direct.json").read_text())
N = len(trl_direct.PROMPTS)


def sums(model, groups):
    packing = pack(groups)
    return sequence_logprobs(token_logprobs(model, packing), packing.owner, packing.replies, "sum")


def pairs_of(policy, reference):
    batch = zip(trl_direct.PROMPTS, trl_direct.CHOSEN, trl_direct.REJECTED, strict=True)
    groups = [reply_group(*texts) for texts in batch]
    ours = sums(policy, groups)
    with torch.no_grad():
        theirs = sums(reference, groups)
    packing = pack(groups)
    tokens = token_counts(packing.owner, packing.replies)
    return Pairs(
        ours[::2], ours[1::2], theirs[::2], theirs[1::2], tokens[::2], tokens[1::2], torch.ones(N), torch.zeros(N)
    )


def our_loss(name, policy, reference):
    if name == "kto":
        return our_kto(policy, reference)
    pairs = pairs_of(policy, reference)
    if name == "mix":
        return weighted_losses(trl_direct.MIX, pairs, {"dpo": {"beta": 0.3}, "bco_pair": {"beta": 0.3}}, count=N)[0]
    keywords = dict(trl_direct.CASES[name][0])
    if name == "aot":
        keywords["matched"] = match_ranks(
            pairs.chosen - pairs.rejected, pairs.reference_chosen - pairs.reference_rejected
        )
    loss = LOSSES[name](pairs, count=N, **keywords)[0]
    if name == "orpo":  # TRL takes the likelihood over the prompt too
        return loss - LOSSES["nll"](pairs, count=N)[0]
    return loss


def our_kto(policy, reference):
    groups = [reply_group(p, s) for p, s in zip(trl_direct.PROMPTS, trl_direct.SINGLES, strict=True)]
    shifted = trl_direct.SINGLES[1:] + trl_direct.SINGLES[:1]
    mismatched = [reply_group(p, s) for p, s in zip(trl_direct.PROMPTS, shifted, strict=True)]
    with torch.no_grad():
        theirs = sums(reference, groups)
        shift = kl_estimate(sums(policy, mismatched) - sums(reference, mismatched), N)
    assert shift > 0, "the clamp would hide the estimate"
    tokens = torch.tensor([float(len(s)) for s in trl_direct.SINGLES])
    good = torch.tensor(trl_direct.GOOD)
    singles = Singles(sums(policy, groups), theirs, tokens, good, torch.ones(N))
    keywords = trl_direct.CASES["kto"][0]
    return LOSSES["kto"](singles, shift=shift, count=N, goods=float(good.sum()), **keywords)[0]


def ours(name):
    policy, reference = trl_direct.model(0.0, IMPLEMENTATION), trl_direct.model(0.4, IMPLEMENTATION)
    loss = our_loss(name, policy, reference)
    loss.backward()
    return loss, policy


@pytest.mark.parametrize("name", EXPECTED["cases"])
def test_value_and_gradient_are_those_of_trl(name):
    loss, policy = ours(name)
    expected = EXPECTED["cases"][name]
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-5, abs=1e-5)
    scale = max(1.0, *map(abs, expected["gradient"]))
    assert trl_direct.gradient(policy) == pytest.approx(expected["gradient"], rel=1e-5, abs=1e-5 * scale)


def test_every_case_is_one_of_our_losses_and_says_its_name_at_trl():
    assert EXPECTED["trl"] == "1.16.0" and set(trl_direct.CASES) <= set(LOSSES)
    for name in trl_direct.CASES:
        assert "TRL" in LOSSES[name].__doc__, name
    for name in set(LOSSES) - set(trl_direct.CASES) - {"bco", "cdpo", "dpo_length", "plackett_luce"}:
        raise AssertionError(f"{name} is compared with nothing")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*trl_direct.CASES, "mix"])
def test_every_entry_of_the_gradient_is_trls(name):
    loss, policy = ours(name)
    other, reference = trl_direct.model(0.0), trl_direct.model(0.4)
    theirs = (trl_direct.trl_mix if name == "mix" else lambda *m: trl_direct.trl_loss(name, *m))(other, reference)
    theirs.backward()
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5, abs=1e-5)
    for (key, mine), (_, its) in zip(policy.named_parameters(), other.named_parameters(), strict=True):
        assert torch.allclose(mine.grad, its.grad, rtol=1e-5, atol=1e-5 * max(1.0, float(its.grad.abs().max()))), key
