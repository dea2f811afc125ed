"""How much a preference model forgives: accuracy against the share of labels turned round, and three remedies."""

from collections.abc import Sequence

import numpy as np

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.pairs import score, scored
from accord.claims.lab.recipes import GoldFlow
from accord.evaluation.statistics import nested_interval, pair_outcomes
from accord.reporting.figures import Line, Panel, curves
from accord.stages.preference.config import Preference
from accord.stages.score.config import Score
from accord.stages.shared import measures
from accord.world import judge, parse, value

FLIPS = (0.0, 0.1, 0.2, 0.3, 0.4)
ASKED = 0.2  # the share at which the ways are compared
MARGIN = 0.02  # by which a remedy may be less accurate than the plain loss
HELD_OUT = 0.3  # share of the openings that no model learns from
TRAINED, TESTED = 1500, 4000  # comparisons drawn; of the second the held-out openings are used
CRITERION = "helpful"
# what is done about a share of flipped labels; the smoothing knows the share, and no remedy is tried without flips
WAYS = ("plain", "smoothing", "flip", "drop")


def model(flow: GoldFlow, way: str, share: float) -> Preference:
    """A preference model of comparisons of which this share is turned round."""
    remedy: dict[str, object] = {}
    if way == "smoothing":
        remedy = {"label_smoothing": share}
    elif way != "plain":
        # the models of other folds learn from flipped labels too: none is surer than 1 − share of an order
        remedy = {"folds": 2, "suspects": way, "suspect_below": (share + 0.5) / 2}
    return flow.helpful().model_copy(
        update={
            **flow.common(name_of(way, share)),
            "data": f"world:comparisons?count={TRAINED}&seed={flow.seed}",
            "criterion": CRITERION,
            "eval_share": HELD_OUT,
            "flips": share,
            **remedy,
        }
    )


def name_of(way: str, share: float) -> str:
    return f"noise-{way}-{share:g}"


def grid() -> list[tuple[str, float]]:
    return [(way, share) for way in WAYS for share in FLIPS if share or way == "plain"]


def scores(flow: GoldFlow) -> Score:
    """All of a seed's models on fresh comparisons."""
    models = {name_of(*point): flow.snapshot(name_of(*point)) for point in grid()}
    return score(flow, "noise-scores", f"world:comparisons?count={TESTED}&seed={flow.seed + 800}", CRITERION, models)


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Accuracies over the grid, on pairs whose true order is known."""
    flows = cells.tuned(seeds)
    cells.run([model(flow, *point) for flow in flows for point in grid()])
    cells.run([scores(flow) for flow in flows])
    tables = [outcomes(flow) for flow in flows]
    count = sum(len(table) for table in tables)
    lost, beyond_length, *remedies = (nested_interval(column) for column in np.array(list(map(statistics, tables))).T)
    parts = [
        Part(f"plain loss: accuracy without flips less that at {max(FLIPS):.0%}", lost, 0.0, "above"),
        Part(f"plain loss at {ASKED:.0%}: accuracy less that of length alone", beyond_length, 0.0, "above"),
        *(
            Part(f"at {ASKED:.0%}: accuracy with {way} less that of the plain loss", interval, -MARGIN, "above")
            for way, interval in zip(WAYS[1:], remedies, strict=True)
        ),
    ]
    mean = np.mean([table.mean(0) for table in tables], axis=0)
    by_way = {way: [(s, mean[k]) for k, (w, s) in enumerate(grid()) if w == way] for way in WAYS}
    notes = [
        f"{way}: " + ", ".join(f"{share:.0%} flipped {accuracy:.3f}" for share, accuracy in by_way[way]) for way in WAYS
    ]
    notes.append(f"length alone: {mean[-1]:.3f}; {count} pairs whose replies differ in worth")
    lines = [
        Line(way, i, [s for s, _ in by_way[way]], [a for _, a in by_way[way]], points=True)
        for i, way in enumerate(WAYS)
    ]
    panel = Panel("", "share of labels turned round", "accuracy by gold", lines)
    return Finding(parts, notes, curves([panel], columns=1, height=3.2))


def outcomes(flow: GoldFlow) -> np.ndarray:
    """(pairs, grid + 1): 1 where a model, last length alone, orders the pair by worth; pairs of equal worth are out."""
    names = [f"{name_of(*point)}/logit" for point in grid()]
    margins = []
    for pair in scored(scores(flow)):
        asked = pair.comparison
        harmful = parse(asked.prompt.turns).harmful
        better, worse = (asked.replies[k] for k in (pair.better, pair.worse))
        gold = [value(judge(asked.prompt.turns, reply), harmful, CRITERION) for reply in (better, worse)]
        if gold[0] != gold[1] and measures(asked.prompt, HELD_OUT):
            sign = 1.0 if gold[0] > gold[1] else -1.0
            margins.append([sign * m for m in (*(pair.margin(name) for name in names), len(better) - len(worse))])
    right = np.array([pair_outcomes(row) for row in margins])
    if right[:, -1].mean() < 0.5:
        right[:, -1] = 1 - right[:, -1]  # the baseline prefers the longer or the shorter, whichever is better
    return right


def statistics(right: np.ndarray) -> list[float]:
    """Of a seed's outcomes: what the plain loss loses, what it has over length, what each remedy has over it."""
    mean = right.mean(0)
    at = {point: mean[k] for k, point in enumerate(grid())}
    plain = at["plain", ASKED]
    return [
        at["plain", 0.0] - at["plain", max(FLIPS)],
        plain - mean[-1],
        *(at[way, ASKED] - plain for way in WAYS[1:]),
    ]


CLAIM = Claim(
    name="label-noise",
    claim="A preference model loses accuracy as labels are turned round, but forgives a fifth of them; smoothing the "
    "labels, or treating those that models of other data reject, costs nothing.",
    source="Wang et al. 2024 (Secrets of RLHF II, arXiv:2401.06080), sections 2 and 3; Coste et al. 2023 "
    "(arXiv:2310.02743), who train on 25 % flipped labels",
    statistic=f"Preference models for helpfulness of {TRAINED} comparisons, less those with held-out openings; beyond "
    f"the people's own slips {', '.join(f'{share:.0%}' for share in FLIPS)} of them are turned round. Plain loss; "
    "label smoothing by that share; suspects flipped or dropped: those to whose order a model of the other "
    "half gives a probability below the middle of that share and one half. Accuracy on pairs with openings that no "
    "model learned from, by the gold worth of the replies; intervals over seeds.",
    rule=f"Without flips the plain loss is more accurate than at {max(FLIPS):.0%}; at {ASKED:.0%} it is more accurate "
    "than the longer (or the shorter) reply, and no remedy is less accurate than it by more than "
    f"{MARGIN:g}: each with its whole interval.",
    measure=measure,
)
