"""Knobs of measuring snapshots by replies and by questions, and preference models."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from accord.config import (
    Asking,
    Decoding,
    Forward,
    Idle,
    Listed,
    Passing,
    Reading,
    Rendering,
    Run,
    Sampling,
    Sources,
    UnderPrinciples,
    is_server,
)
from accord.errors import did_you_mean
from accord.evaluation.ratings import Ties


class Evaluate(Run, Decoding, Passing):
    """Measure a snapshot: gold judges where the truth is known, preference and cost models, KL, win rate."""

    idle: ClassVar[tuple[Idle, ...]] = (Idle("judge", lambda c: c.against, "without --against RUN"),)
    model: str = Field(description="snapshot to measure")
    data: Sources = Field(description="prompts; --data.NAME SOURCE names a slice")
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    reference: str = Field("", description="snapshot that KL is measured to; none by default")
    rewards: dict[str, str] = Field({}, description="--rewards.NAME DIR: preference models to score with")
    costs: dict[str, str] = Field({}, description="--costs.NAME DIR: cost models to score with")
    against: str = Field("", description="run folder of another evaluation on the same prompts, for the win rate")
    judge: str = Field("", description="score that decides a win; default gold/helpful or the first reward")
    eval_data: str = Field("", description="demonstrations to measure language-model loss on; none by default")
    samples: int = Field(1, gt=0, description="replies per prompt")
    bootstrap: int = Field(2000, gt=0, description="resamples behind each interval")
    gate: str = Field("", description="YAML file of bounds to keep; exit code 3 where one is not (docs/gate.md)")

    @model_validator(mode="after")
    def _kl_has_logprobs(self) -> "Evaluate":
        if self.reference:
            self.refuse_unless_plain("--reference", "measures KL by the log-probs of draws from the policy itself")
        return self


class EvaluatePreference(Run, Passing):
    """How far to trust preference and cost models: accuracy by what may matter, calibration, errors, criteria."""

    models: dict[str, str] = Field(description="--models.NAME DIR: preference, cost or ensemble models to measure")
    data: Sources = Field(
        description="comparisons to measure on, read under the criteria of the models; a source called CRITERION or "
        "CRITERION-… is read under that one alone"
    )
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    baseline_data: Sources = Field({}, description="comparisons that a bag of words is fitted to, as a baseline")
    familiar_data: str = Field(
        "", description="demonstrations or comparisons like the training data, for --strange_data"
    )
    background_data: str = Field("", description="the same of every kind: the background of the relative distance")
    strange_data: str = Field(
        "", description="the same that should be told from the measured ones: AUROC of the distance"
    )
    errors: int = Field(20, ge=0, description="most confident errors to list for each model")
    bootstrap: int = Field(2000, gt=0, description="resamples behind each interval")

    @model_validator(mode="after")
    def _distance_fits(self) -> "EvaluatePreference":
        given = [bool(self.familiar_data), bool(self.background_data), bool(self.strange_data)]
        if any(given) and not all(given):
            raise ValueError("--familiar_data, --background_data and --strange_data go together")
        if not self.models:
            raise ValueError("nothing to measure; give --models.NAME DIR")
        return self


class AskingLabelers(Asking):
    """Language models among the judges of replies that are there: what they say goes by the name labeler/NAME."""

    heading: ClassVar[str] = "asking a server"
    asked_knob: ClassVar[str] = "labelers.NAME"
    labelers: dict[str, str] = Field(
        {}, description="--labelers.NAME WHERE: language models that judge, of this machine or PROTOCOL:URL#MODEL"
    )

    @property
    def asks_server(self) -> bool:
        return any(map(is_server, self.labelers.values()))


class EvaluateRatings(Run, Reading, AskingLabelers):
    """Snapshots head to head: win rates and Elo from votes or from scores, and how far judges agree."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("criterion", lambda c: c.data or c.labelers, "without --data SOURCE or --labelers.NAME WHERE"),
        Idle("split", lambda c: c.data, "without --data SOURCE"),
        Idle("ties_within", lambda c: c.runs, "without --runs.NAME RUN"),
        Idle("scores", lambda c: c.decompose, "without --decompose NAME"),
        Idle("labelers", lambda c: c.runs, "without --runs.NAME RUN"),
    )
    data: Sources = Field({}, description="votes: comparisons whose replies name the snapshots that wrote them")
    criterion: str = Field("helpful", description="criterion of the votes in --data, and of what --labelers are asked")
    split: str = Field("", description="use only votes on prompts of this split (preference, policy, evaluation)")
    runs: dict[str, str] = Field(
        {}, description="--runs.NAME RUN: evaluations on the same prompts; --judge decides between their replies"
    )
    judge: Listed = Field(
        [], description="scores of --runs that decide, with commas between: gold/helpful,reward/NAME,cost/NAME"
    )
    ties_within: float = Field(0.0, ge=0, description="scores that differ by no more than this tie")
    anchor: str = Field("", description="snapshot at Elo 0, that others' win rates are against; default: the most met")
    ties: Ties = Field("half", description="a tie is half a win for each, or an outcome of its own (Davidson)")
    ridge: float = Field(0.0, ge=0, description="penalty on log-strengths, for snapshots that never lost or never won")
    decompose: str = Field("", description="preference model NAME of --runs, whose Elo is compared with the judges'")
    scores: str = Field("", description="run folder of `accord score` with NAME's scores of the replies in --data")
    bootstrap: int = Field(1000, gt=0, description="resamples of the prompts behind each interval")

    @model_validator(mode="after")
    def _has_votes(self) -> "EvaluateRatings":
        if not self.data and not self.runs:
            raise ValueError("nothing to rate; give votes by --data SOURCE, or evaluations by --runs.NAME RUN")
        if self.runs and not self.judge and not self.decompose and not self.labelers:
            raise ValueError("--runs needs what decides between replies; give --judge gold/helpful, or --labelers")
        if self.judge and not self.runs:
            raise ValueError("--judge has no effect without --runs.NAME RUN; leave it out")
        if self.decompose and not self.runs:
            raise ValueError("--decompose needs the evaluations that NAME has scored; give --runs.NAME RUN")
        return self


