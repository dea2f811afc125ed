"""Group-aware consensus against sums by hand."""

import numpy as np
import pytest

from accord.evaluation.consensus import agreement, group_aware_consensus, losses

AGREED = [[8, 1], [5, 5], [0, 0], [9, 0]]
CAST = [[10, 10], [10, 10], [0, 0], [10, 10]]


def test_the_product_over_groups_of_smoothed_agreement():
    chances = agreement(AGREED, CAST)
    assert chances[0] == pytest.approx([9 / 12, 2 / 12]) and chances[2] == pytest.approx([0.5, 0.5])
    consensus = group_aware_consensus(chances)
    assert consensus == pytest.approx([9 / 12 * 2 / 12, 6 / 12 * 6 / 12, 0.25, 10 / 12 / 12])
    assert consensus[1] > consensus[0], "what one group dislikes stays low, though more people like it"


def test_a_large_group_counts_no_more_than_a_small_one():
    few, many = agreement([[1, 100]], [[2, 200]]), agreement([[100, 1]], [[200, 2]])
    assert group_aware_consensus(few) == pytest.approx(group_aware_consensus(many))


def test_what_each_group_goes_without():
    first, second = losses(agreement(AGREED, CAST), [1, 2])
    assert first.lost == (3, 0) and first.own == pytest.approx((10 / 12 + 9 / 12) / 2)
    assert first.chosen == pytest.approx(0.5)
    assert second.lost == () and second.own == second.chosen == pytest.approx(0.5)


def test_more_agreement_is_never_less_consensus():
    generator = np.random.default_rng(3)
    cast = generator.integers(1, 50, (20, 3))
    agreed = generator.integers(0, cast + 1)
    more = np.minimum(agreed + 1, cast)
    before, after = (group_aware_consensus(agreement(some, cast)) for some in (agreed, more))
    assert (after >= before).all()
