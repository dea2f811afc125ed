"""A constitution: principles to criticise, revise and compare replies by, with worked examples of each.

Bai et al. 2022, "Constitutional AI" (arXiv:2212.08073): sections 3.1 (critiques and revisions) and 4.1 (comparisons).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from accord.labelers.preferences import BothOrders
from accord.labelers.questions import Kind, Question, Wording
from accord.records import Turn, unit_hash


@dataclass(frozen=True, slots=True)
class WrittenPrinciple:
    """`critique` and `revision` are requests about the last reply, `comparison` asks which of two is better.

    One that has no requests is never revised by, one without comparison never compared by. `tests` are prompts on which
    it shows.
    """

    name: str
    text: str = ""
    critique: str = ""
    revision: str = ""
    comparison: str = ""
    tags: tuple[str, ...] = ()
    weight: float = 1.0
    tests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkedRevision:
    """A reply to `turns`, its critique and its revision, each with what asked for it."""

    turns: tuple[Turn, ...]
    reply: str
    critique_request: str
    critique: str
    revision_request: str
    revision: str

    def shown(self, critique: bool) -> tuple[Turn, ...]:
        """As turns of a conversation, with or without the critique."""
        said = [Turn("assistant", self.reply)]
        if critique:
            said += [Turn("user", self.critique_request), Turn("assistant", self.critique)]
        return (*self.turns, *said, Turn("user", self.revision_request), Turn("assistant", self.revision))


@dataclass(frozen=True, slots=True)
class WorkedComparison:
    """Two replies to `turns`, what was asked about them, and which is better: 0 or 1."""

    turns: tuple[Turn, ...]
    first: str
    second: str
    asked: str
    better: int


@dataclass(frozen=True)
class Principles:
    """A constitution as it was read; `wording` is how its comparisons are put."""

    name: str
    wording: Wording
    principles: tuple[WrittenPrinciple, ...]
    revisions: tuple[WorkedRevision, ...] = ()
    comparisons: tuple[WorkedComparison, ...] = ()

    def revising(self, tags: Sequence[str] = ()) -> list[WrittenPrinciple]:
        """Those that replies are revised by, of these names or tags where there are any."""
        return [p for p in self.principles if p.revision and _tagged(p, tags)]

    def comparing(self, tags: Sequence[str] = ()) -> list[WrittenPrinciple]:
        """Those that replies are compared by, of these names or tags where there are any."""
        return [p for p in self.principles if p.comparison and _tagged(p, tags)]

    def scoring(self, tags: Sequence[str] = ()) -> list[WrittenPrinciple]:
        """Those that single replies are scored under, of these names or tags where there are any."""
        return [p for p in self.principles if p.text and _tagged(p, tags)]

    def about_one(self, principle: WrittenPrinciple, kind: Kind, turns: Sequence[Turn], reply: str) -> Question:
        """Whether (yes-no), or how well (score), one reply keeps to the principle, as the wording asks it."""
        asked = self.wording.single[kind].format(text=principle.text, name=principle.name)
        return self.wording.about_one(kind, turns, reply, asked, principle.name)

    def both_orders(
        self, principle: WrittenPrinciple, turns: Sequence[Turn], first: str, second: str, shots: int
    ) -> BothOrders:
        """The principle's comparison of two replies, asked in both orders, after `shots` worked ones."""
        examples = [turn for worked in self.comparisons[:shots] for turn in self._answered(worked)]

        def ask(one: str, other: str) -> Question:
            asked = self.wording.about_two(turns, one, other, principle.comparison, principle.name)
            return asked.after(examples)

        return BothOrders(ask(first, second), ask(second, first))

    def _answered(self, worked: WorkedComparison) -> list[Turn]:
        question = self.wording.about_two(worked.turns, worked.first, worked.second, worked.asked, "")
        return [*question.turns, Turn("assistant", question.answers[worked.better])]


def _tagged(principle: WrittenPrinciple, tags: Sequence[str]) -> bool:
    return not tags or bool(set(tags) & {principle.name, *principle.tags})


def drawn(principles: Sequence[WrittenPrinciple], key: str) -> WrittenPrinciple:
    """One of them, by their weights: a function of the key alone, so that nothing of a draw needs saving."""
    point = unit_hash(f"principle {key}") * sum(principle.weight for principle in principles)
    for principle in principles:
        point -= principle.weight
        if point < 0:
            return principle
    return principles[-1]


def several_drawn(principles: Sequence[WrittenPrinciple], key: str, count: int) -> list[WrittenPrinciple]:
    """So many different ones, by their weights; all of them for 0, or where there are no more."""
    left, found = list(principles), list[WrittenPrinciple]()
    while left and (not count or len(found) < count):
        found.append(drawn(left, f"{key} {len(found)}"))
        left.remove(found[-1])
    return found


def in_front(turns: Sequence[Turn], examples: Sequence[Turn]) -> tuple[Turn, ...]:
    """Examples before a conversation, behind what the system says."""
    system = next((i for i, turn in enumerate(turns) if turn.role != "system"), len(turns))
    return (*turns[:system], *examples, *turns[system:])
