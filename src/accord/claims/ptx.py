"""Alignment costs plain skills; mixing in pretraining gradients lowers the tax."""

from collections.abc import Sequence
from typing import Any

from accord.claims.kl_limits import WEAK, hunted, name_of, run_config
from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.findings import TRAINED
from accord.claims.lab.policies import difference, level, show
from accord.claims.lab.recipes import GoldFlow
from accord.evaluation.statistics import nested_interval
from accord.reporting.figures import Point, plane
from accord.stages.ppo.config import Ppo

PLAIN = ("skills", "knowledge")


def mixing(flow: GoldFlow) -> dict[str, Any]:
    """The likelihood of the flow's pretraining text beside the policy loss."""
    return {"ptx_data": f"world:corpus?count={flow.scale.documents}&seed={flow.seed}", "ptx_weight": 10.0}


def mixed(flow: GoldFlow) -> Ppo:
    """The same run with pretraining text (PPO-ptx)."""
    return hunted(flow, "hunted-ptx", **mixing(flow))


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Right answers to plain questions before PPO, after it, and after it with pretraining text."""
    flows = cells.base(seeds)
    cells.run([config for flow in flows for config in (run_config(flow, WEAK), mixed(flow))])
    names = {"SFT": "sft", "PPO": name_of(WEAK), "PPO-ptx": "hunted-ptx"}
    cells.run([flow.evaluate(of) for flow in flows for of in names.values()])

    def gap(ours: str, theirs: str, metric: str = "gold/correct", slices: Sequence[str] = PLAIN) -> Part:
        groups = difference(flows, names[ours], names[theirs], metric, slices)
        return Part(f"{metric}, {ours} − {theirs}", nested_interval(groups), 0.0, "above")

    tax = nested_interval(difference(flows, names["SFT"], names["PPO"], "gold/correct", PLAIN))
    parts = [Part("tax: right answers, SFT − PPO", tax, 0.0, "above"), gap("PPO-ptx", "PPO")]
    right = {k: nested_interval(level(flows, of, "gold/correct", PLAIN), "share") for k, of in names.items()}
    helpful = {k: nested_interval(level(flows, of, "gold/helpful", TRAINED)) for k, of in names.items()}
    kl = {k: nested_interval(level(flows, names[k], "kl", TRAINED)).mean for k in ("PPO", "PPO-ptx")}
    notes = [
        f"{k}: right answers {show(right[k])}, gold helpfulness {show(helpful[k])}"
        + (f", KL {kl[k]:.2f} nats" if k in kl else "")
        for k in names
    ]
    points = [Point(k, i, helpful[k], right[k]) for i, k in enumerate(names)]
    return Finding(parts, notes, plane(points, "gold helpfulness", "share of right answers, skills and knowledge"))


CLAIM = Claim(
    name="ptx",
    claim="Policy optimisation costs plain skills (the alignment tax); mixing in pretraining gradients lowers it.",
    source="Ouyang et al. 2022 (PPO-ptx)",
    statistic="Paired difference in the share of right answers to skills and knowledge questions of the evaluation "
    f"split: SFT − PPO at β = {WEAK:g}, twice as long as a plain run; PPO with the likelihood of pretraining text "
    "(weight 10) − PPO without. Intervals over seeds.",
    rule="Both lower bounds are above 0.",
    measure=measure,
)
