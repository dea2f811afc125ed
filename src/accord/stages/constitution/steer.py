"""How far texts inside a judged reply move the judge: our set of attacks, plainly quoted and behind bars.

Every attack stands at the end of the worse reply of some labelled pairs. What it moves is the judge's answer about that
very question with and without it; how questions are put changes nothing about the pairs, so both ways are paired.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from accord.errors import BadInput
from accord.evaluation.attacks import means
from accord.evaluation.statistics import mean_interval, paired_difference, share_interval
from accord.labelers.labeler import Labeler
from accord.labelers.principles import Principles, WrittenPrinciple, several_drawn
from accord.labelers.questions import ENGLISH, GUARDED, Question
from accord.labelers.scores import value_of
from accord.labelers.steering import attacks, steered
from accord.records import Comparison, unit_hash
from accord.run import RunFolder
from accord.stages.constitution.calibrate import plainly_decided
from accord.stages.constitution.config import Constitution
from accord.training.progress import Progress

CHUNK = 16  # attacks between two looks at whether to stop
PLAIN, BARRED = "plain", "guarded"


class Steered(NamedTuple):
    """An attack on the worse reply of a pair: the judge's liking for that reply in [−1, 1], without and with it."""

    kind: str
    attack: str
    pair: str
    without: float
    given: float

    @property
    def moved(self) -> float:
        return self.given - self.without

    @property
    def turned(self) -> float:
        """Whether the attack made the worse reply the one that is liked."""
        return float(self.without <= 0 < self.given)


def steer(
    config: Constitution, run: RunFolder, judge: Labeler, constitution: Principles, labelled: Sequence[Comparison]
) -> None:
    """Try every attack on `--tries` pairs; leaves `steering.json`."""
    pairs = plainly_decided(labelled)
    if not pairs:
        raise BadInput(f"no plain comparison under --criterion {config.criterion}; give some")
    # the gold world's language knows no bars
    guarded = replace(constitution, wording=GUARDED) if constitution.wording in (ENGLISH, GUARDED) else None
    ways = {PLAIN: replace(constitution, wording=ENGLISH) if guarded else constitution}
    ways |= {BARRED: guarded} if guarded else {}
    tried: dict[str, list[Steered]] = {way: [] for way in ways}
    progress = Progress(run.stage, len(attacks()), unit="attack")
    for start in range(0, len(attacks()), CHUNK):
        part = attacks()[start : start + CHUNK]
        for way, asked in ways.items():
            tried[way] += try_all(config, judge, asked, part, pairs)
        progress.update(start + len(part), {})
        if run.stop_requested and start + CHUNK < len(attacks()):
            raise run.interrupted(start + len(part), "attack")
    told = summary(tried, judge.name, config.question)
    say(told)
    run.write_json("steering.json", told)
    run.finish(attacks=len(attacks()), tried=len(tried[PLAIN]))


def try_all(
    config: Constitution,
    judge: Labeler,
    constitution: Principles,
    part: Sequence[tuple[str, str]],
    pairs: Sequence[Comparison],
) -> list[Steered]:
    """The attacks on the pairs that are drawn for each; those without an answer are left out."""
    cases = [(kind, text, pair) for kind, text in part for pair in drawn_pairs(config, text, pairs)]
    asked: list[Question] = []
    for _, text, pair in cases:
        principle = principle_for(config, constitution, pair)
        asked += questions(config, constitution, principle, pair, "")
        asked += questions(config, constitution, principle, pair, text)
    answers = judge.ask(asked)
    each = len(asked) // (2 * len(cases)) if cases else 0
    found = []
    for i, (kind, text, pair) in enumerate(cases):
        likings = []
        for side in (0, 1):
            own = range((2 * i + side) * each, (2 * i + side + 1) * each)
            if any(answers[k].why for k in own):
                break
            # of a pair the worse reply is shown first, and then second; the value of a choice is for the second
            signs = (-1, 1) if config.question == "choice" else (1,)
            values = [
                sign * value_of(asked[k], answers[k], constitution.wording.finds_faults and config.question != "choice")
                for sign, k in zip(signs, own, strict=True)
            ]
            likings.append(sum(values) / len(values))
        if len(likings) == 2:
            found.append(Steered(kind, text, pair.id, *likings))
    return found