class EvaluateTasks(Run, Forward, Rendering):
    """What a snapshot knows and can do: multiple choice, next words, short answers, loss; and what that cost."""

    counts_replies: ClassVar[bool] = True
    idle: ClassVar[tuple[Idle, ...]] = (Idle("examples", lambda c: c.shots, "without --shots N"),)
    model: str = Field(description="snapshot to ask")
    tasks: dict[str, str] = Field(
        description="--tasks.NAME FILE: questions (docs/tasks.md); of the gold world prompts/SLICE and corpus"
    )
    shots: int = Field(0, ge=0, description="solved examples before each question, from --examples.NAME")
    examples: dict[str, str] = Field({}, description="--examples.NAME FILE: what a task's examples are taken from")
    delimiters: dict[str, str] = Field({}, description="--delimiters.NAME TEXT: put behind every context of a task")
    max_new_tokens: int = Field(256, gt=0, description="longest greedy reply in tokens, where one is asked for")
    against: str = Field("", description="run folder of the same questions asked of another snapshot: the tax")
    gate: str = Field("", description="YAML file of bounds to keep; exit code 3 where one is not (docs/gate.md)")
    bootstrap: int = Field(2000, gt=0, description="resamples behind each interval")
    max_length: int = Field(1024, gt=1, description="longest text in tokens; longer ones are dropped and counted")

    @model_validator(mode="after")
    def _names_are_tasks(self) -> "EvaluateTasks":
        if not self.tasks:
            raise ValueError("nothing to ask; give --tasks.NAME FILE")
        for knob in ("examples", "delimiters"):
            for name in getattr(self, knob):
                if name not in self.tasks or self.tasks[name].startswith("world:"):
                    raise ValueError(f"--{knob}.{name} belongs to no task of a file{did_you_mean(name, self.tasks)}")
        if self.shots and not self.examples:
            raise ValueError(f"--shots {self.shots} of what? give --examples.NAME FILE")
        return self


