"""Preference models and labelers on benchmarks of right and wrong replies: RewardBench, RM-Bench, LLMBar, HHH.

questions → scores of every reply → share answered, by subset and style, with intervals; what length has to do with it
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

from accord.data.parse import Reader
from accord.data.reward_sets import read_reward_set
from accord.errors import BadInput
from accord.evaluation.breakdown import length_bias
from accord.evaluation.reward_boards import board_rows
from accord.evaluation.reward_sets import RewardAnswer, reward_numbers
from accord.evaluation.statistics import finite
from accord.labelers.labeler import Labeler
from accord.labelers.preferences import BothOrders, logit, prefers
from accord.labelers.questions import ENGLISH, Question, asked_for, asked_of_one
from accord.labelers.scores import value_of
from accord.records import Comparison
from accord.run import RunFolder
from accord.stages.evaluate.config import EvaluateRewards
from accord.stages.evaluate.judges import open_labelers, parents_of
from accord.stages.evaluate.preference import Judge, pair_facts
from accord.stages.leaks import refuse_trained_prompts
from accord.stages.shared import drop_long, open_run, refuse_idle_clock, taken
from accord.training import distributed
from accord.training.precision import choose_precision, lowered

Row = dict[str, Any]


def run(config: EvaluateRewards) -> RunFolder:
    """Ask every model every question; leaves `evaluation.json`."""
    parents = parents_of(config, model=config.models)
    with open_run("evaluate-rewards", config, parents) as run, open_labelers(config, run) as labelers:
        if run.finished:
            return run
        world = distributed.start(run.threads)
        judges = {name: Judge(where, run, world.device) for name, where in config.models.items()}
        refuse_idle_clock(run, [judge.renderer for judge in judges.values()])
        sets = {name: read_set(config, run, judges, name, source) for name, source in config.sets.items()}
        asked_prompts = [c.prompt for part in sets.values() for c in part]
        refuse_trained_prompts(asked_prompts, (config.models | config.labelers).values(), "--sets")
        rows: list[Row] = []
        precision = run.decide("precision", lambda: choose_precision(world))
        with lowered(precision, world.device):
            for name, asked in sets.items():
                for model, judge in judges.items():
                    rows += measure(config, run, name, model, judge, asked)
        for name, asked in sets.items():
            for model, labeler in labelers.items():
                rows += measure_labeler(config, name, model, labeler, asked)
        run.write_json("evaluation.json", {"rewards": rows})
        run.finish(questions={name: len(part) for name, part in sets.items()})
        return run


def read_set(
    config: EvaluateRewards, run: RunFolder, judges: dict[str, Judge], name: str, source: str
) -> list[Comparison]:
    """The questions of one benchmark that every model's template takes; what was dropped is said and written."""
    read, drops = read_reward_set(source, Reader(config.columns, config.max_rows))
    kept, refused = taken(read, [judge.renderer for judge in judges.values()])
    dropped = ", ".join(f"{count} {reason}" for reason, count in (drops | refused).items())
    print(f"{source}: {len(kept)} questions" + (f"; dropped {dropped}" if dropped else ""))
    run.write_json(f"data/{name}.json", {"source": source, "questions": len(kept), "drops": drops | refused})
    if not kept:
        raise BadInput(f"--sets.{name} {source}: no question is left ({dropped})")
    return kept


def measure(
    config: EvaluateRewards, run: RunFolder, name: str, model: str, judge: Judge, asked: Sequence[Comparison]
) -> list[Row]:
    """A row for every head of a model and subset of a benchmark."""
    groups, kept = drop_long(judge.groups(asked), list(asked), config.max_length, run, f"{name}-{model}")
    rows = []
    for head, scores in judge.scores(groups, config.micro_tokens).items():
        label = model if len(judge.scorers) == 1 else f"{model}, {head}"
        rows += counted(name, label, kept, scores, config.seed)
    return rows


