"""People agree more on a question per criterion than on one that fuses them: the other half of decoupling."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.evaluation.agreement import Answer, fused_and_separate
from accord.evaluation.statistics import nested_interval
from accord.records import Prompt
from accord.reporting.figures import Column, Dots, dots
from accord.stages.shared import replies_by_prompt
from accord.world.annotators import Annotator

FUSED, SEPARATE = "overall", ("helpful", "harmless")
CRITERIA = (FUSED, *SEPARATE)
GROUPS = ("eager", "cautious")  # who value differently
EACH = 2  # people of a group
PAIRS = 400  # of replies that differ, that everybody compares under every question


def pairs_of(folder: Path) -> list[tuple[Prompt, tuple[str, str]]]:
    """The first pairs of different replies of a sample run."""
    found = [
        (prompt, pair)
        for prompt, replies in replies_by_prompt(folder)
        for pair in combinations(replies, 2)
        if pair[0].strip() != pair[1].strip()
    ]
    return found[:PAIRS]


def alphas(pairs: Sequence[tuple[Prompt, tuple[str, str]]], seed: int) -> dict[str, float]:
    """Krippendorff's α under each question, of people of both groups who all compare the same pairs."""
    everybody = [Annotator(group=group, seed=EACH * seed + n) for group in GROUPS for n in range(EACH)]
    answers: dict[str, list[Answer]] = {criterion: [] for criterion in CRITERIA}
    for number, (prompt, replies) in enumerate(pairs):
        for person in everybody:
            for criterion in CRITERIA:
                ranks = person.compare(prompt, replies, criterion).ranks
                answers[criterion].append(Answer(number, person.labeler, ranks))
    found: dict[str, float] = fused_and_separate(answers, FUSED, resamples=1)["krippendorff_alpha"]
    return found


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """α under each question, and the mean of the separate ones less the fused one."""
    flows = cells.tuned(seeds)
    cells.run([flow.sample_harm() for flow in flows])
    found = [alphas(pairs_of(Path(flow.sample_harm().out)), flow.seed) for flow in flows]
    gaps = [sum(one[name] for name in SEPARATE) / len(SEPARATE) - one[FUSED] for one in found]
    of = {name: nested_interval([one[name] for one in found]) for name in CRITERIA}
    parts = [
        Part("Krippendorff's α: mean of the separate questions − the fused one", nested_interval(gaps), 0.0, "above")
    ]
    notes = [f"α under {name}: {of[name].mean:.3f} [{of[name].low:.3f}, {of[name].high:.3f}]" for name in CRITERIA]
    figure = dots(
        list(CRITERIA), [Column("", "Krippendorff's α", [Dots("people of two groups", 0, list(of.values()))])]
    )
    return Finding(parts, notes, figure)


CLAIM = Claim(
    name="fused-questions",
    claim="Annotators agree more on a question per criterion than on one question that fuses them (the agreement half "
    "of decoupling).",
    source="Dai et al. 2023 (Safe RLHF)",
    statistic=f"{EACH} simulated people of each of the groups {' and '.join(GROUPS)} compare the same {PAIRS} pairs of "
    "replies of the SFT snapshot to harmful and red-team prompts, where both are at stake, under "
    f"{', '.join(SEPARATE)} and under {FUSED}. Krippendorff's α under each; the mean of the separate ones less that of "
    f"{FUSED}. Intervals over seeds; 8 seeds see an effect of 1.2 deviations between seeds in four of five tries.",
    rule="The difference's lower bound is above 0.",
    measure=measure,
)
