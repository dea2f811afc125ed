"""The peer's side, TRL 1.16 in an environment of its own: `python peer_trl.py TASK FOLDER`; imports nothing of ours.

Its best documented settings for a CPU: no gradient checkpointing, fused AdamW, f32 unless the options say bf16.
"""

import hashlib
import json
import resource
import sys
import time
from pathlib import Path

import torch
import transformers
import trl
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
    set_seed,
)
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, RLOOConfig, RLOOTrainer, SFTConfig, SFTTrainer

torch.set_num_threads(1)
FOLDER = Path(sys.argv[2])
OPTIONS = json.loads((FOLDER / "options.json").read_text())
ITEMS = json.loads((FOLDER / "items.json").read_text())


class Clock(TrainerCallback):
    """CPU time between the ends of two steps: collation, forward, backward, clip, optimizer and logging."""

    def __init__(self):
        self.marks, self.losses, self.grad_norms = [], [], []

    def on_step_end(self, args, state, control, **kwargs):
        self.marks.append(time.process_time())

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])
            self.grad_norms.append(float(logs["grad_norm"]))


def words(ids):
    return "".join(f" w{i}" if i > 2 else " <eos>" for i in ids)


def settings(**more):
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
        "max_length": 512,
        "bf16": OPTIONS.get("bf16", False),
        "gradient_checkpointing": False,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **more,
    }


def causal():
    return AutoModelForCausalLM.from_pretrained(FOLDER / "model", dtype=torch.float32)


def pairs():
    """Every pair of a ranking's replies, the earlier the better."""
    return [
        (item["prompt"], a, b)
        for item in ITEMS
        for i, a in enumerate(item["replies"])
        for b in item["replies"][i + 1 :]
    ]


def pair_texts():
    """The trainer ends replies with EOS itself."""
    rows = [{"prompt": words(p)[1:], "chosen": words(a), "rejected": words(b)} for p, a, b in pairs()]
    return Dataset.from_list(rows)


def train(trainer):
    """Run it on the items in their order; the hash is of the token ids that its own collator made."""
    trainer._get_train_sampler = lambda *_: SequentialSampler(trainer.train_dataset)
    clock = Clock()
    trainer.add_callback(clock)
    texts = []
    collate = trainer.data_collator

    def watched(examples):
        batch = collate(examples)
        if len(texts) < 1:
            texts.append(
                [i[m.bool()].tolist() for i, m in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
            )
        return batch

    trainer.data_collator = watched
    trainer.train()
    steps = [b - a for a, b in zip(clock.marks, clock.marks[1:], strict=False)]
    return {
        "seconds": steps[OPTIONS["warm"] :],
        "losses": clock.losses,
        "grad_norms": clock.grad_norms,
        "tokens": hashlib.sha256(json.dumps(sorted(texts[0])).encode()).hexdigest()[:16],
    }


def sft():
    rows = []
    for item in ITEMS:
        reply = item["replies"][0]
        rows.append({"input_ids": item["prompt"] + reply, "labels": [-100] * len(item["prompt"]) + reply})
    args = SFTConfig(**settings(packing=OPTIONS.get("packing", False), loss_type=OPTIONS.get("loss_type", "nll")))
    return train(SFTTrainer(causal(), args, train_dataset=Dataset.from_list(rows), processing_class=TOKENIZER))


def preference():
    model = AutoModelForSequenceClassification.from_pretrained(FOLDER / "scorer", dtype=torch.float32)
    args = RewardConfig(**settings(center_rewards_coefficient=None))
    rows = Dataset.from_list([{"chosen_ids": p + a, "rejected_ids": p + b} for p, a, b in pairs()])
    return train(RewardTrainer(model, args, train_dataset=rows, processing_class=TOKENIZER))


def dpo():
    args = DPOConfig(**settings(beta=0.1, precompute_ref_log_probs=OPTIONS.get("cached", False)))
    model, data = causal(), pair_texts()
    baseline = peak()
    result = train(DPOTrainer(model, args=args, train_dataset=data, processing_class=TOKENIZER))
    return {**result, "extra_mib": peak() - baseline}


def peak():
    """Largest resident memory so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def generation():
    """`generate` on left-padded prompts, each batch until its last row has ended."""
    model = causal().eval()
    stops = OPTIONS["stop_ids"] or None
    greedy = generate(model, ITEMS[:8], stops, do_sample=False, limit=OPTIONS["greedy_tokens"])
    seconds, tokens = [], 0
    for repeat in range(OPTIONS["repeats"]):
        set_seed(repeat)
        started = time.process_time()
        tokens = sum(map(len, generate(model, ITEMS, stops, do_sample=True, limit=OPTIONS["max_new_tokens"])))
        seconds.append((time.process_time() - started) / tokens)
    return {"seconds": seconds, "greedy": greedy, "tokens": tokens / len(ITEMS)}


def generate(model, items, stops, *, do_sample, limit):
    width = max(len(item["prompt"]) for item in items)
    ids = torch.tensor([[0] * (width - len(item["prompt"])) + item["prompt"] for item in items])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in (item["prompt"] for item in items)])
    kind = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if do_sample else {"do_sample": False}
    ends = {"eos_token_id": stops} if stops else {"eos_token_id": None}
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=limit, pad_token_id=0, use_cache=True, **ends, **kind
        )
    replies = []
    for row in out[:, width:].tolist():
        end = next((i + 1 for i, token in enumerate(row) if token in (stops or ())), len(row))
        replies.append(row[:end])
    return replies


def group():
    """RLOO with a reward that costs nothing, on-policy: one optimizer step per generation."""
    args = RLOOConfig(
        **settings(
            num_generations=OPTIONS["samples"],
            max_completion_length=OPTIONS["max_new_tokens"],
            temperature=1.0,
            beta=0.05,
            max_length=None,
        )
    )
    rows = [{"prompt": words(item["prompt"])[1:]} for item in ITEMS]
    trainer = RLOOTrainer(
        model=causal(),
        reward_funcs=lambda completions, **_: [float(len(text) % 7) for text in completions],
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=TOKENIZER,
    )
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    steps = [b - a for a, b in zip(clock.marks, clock.marks[1:], strict=False)]
    return {"seconds": steps[OPTIONS["warm"] :], "losses": clock.losses}


TASKS = {
    "sft": sft,
    "preference": preference,
    "ranking": preference,
    "dpo": dpo,
    "generation": generation,
    "group": group,
}

if __name__ == "__main__":
    TOKENIZER = AutoTokenizer.from_pretrained(FOLDER / "model")
    result = TASKS[sys.argv[1]]()
    versions = {"trl": trl.__version__, "peer transformers": transformers.__version__, "peer torch": torch.__version__}
    print(json.dumps({**result, "versions": versions}))
