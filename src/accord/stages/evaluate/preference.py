"""How far to trust preference and cost models: every model on every criterion's comparisons, and where it is wrong.

comparisons → scores of every head in one forward pass → accuracy, calibration, breakdown, errors, distance
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from accord.data.chat import Renderer
from accord.data.sources import read_comparisons, read_demonstrations
from accord.engine.packing import Group
from accord.engine.texts import text_group
from accord.errors import BadInput
from accord.evaluation.agreement import Answer, agreement
from accord.evaluation.baselines import BagOfWords
from accord.evaluation.breakdown import PairFacts, breakdown, confident_errors, length_bias
from accord.evaluation.calibration import calibration_intervals, difference_curve, preference_calibration, refitted
from accord.evaluation.distance import auroc_interval, fit_gaussian, relative_distance
from accord.evaluation.groups import head_differences, value_weights
from accord.evaluation.preference import ScoredPair, paired_accuracies, preference_evaluation
from accord.evaluation.statistics import pair_outcomes, share_interval
from accord.models.places import describe, heads_of
from accord.models.scalar import Scorer
from accord.models.tokenizer import load_renderer
from accord.objectives.ranking import ranked_pairs
from accord.records import Comparison, Demonstration
from accord.run import RunFolder
from accord.stages.evaluate.config import EvaluatePreference
from accord.stages.leaks import refuse_trained_prompts
from accord.stages.shared import (
    criteria_of,
    drop_long,
    group_of,
    load_all,
    load_criterion,
    named,
    open_run,
    refuse_idle_clock,
)
from accord.training import distributed
from accord.training.precision import choose_precision, lowered
from accord.training.progress import Progress

PART = 256  # texts between two lines of progress
LEAST = 20  # pairs below which a calibration says nothing
Sets = Mapping[str, Sequence[Comparison]]
# model → a pair's prompt and its replies, the better first → whether it was right
Answered = dict[str, dict[tuple[str, Hashable], float]]


class Judge:
    """One model to measure: its scorers by head, and what renders for it."""

    def __init__(self, where: str, run: RunFolder, device: torch.device) -> None:
        described = describe(where)
        if described["role"] == "policy":
            raise BadInput(f"{where} is a policy; `accord evaluate preference` measures preference and cost models")
        self.role: str = described["role"]
        self.sign = -1.0 if self.role == "cost" else 1.0
        self.criteria = described["criterion"].split(",")
        self.renderer: Renderer = load_renderer(where, clock=lambda: run.clock)
        heads = heads_of(described)
        scorer = Scorer(where, role=self.role, device=device, head=heads[0])
        # beside each group's head, all of them combined
        names = [*([described["criterion"]] if "groups" in described else []), *heads]
        self.scorers = {name: scorer.reading(name) for name in names}

    def groups(self, comparisons: Sequence[Comparison]) -> list[Group]:
        """The comparisons in this model's tokens."""
        return [text_group(self.renderer, c.prompt, c.replies) for c in comparisons]

    def scores(self, groups: Sequence[Group], micro_tokens: int) -> dict[str, list[list[float]]]:
        """Head → scores of every comparison's replies in logits, higher is better; one forward pass for all heads."""
        first = next(iter(self.scorers.values()))
        progress = Progress("scores", len(groups), unit="text")
        tables = [first.table([], micro_tokens=micro_tokens)]
        for start in range(0, len(groups), PART):
            part = groups[start : start + PART]
            tables.append(first.table(part, micro_tokens=micro_tokens))
            progress.update(start + len(part), {})
        table = torch.cat(tables)
        sizes = [len(group.replies) for group in groups]
        out = {}
        for head, scorer in self.scorers.items():
            plain = table[:, 0, scorer.heads.index(scorer.read[0])]
            flat = self.sign * (plain if scorer.is_plain else scorer.combined(table))
            out[head] = [part.tolist() for part in flat.split(sizes)]
        return out


def run(config: EvaluatePreference) -> RunFolder:
    """Measure preference models; leaves `evaluation.json`."""
    with open_run("evaluate-preference", config, {f"model.{n}": p for n, p in config.models.items()}) as run:
        if run.finished:
            return run
        world = distributed.start(run.threads)
        judges = {name: Judge(where, run, world.device) for name, where in config.models.items()}
        renderers = [judge.renderer for judge in judges.values()]
        refuse_idle_clock(run, renderers)
        criteria = list(dict.fromkeys(c for judge in judges.values() for c in judge.criteria))
        sets = read_sets(config, run, criteria, renderers)
        refuse_trained_prompts([c.prompt for part in sets.values() for c in part], config.models.values(), "--data")
        result: dict[str, Any] = {"models": {n: {"path": p, "role": judges[n].role} for n, p in config.models.items()}}
        result |= {"cross": [], "paired": {}, "calibration": {}, "analysis": {}, "agreement": {}, "groups": {}}
        result["distance"] = {}
        precision = run.decide("precision", lambda: choose_precision(world))
        with lowered(precision, world.device):
            for criterion, comparisons in sets.items():
                result["agreement"][criterion] = agreement(
                    answers(comparisons), resamples=min(config.bootstrap, 500), seed=config.seed
                )
                answered: Answered = {}
                for name, judge in judges.items():
                    answered |= measure(config, run, result, name, judge, criterion, comparisons)
                answered |= baselines(config, run, result, criterion, comparisons)
                result["paired"][criterion] = paired_accuracies(answered)
            if config.strange_data:
                for name, judge in judges.items():
                    result["distance"][name] = strangeness(config, run, judge, sets)
        run.write_json("evaluation.json", result)
        run.finish(comparisons={criterion: len(part) for criterion, part in sets.items()})
        return run


