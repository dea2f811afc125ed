"""What a model needs of this machine: its size, and memory to train it beside what is free."""

import math
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from accord.models.places import describe, read_config, reading
from accord.models.preflight import Diagnosis
from accord.training.memory import free_bytes

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
