"""PPO with a KL penalty to a reference; with limits, constrained PPO. One loop for both.

    1. collect   sample replies; score them; KL to the reference; values
    2. multiply  λ of every limit moves once, by the mean raw cost, or calibrated unsafe share, on its slice
    3. watch     the numbers of these rollouts; an alarm may end the run here
    4. shape     streams r − β·kl and c + β·kl → advantages per signal → A = (A_r − Σ λ_i A_i) / (1 + Σ λ_i)
    5. improve   clipped surrogate, KL and clipped value losses over mini-batches

After Ouyang et al. 2022 (arXiv:2203.02155), Bai et al. 2022 (arXiv:2204.05862) and, with limits, Dai et al. 2023 (Safe
RLHF, arXiv:2310.12773). Departures: KL stands in the streams with opposite signs, so λ never changes its weight;
limits are held on named slices; multipliers move by a proportional-integral rule in log space unless asked otherwise;
only the combined advantage is whitened; PPO without limits is the same loop with no costs.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from accord.models.bases import lower_frozen
from accord.models.places import POLICY
from accord.models.reference import follow
from accord.records import Prompt
from accord.run import RunFolder
from accord.stages.ppo.actors import Actors, Prompts, prepare
from accord.stages.ppo.advantages import compute_advantages
from accord.stages.ppo.config import Ppo
from accord.stages.ppo.limits import check_limits, hold_multipliers, move_multipliers
from accord.stages.ppo.log import add_samples, importance_metrics, rollout_metrics
from accord.stages.ppo.memory import imagined_pass, settle_actors
from accord.stages.ppo.rollouts import collect
from accord.stages.ppo.state import State, first_state, move_kl_coefficient, restore, save_state
from accord.stages.ppo.update import Targets, improve
from accord.stages.ppo.watch import ENDING, Guard, refuse_unknown_metrics, watch_metrics
from accord.stages.rewards import parents_of
from accord.stages.shared import open_run, save_snapshot
from accord.training import checkpoint, distributed
from accord.training.compilation import Compilation
from accord.training.distributed import World
from accord.training.optimizer import build_optimizer
from accord.training.order import batch_indices
from accord.training.progress import Progress
from accord.training.shards import shard, whole


def run(config: Ppo) -> RunFolder:
    """Optimise a snapshot against preference models, under limits if there are any; leaves a policy snapshot."""
    parents = {"model": config.model, "reference": config.reference or config.model}
    parents |= {f"reward.{n}": p for n, p in config.rewards.items()} | {f"cost.{n}": p for n, p in config.costs.items()}
    parents |= {f"watch.{n}": p for n, p in config.watch.items()}
    parents |= parents_of({**config.rewards, **config.watch}, config.labels)
    with open_run("ppo", config, parents) as run, ExitStack() as opened:
        if run.finished:
            return run
        world = distributed.start(run.threads, shard=config.shard)
        refuse_unknown_metrics(config.rules)
        state = first_state(config)
        prompts, actors = prepare(config, run, world)
        opened.enter_context(actors.journal)
        opened.callback(actors.engine.close)
        config = settle_actors(config, run, world, prompts.training, actors)
        lower_frozen(actors.models, config.precision, config.base_bits)
        guard = Guard(config.rules, actors.policy, quiet=not world.is_main)
        modules = trained_modules(config, actors, guard)
        for module in (*actors.frozen, *modules.values()):
            shard(module, world)
        optimizers = build_optimizers(config, actors)
        if (saved := checkpoint.latest(run.path / "checkpoints")) is not None:
            stored = checkpoint.load(saved, modules, optimizers)
            state = restore(stored)
            actors.in_flight.restore(stored, world)
        run.truncate_logs(state.step)
        due = checkpoint.Due(config.checkpoint_every, config.checkpoint_minutes)
        compilation = Compilation(run, world, [actors.policy, actors.critics], sharded=world.sharded)
        progress = Progress("ppo", config.steps, first=state.step, quiet=not world.is_main)
        while state.step < config.steps and not state.ended:
            started = time.perf_counter()
            world.at(f"iteration {state.step + 1}")
            metrics = iterate(config, run, world, prompts.training, actors, optimizers, guard, state)
            state.step += 1
            left = (config.steps - state.step) * (time.perf_counter() - started)
            if world.is_main:
                run.log({"step": state.step, **metrics})
            shown = ("objective/scores", "objective/kl", *(f"cost/{n}/mean" for n in config.costs))
            progress.update(state.step, {name: metrics[name] for name in shown if name in metrics})
            compilation.consider(left, *imagined_pass(config, actors, prompts.training, state.step, world.device))
            asked = zip(*world.gather((due.after(state.step), run.stop_requested)), strict=True)
            saves, stop = (any(ranks) for ranks in asked)
            more = state.step < config.steps and not state.ended
            if saves or stop or not more:
                kept = save_state(state) | (actors.in_flight.saved(world, config.samples) if more else {})
                if world.is_main or world.sharded:
                    checkpoint.save(run.path / "checkpoints", state.step, modules, optimizers, kept)
            if stop and more:
                raise run.interrupted(state.step)
        if guard.good is not None and not state.ended:
            last_look(config, world, prompts.training, actors, guard, state)
        actors.engine.close()  # before the files of the run are hashed
        optimizers.clear()  # states go before whole weights come
        with whole(actors.result) as result:
            limits = check_limits(config, run, world, actors, result, prompts.held_out) if prompts.held_out else {}
            if world.is_main:
                finish(config, run, prompts, actors, result, limits, state)
        return run


def iterate(
    config: Ppo,
    run: RunFolder,
    world: World,
    prompts: Sequence[Prompt],
    actors: Actors,
    optimizers: dict[str, torch.optim.Optimizer],
    guard: Guard,
    state: State,
) -> dict[str, Any]:
    """One iteration; returns its metrics. An alarm that stops the run ends it before anything is learned."""
    if actors.following is not None and state.step and state.step % config.refresh_every == 0:
        follow(actors.following, actors.policy, config.refresh_mix)
    ahead = config.off_policy_steps and state.step + 1 < config.steps
    following = prompts_of(config, prompts, state.step + 1) if ahead else []
    experience = collect(config, world, actors, prompts_of(config, prompts, state.step), state, following)
    warming = state.step < config.critic_warmup
    metrics = (hold_multipliers if warming else move_multipliers)(config, actors.limits, experience, state)
    metrics |= rollout_metrics(actors, experience, state) | importance_metrics(experience)
    metrics |= watch_metrics(config.watch, experience, state)
    if world.is_main:
        add_samples(run, actors.renderer, experience, state.step + 1)
    if ends(actors, guard.look(actors.policy, metrics, state)):
        return metrics
    advantages, returns, shaped = compute_advantages(config, experience, state)
    targets = Targets(advantages, returns, state.kl_coefficient, state.step)
    metrics |= shaped | improve(config, world, actors, optimizers, experience, targets, run)
    if not warming:
        move_kl_coefficient(config, experience, state, config.steps)
    if actors.average is not None:
        follow(actors.average, actors.policy, 1 - config.weight_average)
    return metrics


def prompts_of(config: Ppo, prompts: Sequence[Prompt], step: int) -> list[Prompt]:
    """The prompts of an iteration, a pure function of its number."""
    return [prompts[i] for i in batch_indices(step, len(prompts), config.batch_size, config.seed)]


def ends(actors: Actors, action: str) -> bool:
    """Whether an alarm's action ends the run; after a roll-back the average is those weights too."""
    if action == "roll-back" and actors.average is not None:
        follow(actors.average, actors.policy, 1.0)
    return action in ENDING


