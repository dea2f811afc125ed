"""Knobs of online rounds, and of who compares in them."""

from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from accord.config import Asking, Config, Idle, Reading, Run, Sampling, Sources, is_server, rare
from accord.evaluation.promotion import Spending
from accord.stages.collect.config import DATABASE
from accord.stages.dpo.config import Dpo
from accord.stages.ppo.config import Ppo
from accord.stages.preference.config import Preference

Labeler = Literal["simulated", "gold", "preference", "ai"]
Rater = Literal["simulated", "gold", "preference", "ai", "people"]
Judge = Literal["simulated", "ai", "people"]
Knobs = dict[str, int | float | bool | str]
METHODS: dict[str, type[Config]] = {"dpo": Dpo, "ppo": Ppo}  # what trains a round's policy


LABELERS = (
    "who compares: the gold world's simulated people, its truth, a preference model (--scorer DIR), or a language "
    "model that is asked which reply is better (ai, --scorer DIR or PROTOCOL:URL#MODEL)"
)


SCORER = (
    "what labels: a preference model, or the language model of labeler ai, which may be behind a server: "
    "openai:URL#MODEL, anthropic:URL#MODEL, systemone:URL#MODEL"
)


class Annotate(Run, Asking):
    """Label sampled replies: by simulated people of the gold world, by its truth, or by a preference model."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle(
            "temperature flips length_bias position_bias equal_ties group",
            lambda c: c.labeler == "simulated",
            "with --labeler {c.labeler} (no people are simulated)",
        ),
    )
    samples: str = Field(description="run folder of `accord sample`, two replies or more to each prompt")
    labeler: Labeler = Field("simulated", description=LABELERS)
    scorer: str = Field("", description=SCORER)
    criteria: list[str] = Field(["helpful", "harmless"], description="criteria to compare under")
    judged: list[str] = Field(["harmless"], description="criteria to judge single replies under (safe or not)")
    slices: dict[str, str] = Field({}, description="criterion → slices to compare on, with commas; default all")
    judged_slices: dict[str, str] = Field({}, description="criterion → slices to judge on, with commas; default all")
    temperature: float = Field(0.5, ge=0, description="of the Bradley–Terry choice, in gold points")
    flips: float = Field(0.05, ge=0, le=0.5, description="share of answers turned round")
    length_bias: float = Field(0.0, description="what ten more words are worth, in gold points")
    position_bias: float = Field(0.0, description="what being shown first is worth, in gold points")
    equal_ties: bool = Field(False, description="replies that seem worth the same tie; without it a coin decides")
    group: str = Field(
        "mixed",
        description="of annotators: one (mixed, cautious, eager, candid, gentle, direct), or a crowd of two (caution, "
        "manner)",
    )

    @property
    def asks_server(self) -> bool:
        return self.labeler == "ai" and is_server(self.scorer)

    @model_validator(mode="after")
    def _labeler_can(self) -> "Annotate":
        _check_labeler(self.labeler, self.scorer)
        if self.labeler == "preference" and len(self.criteria) != 1:
            raise ValueError("--criteria: a preference model compares under its own criterion alone")
        if self.labeler != "simulated" and self.judged:
            raise ValueError(f"--judged: labeler {self.labeler} compares and does not judge; give an empty list")
        return self


def _check_labeler(labeler: str, scorer: str) -> None:
    if (labeler in ("preference", "ai")) != bool(scorer):
        raise ValueError("--scorer DIR goes with --labeler preference or ai and with no other; give both, or neither")


class Online(Run, Sampling, Reading, Asking):
    """Rounds: fresh replies compared by people or others, models, a policy, and a gate that promotes it or refuses."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("limits preference", lambda c: c.policy == "ppo", "with --policy dpo (it needs no preference model)"),
        Idle("limit_slices", lambda c: c.limits, "without --limits.NAME X"),
        Idle(
            "judge judge_prompts eval_prompts detect spending checks costs eval_data",
            lambda c: c.gate,
            "without --gate FILE",
        ),
        Idle(
            "checks",
            lambda c: c.judge != "people",
            "with --judge people (it is for judges who are there at once)",
        ),
        Idle("judge_scorer", lambda c: c.judge == "ai", "with --judge {c.judge} (no model judges)"),
        Idle("judges", lambda c: c.gate and c.judge == "simulated", "without --gate FILE and --judge simulated"),
        Idle(
            "group",
            lambda c: c.labeler == "simulated" or (c.gate and c.judge == "simulated"),
            "without --labeler simulated and --judge simulated (no people are simulated)",
        ),
        Idle(
            "database overlap enough wait",
            lambda c: c.asks_people,
            "without --labeler people and --judge people (nobody is asked)",
        ),
    )
    model: str = Field(description="snapshot to start from; it stays the reference of every round")
    data: Sources = Field(description="prompts; --data.NAME SOURCE names a slice")
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    rounds: int = Field(3, gt=0, description="rounds; each samples from the policy that was last promoted")
    prompts: int = Field(512, gt=0, description="prompts per round whose replies are compared, new ones in each")
    samples: int = Field(2, gt=1, description="replies per prompt; snapshots take turns")
    deployed: list[str] = Field([], description="--deployed A B: snapshots that reply beside the promoted one")
    labeler: Rater = Field("gold", description=LABELERS + ", or people on the page of `accord collect`")
    scorer: str = Field("", description=SCORER)
    group: str = rare("mixed", description="simulated annotators: a group or a crowd of two, as in docs/world.md")
    criterion: str = Field("helpful", description="the quality that the replies are compared under")
    policy: Literal["dpo", "ppo"] = Field("dpo", description="what trains the policy: a direct loss, or PPO on models")
    start: Literal["last", "first"] = Field(
        "last", description="a round's policy goes on from the last promoted one, or begins anew on all comparisons"
    )
    train: Knobs = Field({}, description="--train.KNOB VALUE: knobs of `accord dpo`, or of ppo, in every round")
    preference: Knobs = Field({}, description="--preference.KNOB VALUE: knobs of `accord preference` in every round")
    limits: dict[str, float] = Field(
        {}, description="--limits.CRITERION X: a cost model of that criterion, and the bound on its mean cost"
    )
    limit_slices: dict[str, str] = Field({}, description="--limit_slices.CRITERION A,B: slices that a limit holds on")
    gate: str = Field("", description="YAML file of bounds that promote a round's policy (docs/online.md); none: all")
    judge: Judge = Field("simulated", description="who compares candidate and incumbent, none of whom labels")
    judge_scorer: str = Field("", description="the language model of --judge ai; another than --scorer")
    judge_prompts: int = Field(
        0, ge=0, description="prompts per round for head-to-head comparisons; 0: what --detect needs"
    )
    checks: str = Field("", description="comparisons whose answer is known: judges who fail them are not counted")
    costs: dict[str, str] = Field({}, description="--costs.NAME DIR: cost models for the gate, that train nothing")
    database: str = Field("feedback.db", description=DATABASE)
    wait: bool = Field(False, description="wait here for people, instead of leaving with exit code 4")
    overlap: int = rare(1, ge=1, description="how many different people answer each question")
    enough: float = rare(1.0, gt=0, le=1, description="share of the answers that a step of people needs to go on")
    judges: int = rare(3, ge=1, description="simulated people who judge each comparison")
    eval_prompts: int = rare(400, gt=0, description="prompts on which every candidate and the first are evaluated")
    eval_data: str = rare("", description="demonstrations whose loss a bound on `loss` is about")
    detect: float = rare(0.55, gt=0.5, lt=1, description="win rate that --judge_prompts 0 finds 4 times in 5")
    spending: Spending = rare("even", description="how the gate's error is divided: evenly, or a half, a quarter, ...")

    @property
    def asks_server(self) -> bool:
        asked = [self.scorer] * (self.labeler == "ai") + [self.judge_scorer] * (self.judge == "ai")
        return any(map(is_server, asked))

    @property
    def asks_people(self) -> bool:
        """Whether somebody is asked on the page."""
        return self.labeler == "people" or bool(self.gate and self.judge == "people")

    @property
    def divides(self) -> bool:
        """Whether prompts are kept apart by their use, in their splits."""
        return bool(self.gate) or self.policy == "ppo"

    @model_validator(mode="after")
    def _rounds_fit(self) -> "Online":
        _check_labeler(self.labeler, self.scorer)
        if (self.judge == "ai") != bool(self.judge_scorer):
            raise ValueError("--judge_scorer goes with --judge ai and with no other; give both, or neither")
        if self.judge == "ai" and self.judge_scorer == self.scorer:
            raise ValueError(f"--judge_scorer {self.scorer} labels what trains and cannot judge it; give another model")
        if self.divides and self.split:
            raise ValueError("--split: with --gate or --policy ppo each use has prompts of its own split; leave it out")
        if len(self.deployed) >= self.samples:
            count = len(self.deployed) + 1
            raise ValueError(f"--deployed: {count} snapshots cannot share --samples {self.samples}; give more")
        if self.limits and self.labeler not in ("simulated", "people"):
            raise ValueError(
                f"--limits: a cost model needs replies judged safe or unsafe, and --labeler {self.labeler} only "
                "compares; take simulated or people"
            )
        for name in self.limit_slices:
            if name not in self.limits:
                raise ValueError(f"--limit_slices.{name} has no limit; add --limits.{name} NUMBER")
        if self.criterion in self.limits:
            raise ValueError(f"--limits.{self.criterion}: it is the --criterion to rise; limit another")
        self._refuse_knobs("train", METHODS[self.policy])
        self._refuse_knobs("preference", Preference)
        if self.policy == "dpo":
            self.training("model", "data", out="out", resume=False)
            return self
        self.optimising("model", "data", out="out", resume=False)
        for criterion in (self.criterion, *self.limits):
            self.modelling(criterion, "data", "labels", out="out", resume=False)
        return self

    def _refuse_knobs(self, flag: str, kind: type[Config]) -> None:
        """ValueError for a knob that the stage has not, or that the rounds set."""
        taken = {*Run.model_fields, *Sampling.model_fields, "model", "reference", "criterion", "rewards", "role"}
        taken |= {"costs", "limits", "limit_slices"} if kind is Ppo else set()
        name = kind.__name__.lower()
        for knob in getattr(self, flag):
            if knob not in kind.model_fields:
                raise ValueError(f"--{flag}.{knob}: `accord {name}` has no such knob")
            if knob in taken or (kind.model_fields[knob].annotation == Sources and knob != "ptx_data"):
                raise ValueError(f"--{flag}.{knob}: the rounds set it themselves; leave it out")

    def training(self, model: str, data: Sources, *, out: str, resume: bool) -> Dpo:
        """The direct training of a round. Raises ValueError that names the knob which `accord dpo` refuses."""
        ours: dict[str, Any] = {"seed": self.seed, "threads": self.threads}
        if self.train.get("kl_prompts") != 0:
            ours["max_new_tokens"] = self.max_new_tokens
        given = {**ours, "reference": self.model, **self.train}
        return _stage(Dpo, "--train", given, model=model, data=data, out=out, resume=resume, criterion=self.criterion)

    def modelling(self, criterion: str, data: Sources, safety: Sources, *, out: str, resume: bool) -> Preference:
        """The training of a round's preference model, or cost model of a limit. ValueError as `training` has it."""
        given: dict[str, Any] = {"seed": self.seed, "threads": self.threads, **self.preference}
        given |= {"role": "cost", "safety_data": safety} if criterion in self.limits else {}
        where = {"out": out, "resume": resume, "model": self.model}
        return _stage(Preference, "--preference", given, data=data, criterion=criterion, **where)

    def optimising(self, model: str, data: Sources, *, out: str, resume: bool, models: str = "models") -> Ppo:
        """The policy optimisation of a round on the models below a folder. Raises ValueError as `training` does."""
        ours = {"seed": self.seed, "threads": self.threads, "reference": self.model, "cache_tokens": self.cache_tokens}
        drawing = {"temperature": self.temperature, "max_new_tokens": self.max_new_tokens}
        scorers = {name: f"{models}/{name}/snapshot" for name in (self.criterion, *self.limits)}
        return _stage(
            Ppo,
            "--train",
            {**ours, **drawing, **self.train},
            model=model,
            data=data,
            out=out,
            resume=resume,
            rewards={self.criterion: scorers[self.criterion]},
            costs={name: scorers[name] for name in self.limits},
            limits=self.limits,
            limit_slices=self.limit_slices,
        )


S = TypeVar("S", bound=Config)


def _stage(kind: type[S], flag: str, given: dict[str, Any], **ours: Any) -> S:
    """A stage by knobs that are given and knobs of the rounds; ValueError names the given one that it refuses."""
    try:
        return kind(**ours, **given)
    except ValidationError as error:
        where = ".".join([flag, *map(str, error.errors()[0]["loc"])])
        raise ValueError(f"{where}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