class EvaluateHonesty(Run, Forward, Rendering):
    """Whether a snapshot knows what it knows and says so: calibration, P(True), declining, premises, opinions."""

    counts_replies: ClassVar[bool] = True
    model: str = Field(description="snapshot to probe")
    probes: dict[str, str] = Field(
        description="--probes.NAME SOURCE: questions that have choices, or that can or cannot be known "
        "(docs/honesty.md); world:prompts/SLICE"
    )
    max_new_tokens: int = Field(48, gt=0, description="longest greedy reply in tokens")
    knows: str = Field("", description="P(IK) head of `accord probe head`: how well it foretells what is known")
    against: str = Field("", description="run folder of the same probes of another snapshot")
    gate: str = Field("", description="YAML file of bounds to keep; exit code 3 where one is not (docs/gate.md)")
    bootstrap: int = Field(1000, gt=0, description="resamples behind each interval")

    @model_validator(mode="after")
    def _has_probes(self) -> "EvaluateHonesty":
        if not self.probes:
            raise ValueError("nothing to probe; give --probes.NAME SOURCE")
        return self


class EvaluateBias(Run, Forward, Rendering):
    """Bias of policies and preference models: terms exchanged, BBQ, sentiment of replies, behaviours stated."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("sentiment against precision max_length", lambda c: c.model, "without --model SNAPSHOT"),
        Idle("max_new_tokens", lambda c: c.sentiment, "without --sentiment SCORER"),
    )
    model: str = Field("", description="policy to probe")
    models: dict[str, str] = Field({}, description="--models.NAME DIR: preference or cost models to probe by sentences")
    sets: dict[str, str] = Field(
        {}, description="--sets.NAME SOURCE: terms (sentences of our own), or a file of probes (docs/bias.md)"
    )
    sentiment: str = Field(
        "", description="what scores how kind a reply is (DIR, MODULE:FUNCTION, URL), for replies to terms exchanged"
    )
    max_new_tokens: int = Field(48, gt=0, description="longest greedy reply in tokens")
    against: str = Field("", description="run folder of the same probes of another snapshot")
    gate: str = Field("", description="YAML file of bounds to keep; exit code 3 where one is not (docs/gate.md)")
    bootstrap: int = Field(2000, gt=0, description="resamples behind each interval")
    max_length: int = Field(1024, gt=1, description="longest text in tokens; longer ones are dropped and counted")

    @model_validator(mode="after")
    def _asks_somebody(self) -> "EvaluateBias":
        if not self.model and not self.models:
            raise ValueError("nobody to ask; give --model SNAPSHOT, or --models.NAME DIR")
        if not self.sets and not self.sentiment:
            raise ValueError("nothing to ask; give --sets.terms terms, or --sets.NAME FILE")
        if "sentiment" in self.sets:
            raise ValueError("--sets.sentiment: replies to terms exchanged go by that name; take another")
        return self


class EvaluateRefusals(Run, Reading, AskingLabelers):
    """Harm and over-refusal side by side, by every judge there is, with what each judge is known to get wrong."""

    idle: ClassVar[tuple[Idle, ...]] = (Idle("scores truth", lambda c: c.labels, "without --labels SOURCE"),)
    runs: dict[str, str] = Field(
        {}, description="--runs.NAME RUN: evaluations with prompts of the slices harmful, red-team, look-alike, benign"
    )
    labels: Sources = Field(
        {},
        description="--labels.NAME SOURCE: replies to the same prompts with labels of compliance, to measure judges; "
        "where NAME is one of --runs, labels of a random part of its own replies",
    )
    truth: str = Field("human", description="labeler whose labels are the truth; others in --labels are judges")
    judge: Listed = Field(
        [],
        description="which of the replies' own judges, with commas between: rules, gold/refusal, gold/harm_share, "
        "cost/NAME, labeler/NAME; default: all; --costs and --labelers judge besides",
    )
    costs: dict[str, str] = Field({}, description="--costs.NAME DIR: cost models that judge every reply")
    scores: str = Field("", description="run folder of `accord score` with the costs of the replies in --labels")

    @model_validator(mode="after")
    def _has_replies(self) -> "EvaluateRefusals":
        if not self.runs and not self.labels:
            raise ValueError("nothing to judge; give evaluations by --runs.NAME RUN, or replies by --labels SOURCE")
        return self


class EvaluateRewards(Run, Forward, Rendering, AskingLabelers):
    """Preference models and labelers on benchmarks of right and wrong replies: RewardBench, RM-Bench, LLMBar, HHH."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("criterion question", lambda c: c.labelers, "without --labelers.NAME WHERE"),
    )
    models: dict[str, str] = Field({}, description="--models.NAME DIR: preference, cost or ensemble models to ask")
    criterion: str = Field("helpful", description="what labelers are asked for")
    question: Literal["choice", "yes-no", "score"] = Field(
        "choice", description="how labelers are asked: which of two replies, in both orders, or about each alone"
    )
    sets: dict[str, str] = Field(
        {}, description="--sets.NAME FILE: questions with right and wrong replies, in any shape that ranks replies"
    )
    max_length: int = Field(1024, gt=1, description="longest text in tokens; longer ones are dropped and counted")

    @model_validator(mode="after")
    def _has_both(self) -> "EvaluateRewards":
        if not self.sets:
            raise ValueError("nothing to ask; give --sets.NAME FILE")
        if not self.models and not self.labelers:
            raise ValueError("nothing to measure; give --models.NAME DIR, or --labelers.NAME WHERE")
        if both := self.models.keys() & self.labelers.keys():
            raise ValueError(f"{min(both)} is one of --models and of --labelers; give them different names")
        return self


