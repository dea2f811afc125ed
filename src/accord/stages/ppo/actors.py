"""The roles of policy optimisation: prompts and models, read and checked before any training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from accord.data.chat import Renderer
from accord.data.sources import read_demonstrations, read_documents, read_prompts, refuse_overlap
from accord.disk import read_json
from accord.engine.engines import Engine, open_engine
from accord.engine.forward.causal import hidden_states, logits_head
from accord.engine.packing import Group, Packing
from accord.engine.texts import conversation_group, document_groups
from accord.errors import BadInput
from accord.labelers.journal import Journal
from accord.models.bases import BaseWeights, copy_trained
from accord.models.critics import Critics, SeparateCritics, make_critics
from accord.models.limits import Limit, open_limits
from accord.models.loading import add_adapters, load_policy
from accord.models.reference import Reference
from accord.models.scalar import Scorer
from accord.models.scorers import ReplyScorer, open_scorer
from accord.models.text_scorers import RemoteScorer
from accord.objectives.kl import EXACT
from accord.records import Demonstration, Document, Prompt, slice_names
from accord.run import RunFolder
from accord.stages.leaks import refuse_trained_prompts
from accord.stages.ppo.config import Ppo
from accord.stages.ppo.in_flight import InFlight
from accord.stages.rewards import Setting, open_rewards
from accord.stages.shared import cache_of, drop_long, drop_long_prompts, load_all, open_renderer
from accord.training.distributed import World

REWARD = "reward"  # the name of the summed reward's signal; costs go by their own names


@dataclass(frozen=True)
class Actors:
    """Every role of the run: views of models, one tokenizer, the engine that draws the policy's replies, those that it
    draws ahead, and the journal of what labelers among the rewards were asked.

    `following` is the reference's own module where `--refresh_every` moves it, `average` the averaged policy, each None
    where not asked for; `other_text` is what the PTX term reads.
    """

    policy: nn.Module
    reference: Reference
    renderer: Renderer
    rewards: dict[str, ReplyScorer]
    costs: dict[str, ReplyScorer]
    limits: dict[str, Limit]
    watched: dict[str, ReplyScorer]
    critics: Critics
    following: nn.Module | None
    average: nn.Module | None
    other_text: list[Group]
    engine: Engine
    in_flight: InFlight
    journal: Journal

    def train(self, mode: bool = True) -> None:
        """All that is trained, in training mode or not: transformers recomputes layers in that mode alone."""
        self.policy.train(mode)
        self.critics.train(mode)

    @property
    def scorers(self) -> dict[str, ReplyScorer]:
        """Everything that scores replies."""
        return {**self.rewards, **self.costs, **self.watched}

    @property
    def moving(self) -> list[nn.Module]:
        """Models whose weights change during the run."""
        followers = [model for model in (self.following, self.average) if model is not None]
        return [self.policy, self.critics, *followers]

    @property
    def frozen(self) -> list[nn.Module]:
        """Models whose weights nothing changes."""
        models: list[nn.Module] = []
        for scorer in self.scorers.values():
            models += scorer.models if isinstance(scorer, Scorer) else []
        separate = self.reference.separate
        return models if separate is None or separate is self.following else [*models, separate]

    @property
    def models(self) -> list[nn.Module]:
        """Everything that reads texts, moving or frozen: of critics those that are more than heads."""
        readers = self.critics.parts() if isinstance(self.critics, SeparateCritics) else []
        return [*self.frozen, *(model for model in self.moving if model is not self.critics), *readers]

    @property
    def result(self) -> nn.Module:
        """The policy that is checked and saved."""
        return self.policy if self.average is None else self.average


class Prompts(NamedTuple):
    """The prompts of the run, those that limits are checked on at the end, and those of demonstrations beside them."""

    training: list[Prompt]
    held_out: list[Prompt]
    shown: list[Prompt]


def prepare(config: Ppo, run: RunFolder, world: World) -> tuple[Prompts, Actors]:
    """Read the prompts and load every role; refuses what does not fit together before any training."""
    renderer = open_renderer(config.model, run, world)
    device = world.device
    on = config.model if config.lora_rank else ""
    setting = Setting(run, world, renderer, config.labels, on)
    rewards, watched = (open_rewards(named, setting) for named in (config.rewards, config.watch))
    costs = {n: open_scorer(where, "cost", renderer, device, n, on=on) for n, where in config.costs.items()}
    limits = open_limits(config.limits, config.limit_of, costs) if config.limits else {}
    asked = [*rewards.values(), *costs.values(), *watched.values()]
    prompts = read_prompts_of(config, run, [renderer, *(scorer.renderer for scorer in asked if scorer.renderer)])
    refuse_other_servers(run, {**rewards, **costs, **watched})
    policy = add_adapters(load_policy(config.model), config, scalar=False, seed=config.seed).to(device)
    engine = open_engine(config.engine, policy, run.path, config.most_tokens, cache_tokens=cache_of(config, policy))
    bases = BaseWeights()
    bases.share(policy)
    for scorer in (*rewards.values(), *costs.values(), *watched.values()):
        if isinstance(scorer, Scorer):
            scorer.models = [bases.share(model) for model in scorer.models]
    following = copy_trained(policy) if config.refresh_every else None
    separate = following if following is not None else own_reference(config, device)
    if separate is not None:
        bases.share(separate)
    starts: dict[str, Any] = {REWARD: next(iter(rewards.values())), **costs}
    critics = (
        make_critics(config.critic, config.model, policy, starts, config.seed, config).to(device)
        if config.advantages == "gae"
        else SeparateCritics({}, {})
    )
    for part in critics.parts():
        bases.share(part)
    other_text, shown = read_other_text(config, run, renderer)
    actors = Actors(
        policy=policy,
        reference=Reference(policy, separate),
        renderer=renderer,
        rewards=rewards,
        costs=costs,
        limits=limits,
        watched=watched,
        critics=critics,
        following=following,
        average=copy_trained(policy) if config.weight_average else None,
        other_text=other_text,
        engine=engine,
        in_flight=InFlight(),
        journal=setting.journal,
    )
    return prompts._replace(shown=shown), actors


def refuse_other_servers(run: RunFolder, scorers: Mapping[str, ReplyScorer]) -> None:
    """Keep which models servers say that they serve; BadInput for another one than when this run began."""
    remote = {name: scorer for name, scorer in scorers.items() if isinstance(scorer, RemoteScorer)}
    told = {name: scorer.about.snapshot for name, scorer in remote.items() if scorer.about is not None}
    stored = run.path / "data" / "servers.json"
    before = read_json(stored) if stored.exists() else {}
    for name, snapshot in told.items():
        if before.get(name, snapshot) != snapshot:
            raise BadInput(
                f"{remote[name].where} serves another model than when this run began; serve that one, or choose "
                "another --out"
            )
    if told:
        run.write_json("data/servers.json", told)


def own_reference(config: Ppo, device: torch.device) -> nn.Module | None:
    """The reference's own model; None where it is the policy with its new adapter off."""
    if config.lora_rank and not config.reference:
        return None
    return load_policy(config.reference or config.model, trainable=False).to(device)


