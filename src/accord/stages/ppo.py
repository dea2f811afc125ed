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

from torch import nn

from accord.config import Ppo
from accord.data.batches import batch_indices
from accord.objectives.lagrange import Multiplier
from accord.run import RunFolder
from accord.stages.inputs import save_snapshot
from accord.stages.ppo_actors import prepare
from accord.stages.ppo_limits import move_multipliers
from accord.stages.ppo_record import add_samples, record
from accord.stages.ppo_rollouts import collect
from accord.stages.ppo_shaping import shape
from accord.stages.ppo_state import State, restore, save_state
from accord.stages.ppo_update import improve
from accord.stages.pretrain import POLICY
from accord.training import checkpoint, distributed
from accord.training.optimizer import build_optimizer
from accord.training.progress import Progress


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
