"""Experience: replies sampled from the policy, with everything that the other roles say about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from accord.config import Ppo
from accord.engine.forward.causal import hidden_states, logits_head, token_logprobs
from accord.engine.packing import Group, Plan, build_plan, cut_by_tokens, length_mask, pack_replies
from accord.objectives.kl import EXACT, SAMPLED
from accord.records import Prompt, Rollout
from accord.stages.ppo.actors import Actors
from accord.stages.ppo.scoring import Scoring
from accord.stages.ppo.state import State
from accord.training.distributed import World
from accord.training.precision import lowered

# nats per token up to which the sampler's log-probs stand for the trainer's: what rounding makes of equal weights
GAP = {"f32": 1e-5, "bf16": 1e-4}


@dataclass(frozen=True)
class Experience:
    """One iteration's rollouts. B replies, prompt by prompt, T slots; everything on the CPU, masked slots are 0.

    `groups` hold a prompt and its replies, which share its tokens. `scores[name]` (B,) normalised, `values[signal]`,
    `logprobs`, `reference` (log-probs under it) and `kl` (B, T); `kl` is each token's KL by `--kl_estimator`.
    `sampler_gap` is mean |log p of the sampler − log p of the trainer|, measured on some of the replies.
    """

    prompts: list[Prompt]
    rollouts: list[Rollout]
    groups: list[Group]
    mask: Tensor
    logprobs: Tensor
    reference: Tensor
    kl: Tensor
    scores: dict[str, Tensor]
    values: dict[str, Tensor]
    sampler_gap: float = 0.0


@torch.no_grad()
def collect(config: Ppo, world: World, actors: Actors, prompts: Sequence[Prompt], state: State) -> Experience:
    """Sample replies to the prompts and evaluate them under every role. Each rank does its share; all get the whole."""
    if world.is_main:
        actors.engine.follow(actors.policy)
    world.gather(None)  # no rank asks a server that has the old weights
    numbered = world.share(list(enumerate(prompts)))
    own = [prompt for _, prompt in numbered]
    with Scoring(config, actors, own, world.device) as scoring:
        with lowered(config.precision, world.device):
            rollouts = actors.engine.sample(
                [actors.renderer.prompt_ids(prompt.turns) for prompt in own],
                n=config.samples,
                temperature=config.temperature,
                max_new_tokens=config.max_new_tokens,
                stop_ids=frozenset({actors.renderer.eos}),
                seed=config.seed * 1_000_003 + state.step,
                version=f"step-{state.step}",
                numbers=[number for number, _ in numbered],
                finished=scoring.add,
            )
        share = evaluate(config, world, actors, own, rollouts, scoring)
    return gather(world, share, config.samples)


def evaluate(
    config: Ppo, world: World, actors: Actors, prompts: Sequence[Prompt], rollouts: list[Rollout], scoring: Scoring
) -> Experience:
    """What reference, critics and scorers say about a rank's rollouts; remote scorers answer meanwhile."""
    groups = scoring.groups
    actors.policy.eval()
    lengths = [len(r.ids) for r in rollouts]
    width = max(lengths, default=0)  # a rank may have no prompt
    sampled = pack_replies([r.logprobs for r in rollouts], width)
    reference, kl = torch.zeros_like(sampled), torch.zeros_like(sampled)
    values = {name: torch.zeros_like(sampled) for name in actors.critics.names}
    gap = measure_gap(config, world, actors, groups, sampled)
    # the ratio must compare numbers of one arithmetic where it matters, or rounding looks like learning
    apart = gap > (config.sampler_gap or GAP[config.precision])
    start = 0
    for part in cut_by_tokens(groups, lambda g: g.tokens, config.micro_tokens):
        plan = build_plan(part).to(world.device)
        stop = start + plan.replies
        with lowered(config.precision, world.device):
            reference[start:stop] = plan.scatter(
                actors.reference.token_logprobs(plan, temperature=config.temperature), width
            ).cpu()
            for name, value in actors.critics.values(actors.policy, plan).items():
                values[name][start:stop] = plan.scatter(value, width).cpu()
            if config.kl_estimator in EXACT:
                kl[start:stop] = plan.scatter(exact_kls(config, actors, plan), width).cpu()
            if apart:
                again = token_logprobs(actors.policy, plan, temperature=config.temperature)
                sampled[start:stop] = plan.scatter(again, width).cpu()
        start = stop
    mask = length_mask(lengths, width)
    if config.kl_estimator in SAMPLED:
        kl = torch.where(mask, SAMPLED[config.kl_estimator](sampled, reference), torch.zeros_like(sampled))
    own = [prompt for prompt in prompts for _ in range(config.samples)]
    return Experience(own, rollouts, groups, mask, sampled, reference, kl, scoring.result(), values, gap)


def measure_gap(config: Ppo, world: World, actors: Actors, groups: Sequence[Group], sampled: Tensor) -> float:
    """Mean |log p of the sampler − log p of the trainer| in nats per token, on every 16th prompt of all ranks.

    `sampled` (B, T) are the sampler's. The trainer computes as it will in the first update.
    """
    total, count = 0.0, 0
    picked = range(0, len(groups), 16)
    for part in cut_by_tokens(picked, lambda i: groups[i].tokens, config.micro_tokens):
        plan = build_plan([groups[i] for i in part]).to(world.device)
        with lowered(config.precision, world.device):
            trained = token_logprobs(actors.policy, plan, temperature=config.temperature)
        rows = [i * config.samples + k for i in part for k in range(config.samples)]
        ours = sampled[rows][plan.owner.cpu(), plan.slots.cpu()]
        total += float((ours - trained.cpu()).abs().double().sum())
        count += len(ours)
    sums = world.gather((total, count))
    return sum(t for t, _ in sums) / max(1, sum(c for _, c in sums))


def exact_kls(config: Ppo, actors: Actors, plan: Plan, hidden: Tensor | None = None) -> Tensor:
    """KL over the whole vocabulary (R,) at the plan's rows; `hidden` are the policy's hidden states there, if known."""
    head = logits_head(actors.policy, temperature=config.temperature)
    ours = head(hidden_states(actors.policy, plan) if hidden is None else hidden)
    return EXACT[config.kl_estimator](ours, actors.reference.logits(plan, temperature=config.temperature))


def gather(world: World, part: Experience, samples: int) -> Experience:
    """Every rank's experience as one, in the order of the prompts."""
    if world.size == 1:
        return part

    def whole(items: Sequence[Any]) -> list[Any]:
        blocks = [list(items[i : i + samples]) for i in range(0, len(items), samples)]
        return [item for block in world.interleave(blocks) for item in block]

    width = max(world.gather(part.mask.shape[1]))

    def stack(matrix: Tensor) -> Tensor:
        return torch.stack(whole(list(torch.nn.functional.pad(matrix, (0, width - matrix.shape[1])))))

    return Experience(
        whole(part.prompts),
        whole(part.rollouts),
        world.interleave(part.groups),
        stack(part.mask),
        stack(part.logprobs),
        stack(part.reference),
        stack(part.kl),
        {name: torch.stack(whole(list(score))) for name, score in part.scores.items()},
        {name: stack(value) for name, value in part.values.items()},
        part.sampler_gap,
    )
