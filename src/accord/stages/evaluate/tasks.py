"""What a snapshot knows and can do, and what that cost: sets of questions in one packed scorer, before and after.

questions → their contexts and options as groups → log-probs, or greedy replies → a row each → numbers, changes, gate
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from accord.config import Decoding
from accord.data.chat import Renderer
from accord.data.rows import answer_row
from accord.data.sources import read_documents, read_prompts
from accord.data.tasks import TaskQuestion, is_right, read_questions, with_examples
from accord.engine.engines import InProcess
from accord.engine.packing import Group, reply_group
from accord.engine.texts import document_groups, said
from accord.errors import BadInput
from accord.evaluation.tasks import ACCURACY, LOGPROB, LOSS, NORMALISED, choice_scores, task_changes, task_numbers
from accord.models.likelihood import Likelihood, likelihoods
from accord.records import Document, Prompt, content_hash
from accord.run import RunFolder
from accord.stages.evaluate.config import EvaluateTasks
from accord.stages.evaluate.rows import Opened, Row, answer_all, ask_snapshot, ids_by_name, spelled
from accord.stages.gate import check_gate
from accord.stages.leaks import refuse_trained_prompts
from accord.stages.questions import load_questions
from accord.stages.shared import (
    cache_of,
    drop_long,
    gold_scores,
    load_all,
    open_renderer,
    sample_settings,
)

STOPS = {"answer": ["\n"], "number": ["Question:"], "chat": []}  # texts that end a greedy reply


class TaskItem(NamedTuple):
    """A question as token groups. `kind` is its own, or chat for a prompt of the gold world, which its judge scores."""

    task: str
    id: str
    kind: str
    group: str
    groups: tuple[Group, ...]
    question: TaskQuestion | None = None
    prompt: Prompt | None = None


def run(config: EvaluateTasks) -> RunFolder:
    """Ask a snapshot every question; leaves `evaluation.json` and `samples.jsonl`."""
    alike = ("shots", "delimiters", "max_new_tokens")
    return ask_snapshot("evaluate tasks", config, {"model": config.model}, alike, partial(ask, config), tell)


def ask(config: EvaluateTasks, opened: Opened) -> tuple[list[Row], Row]:
    """The answers to every question, and what they come to by task."""
    run, world, before = opened.run, opened.world, opened.before
    renderer = open_renderer(config.model, run, world)
    asked = [one for task, source in config.tasks.items() for one in read_task(config, run, renderer, task, source)]
    refuse_idle(config, asked)
    ids = ids_by_name((one.task, one.id) for one in asked)
    check_gate(opened.gate, run, (ACCURACY, NORMALISED, LOGPROB, LOSS), ids)
    if before and not any(row["prompt_id"] in ids.get(row["slice"], ()) for row in before):
        raise BadInput(f"--against {config.against} has asked none of these questions")
    rows = answer_all(
        run, world, config.model, asked, lambda m, part: answer(config, renderer, m, part, world.device), "question"
    )
    how = {"seed": config.seed, "resamples": config.bootstrap}
    changes = task_changes(rows, before, **how) if before else None
    return rows, {"shots": config.shots, "tasks": task_numbers(rows, **how), "changes": changes}


def read_task(config: EvaluateTasks, run: RunFolder, renderer: Renderer, task: str, source: str) -> list[TaskItem]:
    """The questions of one task, without those that are too long, which are counted."""
    if source.startswith("world:corpus"):
        asked = read_corpus(config, run, renderer, task, source)
    elif source.startswith("world:"):
        asked = read_world(config, run, renderer, task, source)
    else:
        asked = list(read_file(config, run, renderer, task, source))
    room = config.max_new_tokens if asked[0].kind in STOPS else 0
    widest = [max(one.groups, key=longest) for one in asked]
    return drop_long(widest, asked, config.max_length, run, f"tasks-{task}", for_replies=room)[1]


def refuse_idle(config: EvaluateTasks, asked: Sequence[TaskItem]) -> None:
    """Refuse knobs that nothing reads beside these questions."""
    kinds = {one.kind for one in asked}
    if config.clock and "chat" not in kinds:
        raise BadInput("--clock has no effect without --tasks.NAME world:…: questions of files have no template")
    if config.max_new_tokens != type(config).model_fields["max_new_tokens"].default and not kinds & STOPS.keys():
        raise BadInput("--max_new_tokens has no effect: none of the --tasks is answered by a reply; leave it out")


def longest(group: Group) -> int:
    """Tokens of the longest text in a group."""
    return len(group.prefix) + max((len(reply) for reply in group.replies), default=0)


def read_world(config: EvaluateTasks, run: RunFolder, renderer: Renderer, task: str, source: str) -> list[TaskItem]:
    """Prompts of the gold world, each once, of which the snapshot learned from none: those of the evaluation split."""
    prompts: list[Prompt] = load_all(
        read_prompts, {task: source}, config, run, split="evaluation", what=f"tasks-{task}", renderers=[renderer]
    )
    prompts = list({prompt.id: prompt for prompt in prompts}.values())
    refuse_trained_prompts(prompts, [config.model], f"--tasks.{task}")
    if "gold/correct" not in gold_scores(prompts[0], ""):
        raise BadInput(f"--tasks.{task}: replies to {source} are neither right nor wrong; name skills or knowledge")
    return [
        TaskItem(task, p.id, "chat", p.slice, (reply_group(renderer.prompt_ids(p.turns), ()),), prompt=p)
        for p in prompts
    ]


def read_corpus(config: EvaluateTasks, run: RunFolder, renderer: Renderer, task: str, source: str) -> list[TaskItem]:
    """Text of the gold world, each document once; another seed than that of pretraining has other documents."""
    documents = load_all(read_documents, {task: source}, config, run, what=f"tasks-{task}")
    once = {document.text: document for document in documents}.values()
    return [item for document in once for item in text_items(config, renderer, task, document)]


def text_items(
    config: EvaluateTasks, renderer: Renderer, task: str, document: Document, group: str = ""
) -> Iterator[TaskItem]:
    """A document in pieces of `--max_length`, on each of which the loss is measured."""
    for piece in document_groups(renderer, [document], config.max_length):
        yield TaskItem(task, content_hash("piece", piece.replies), "text", group, (piece,))


def read_file(config: EvaluateTasks, run: RunFolder, renderer: Renderer, task: str, source: str) -> Iterator[TaskItem]:
    """Questions of a file, each once, behind their solved examples."""
    how: Row = {"delimiter": config.delimiters.get(task, "")}
    found = load_questions(run, f"tasks-{task}", task, source, config, **how)
    shown_by = config.examples.get(task)
    examples = read_questions(shown_by, columns=config.columns, **how).questions if shown_by else ()
    for question in {question.id: question for question in found.questions}.values():
        if question.kind in ("known", "unknown"):
            raise BadInput(f"--tasks.{task}: {source} says which questions can be known; ask it by `evaluate honesty`")
        if question.kind == "text":
            yield from text_items(config, renderer, task, Document(question.options[0], source), question.group)
        else:
            shown = with_examples(question, examples, config.shots)
            yield TaskItem(task, question.id, question.kind, question.group, question_groups(renderer, shown), shown)


def question_groups(renderer: Renderer, question: TaskQuestion) -> tuple[Group, ...]:
    """A group for every context: the options that go on behind it share it."""
    if question.kind in STOPS:
        return (reply_group(renderer.passage(question.contexts[0]), ()),)
    shared: list[tuple[tuple[int, ...], list[tuple[int, ...]]]] = []
    for context, option in question.pairs():
        before, after = renderer.continued(context, option)
        if not after:
            raise BadInput(f"the option {option!r} has no token of its own behind its context; leave the question out")
        if not shared or shared[-1][0] != before:
            shared.append((before, []))
        shared[-1][1].append(after)
    return tuple(reply_group(before, *after) for before, after in shared)


def answer(
    config: EvaluateTasks, renderer: Renderer, model: nn.Module, asked: Sequence[TaskItem], device: torch.device
) -> list[Row]:
    """One row per question, in their order."""
    drawn = [one for one in asked if one.kind in STOPS]
    replies = dict(zip(map(id, drawn), reply_to(config, renderer, model, drawn), strict=True))
    found: dict[int, list[Likelihood]] = {}
    for greedy in (False, True):
        part = [one for one in asked if one.kind not in STOPS and (one.kind == "next") == greedy]
        groups = [group for one in part for group in one.groups]
        told = likelihoods(model, groups, config.micro_tokens, device, greedy=greedy)
        for one in part:
            found[id(one)] = [likelihood for _ in one.groups for likelihood in next(told)]
    return [row_of(one, found.get(id(one), []), replies.get(id(one), "")) for one in asked]


def reply_to(config: EvaluateTasks, renderer: Renderer, model: nn.Module, asked: Sequence[TaskItem]) -> list[str]:
    """The greedy reply to each, up to the text that ends one of its kind."""
    replies: dict[int, str] = {}
    engine = InProcess(model, cache_of(Decoding.model_validate({}), model))
    for kind, stop in STOPS.items():
        part = [one for one in asked if one.kind == kind]
        if part:
            how = {"temperature": 0, "max_new_tokens": config.max_new_tokens, "stop": stop}
            settings = sample_settings(Decoding.model_validate(how), renderer, 1, config.seed)
            rollouts = engine.sample([one.groups[0].prefix for one in part], settings)
            replies |= {id(one): said(renderer, stop, r.ids) for one, r in zip(part, rollouts, strict=True)}
    return [replies[id(one)] for one in asked]


def row_of(one: TaskItem, found: Sequence[Likelihood], reply: str) -> Row:
    """What was asked and answered, by the names of `samples.jsonl`."""
    written = reply if one.prompt is not None or one.kind in STOPS else None
    logprobs = {} if written is not None else {"logprobs": [likelihood.logprob for likelihood in found]}
    return answer_row(one.id, one.task, one.kind, written, group=one.group, **logprobs, **scored(one, found, reply))


def scored(one: TaskItem, found: Sequence[Likelihood], reply: str) -> Row:
    """The scores of an answer, and of a choice what it was among."""
    if one.prompt is not None:
        return {"scores": {ACCURACY: gold_scores(one.prompt, reply)["gold/correct"]}}
    if one.kind == "text":
        return {"scores": {LOSS: -found[0].logprob / found[0].tokens}}
    question = one.question
    assert question is not None
    if one.kind in STOPS:
        return {"scores": {ACCURACY: float(is_right(question, reply))}}
    if one.kind == "next":
        return {"scores": {ACCURACY: float(found[0].greedy), LOGPROB: found[0].logprob}}
    # lm-eval counts the characters of an option without the blank before it
    lengths = [len(option.removeprefix(" ")) for _, option in question.pairs()]
    scores = choice_scores([likelihood.logprob for likelihood in found], lengths, question.right)
    return {"options": len(lengths), "right": question.right, "scores": scores}


def tell(result: Mapping[str, Any]) -> None:
    """A line for every task, and one for the tax."""
    changes = result["changes"] or {"tasks": {}, "tax": None}
    for task, numbers in result["tasks"].items():
        metric = ACCURACY if ACCURACY in numbers else LOSS
        found, change = numbers[metric], changes["tasks"].get(task, {}).get(metric)
        changed = f", change {spelled(change)}" if change else ""
        print(f"{task}: {metric} {spelled(found)} of {numbers['n']}{changed}")
    if changes["tax"]:
        print(f"mean change of accuracy over tasks: {spelled(changes['tax'])}")
