"""Watch for hacking: what changes while the reward rises, and alarms on it.

A policy that exploits its preference model shows it elsewhere first (Zheng et al. 2023, arXiv:2307.04964):
replies that the reference finds odd or too easy, longer, repeating, never ending; scores that a model of the other half
of the data does not share (Bai et al. 2022, section 4.2); a long tail of the reward.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from accord.errors import BadInput
from accord.evaluation.diagnoses import diagnose
from accord.evaluation.metrics import definition
from accord.models.bases import copy_trained
from accord.models.reference import follow
from accord.objectives.masked import masked_mean
from accord.stages.ppo.config import Alarm
from accord.stages.ppo.experience import Experience
from accord.stages.ppo.state import State

ENDING = ("stop", "roll-back")  # actions of an alarm after which nothing more is learned
TAIL = 0.99  # quantile of the first iteration's rewards where the tail begins
SAID = {"means": "it means", "look": "look at", "turn": "to mend it"}  # of a diagnosis, as the log has it
GRAM = 3  # tokens in a row whose return counts as repetition


def watch_metrics(watched: Collection[str], experience: Experience, state: State) -> dict[str, float]:
    """Numbers of the rollouts that part ways with the reward when it is hacked; keeps those of the first iteration.

    `watched` are scorers that are not optimised.
    """
    mask, rewards = experience.mask, experience.reward
    if "tail" not in state.first:
        state.first["tail"] = float(torch.quantile(rewards, TAIL))
        for name, scores in {"reward": rewards, **{n: experience.scores[n] for n in watched}}.items():
            state.first[f"{name}/mean"] = float(scores.mean())
            # one reply, or equal scores, have no deviation to count in
            state.first[f"{name}/deviation"] = float(scores.std(correction=0)) or 1.0
    metrics = {
        "watch/perplexity": float(masked_mean(-experience.reference, mask).exp()),
        "watch/entropy": float(masked_mean(-experience.logprobs, mask)),
        "watch/repetition": sum(repeated(r.ids) for r in experience.rollouts) / len(experience.rollouts),
        "watch/tail": float((rewards > state.first["tail"]).float().mean()),
    }
    risen = (float(rewards.mean()) - state.first["reward/mean"]) / state.first["reward/deviation"]
    for name in watched:
        mean = float(experience.scores[name].mean())
        metrics[f"watch/{name}/score"] = mean
        metrics[f"watch/{name}/gap"] = risen - (mean - state.first[f"{name}/mean"]) / state.first[f"{name}/deviation"]
    return metrics


def repeated(ids: Sequence[int]) -> float:
    """Share of a reply's runs of three tokens that stood in it before; 0 for one too short to repeat itself."""
    runs = [tuple(ids[i : i + GRAM]) for i in range(len(ids) - GRAM + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def refuse_unknown_metrics(rules: Sequence[Alarm]) -> None:
    """Raise BadInput for an alarm on a metric that no iteration logs."""
    for rule in rules:
        if definition(rule.metric) is None:
            raise BadInput(f"--alarms.{rule.metric}: ppo logs no such metric; docs/metrics.md lists them")


class Guard:
    """Looks at every iteration's numbers; keeps the last weights that called for no roll-back."""

    def __init__(self, rules: Sequence[Alarm], policy: nn.Module, *, quiet: bool = False) -> None:
        self.rules, self.quiet = list(rules), quiet
        rolls_back = any(rule.action == "roll-back" for rule in rules)
        self.good = copy_trained(policy) if rolls_back else None

    def look(self, policy: nn.Module, metrics: dict[str, Any], state: State) -> str:
        """The strongest action asked for; rolls the policy back if that is it. Says every alarm and logs it, and when
        one rings for the first time what it means.

        The numbers are those of the policy as it is before this iteration's update, so the weights to go back to are
        those of the last iteration whose numbers did not ask for it.
        """
        rung = ringing(self.rules, metrics)
        metrics["watch/alarms"] = len(rung)
        said = [say(rule, metrics[rule.metric], state.step + 1) for rule in rung]
        state.alarms += said
        for rule, line in zip(rung, said, strict=True):
            new = explained(rule, metrics[rule.metric], state)
            if not self.quiet:
                print("\n".join([line, *(f"  {what}: {words}" for what, words in new.items())]), flush=True)
        action = worst(rung)
        if action in ENDING:
            state.ended = next(line for line, rule in zip(said, rung, strict=True) if rule.action == action)
        if self.good is not None and action == "roll-back":
            follow(policy, self.good, 1.0)
        elif self.good is not None:
            follow(self.good, policy, 1.0)
        return action


def ringing(rules: Sequence[Alarm], metrics: Mapping[str, float]) -> list[Alarm]:
    """The alarms that an iteration's numbers set off. A metric that is not there (a slice not drawn) sets off none."""
    return [rule for rule in rules if rule.metric in metrics and rule.rings(metrics[rule.metric])]


def worst(rung: Sequence[Alarm]) -> str:
    """The strongest action asked for: roll-back, stop, warn, or nothing."""
    return max((rule.action for rule in rung), key=("warn", "stop", "roll-back").index, default="")


def explained(rule: Alarm, value: float, state: State) -> dict[str, str]:
    """What an alarm means, what to look at and what to turn, kept for the report; nothing if that was said before."""
    new = diagnose(rule.metric, rule.side, value)._asdict()
    row = {"metric": rule.metric, "side": rule.side, **new}
    if row in state.diagnoses:
        return {}
    state.diagnoses.append(row)
    return {SAID[field]: words for field, words in new.items()}


def say(rule: Alarm, value: float, step: int) -> str:
    """One alarm in a sentence."""
    return f"alarm at iteration {step}: {rule.metric} is {value:.4g}, {rule.side} {rule.bound:g} ({rule.action})"
