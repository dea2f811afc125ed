"""How much people agree who answered the same question: raw, Cohen's and Fleiss's κ, Krippendorff's α.

An answer is any hashable label (a ranking's ranks, safe or unsafe). κ and α take chance agreement out: 1 is perfect,
0 what the labels' frequencies would give by chance.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np

from accord.evaluation.statistics import Interval, finite

Answers = Sequence[Mapping[str, Hashable]]
Level = Literal["nominal", "ordinal", "interval"]


class Answer(NamedTuple):
    """Who said what about which question."""

    question: Hashable
    labeler: str
    answer: Hashable


def by_question(answers: Sequence[Answer]) -> list[dict[str, Hashable]]:
    """Labeler → answer of every question that two or more answered; the last answer of a labeler counts."""
    table: dict[Hashable, dict[str, Hashable]] = {}
    for question, labeler, answer in answers:
        table.setdefault(question, {})[labeler] = answer
    return [said for said in table.values() if len(said) > 1]


def raw_agreement(questions: Answers) -> float:
    """Mean over questions of the share of pairs of labelers who gave the same answer."""
    shares = []
    for said in questions:
        pairs = list(combinations(said.values(), 2))
        shares.append(sum(a == b for a, b in pairs) / len(pairs))
    return sum(shares) / len(shares) if shares else math.nan


def fleiss_kappa(questions: Answers) -> float:
    """Fleiss 1971, over the questions with the most common number of labelers; NaN where one answer is all there is."""
    sizes = Counter(len(said) for said in questions)
    if not sizes:
        return math.nan
    raters = sizes.most_common(1)[0][0]
    counts = [Counter(said.values()) for said in questions if len(said) == raters]
    observed = sum((sum(c * c for c in count.values()) - raters) / (raters * (raters - 1)) for count in counts)
    observed /= len(counts)
    total: Counter[Hashable] = sum(counts, Counter())
    chance = sum((c / (raters * len(counts))) ** 2 for c in total.values())
    return (observed - chance) / (1 - chance) if chance < 1 else math.nan


def cohen_kappas(questions: Answers, at_least: int = 10) -> dict[tuple[str, str], float]:
    """Cohen's κ (1960) of every two labelers who share `at_least` questions."""
    from sklearn.metrics import cohen_kappa_score

    shared: dict[tuple[str, str], list[tuple[Hashable, Hashable]]] = defaultdict(list)
    for said in questions:
        for one, other in combinations(sorted(said), 2):
            shared[one, other].append((said[one], said[other]))
    found = {}
    for pair, answers in shared.items():
        labels = {
            answer: str(number) for number, answer in enumerate(sorted({a for both in answers for a in both}, key=repr))
        }
        if len(answers) >= at_least and len(labels) > 1:
            first, second = ([labels[both[k]] for both in answers] for k in (0, 1))
            found[pair] = float(cohen_kappa_score(first, second))
    return found


def krippendorff_alpha(questions: Answers, level: Level = "nominal") -> float:
    """Krippendorff's α, any number of labelers per question (package `krippendorff`).

    Answers are names (`nominal`), or numbers that have an order or distances (`ordinal`, `interval`).
    """
    import krippendorff

    labelers = sorted({labeler for said in questions for labeler in said})
    answers = {a for said in questions for a in said.values()}
    if len(answers) < 2:
        return math.nan
    values: dict[Any, Any] = {a: n for n, a in enumerate(sorted(answers, key=repr))}
    if level != "nominal":
        values = {a: a for a in answers}
    table = np.array([[values[said[who]] if who in said else np.nan for said in questions] for who in labelers])
    return float(krippendorff.alpha(reliability_data=table.astype(float), level_of_measurement=level))


STATISTICS = {"raw": raw_agreement, "fleiss_kappa": fleiss_kappa, "krippendorff_alpha": krippendorff_alpha}


def agreement(answers: Sequence[Answer], *, resamples: int = 500, seed: int = 0) -> dict[str, Any]:
    """All of them with percentile intervals over questions; an empty mapping where nobody shares a question."""
    questions = by_question(answers)
    if not questions:
        return {}
    rng = np.random.default_rng(seed)
    draws = [[questions[i] for i in rng.integers(0, len(questions), len(questions))] for _ in range(resamples)]
    result: dict[str, Any] = {"questions": len(questions), "labelers": len({who for said in questions for who in said})}
    for name, statistic in STATISTICS.items():
        resampled = np.array([statistic(draw) for draw in draws])
        low, high = np.nanquantile(resampled, (0.025, 0.975)) if np.isfinite(resampled).any() else (math.nan, math.nan)
        result[name] = Interval(statistic(questions), float(low), float(high), len(questions)).json()
    kappas = cohen_kappas(questions)
    result["cohen_kappa"] = {f"{a} and {b}": kappa for (a, b), kappa in sorted(kappas.items())}
    return result


def fused_and_separate(
    answers: Mapping[str, Sequence[Answer]], fused: str, *, resamples: int = 500, seed: int = 0
) -> dict[str, Any]:
    """Agreement on one fused question beside that on a question per criterion, by Krippendorff's α.

    `answers` are those under every criterion, `fused` among them; a question goes by what it is about and not by its
    criterion. Only questions that two or more answered under each criterion count, so that all are of the same texts.
    `difference` is the mean α of the separate criteria less that of the fused one, with a percentile interval over
    questions; empty where no question counts. Dai et al. 2023 (Safe RLHF, section 3.1) decouple annotation for this.
    """
    tables: dict[str, dict[Hashable, dict[str, Hashable]]] = {}
    for criterion, given in answers.items():
        table: dict[Hashable, dict[str, Hashable]] = {}
        for question, labeler, answer in given:
            table.setdefault(question, {})[labeler] = answer
        tables[criterion] = {question: said for question, said in table.items() if len(said) > 1}
    shared = sorted(set.intersection(*(set(table) for table in tables.values())), key=repr)
    if len(tables) < 2 or not shared:
        return {}

    def alphas(drawn: Sequence[Hashable]) -> dict[str, float]:
        return {criterion: krippendorff_alpha([table[q] for q in drawn]) for criterion, table in tables.items()}

    def gap(found: Mapping[str, float]) -> float:
        return float(np.mean([alpha for name, alpha in found.items() if name != fused]) - found[fused])

    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, len(shared), len(shared)) for _ in range(resamples))
    gaps = np.array([gap(alphas([shared[i] for i in draw])) for draw in draws])
    low, high = np.nanquantile(gaps, (0.025, 0.975)) if np.isfinite(gaps).any() else (math.nan, math.nan)
    found = alphas(shared)
    difference = Interval(gap(found), float(low), float(high), len(shared))
    return {"krippendorff_alpha": {n: finite(a) for n, a in found.items()}, "difference": difference.json()}
