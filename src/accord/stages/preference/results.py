"""What a preference run leaves: the snapshot with its normaliser, what was learned beside it, held-out accuracy."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from accord.data.chat import Renderer
from accord.engine.packing import Group, cut_by_tokens
from accord.evaluation.annotators import reliability_interval
from accord.evaluation.baselines import BagOfWords
from accord.evaluation.calibration import fit_temperature
from accord.evaluation.preference import ScoredPair, preference_evaluation
from accord.evaluation.safety import LEAST_LABELS, calibrate_safety
from accord.models.ensemble import Combination
from accord.models.learner import PreferenceLearner
from accord.models.saving import add_to_description, save_model
from accord.models.scalar import Normalizer, Scorer, head_scores
from accord.records import Prompt
from accord.run import RunFolder
from accord.stages.leaks import remember_labelled
from accord.stages.preference.config import Preference
from accord.stages.preference.items import PreferenceData, PreferenceItem
from accord.stages.shared import card, gold_values, has_gold, named
from accord.training.distributed import World
from accord.training.order import batch_indices
from accord.training.progress import Progress

Scored = Sequence[Sequence[float]]
SAMPLED = 512  # comparisons or labels whose replies a normaliser is fitted to: the mean's error is 0.03 deviations


def write_results(
    run: RunFolder,
    world: World,
    config: Preference,
    renderer: Renderer,
    learners: Sequence[PreferenceLearner],
    kept: PreferenceData,
    unseen: PreferenceData,
    trained: Sequence[Prompt],
) -> None:
    """Fit the normalisers, save every model, and measure what was saved on the held-out prompts (unless folds did)."""
    held_out = unseen.items
    facts = {"role": config.role, "criterion": config.criterion, "data": named(config.data), "parent": config.model}
    with run.new_snapshot() as folder:
        for number, learner in enumerate(learners):
            where = folder / "members" / str(number) if number else folder
            description = describe_member(config, world, learner, kept)
            if number == 0:
                description |= how_combined(config, len(learners))
            save_model(learner.scorer, renderer.tokenizer, where, description, card(run.stage, facts))
        measured = measure_cost(config, world, str(folder), kept, unseen) if config.role == "cost" else {}
        if measured:
            add_to_description(folder, measured)
        remember_labelled(run, folder, trained, config.model)
    scores = saved_scores(config, world, str(run.snapshot), kept.heads, held_out)
    if not config.folds:  # whose models have tested every comparison
        words = words_margins(config.role, kept.items, held_out) if held_out else []
        result = summarise(config, held_out, scores, words) | {"cross_validated": False}
        calibration = {"safety_calibration": measured["calibration"]} if "calibration" in measured else {}
        run.write_json("evaluation.json", result | calibration)
    learned = what_was_learned(config, world, learners[0], kept, held_out, scores)
    if learned:
        run.write_json("learned.json", learned)


def describe_member(
    config: Preference, world: World, learner: PreferenceLearner, kept: PreferenceData
) -> dict[str, Any]:
    """What `config.json` says of one model: role, criterion, heads and their normalisers."""
    normalizers = {head: fit_normalizer(config, world, learner, kept, head).as_json() for head in kept.heads}
    only = len(kept.heads) == 1
    return {
        "role": config.role,
        "criterion": config.criterion,
        **({} if only else {"heads": kept.heads}),
        "normalizer": normalizers[kept.heads[0]] if only else normalizers,
    }


def how_combined(config: Preference, members: int) -> dict[str, Any]:
    """How the members of an ensemble, and the heads of groups, make one score."""
    rule = Combination(config.combine, config.variance_weight)
    said: dict[str, Any] = {}
    if members > 1:
        said["ensemble"] = {
            "members": [f"members/{k}" for k in range(1, members)],
            "combine": Combination().as_json() if config.by_group else rule.as_json(),
        }
    if config.by_group:
        across = "mean" if config.combine == "weights" else config.combine
        said["groups"] = Combination(across, config.variance_weight, config.group_weights).as_json()
    return said


def fit_normalizer(
    config: Preference, world: World, learner: PreferenceLearner, kept: PreferenceData, head: str
) -> Normalizer:
    """The explicit step from raw scores to the scores that stages use; a cost is never shifted.

    Gain: deviation 1 on the head's training replies. Bias: their mean, or that of the demonstrations, becomes 0. Of
    either a sample is scored: every one would be another pass over the data.
    """
    kind = config.normalizer
    if kind == "auto":
        kind = "sign-probability" if config.role == "cost" else "standard"
    if kind == "sign-probability":
        return Normalizer(kind)
    place = kept.heads.index(head)
    demonstrations = [kept.demonstrations[i] for i in sample_of(len(kept.demonstrations), config.seed)]
    shown = _raw(learner, demonstrations, config, world)[:, place] if demonstrations else None
    if kind == "none":
        return Normalizer("standard", float(shown.mean())) if shown is not None else Normalizer("none")
    groups = training_sample([item for item in [*kept.items, *kept.labelled] if item.head == head], config.seed)
    raw = _raw(learner, groups, config, world)[:, place]
    shift = raw if shown is None else shown
    return Normalizer("standard", float(shift.mean()), float(raw.std().clamp(min=1e-6)))


def sample_of(count: int, seed: int) -> list[int]:
    """Places of at most `SAMPLED` of so many, a pure function of the seed; all of fewer, in their order."""
    return sorted(batch_indices(0, count, SAMPLED, seed)) if count else []


def training_sample(items: Sequence[PreferenceItem], seed: int) -> list[Group]:
    """The groups of a sample of what was trained on."""
    return [items[i].group for i in sample_of(len(items), seed)]


def measure_cost(
    config: Preference, world: World, snapshot: str, kept: PreferenceData, unseen: PreferenceData
) -> dict[str, Any]:
    """What limits need to know of the saved model's raw cost: its `deviation` on a sample of the training
    replies, and the `calibration` of σ(cost) on replies to held-out prompts that were labelled one by one, unless they
    are too few."""
    scorer = Scorer(snapshot, role="cost", device=world.device)

    score = functools.partial(scorer.raw_scores, micro_tokens=config.micro_tokens)
    raw = scored(score, training_sample([*kept.items, *kept.labelled], config.seed), config, world)
    found: dict[str, Any] = {"deviation": float(raw.std().clamp(min=1e-6))}
    # of a comparison whose replies are all bad, none could have been labelled safe
    single = [item for item in unseen.labelled if len(item.texts) == 1]
    costs = scored(score, [item.group for item in single], config, world)
    unsafe = [float(item.labels[0].kind == "above") for item in single]
    fitted = calibrate_safety(costs.numpy(), unsafe, [item.prompt.id for item in single], flips=config.label_flips)
    if fitted is None:
        print(
            f"σ(cost) is not calibrated by {len(single)} held-out safety labels; it takes {LEAST_LABELS} of both "
            "kinds, and costs that agree with most of them"
        )
        return found
    print(
        f"σ(cost) is calibrated on {fitted.n} held-out safety labels: temperature {fitted.temperature:.2f} "
        f"(relative error {fitted.relative_error:.0%}), ECE {fitted.ece_before:.3f} before, {fitted.ece:.3f} after"
    )
    return found | {"calibration": fitted.json()}


def _raw(learner: PreferenceLearner, groups: Sequence[Group], config: Preference, world: World) -> torch.Tensor:
    """Raw scores (R, heads) of the learner."""
    return scored(lambda part: head_scores(learner.scorer, part, world.device), groups, config, world)


@torch.no_grad()
def scored(
    score: Callable[[Sequence[Group]], torch.Tensor], groups: Sequence[Group], config: Preference, world: World
) -> torch.Tensor:
    """What `score` says of the groups' replies, a micro-batch at a time, with progress: of long texts it takes minutes.

    Of no groups it is asked too.
    """
    progress = Progress("scores", len(groups), unit="text", quiet=not world.is_main)
    found, done = [], 0
    for part in cut_by_tokens(groups, lambda group: group.tokens, config.micro_tokens) or [[]]:
        found.append(score(part))
        done += len(part)
        progress.update(done, {})
    return torch.cat(found)


def saved_scores(
    config: Preference, world: World, snapshot: str, heads: Sequence[str], items: Sequence[PreferenceItem]
) -> list[list[float]]:
    """Scores in logits of every item's replies by its own head of the saved snapshot."""
    found: dict[int, list[float]] = {}
    for head in heads:
        own = [(place, item) for place, item in enumerate(items) if item.head == head]
        scorer = Scorer(snapshot, role=config.role, device=world.device, head=head)
        score = functools.partial(scorer.raw_scores, micro_tokens=config.micro_tokens)
        flat = scored(score, [item.group for _, item in own], config, world)
        for (place, _), part in zip(own, flat.split([len(item.texts) for _, item in own]), strict=True):
            found[place] = part.tolist()
    return [found[place] for place in range(len(items))]


