"""Policy optimisation on our side: whole iterations of the stage's loop, on prompts in the workload's order.

No reply ends before `max_new_tokens`, so that both sides draw equally many tokens.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from accord.engine import engines
from accord.engine.decode.draw import Finished, SampleSettings
from accord.engine.decode.sampler import sample
from accord.engine.forward.adapters import bare
from accord.engine.forward.causal import token_logprobs
from accord.engine.packing import cut_by_tokens, pack, reply_group
from accord.models.loading import add_adapters
from accord.models.places import read_tokenizer
from accord.models.saving import save_model
from accord.models.scalar import new_scalar
from accord.records import Prompt, Rollout
from accord.stages.ppo import run as stage
from accord.stages.ppo.actors import Actors, prepare
from accord.stages.ppo.config import Ppo
from accord.stages.ppo.experience import Experience
from accord.stages.ppo.state import State, first_state
from accord.stages.ppo.update import Targets, improve
from accord.stages.ppo.watch import Guard
from accord.training.distributed import World
from benchmarks.clock import now, peak_mib, steps
from benchmarks.ours.rates import cache_bytes, rates
from benchmarks.ours.setting import Clocked, Result, items_of, knobs, options, world_of
from benchmarks.workloads import words

NEVER = -1  # no token is the end of a reply


@dataclass
class Loop:
    """The stage's loop between two iterations."""

    config: Ppo
    world: World
    run: Clocked
    prompts: list[Prompt]
    actors: Actors
    optimizers: dict[str, torch.optim.Optimizer]
    guard: Guard
    state: State
    seen: list[tuple[Experience, Targets]] = field(default_factory=list)

    def batch(self) -> list[Prompt]:
        """The next prompts in the workload's order, from the start again after the last."""
        first = self.state.step * self.config.batch_size
        return [self.prompts[i % len(self.prompts)] for i in range(first, first + self.config.batch_size)]

    def iterate(self) -> dict[str, Any]:
        """One iteration with its log; what was learned from is kept in `seen`."""

        def noted(
            config: Any, world: Any, actors: Any, optimizers: Any, experience: Any, targets: Any, run: Any
        ) -> Any:
            self.seen.append((experience, targets))
            return improve(config, world, actors, optimizers, experience, targets, run)

        prompts = self.batch()
        with patch.object(stage, "improve", noted):
            metrics = stage.iterate(
                self.config, self.run, self.world, prompts, self.actors, self.optimizers, self.guard, self.state
            )
        self.state.step += 1
        self.run.log({"step": self.state.step, **metrics})
        return metrics


@contextmanager
def opened(folder: Path, chosen: dict[str, Any]) -> Iterator[Loop]:
    """The stage's actors on the workload's models, before the first iteration."""
    world = world_of(chosen)
    config = Ppo(**policy_knobs(folder, chosen))
    run = Clocked("ppo", config, world.device.type)
    with run:
        prompts, actors = prepare(config, run, world)
        actors.renderer.stops = frozenset({NEVER})
        optimizers = stage.build_optimizers(config, actors)
        guard = Guard(config.rules, actors.policy, quiet=True)
        yield Loop(config, world, run, prompts.training, actors, optimizers, guard, first_state(config))


def policy_knobs(folder: Path, chosen: dict[str, Any]) -> dict[str, Any]:
    """Knobs of `accord ppo` for the options: `method` (gae, rloo, grpo), `limited`, `samples`, epochs, lengths."""
    prompts = folder / "prompts.jsonl"
    texts = [words(item["prompt"]) for item in items_of(folder)]
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    critics = chosen["method"] == "gae"
    scorer = scorer_of(folder, chosen, "preference") if critics else "benchmarks.reward:of_conversations"
    critic = chosen.get("critic", "separate")
    with_critics: dict[str, Any] = {"critic": critic, "value_clip": 0.2} if critics else {}
    if critics and critic == "separate":
        with_critics["critic_learning_rate"] = chosen["learning_rate"]
    in_loss = {"kl_in": "loss", "kl_estimator": "k3"} if chosen["method"] == "grpo" else {}
    limits: dict[str, Any] = {}
    if chosen.get("limited"):
        limits = {"costs": {"harmless": scorer_of(folder, chosen, "cost")}, "limits": {"harmless": 0.0}}
    return {
        **knobs(folder, chosen, "model"),
        **in_loss,
        **limits,
        **with_critics,
        "data": str(prompts),
        "rewards": {"helpful": scorer},
        "steps": 1 + chosen["steps"],
        "samples": chosen["samples"],
        "max_new_tokens": chosen["max_new_tokens"],
        "max_length": 2048,
        "advantages": chosen["method"],
        "kl_coefficient": 0.05,
        "ppo_epochs": chosen["epochs"],
        "mini_batch_size": chosen["batch_size"] * chosen["samples"],
        "clip_norm": 1e9 if critics else 1.0,  # the peer's PPO does not clip gradients
    }


