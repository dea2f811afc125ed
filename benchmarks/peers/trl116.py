"""TRL 1.16 in an environment of its own: `python trl116.py TASK FOLDER`."""

import hashlib
import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from statistics import fmean
from typing import Any
from unittest.mock import patch

import torch
import transformers
import trl
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import AutoTokenizer, set_seed
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    RewardConfig,
    RewardTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)

from benchmarks.clock import now, peak_mib, steps
from benchmarks.peers.setting import DEVICE, FOLDER, ITEMS, OPTIONS, Clock, causal, scorer, settings
from benchmarks.reward import of_completions
from benchmarks.workloads import words

Result = dict[str, Any]


def train(trainer: Any) -> Result:
    """Run it on the items in their order; the hash is of the token ids that its own collator made."""
    trainer._get_train_sampler = lambda *_: SequentialSampler(trainer.train_dataset)
    clock = Clock()
    trainer.add_callback(clock)
    texts: list[list[list[int]]] = []
    collate = trainer.data_collator

    def watched(examples: Any) -> Any:
        batch = collate(examples)
        if not texts:
            texts.append(list(texts_of(batch)))
        return batch

    trainer.data_collator = watched
    trainer.train()
    return {
        "seconds": steps(clock.marks, OPTIONS["warm"]),
        "losses": [row["loss"] for row in clock.logs],
        "grad_norms": [row["grad_norm"] for row in clock.logs],
        "tokens": hashlib.sha256(json.dumps(sorted(texts[0])).encode()).hexdigest()[:16],
        "peak_mib": peak_mib(DEVICE),
    }


def texts_of(batch: Any) -> Iterator[list[int]]:
    """The token ids of every text of a batch, padded or flat."""
    if "attention_mask" in batch:
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            yield ids[mask.bool()].tolist()
        return
    for ids, positions in zip(batch["input_ids"], batch["position_ids"], strict=True):
        starts = torch.nonzero(positions == 0).flatten().tolist()
        for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
            yield ids[start:stop].tolist()


def pairs() -> list[tuple[list[int], list[int], list[int]]]:
    """Every pair of a ranking's replies, the earlier the better."""
    return [
        (item["prompt"], a, b)
        for item in ITEMS
        for i, a in enumerate(item["replies"])
        for b in item["replies"][i + 1 :]
    ]


def sft() -> Result:
    rows = []
    for item in ITEMS:
        reply = item["replies"][0]
        rows.append({"input_ids": item["prompt"] + reply, "labels": [-100] * len(item["prompt"]) + reply})
    kind = {"packing": OPTIONS.get("packing", False), "loss_type": "nll"}
    args = SFTConfig(**settings(**kind))
    return train(SFTTrainer(causal(), args, train_dataset=Dataset.from_list(rows), processing_class=TOKENIZER))


def preference() -> Result:
    args = RewardConfig(**settings(center_rewards_coefficient=None))
    rows = Dataset.from_list([{"chosen_ids": p + a, "rejected_ids": p + b} for p, a, b in pairs()])
    return train(RewardTrainer(scorer(), args, train_dataset=rows, processing_class=TOKENIZER))


def dpo() -> Result:
    """Texts, because the trainer ends replies with EOS itself; a reply begins with the space behind the prompt."""
    rows = [{"prompt": words(p), "chosen": f" {words(a)}", "rejected": f" {words(b)}"} for p, a, b in pairs()]
    args = DPOConfig(**settings(beta=0.1, precompute_ref_log_probs=OPTIONS.get("cached", False)))
    model, data = causal(), Dataset.from_list(rows)
    baseline = peak_mib(DEVICE)
    result = train(DPOTrainer(model, args=args, train_dataset=data, processing_class=TOKENIZER))
    return {**result, "extra_mib": peak_mib(DEVICE) - baseline}


def generation() -> Result:
    """`generate` on left-padded prompts, each batch until its last row has ended."""
    model = causal().eval()
    if OPTIONS.get("bf16"):
        model = model.to(torch.bfloat16)
    stops = OPTIONS["stop_ids"] or None
    greedy = generate(model, ITEMS[:8], stops, do_sample=False, limit=OPTIONS["greedy_tokens"])
    seconds, tokens = [], []
    for repeat in range(OPTIONS["repeats"]):
        set_seed(repeat)
        with replies_given() if OPTIONS.get("given") else nullcontext():
            started = now(DEVICE)
            tokens.append(sum(map(len, generate(model, ITEMS, stops, do_sample=True, limit=OPTIONS["max_new_tokens"]))))
            seconds.append((now(DEVICE) - started) / tokens[-1])
    return {"seconds": seconds, "greedy": greedy, "tokens": fmean(tokens) / len(ITEMS)}


