"""AI preference labels: two replies, a principle or several, both orders, a soft label.

Bai et al. 2022, "Constitutional AI" (arXiv:2212.08073), section 4; Lee et al. 2023, "RLAIF" (arXiv:2309.00267).
"""

import functools
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from accord.data.rows import reply_row, whole_file, write_records
from accord.errors import BadInput
from accord.evaluation.phrases import profile
from accord.evaluation.statistics import share_interval
from accord.labelers.labeler import Labeler, Writing
from accord.labelers.preferences import (
    BothOrders,
    Preferences,
    likelier,
    logit,
    prefers,
    sigmoid,
    soft_label,
    thought_over,
)
from accord.labelers.principles import Principles, several_drawn
from accord.labelers.trust import Maps, measured
from accord.records import Comparison, Prompt
from accord.run import RunFolder
from accord.stages.constitution.config import Constitution
from accord.stages.constitution.revise import CHUNK, refuse_none
from accord.training.progress import Progress


class Contest(NamedTuple):
    """Two replies to a prompt, and the questions about them, one for each principle that they are compared by."""

    prompt: Prompt
    first: str
    second: str
    questions: tuple[BothOrders, ...]


def draw_replies(config: Constitution, run: RunFolder, policy: Labeler, prompts: Sequence[Prompt]) -> None:
    """`--samples` replies to every prompt, into `samples.jsonl`; a resumed run goes on at a whole chunk."""
    n = config.samples
    first = run.keep_samples(CHUNK * n) // n
    progress = Progress(run.stage, len(prompts), unit="prompt", first=first)
    while first < len(prompts):
        chunk = [prompt for prompt in prompts[first : first + CHUNK] for _ in range(n)]
        numbers = range(n * first, n * first + len(chunk))
        how = Writing(config.max_new_tokens, config.temperature, config.seed, numbers)
        for prompt, draft in zip(chunk, policy.write([prompt.turns for prompt in chunk], how), strict=True):
            told = {"model": config.model, "temperature": config.temperature, "why": draft.why}
            run.add_sample(reply_row(prompt, draft.text, **told))
        first += len(chunk) // n
        progress.update(first, {})
        if run.stop_requested and first < len(prompts):
            raise run.interrupted(first, "prompt")


def contests(
    config: Constitution, constitution: Principles, sampled: Iterable[tuple[Prompt, tuple[str, ...]]]
) -> list[Contest]:
    """Every two different replies to a prompt, with the principles that are drawn for them."""
    found = [
        contest(config, constitution, prompt, *pair)
        for prompt, replies in sampled
        for pair in combinations(dict.fromkeys(replies), 2)
    ]
    if not found:
        raise BadInput("no prompt has two different replies; draw more --samples, or from another model")
    return found


def contest(config: Constitution, constitution: Principles, prompt: Prompt, first: str, second: str) -> Contest:
    """Two replies with the questions of the principles that are drawn for them."""
    by = several_drawn(
        constitution.comparing(config.tags), f"{config.seed} {prompt.id} {first} {second}", config.ensemble
    )
    ask = functools.partial(constitution.both_orders, turns=prompt.turns, shots=config.shots)
    return Contest(prompt, first, second, tuple(ask(p, first=first, second=second) for p in by))


def refuse_unfit(config: Constitution, constitution: Principles) -> None:
    """Raise BadInput where the constitution compares nothing, or is in a language that a labeler can not think in."""
    refuse_none(config, constitution.comparing(config.tags), "compares")
    if config.think and not constitution.wording.closings["choice"]:
        raise BadInput(f"--think: the language of the constitution {constitution.name} has no reasoning; leave it out")


def ask_about(config: Constitution, run: RunFolder, judge: Labeler, asked: Sequence[Contest]) -> Preferences:
    """What the judge prefers, after a chain of thought with `--think`. Raises BadInput where it answers nothing."""
    said = Preferences.none()
    progress = Progress(run.stage, len(asked), unit="pair")
    think = functools.partial(thought_over, judge, tokens=config.think, seed=config.seed) if config.think else None
    for start in range(0, len(asked), CHUNK):
        part = [contest.questions for contest in asked[start : start + CHUNK]]
        said = said.joined(prefers(judge, part, clamp=config.clamp if config.think else 0.0, think=think))
        progress.update(min(start + CHUNK, len(asked)), {})
        if run.stop_requested and start + CHUNK < len(asked):
            raise run.interrupted(start + CHUNK, "pair")
    said.tell(config.criterion, config.judge or config.model)
    return said