def scorer_of(folder: Path, chosen: dict[str, Any], role: str) -> str:
    """The workload's scorer as a preference or cost model; or, if `one_base` asks so, adapters on its causal model."""
    criterion = {"preference": "helpful", "cost": "harmless"}[role]
    described = {"role": role, "criterion": criterion, "normalizer": {"kind": "none"}}
    where = folder / (f"{role}-on-model" if chosen.get("one_base") else f"{role}-scorer")
    if where.is_dir():
        return str(where)
    if chosen.get("one_base"):
        model = str(folder / "model")
        adapters = Ppo(**knobs(folder, chosen, "model"), rewards={"helpful": str(folder / "scorer")})
        scalar = add_adapters(new_scalar(model, criterion, 0), adapters, scalar=True, seed=0)
        save_model(scalar, read_tokenizer(model), where, described, "")
    else:
        shutil.copytree(folder / "scorer", where)
        (where / "accord.json").write_text(json.dumps(described))
    return str(where)


def group(folder: Path) -> Result:
    """Seconds of whole iterations: sampling, scores, reference, advantages, update, logging."""
    chosen = options(folder)
    with opened(folder, chosen) as loop:
        loop.run.marks.append(now(loop.run.device))
        for _ in range(chosen["steps"]):
            loop.iterate()
        drawn = sum(len(rollout.ids) for experience, _ in loop.seen for rollout in experience.rollouts)
        return {
            "seconds": steps(loop.run.marks, chosen["warm"]),
            "drawn": drawn,
            "updates": sum(row["policy/updates"] for row in loop.run.rows),
            "peak_mib": peak_mib(loop.run.device),
        }


ppo = group


def given(folder: Path) -> Result:
    """Two iterations on the workload's own replies instead of drawn ones: what both sides must make of them."""
    chosen = options(folder)
    replies = {tuple(item["prompt"]): item["replies"][: chosen["samples"]] for item in items_of(folder)}
    with opened(folder, chosen) as loop:
        with patch.object(engines, "sample", as_given(replies)):
            rows = [loop.iterate() for _ in range(2)]
        return {
            "advantages": [in_order(loop, number) for number in range(2)],
            "kl": [row["objective/kl"] for row in rows],
            "scores": [row["objective/scores"] for row in rows],
            "policy_loss": [row["loss/policy"] for row in rows],
            "value_loss": [row.get("loss/value/reward", 0.0) for row in rows],
            "grad_norms": [row["grad_norm/policy"] for row in rows],
        }


def as_given(replies: dict[tuple[int, ...], list[list[int]]]) -> Callable[..., list[Rollout]]:
    """What stands in the place of `sample`: these replies to each prompt, at the log-probs of the training forward."""

    def given_replies(
        model: nn.Module, prompts: Sequence[tuple[int, ...]], settings: SampleSettings, finished: Finished, **_: Any
    ) -> list[Rollout]:
        groups = [reply_group(prompt, *replies[tuple(prompt)]) for prompt in prompts]
        packing = pack(groups).to(next(model.parameters()).device)
        logprobs = packing.scatter(token_logprobs(model, packing, temperature=settings.temperature)).tolist()
        flat = [(group.prefix, reply) for group in groups for reply in group.replies]
        rollouts = [
            Rollout(prompt, reply, tuple(values[: len(reply)]), "length", settings.temperature, settings.version)
            for (prompt, reply), values in zip(flat, logprobs, strict=True)
        ]
        for place in range(len(prompts)):
            finished(place, rollouts[place * settings.n : (place + 1) * settings.n])
        return rollouts

    return given_replies


