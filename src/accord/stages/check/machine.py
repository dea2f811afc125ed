"""What a model needs of this machine: its size, and memory to train it beside what is free."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from accord.engine.forward.causal import token_logprobs
from accord.engine.packing import Group, pack, reply_group
from accord.models.places import describe, read_config, reading
from accord.models.preflight import Diagnosis
from accord.training.distributed import World
from accord.training.machine import needs
from accord.training.memory import MEASURED, free_bytes

GIB = 2**30
# bytes a parameter takes in f32: itself; and with its gradient and AdamW's two moments
WEIGHT, TRAINED = 4, 16


def machine_findings(where: str) -> list[Diagnosis]:
    """Parameters, and memory for every weight, for adapters, and free."""
    kind = AutoModelForCausalLM if describe(where)["role"] == "policy" else AutoModelForSequenceClassification
    config = read_config(where)
    with reading(where, "a model"), torch.device("meta"):
        model: Any = kind.from_config(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    free = free_bytes(device)
    digits = 10 ** (int(math.log10(count)) - 2)
    said = (
        f"{count // digits * digits:,} parameters; weights {count * WEIGHT / GIB:.1f} GiB in f32, "
        f"trained whole {count * TRAINED / GIB:.1f} GiB, before activations; free on {device.type} {free / GIB:.1f} GiB"
    )
    if count * WEIGHT > free:
        return [Diagnosis("memory", said, "take a smaller model or a larger machine", "wrong")]
    if count * TRAINED > free:
        return [Diagnosis("memory", said, "train adapters, --lora_rank N, which leave the weights as they are", "note")]
    return [Diagnosis("memory", said)]


def step_finding(model: nn.Module, longest: int) -> Diagnosis:
    """What supervised training on a text of `longest` tokens takes beside the weights, counted on a shorter one."""
    device = next(model.parameters()).device
    group = reply_group((0,), [0] * (min(longest, MEASURED) - 1))

    def loss(groups: Sequence[Group]) -> Tensor:
        return -token_logprobs(model, pack(groups).to(device)).sum()

    model.train()  # transformers recomputes the layers of a model in training alone
    plain, again = needs(loss, group, [model], World(0, 1, device))
    model.eval()
    activations = plain().per_token * longest
    said = f"a text of {longest} tokens keeps {activations / GIB:.2g} GiB of activations"
    if again is not None:
        activations = again().per_token * longest
        said += f", {activations / GIB:.2g} GiB where layers are computed again"
    if activations > free_bytes(device):
        return Diagnosis("step", said, "give a smaller --max_length, or take a larger machine", "note")
    return Diagnosis("step", said)
