"""Critique and revision: a reply, what is wrong with it by a principle, a better reply; again and again.

Supervised stage of Bai et al. 2022, "Constitutional AI" (arXiv:2212.08073), section 3. A principle is drawn for every
step; revisions of all steps become demonstrations, beside replies to helpful prompts as they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from accord.data.rows import prompt_of_row, reply_row, write_records
from accord.disk import read_lines
from accord.errors import BadInput
from accord.evaluation.phrases import profile
from accord.labelers.labeler import Draft, Labeler, Writing
from accord.labelers.principles import Principles, WrittenPrinciple, drawn, in_front
from accord.records import Demonstration, Prompt, Turn
from accord.run import RunFolder
from accord.stages.constitution.config import Constitution
from accord.stages.shared import gold_scores
from accord.training.progress import Progress

CHUNK = 64  # prompts that are taken through all steps at once
# which of a step's texts a stream of random numbers is for
REPLY, CRITIQUE, REVISION = 0, 1, 2
HELPFUL = 999_999  # the stream of replies to helpful prompts, beyond that of any step


@dataclass
class Chain:
    """A prompt on its way: the reply that the next step is about, and a row for every step so far."""

    prompt: Prompt
    number: int
    reply: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Writers:
    """Whose replies they are, and who criticises and revises them."""

    policy: Labeler
    critic: Labeler


def revise(
    config: Constitution, run: RunFolder, writers: Writers, constitution: Principles, prompts: Sequence[Prompt]
) -> None:
    """Every prompt's reply and its revisions, a row each in `samples.jsonl`; a resumed run goes on at a whole chunk."""
    principles = constitution.revising(config.tags)
    refuse_none(config, principles, "revises")
    steps = 1 + config.revisions
    first = run.keep_samples(CHUNK * steps) // steps
    progress = Progress(run.stage, len(prompts) * steps, unit="reply", first=first * steps)
    examples = [turn for worked in constitution.revisions[: config.shots] for turn in worked.shown(config.critique)]
    while first < len(prompts):
        chains = [Chain(prompt, first + i) for i, prompt in enumerate(prompts[first : first + CHUNK])]
        for step in range(steps):
            if step == 0:
                begin(config, writers.policy, chains)
            else:
                take_step(config, writers.critic, chains, step, principles, examples)
            progress.update(first * steps + (step + 1) * len(chains), {})
            if run.stop_requested and step + 1 < steps:
                raise run.interrupted(first, "prompt")
        for chain in chains:
            for row in chain.rows:
                run.add_sample(row)
        first += len(chains)
        if run.stop_requested and first < len(prompts):
            raise run.interrupted(first, "prompt")


def refuse_none(config: Constitution, principles: Sequence[WrittenPrinciple], what: str) -> None:
    """Raise BadInput where the constitution has no principle for this."""
    if not principles:
        tagged = f" with a tag of {', '.join(config.tags)}" if config.tags else ""
        raise BadInput(f"--constitution {config.constitution}: no principle{tagged} {what}; add one, or take another")


def begin(config: Constitution, policy: Labeler, chains: Sequence[Chain]) -> None:
    """The policy's own replies: step 0."""
    drafts = policy.write([chain.prompt.turns for chain in chains], _writing(config, chains, 0, REPLY))
    for chain, draft in zip(chains, drafts, strict=True):
        chain.reply = draft.text
        chain.rows.append(_row(config, chain, 0, draft, policy.name))


def take_step(
    config: Constitution,
    critic: Labeler,
    chains: Sequence[Chain],
    step: int,
    principles: Sequence[WrittenPrinciple],
    examples: Sequence[Turn],
) -> None:
    """One critique and revision of every chain that has a reply; a revision that is not whole is passed by."""
    live = [chain for chain in chains if chain.reply]
    by = [drawn(principles, f"{config.seed} {chain.prompt.id} {step}") for chain in live]
    talks = [(*in_front(chain.prompt.turns, examples), Turn("assistant", chain.reply)) for chain in live]
    said: list[Draft | None] = [None] * len(live)
    if config.critique:
        asked = [(*talk, Turn("user", p.critique)) if p.critique else () for talk, p in zip(talks, by, strict=True)]
        places = [i for i, talk in enumerate(asked) if talk]
        how = _writing(config, [live[i] for i in places], step, CRITIQUE)
        for i, draft in zip(places, critic.write([asked[i] for i in places], how), strict=True):
            said[i] = draft
            talks[i] = (*asked[i], Turn("assistant", draft.text)) if draft.text else talks[i]
    asked = [(*talk, Turn("user", p.revision)) for talk, p in zip(talks, by, strict=True)]
    drafts = critic.write(asked, _writing(config, live, step, REVISION))
    found = {chain.number: things for chain, things in zip(live, zip(by, said, drafts, strict=True), strict=True)}
    for chain in chains:
        if chain.number not in found:
            chain.rows.append(_row(config, chain, step, Draft("", "there is no reply to revise"), critic.name))
            continue
        principle, critique, draft = found[chain.number]
        more = {"principle": principle.name, "revision_request": principle.revision, "revised": chain.reply}
        if critique is not None:
            more |= {"critique_request": principle.critique, "critique": critique.text, "critique_why": critique.why}
        chain.rows.append(_row(config, chain, step, draft, critic.name, **more))
        if draft.text and not draft.why:
            chain.reply = draft.text


