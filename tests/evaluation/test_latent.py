"""People told from their answers though the model misses half of what they look at; at its word it tells wrong."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit

from accord.evaluation import latent
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


@pytest.fixture
def asked(monkeypatch):
    """What is maximised, from where and within which bounds; the parameters that are found are 0, 1, 2, …"""
    seen = []

    def likeliest(likelihood, start, bounds):
        seen[:] = likelihood, list(start), list(bounds)
        return np.arange(float(len(start)))

    monkeypatch.setattr(latent, "_likeliest", likeliest)
    return seen


SEEN = np.array([-1.3, 0.4, 2.1])
DEVIATES, STEP = np.linspace(-9, 9, 1801, retstep=True)
DENSITY = stats.norm.pdf(DEVIATES) * STEP


def value(likelihood, parameters):
    return float(likelihood(torch.tensor(parameters, dtype=torch.double)))


def test_the_likelihood_of_reliabilities_is_the_integral_over_what_the_model_misses(asked):
    firsts = np.array([[1, 0], [3, 2], [4, 3]])
    assert reliabilities(SEEN, firsts, votes=5).tolist() == [2, 3]
    likelihood, start, bounds = asked
    scale, deviation, planted = 0.7, 0.6, np.array([0.9, 0.65])
    total = 0.0
    for margin, chosen in zip(SEEN, firsts, strict=True):
        agree = expit(scale * margin + deviation * DEVIATES)[:, None]
        first = planted * agree + (1 - planted) * (1 - agree)
        total += np.log(((first**chosen * (1 - first) ** (5 - chosen)).prod(1) * DENSITY).sum())
    assert value(likelihood, [scale, deviation, *planted]) == pytest.approx(total, rel=1e-5)
    assert start == [1.0, 0.5, 0.8, 0.8] and bounds == [(0.0, 20.0), (1e-3, 10.0), (0.0, 1.0), (0.0, 1.0)]


def test_the_likelihood_of_ties_is_the_integral_over_what_the_model_misses(asked):
    answers = np.array([[1, 3, 2], [2, 2, 1], [4, 0, 1]])
    assert tie_rate(SEEN, answers) == 2
    likelihood, start, bounds = asked
    scale, deviation, ties = 0.7, 0.6, 0.4
    total = 0.0
    for margin, (first, second, neither) in zip(SEEN, answers, strict=True):
        theta = scale * margin + deviation * DEVIATES
        up, down = np.exp(theta / 2), np.exp(-theta / 2)
        chances = up**first * down**second * ties**neither / (up + down + ties) ** (first + second + neither)
        total += np.log((chances * DENSITY).sum())
    assert value(likelihood, [scale, deviation, ties]) == pytest.approx(total, rel=1e-5)
    assert start == [1.0, 0.5, 0.5] and bounds == [(0.0, 20.0), (1e-3, 10.0), (1e-3, 1e3)]


def test_the_likelihood_of_shares_is_the_integral_over_what_heads_miss(asked):
    margins = np.array([[-1.3, 0.2], [0.4, -0.6], [1.1, 0.9]])
    firsts, mixed = np.array([[1, 3], [3, 2], [4, 5]]), np.array([2, 1, 4])
    assert shares(margins, firsts, mixed, votes=5).tolist() == [7, 8]
    likelihood, start, bounds = asked
    known, factor, weights = np.array([[0.9, 0.1], [-0.2, 0.7]]), np.array([[0.4, 0.0], [0.15, 0.3]]), (0.8, 0.3)
    one, other = (axis.ravel() for axis in np.meshgrid(DEVIATES[::30], DEVIATES[::30], indexing="ij"))
    density = stats.norm.pdf(one) * stats.norm.pdf(other) * (30 * STEP) ** 2
    total = 0.0
    for margin, chosen, by_mixed in zip(margins, firsts, mixed, strict=True):
        theta = (known @ margin)[:, None] + factor @ np.stack([one, other])
        chances = stats.binom.pmf(by_mixed, 5, expit(weights @ theta)) / stats.binom.pmf(by_mixed, 5, 0.5)
        for group in range(2):
            chances *= stats.binom.pmf(chosen[group], 5, expit(theta[group])) / stats.binom.pmf(chosen[group], 5, 0.5)
        total += np.log((chances * density).sum()) - 15 * np.log(2)
    parameters = [0.9, 0.1, -0.2, 0.7, 0.4, 0.15, 0.3, *weights]
    assert value(likelihood, parameters) == pytest.approx(total, rel=1e-5)
    # heads are taken at their word, and people who are mixed share all groups' values alike
    assert start == [1, 0, 0, 1, 0.5, 0, 0.5, 0.5, 0.5] and bounds == [(None, None)] * 9


@pytest.mark.parametrize(("dimensions", "nodes"), [(1, 15), (2, 81)])
def test_the_nodes_are_those_of_a_normal_variable_in_every_direction(dimensions, nodes):
    """Moments of N(0, 1) up to the eighth, and none between directions."""
    places, log_weights = latent._nodes(dimensions)
    assert places.shape == (nodes, dimensions) and log_weights.shape == (nodes,)
    weights = log_weights.exp()
    assert float(weights.sum()) == pytest.approx(1)
    for axis in places.T:
        moments = [float((weights * axis**power).sum()) for power in (1, 2, 3, 4, 6, 8)]
        assert moments == pytest.approx([0, 1, 0, 3, 15, 105], abs=1e-9)
    if dimensions == 2:
        assert float((weights * places[:, 0] ** 2 * places[:, 1] ** 2).sum()) == pytest.approx(1)


def test_the_likeliest_parameters_are_found_within_their_bounds():
    def likelihood(p):
        return -((p[0] - 3) ** 2) - 2 * (p[1] + 1) ** 2 - (p[2] - 5) ** 4

    found = latent._likeliest(likelihood, [0.0, 0.0, 0.0], [(None, None), (-0.5, 2.0), (None, 4.0)])
    assert found == pytest.approx([3.0, -0.5, 4.0], abs=1e-5)
