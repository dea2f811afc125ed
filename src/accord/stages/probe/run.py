"""What a snapshot knows, by its own samples, and lessons that make it say so.

questions with known answers → samples → right, declined or wrong → demonstrations, comparisons, judgements
"""

from collections.abc import Iterator
from typing import NamedTuple

from accord.data.chat import Renderer
from accord.data.rows import rollout_row, write_records
from accord.data.sources import read_prompts, select_split
from accord.data.tasks import TaskQuestion
from accord.disk import read_lines
from accord.engine.engines import InProcess
from accord.engine.texts import said
from accord.errors import BadInput
from accord.evaluation.statistics import mean_interval
from accord.models.loading import load_policy
from accord.records import Prompt, Turn
from accord.run import RunFolder
from accord.stages.probe.config import ProbeKnowledge
from accord.stages.probe.lessons import DECLINED, RIGHT, SILENT, Lessons, LessonTexts, ProbedQuestion, outcomes, teach
from accord.stages.questions import answers_right, as_sentence, declined, is_answerable, load_questions
from accord.stages.shared import cache_of, draw, drop_long_prompts, load_all, open_renderer, open_run
from accord.training import distributed
from accord.training.precision import choose_precision, lowered

OF_WORLD = ("knowledge", "how-sure", "unknowable")  # slices of the gold world that ask for a fact


class KnownQuestion(NamedTuple):
    """A question; of a file with its answers, of the gold world without: its judge knows them."""

    prompt: Prompt
    question: TaskQuestion | None = None


def run(config: ProbeKnowledge) -> RunFolder:
    """Probe a snapshot; leaves `samples.jsonl`, `demonstrations.jsonl`, `comparisons.jsonl`, `judgements.jsonl`."""
    with open_run("probe", config, {"model": config.model}) as run:
        if run.finished:
            return run
        world = distributed.start(run.threads)
        renderer = open_renderer(config.model, run, world)
        asked = {one.prompt.id: one for one in read_asked(config, run, renderer)}
        prompts = [one.prompt for one in asked.values()]
        room = config.max_new_tokens
        prompts = drop_long_prompts(renderer, prompts, config.max_length, run, "questions", for_replies=room)
        model = load_policy(config.model, trainable=False).to(world.device)
        precision = run.decide("precision", lambda: choose_precision(world))
        engine = InProcess(model, cache_of(config, model))
        with lowered(precision, world.device):
            for drawn in draw(run, engine, renderer, prompts, config, samples=config.samples, seed=config.seed):
                for prompt, replies in drawn:
                    for rollout in replies:
                        text = said(renderer, config.stop, rollout.ids)
                        scores = scores_of(asked[prompt.id], text)
                        run.add_sample(rollout_row(prompt, text, rollout, scores=scores))
        answerable = {prompt.id: is_answerable(*asked[prompt.id]) for prompt in prompts}
        found, silent = outcomes(read_lines(run.path / "samples.jsonl"), answerable)
        lessons = teach(found, LessonTexts(config.if_known, config.if_unknown), config.known_from)
        write(run, config, lessons, found, silent)
        run.finish(questions=len(found), demonstrations=len(lessons.demonstrations))
        return run


def read_asked(config: ProbeKnowledge, run: RunFolder, renderer: Renderer) -> Iterator[KnownQuestion]:
    """Every question of every source that has an answer, or has none; of one split where one is named."""
    for name, source in config.questions.items():
        what = f"questions-{name}"
        if source.startswith("world:"):
            yield from map(KnownQuestion, read_world(config, run, renderer, name, source))
            continue
        found = load_questions(run, what, name, source, config).questions
        by_id = {}
        for question in found:
            asked = as_sentence(question)
            if asked is None:
                raise BadInput(
                    f"--questions.{name}: {source} has questions of the kind {question.kind}, which no reply answers; "
                    "give questions with answers (docs/honesty.md)"
                )
            prompt = Prompt((Turn("user", question.contexts[0]),), name, source)
            by_id[prompt.id] = KnownQuestion(prompt, asked)
        kept = select_split([one.prompt for one in by_id.values()], config.split) if config.split else None
        yield from (by_id[prompt.id] for prompt in kept) if kept is not None else by_id.values()


def read_world(config: ProbeKnowledge, run: RunFolder, renderer: Renderer, name: str, source: str) -> Iterator[Prompt]:
    """Prompts of the gold world that ask for a fact."""
    prompts: list[Prompt] = load_all(
        read_prompts, {name: source}, config, run, split=config.split, what=f"questions-{name}", renderers=[renderer]
    )
    for prompt in prompts:
        if prompt.slice not in OF_WORLD:
            raise BadInput(
                f"--questions.{name}: of the gold world {', '.join(OF_WORLD)} are asked, not {prompt.slice or source}"
            )
        yield prompt


def scores_of(asked: KnownQuestion, reply: str) -> dict[str, float]:
    """Whether a reply is right, and whether it declines."""
    return {
        RIGHT: float(answers_right(asked.prompt, asked.question, reply)),
        DECLINED: float(declined(asked.prompt, reply)),
    }


def write(run: RunFolder, config: ProbeKnowledge, lessons: Lessons, found: list[ProbedQuestion], silent: int) -> None:
    """The lessons as files that `sft`, `preference` and `probe head` read, and `probe.json` with what was found."""
    if not found:
        raise BadInput(f"--model {config.model}: every reply is empty; there is nothing to learn from")
    if run.is_main:
        for name in ("demonstrations", "comparisons", "judgements"):
            write_records(run.path / f"{name}.jsonl", getattr(lessons, name))
    shares = [one.share for one in found if one.answerable]
    reasons = {kind: {**counts, **({SILENT: silent} if silent else {})} for kind, counts in lessons.reasons.items()}
    tenths = [sum(min(int(share * 10), 9) == tenth for share in shares) for tenth in range(10)]
    right = mean_interval(shares, seed=config.seed, resamples=2000).json() if shares else None
    result = {"model": config.model, "questions": len(found), "samples": config.samples, "right": right}
    run.write_json("probe.json", result | {"tenths": tenths, "reasons": reasons})
    for kind, counts in reasons.items():
        print(f"{kind}: {', '.join(f'{count} {why}' for why, count in counts.items())}")