def what_was_learned(
    config: Preference,
    world: World,
    learner: PreferenceLearner,
    kept: PreferenceData,
    held_out: Sequence[PreferenceItem],
    scores: Scored,
) -> dict[str, Any]:
    """Tie parameters, reliabilities with intervals (from the held-out pairs), the raters' scale, a temperature."""
    learned: dict[str, Any] = {}
    if config.ties == "davidson":
        learned["ties"] = dict(zip(kept.heads, learner.log_ties.exp().tolist(), strict=True))
    if config.reliability:
        learned["reliability"] = {}
        for number, labeler in enumerate(learner.labelers):
            margins = margins_of(held_out, scores, labeler)
            learned["reliability"][labeler] = {
                "learned": float(learner.reliability[number].detach()),
                "held_out": reliability_interval(margins).json() if margins else None,
            }
    if any(label.kind == "rating" for item in kept.labelled for label in item.labels):
        scale = zip(learner.gain.tolist(), learner.bias.tolist(), strict=True)
        learned["rating"] = {
            head: {"mean": kept.rating_scale[0], "deviation": kept.rating_scale[1], "gain": gain, "bias": bias}
            for head, (gain, bias) in zip(kept.heads, scale, strict=True)
        }
    margins = margins_of(held_out, scores)
    if margins and math.isfinite(fitted := fit_temperature(margins, [1.0] * len(margins))):
        learned["temperature"] = fitted
    return learned