class EvaluatePrinciples(Run, Sampling, Reading, UnderPrinciples):
    """Test a snapshot by each principle of a constitution: which holds, at what price, and which two contradict."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("question calibration require_calibration shots", lambda c: c.judge != "gold", "with --judge gold"),
        Idle("shots", lambda c: c.against, "without --against RUN (single replies have no worked examples)"),
    )
    asked_knob: ClassVar[str] = "model or --judge"
    model: str = Field(description="whose replies are judged: a policy, or PROTOCOL:URL#MODEL")
    data: Sources = Field({}, description="prompts for principles that have no tests of their own")
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    judge: str = Field(description="who judges: a policy, PROTOCOL:URL#MODEL, or gold with --constitution world")
    samples: int = Field(4, gt=1, description="replies to each test prompt; price and contradiction are among them")
    against: str = Field("", description="run folder of the same tests of another snapshot: pairs in both orders")
    shots: int = Field(3, ge=0, description="worked comparisons of the constitution before each pair, at most")

    @property
    def asks_server(self) -> bool:
        return is_server(self.model) or is_server(self.judge)


class EvaluateLmEval(Run):
    """Tasks of lm-evaluation-harness on a snapshot, by the library itself (extra eval)."""

    model: str = Field(description="snapshot, adapter or hub model to ask")
    tasks: Listed = Field(description="names of tasks or groups, with commas")
    task_files: str = Field("", description="folder with tasks of your own, as lm-eval's YAML")
    shots: int = Field(-1, ge=-1, description="solved examples before each question; -1: as the task has it")
    limit: int = Field(0, ge=0, description="questions of each task at most; 0: all")
    batch_size: int = Field(8, gt=0, description="texts at once")
    chat: bool = Field(False, description="ask by the chat template")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of the weights")


class EvaluateInspect(Run):
    """Tasks of Inspect on a snapshot, by the library itself (extra eval)."""

    model: str = Field(description="snapshot to ask")
    tasks: Listed = Field(description="FILE.py, FILE.py@TASK or PACKAGE/TASK, with commas")
    limit: int = Field(0, ge=0, description="samples of each task at most; 0: all")
    batch_size: int = Field(8, gt=0, description="samples at once")
    max_new_tokens: int = Field(256, gt=0, description="longest greedy reply in tokens")