def last_look(config: Ppo, world: World, prompts: Sequence[Prompt], actors: Actors, guard: Guard, state: State) -> None:
    """Rollouts of the policy after its last step, where a rule can roll back: no step goes unwatched."""
    experience = collect(config, world, actors, prompts_of(config, prompts, state.step), state)
    metrics = hold_multipliers(config, actors.limits, experience, state) | rollout_metrics(actors, experience, state)
    ends(actors, guard.look(actors.policy, metrics | watch_metrics(config.watch, experience, state), state))


def build_optimizers(config: Ppo, actors: Actors) -> dict[str, torch.optim.Optimizer]:
    """One for the policy, one for the critics if there are any."""
    bits = config.optimizer_bits
    optimizers = {"policy": build_optimizer(actors.policy.parameters(), weight_decay=config.weight_decay, bits=bits)}
    if actors.critics.names:
        optimizers["critics"] = build_optimizer(actors.critics.parameters(), weight_decay=0.0, bits=bits)
    return optimizers


def trained_modules(config: Ppo, actors: Actors, guard: Guard) -> dict[str, nn.Module]:
    """Every module that changes: what a checkpoint holds."""
    modules = {"policy": actors.policy, "critics": actors.critics, "reference": actors.following}
    modules |= {"average": actors.average, "good": guard.good}
    return {name: module for name, module in modules.items() if module is not None}


def finish(
    config: Ppo,
    run: RunFolder,
    prompts: Prompts,
    actors: Actors,
    policy: nn.Module,
    limits: Mapping[str, Any],
    state: State,
) -> None:
    """Save the policy and what was found of the limits on held-out prompts, close the run."""
    facts: dict[str, Any] = {"rewards": dict(config.rewards), "limits": dict(config.limits), "parent": config.model}
    facts |= {"limit_of": {name: limit.of for name, limit in actors.limits.items()}} if actors.limits else {}
    verdicts = {name: found["verdict"] for name, found in limits.items()}
    facts |= {"verdicts": verdicts} if verdicts else {}
    save_snapshot(run, policy, actors.renderer.tokenizer, POLICY, facts, [*prompts.training, *prompts.shown])
    run.finish(
        multipliers={n: m.value for n, m in state.multipliers.items()},
        multiplier_integrals={n: m.integral for n, m in state.multipliers.items()},
        kl_coefficient=state.kl_coefficient,
        **({"limits": limits} if limits else {}),
        **({"ended": state.ended} if state.ended else {}),
        **({"alarms": state.alarms, "diagnoses": state.diagnoses} if state.alarms else {}),
    )
