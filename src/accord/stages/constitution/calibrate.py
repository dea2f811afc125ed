"""How far a judge can be trusted: its labels beside those of people, or of the gold world, on a slice of pairs.

What was measured is one judge with one way of asking: another constitution, number of examples or way of getting
probabilities is another judge. Numbers after the temperature are cross-fitted by prompts: no pair is measured by a
temperature that it had a part in.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from accord.errors import BadInput
from accord.evaluation.calibration import (
    calibration_intervals,
    fit_isotonic,
    fit_temperature,
    preference_calibration,
    refitted,
    refitted_isotonic,
)
from accord.evaluation.statistics import finite
from accord.labelers.constitution_file import asked_by
from accord.labelers.labeler import Labeler
from accord.labelers.preferences import Preferences, logit, sigmoid
from accord.labelers.principles import Principles
from accord.labelers.scores import principles_of, score_replies
from accord.records import Comparison
from accord.run import RunFolder
from accord.stages.constitution.compare import ask_about, contest
from accord.stages.constitution.config import Constitution
from accord.stages.constitution.revise import CHUNK
from accord.training.progress import Progress

FEWEST = 30  # pairs below which a temperature is a guess


class LabelledPair(NamedTuple):
    """A pair that somebody labelled, and what the judge says: the logit that the better reply is better."""

    comparison: Comparison
    margin: float
    method: str


def way_of_asking(config: Constitution, judge: Labeler, constitution: Principles) -> dict[str, Any]:
    """What makes a judge another one."""
    plain = asked_by(judge, constitution, config.question, config.tags, config.ensemble)
    if config.question != "choice":
        return {"criterion": config.criterion, **plain}
    thought = {"think": config.think, "clamp": config.clamp if config.think else 0.0}
    return {"criterion": config.criterion, **plain, "shots": config.shots, **thought}


def plainly_decided(labelled: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons of two replies of which one was chosen, without a tie or a doubt."""
    return [c for c in labelled if len(c.replies) == 2 and c.ranks[0] != c.ranks[1] and c.probability == 1]


def calibrate(
    config: Constitution, run: RunFolder, judge: Labeler, constitution: Principles, labelled: Sequence[Comparison]
) -> None:
    """Ask the judge about pairs that are labelled already; leaves `calibration.json`."""
    pairs = plainly_decided(labelled)
    if len(pairs) < FEWEST:
        raise BadInput(f"{len(pairs)} plain comparisons under --criterion {config.criterion}; give {FEWEST} or more")
    if config.question == "choice":
        said = ask_about(config, run, judge, [contest(config, constitution, c.prompt, *c.replies) for c in pairs])
    else:
        said = ask_singly(config, run, judge, constitution, pairs)
    found = [
        LabelledPair(c, logit(first) * (1 if c.ranks[0] == 1 else -1), method)
        for c, first, method in zip(pairs, said.first, said.methods, strict=True)
        if first is not None
    ]
    told = {"asked": way_of_asking(config, judge, constitution), **report(found, said, config.seed)}
    told |= said.right_by_place([c.ranks[0] == 1 for c in pairs])
    for method, temperature in told["temperatures"].items():
        share, before, after = told["before"]["accuracy"], told["before"]["ece"], told["after"]["ece"]
        fitted = "no better than chance" if temperature is None else f"temperature {temperature:.2f}"
        print(
            f"{judge.name}, {method}: {share:.0%} right, {fitted}, calibration error {before:.3f} before it, "
            f"{after:.3f} after"
        )
    run.write_json("calibration.json", told)
    run.finish(pairs=len(found), unanswered=sum(said.why.values()))


def ask_singly(
    config: Constitution, run: RunFolder, judge: Labeler, constitution: Principles, pairs: Sequence[Comparison]
) -> Preferences:
    """How sure the judge is of each pair by the difference of its scores of the two replies."""
    told = Preferences.none()
    progress = Progress(run.stage, len(pairs), unit="pair")
    for start in range(0, len(pairs), CHUNK):
        part = pairs[start : start + CHUNK]
        by = [principles_of(constitution, c.prompt, config.tags, config.ensemble, config.seed) for c in part]
        asked = [(c.prompt, reply, own) for c, own in zip(part, by, strict=True) for reply in c.replies]
        scores = score_replies(judge, constitution, config.question, asked)
        told.why.update(scores.why)
        for i in range(len(part)):
            first, second = scores.values[2 * i : 2 * i + 2]
            told.first.append(None if first is None or second is None else sigmoid(first - second))
            told.methods.append("+".join(sorted({m for m in scores.methods[2 * i : 2 * i + 2] if m})))
        progress.update(start + len(part), {})
        if run.stop_requested and start + CHUNK < len(pairs):
            raise run.interrupted(start + CHUNK, "pair")
    told.tell(config.criterion, config.judge or config.model)
    return told


def report(found: Sequence[LabelledPair], said: Preferences, seed: int) -> dict[str, Any]:
    """Accuracy, calibration before and after the temperature and the isotonic regression, and what sways the judge."""
    margins = np.array([m.margin for m in found])
    clusters = [m.comparison.prompt.id for m in found]
    after, _ = refitted(margins, clusters)
    isotonic = refitted_isotonic(margins, clusters)
    margin_sets = {"before": margins, "after": after, "isotonic": isotonic}
    intervals = {name: calibration_intervals(some, clusters=clusters, seed=seed) for name, some in margin_sets.items()}
    return {
        "n": len(found),
        "labelers": sorted({m.comparison.labeler for m in found}),
        "temperatures": {method: temperature_of(found, method) for method in sorted({m.method for m in found})},
        "before": preference_calibration(margins, clusters=clusters).json(),
        "after": preference_calibration(after, clusters=clusters).json(),
        "isotonic": {
            **preference_calibration(isotonic, clusters=clusters).json(),
            "maps": {method: isotonic_of(found, method) for method in sorted({m.method for m in found})},
        },
        "intervals": {name: {key: value.json() for key, value in own.items()} for name, own in intervals.items()},
        "flip_rate": finite(said.same_place),
        "first_place": finite(said.first_place),
        **longer_shares(found),
    }


def temperature_of(found: Sequence[LabelledPair], method: str) -> float | None:
    """What the logits of one method are divided by; 1 where they are always right, None where they tell nothing."""
    fitted = fit_temperature(margins := [m.margin for m in found if m.method == method], np.ones(len(margins)))
    if fitted == 0:
        return 1.0
    return fitted if math.isfinite(fitted) else None


def isotonic_of(found: Sequence[LabelledPair], method: str) -> dict[str, list[float]]:
    """What maps |margin| of one method to the probability that the verdict is right, as lists."""
    fitted = fit_isotonic([m.margin for m in found if m.method == method])
    return {"margins": list(fitted.margins), "probabilities": list(fitted.probabilities)}


def longer_shares(found: Sequence[LabelledPair]) -> dict[str, Any]:
    """Of pairs of uneven length: how often the judge, and whoever labelled, takes the longer reply."""
    judged, labelled = [], []
    for measured in found:
        ranks, (first, second) = measured.comparison.ranks, (len(r.split()) for r in measured.comparison.replies)
        if first != second:
            labelled.append((ranks[0] == 1) == (first > second))
            judged.append(labelled[-1] == (measured.margin > 0))
    share = {"judge": float(np.mean(judged)), "labels": float(np.mean(labelled))} if judged else None
    return {"longer": share, "uneven": len(judged)}
