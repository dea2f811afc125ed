"""What a server of `--engine` would draw: the model that it serves, how much it reads, and by which distribution."""

from collections.abc import Sequence

import torch
from torch import nn

from accord.engine.forward.causal import token_logprobs
from accord.engine.packing import pack
from accord.engine.remote.vllm import Server
from accord.engine.texts import rollout_groups
from accord.models.preflight import Diagnosis
from accord.records import Rollout

OFF = 0.02  # nats a token that bf16 does not explain


def engine_finding(server: Server, longest: int, knobs: str) -> Diagnosis:
    """The model it serves, and whether it reads as many tokens as the knobs let prompt and reply have."""
    said = f"{server.url} serves {server.model}"
    if not server.reads:
        return Diagnosis("engine", said)
    said += f" and reads {server.reads} tokens"
    if longest <= server.reads:
        return Diagnosis("engine", said)
    return Diagnosis("engine", f"{said}, and {knobs} is {longest}", "start it with a larger --max-model-len", "wrong")


@torch.no_grad()
def distribution_finding(model: nn.Module, rollouts: Sequence[Rollout]) -> Diagnosis:
    """Whether the log-probs that replies came with are this model's."""
    ours = token_logprobs(model, pack(rollout_groups(rollouts)), temperature=rollouts[0].temperature)
    theirs = torch.tensor([logprob for rollout in rollouts for logprob in rollout.logprobs])
    gap = float((ours - theirs).abs().mean())
    said = f"its log-probs are {gap:.1e} nats a token off this model's"
    if gap <= OFF:
        return Diagnosis("engine", said)
    remedy = "start it on this model with --logprobs-mode processed_logprobs; PPO sends its own weights at every step"
    return Diagnosis("engine", said, remedy, "note")
