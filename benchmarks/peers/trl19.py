"""TRL 1.9.0, the last with a PPO trainer that it keeps (`trl.experimental.ppo`): `python trl19.py TASK FOLDER`."""

import json
import sys
from typing import Any
from unittest.mock import patch

import torch
import transformers
import trl
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

from benchmarks.clock import steps
from benchmarks.peers.setting import FOLDER, ITEMS, OPTIONS, Clock, causal, scorer, settings

Result = dict[str, Any]


def make_trainer(updates: int, clock: Clock) -> Any:
    """Policy, reference, scorer and critic on the workload's weights; one mini-batch, `epochs` passes over it.

    Prompts come in their order, padded on the left as it asks; no reply ends early.
    """
    size = OPTIONS["batch_size"]
    args = PPOConfig(
        **settings(
            max_steps=-1,
            total_episodes=updates * size,
            num_ppo_epochs=OPTIONS["epochs"],
            num_mini_batches=1,
            local_rollout_forward_batch_size=size,
            num_sample_generations=0,
            response_length=OPTIONS["max_new_tokens"],
            temperature=1.0,
            kl_coef=0.05,
            cliprange_value=0.2,
            vf_coef=1.0,  # the critic is a model of its own: its step would differ by Adam's ε alone
        )
    )
    data = Dataset.from_list([{"input_ids": item["prompt"]} for item in ITEMS])
    trainer = PPOTrainer(
        args=args,
        processing_class=TOKENIZER,
        model=causal(),
        ref_model=causal().requires_grad_(False).eval(),
        reward_model=scorer().requires_grad_(False).eval(),
        value_model=scorer(),
        train_dataset=data,
        eval_dataset=data.select(range(size)),
        callbacks=[clock],
    )
    trainer.dataloader = DataLoader(data, batch_size=size, collate_fn=trainer.data_collator)  # shuffled by default
    return trainer


def ppo() -> Result:
    clock = Clock()
    drawn: list[int] = []
    generate = ppo_trainer.batch_generation

    def noted(model: Any, queries: Any, *rest: Any) -> Any:
        both, logits = generate(model, queries, *rest)
        drawn.append(both[:, queries.shape[1] :].numel())
        return both, logits

    with patch.object(ppo_trainer, "batch_generation", noted):
        make_trainer(OPTIONS["steps"], clock).train()
    return {
        "seconds": steps(clock.marks, OPTIONS["warm"]),
        "drawn": sum(drawn),
        "updates": OPTIONS["epochs"] * len(drawn),
    }


def given() -> Result:
    """Two iterations on the workload's own replies instead of drawn ones."""
    clock, size = Clock(), OPTIONS["batch_size"]
    batches = iter([ITEMS[:size], ITEMS[size : 2 * size]])
    advantages: list[list[list[float]]] = []
    whiten = ppo_trainer.masked_whiten

    def as_given(model: Any, queries: Any, _: int, pad: int, generation: Any) -> Any:
        replies = torch.tensor([item["replies"][0] for item in next(batches)], device=queries.device)
        both = torch.cat([queries, replies], 1)
        logits = ppo_trainer.forward(model, both, pad).logits[:, queries.shape[1] - 1 : -1]
        return both, logits / generation.temperature

    def noted(values: Any, mask: Any, **rest: Any) -> Any:
        found = whiten(values, mask, **rest)
        advantages.append(found.tolist())
        return found

    with (
        patch.object(ppo_trainer, "batch_generation", as_given),
        patch.object(ppo_trainer, "masked_whiten", noted),
    ):
        make_trainer(2, clock).train()
    return {
        "advantages": advantages,
        "kl": [row["objective/kl"] for row in clock.logs],
        "scores": [row["objective/scores"] for row in clock.logs],
        "policy_loss": [row["loss/policy_avg"] for row in clock.logs],
        "value_loss": [row["loss/value_avg"] for row in clock.logs],
    }


TASKS = {"ppo": ppo, "given": given}

if __name__ == "__main__":
    torch.set_num_threads(1)
    TOKENIZER = AutoTokenizer.from_pretrained(FOLDER / "model", padding_side="left")
    result = TASKS[sys.argv[1]]()
    versions = {"trl of ppo": trl.__version__, "transformers of its peer": transformers.__version__}
    print(json.dumps({**result, "versions": versions}))
