"""What the peers' programs share: the workload, a clock, the trainer's settings. Imports nothing of the package."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerCallback

from benchmarks.clock import now

FOLDER = Path(sys.argv[2])
OPTIONS: dict[str, Any] = json.loads((FOLDER / "options.json").read_text())
ITEMS: list[dict[str, Any]] = json.loads((FOLDER / "items.json").read_text())
DEVICE: str = OPTIONS.get("device", "cpu")


class Clock(TrainerCallback):
    """Time between the ends of two steps: generation, collation, forward, backward, clip, optimizer and logging."""

    def __init__(self) -> None:
        self.marks: list[float] = []
        self.logs: list[dict[str, float]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.marks.append(now(DEVICE))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.marks.append(now(DEVICE))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "train_runtime" not in logs:
            self.logs.append({name: float(value) for name, value in logs.items()})


def settings(**more: Any) -> dict[str, Any]:
    """Its best documented settings for this work: no gradient checkpointing, fused AdamW, f32 unless bf16 is asked."""
    return {
        "output_dir": str(FOLDER / "peer-out"),
        "max_steps": OPTIONS["steps"],
        "per_device_train_batch_size": OPTIONS.get("peer_batch_size", OPTIONS["batch_size"]),
        "learning_rate": OPTIONS["learning_rate"],
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "adam_beta2": 0.95,
        "optim": "adamw_torch_fused",
        "max_grad_norm": 1.0,
        "bf16": OPTIONS.get("bf16", False),
        "gradient_checkpointing": False,
        "use_cpu": DEVICE == "cpu",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **more,
    }


def causal() -> Any:
    return adapted(AutoModelForCausalLM.from_pretrained(FOLDER / "model", dtype=torch.float32).to(DEVICE))


def scorer() -> Any:
    model = AutoModelForSequenceClassification.from_pretrained(FOLDER / "scorer", dtype=torch.float32).to(DEVICE)
    return adapted(model, scalar=True)


def adapted(model: Any, *, scalar: bool = False) -> Any:
    """The model under the adapters that both sides begin with, where the options ask for some."""
    if not OPTIONS.get("lora_rank"):
        return model
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    kind = {"task_type": "SEQ_CLS", "modules_to_save": ["score"]} if scalar else {"task_type": "CAUSAL_LM"}
    return get_peft_model(
        model, LoraConfig(r=OPTIONS["lora_rank"], lora_alpha=16.0, target_modules="all-linear", **kind)
    )
