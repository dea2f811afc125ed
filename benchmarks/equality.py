"""What must be equal before a time means anything. Each judges the first round of both sides."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.harness import Pair, Result

Equality = dict[str, Any]
Judge = Callable[[Pair], Equality]


def training(pair: Pair) -> Equality:
    """Same tokens; in f32 first loss within 1e-4, first gradient norm and fifth loss within 1e-3, all relative."""
    return trained(pair, loss_1=1e-4, grad_norm_1=1e-3, loss_5=1e-3)


def training_bf16(pair: Pair) -> Equality:
    """Same tokens; each side may be 2e-3 off what f32 gives, so the two may be 4e-3 apart."""
    return trained(pair, loss_1=4e-3, grad_norm_1=4e-3, loss_5=4e-3)


def trained(pair: Pair, **bounds: float) -> Equality:
    ours, theirs = pair.ours[0], pair.theirs[0]
    if len(ours["losses"]) < 5:
        raise ValueError("five losses must be equal; give --steps 5 or more")
    gaps = {
        "loss_1": relative(ours["losses"][0], theirs["losses"][0]),
        "grad_norm_1": relative(ours["grad_norms"][0], theirs["grad_norms"][0]),
        "loss_5": relative(ours["losses"][4], theirs["losses"][4]),
    }
    both = {name: (gaps[name], bound) for name, bound in bounds.items()}
    return judged(both, same_tokens=ours["tokens"] == theirs["tokens"])


def greedy(pair: Pair) -> Equality:
    """Both sides' likeliest tokens on the same prompts; near-ties may fall either way, so nearly all must agree."""
    ours, theirs = pair.ours[0]["greedy"], pair.theirs[0]["greedy"]
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    lengths = {side: round(results[0]["tokens"], 1) for side, results in (("ours", pair.ours), ("theirs", pair.theirs))}
    return {"holds": same >= 0.75 * len(ours), "equal_greedy_replies": f"{same}/{len(ours)}", "tokens": lengths}


def group(method: str, samples: int, length: int) -> Judge:
    """Of two steps on given replies: scores, advantages of both, KL after the first, first gradient norm.

    GRPO: the peer divides by the deviation with n − 1, which changes the scale alone. RLOO: our loss is a mean over
    tokens, theirs a sum, `length` times as large. The loss itself is 0 at the first step.
    """

    def judge(pair: Pair) -> Equality:
        ours, theirs = pair.ours[0], pair.theirs[0]
        narrower = math.sqrt(samples / (samples - 1)) if method == "grpo" else 1.0
        shorter = narrower if method == "grpo" else 1.0 / length
        gaps = {
            "scores": (relative(ours["scores"][0], theirs["scores"][0]), 1e-5),
            "advantages_1": (furthest(ours["advantages"][0], theirs["advantages"][0], narrower), 1e-3),
            "advantages_2": (furthest(ours["advantages"][1], theirs["advantages"][1], narrower), 1e-3),
            "grad_norm_1": (relative(ours["grad_norms"][0], theirs["grad_norms"][0] * shorter), 1e-3),
            "kl_2": (relative(ours["kl"][1], theirs["kl"][1]), 5e-2),
        }
        return judged(gaps, **same_work(ours, theirs))

    return judge


def ppo(pair: Pair) -> Equality:
    """Of two iterations on given replies: scores, KL (0 at first), advantages, mean losses over the first's epochs.

    The peer whitens with the deviation with n − 1. It steps one optimizer for policy and critic and weighs the value
    loss 0.1, which Adam divides out again; it does not clip gradients, so neither do we.
    """
    ours, theirs = pair.ours[0], pair.theirs[0]
    tokens = sum(map(len, ours["advantages"][0]))
    wider = math.sqrt(tokens / (tokens - 1))
    gaps = {
        "scores": (relative(ours["scores"][0], theirs["scores"][0]), 1e-4),
        "kl_1": (max(abs(ours["kl"][0]), abs(theirs["kl"][0])), 1e-3),
        "advantages_1": (furthest(ours["advantages"][0], theirs["advantages"][0], wider), 1e-3),
        "value_loss_1": (relative(ours["value_loss"][0], theirs["value_loss"][0]), 1e-3),
        "policy_loss_1": (relative(ours["policy_loss"][0], theirs["policy_loss"][0] * wider), 5e-3),
        "kl_2": (relative(ours["kl"][1], theirs["kl"][1]), 1e-2),
    }
    return judged(gaps, **same_work(ours, theirs))


def same_work(ours: Result, theirs: Result) -> dict[str, bool]:
    """In the rounds each side draws its own replies: equally many tokens, and as many optimizer steps on them."""
    return {f"same_{name}": ours[name] == theirs[name] for name in ("drawn", "updates")}


def alone(pair: Pair) -> Equality:
    """Nothing to be equal to: what is compared is our own, on the same workload."""
    return {"ours alone": True}


def agreement(pair: Pair) -> Equality:
    """The largest ratio of probabilities, beside the mean gap that is measured."""
    return {f"largest_ratio_{name}": float(f"{pair.ours[0][name]['largest_ratio']:.4g}") for name in ("f32", "bf16")}


def acknowledged(pair: Pair) -> Equality:
    """Every answer was acknowledged, and as many stand in the store; the disk's own rate of fsyncs beside."""
    last = pair.ours[-1]
    holds = all(found["kept"] == found["acknowledged"] == found["sent"] for found in pair.ours)
    return {"holds": holds, "p50_ms": round(last["p50"], 1), "fsyncs_a_second": round(last["fsyncs"])}


def shown(pair: Pair) -> Equality:
    """Every page had a question."""
    return {"holds": all(found["shown"] == found["asked"] for found in pair.ours)}


def judged(gaps: Mapping[str, tuple[float, float]], **more: Any) -> Equality:
    """`holds` if every gap is within its bound and every flag is set; and the gaps."""
    holds = all(gap <= bound for gap, bound in gaps.values()) and all(more.values())
    return {"holds": holds, **more, **{name: float(f"{gap:.2g}") for name, (gap, _) in gaps.items()}}


def relative(a: float, b: float) -> float:
    return abs(a - b) / max(abs(b), 1e-12)


def furthest(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], scale: float = 1.0) -> float:
    """Largest difference over the largest of theirs, of lists of one shape; ours are `scale` times theirs."""
    pairs = [(a, b) for row, other in zip(ours, theirs, strict=True) for a, b in zip(row, other, strict=True)]
    return max(abs(a / scale - b) for a, b in pairs) / max(max(abs(b) for _, b in pairs), 1e-12)