def replies_given() -> AbstractContextManager[object]:
    """Tokens are drawn as ever, and the workload's own are taken in their place."""
    own, replies, steps = torch.multinomial, [item["replies"][0] for item in ITEMS], itertools.count()

    def tokens(*args: Any, **knobs: Any) -> torch.Tensor:
        drawn, step = own(*args, **knobs), next(steps)
        return torch.tensor([[reply[step] if step < len(reply) else 0] for reply in replies], device=drawn.device)

    return patch.object(torch, "multinomial", tokens)


def generate(model: Any, items: Any, stops: list[int] | None, *, do_sample: bool, limit: int) -> list[list[int]]:
    width = max(len(item["prompt"]) for item in items)
    ids = torch.tensor([[0] * (width - len(item["prompt"])) + item["prompt"] for item in items])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in (item["prompt"] for item in items)])
    kind = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if do_sample else {"do_sample": False}
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids.to(DEVICE),
            attention_mask=mask.to(DEVICE),
            max_new_tokens=limit,
            pad_token_id=0,
            use_cache=True,
            eos_token_id=stops,
            **kind,
        )
    replies = []
    for row in out[:, width:].tolist():
        end = next((i + 1 for i, token in enumerate(row) if token in (stops or ())), len(row))
        replies.append(row[:end])
    return replies


def group_trainer(steps: int) -> Any:
    """RLOO or GRPO with a reward that costs nothing, on-policy: one optimizer step per generation, no reply ends early.

    GRPO with the loss of its paper and a KL term, as ours; RLOO has KL in its reward by default.
    """
    common: dict[str, Any] = {
        "max_steps": steps,
        "per_device_train_batch_size": OPTIONS["batch_size"] * OPTIONS["samples"],
        "num_generations": OPTIONS["samples"],
        "max_completion_length": OPTIONS["max_new_tokens"],
        "temperature": 1.0,
        "beta": 0.05,
        "shuffle_dataset": False,
        "generation_kwargs": {"suppress_tokens": [TOKENIZER.eos_token_id]},
    }
    method = OPTIONS["method"]
    args = RLOOConfig(**settings(**common)) if method == "rloo" else GRPOConfig(**settings(**common, loss_type="grpo"))
    return (RLOOTrainer if method == "rloo" else GRPOTrainer)(
        model=causal(),
        reward_funcs=of_completions,
        args=args,
        train_dataset=Dataset.from_list([{"prompt": words(item["prompt"])} for item in ITEMS]),
        processing_class=TOKENIZER,
    )


def group() -> Result:
    trainer, clock = group_trainer(OPTIONS["steps"]), Clock()
    trainer.add_callback(clock)
    trainer.train()
    drawn = sum(row["completions/mean_length"] for row in clock.logs) * OPTIONS["batch_size"] * OPTIONS["samples"]
    return {"seconds": steps(clock.marks, OPTIONS["warm"]), "drawn": round(drawn), "updates": len(clock.logs)}


def given() -> Result:
    """Two steps on the workload's own replies instead of drawn ones."""
    trainer, clock = group_trainer(2), Clock()
    trainer.add_callback(clock)
    size = OPTIONS["batch_size"]
    parts = iter([ITEMS[:size], ITEMS[size : 2 * size]])
    advantages: list[list[list[float]]] = []
    score = trainer._generate_and_score_completions

    def noted(inputs: Any) -> Any:
        output = score(inputs)
        advantages.append([[value] for value in output["advantages"].flatten().tolist()])
        return output

    with (
        patch.object(trainer, "_generate_single_turn", lambda *_, **__: given_replies(next(parts))),
        patch.object(trainer, "_generate_and_score_completions", noted),
    ):
        trainer.train()
    length = OPTIONS["max_new_tokens"]
    return {
        "advantages": advantages,
        "kl": [row["kl"] * length for row in clock.logs],
        "scores": [row["reward"] for row in clock.logs],
        "policy_loss": [row["loss"] for row in clock.logs],
        "grad_norms": [row["grad_norm"] for row in clock.logs],
    }


def given_replies(items: list[dict[str, Any]]) -> Any:
    """As `_generate_single_turn` answers: ids, and for GRPO the log-probs that there are none of."""
    replies = [reply for item in items for reply in item["replies"][: OPTIONS["samples"]]]
    return replies if OPTIONS["method"] == "rloo" else (replies, None)


TASKS = {
    "sft": sft,
    "preference": preference,
    "dpo": dpo,
    "generation": generation,
    "group": group,
    "given": given,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    TOKENIZER = AutoTokenizer.from_pretrained(FOLDER / "model")
    result = TASKS[sys.argv[1]]()
    versions = {"trl": trl.__version__, "peer transformers": transformers.__version__, "peer torch": torch.__version__}
    print(json.dumps({**result, "versions": versions}))
