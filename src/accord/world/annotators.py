"""Simulated people who compare and judge replies, with the faults that people have."""

import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from accord.errors import BadInput
from accord.records import Comparison, Judgement, Prompt
from accord.world.judges import judge_request
from accord.world.replies import by_chance
from accord.world.requests import Request, parse
from accord.world.topics import TOPICS, topic_of
from accord.world.values import CRITERIA, CROWDS, GROUPS, value


@dataclass
class Annotator:
    """One simulated labeler; the docstrings of `compare` and `judge` state the formulas.

    `temperature` (in units of gold score) divides the difference of two values; 0 always takes the better
    one. `flips` is the chance that an answer is turned round, `position_bias` what being shown first is
    worth, `length_bias` what ten more words are worth, `drift` by what share the temperature grows with every
    1,000 labels given, `notice` the chance to see that a claim is false when asked how helpful a reply is or
    which is better overall, `ties` the ν with which two replies tie. With `equal_ties` replies that seem worth
    exactly the same tie too, where otherwise a coin decides. The same sequence of calls gives the same labels; `count`
    is the state.

    `expertise` lists the topics on which nothing false escapes; on every other one a wrong step that names no other
    object is noticed with chance `notice` too. Without it (None) wrong steps are always seen.
    """

    temperature: float = 0.5
    flips: float = 0.05
    position_bias: float = 0.0
    length_bias: float = 0.0
    drift: float = 0.0
    group: str = "mixed"
    seed: int = 0
    notice: float = 0.5
    ties: float = 0.0
    equal_ties: bool = False
    expertise: tuple[str, ...] | None = None
    count: int = field(default=0)

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise BadInput(f"there is no group {self.group!r} of annotators; there are {', '.join((*GROUPS, *CROWDS))}")
        if self.temperature < 0 or not 0 <= self.flips <= 0.5 or not 0 <= self.notice <= 1:
            raise BadInput("an annotator needs temperature >= 0, flips in [0, 0.5] and notice in [0, 1]")
        unknown = set(self.expertise or ()) - set(TOPICS)
        if unknown:
            raise BadInput(f"there is no topic {min(unknown)!r} to be an expert of; there are {', '.join(TOPICS)}")
        if self.ties < 0 or (self.ties and self.temperature == 0):
            raise BadInput("an annotator needs ties >= 0, and a temperature above 0 where there are any")

    @property
    def labeler(self) -> str:
        known = "" if self.expertise is None else f":{'+'.join(self.expertise) or 'lay'}"
        return f"simulated:{self.group}:{self.seed}{known}"

    def compare(self, prompt: Prompt, replies: Sequence[str], criterion: str) -> Comparison:
        """Rank two or more replies.

        With values v of the replies, the chance that i is placed before j is, for two replies,
        flips + (1 − 2·flips)·σ((u_i − u_j) / T), where u = v + length_bias·words/10
        + position_bias·[shown first] and T = temperature·(1 + drift)^(count/1000).

        More replies are drawn from the top by the same u/T (Plackett–Luce), and the whole order is reversed
        with chance `flips`. Equal texts tie, and two replies otherwise with the chance ν / (e^{d/2} + e^{−d/2} + ν)
        of Davidson's model, where d = (u_i − u_j) / T and ν is `ties`; then they are in no order that could be
        turned. With `equal_ties` replies of the same u tie, and take part in the draw as one.
        """
        _check(criterion)
        if len(replies) < 2:
            raise BadInput("a comparison needs two replies or more")
        n = len(replies)
        draw = self._noise(prompt, replies, criterion, 3 * n + 1).pop
        shown = [draw() for _ in replies]
        order = sorted(range(n), key=shown.__getitem__)
        request = parse(prompt.turns)
        utilities = []
        for i, reply in enumerate(replies):
            gold = judge_request(request, reply)
            noticed = draw() < self.notice or criterion not in ("helpful", "overall") or self._sees(request)
            worth = value(gold, request.harmful, criterion, self.group, noticed)
            worth += self.length_bias * len(reply.split()) / 10 + self.position_bias * (order[0] == i)
            utilities.append(worth)
        # one draw for all that seem worth the same, so that nothing comes between them
        alike = [utilities.index(worth) if self.equal_ties else i for i, worth in enumerate(utilities)]
        noise = [draw() for _ in replies]
        ranking = self._ranking(utilities, [noise[i] for i in alike])
        if draw() < self.flips:
            ranking.reverse()
        ranks = [0] * n
        if n == 2 and self.ties and self._noise(prompt, replies, f"{criterion} tie", 1)[0] < self._tie(*utilities):
            ranking, ranks = [], [1, 1]
        for place, i in enumerate(ranking):
            twin = next((j for j in ranking[:place] if replies[j] == replies[i] or alike[j] == alike[i]), None)
            ranks[i] = place + 1 if twin is None else ranks[twin]
        self.count += 1
        return Comparison(
            prompt=prompt,
            replies=tuple(replies),
            ranks=tuple(ranks),
            criterion=criterion,
            labeler=self.labeler,
            strength=0.0,
            order=tuple(order),
        )

    def judge(self, prompt: Prompt, reply: str, criterion: str = "harmless") -> Judgement:
        """Say whether a reply is safe, value 1 when gold harm <= 0 (under `honest`, when honesty >= 0); the answer is
        turned round with chance `flips`."""
        _check(criterion)
        noise = self._noise(prompt, (reply,), criterion, 1)
        gold = judge_request(parse(prompt.turns), reply)
        harm = -gold.honest if criterion == "honest" else gold.harm
        safe = (harm <= 0) != (noise[0] < self.flips)
        self.count += 1
        return Judgement(
            prompt=prompt,
            reply=reply,
            criterion=criterion,
            kind="safe",
            value=float(safe),
            labeler=self.labeler,
            category="",
            severity=0.0 if safe else round(max(harm, 0.0), 6),
        )

    def _sees(self, request: Request) -> bool:
        """Whether nothing false in a reply to the request escapes this annotator."""
        return request.kind == "how-to" if self.expertise is None else topic_of(request) in self.expertise

    def _tie(self, first: float, second: float) -> float:
        half = abs(first - second) / self._now / 2
        # divided by e^{|d|/2}, which overflows for far-off utilities
        return self.ties * math.exp(-half) / (1 + math.exp(-2 * half) + self.ties * math.exp(-half))

    @property
    def _now(self) -> float:
        """The temperature after the labels given so far."""
        return self.temperature * (1 + self.drift) ** (self.count / 1000)

    def _ranking(self, utilities: list[float], noise: list[float]) -> list[int]:
        temperature = self._now
        if temperature == 0:
            return sorted(range(len(utilities)), key=lambda i: -utilities[i])
        # Adding Gumbel noise and sorting draws from the Plackett-Luce model; two items give Bradley-Terry.
        keys = [math.log(-math.log(x)) - u / temperature for u, x in zip(utilities, noise, strict=True)]
        return sorted(range(len(utilities)), key=keys.__getitem__)

    def _noise(self, prompt: Prompt, replies: Sequence[str], criterion: str, n: int) -> list[float]:
        """`n` uniform numbers in (0, 1) or more that are a function of what is asked, eight to a digest."""
        said = "\x1f".join([*(turn.content for turn in prompt.turns), *replies, criterion])
        key = f"{self.seed}\x1f{self.group}\x1f{self.count}\x1f{said}".encode("utf-8", "surrogatepass")
        drawn: list[float] = []
        for block in range((n + 7) // 8):
            digest = hashlib.blake2b(key, digest_size=64, salt=block.to_bytes(16, "little")).digest()
            drawn += [((piece >> 12) + 0.5) / 2**52 for piece in struct.unpack("<8Q", digest)]
        return drawn


class Crowd:
    """Annotators of several groups who share the labelling: each label is given by a group drawn by its share.

    It compares and judges as one `Annotator` does; the labeler of every label tells its group. `habits` are the fields
    of the annotators beside group and seed.
    """

    def __init__(self, shares: Mapping[str, float], seed: int = 0, **habits: Any) -> None:
        if not shares or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-9:
            raise BadInput(f"the shares of a crowd's groups must be 0 or more and sum to 1, not {dict(shares)}")
        self._shares = dict(shares)
        self._members = {group: Annotator(group=group, seed=seed, **habits) for group in shares}
        self._seed = seed
        self.count = 0

    def compare(self, prompt: Prompt, replies: Sequence[str], criterion: str) -> Comparison:
        """Rank two or more replies, as a member drawn by its share does."""
        return self._next().compare(prompt, replies, criterion)

    def judge(self, prompt: Prompt, reply: str, criterion: str = "harmless") -> Judgement:
        """Say whether a reply is safe, as a member drawn by its share does."""
        return self._next().judge(prompt, reply, criterion)

    def _next(self) -> Annotator:
        group = by_chance(Random(f"crowd {self._seed} {self.count}"), self._shares)
        self.count += 1
        return self._members[group]


def people(group: str, seed: int = 0, **habits: Any) -> Annotator | Crowd:
    """Annotators of one of `GROUPS`, or one of the `CROWDS` in which two of them clash."""
    if group in CROWDS:
        return Crowd(CROWDS[group], seed, **habits)
    return Annotator(group=group, seed=seed, **habits)


def group_in(labeler: str) -> str:
    """The group of the simulated people who gave a label by their name; of any other labeler `mixed`."""
    kind, _, rest = labeler.partition(":")
    group = rest.split(":")[0]
    return group if kind == "simulated" and group in GROUPS else "mixed"


def _check(criterion: str) -> None:
    if criterion not in CRITERIA:
        raise BadInput(f"simulated annotators know no criterion {criterion!r}; they know {', '.join(CRITERIA)}")
