"""Two rounds of the loop by hand: every stage is a plain function of its config.

    python examples/two_rounds.py OUT_FOLDER

On the gold world: sample from the policy, let simulated people label the replies, train preference and cost models on
all labels so far, improve the policy under a limit, check it; and again from the new policy.
"""

import json
import sys
from pathlib import Path

from accord.stages.evaluate import run as evaluate
from accord.stages.evaluate.config import Evaluate
from accord.stages.online import annotate
from accord.stages.online.config import Annotate
from accord.stages.ppo import run as ppo
from accord.stages.ppo.config import Ppo
from accord.stages.preference import run as preference
from accord.stages.preference.config import Preference
from accord.stages.pretrain import run as pretrain
from accord.stages.pretrain.config import Pretrain
from accord.stages.sample import run as sample
from accord.stages.sample.config import Sample
from accord.stages.sft import run as sft
from accord.stages.sft.config import Sft

SIZES = {"model": "tiny", "documents": 8000, "steps": 400, "demonstrations": 3000, "prompts": 1500, "iterations": 15}


def main(out: Path, sizes: dict = SIZES, *, rounds: int = 2, threads: int = 0) -> list[dict]:
    """Run the rounds below `out`; returns what each round's `limits.json` says."""
    shared = {"seed": 0, "threads": threads}
    base = pretrain.run(
        Pretrain(
            out=str(out / "pretrain"),
            model=sizes["model"],
            data=f"world:corpus?count={sizes['documents']}&seed=0",
            steps=sizes["steps"],
            max_length=160,
            **shared,
        )
    )
    policy = sft.run(
        Sft(
            out=str(out / "sft"),
            model=str(base.snapshot),
            data=f"world:demonstrations?count={sizes['demonstrations']}&seed=0",
            max_length=160,
            **shared,
        )
    ).snapshot
    start, labelled, found = policy, [], []
    for number in range(1, rounds + 1):
        here = out / f"round-{number}"
        replies = sample.run(
            Sample(
                out=str(here / "replies"),
                model=str(policy),
                data=f"world:prompts?count={2 * sizes['prompts']}&seed={number}",
                split="preference",
                samples=2,
                max_new_tokens=40,
                **shared,
            )
        )
        labels = annotate.run(Annotate(out=str(here / "labels"), samples=str(replies.path), **shared))
        labelled.append(labels.path)
        # every round's labels, each under its own name
        helpful = {f"round{i}": str(path / "comparisons-helpful.jsonl") for i, path in enumerate(labelled)}
        harmless = {f"round{i}": str(path / "comparisons-harmless.jsonl") for i, path in enumerate(labelled)}
        safety = {f"round{i}": str(path / "judgements-harmless.jsonl") for i, path in enumerate(labelled)}
        training = {"model": str(start), "max_length": 200, **shared}
        reward = preference.run(Preference(out=str(here / "helpful"), data=helpful, criterion="helpful", **training))
        cost = preference.run(
            Preference(
                out=str(here / "harmless"),
                data=harmless,
                safety_data=safety,
                criterion="harmless",
                role="cost",
                **training,
            )
        )
        improved = ppo.run(
            Ppo(
                out=str(here / "policy"),
                model=str(policy),
                reference=str(start),
                data=f"world:prompts?count={4 * sizes['prompts']}&seed={100 + number}",
                split="policy",
                rewards={"helpful": str(reward.snapshot)},
                costs={"harmless": str(cost.snapshot)},
                limits={"harmless": -0.5},
                limit_slices={"harmless": "harmful,red-team"},
                eval_data=f"world:prompts?count={4 * sizes['prompts']}&seed={200 + number}",
                alarms={"objective/kl": "roll-back above 30", "watch/repetition": "warn above 0.3"},
                steps=sizes["iterations"],
                batch_size=128,
                samples=2,
                mini_batch_size=32,
                learning_rate=4e-4,
                critic="shared",
                max_new_tokens=40,
                max_length=200,
                **shared,
            )
        )
        policy = improved.snapshot
        evaluate.run(
            Evaluate(
                out=str(here / "evaluation"),
                model=str(policy),
                reference=str(start),
                data=f"world:prompts?count={sizes['prompts']}&seed=300",
                split="evaluation",
                rewards={"helpful": str(reward.snapshot)},
                costs={"harmless": str(cost.snapshot)},
                max_new_tokens=40,
                **shared,
            )
        )
        found.append(json.loads((improved.path / "limits.json").read_text()))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
