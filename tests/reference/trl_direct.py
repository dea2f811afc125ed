"""TRL's own numbers for the losses of the direct family, on weights and tokens that are written out here.

`python tests/reference/trl_direct.py` writes trl_direct.json where TRL is installed; the package never needs it. TRL's
collators and trainers compute everything from the token ids on: masks, log-probs, loss, gradient.
"""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch

HERE = Path(__file__).parent
PROMPTS = [[1, 2, 3], [4, 5], [6, 7, 8, 9], [10]]
CHOSEN = [[3, 4, 5, 0], [6, 2, 6, 0], [1, 9, 8, 0], [5, 5, 1, 0]]  # of one length: TRL's `sft` is a mean over tokens
REJECTED = [[7, 8, 0], [2, 3, 1, 10, 0], [4, 0], [9, 1, 0]]
GOOD = [True, False, True, False]  # labels of CHOSEN's first two and REJECTED's last two, for KTO
SINGLES = [CHOSEN[0], CHOSEN[1], REJECTED[2], REJECTED[3]]

# ours: (our keywords, TRL's trainer, TRL's settings)
CASES = {
    "dpo": ({"beta": 0.3}, "dpo", {"loss_types": ["sigmoid"]}),
    "dpo_norm": ({"beta": 2.0}, "dpo", {"loss_types": ["sigmoid_norm"]}),
    "robust": ({"beta": 0.3, "label_smoothing": 0.2}, "dpo", {"loss_types": ["robust"]}),
    "ipo": ({"beta": 0.3}, "dpo", {"loss_types": ["ipo"]}),
    "hinge": ({"beta": 0.3}, "dpo", {"loss_types": ["hinge"]}),
    "exo": ({"beta": 0.3, "label_smoothing": 0.01}, "dpo", {"loss_types": ["exo_pair"]}),
    "sppo": ({"beta": 0.3}, "dpo", {"loss_types": ["sppo_hard"]}),
    "nca": ({"beta": 0.3}, "dpo", {"loss_types": ["nca_pair"]}),
    "bco_pair": ({"beta": 0.3}, "dpo", {"loss_types": ["bco_pair"]}),
    "apo_zero": ({"beta": 0.3}, "dpo", {"loss_types": ["apo_zero"]}),
    "apo_down": ({"beta": 0.3}, "dpo", {"loss_types": ["apo_down"]}),
    "aot": ({"beta": 0.3, "label_smoothing": 0.1}, "dpo", {"loss_types": ["aot"]}),
    "dpo_forward_kl": ({"beta": 0.3}, "dpo", {"loss_types": ["sigmoid"], "f_divergence_type": "forward_kl"}),
    "dpo_js": ({"beta": 0.3}, "dpo", {"loss_types": ["sigmoid"], "f_divergence_type": "js_divergence"}),
    "dpo_alpha": (
        {"beta": 0.3, "alpha": 0.7},
        "dpo",
        {"loss_types": ["sigmoid"], "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3},
    ),
    "nll": ({}, "dpo", {"loss_types": ["sft"]}),
    "kto": ({"beta": 0.3, "good_weight": 1.2, "bad_weight": 0.8}, "kto", {}),
    "simpo": ({"beta": 2.0, "target_margin": 0.5}, "cpo", {}),
    "orpo": ({"beta": 0.3}, "orpo", {}),
}
# MPO (arXiv:2411.10442): a weighted sum
MIX = {"dpo": 0.8, "bco_pair": 0.2, "nll": 1.0}


def model(shift: float, attention: str = "eager") -> torch.nn.Module:
    """A Llama of 11 words whose weights are a sine of their place: the same in every version of everything."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=False,
        attn_implementation=attention,
    )
    made = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for number, (_, parameter) in enumerate(sorted(made.named_parameters())):
            places = torch.arange(parameter.numel(), dtype=torch.float64)
            values = torch.sin(places * 1.7 + number + shift) * 0.5
            parameter.copy_(values.reshape(parameter.shape) + (1.0 if parameter.ndim == 1 else 0.0))
    return made


def gradient(made: torch.nn.Module) -> list[float]:
    """One number per parameter: the sum of its gradient times a sine of the place."""
    out = []
    for _, parameter in sorted(made.named_parameters()):
        flat = parameter.grad.flatten().double()
        out.append(float(flat @ torch.sin(torch.arange(len(flat), dtype=torch.float64) * 0.9 + 1)))
    return out


def trl_loss(name: str, policy: torch.nn.Module, reference: torch.nn.Module) -> torch.Tensor:
    """TRL's loss of one case, on the batch above."""
    ours, trainer, settings = CASES[name]
    return {"dpo": _dpo, "kto": _kto, "cpo": _simpo, "orpo": _odds}[trainer](ours, settings, policy, reference)


def trl_mix(policy: torch.nn.Module, reference: torch.nn.Module) -> torch.Tensor:
    settings = {"loss_types": ["sigmoid", "bco_pair", "sft"], "loss_weights": list(MIX.values())}
    return _dpo({"beta": 0.3}, settings, policy, reference)


def _accelerator() -> SimpleNamespace:
    return SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)


