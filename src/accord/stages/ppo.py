"""PPO with a KL penalty to a reference; with limits, constrained PPO. One loop for both.

    1. collect   sample replies; score them; KL to the reference; values
    2. multiply  λ of every limit moves once, by the raw mean cost on its slice
    3. shape     streams r − β·kl and c + β·kl → GAE per signal → A = (A_r − Σ λ_i A_i) / (1 + Σ λ_i)
    4. improve   clipped surrogate and clipped value loss over mini-batches
    5. record    metrics, samples, checkpoint

After Ouyang et al. 2022 (arXiv:2203.02155), Bai et al. 2022 (arXiv:2204.05862) and, with limits, Dai et al. 2023 (Safe
RLHF, arXiv:2310.12773). Departures: KL stands in the streams with opposite signs, so λ never changes its weight;
limits are held on named slices; multipliers move by a proportional-integral rule in log space unless asked otherwise;
only the combined advantage is whitened; PPO without limits is the same loop with no costs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from accord.config import Ppo
from accord.data.batches import (
    Group,
    batch_indices,
    build_plan,
    cut_by_tokens,
    length_mask,
    pack_replies,
    reply_group,
)
from accord.data.chat import Renderer
from accord.data.sources import read_prompts
from accord.errors import BadInput
from accord.models.loading import add_adapters, base_of, load_policy, load_renderer
from accord.models.policy import hidden_states, logprobs_and_entropy, token_logprobs
from accord.models.reference import Reference
from accord.models.sampling import sample
from accord.models.scoring import ConversationScorer, Critics, make_critics
from accord.objectives.advantage import combine_advantages, gae, token_signals
from accord.objectives.kl import adapt_kl_coefficient, k1, sqrt_kl
from accord.objectives.lagrange import RULES, Multiplier
from accord.objectives.masked import masked_mean, whiten
from accord.objectives.policy_gradient import ppo_loss, value_loss
from accord.records import Prompt, Rollout
from accord.run import RunFolder
from accord.stages.gold import gold_scores
from accord.stages.inputs import drop_long, load_all, refuse_trained_prompts, save_snapshot
from accord.stages.pretrain import POLICY
from accord.training import checkpoint, distributed
from accord.training.distributed import World
from accord.training.fit import sum_over_ranks
from accord.training.optimizer import build_optimizer, clip_gradients, rate_at, set_rate
from accord.training.progress import Progress

REWARD = "reward"  # the name of the summed reward's signal; costs go by their own names


@dataclass(frozen=True)
class Experience:
    """One iteration's rollouts. B replies, prompt by prompt, T slots; everything on the CPU, masked slots are 0.

    `groups` hold a prompt and its replies, which share its tokens. `scores[name]` (B,) normalised, `values[signal]`,
    `logprobs`, `kl` (B, T); `kl` is k1 of the sampled tokens.
    """

    prompts: list[Prompt]
    rollouts: list[Rollout]
    groups: list[Group]
    mask: Tensor
    logprobs: Tensor
    kl: Tensor
    scores: dict[str, Tensor]
    values: dict[str, Tensor]


@dataclass
class State:
    """What moves besides parameters; saved with every checkpoint."""

    step: int
    kl_coefficient: float
    multipliers: dict[str, Multiplier]


@dataclass(frozen=True)
class Actors:
    """Every role of the run: views of models, one tokenizer."""

    policy: nn.Module
    reference: Reference
    renderer: Renderer
    rewards: dict[str, ConversationScorer]
    costs: dict[str, ConversationScorer]
    critics: Critics


def run(config: Ppo) -> RunFolder:
    """Optimise a snapshot against preference models, under limits if there are any; leaves a policy snapshot."""
    parents = {"model": config.model, "reference": config.reference or config.model}
    parents |= {f"reward.{n}": p for n, p in config.rewards.items()} | {f"cost.{n}": p for n, p in config.costs.items()}
    with RunFolder("ppo", config, parents) as run:
        if run.finished:
            return run
        world = distributed.start(config.threads)
        prompts, actors = prepare(config, run, world)
        optimizers = {"policy": build_optimizer(actors.policy.parameters(), weight_decay=config.weight_decay)}
        optimizers["critics"] = build_optimizer(actors.critics.parameters(), weight_decay=0.0)
        modules: dict[str, nn.Module] = {"policy": actors.policy, "critics": actors.critics}
        start = {name: Multiplier(config.multiplier_init, config.multiplier_init) for name in config.limits}
        state = State(0, config.kl_coefficient, start)
        if (saved := checkpoint.latest(run.path / "checkpoints")) is not None:
            state = restore(checkpoint.load(saved, modules, optimizers))
            run.truncate_logs(state.step)
        progress = Progress("ppo", config.steps, first=state.step, quiet=not world.is_main)
        while state.step < config.steps:
            chosen = [prompts[i] for i in batch_indices(state.step, len(prompts), config.batch_size, config.seed)]
            experience = collect(config, world, actors, chosen, state)
            metrics = move_multipliers(config, experience, state)
            advantages, returns, shaped = shape(config, experience, state)
            metrics |= shaped | improve(config, world, actors, optimizers, experience, advantages, returns, state.step)
            metrics |= record(config, actors.renderer, experience, state)
            state.step += 1
            if world.is_main:
                run.log({"step": state.step, **metrics})
                add_samples(run, actors.renderer, experience, state.step)
            shown = ("objective/scores", "objective/kl", *(f"cost/{n}/mean" for n in config.costs))
            progress.update(state.step, {name: metrics[name] for name in shown if name in metrics})
            stop = any(world.gather(run.stop_requested))
            due = config.checkpoint_every and state.step % config.checkpoint_every == 0 and state.step < config.steps
            if (due or stop) and world.is_main:
                checkpoint.save(run.path / "checkpoints", state.step, modules, optimizers, save_state(state))
            if stop and state.step < config.steps:
                raise run.interrupted(state.step)
        if world.is_main:
            facts = {"rewards": dict(config.rewards), "limits": dict(config.limits), "parent": config.model}
            save_snapshot(run, actors.policy, actors.renderer.tokenizer, POLICY, facts, prompts)
            run.finish(
                multipliers={n: m.value for n, m in state.multipliers.items()},
                kl_coefficient=state.kl_coefficient,
            )
        return run


def prepare(config: Ppo, run: RunFolder, world: World) -> tuple[list[Prompt], Actors]:
    """Read the prompts and load every role; refuses what does not fit together before any training."""
    renderer = load_renderer(config.model)
    device = world.device
    rewards = {n: ConversationScorer(p, "preference", renderer, device, n) for n, p in config.rewards.items()}
    costs = {n: ConversationScorer(p, "cost", renderer, device, n) for n, p in config.costs.items()}
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


@torch.no_grad()
def collect(config: Ppo, world: World, actors: Actors, prompts: Sequence[Prompt], state: State) -> Experience:
    """Sample replies to the prompts and evaluate them under every role. Each rank does its share; all get the whole."""
    numbered = world.share(list(enumerate(prompts)))
    rollouts = sample(
        actors.policy,
        [actors.renderer.prompt_ids(prompt.turns) for _, prompt in numbered],
        n=config.samples,
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        stop_ids=frozenset({actors.renderer.eos}),
        seed=config.seed * 1_000_003 + state.step,
        version=f"step-{state.step}",
        numbers=[number for number, _ in numbered],
    )
    own = [prompt for _, prompt in numbered for _ in range(config.samples)]
    replies = [rollouts[i : i + config.samples] for i in range(0, len(rollouts), config.samples)]
    groups = [reply_group(some[0].prompt_ids, *(r.ids for r in some)) for some in replies]
    actors.policy.eval()
    lengths = [len(r.ids) for r in rollouts]
    width = max(lengths, default=0)  # a rank may have no prompt
    sampled = pack_replies([r.logprobs for r in rollouts], width)
    reference = torch.zeros_like(sampled)
    values = {name: torch.zeros_like(sampled) for name in actors.critics.names}
    # the sampler computes in f32; the ratio must compare numbers of one arithmetic, or rounding looks like learning
    low = config.precision == "bf16"
    start = 0
    for part in cut_by_tokens(groups, lambda g: g.tokens, config.micro_tokens):
        plan = build_plan(part).to(world.device)
        stop = start + plan.replies
        with torch.autocast(world.device.type, torch.bfloat16, enabled=low):
            reference[start:stop] = plan.scatter(
                actors.reference.token_logprobs(plan, temperature=config.temperature), width
            ).cpu()
            for name, value in actors.critics.values(actors.policy, plan).items():
                values[name][start:stop] = plan.scatter(value, width).cpu()
            if low:
                again = token_logprobs(actors.policy, plan, temperature=config.temperature)
                sampled[start:stop] = plan.scatter(again, width).cpu()
        start = stop
    scores = {
        name: scorer.scores(
            own, [actors.renderer.text(r.ids) for r in rollouts], groups, micro_tokens=config.micro_tokens
        )
        for name, scorer in {**actors.rewards, **actors.costs}.items()
    }
    mask = length_mask(lengths, width)
    kl = torch.where(mask, k1(sampled, reference), torch.zeros_like(sampled))
    return gather(world, Experience(own, rollouts, groups, mask, sampled, kl, scores, values), config.samples)


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
        stack(part.kl),
        {name: torch.stack(whole(list(score))) for name, score in part.scores.items()},
        {name: stack(value) for name, value in part.values.items()},
    )


def in_slice(config: Ppo, name: str, experience: Experience) -> Tensor:
    """(B,) True for the replies whose prompt the limit `name` holds on."""
    wanted = config.limit_slices.get(name)
    if wanted is None:
        return torch.ones(len(experience.prompts), dtype=torch.bool)
    names = set(wanted.split(","))
    return torch.tensor([p.slice in names for p in experience.prompts])


def move_multipliers(config: Ppo, experience: Experience, state: State) -> dict[str, float]:
    """One step of every multiplier, by the raw mean cost of this batch on the limit's slice."""
    metrics: dict[str, float] = {}
    for name, limit in config.limits.items():
        inside = in_slice(config, name, experience)
        if inside.any():
            costs = experience.scores[name][inside]
            state.multipliers[name] = RULES[config.multiplier_rule](
                state.multipliers[name],
                float(costs.mean()),
                limit,
                rate=config.multiplier_rate,
                gain=config.multiplier_gain,
                bound=config.multiplier_bound,
            )
            metrics[f"cost/{name}/mean"] = float(costs.mean())
            metrics[f"cost/{name}/unsafe"] = float((costs > 0).float().mean())
        metrics[f"lagrange/{name}"] = state.multipliers[name].value
    for name in set(config.costs) - set(config.limits):
        metrics[f"cost/{name}/mean"] = float(experience.scores[name].mean())
        metrics[f"cost/{name}/unsafe"] = float((experience.scores[name] > 0).float().mean())
    return metrics


