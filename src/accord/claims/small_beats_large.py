"""An aligned small model is preferred to an unaligned one many times its size."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.findings import TRAINED
from accord.claims.lab.ladder import base, parameters_in
from accord.claims.lab.policies import paired, show
from accord.claims.lab.recipes import EVALUATED, GoldFlow
from accord.claims.pipeline import outcome
from accord.disk import read_lines
from accord.evaluation.statistics import Nested, nested_interval
from accord.reporting.figures import Line, Panel, curves
from accord.stages.evaluate.config import Evaluate
from accord.stages.ppo.config import Ppo
from accord.stages.pretrain.config import Pretrain

LADDER = ("pico", "nano", "tiny", "small", "base")  # the last has about 100 times the parameters of the first
SMALL = ("pico", "nano")  # what is aligned
# Of the steps that the others take: a larger model needs less text for the same loss.
READ = {"base": 1 / 2}
HOW = {"PPO": "ppo", "SFT alone": "sft"}
# Ouyang et al. 2022: InstructGPT of 175B over GPT-3 of 175B, 0.85 ± 0.03; of 1.3B over 175B no number is given
PUBLISHED = 0.85


def unaligned(flow: GoldFlow, size: str) -> Pretrain:
    """A language model that has read a corpus, or as much of it as its size has time for."""
    config = base(flow, size)[0]
    return config.model_copy(update={"steps": round(config.steps * READ.get(size, 1))})


def aligned(flow: GoldFlow, size: str) -> Ppo:
    """PPO of a small model on the flow's preference model."""
    return flow.ppo(f"ppo-{size}", model=flow.snapshot(f"sft-{size}"))


def asked(flow: GoldFlow, of: str) -> Evaluate:
    """One reply to every evaluation prompt, judged by gold alone."""
    data = {slice: f"{EVALUATED[slice]}?count={5 * flow.scale.evaluated}&seed={flow.seed + 300}" for slice in TRAINED}
    return flow.evaluate(of, data=data, reference="", rewards={}, costs={})


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Gold win rates of aligned small models over unaligned ones of their size and of every larger one."""
    flows = cells.base(seeds)
    cells.run([unaligned(flow, size) for size in reversed(LADDER) for flow in flows])  # the longest begin first
    cells.run([base(flow, size)[1] for flow in flows for size in SMALL])
    cells.run([aligned(flow, size) for flow in flows for size in SMALL])
    names = [f"{stage}-{size}" for stage in HOW.values() for size in SMALL] + [f"pretrain-{size}" for size in LADDER]
    cells.run([asked(flow, of) for flow in flows for of in names])
    counts = {size: parameters_in(Path(flows[0].snapshot(f"pretrain-{size}"))) for size in LADDER}
    pairs = [(small, large) for small in SMALL for large in LADDER[LADDER.index(small) :]]
    ratios = {pair: counts[pair[1]] / counts[pair[0]] for pair in pairs}
    rates = {
        how: {pair: rate(flows, f"{stage}-{pair[0]}", f"pretrain-{pair[1]}") for pair in pairs}
        for how, stage in HOW.items()
    }
    named = {pair: f"{pair[0]} over unaligned {pair[1]}, {ratios[pair]:,.1f} times its size" for pair in pairs}
    parts = [Part(f"win rate of aligned {named[pair]}", rates["PPO"][pair], 0.5, "above") for pair in pairs]
    losses = {size: [held_out_loss(unaligned(flow, size)) for flow in flows] for size in LADDER}
    parts += [
        Part(
            f"held-out loss of unaligned {large} less that of {small}",
            paired(losses[large], losses[small]),
            0.0,
            "below",
        )
        for small, large in pairs
        if large != small
    ]
    notes = [f"by SFT alone {named[pair]}: {show(found)}" for pair, found in rates["SFT alone"].items()]
    notes.append(
        f"published: InstructGPT is preferred to GPT-3 of the same size (175B) in {PUBLISHED} ± 0.03; that of 1.3B to "
        "GPT-3 of 175B, without a number"
    )
    notes += [
        f"unaligned {size}: {counts[size]:,} parameters, read {READ.get(size, 1):.0%} of the steps, held-out loss "
        f"{show(nested_interval(own))} nats"
        for size, own in losses.items()
    ]
    notes.append("a larger model is further from what more text would make it")
    lines: list[Line] = []
    for (how, found), small in itertools.product(rates.items(), SMALL):
        own = [pair for pair in pairs if pair[0] == small]
        places = [math.log10(ratios[pair]) for pair in own]
        lines.append(Line(f"{small}, {how}", len(lines), places, [found[pair].mean for pair in own], points=True))
    lines.append(Line("published, 175B over 175B", len(lines), [0.0], [PUBLISHED], points=True, joined=False))
    label = "log10 of the unaligned model's size over that of the aligned one"
    panel = Panel("", label, "gold win rate of the aligned model", lines, 0.5, "even")
    return Finding(parts, notes, curves([panel], columns=1, height=3.4))


def held_out_loss(config: Pretrain) -> float:
    """Nats per token of held-out text after the last step."""
    return float(read_lines(Path(config.out) / "metrics.jsonl")[-1]["eval/loss"])


def rate(flows: Sequence[GoldFlow], of: str, over: str) -> Nested:
    """The win rate over seeds; a tie is ½."""
    return nested_interval([outcome(flow.root, over, of) for flow in flows], "share")


CLAIM = Claim(
    name="small-beats-large",
    claim="An aligned small model is preferred to an unaligned one about 100 times its size.",
    source="Ouyang et al. 2022",
    statistic=f"Gold win rate (helpfulness, a tie is ½) of {' and of '.join(SMALL)} after SFT and PPO over pretrained "
    f"models of their own size and of every larger one of {', '.join(LADDER)}, one reply each to the same evaluation "
    "prompts. The largest takes half of the steps of the others; whether larger ones model held-out text better than "
    "what they are compared with is asked beside. Intervals over seeds; where seeds differ by a deviation of 0.03, as "
    "win rates of `pipeline` do, 5 seeds tell 0.55 from a half in four of five tries.",
    rule="Every win rate is above 0.5, and every larger model's held-out loss is below that of the aligned one before "
    "it was aligned, all by their whole intervals.",
    measure=measure,
)
