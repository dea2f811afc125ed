"""A preference model loses accuracy on replies of the policy that it trained, and the next round's labels repair it."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.pairs import score, scored
from accord.claims.lab.policies import show
from accord.claims.lab.recipes import GoldFlow
from accord.claims.lab.rounds import ARMS, CRITERION, ROUNDS, compared, comparisons, name, run_rounds
from accord.evaluation.statistics import nested_interval, pair_outcomes
from accord.reporting.figures import Line, Panel, curves
from accord.stages.online.config import Annotate
from accord.stages.sample.config import Sample
from accord.stages.score.config import Score
from accord.world import judge, parse, value

# gold points between two replies: pairs of one width are compared with pairs of the same
WIDTHS = (0.0, 0.25, 0.6, 1.0)
# whose replies are judged, in the order of the rounds: before any model trained a policy, and after each that did
POLICIES = ("sft", *(name("fresh", number) for number in range(1, ROUNDS)))
MODELS = tuple(dict.fromkeys(name(arm, n, "model") for n in range(1, ROUNDS + 1) for arm in ARMS))
LATER = range(1, ROUNDS)  # rounds whose policy is labelled in the next one


class JudgedPairs(NamedTuple):
    """Of pairs of one policy's replies: the gold points between the two, and 1 by model where it finds the better."""

    widths: np.ndarray
    right: Mapping[str, np.ndarray]


def tested(flow: GoldFlow, of: str) -> Sample:
    """A snapshot's replies to prompts that no model learned from."""
    source = f"world:prompts?count={2 * flow.scale.preference_prompts}&seed={flow.seed + 170}"
    return flow.sample(f"drift-sample-{of}", model=flow.snapshot(of), split="evaluation", data=source)


def asked(flow: GoldFlow, of: str) -> Annotate:
    return compared(flow, f"drift-annotate-{of}", tested(flow, of).out)


def scores(flow: GoldFlow, of: str) -> Score:
    """Every model on one snapshot's pairs."""
    models = {one: flow.snapshot(one) for one in MODELS}
    return score(flow, f"drift-scores-{of}", comparisons(asked(flow, of)), CRITERION, models)


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """What models lose on the replies of the policies they trained, and what the next labels give back."""
    flows = cells.base(seeds)
    run_rounds(cells, flows)
    for step in (tested, asked, scores):
        cells.run([step(flow, of) for flow in flows for of in POLICIES])
    told = [{of: outcomes(scores(flow, of)) for of in POLICIES} for flow in flows]

    def over_rounds(number_of: Callable[[dict[str, JudgedPairs], int], float]) -> list[float]:
        return [float(np.mean([number_of(each, n) for n in LATER])) for each in told]

    parts = [
        Part("accuracy before − after the model trained a policy", nested_interval(over_rounds(lost)), 0.0, "above"),
        Part(
            "on the policy's replies: next round's model − this one's", nested_interval(over_rounds(back)), 0, "above"
        ),
        Part("the same: fresh − static labels in the next round", nested_interval(over_rounds(fresh)), 0, "above"),
    ]
    table = {
        (of, one): nested_interval([each[of].right[one] for each in told], "share") for of in POLICIES for one in MODELS
    }
    widths = {of: np.concatenate([each[of].widths for each in told]) for of in POLICIES}
    notes = [
        f"{len(widths[of])} pairs of replies of {of}, {widths[of].mean():.2f} gold points apart: "
        + ", ".join(f"{one} {table[of, one].mean:.3f}" for one in MODELS)
        for of in POLICIES
    ]
    plain = [
        [each[POLICIES[n - 1]].right[own(n)].mean() - each[POLICIES[n]].right[own(n)].mean() for n in LATER]
        for each in told
    ]
    notes.append(f"lost where widths are not made alike: {show(nested_interval(np.mean(plain, axis=1)))}")
    places = list(range(len(POLICIES)))
    lines = [
        Line(one, i, places, [table[of, one].mean for of in POLICIES], points=True) for i, one in enumerate(MODELS)
    ]
    panel = Panel("", f"replies of, in order: {', '.join(POLICIES)}", "accuracy by gold", lines)
    return Finding(parts, notes, curves([panel], columns=1, height=3.4))


def own(number: int) -> str:
    """The model that trained a round's policy."""
    return name("fresh", number, "model")


def lost(told: dict[str, JudgedPairs], number: int) -> float:
    """Accuracy of a round's model on replies that it was labelled on, less that on the policy it trained."""
    before, after = told[POLICIES[number - 1]], told[POLICIES[number]]
    model = own(number)
    return alike((before.widths, before.right[model]), (after.widths, after.right[model]))


def back(told: dict[str, JudgedPairs], number: int) -> float:
    """What the next round's model has over a round's own on replies of its policy, pair by pair."""
    right = told[POLICIES[number]].right
    return float((right[own(number + 1)] - right[own(number)]).mean())


def fresh(told: dict[str, JudgedPairs], number: int) -> float:
    """What labels of those replies have over as many labels of SFT's."""
    right = told[POLICIES[number]].right
    return float((right[own(number + 1)] - right[name("static", number + 1, "model")]).mean())


def alike(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> float:
    """The first's accuracy less the second's, pairs of every width weighing as much in both.

    A better policy's replies lie nearer to each other, and near pairs are hard for anybody. A width that one of them
    does not have counts in neither; NaN if they share none.
    """
    bins = [np.digitize(widths, WIDTHS) for widths, _ in (first, second)]
    differences, weights = [], []
    for width in range(1, len(WIDTHS) + 1):
        one, other = (right[of == width] for (_, right), of in zip((first, second), bins, strict=True))
        if len(one) and len(other):
            differences.append(one.mean() - other.mean())
            weights.append(len(one) / len(bins[0]) + len(other) / len(bins[1]))
    return float(np.average(differences, weights=weights)) if weights else float("nan")


def outcomes(config: Score) -> JudgedPairs:
    """A finished cell's pairs, those of equal worth left out."""
    widths, margins = [], []
    for pair in scored(config):
        said = pair.comparison
        harmful = parse(said.prompt.turns).harmful
        better, worse = (value(judge(said.prompt.turns, said.replies[k]), harmful, CRITERION) for k in pair[1:3])
        if better != worse:
            sign = 1.0 if better > worse else -1.0
            widths.append(abs(better - worse))
            margins.append([sign * pair.margin(f"{one}/logit") for one in MODELS])
    right = np.array([pair_outcomes(row) for row in margins])
    return JudgedPairs(np.array(widths), {one: right[:, k] for k, one in enumerate(MODELS)})


CLAIM = Claim(
    name="drift",
    claim="A preference model loses accuracy on the policy's own later samples, and new rounds repair it.",
    source="Bai et al. 2022, section 4.5; Casper et al. 2023 (limits of RLHF)",
    statistic=f"The rounds of claim `online`. Accuracy by gold worth on pairs of replies to prompts that no model "
    "learned from, of SFT and of the fresh policies: of each round's model on the replies of the snapshot that it was "
    f"labelled on last, less on those of the policy that it trained, pairs of {len(WIDTHS)} widths in gold points "
    "weighing the same in both; on the latter, the next round's model less this one's, and less the model of as many "
    f"labels of SFT's replies. Means over rounds 1 to {ROUNDS - 1}, intervals over seeds; 8 seeds see an effect of 1.2 "
    "deviations between seeds in four of five tries.",
    rule="Accuracy is lost, the next round's model is more accurate, and more so than on static labels: all with their "
    "lower bounds above 0.",
    measure=measure,
)
