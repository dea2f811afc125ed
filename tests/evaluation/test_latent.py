"""People told from their answers though the model misses half of what they look at; at its word it tells wrong."""

import numpy as np
import pytest
from scipy.special import expit

from accord.evaluation.annotators import likeliest_reliability
from accord.evaluation.latent import reliabilities, shares, tie_rate

PAIRS, VOTES = 1500, 8


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("missed", [0.0, 3.0])
def test_reliabilities(missed):
    """The margins are half of what the model knows, too. Without what it misses its people look less reliable."""
    rng, pairs = np.random.default_rng(2), 5000
    planted = np.array([1.0, 0.8, 0.6])
    seen = rng.normal(0, 1.5, pairs)
    agree = expit(seen + rng.normal(0, missed, pairs))[:, None]
    firsts = rng.binomial(VOTES, planted * agree + (1 - planted) * (1 - agree))
    assert reliabilities(0.5 * seen, firsts, votes=VOTES) == pytest.approx(planted, abs=0.02)
    if missed:
        sides = np.concatenate([firsts[:, 0], VOTES - firsts[:, 0]])
        assert likeliest_reliability(np.repeat(np.concatenate([seen, -seen]), sides)) < 0.9


@pytest.mark.parametrize("ties", [0.2, 0.8, 3.0])
def test_tie_rate(rng, ties):
    seen = rng.normal(0, 1.5, PAIRS)
    half = (seen + rng.normal(0, 1.5, PAIRS)) / 2
    odds = np.stack([np.exp(half), np.exp(-half), np.full(PAIRS, ties)], 1)
    answers = np.array([rng.multinomial(VOTES, o / o.sum()) for o in odds])
    assert tie_rate(seen, answers) == pytest.approx(ties, rel=0.08)


def test_shares(rng):
    """Heads of which one knows of the other group, and the other misses much."""
    seen = rng.normal(0, 1, (PAIRS, 2))
    known = seen @ np.array([[1.2, 0.0], [0.4, 0.8]])
    theta = known + rng.multivariate_normal([0, 0], [[0.3, 0.2], [0.2, 4.0]], PAIRS)
    firsts, mixed = rng.binomial(VOTES, expit(theta)), rng.binomial(VOTES, expit(theta @ [0.7, 0.3]))
    assert shares(seen, firsts, mixed, votes=VOTES) == pytest.approx([0.7, 0.3], abs=0.05)