def _writing(config: Constitution, chains: Sequence[Chain], step: int, kind: int) -> Writing:
    """Random numbers of their own for every prompt, step and kind of text."""
    stream = config.seed * 1_000_003 + 3 * step + kind
    return Writing(config.max_new_tokens, config.temperature, stream, [chain.number for chain in chains])


def _row(config: Constitution, chain: Chain, step: int, draft: Draft, writer: str, **more: Any) -> dict[str, Any]:
    how = {"temperature": config.temperature, "max_new_tokens": config.max_new_tokens, "writer": writer}
    scores = gold_scores(chain.prompt, draft.text)
    return reply_row(chain.prompt, draft.text, step=step, why=draft.why, model=config.model, **how, **more, **scores)


def helpful_replies(
    config: Constitution, run: RunFolder, helpful: Sequence[Prompt], policy: Labeler
) -> Iterator[Draft]:
    """The policy's replies to helpful prompts, as they are; a resumed run finds them in the journal."""
    progress = Progress(run.stage, len(helpful), unit="helpful reply")
    for first in range(0, len(helpful), CHUNK):
        part = helpful[first : first + CHUNK]
        stream, numbers = config.seed * 1_000_003 + HELPFUL, range(first, first + len(part))
        how = Writing(config.max_new_tokens, config.temperature, stream, numbers)
        yield from policy.write([prompt.turns for prompt in part], how)
        progress.update(first + len(part), {})
        if run.stop_requested and first + len(part) < len(helpful):
            raise run.interrupted(first + len(part), "helpful reply")


def write_demonstrations(
    config: Constitution, run: RunFolder, helpful: Sequence[Prompt], policy: Labeler
) -> dict[str, int]:
    """Whole revisions of all steps, and whole replies to helpful prompts; how many of each, and what was left out."""
    counts = {"revisions": 0, "helpful": 0, "not_whole": 0, "twice": 0}
    seen: set[str] = set()

    def kept() -> Iterator[Demonstration]:
        for row in read_lines(run.path / "samples.jsonl"):
            if row["step"]:
                yield from take("revisions", prompt_of_row(row), Draft(row["reply"], row["why"]))
        for prompt, draft in zip(helpful, helpful_replies(config, run, helpful, policy), strict=True):
            yield from take("helpful", prompt, draft)

    def take(kind: str, prompt: Prompt, draft: Draft) -> Iterator[Demonstration]:
        made = Demonstration(prompt, draft.text)
        if not draft.text or draft.why:
            counts["not_whole"] += 1
        elif made.id in seen:
            counts["twice"] += 1
        else:
            seen.add(made.id)
            counts[kind] += 1
            yield made

    if run.is_main and not write_records(run.path / "demonstrations.jsonl", kept()):
        raise BadInput(
            f"no revision is whole ({counts['not_whole']} were cut or empty); raise --max_new_tokens, or take another "
            "critic"
        )
    return counts


def steps_profile(run: RunFolder) -> list[dict[str, Any]]:
    """What replies and revisions are like, step by step: shares that are whole, phrases, and gold scores if known."""
    by_step: dict[int, list[dict[str, Any]]] = {}
    for row in read_lines(run.path / "samples.jsonl"):
        by_step.setdefault(row["step"], []).append(row)
    found = []
    for step, rows in sorted(by_step.items()):
        whole = [row for row in rows if row["reply"] and not row["why"]]
        gold = sorted({name for row in whole for name in row if name.startswith("gold/") and name != "gold/correct"})
        means = {name: sum(row[name] for row in whole if name in row) / len(whole) for name in gold}
        told = profile([(row["prompt_id"], row["reply"]) for row in whole])
        found.append({"step": step, "rows": len(rows), "whole": len(whole), **told, **means})
    return found
