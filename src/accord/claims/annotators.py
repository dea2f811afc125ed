"""People disagree: one averaged model hides a minority, a model with a head for each group shows it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.findings import TRAINED
from accord.claims.lab.pairs import score, scored
from accord.claims.lab.recipes import GoldFlow
from accord.disk import read_lines
from accord.evaluation.statistics import Nested, nested_interval, pair_outcomes
from accord.records import Turn
from accord.reporting.figures import Column, Dots, dots
from accord.stages.online.config import Annotate
from accord.stages.ppo.config import Ppo
from accord.stages.preference.config import Preference
from accord.stages.sample.config import Sample
from accord.stages.score.config import Score
from accord.world import judge, parse, value

MAJORITY, MINORITY = "eager", "cautious"
SHARE = 3  # comparisons of the majority for one of the minority
CRITERION = "overall"
GROUPS = (MAJORITY, MINORITY)
# how the policies are trained: one model of everybody; the mean of the groups' heads; the worst of them
TRAINED_ON = ("pooled", "groups", "worst")


def people(flow: GoldFlow, group: str, samples: Sample, name: str) -> Annotate:
    """One group compares replies by what it values overall."""
    changes = {"samples": samples.out, "criteria": [CRITERION], "judged": [], "slices": {}, "group": group}
    return flow.annotate(f"{name}-{group}", **changes)


def tested(flow: GoldFlow) -> Sample:
    """Replies to prompts that no model learned from."""
    source = f"world:prompts?count={4 * flow.scale.preference_prompts}&seed={flow.seed + 160}"
    return flow.sample("people-sample", split="evaluation", data=source)


def comparisons(annotate: Annotate) -> str:
    return str(Path(annotate.out) / f"comparisons-{CRITERION}.jsonl")


def model(flow: GoldFlow, kind: str) -> Preference:
    """The pooled model, or one with a head for each group and this way to combine them."""
    changes = {
        "out": str(flow.root / f"people-{kind}"),
        "data": {g: comparisons(people(flow, g, flow.sample(), "people")) for g in GROUPS},
        "weights": {MAJORITY: float(SHARE), MINORITY: 1.0},
        "criterion": CRITERION,
        "by_group": kind != "pooled",
        "combine": "worst" if kind == "worst" else "mean",
    }
    return Preference(**{**flow.helpful().model_dump(), **changes})


def scores(flow: GoldFlow, group: str) -> Score:
    """Both kinds of model on one group's comparisons of the test."""
    data = comparisons(people(flow, group, tested(flow), "people-test"))
    models = {kind: flow.snapshot(f"people-{kind}") for kind in ("pooled", "groups")}
    return score(flow, f"people-scores-{group}", data, CRITERION, models)