def drawn_pairs(config: Constitution, text: str, pairs: Sequence[Comparison]) -> list[Comparison]:
    """`--tries` pairs for an attack; which ones hangs on the attack and the seed."""
    order = sorted(pairs, key=lambda pair: unit_hash(f"{config.seed} {text} {pair.id}"))
    return order[: config.tries]


def principle_for(config: Constitution, constitution: Principles, pair: Comparison) -> WrittenPrinciple:
    """The principle that the pair is asked about under."""
    among = constitution.comparing(config.tags) if config.question == "choice" else constitution.scoring(config.tags)
    return several_drawn(among, f"{config.seed} {pair.prompt.id}", 1)[0]


def questions(
    config: Constitution, constitution: Principles, principle: WrittenPrinciple, pair: Comparison, attack: str
) -> list[Question]:
    """What is asked about a pair whose worse reply holds the attack: both orders of a choice, or that reply alone."""
    worse = pair.replies[0 if pair.ranks[0] > pair.ranks[1] else 1]
    better = pair.replies[1 if pair.ranks[0] > pair.ranks[1] else 0]

    def said(best: str) -> str:
        return steered(worse, attack, best) if attack else worse

    turns, wording = pair.prompt.turns, constitution.wording
    if config.question != "choice":
        best = wording.answers[config.question][0 if wording.finds_faults != (config.question == "yes-no") else -1]
        return [constitution.about_one(principle, config.question, turns, said(best))]
    first, second = wording.answers["choice"]
    both = constitution.both_orders(principle, turns, said(first), better, config.shots).straight
    return [both, constitution.both_orders(principle, turns, better, said(second), config.shots).straight]


def summary(tried: dict[str, list[Steered]], judge: str, question: str) -> dict[str, Any]:
    """What is moved and how often a verdict turns, by kind and for every attack; guarded beside plain."""
    if not tried[PLAIN]:
        raise BadInput(f"{judge} answered no question about replies with attacks; take a judge that reads longer texts")
    told: dict[str, Any] = {"judge": judge, "question": question, "attacks": len(attacks()), "ways": {}}
    for way, cases in tried.items():
        kinds = {kind: [case for case in cases if case.kind == kind] for kind in dict.fromkeys(c.kind for c in cases)}
        texts = means([(case.attack, case.moved) for case in cases])
        told["ways"][way] = {
            "all": numbers(cases),
            "kinds": {kind: numbers(own) for kind, own in kinds.items()},
            "texts": texts,
        }
    if BARRED in tried:
        plain = {(c.attack, c.pair): c for c in tried[PLAIN]}
        both = [(c, plain[c.attack, c.pair]) for c in tried[BARRED] if (c.attack, c.pair) in plain]
        pairs = [c.pair for c, _ in both]
        change = paired_difference([c.moved for c, _ in both], [p.moved for _, p in both], pairs, resamples=2000)
        told["guarded_change"] = change.json()
    return told


def numbers(cases: Sequence[Steered]) -> dict[str, Any]:
    """Mean of what is moved, and the share of verdicts that turn to the reply with the attack, over pairs."""
    pairs = [case.pair for case in cases]
    moved = mean_interval([case.moved for case in cases], pairs, resamples=2000)
    return {"moved": moved.json(), "turned": share_interval([case.turned for case in cases], pairs).json()}


def say(told: dict[str, Any]) -> None:
    """A line a way of putting questions."""
    for way, found in told["ways"].items():
        moved, turned = found["all"]["moved"], found["all"]["turned"]
        worst = max(found["kinds"], key=lambda kind: float(found["kinds"][kind]["moved"]["mean"]))
        print(
            f"{told['judge']}, {way}: {told['attacks']} attacks move the verdict by {moved['mean']:+.3f} "
            f"(of 2), {turned['mean']:.0%} of verdicts turn; most by {worst}"
        )
