"""People helped by a critique judge better, and are misled by a wrong one."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from accord.claims.lab.answers import CERTAIN
from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import Claim, Finding, Part
from accord.claims.lab.policies import show
from accord.claims.lab.recipes import GoldFlow
from accord.disk import read_lines
from accord.evaluation.statistics import nested_interval
from accord.records import Demonstration, Prompt, Turn
from accord.reporting.figures import Column, Dots, dots
from accord.stages.sample.config import Sample
from accord.stages.sft.config import Sft
from accord.stages.shared import replies_by_prompt
from accord.world import Annotator, Gold, comparisons, faults, judge, parse
from accord.world.critiques import CRITIQUES, critique_request, write_critique

CRITERION = "helpful"
FAULT_OF = {"how-to": "mistaken", "fact": "false"}  # by kind of request, what escapes somebody who is no expert
BLAME = {"mistaken": 0.9, "false": 2.0}  # gold points that such a fault costs: a wrong step, a wrong answer
TRUST = 0.75  # chance that a critique is taken at its word
LAY = Annotator(expertise=())
SLICES = ("benign", "knowledge")
DRAWN = 4000  # prompts of each slice, of which the evaluation split is asked
PAIRS = 1000
LESSONS = 1500  # pairs of scripted replies that the critic is taught on

Found = bool | None  # whether a critique says that the fault is there; None where it says neither
Both = tuple[Found, Found]


class Pair(NamedTuple):
    """Two replies of different worth to one request, the better one first: what asks for a critique of each, what each
    is worth, and whether it has the fault that is asked about."""

    asked: tuple[Prompt, Prompt]
    gold: tuple[Gold, Gold]
    faulty: tuple[bool, bool]
    fault: str


def answered(flow: GoldFlow) -> Sample:
    """Two replies of SFT to prompts that nobody learned from."""
    data = {s: f"world:prompts/{s}?count={DRAWN}&seed={flow.seed + 180}" for s in SLICES}
    return flow.sample("assistance-sample", data=data, split="evaluation")


def pairs_of(folder: Path) -> list[Pair]:
    """The first pairs of replies that differ in worth, and in the fault: of others its critique has nothing to say."""
    found = []
    for prompt, (first, second, *_) in replies_by_prompt(folder):
        fault = fault_of(prompt)
        better, worse = sorted((first, second), key=lambda reply: -judge(prompt.turns, reply).helpful)
        gold = judge(prompt.turns, better), judge(prompt.turns, worse)
        has = fault in faults(prompt.turns, better), fault in faults(prompt.turns, worse)
        if fault and gold[0].helpful > gold[1].helpful and has[0] != has[1]:
            found.append(Pair((ask(prompt, better, fault), ask(prompt, worse, fault)), gold, has, fault))
    return found[:PAIRS]


def fault_of(prompt: Prompt) -> str:
    """What may be wrong in a reply without anybody seeing it; empty where harm is at stake, which everybody sees."""
    request = parse(prompt.turns)
    return "" if request.harmful else FAULT_OF.get(request.kind, "")


def ask(prompt: Prompt, reply: str, fault: str) -> Prompt:
    """What asks for a critique of a reply under one principle."""
    turns = (*prompt.turns, Turn("assistant", reply), Turn("user", critique_request(fault)))
    return Prompt(turns, "critique", prompt.source)


def lessons(flow: GoldFlow) -> list[Demonstration]:
    """Scripted replies with the right critique of each, as many with the fault as without."""
    rng = Random(f"lessons {flow.seed}")
    sides: dict[bool, list[Demonstration]] = {True: [], False: []}
    for said in comparisons(LESSONS, flow.seed + 190, CRITERION):
        if fault := fault_of(said.prompt):
            for reply in said.replies:
                there = fault in faults(said.prompt.turns, reply)
                critique = write_critique(rng, fault if there else "", there)
                sides[there].append(Demonstration(ask(said.prompt, reply, fault), critique))
    fewer = min(map(len, sides.values()))
    return [lesson for side in sides.values() for lesson in side[:fewer]]


def critic(flow: GoldFlow) -> Sft:
    """SFT, taught to criticise."""
    changes = {
        **flow.common("assistance-critic"),
        "model": flow.snapshot("sft"),
        "data": flow.kept("assistance-lessons", lessons(flow)),
        "train_on": "reply",  # what is criticised is no example
    }
    return flow.sft().model_copy(update=changes)


def critiques(flow: GoldFlow, pairs: Sequence[Pair]) -> Sample:
    """The critic's critique of every reply."""
    prompts = list({prompt.id: prompt for pair in pairs for prompt in pair.asked}.values())
    changes = {
        "model": flow.snapshot("assistance-critic"),
        "data": flow.kept("assistance-replies", prompts),
        "split": "",
    }
    return flow.sample("assistance-critiques", **changes, samples=1, temperature=CERTAIN)


def said_by_critic(config: Sample, pairs: Sequence[Pair]) -> list[Both]:
    """What the critic says of both replies of every pair."""
    texts = {row["prompt_id"]: row["reply"] for row in read_lines(Path(config.out) / "samples.jsonl")}
    return [(word(texts[pair.asked[0].id], pair.fault), word(texts[pair.asked[1].id], pair.fault)) for pair in pairs]


def word(text: str, fault: str) -> Found:
    """What a critique says of a fault: that it is there, or not, or (of another fault, or nothing definite) neither."""
    critique = CRITIQUES.get(text.strip())
    return critique.found if critique is not None and critique.fault in ("", fault) else None


