"""One score orders all replies; people of several minds are not quite transitive."""

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.policies import show
from accord.claims.lab.recipes import GoldFlow
from accord.data.rows import prompt_of_row
from accord.disk import read_json, read_lines
from accord.evaluation.statistics import nested_interval
from accord.records import Prompt
from accord.reporting.figures import Line, Panel, curves
from accord.stages.evaluate.config import Evaluate
from accord.world import people

SAMPLES = 4  # replies to a prompt, of which every two are compared
DRAWN = 4000  # prompts, of which the evaluation split is asked
CRITERION = "overall"
PEOPLE = {"of one mind": "mixed", "of two minds": "caution"}  # kind of people: their group, or crowd
BAND = 0.02  # within which the share of one mind's cycles is what one score expects
SLICES = ("benign", "harmful", "look-alike", "knowledge")

Ranked = tuple[Prompt, list[str], list[float]]  # replies to a prompt with their scores in logits


def drawn(flow: GoldFlow) -> Evaluate:
    """Several replies to each prompt, scored by the helpful preference model."""
    data = {s: f"world:prompts/{s}?count={DRAWN // len(SLICES)}&seed={flow.seed + 950}" for s in SLICES}
    return flow.evaluate("sft", "transitivity", data=data, samples=SAMPLES, costs={})


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Share of cyclic triples less what the scores expect, by kind of people."""
    flows = cells.base(seeds)
    cells.run([drawn(flow) for flow in flows])
    read = [replies_of(drawn(flow)) for flow in flows]
    shares: dict[str, list[tuple[float, float, int]]] = {
        name: [cycles(ranked, group, seed) for ranked, seed in zip(read, seeds, strict=True)]
        for name, group in PEOPLE.items()
    }
    beyond = {name: [seen - expected for seen, expected, _ in found] for name, found in shares.items()}
    one, two = PEOPLE
    more = nested_interval(np.subtract(beyond[two], beyond[one]))
    parts = [
        Part(f"cycles beyond what a score expects, people {one}", nested_interval(beyond[one]), BAND, "below"),
        Part(f"the same of people {two} less that of people {one}", more, 0.0, "above"),
    ]
    notes = [
        f"people {name}: cyclic {show(nested_interval([seen for seen, _, _ in found]))} of triples, expected "
        f"{show(nested_interval([expected for _, expected, _ in found]))}; {sum(n for _, _, n in found)} triples"
        for name, found in shares.items()
    ]
    lines = [
        Line(f"people {name}", i, list(seeds), values, points=True, joined=False)
        for i, (name, values) in enumerate(beyond.items())
    ]
    panel = Panel("", "seed", "cyclic triples beyond what is expected, share", lines)
    return Finding(parts, notes, curves([panel], columns=1, height=3.0))


def replies_of(config: Evaluate) -> list[Ranked]:
    """The different replies to each prompt with their scores in logits; prompts with three or more."""
    scale = read_json(Path(config.out) / "evaluation.json")["normalizers"]["helpful"]["scale"]
    grouped: dict[str, tuple[Prompt, dict[str, float]]] = {}
    for row in read_lines(Path(config.out) / "samples.jsonl"):
        _, own = grouped.setdefault(row["prompt_id"], (prompt_of_row(row), {}))
        if row["reply"].strip():
            own[row["reply"]] = scale * row["scores"]["reward/helpful"]
    return [(prompt, list(own), list(own.values())) for prompt, own in grouped.values() if len(own) > 2]


def cycles(ranked: Sequence[Ranked], group: str, seed: int) -> tuple[float, float, int]:
    """Of triples of replies to one prompt, every two of which somebody compares: the share in which a > b > c > a, the
    share that Bradley–Terry on the scores expects of independent answers, and how many triples there are.
    """
    asked = people(group, seed)
    seen, expected = [], []
    for prompt, replies, scores in ranked:
        first_wins = {
            (i, j): asked.compare(prompt, (replies[i], replies[j]), CRITERION).ranks == (1, 2)
            for i, j in combinations(range(len(replies)), 2)
        }
        for a, b, c in combinations(range(len(replies)), 3):
            seen.append(first_wins[a, b] == first_wins[b, c] != first_wins[a, c])
            p = [1 / (1 + math.exp(scores[y] - scores[x])) for x, y in ((a, b), (b, c), (c, a))]
            expected.append(math.prod(p) + math.prod(1 - one for one in p))
    return float(np.mean(seen)), float(np.mean(expected)), len(seen)


CLAIM = Claim(
    name="transitivity",
    claim="One score orders all replies; the preferences of people of several minds are not quite transitive.",
    source="Bradley and Terry 1952; Bai et al. 2022",
    statistic=f"{SAMPLES} replies of the fine-tuned policy to a prompt, every two compared {CRITERION} by simulated "
    "people of one group, and of a crowd of two groups that clash: share of cyclic triples less the share that "
    "Bradley–Terry expects by the preference model's scores. Intervals over seeds; 8 seeds see an effect of 1.2 "
    "deviations between seeds in four of five tries.",
    rule=f"People of one mind have at most {BAND:g} more cycles than expected with their upper bound, and those of two "
    "minds more than those of one with their lower bound.",
    measure=measure,
)
