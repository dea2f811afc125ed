"""Check items: questions with a known answer, slipped in among others, and who is excluded by how they answer them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

Known = tuple[int, ...]  # ranks, 1 for the best; of one reply 1 for safe and 0 for unsafe


@dataclass(frozen=True, slots=True)
class CheckRule:
    """Whoever has answered `least` check items or more, and less than the share `right` of them rightly, is excluded.

    Of 10 check items somebody who is right 9 times in 10 has fewer than 7 right with chance 0.013, and somebody who
    answers by chance with 0.83.
    """

    least: int = 10
    right: float = 0.7

    def excludes(self, right: int, answered: int) -> bool:
        """Whether it excludes somebody with `right` of `answered` check items."""
        return answered >= self.least and right / answered < self.right


def is_right(known: Sequence[Known], said: Sequence[Known]) -> bool:
    """Whether an answer agrees with the known one under every criterion, both in the same order of criteria.

    Replies that the known answer ranks apart must be ranked in that order, a tie is wrong; replies that it ties may be
    in any order.
    """
    return all(_in_order(ranks, given) for ranks, given in zip(known, said, strict=True))


def _in_order(known: Known, given: Known) -> bool:
    if len(known) == 1:
        return known == given
    return all(
        (known[i] - known[j]) * (given[i] - given[j]) > 0
        for i, j in combinations(range(len(known)), 2)
        if known[i] != known[j]
    )
