"""What the answers of one rater show: sides and lengths that they lean to, how often they agree, and how fast they are.

Replies are shown in an order drawn anew for everybody, so that somebody who leans to no side takes the one shown first
in half of the choices. Longer replies may be better: a lean to them shows beside what others say of the same question.
Intervals are of 99 %, as many raters are looked at.
"""

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple, TypeVar

from accord.evaluation.statistics import Interval, finite, mean_interval, share_interval

Key = TypeVar("Key", bound=Hashable)
LEVEL = 0.99
# silent reading is about 4 words a second (238 a minute, Brysbaert 2019), skimming twice that
MOST_WORDS = 1000 / 60
TOO_OFTEN = 0.1  # share of answers
WORDS = re.compile("[\u3040-\u30ff\u3400-\u9fff]{1,2}|[^\\W\u3040-\u30ff\u3400-\u9fff]+")


class Pace(NamedTuple):
    """What a rater was shown and how long they were at it: `words` that were new, active `seconds`, letters that they
    `wrote` and that were `pasted` from elsewhere."""

    words: int
    seconds: float
    wrote: int = 0
    pasted: int = 0

    @property
    def is_too_fast(self) -> bool:
        """Whether nobody reads that fast: more than 1,000 words a minute."""
        return self.seconds < self.words / MOST_WORDS

    @property
    def is_pasted(self) -> bool:
        """Whether most of what was written came from elsewhere."""
        return self.pasted * 2 > self.wrote


class Leaning(NamedTuple):
    """Between two replies of a question, under a criterion: 1 where the first shown, or the longer one, was chosen, 0
    where the other one was; None where neither was, or they are of one length."""

    question: Hashable
    criterion: str
    pair: tuple[int, int]
    first: float | None
    longer: float | None


Outcomes = Sequence[tuple[Hashable, float]]  # by the question


@dataclass(frozen=True, slots=True)
class Rater:
    """All of one rater: what they read and chose; of every question that others answered too, how many of them said the
    same, and how much more often the rater chose the longer reply; and of their check items, which they had right."""

    paces: Sequence[Pace]
    choices: Sequence[Leaning]
    agreements: Outcomes
    lengths: Outcomes
    checks: Sequence[bool]

    def first(self) -> Interval:
        """How often the reply that was shown first was chosen; ½ leans to no side."""
        return _share([(c.question, c.first) for c in self.choices if c.first is not None])

    def longer(self) -> Interval:
        """How often the longer reply was chosen."""
        return _share([(c.question, c.longer) for c in self.choices if c.longer is not None])

    def longer_than_others(self) -> Interval:
        """How much more often than others the longer reply of the same pair was chosen; 0 is no lean of their own."""
        names, gaps = [name for name, _ in self.lengths], [gap for _, gap in self.lengths]
        return mean_interval(gaps, names, level=LEVEL, resamples=1000) if gaps else NOTHING

    def report(self) -> dict[str, Any]:
        """All numbers, for JSON, with what is worth a look in `flags`."""
        first, beyond = self.first(), self.longer_than_others()
        fast, pasted = (_mean([getattr(r, name) for r in self.paces]) for name in ("is_too_fast", "is_pasted"))
        flags = {
            "side": first.side_of(0.5) != "undecided",
            "length": beyond.side_of(0.0) != "undecided",
            "too_fast": fast > TOO_OFTEN,
            "pasted": pasted > TOO_OFTEN,
        }
        return {
            "answers": len(self.paces),
            "seconds": finite(_median([pace.seconds for pace in self.paces])),
            "first": first.json(),
            "longer": self.longer().json(),
            "longer_than_others": beyond.json(),
            "agreement": _share(self.agreements).json(),
            "checks": {**_share(list(enumerate(map(float, self.checks)))).json(), "right": sum(self.checks)},
            "too_fast": finite(fast),
            "pasted": finite(pasted),
            "flags": [name for name, raised in flags.items() if raised],
        }


NOTHING = Interval(math.nan, math.nan, math.nan, 0)


def pairs_of(shown: Sequence[int], lengths: Sequence[int], ranks: Sequence[int]) -> list[tuple[Any, Any, Any]]:
    """Of every two replies: the pair, and the `first` and `longer` of a `Leaning`; ranks in the order of `lengths`."""
    place = {reply: number for number, reply in enumerate(shown)}
    found = []
    for i, j in combinations(range(len(ranks)), 2):
        i_is_chosen = None if ranks[i] == ranks[j] else ranks[i] < ranks[j]
        first = None if i_is_chosen is None else float(i_is_chosen == (place[i] < place[j]))
        apart = i_is_chosen is not None and lengths[i] != lengths[j]
        found.append(((i, j), first, float(i_is_chosen == (lengths[i] > lengths[j])) if apart else None))
    return found


def beside_others(said: Mapping[str, Mapping[Key, float]]) -> dict[str, list[tuple[Key, float]]]:
    """Of every rater and key that others have too: their number less the mean of the others'."""
    totals: dict[Key, list[float]] = defaultdict(list)
    for numbers in said.values():
        for key, number in numbers.items():
            totals[key].append(number)
    return {
        who: [
            (key, number - (sum(totals[key]) - number) / (len(totals[key]) - 1))
            for key, number in numbers.items()
            if len(totals[key]) > 1
        ]
        for who, numbers in said.items()
    }


def count_words(text: str) -> int:
    """As a reader counts them; of Chinese and Japanese, two letters for one."""
    return len(WORDS.findall(text))


def _share(outcomes: Outcomes) -> Interval:
    values = [value for _, value in outcomes]
    return share_interval(values, [name for name, _ in outcomes], level=LEVEL) if values else NOTHING


def _mean(values: Sequence[bool]) -> float:
    return statistics.fmean(values) if values else math.nan


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else math.nan