def counted(
    name: str, label: str, asked: Sequence[Comparison], scores: Sequence[Sequence[float]], seed: int
) -> list[Row]:
    """Rows of a benchmark's numbers, all questions first, which are said."""
    answers = [answer_of(question, of) for question, of in zip(asked, scores, strict=True)]
    numbers = reward_numbers(answers)
    numbers[0]["length"] = length_bias(pair_facts(asked, scores))
    numbers += board_rows(answers, seed=seed)
    whole, chance = numbers[0]["answered"], numbers[0]["chance"]
    board = "".join(f"; {row['subset']} {row['answered']['mean']:.3f}" for row in numbers if "chance" not in row)
    print(f"{label} on {name}: {whole['mean']:.3f} of {len(answers)} questions, by chance {chance:.2f}{board}")
    return [{"set": name, "model": label, **row} for row in numbers]


def measure_labeler(
    config: EvaluateRewards, name: str, model: str, labeler: Labeler, asked: Sequence[Comparison]
) -> list[Row]:
    """The same of a labeler; questions without an answer are counted, and of a choice what each order alone gives."""
    scored = by_choice if config.question == "choice" else one_by_one
    told = scored(config, labeler, asked)
    known = [(question, scores) for question, scores in zip(asked, told.scores, strict=True) if scores is not None]
    label = f"{model}, asked by {config.question}"
    if not known:
        why = ", ".join(f"{count} {reason}" for reason, count in told.why.items())
        raise BadInput(f"--labelers.{model}: no answer to any of {len(asked)} questions of {name} ({why})")
    questions, scores = [question for question, _ in known], [list(of) for _, of in known]
    rows = counted(name, label, questions, scores, config.seed)
    rows[0] |= {"unanswered": dict(told.why), **told.orders}
    return rows


class Told(NamedTuple):
    """Scores of every question's replies, None without an answer; why there is none; what the order of showing does."""

    scores: list[list[float] | None]
    why: Counter[str]
    orders: Row


def one_by_one(config: EvaluateRewards, labeler: Labeler, asked: Sequence[Comparison]) -> Told:
    """Every reply asked about alone."""
    kind, criterion = config.question, config.criterion
    words = asked_of_one(kind, criterion)
    questions = [ENGLISH.about_one(kind, c.prompt.turns, r, words, criterion) for c in asked for r in c.replies]
    answers = iter(zip(questions, labeler.ask(questions), strict=True))
    told = Told([], Counter(), {})
    for question in asked:
        own = [next(answers) for _ in question.replies]
        missing = [answer.why for _, answer in own if answer.why]
        told.why.update(missing)
        told.scores.append(None if missing else [value_of(q, answer, finds_faults=False) for q, answer in own])
    return told


def by_choice(config: EvaluateRewards, labeler: Labeler, asked: Sequence[Comparison]) -> Told:
    """Every two replies compared in both orders; a reply's score is the sum of its logits over the others.

    `same_place` is the share of pairs where the same place is preferred in both orders, `first_place` the mean
    probability of the reply that is shown first, `right_first` and `right_last` how often the better of two is
    preferred in the orders that show it there.
    """
    words = asked_for(config.criterion)

    def ask(question: Comparison, one: int, other: int) -> Question:
        texts = question.replies[one], question.replies[other]
        return ENGLISH.about_two(question.prompt.turns, *texts, words, config.criterion)

    pairs = [(i, a, b) for i, c in enumerate(asked) for a, b in combinations(range(len(c.replies)), 2)]
    told = prefers(labeler, [[BothOrders(ask(asked[i], a, b), ask(asked[i], b, a))] for i, a, b in pairs])
    scores: list[list[float] | None] = [[0.0] * len(c.replies) for c in asked]
    for (i, a, b), first in zip(pairs, told.first, strict=True):
        own = scores[i]
        if first is None:
            scores[i] = None
        elif own is not None:
            own[a] += logit(first)
            own[b] -= logit(first)
    ranks = [(asked[i].ranks[a], asked[i].ranks[b]) for i, a, b in pairs]
    orders: Row = {"same_place": finite(told.same_place), "first_place": finite(told.first_place)}
    return Told(scores, told.why, orders | told.right_by_place([None if a == b else a < b for a, b in ranks]))


def answer_of(question: Comparison, scores: Sequence[float]) -> RewardAnswer:
    """The right replies are those with the best rank, all others are wrong."""
    best = min(question.ranks)
    right = tuple(score for score, rank in zip(scores, question.ranks, strict=True) if rank == best)
    wrong = tuple(score for score, rank in zip(scores, question.ranks, strict=True) if rank != best)
    return RewardAnswer(question.prompt.id, question.prompt.slice, right, wrong, question.prompt.source)