def read_sets(
    config: EvaluatePreference, run: RunFolder, criteria: Sequence[str], renderers: Sequence[Renderer]
) -> dict[str, list[Comparison]]:
    """Comparisons by criterion."""
    sets: dict[str, list[Comparison]] = {}
    for name, source in named(config.data).items():
        for criterion in criteria_of(name, criteria):
            what = f"data-{name or 'all'}-{criterion}"
            sets.setdefault(criterion, []).extend(
                load_criterion(
                    read_comparisons,
                    {name: source},
                    config,
                    run,
                    criterion,
                    split=config.split,
                    what=what,
                    renderers=renderers,
                )
            )
    return {criterion: part for criterion, part in sets.items() if part}


def measure(
    config: EvaluatePreference,
    run: RunFolder,
    result: dict[str, Any],
    name: str,
    judge: Judge,
    criterion: str,
    comparisons: Sequence[Comparison],
) -> Answered:
    """One model on one criterion's comparisons: a row of the cross table per head, all the rest on its own.

    Returns what every head answered.
    """
    groups = judge.groups(comparisons)
    what = f"{name}-{criterion}"
    groups, kept = drop_long(groups, list(comparisons), config.max_length, run, what)
    by_head = judge.scores(groups, config.micro_tokens)
    if len(judge.scorers) > 1:
        result["groups"][what] = whose(config, kept, by_head)
    answered: Answered = {}
    for head, scores in by_head.items():
        facts = pair_facts(kept, scores)
        if not facts:
            continue
        several = len(judge.scorers) > 1
        label = f"{name}, {head}" if several else name
        outcome = pair_outcomes([p.margin for p in facts])
        accuracy = share_interval(outcome, [p.prompt_id for p in facts])
        answered[label] = {(p.prompt_id, p.texts): right for p, right in zip(facts, outcome.tolist(), strict=True)}
        row = {"model": label, "criterion": criterion, "n": len(facts), "accuracy": accuracy.json()}
        result["cross"].append(row)
        own = head == criterion if head in judge.criteria else criterion in judge.criteria
        if own and len(facts) >= LEAST:
            key = f"{label} on {criterion}"
            result["calibration"][key] = calibrated(facts, config)
            result["analysis"][key] = {
                "breakdown": breakdown(facts),
                "length": length_bias(facts),
                "errors": confident_errors(facts, config.errors),
            }
    return answered


def whose(
    config: EvaluatePreference, comparisons: Sequence[Comparison], by_head: Mapping[str, Sequence[Sequence[float]]]
) -> dict[str, Any]:
    """How the heads differ on these pairs; and for each group of labelers, which heads its answers follow.

    Weights are in logits per deviation of a head's margin.
    """
    facts = {head: pair_facts(comparisons, scores) for head, scores in by_head.items()}
    first = next(iter(facts.values()))
    margins = {head: np.array([p.margin for p in found]) for head, found in facts.items()}
    clusters = [p.prompt_id for p in first]
    result: dict[str, Any] = {"heads": head_differences(margins, clusters), "values": {}}
    table = np.stack([values / max(float(values.std()), 1e-12) for values in margins.values()], axis=1)
    groups = np.array([group_of(p.labeler) for p in first])
    for group in sorted(set(groups)):
        at = np.flatnonzero(groups == group)
        if len(at) >= LEAST:
            weights = value_weights(
                table[at], [clusters[i] for i in at], resamples=min(config.bootstrap, 500), seed=config.seed
            )
            result["values"][str(group)] = {h: w.json() for h, w in zip(margins, weights, strict=True)}
    return result


def pair_facts(comparisons: Sequence[Comparison], scores: Sequence[Sequence[float]]) -> list[PairFacts]:
    """Every ordered pair with what is known of it."""
    found = []
    for comparison, s in zip(comparisons, scores, strict=True):
        prompt = comparison.prompt
        for i, j in ranked_pairs(comparison.ranks):
            texts = comparison.replies[i], comparison.replies[j]
            found.append(
                PairFacts(
                    prompt.id,
                    prompt.slice,
                    comparison.labeler,
                    sum(turn.role == "user" for turn in prompt.turns),
                    comparison.strength,
                    (s[i], s[j]),
                    (len(texts[0]), len(texts[1])),
                    prompt.turns[-1].content,
                    texts,
                )
            )
    return found


