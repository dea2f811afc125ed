"""The roles of policy optimisation: prompts and models, read and checked before any training."""

from dataclasses import dataclass

from torch import nn

from accord.config import Ppo
from accord.data.batches import reply_group
from accord.data.chat import Renderer
from accord.data.sources import read_prompts
from accord.errors import BadInput
from accord.models.loading import add_adapters, base_of, load_policy, load_renderer
from accord.models.reference import Reference
from accord.models.scoring import ConversationScorer, Critics, make_critics
from accord.records import Prompt
from accord.run import RunFolder
from accord.stages.inputs import drop_long, load_all, refuse_trained_prompts
from accord.training.distributed import World

REWARD = "reward"  # the name of the summed reward's signal; costs go by their own names


@dataclass(frozen=True)
class Actors:
    """Every role of the run: views of models, one tokenizer."""

    policy: nn.Module
    reference: Reference
    renderer: Renderer
    rewards: dict[str, ConversationScorer]
    costs: dict[str, ConversationScorer]
    critics: Critics


def prepare(config: Ppo, run: RunFolder, world: World) -> tuple[list[Prompt], Actors]:
    """Read the prompts and load every role; refuses what does not fit together before any training."""
    renderer = load_renderer(config.model)
    device = world.device
    rewards = {n: ConversationScorer(p, "preference", renderer, device) for n, p in config.rewards.items()}
    costs = {n: ConversationScorer(p, "cost", renderer, device) for n, p in config.costs.items()}
    prompts: list[Prompt] = load_all(read_prompts, config.data, config, run, split=config.split)
    refuse_trained_prompts(prompts, [*config.rewards.values(), *config.costs.values()], "--data")
    for name, slices in config.limit_slices.items():
        present = {p.slice for p in prompts}
        for wanted in slices.split(","):
            if wanted not in present:
                raise BadInput(
                    f"--limit_slices.{name} {wanted}: no prompt of that slice; there are {', '.join(sorted(present))}"
                )
    rendered = [reply_group(renderer.prompt_ids(p.turns), ()) for p in prompts]
    rendered, prompts = drop_long(rendered, prompts, config.max_length - config.max_new_tokens, run)
    policy = add_adapters(load_policy(config.model), config, scalar=False, seed=config.seed).to(device)
    if not any(p.requires_grad for p in policy.parameters()):
        raise BadInput(f"{config.model}: nothing to train; its adapter is frozen")
    adapted_here = bool(config.lora_rank) and not config.reference and not base_of(config.model)
    separate = None if adapted_here else load_policy(config.reference or config.model, trainable=False).to(device)
    starts = {REWARD: next(iter(rewards.values())), **costs}
    critics = make_critics(config.critic, config.model, policy, starts, config.seed).to(device)
    return prompts, Actors(policy, Reference(policy, separate), renderer, rewards, costs, critics)
