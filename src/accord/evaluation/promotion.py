"""Whether a candidate is promoted: fresh head-to-head votes against the bounds of a gate, the error spent over rounds.

A gate's confidence is that of the whole run of rounds: candidates that lie exactly on a bound are let through in *some*
round no oftener than the confidence says. Each round gets a part of that error beforehand (alpha spending in its
simplest form: Bonferroni, or a geometric series whose first rounds have the larger parts).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from accord.evaluation.checks import CheckRule
from accord.evaluation.gate import BoundVerdict, GateBound, Kept, bound_verdict
from accord.evaluation.ratings import Vote
from accord.evaluation.statistics import share_interval
from accord.records import Comparison

Spending = Literal["even", "geometric"]
CANDIDATE = "candidate"
# by name: the part of the whole error that round k of n may make; the parts of all rounds sum to 1 at most
SPENDING: dict[Spending, Callable[[int, int], float]] = {
    "even": lambda number, rounds: 1 / rounds,
    "geometric": lambda number, rounds: 2.0**-number,
}
WORST_GROUP = "/worst_group"  # ends the metric of a bound that every value group has to keep
GRAVEST: tuple[Kept, ...] = ("not met", "not decided", "met")


def of_round(bound: GateBound, number: int, rounds: int, spending: Spending = "even") -> GateBound:
    """The bound at the confidence that it has in round `number` (from 1) of `rounds`."""
    return replace(bound, confidence=1 - (1 - bound.confidence) * SPENDING[spending](number, rounds))


def comparisons_needed(rate: float, *, confidence: float = 0.95, power: float = 0.8, against: float = 0.5) -> int:
    """Comparisons, one a prompt, in which a candidate that wins with chance `rate` is seen to win oftener than
    `against` with chance `power`: the normal sample size of a share, tested one-sidedly at `confidence`.

    n = ((z_c √(a(1 − a)) + z_p √(r(1 − r))) / (r − a))². ValueError where the rate is not above `against`.
    """
    from scipy.stats import norm

    if not against < rate < 1:
        raise ValueError(f"a rate of {rate} is not between {against} and 1")
    reach = norm.ppf(confidence) * math.sqrt(against * (1 - against)) + norm.ppf(power) * math.sqrt(rate * (1 - rate))
    return math.ceil((reach / (rate - against)) ** 2)


def one_sided(bound: GateBound) -> float:
    """The confidence of the one end that decides: of a two-sided 90 % interval, 95 %."""
    return (1 + bound.confidence) / 2


def vote_of(comparison: Comparison, opponent: str) -> Vote:
    """What a comparison whose first reply is the candidate's says; a soft label is its own outcome, a tie one half."""
    first, second = comparison.ranks
    sure = comparison.probability
    outcome = 0.5 if first == second else sure if first < second else 1 - sure
    prompt = comparison.prompt.id
    return Vote(CANDIDATE, opponent, outcome, prompt, comparison.labeler, (prompt, comparison.criterion))


def judge_wins(bound: GateBound, votes: Sequence[Vote]) -> BoundVerdict:
    """Whether the candidate's win rate keeps a bound; the interval is over prompts, however many judged each."""
    clusters = [vote.cluster for vote in votes]
    found = share_interval([vote.outcome for vote in votes], clusters, bound.confidence)
    return bound_verdict(bound, found, len(set(clusters)))


def judge_worst_group(
    bound: GateBound, votes: Sequence[Vote], group_of: Callable[[str], str]
) -> tuple[BoundVerdict, str]:
    """The verdict of the group that is worst off, and its name: a bound is kept where every group keeps it.

    Every group has to, so that no level is divided among them (Berger 1982). A vote without a judge, which needs none
    (equal replies, no reply), counts in every group.
    """
    by_group: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        if vote.judge:
            by_group[group_of(vote.judge)].append(vote)
    settled = [vote for vote in votes if not vote.judge]
    found = [(judge_wins(bound, [*said, *settled]), group) for group, said in sorted(by_group.items())]
    if not found:
        return judge_wins(bound, settled), ""
    return min(found, key=lambda one: (GRAVEST.index(one[0].kept), one[0].interval.mean))


def failed_checks(answers: Mapping[str, Iterable[bool]], rule: CheckRule) -> dict[str, tuple[int, int]]:
    """The judges that the rule excludes, with how many of how many check items they had right."""
    counted = {judge: list(right) for judge, right in answers.items()}
    return {
        judge: (sum(right), len(right))
        for judge, right in sorted(counted.items())
        if rule.excludes(sum(right), len(right))
    }