def compare(
    config: Constitution,
    run: RunFolder,
    judge: Labeler,
    constitution: Principles,
    sampled: Iterable[tuple[Prompt, tuple[str, ...]]],
    maps: Maps,
    known: Sequence[Comparison] = (),
) -> None:
    """Have replies compared; leaves `comparisons.jsonl`, `labels.jsonl` and `watch.json`, and perhaps `checks.json`.

    `known` are comparisons whose answer is known; they are asked about among the others.
    """
    plain = contests(config, constitution, sampled)
    checks = [contest(config, constitution, c.prompt, *c.replies) for c in known]
    order = spread(len(plain), len(checks))
    everything = ask_about(config, run, judge, [(plain, checks)[kind][i] for kind, i in order])
    if known:
        told = [first for (kind, _), first in zip(order, everything.first, strict=True) if kind]
        run.write_json("checks.json", refuse_failing(config, known, told))
    made, rows = [], []
    for (kind, i), first, method in zip(order, everything.first, everything.methods, strict=True):
        if kind or first is None:
            continue
        own = plain[i]
        sure = sigmoid(measured(logit(first), method, maps)) if maps else first
        if config.labels == "hard":
            sure = likelier(sure)
        labeler = f"ai:{judge.name}:{method}"
        comparison = soft_label(own.prompt, own.first, own.second, config.criterion, sure, labeler)
        made.append(comparison)
        principles = [both.straight.about for both in own.questions]
        rows.append({"id": comparison.id, "principles": principles, "first": sure, "asked": first, "method": method})
    write_records(run.path / "comparisons.jsonl", made)
    with whole_file(run.path / "labels.jsonl") as write:
        for row in rows:
            write(row)
    run.write_json("watch.json", watch(made))
    run.finish(
        comparisons=len(made),
        same_place=everything.same_place,
        unanswered=sum(everything.why.values()),
        mapping=config.mapping if maps else "",
    )


def spread(plain: int, checks: int) -> list[tuple[int, int]]:
    """What is asked after what: (0, a pair's place) or (1, a check item's place), these evenly among the pairs."""
    places = [((i + 0.5) / plain, 0, i) for i in range(plain)] + [((i + 0.5) / checks, 1, i) for i in range(checks)]
    return [(kind, i) for _, kind, i in sorted(places)]


def refuse_failing(config: Constitution, known: Sequence[Comparison], first: Sequence[float | None]) -> dict[str, Any]:
    """How the judge did on check items. Raises BadInput where it is surely no better than chance there."""
    pairs = [(c, p) for c, p in zip(known, first, strict=True) if p is not None]
    right = [0.5 if p == 0.5 else float((p > 0.5) == (c.ranks[0] == 1)) for c, p in pairs]
    share = share_interval(right, [c.prompt.id for c, _ in pairs])
    print(f"check items: {share.mean:.0%} of {share.n} right [{share.low:.2f}, {share.high:.2f}]")
    if share.high <= 0.5:
        raise BadInput(
            f"--checks: {config.judge or config.model} is right in {share.mean:.0%} of {share.n} check items, "
            f"[{share.low:.2f}, {share.high:.2f}], no better than chance; no label of it is kept: take another judge"
        )
    return {"right": share.json(), "asked": len(known), "unanswered": len(known) - len(pairs)}


def watch(made: Sequence[Comparison]) -> dict[str, Any]:
    """What the replies sound like, all of them and those that are preferred, and how often the longer one is."""
    everyone = [(c.prompt.id, reply) for c in made for reply in c.replies]
    best = [(c.prompt.id, c.replies[c.ranks.index(1)]) for c in made if len(set(c.ranks)) > 1]
    lengths = [[len(reply.split()) for reply in c.replies] for c in made]
    uneven = [(c, n) for c, n in zip(made, lengths, strict=True) if n[0] != n[1] and len(set(c.ranks)) > 1]
    longer = [c.ranks[n.index(max(n))] == 1 for c, n in uneven]
    share = sum(longer) / len(longer) if longer else None
    return {"replies": profile(everyone), "preferred": profile(best), "longer_preferred": share, "uneven": len(uneven)}