def read_prompts_of(config: Ppo, run: RunFolder, renderers: Sequence[Renderer]) -> Prompts:
    """The prompts to train and to check limits on: no scorer was trained on any, and none is in both.

    `renderers` are the policy's and those of scorers with another; a prompt that one does not take is dropped.
    """
    scorers = [*config.rewards.values(), *config.costs.values(), *config.watch.values()]

    def read(sources: str | dict[str, str], what: str, split: str) -> list[Prompt]:
        found: list[Prompt] = load_all(read_prompts, sources, config, run, split=split, what=what, renderers=renderers)
        refuse_trained_prompts(found, scorers, f"--{what}", labelled=True)
        refuse_empty_slices(config.limit_slices, found, f"--{what}")
        return drop_long_prompts(renderers[0], found, config.max_length, run, what, for_replies=config.max_new_tokens)

    prompts = read(config.data, "data", config.split)
    if not config.eval_data:
        return Prompts(prompts, [], [])
    held_out = read(config.eval_data, "eval_data", "evaluation" if config.split else "")
    refuse_overlap({p.id for p in held_out}, [p.id for p in prompts], "--eval_data", "--data")
    refuse_trained_prompts(held_out, [config.model], "--eval_data")
    return Prompts(prompts, held_out, [])


def refuse_empty_slices(limit_slices: Mapping[str, str], prompts: Sequence[Prompt], what: str) -> None:
    """Raise BadInput for a limit on a slice of which there is no prompt."""
    present = {prompt.slice for prompt in prompts}
    for name, slices in limit_slices.items():
        for wanted in slice_names(slices):
            if wanted not in present:
                raise BadInput(
                    f"--limit_slices.{name} {wanted}: no prompt of that slice in {what}; there are "
                    f"{', '.join(sorted(present))}"
                )


def read_other_text(config: Ppo, run: RunFolder, renderer: Renderer) -> tuple[list[Group], list[Prompt]]:
    """Documents as in pretraining, or demonstrations as in SFT, for the PTX term; none without `--ptx_data`.

    With the prompts of the demonstrations.
    """
    if not config.ptx_data:
        return [], []
    if config.ptx_kind == "text":
        documents: list[Document] = load_all(read_documents, config.ptx_data, config, run, what="ptx_data")
        return document_groups(renderer, documents, config.max_length), []
    shown: list[Demonstration] = load_all(
        read_demonstrations, config.ptx_data, config, run, what="ptx_data", renderers=[renderer]
    )
    groups = [conversation_group(renderer, demonstration, "assistant") for demonstration in shown]
    groups, shown = drop_long(groups, shown, config.max_length, run, "ptx_data")
    return groups, [demonstration.prompt for demonstration in shown]


def exact_kls(
    actors: Actors, packing: Packing, estimator: str, *, temperature: float, hidden: Tensor | None = None
) -> Tensor:
    """KL over the whole vocabulary (R,) at the packing's rows; `hidden` are the policy's there, if known."""
    head = logits_head(actors.policy, temperature=temperature)
    ours = head(hidden_states(actors.policy, packing) if hidden is None else hidden)
    return EXACT[estimator](ours, actors.reference.logits(packing, temperature=temperature))
