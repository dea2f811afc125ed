"""Preference models on benchmarks of right and wrong replies: RewardBench, RM-Bench, LLMBar, HHH, from files.

questions → scores of every reply → share answered, by subset and style, with intervals; what length has to do with it
"""

from collections.abc import Sequence
from typing import Any

from accord.data.parse import Reader
from accord.data.reward_sets import read_reward_set
from accord.errors import BadInput
from accord.evaluation.breakdown import length_bias
from accord.evaluation.reward_sets import RewardAnswer, reward_numbers
from accord.records import Comparison
from accord.run import RunFolder
from accord.stages.evaluate.config import EvaluateRewards
from accord.stages.evaluate.preference import Judge, pair_facts
from accord.stages.leaks import refuse_trained_prompts
from accord.stages.shared import drop_long, open_run, refuse_idle_clock, taken
from accord.training import distributed
from accord.training.precision import choose_precision, lowered


def run(config: EvaluateRewards) -> RunFolder:
    """Ask every model every question; leaves `evaluation.json`."""
    with open_run("evaluate-rewards", config, {f"model.{n}": p for n, p in config.models.items()}) as run:
        if run.finished:
            return run
        world = distributed.start(run.threads)
        judges = {name: Judge(where, run, world.device) for name, where in config.models.items()}
        refuse_idle_clock(run, [judge.renderer for judge in judges.values()])
        sets = {name: read_set(config, run, judges, name, source) for name, source in config.sets.items()}
        refuse_trained_prompts([c.prompt for part in sets.values() for c in part], config.models.values(), "--sets")
        rows: list[dict[str, Any]] = []
        precision = run.decide("precision", lambda: choose_precision(world))
        with lowered(precision, world.device):
            for name, asked in sets.items():
                for model, judge in judges.items():
                    rows += measure(config, run, name, model, judge, asked)
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
) -> list[dict[str, Any]]:
    """A row for every head of a model and subset of a benchmark."""
    groups, kept = drop_long(judge.groups(asked), list(asked), config.max_length, run, f"{name}-{model}")
    rows = []
    for head, scores in judge.scores(groups, config.micro_tokens).items():
        label = model if len(judge.scorers) == 1 else f"{model}, {head}"
        answers = [answer_of(question, of) for question, of in zip(kept, scores, strict=True)]
        numbers = reward_numbers(answers)
        numbers[0]["length"] = length_bias(pair_facts(kept, scores))
        rows += [{"set": name, "model": label, **row} for row in numbers]
        whole = numbers[0]["answered"]
        print(
            f"{label} on {name}: {whole['mean']:.3f} of {len(answers)} questions, by chance {numbers[0]['chance']:.2f}"
        )
    return rows


def answer_of(question: Comparison, scores: Sequence[float]) -> RewardAnswer:
    """The right replies are those with the best rank, all others are wrong."""
    best = min(question.ranks)
    right = tuple(score for score, rank in zip(scores, question.ranks, strict=True) if rank == best)
    wrong = tuple(score for score, rank in zip(scores, question.ranks, strict=True) if rank != best)
    return RewardAnswer(question.prompt.id, question.prompt.slice, right, wrong)
