"""TRL's own numbers for a preference model's loss, on scores that are written out here.

`python tests/reference/trl_reward.py` writes trl_reward.json where TRL is installed; the package never needs it.
"""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch

HERE = Path(__file__).parent
CHOSEN = [1.3, -0.4, 0.0, 2.2, -1.5]
REJECTED = [0.2, 0.9, 0.0, -3.0, -1.1]
MARGIN = [0.5, 0.0, 1.5, 2.0, 0.25]
# name: (whether margins are given, TRL's center_rewards_coefficient)
CASES = {"plain": (False, None), "margin": (True, None), "centred": (False, 0.1), "both": (True, 0.01)}


def trl_loss(name: str) -> dict[str, object]:
    """TRL's loss of one case, its gradient by every score, and the accuracy that it logs."""
    from trl import RewardTrainer

    with_margin, coefficient = CASES[name]
    scores = torch.tensor([CHOSEN + REJECTED], dtype=torch.float64).T.requires_grad_(True)
    model = SimpleNamespace(training=True)
    made = object.__new__(RewardTrainer)
    made.__dict__.update(
        model=model,
        args=SimpleNamespace(center_rewards_coefficient=coefficient),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs: dict[str, object] = {"attention_mask": torch.ones(10, 3)}
    if with_margin:
        inputs["margin"] = torch.tensor(MARGIN, dtype=torch.float64)
    loss = made.compute_loss(lambda **_: SimpleNamespace(logits=scores), inputs)
    loss.backward()
    logged = {name: values[-1] for name, values in made._metrics["train"].items()}
    return {
        "loss": float(loss.detach()),
        "gradient": scores.grad.flatten().tolist(),
        "accuracy": logged["accuracy"],
        "margin": logged["margin"],
    }


if __name__ == "__main__":
    import trl

    cases = {name: trl_loss(name) for name in CASES}
    text = json.dumps({"trl": trl.__version__, "cases": cases}, indent=1)
    (HERE / "trl_reward.json").write_text(text + "\n")
    print(text)