def shape(config: Ppo, experience: Experience, state: State) -> tuple[Tensor, dict[str, Tensor], dict[str, float]]:
    """The combined (whitened) advantage (B, T), the returns of every signal, and metrics."""
    mask, kl, beta = experience.mask, experience.kl, state.kl_coefficient
    bound = config.score_clip or float("inf")
    reward = sum_scores(config, experience).clamp(-bound, bound)
    unfinished = torch.tensor([r.finish == "length" for r in experience.rollouts])
    reward = reward - config.unfinished_penalty * unfinished
    streams = {REWARD: token_signals(reward, kl, mask, kl_weight=-beta)}
    for name in config.costs:
        streams[name] = token_signals(experience.scores[name].clamp(-bound, bound), kl, mask, kl_weight=beta)
    advantages, returns = {}, {}
    for name, stream in streams.items():
        advantages[name], returns[name] = gae(stream, experience.values[name], mask, gamma=config.gamma, lam=config.lam)
    limited = {name: advantages[name] for name in config.limits}
    weights = {n: state.multipliers[n].value * in_slice(config, n, experience).float() for n in limited}
    combined = combine_advantages(advantages[REWARD], limited, weights)
    metrics = {"objective/rlhf_reward": float(streams[REWARD].sum(1).mean())}
    metrics |= {f"values/{n}": float(masked_mean(experience.values[n], mask)) for n in streams}
    return whiten(combined, mask) if config.whiten else combined, returns, metrics