def calibrated(facts: Sequence[PairFacts], config: EvaluatePreference) -> dict[str, Any]:
    """Calibration with intervals, before and after a temperature from the other half of the prompts."""
    margins = np.array([p.margin for p in facts])
    clusters = [p.prompt_id for p in facts]
    pairs = [ScoredPair(p.source, p.prompt_id, p.margin, p.longer) for p in facts]
    scaled, temperatures = refitted(margins, clusters)
    intervals = calibration_intervals(margins, clusters=clusters, resamples=config.bootstrap, seed=config.seed)
    again = calibration_intervals(scaled, clusters=clusters, resamples=config.bootstrap, seed=config.seed)
    whole = preference_calibration(margins, clusters=clusters)
    return {
        **preference_evaluation(pairs),
        "n": len(facts),
        "temperature": whole.temperature if math.isfinite(whole.temperature) else None,
        "intervals": {metric: interval.json() for metric, interval in intervals.items()},
        "refitted": {metric: interval.json() for metric, interval in again.items()} | {"temperatures": temperatures},
        "curve": difference_curve(margins),
    }


def answers(comparisons: Sequence[Comparison]) -> list[Answer]:
    """Who ranked which replies how; the replies in one order, whichever they were shown in."""
    found = []
    for c in comparisons:
        order = sorted(range(len(c.replies)), key=c.replies.__getitem__)
        question = (c.prompt.id, tuple(c.replies[i] for i in order))
        found.append(Answer(question, c.labeler, tuple(c.ranks[i] for i in order)))
    return found


def baselines(
    config: EvaluatePreference,
    run: RunFolder,
    result: dict[str, Any],
    criterion: str,
    comparisons: Sequence[Comparison],
) -> Answered:
    """Rows of the cross table: the longer (or shorter) reply, and a bag of words fitted to `baseline_data`.

    Returns what they answered.
    """
    pairs = [(c.prompt.id, c.replies[i], c.replies[j]) for c in comparisons for i, j in ranked_pairs(c.ranks)]
    if not pairs:
        return {}
    longer = np.array([len(better) - len(worse) for _, better, worse in pairs], dtype=float)
    more = float(pair_outcomes(longer).mean()) >= 0.5
    found = {"the longer reply" if more else "the shorter reply": longer if more else -longer}
    if config.baseline_data:
        known: list[Comparison] = []
        for name, source in named(config.baseline_data).items():
            if criterion in criteria_of(name, [criterion]):
                what = f"baseline-{name or 'all'}-{criterion}"
                known += load_criterion(read_comparisons, {name: source}, config, run, criterion, what=what)
        asked = {c.prompt.opening for c in comparisons}
        learned = [
            (c.replies[i], c.replies[j])
            for c in known
            if c.prompt.opening not in asked
            for i, j in ranked_pairs(c.ranks)
        ]
        if learned:
            found["a bag of words"] = BagOfWords(learned).margins([(better, worse) for _, better, worse in pairs])
    clusters = [prompt for prompt, _, _ in pairs]
    answered: Answered = {}
    for name, margins in found.items():
        outcome = pair_outcomes(margins)
        accuracy = share_interval(outcome, clusters)
        result["cross"].append({"model": name, "criterion": criterion, "n": len(pairs), "accuracy": accuracy.json()})
        answered[name] = {
            (prompt, (better, worse)): right
            for (prompt, better, worse), right in zip(pairs, outcome.tolist(), strict=True)
        }
    return answered


def strangeness(config: EvaluatePreference, run: RunFolder, judge: Judge, sets: Sets) -> dict[str, Any]:
    """AUROC of the relative Mahalanobis distance: strange texts against the measured ones."""
    scorer = next(iter(judge.scorers.values()))

    def features(what: str, source: str) -> torch.Tensor:
        shown: list[Demonstration] = load_all(
            read_demonstrations, source, config, run, what=what, renderers=[judge.renderer]
        )
        groups = [text_group(judge.renderer, d.prompt, (d.reply,)) for d in shown]
        groups, _ = drop_long(groups, shown, config.max_length, run, what)
        return scorer.features(groups, micro_tokens=config.micro_tokens)

    familiar, background = (
        fit_gaussian(features(what, source).numpy())
        for what, source in (("familiar_data", config.familiar_data), ("background_data", config.background_data))
    )
    measured = [c for part in sets.values() for c in part]
    groups, _ = drop_long(judge.groups(measured), measured, config.max_length, run, "measured")
    ordinary = scorer.features(groups, micro_tokens=config.micro_tokens).numpy()
    strange = features("strange_data", config.strange_data).numpy()
    distances: Callable[[Any], Any] = lambda texts: relative_distance(texts, familiar, background)  # noqa: E731
    ordinary_distance, strange_distance = distances(ordinary), distances(strange)
    interval = auroc_interval(strange_distance, ordinary_distance, resamples=config.bootstrap, seed=config.seed)
    return {
        "auroc": interval.json(),
        "ordinary": {"n": len(ordinary), "mean": float(ordinary_distance.mean())},
        "strange": {"n": len(strange), "mean": float(strange_distance.mean())},
    }
