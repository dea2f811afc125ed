"""People told from their answers though the model misses half of what they look at; at its word it tells wrong."""

import numpy as np
import pytest
from scipy.special import expit

from accord.evaluation.annotators import likeliest_reliability
from accord.evaluation.groups import likeliest_weights
from accord.evaluation.latent import reliabilities, shares, tie_rate

PAIRS, VOTES = 1500, 8


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("missed", [0.0, 1.5])
def test_reliabilities(rng, missed):
    """The model's margins are half of what it knows, too; with what it misses a plain fit blames the people."""
    planted = np.array([1.0, 0.9, 0.65])
    seen = rng.normal(0, 1.5, PAIRS)
    agree = expit(seen + rng.normal(0, missed, PAIRS))[:, None]
    firsts = rng.binomial(VOTES, planted * agree + (1 - planted) * (1 - agree))
    assert reliabilities(0.5 * seen, firsts, votes=VOTES) == pytest.approx(planted, abs=0.03)
    if missed:
        plain = likeliest_reliability(
            np.repeat(np.concatenate([seen, -seen]), np.concatenate([firsts[:, 0], VOTES - firsts[:, 0]]))
        )
        assert plain < 0.95


@pytest.mark.parametrize("ties", [0.2, 0.8, 3.0])
def test_tie_rate(rng, ties):
    seen = rng.normal(0, 1.5, PAIRS)
    half = (seen + rng.normal(0, 1.5, PAIRS)) / 2
    odds = np.stack([np.exp(half), np.exp(-half), np.full(PAIRS, ties)], 1)
    answers = np.array([rng.multinomial(VOTES, o / o.sum()) for o in odds])
    assert tie_rate(seen, answers) == pytest.approx(ties, rel=0.08)


def test_shares(rng):
    """Heads that miss the same things, one of which knows of the other group."""
    seen = rng.normal(0, 1, (PAIRS, 2))
    known = seen @ np.array([[1.2, 0.0], [0.4, 0.8]])
    theta = known + rng.multivariate_normal([0, 0], [[1.0, 0.6], [0.6, 1.0]], PAIRS)
    firsts, mixed = rng.binomial(VOTES, expit(theta)), rng.binomial(VOTES, expit(theta @ [0.7, 0.3]))
    assert shares(seen, firsts, mixed, votes=VOTES) == pytest.approx([0.7, 0.3], abs=0.05)
    votes = np.concatenate([np.where(np.arange(VOTES) < count, 1.0, -1.0) for count in mixed])
    plain = likeliest_weights(votes[:, None] * np.repeat(seen, VOTES, 0), np.ones(len(votes)))
    assert np.abs(plain - [0.7, 0.3]).max() > 0.06