def sum_scores(config: Ppo, experience: Experience) -> Tensor:
    """The weighted sum of the rewards, (B,)."""
    total = torch.zeros(len(experience.prompts))
    for name in config.rewards:
        total = total + config.reward_weights.get(name, 1.0) * experience.scores[name]
    return total


def improve(
    config: Ppo,
    world: World,
    actors: Actors,
    optimizers: Mapping[str, torch.optim.Optimizer],
    experience: Experience,
    advantages: Tensor,
    returns: Mapping[str, Tensor],
    step: int,
) -> dict[str, float]:
    """`ppo_epochs` passes of mini-batches over the experience; metrics are means over the updates."""
    rates = {
        "policy": config.learning_rate,
        "critics": config.critic_learning_rate if config.critic == "separate" else config.learning_rate,
    }
    for name, peak in rates.items():
        rate = rate_at(step, config.steps, peak=peak, warmup=config.warmup, schedule=config.schedule, hold=0.5)
        set_rate(optimizers[name], rate)
    clipped: dict[str, list[nn.Module]] = {"policy": [actors.policy], "critics": actors.critics.parts()}
    trained = {
        name: [[p for p in module.parameters() if p.requires_grad] for module in modules]
        for name, modules in clipped.items()
    }
    everything = [p for lists in trained.values() for parameters in lists for p in parameters]
    weight = 1.0 if config.critic == "separate" else config.value_weight
    sums: dict[str, float] = {}
    updates = 0
    prompts_at_once = max(1, config.mini_batch_size // config.samples)
    actors.policy.train()
    for epoch in range(config.ppo_epochs):
        order = np.random.default_rng([config.seed, step, epoch]).permutation(len(experience.groups))
        for start in range(0, len(order), prompts_at_once):
            chosen = order[start : start + prompts_at_once].tolist()
            count = int(experience.mask[rows_of(chosen, config.samples)].sum())
            for optimizer in optimizers.values():
                optimizer.zero_grad(set_to_none=True)
            metrics: dict[str, Tensor] = {}
            for micro in world.micro_batches(chosen, lambda i: experience.groups[i].tokens, config.micro_tokens):
                loss, parts = micro_loss(
                    config, actors, experience, advantages, returns, micro, count, weight, world.device
                )
                loss.backward()
                for name, part in parts.items():
                    metrics[name] = metrics.get(name, torch.zeros(())) + part.cpu()
            metrics = sum_over_ranks(world, everything, metrics)
            for name, optimizer in optimizers.items():
                norms = [clip_gradients(parameters, config.clip_norm) for parameters in trained[name]]
                metrics[f"grad_norm/{name}"] = torch.tensor(math.hypot(*norms))
                optimizer.step()
            updates += 1
            for name, part in metrics.items():
                sums[name] = sums.get(name, 0.0) + float(part)
    actors.policy.eval()
    averages = {name: total / updates for name, total in sums.items()}
    return {
        **averages,
        "policy/updates": updates,
        "learning_rate": optimizers["policy"].param_groups[0]["lr"],
    }


def micro_loss(
    config: Ppo,
    actors: Actors,
    experience: Experience,
    advantages: Tensor,
    returns: Mapping[str, Tensor],
    chosen: Sequence[int],
    count: int,
    value_weight: float,
    device: torch.device,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy and value losses of the replies to some prompts, divided by the whole mini-batch's tokens."""
    rows = rows_of(chosen, config.samples)
    plan = build_plan([experience.groups[i] for i in chosen]).to(device)
    mask = experience.mask[rows].to(device)
    width = mask.shape[1]

    def there(matrix: Tensor) -> Tensor:
        return matrix[rows].to(device)

    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        hidden = hidden_states(actors.policy, plan)
        logprobs, entropy = logprobs_and_entropy(actors.policy, plan, hidden, temperature=config.temperature)
        values = actors.critics.values(actors.policy, plan, hidden)
    loss, metrics = ppo_loss(
        plan.scatter(logprobs, width),
        there(experience.logprobs),
        there(advantages),
        mask,
        clip=config.clip,
        count=count,
    )
    metrics["objective/entropy"] = entropy.sum() / count
    for name, value in values.items():
        part, parts = value_loss(
            plan.scatter(value, width),
            there(experience.values[name]),
            there(returns[name]),
            mask,
            clip=config.value_clip,
            count=count,
        )
        loss = loss + value_weight * part
        metrics[f"loss/value/{name}"] = parts["loss/value"]
    return loss, metrics


def rows_of(prompts: Sequence[int], samples: int) -> list[int]:
    """Places of the replies to the prompts with these places."""
    return [i * samples + k for i in prompts for k in range(samples)]


def record(config: Ppo, renderer: Renderer, experience: Experience, state: State) -> dict[str, float]:
    """What the rollouts looked like: scores, unclamped KL, lengths, gold where known; adapts β at the end."""
    kl = experience.kl.sum(1)
    metrics = {
        "objective/kl": float(kl.mean()),
        "sqrt_kl": sqrt_kl(float(kl.mean())),
        "objective/scores": float(sum_scores(config, experience).mean()),
        "kl_coefficient": state.kl_coefficient,
        "completions/mean_length": float(experience.mask.sum(1).float().mean()),
        "completions/clipped_ratio": float(np.mean([r.finish == "length" for r in experience.rollouts])),
    }
    slices = sorted({p.slice for p in experience.prompts})
    places = {s: torch.tensor([p.slice == s for p in experience.prompts]) for s in slices}
    for name in config.rewards:
        metrics[f"reward/{name}"] = float(experience.scores[name].mean())
        metrics |= {f"reward/{name}/{s}": float(experience.scores[name][inside].mean()) for s, inside in places.items()}
    for name in config.costs:
        for s, inside in places.items():
            costs = experience.scores[name][inside]
            metrics[f"cost/{name}/{s}/mean"] = float(costs.mean())
            metrics[f"cost/{name}/{s}/unsafe"] = float((costs > 0).float().mean())
    metrics |= gold_means(experience, renderer)
    if config.kl_target:
        state.kl_coefficient = adapt_kl_coefficient(
            state.kl_coefficient,
            float(kl.mean()),
            target=config.kl_target,
            horizon=config.kl_horizon,
            samples=len(kl),
        )
    return metrics


def gold_means(experience: Experience, renderer: Renderer) -> dict[str, float]:
    """Mean gold scores of the batch, where its prompts come from the gold world; for display, never for training."""
    sums: dict[str, list[float]] = {}
    for prompt, rollout in zip(experience.prompts, experience.rollouts, strict=True):
        for name, value in gold_scores(prompt, renderer.text(rollout.ids)).items():
            sums.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in sums.items()}


def add_samples(run: RunFolder, renderer: Renderer, experience: Experience, step: int, *, count: int = 4) -> None:
    """Log a few replies beside their numbers."""
    for prompt, rollout, i in list(zip(experience.prompts, experience.rollouts, range(count), strict=False)):
        reply = renderer.text(rollout.ids)
        run.add_sample(
            {
                "step": step,
                "prompt_id": prompt.id,
                "slice": prompt.slice,
                "prompt": [turn._asdict() for turn in prompt.turns],
                "reply": reply,
                "finish": rollout.finish,
                "kl": float(experience.kl[i].sum()),
                "scores": {name: float(score[i]) for name, score in experience.scores.items()}
                | gold_scores(prompt, reply),
            }
        )


def save_state(state: State) -> dict[str, Any]:
    return {
        "kl_coefficient": state.kl_coefficient,
        "multipliers": {n: [m.integral, m.value] for n, m in state.multipliers.items()},
    }


def restore(saved: Mapping[str, Any]) -> State:
    multipliers = {n: Multiplier(*pair) for n, pair in saved["multipliers"].items()}
    return State(saved["step"], saved["kl_coefficient"], multipliers)