def policy(flow: GoldFlow, kind: str) -> Ppo:
    return flow.ppo(f"people-ppo-{kind}", rewards={CRITERION: flow.snapshot(f"people-{kind}")})


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Accuracy per group under one model and under group heads, and what each group thinks of the policies."""
    flows = cells.base(seeds)
    cells.run([tested(flow) for flow in flows])
    cells.run([people(f, g, f.sample(), "people") for f in flows for g in GROUPS])
    cells.run([people(f, g, tested(f), "people-test") for f in flows for g in GROUPS])
    cells.run([model(flow, kind) for flow in flows for kind in TRAINED_ON])
    cells.run([scores(flow, group) for flow in flows for group in GROUPS])
    cells.run([policy(flow, kind) for flow in flows for kind in TRAINED_ON])
    names = {kind: f"people-ppo-{kind}" for kind in TRAINED_ON}
    cells.run([flow.evaluate(name) for flow in flows for name in names.values()])
    # (seed, model): accuracy of the pooled model and of the group's head
    accuracy = {group: np.array([right(flow, group).mean(0) for flow in flows]) for group in GROUPS}
    pooled, own = ({g: float(accuracy[g][:, k].mean()) for g in GROUPS} for k in (0, 1))
    minority, majority = accuracy[MINORITY], accuracy[MAJORITY]
    parts = [
        Part(
            f"accuracy on the minority ({MINORITY}): its head − the pooled model",
            nested_interval(minority[:, 1] - minority[:, 0]),
            0.0,
            "above",
        ),
        Part(
            "accuracy of the pooled model: majority − minority",
            nested_interval(majority[:, 0] - minority[:, 0]),
            0.0,
            "above",
        ),
        Part(
            "the minority's win rate: policy of the worst group's model against that of the pooled model",
            win_rate(flows, names["worst"], names["pooled"], MINORITY),
            0.5,
            "above",
        ),
    ]
    notes = [f"{group}: pooled model {pooled[group]:.3f}, its own head {own[group]:.3f}" for group in GROUPS]
    notes.append(
        f"majority − minority: {pooled[MAJORITY] - pooled[MINORITY]:+.3f} under the pooled model, "
        f"{own[MAJORITY] - own[MINORITY]:+.3f} under the heads"
    )
    rates = {
        (kind, group): win_rate(flows, names[kind], names["pooled"], group)
        for kind in TRAINED_ON[1:]
        for group in GROUPS
    }
    notes += [
        f"win rate of the policy by {kind} against the pooled one, as {group} people see it: {rate.mean:.3f} "
        f"[{rate.low:.3f}, {rate.high:.3f}]"
        for (kind, group), rate in rates.items()
    ]
    figure = dots(
        [f"{kind} against pooled" for kind in TRAINED_ON[1:]],
        [
            Column(
                "", "win rate", [Dots(g, i, [rates[k, g] for k in TRAINED_ON[1:]]) for i, g in enumerate(GROUPS)], 0.5
            )
        ],
    )
    return Finding(parts, notes, figure)


def right(flow: GoldFlow, group: str) -> np.ndarray:
    """(pairs, 2): 1 where the pooled model, and where the group's head, orders a pair as the group did."""
    columns = ("pooled/logit", f"groups/simulated:{group}/logit")
    rows = [pair_outcomes([pair.margin(column) for column in columns]) for pair in scored(scores(flow, group))]
    return np.array(rows)


def win_rate(flows: Sequence[GoldFlow], ours: str, theirs: str, group: str) -> Nested:
    """How often the group values the reply of one policy more than that of another; a tie is half a win."""
    rates = []
    for flow in flows:
        mine, other = (worth(flow, name, group) for name in (ours, theirs))
        rates.append(pair_outcomes([mine[p] - other[p] for p in mine if p in other]))
    return nested_interval(rates, "share")


def worth(flow: GoldFlow, name: str, group: str) -> dict[str, float]:
    """What the replies of an evaluation are worth to a group, by prompt."""
    out = {}
    for row in read_lines(flow.root / f"evaluate-{name}" / "samples.jsonl"):
        if row["slice"] in TRAINED:
            turns = tuple(Turn(**turn) for turn in row["prompt"])
            out[row["prompt_id"]] = value(judge(turns, row["reply"]), parse(turns).harmful, CRITERION, group)
    return out


CLAIM = Claim(
    name="annotators",
    claim="People disagree; one averaged preference model hides minorities, a model that knows of groups shows them.",
    source="Casper et al. 2023 (limits of RLHF)",
    statistic=f"Two groups of simulated people ({MAJORITY} and {MINORITY}, {SHARE} to 1) compare the same kind of "
    "replies by what they value overall. Accuracy on each group's answers about unseen prompts, of one model of "
    "everybody and of a model with a head for each group; by gold worth to each group, win rates of policies trained "
    "by PPO on the mean and on the worst of the heads against that trained on the pooled model. Intervals over seeds.",
    rule="On the minority's answers its head is more accurate than the pooled model; the pooled model is more accurate "
    "on the majority's answers than on the minority's; the minority prefers the policy of the worst group's model to "
    "the pooled one in more than half: each with its whole interval.",
    measure=measure,
)