def in_order(loop: Loop, number: int) -> list[list[float]]:
    """Advantages of an iteration in the workload's order, a list per reply: one number where all are equal."""
    experience, targets = loop.seen[number]
    first = number * loop.config.batch_size
    ids = [loop.actors.renderer.prompt_ids(prompt.turns) for prompt in loop.prompts]
    wanted = [ids[i % len(ids)] for i in range(first, first + loop.config.batch_size)]
    rows: dict[tuple[int, ...], list[Tensor]] = {}
    for rollout, row in zip(experience.rollouts, targets.advantages, strict=True):
        rows.setdefault(rollout.prompt_ids, []).append(row)
    width = None if loop.config.advantages == "gae" else 1
    return [row[:width].tolist() for prompt in wanted for row in rows[prompt]]


def stages(folder: Path) -> Result:
    """Whole iterations, each followed by its stages alone on the same prompts: sampling, every scorer, reference,
    critics, update."""
    chosen = options(folder)
    whole: list[float] = []
    parts: list[dict[str, float]] = []
    with opened(folder, chosen) as loop:
        for _ in range(chosen["steps"]):
            whole.append(seconds_of(loop, loop.iterate))
            parts.append({name: seconds_of(loop, part) for name, part in stages_alone(loop).items()})
        experience = loop.seen[-1][0]
        return {
            "whole": whole[chosen["warm"] :],
            "parts": parts[chosen["warm"] :],
            "prompt_tokens": sum(len(group.prefix) for group in experience.groups),
            "reply_tokens": sum(len(rollout.ids) for rollout in experience.rollouts),
            "replies": len(experience.rollouts),
            "parameters": sum(p.numel() for p in loop.actors.policy.parameters()),
            "scoring_passes": len(loop.actors.scorers) + len(loop.actors.critics.names) + 1,
            "training_passes": 1 + len(loop.actors.critics.names),
            "epochs": loop.config.ppo_epochs,
            "cache_bytes": cache_bytes(bare(loop.actors.policy).config),
            **(rates(loop.run.device) if chosen.get("rates") else {}),
        }


def seconds_of(loop: Loop, work: Callable[[], Any]) -> float:
    started = now(loop.run.device)
    work()
    return now(loop.run.device) - started


def stages_alone(loop: Loop) -> dict[str, Callable[[], Any]]:
    """What the last iteration was made of, by name, each by itself."""
    config, actors, (experience, targets) = loop.config, loop.actors, loop.seen[-1]
    prompts = [group.prefix for group in experience.groups]
    replies = [actors.renderer.text(rollout.ids) for rollout in experience.rollouts]
    packings = [
        pack(part).to(loop.world.device)
        for part in cut_by_tokens(experience.groups, lambda group: group.tokens, config.micro_tokens)
    ]

    def sampling() -> None:
        never = frozenset({NEVER})
        settings = SampleSettings(
            config.samples, config.temperature, config.max_new_tokens, never, seed=loop.state.step
        )
        sample(actors.policy, prompts, settings)

    def scoring(name: str) -> Callable[[], Any]:
        scorer = actors.scorers[name]
        return lambda: scorer.scores(experience.prompts, replies, experience.groups, micro_tokens=config.micro_tokens)

    @torch.no_grad()
    def evaluating(values: Callable[[Any], Any]) -> None:
        with torch.autocast(loop.run.device, torch.bfloat16, enabled=config.precision == "bf16"):
            for packing in packings:
                values(packing)

    return {
        "sampling": sampling,
        **{f"score of {name}": scoring(name) for name in actors.scorers},
        "reference": lambda: evaluating(actors.reference.token_logprobs),
        "critics": lambda: evaluating(lambda packing: actors.critics.values(actors.policy, packing)),
        "update": lambda: improve(config, loop.world, actors, loop.optimizers, experience, targets),
    }