def _trainer(cls: type, **attributes: object) -> object:
    made = object.__new__(cls)
    made.__dict__.update(
        accelerator=_accelerator(),
        aux_loss_enabled=False,
        precompute_ref_logps=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
        **attributes,
    )
    return made


def _with_head(policy: torch.nn.Module, reference: torch.nn.Module) -> None:
    from trl.trainer.utils import add_fused_lm_head

    for made in (policy, reference):
        add_fused_lm_head(made, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))


def _dpo(ours: dict, settings: dict, policy: torch.nn.Module, reference: torch.nn.Module) -> torch.Tensor:
    from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

    _with_head(policy, reference)
    examples = [
        {"prompt_ids": p, "chosen_ids": c, "rejected_ids": r} for p, c, r in zip(PROMPTS, CHOSEN, REJECTED, strict=True)
    ]
    defaults = {"f_divergence_type": "reverse_kl", "f_alpha_divergence_coef": 0.5, "use_weighting": False}
    made = _trainer(
        DPOTrainer,
        model=policy,
        ref_model=reference,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        beta=ours.get("beta", 0.1),
        label_smoothing=ours.get("label_smoothing", 0.0),
        ld_alpha=None,
        **{**defaults, "loss_weights": [1.0], **settings},
    )
    return made._compute_loss(policy, DataCollatorForPreference(pad_token_id=0)(examples), False)


def _kto(ours: dict, settings: dict, policy: torch.nn.Module, reference: torch.nn.Module) -> torch.Tensor:
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer

    _with_head(policy, reference)
    examples = [
        {"prompt_ids": p, "completion_ids": s, "KL_completion_ids": SINGLES[(i + 1) % len(SINGLES)], "label": good}
        for i, (p, s, good) in enumerate(zip(PROMPTS, SINGLES, GOOD, strict=True))
    ]
    made = _trainer(
        KTOTrainer,
        model=policy,
        ref_model=reference,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        beta=ours["beta"],
        desirable_weight=ours["good_weight"],
        undesirable_weight=ours["bad_weight"],
        calculate_KL=True,
        loss_type="kto",
    )
    return made._compute_loss(policy, DataCollatorForUnpairedPreference(pad_token_id=0)(examples), False)


def _mean_logprobs(policy: torch.nn.Module, get_batch_logps: object) -> tuple[torch.Tensor, torch.Tensor]:
    """TRL's mean log-probs of the chosen and the rejected replies, one text at a time."""
    sides = []
    for replies in (CHOSEN, REJECTED):
        rows = []
        for prompt, reply in zip(PROMPTS, replies, strict=True):
            labels = torch.tensor([[-100] * len(prompt) + reply])
            logits = policy(input_ids=torch.tensor([prompt + reply])).logits
            rows.append(get_batch_logps(logits, labels, average_log_prob=True))
        sides.append(torch.cat(rows))
    return sides[0], sides[1]


def _simpo(ours: dict, settings: dict, policy: torch.nn.Module, reference: torch.nn.Module) -> torch.Tensor:
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    made = _trainer(CPOTrainer, beta=ours["beta"], simpo_gamma=ours["target_margin"], loss_type="simpo")
    made.alpha, made.label_smoothing = 0.0, 0.0
    losses, _, _ = made.cpo_loss(*_mean_logprobs(policy, CPOTrainer.get_batch_logps))
    return losses.mean()


def _odds(ours: dict, settings: dict, policy: torch.nn.Module, reference: torch.nn.Module) -> torch.Tensor:
    """The odds-ratio term alone: TRL takes the other over the prompt too."""
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    made = _trainer(ORPOTrainer, beta=ours["beta"])
    return -made.odds_ratio_loss(*_mean_logprobs(policy, ORPOTrainer.get_batch_logps))[0].mean()


def expectations() -> dict:
    """Loss and gradient of every case, and of the mixture, by TRL."""
    import trl

    out: dict = {"trl": trl.__version__, "cases": {}}
    for name in [*CASES, "mix"]:
        policy, reference = model(0.0), model(0.4)
        loss = trl_mix(policy, reference) if name == "mix" else trl_loss(name, policy, reference)
        loss.backward()
        out["cases"][name] = {"loss": loss.item(), "gradient": gradient(policy)}
    return out


if __name__ == "__main__":
    (HERE / "trl_direct.json").write_text(json.dumps(expectations(), indent=None) + "\n")