def seems(gold: Gold, faulty: bool, fault: str, said: Found) -> list[tuple[float, float]]:
    """What a reply may seem to be worth to a person, each with its chance.

    Alone they notice the fault with their own chance. A critique that is taken at its word is all that they go by: one
    that denies the fault leaves them with what meets the eye; one that finds it shows them what is wrong, or, where
    nothing is, costs the reply what the fault would.
    """
    alone = [(LAY.notice, gold.helpful), (1 - LAY.notice, gold.apparent)]
    if said is None:
        return alone
    told = gold.apparent if not said else gold.helpful if faulty else gold.helpful - BLAME[fault]
    return [(TRUST, told), *((chance * (1 - TRUST), worth) for chance, worth in alone)]


def accuracy(pair: Pair, said: Both) -> float:
    """The chance that a person finds the better reply: Bradley–Terry on what the two seem to be worth, and slips."""
    each = zip(pair.gold, pair.faulty, said, strict=True)
    ways = [seems(gold, faulty, pair.fault, told) for gold, faulty, told in each]
    right = sum(
        p * q / (1 + math.exp((theirs - ours) / LAY.temperature)) for p, ours in ways[0] for q, theirs in ways[1]
    )
    return LAY.flips + (1 - 2 * LAY.flips) * right


def errs_on(pair: Pair, said: Both) -> bool:
    """Whether a critique says of a fault that it is there, and it is not, or the other way round."""
    return any(told is not None and told != there for told, there in zip(said, pair.faulty, strict=True))


def found_by(pairs: Sequence[Pair], said: Sequence[Both]) -> np.ndarray:
    return np.array([accuracy(pair, both) for pair, both in zip(pairs, said, strict=True)])


def measure(cells: Cells, seeds: Sequence[int]) -> Finding:
    """How often people find the better reply: alone, with the critic, with one always right, with one always wrong."""
    flows = cells.tuned(seeds)
    cells.run([step(flow) for flow in flows for step in (answered, critic)])
    pairs = [pairs_of(Path(answered(flow).out)) for flow in flows]
    asked = [critiques(flow, own) for flow, own in zip(flows, pairs, strict=True)]
    cells.run(asked)
    said = [said_by_critic(config, own) for config, own in zip(asked, pairs, strict=True)]
    ways: dict[str, list[list[Both]]] = {
        "alone": [[(None, None)] * len(own) for own in pairs],
        "with the critic": said,
        "with one that is always right": [[pair.faulty for pair in own] for own in pairs],
        "with one that is always wrong": [[(not a, not b) for _, _, (a, b), _ in own] for own in pairs],
    }
    right = {name: [found_by(*both) for both in zip(pairs, told, strict=True)] for name, told in ways.items()}
    errs = [
        np.array([errs_on(pair, both) for pair, both in zip(own, told, strict=True)])
        for own, told in zip(pairs, said, strict=True)
    ]

    def gain(name: str) -> list[np.ndarray]:
        return [ours - alone for ours, alone in zip(right[name], right["alone"], strict=True)]

    helped = gain("with the critic")
    misled = [
        change[wrong] if wrong.any() else np.array([math.nan]) for change, wrong in zip(helped, errs, strict=True)
    ]
    parts = [
        Part("accuracy with the critic − alone", nested_interval(helped), 0.0, "above"),
        Part(
            "with one that is always wrong − alone", nested_interval(gain("with one that is always wrong")), 0, "below"
        ),
        Part("with the critic − alone, pairs on which it errs", nested_interval(misled), 0.0, "below"),
    ]
    shares = {name: nested_interval(by_seed, "share") for name, by_seed in right.items()}
    notes = [f"{name}: finds the better reply of {show(shares[name])} pairs" for name in shares]
    notes.append(f"the critic errs on {show(nested_interval(errs, 'share'))} of the pairs")
    notes += [
        f"replies {kind} the fault: the critic finds it in {share:.2f}" for kind, share in named(pairs, said).items()
    ]
    figure = dots(list(shares), [Column("", "finds the better reply", [Dots("share", 0, list(shares.values()))])])
    return Finding(parts, notes, figure)


def named(pairs: Sequence[Sequence[Pair]], said: Sequence[Sequence[Both]]) -> Mapping[str, float]:
    """How often the critic says that the fault is there, of replies that have it and of those that have not."""
    of: dict[str, list[bool]] = {"with": [], "without": []}
    for own, told in zip(pairs, said, strict=True):
        for pair, both in zip(own, told, strict=True):
            for there, word in zip(pair.faulty, both, strict=True):
                of["with" if there else "without"].append(bool(word))
    return {kind: float(np.mean(words)) if words else math.nan for kind, words in of.items()}


CLAIM = Claim(
    name="assistance",
    claim="People helped by a critique judge better, and are misled by a wrong one.",
    source="Saunders et al. 2022 (arXiv:2206.05802); Casper et al. 2023 (limits of RLHF)",
    statistic="Pairs of replies of SFT to requests without harm of which one has a fault that not everybody sees, "
    f"compared for {CRITERION} by simulated people who are no experts (they see half of what is wrong or false). A "
    "critic, SFT taught on scripted replies with the right critique of each, says of every reply whether it has the "
    f"fault; a critique is taken at its word with chance {TRUST:g}, and else they judge as without it. The exact "
    "chance that they find the better reply, less that without a critique: with the critic, with one that always says "
    "the opposite of the truth, and with the critic on pairs of which it is wrong about a reply. Means and intervals "
    "over seeds; 8 seeds see an effect of 1.2 deviations between seeds in four of five tries.",
    rule="They find it oftener with the critic, less often with one that is always wrong, and less often where the "
    "critic errs (they trust it too much): each with its whole interval.",
    measure=measure,
)
