"""An aligned small model is preferred to an unaligned one many times its size."""

import math
from collections.abc import Sequence
from pathlib import Path

from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.findings import TRAINED
from accord.claims.lab.ladder import base, parameters_in
from accord.claims.lab.policies import show
from accord.claims.lab.recipes import EVALUATED, GoldFlow
from accord.claims.pipeline import outcome
from accord.evaluation.statistics import Nested, nested_interval
from accord.reporting.figures import Line, Panel, curves
from accord.run import read_lines
from accord.stages.evaluate.config import Evaluate
from accord.stages.ppo.config import Ppo
from accord.stages.pretrain.config import Pretrain

SMALL = "nano"
LADDER = ("nano", "tiny", "small", "base", "medium")  # the last has 120 times the parameters of the first
# Of the steps that the others take: a larger model needs less text for the same loss, and of all of it the largest one
# would take hours of a core.
READ = {"base": 1 / 2, "medium": 1 / 2}
ALIGNED = {"PPO": f"ppo-{SMALL}", "SFT alone": f"sft-{SMALL}"}
# Ouyang et al. 2022: InstructGPT of 175B over GPT-3 of 175B, 0.85 ± 0.03; of 1.3B over 175B no number is given
PUBLISHED = 0.85


def unaligned(flow: GoldFlow, size: str) -> Pretrain:
    """A language model that has read a corpus, or as much of it as its size has time for."""
    config = base(flow, size)[0]
    return config.model_copy(update={"steps": round(config.steps * READ.get(size, 1))})


def aligned(flow: GoldFlow) -> Ppo:
    """PPO of the smallest model on the flow's preference model."""
    return flow.ppo(ALIGNED["PPO"], model=flow.snapshot(ALIGNED["SFT alone"]))


def asked(flow: GoldFlow, of: str) -> Evaluate:
    """One reply to every evaluation prompt, judged by gold alone."""
    data = {slice: f"{EVALUATED[slice]}?count={5 * flow.scale.evaluated}&seed={flow.seed + 300}" for slice in TRAINED}
    return flow.evaluate(of, data=data, reference="", rewards={}, costs={})


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """Gold win rates of the aligned small model over unaligned ones of every size."""
    flows = cells.base(seeds)
    cells.run([unaligned(flow, size) for size in reversed(LADDER) for flow in flows])  # the longest begin first
    cells.run([base(flow, SMALL)[1] for flow in flows])
    cells.run([aligned(flow) for flow in flows])
    cells.run([asked(flow, of) for flow in flows for of in (*ALIGNED.values(), *(f"pretrain-{s}" for s in LADDER))])
    counts = [parameters_in(Path(flows[0].snapshot(f"pretrain-{size}"))) for size in LADDER]
    ratios = [count / counts[0] for count in counts]
    rates = {how: [rate(flows, of, f"pretrain-{size}") for size in LADDER] for how, of in ALIGNED.items()}
    named = [f"{size}, {ratio:,.1f} times its size" for size, ratio in zip(LADDER, ratios, strict=True)]
    parts = [
        Part(f"win rate of aligned {SMALL} over unaligned {name}", found, 0.5, "above")
        for name, found in zip(named, rates["PPO"], strict=True)
    ]
    losses = [[held_out_loss(unaligned(flow, size)) for flow in flows] for size in LADDER]
    parts += [
        Part(f"held-out loss of unaligned {name} less that of {SMALL}", less(own, losses[0]), 0.0, "below")
        for name, own in zip(named[1:], losses[1:], strict=True)
    ]
    notes = [
        f"{SMALL} by SFT alone over unaligned {name}: {show(found)}"
        for name, found in zip(named, rates["SFT alone"], strict=True)
    ]
    notes.append(
        f"published: InstructGPT is preferred to GPT-3 of the same size (175B) in {PUBLISHED} ± 0.03; that of 1.3B to "
        "GPT-3 of 175B, without a number"
    )
    notes += [
        f"unaligned {size}: read {READ.get(size, 1):.0%} of the steps, held-out loss {show(nested_interval(own))} nats"
        for size, own in zip(LADDER, losses, strict=True)
    ]
    notes.append("a larger model is further from what more text would make it")
    places = [math.log10(ratio) for ratio in ratios]
    lines = [
        Line(how, i, places, [one.mean for one in found], points=True) for i, (how, found) in enumerate(rates.items())
    ]
    lines.append(Line("published, 175B over 175B", len(lines), [0.0], [PUBLISHED], points=True, joined=False))
    label = f"log10 of the unaligned model's size over that of {SMALL}"
    panel = Panel("", label, "gold win rate of the aligned model", lines, 0.5, "even")
    return Finding(parts, notes, curves([panel], columns=1, height=3.4))


def held_out_loss(config: Pretrain) -> float:
    """Nats per token of held-out text after the last step."""
    return float(read_lines(Path(config.out) / "metrics.jsonl")[-1]["eval/loss"])


def less(own: Sequence[float], other: Sequence[float]) -> Nested:
    """The difference over seeds."""
    return nested_interval([a - b for a, b in zip(own, other, strict=True)])


def rate(flows: Sequence[GoldFlow], of: str, over: str) -> Nested:
    """The win rate over seeds; a tie is ½."""
    return nested_interval([outcome(flow.root, over, of) for flow in flows], "share")


CLAIM = Claim(
    name="small-beats-large",
    claim="An aligned small model is preferred to an unaligned one about 100 times its size.",
    source="Ouyang et al. 2022",
    statistic=f"Gold win rate (helpfulness, a tie is ½) of {SMALL} after SFT and PPO over pretrained models of sizes "
    f"{', '.join(LADDER)}, one reply each to the same evaluation prompts. {' and '.join(READ)} take "
    f"{' and '.join(f'{share:g}' for share in READ.values())} of the steps of the others; whether they model held-out "
    "text better all the same is asked beside. Intervals over seeds; where seeds differ by a deviation of 0.03, as win "
    "rates of `pipeline` do, 5 seeds tell 0.55 from a half in four of five tries.",
    rule="Every lower bound is above 0.5, and the held-out loss of every larger model is below that of "
    f"{SMALL}, by its whole interval.",
    measure=measure,
)