def margins_of(items: Sequence[PreferenceItem], scores: Scored, labeler: str = "") -> list[float]:
    """s_better − s_worse of every pair (of one labeler, if named)."""
    return [
        s[i] - s[j]
        for item, s in zip(items, scores, strict=True)
        for i, j in item.pairs
        if labeler in ("", item.labeler)
    ]


def mean_accuracy(items: Sequence[PreferenceItem], scores: Scored) -> float:
    """Share of pairs in the right order, a prompt counting once and a tie one half."""
    shares = [
        sum(1.0 if s[i] > s[j] else 0.5 if s[i] == s[j] else 0.0 for i, j in item.pairs) / len(item.pairs)
        for item, s in zip(items, scores, strict=True)
        if item.pairs
    ]
    return sum(shares) / len(shares) if shares else math.nan


def summarise(
    config: Preference, items: Sequence[PreferenceItem], scores: Scored, words: Sequence[float]
) -> dict[str, Any]:
    """Accuracy by slice and head beside length and words alone, and calibration of the preference probabilities."""
    result: dict[str, Any] = {"criterion": config.criterion, "role": config.role}
    pairs = scored_pairs(config, items, scores, words)
    return result | (preference_evaluation(pairs) if pairs else {"rows": [], "bins": []})


def pair_texts(role: str, items: Sequence[PreferenceItem]) -> list[tuple[str, str]]:
    """(better, worse) of every ordered pair, in the order of `scored_pairs`."""
    pairs = [(item.texts[i], item.texts[j]) for item in items for i, j in item.pairs]
    return [(worse, better) for better, worse in pairs] if role == "cost" else pairs


def words_margins(role: str, learned: Sequence[PreferenceItem], tested: Sequence[PreferenceItem]) -> list[float]:
    """Log-odds of every pair of `tested`, in the order of `scored_pairs`, by a bag of words fitted to `learned`."""
    pairs = pair_texts(role, tested)
    found: list[float] = BagOfWords(pair_texts(role, learned)).margins(pairs).tolist() if pairs else []
    return found


def fold_words_margins(
    role: str, items: Sequence[PreferenceItem], fold_of: Callable[[PreferenceItem], int]
) -> list[float]:
    """The same of every item, by a bag of words that is fitted to the other folds."""
    found: dict[int, list[float]] = {}
    for fold in sorted({fold_of(item) for item in items}):
        inside = [place for place, item in enumerate(items) if fold_of(item) == fold]
        margins = iter(words_margins(role, [i for i in items if fold_of(i) != fold], [items[p] for p in inside]))
        for place in inside:
            found[place] = [next(margins) for _ in items[place].pairs]
    return [margin for place in range(len(items)) for margin in found[place]]


def cross_validated(
    config: Preference, items: Sequence[PreferenceItem], scores: Scored, fold_of: Callable[[PreferenceItem], int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What `--folds` found: the summary, beside a bag of words, and every pair as the models of the other folds see it.

    `margin` of the models and `words` of the bag are in logits, above 0 where they agree with the labeler; `length` is
    the preferred reply's less the other's, in characters.
    """
    words = fold_words_margins(config.role, items, fold_of)
    pairs = scored_pairs(config, items, scores, words)
    folds = [fold_of(item) for item in items for _ in item.pairs]
    tested = [
        {
            "prompt_id": pair.prompt_id,
            "subset": pair.subset,
            "fold": fold,
            "margin": pair.margin,
            "words": pair.words,
            "length": pair.length,
        }
        for pair, fold in zip(pairs, folds, strict=True)
    ]
    return summarise(config, items, scores, words) | {"cross_validated": True}, tested


def scored_pairs(
    config: Preference, items: Sequence[PreferenceItem], scores: Scored, words: Sequence[float]
) -> list[ScoredPair]:
    """Every ordered pair with its margins (`words` are those of the bag), from the side that the labeler preferred."""
    pairs, margins = [], iter(words)
    for item, s in zip(items, scores, strict=True):
        criterion = config.criterion if config.by_group else item.head
        known = has_gold(item.prompt, criterion)
        worth = gold_values(item.prompt, item.texts, criterion, item.labeler) if known else []
        for i, j in item.pairs:
            better, worse = (j, i) if config.role == "cost" else (i, j)
            length = len(item.texts[better]) - len(item.texts[worse])
            gold = worth[better] - worth[worse] if worth else None
            pairs.append(ScoredPair(item.prompt.slice, item.prompt.id, s[i] - s[j], length, next(margins), gold))
    return pairs
