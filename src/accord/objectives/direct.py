"""The direct family: DPO and its relatives, losses on comparisons without a preference model, by name.

All take `Pairs` (N chosen and rejected replies) and return the weighted mean over pairs, Σ w · l / count, with the
metrics of `reward_metrics`; `count` is the sum of the weights in the whole optimizer batch. In the formulas
a_w = log π(y_w|x) / π_ref(y_w|x), a_l likewise, h = a_w − a_l, σ the logistic function; `reduction` says whether
they are sums or means over a reply's tokens, and its default is the paper's. Labels of unpaired replies and
rankings are in `direct_unpaired`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from accord.objectives.direct_unpaired import Losses, bco, kto, plackett_luce
from accord.objectives.implicit import Reduction, reduce, reward_metrics


@dataclass(frozen=True, slots=True)
class Pairs:
    """N comparisons, all (N,): summed log-probs of policy and reference, tokens of each reply, weight, margin.

    A K-wise ranking gives its pairs with a weight of 1 / number of pairs each. `margin` is what the labeler's
    strength (or another objective) asks of the reward difference; 0 asks nothing. The logistic losses subtract it.
    Without a reference its log-probs are 0.
    """

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    weights: Tensor
    margin: Tensor

    def log_ratios(self, reduction: Reduction) -> tuple[Tensor, Tensor]:
        """a_w and a_l."""
        return (
            reduce(self.chosen - self.reference_chosen, self.chosen_tokens, reduction),
            reduce(self.rejected - self.reference_rejected, self.rejected_tokens, reduction),
        )

    def logprobs(self, reduction: Reduction) -> tuple[Tensor, Tensor]:
        """log π(y_w|x) and log π(y_l|x)."""
        return (
            reduce(self.chosen, self.chosen_tokens, reduction),
            reduce(self.rejected, self.rejected_tokens, reduction),
        )


Count = Tensor | float


def dpo(pairs: Pairs, *, beta: float = 0.1, reduction: Reduction = "sum", count: Count) -> Losses:
    """−log σ(β h − margin): Rafailov et al. 2023 (arXiv:2305.18290) eq. 7.

    With a margin: Amini et al. 2024 (ODPO, arXiv:2402.10571). TRL's `sigmoid` (no margin).
    """
    a_w, a_l = pairs.log_ratios(reduction)
    return _logistic("dpo", pairs, beta, a_w, a_l, count)


def dpo_norm(pairs: Pairs, *, beta: float = 5.0, reduction: Reduction = "mean", count: Count) -> Losses:
    """−log σ(β (a_w/n_w − a_l/n_l) − margin): length-normalised DPO, Lambert et al. 2024 (Tülu 3).

    arXiv:2411.15124, section 5. β is on the scale of a token. TRL's `sigmoid_norm`.
    """
    a_w, a_l = pairs.log_ratios(reduction)
    return _logistic("dpo_norm", pairs, beta, a_w, a_l, count)


def dpo_length(
    pairs: Pairs, *, beta: float = 0.1, length_penalty: float = 0.01, reduction: Reduction = "sum", count: Count
) -> Losses:
    """−log σ(β h + α (n_w − n_l) − margin): Park et al. 2024 (R-DPO, arXiv:2403.19159).

    The policy maximises r − α n with n the reply's tokens, so that a longer winner's length explains part of its
    win, and it gets less gradient.
    """
    a_w, a_l = pairs.log_ratios(reduction)
    length = length_penalty * (pairs.chosen_tokens - pairs.rejected_tokens)
    values = -F.logsigmoid(beta * (a_w - a_l) + length - pairs.margin)
    return _finish("dpo_length", values, pairs, beta * a_w, beta * a_l, count)


def cdpo(
    pairs: Pairs, *, beta: float = 0.1, label_smoothing: float = 0.1, reduction: Reduction = "sum", count: Count
) -> Losses:
    """−(1 − ε) log σ(β h) − ε log σ(−β h): Mitchell 2023, "A note on DPO with noisy preferences".

    The gradient is 0 at σ(β h) = 1 − ε. TRL 1.16 has none: its `sigmoid` does not read label_smoothing.
    """
    a_w, a_l = pairs.log_ratios(reduction)
    values = _smoothed(beta * (a_w - a_l), label_smoothing)
    return _finish("cdpo", values, pairs, beta * a_w, beta * a_l, count)


def robust(
    pairs: Pairs, *, beta: float = 0.1, label_smoothing: float = 0.1, reduction: Reduction = "sum", count: Count
) -> Losses:
    """[−(1 − ε) log σ(β h) + ε log σ(−β h)] / (1 − 2ε): Chowdhury et al. 2024 (arXiv:2403.00409).

    Unbiased where a share ε < ½ of the labels is turned round; not bounded below. TRL's `robust`.
    """
    a_w, a_l = pairs.log_ratios(reduction)
    logits = beta * (a_w - a_l)
    clean, flipped = -F.logsigmoid(logits), -F.logsigmoid(-logits)
    values = ((1 - label_smoothing) * clean - label_smoothing * flipped) / (1 - 2 * label_smoothing)
    return _finish("robust", values, pairs, beta * a_w, beta * a_l, count)


def ipo(pairs: Pairs, *, beta: float = 0.1, reduction: Reduction = "mean", count: Count) -> Losses:
    """(h − 1 / (2 τ))², τ = `beta`: Azar et al. 2023 (arXiv:2310.12036) eq. 17.

    The mean over tokens is what its authors used, and TRL's `ipo` too; eq. 17 as printed is `reduction="sum"`.
    """
    a_w, a_l = pairs.log_ratios(reduction)
    values = (a_w - a_l - 1 / (2 * beta)) ** 2
    return _finish("ipo", values, pairs, beta * a_w, beta * a_l, count)


def hinge(pairs: Pairs, *, beta: float = 0.1, reduction: Reduction = "sum", count: Count) -> Losses:
    """max(0, 1 − β h): Liu et al. 2023 (RSO, arXiv:2309.06657), after SLiC (arXiv:2305.10425). TRL's `hinge`."""
    a_w, a_l = pairs.log_ratios(reduction)
    values = torch.relu(1 - beta * (a_w - a_l))
    return _finish("hinge", values, pairs, beta * a_w, beta * a_l, count)


def exo(
    pairs: Pairs, *, beta: float = 0.1, label_smoothing: float = 1e-3, reduction: Reduction = "sum", count: Count
) -> Losses:
    """KL(p ‖ q), p = (σ(β h), σ(−β h)), q = (1 − ε, ε): Ji et al. 2024 (EXO, arXiv:2402.00856) eq. 16 for K = 2.

    `label_smoothing` ε must lie in (0, ½): log ε is infinite at 0. TRL's `exo_pair`.
    """
    a_w, a_l = pairs.log_ratios(reduction)
    logits = beta * (a_w - a_l)
    epsilon = torch.tensor(label_smoothing, dtype=logits.dtype, device=logits.device)
    values = torch.sigmoid(logits) * (F.logsigmoid(logits) - torch.log1p(-epsilon))
    values = values + torch.sigmoid(-logits) * (F.logsigmoid(-logits) - torch.log(epsilon))
    return _finish("exo", values, pairs, beta * a_w, beta * a_l, count)


def sppo(pairs: Pairs, *, beta: float = 1e-3, reduction: Reduction = "sum", count: Count) -> Losses:
    """(a_w − 1/(2β))² + (a_l + 1/(2β))²: Wu et al. 2024 (SPPO, arXiv:2405.00675) eq. 4.7 with hard labels.

    β is 1/η of the paper. TRL's `sppo_hard`.
    """
    a_w, a_l = pairs.log_ratios(reduction)
    values = (a_w - 0.5 / beta) ** 2 + (a_l + 0.5 / beta) ** 2
    return _finish("sppo", values, pairs, beta * a_w, beta * a_l, count)


def nca(pairs: Pairs, *, beta: float = 0.01, reduction: Reduction = "sum", count: Count) -> Losses:
    """−log σ(r_w) − ½ log σ(−r_w) − ½ log σ(−r_l), r = β a: Chen et al. 2024 (NCA, arXiv:2402.05369), K = 2.

    It holds the chosen reward itself up, not only the difference. TRL's `nca_pair`.
    """
    r_w, r_l = (beta * a for a in pairs.log_ratios(reduction))
    values = -F.logsigmoid(r_w) - 0.5 * F.logsigmoid(-r_w) - 0.5 * F.logsigmoid(-r_l)
    return _finish("nca", values, pairs, r_w, r_l, count)


def bco_pair(pairs: Pairs, *, beta: float = 0.1, reduction: Reduction = "sum", count: Count) -> Losses:
    """−log σ(β a_w) − log σ(−β a_l): BCO over pairs without a shift, the quality term of MPO (arXiv:2411.10442) eq. 5.

    Jung et al. 2024 (arXiv:2404.04656); `bco` is their own form, with δ and over single replies. TRL's `bco_pair`.
    """
    r_w, r_l = (beta * a for a in pairs.log_ratios(reduction))
    return _finish("bco_pair", -F.logsigmoid(r_w) - F.logsigmoid(-r_l), pairs, r_w, r_l, count)


def apo_zero(pairs: Pairs, *, beta: float = 0.1, reduction: Reduction = "sum", count: Count) -> Losses:
    """1 − σ(β a_w) + σ(β a_l): D'Oosterlinck et al. 2024 (APO, arXiv:2408.06266) eq. 7; TRL's `apo_zero`.

    For data better than the model: the chosen reply becomes more probable, the rejected one less.
    """
    r_w, r_l = (beta * a for a in pairs.log_ratios(reduction))
    return _finish("apo_zero", torch.sigmoid(-r_w) + torch.sigmoid(r_l), pairs, r_w, r_l, count)


def apo_down(pairs: Pairs, *, beta: float = 0.1, reduction: Reduction = "sum", count: Count) -> Losses:
    """σ(β a_w) + 1 − σ(β h): D'Oosterlinck et al. 2024 (APO, arXiv:2408.06266) eq. 8; TRL's `apo_down`.

    For a model better than the data: both replies become less probable, the rejected one more so.
    """
    r_w, r_l = (beta * a for a in pairs.log_ratios(reduction))
    return _finish("apo_down", torch.sigmoid(r_w) + torch.sigmoid(r_l - r_w), pairs, r_w, r_l, count)


def aot(
    pairs: Pairs,
    *,
    matched: Tensor,
    beta: float = 0.01,
    label_smoothing: float = 0.0,
    reduction: Reduction = "sum",
    count: Count,
) -> Losses:
    """cDPO of the sorted policy margins minus the sorted reference margins: Melnyk et al. 2024 (AOT, arXiv:2406.05882).

    Paired form, section 3: π's distribution of log π(y_w) − log π(y_l) over the batch shall dominate that of π_ref.
    `matched` (N,) is the reference's margin at the rank of each pair's own in the *whole* batch (`match_ranks`).
    TRL's `aot`, whose ranks are those of a micro-batch.
    """
    logp_w, logp_l = pairs.logprobs(reduction)
    a_w, a_l = pairs.log_ratios(reduction)
    values = _smoothed(beta * (logp_w - logp_l - matched), label_smoothing)
    return _finish("aot", values, pairs, beta * a_w, beta * a_l, count)


def match_ranks(values: Tensor, others: Tensor) -> Tensor:
    """For each of `values` (N,), the entry of `others` (N,) that has the same rank; without gradient."""
    order = values.detach().argsort(stable=True)
    matched = torch.empty_like(others)
    matched[order] = others.detach().sort().values
    return matched


def orpo(pairs: Pairs, *, beta: float = 0.1, reduction: Reduction = "mean", count: Count) -> Losses:
    """−log π(y_w)/n_w − λ log σ(log odds(y_w) − log odds(y_l)), λ = `beta`, odds = P / (1 − P): no reference.

    Hong et al. 2024 (arXiv:2403.07691) eq. 6 and 7, with P the geometric mean of the token probabilities. The first
    term is a mean over pairs of the mean over the chosen reply's tokens, as the paper's; TRL 1.16 takes it over
    every token of prompt and reply of the batch. The rewards are λ log P, as TRL's.
    """
    p_w, p_l = pairs.logprobs(reduction)
    # a probability of exactly 1 has infinite odds
    near_w, near_l = p_w.clamp(max=-1e-6), p_l.clamp(max=-1e-6)
    log_odds = (near_w - _log1mexp(near_w)) - (near_l - _log1mexp(near_l))
    likelihood, ratio = -p_w, -F.logsigmoid(log_odds)
    loss, metrics = _finish("orpo", likelihood + beta * ratio, pairs, beta * p_w, beta * p_l, count)
    parts = {"loss/orpo/nll": likelihood, "loss/orpo/odds_ratio": ratio}
    return loss, metrics | {name: (pairs.weights * part).detach().sum() / count for name, part in parts.items()}


def simpo(
    pairs: Pairs, *, beta: float = 2.0, target_margin: float = 1.0, reduction: Reduction = "mean", count: Count
) -> Losses:
    """−log σ(β (log π(y_w)/n_w − log π(y_l)/n_l) − γ − margin), γ = `target_margin`: no reference.

    Meng et al. 2024 (SimPO, arXiv:2405.14734) eq. 6. TRL's CPO trainer with loss_type simpo and cpo_alpha 0.
    """
    p_w, p_l = pairs.logprobs(reduction)
    values = -F.logsigmoid(beta * (p_w - p_l) - target_margin - pairs.margin)
    return _finish("simpo", values, pairs, beta * p_w, beta * p_l, count)


def dpo_forward_kl(pairs: Pairs, *, beta: float = 0.1, reduction: Reduction = "sum", count: Count) -> Losses:
    """−log σ(β (e^{−a_l} − e^{−a_w})): DPO under forward KL, f'(u) = 1 − 1/u.

    Wang et al. 2023 (f-DPO, arXiv:2309.16240) table 1. From e^30 on the exponential goes on as its tangent:
    finite, and the gradient keeps its sign. TRL's f_divergence_type forward_kl, which overflows there.
    """
    s_w, s_l = (_forward_kl(a) for a in pairs.log_ratios(reduction))
    return _logistic("dpo_forward_kl", pairs, beta, s_w, s_l, count)


def dpo_js(pairs: Pairs, *, beta: float = 0.1, reduction: Reduction = "sum", count: Count) -> Losses:
    """−log σ(β (log σ(a_w) − log σ(a_l))): DPO under Jensen–Shannon divergence, f'(u) = log 2u / (1 + u).

    Wang et al. 2023 (f-DPO, arXiv:2309.16240) table 1. TRL's f_divergence_type js_divergence.
    """
    s_w, s_l = (_jensen_shannon(a) for a in pairs.log_ratios(reduction))
    return _logistic("dpo_js", pairs, beta, s_w, s_l, count)


def dpo_alpha(
    pairs: Pairs, *, beta: float = 0.1, alpha: float = 0.5, reduction: Reduction = "sum", count: Count
) -> Losses:
    """−log σ(β (e^{−α a_l} − e^{−α a_w}) / α): DPO under α-divergence, f'(u) = (1 − u^{−α}) / α, 0 < α < 1.

    Wang et al. 2023 (f-DPO, arXiv:2309.16240) table 1; α → 0 is DPO, α = 1 forward KL. TRL counts from the
    other end: its f_alpha_divergence_coef is 1 − α. The exponential is bounded as in `dpo_forward_kl`.
    """
    s_w, s_l = (_alpha(a, alpha) for a in pairs.log_ratios(reduction))
    return _logistic("dpo_alpha", pairs, beta, s_w, s_l, count)


def nll(pairs: Pairs, *, reduction: Reduction = "mean", count: Count) -> Losses:
    """−log π(y_w)/n_w: the anchor beside another loss, Pang et al. 2024 (iterative RPO, arXiv:2404.19733) eq. 1.

    A mean over pairs of means over tokens; TRL's `sft` is a mean over the chosen tokens of the micro-batch, which is
    the same for chosen replies of one length.
    """
    p_w, _ = pairs.logprobs(reduction)
    loss = -(pairs.weights * p_w).sum() / count
    return loss, {"loss/nll": loss.detach()}


LOSSES: dict[str, Callable[..., Losses]] = {
    "dpo": dpo,
    "dpo_norm": dpo_norm,
    "dpo_length": dpo_length,
    "cdpo": cdpo,
    "robust": robust,
    "ipo": ipo,
    "hinge": hinge,
    "exo": exo,
    "sppo": sppo,
    "nca": nca,
    "bco_pair": bco_pair,
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    "aot": aot,
    "orpo": orpo,
    "simpo": simpo,
    "dpo_forward_kl": dpo_forward_kl,
    "dpo_js": dpo_js,
    "dpo_alpha": dpo_alpha,
    "nll": nll,
    "kto": kto,
    "bco": bco,
    "plackett_luce": plackett_luce,
}


def weighted_losses(
    weights: Mapping[str, float], data: Any, options: Mapping[str, Mapping[str, Any]], *, count: Count
) -> Losses:
    """Σ weight · loss over named losses of the same data (MPO, arXiv:2411.10442; RPO: dpo and nll).

    `options[name]` are the loss's own keywords. `loss/NAME` is each loss before its weight; the rewards are those of
    the first loss that has any. Linear in every weight.
    """
    total: Tensor | float = 0.0
    metrics: dict[str, Tensor] = {}
    for name, weight in weights.items():
        loss, parts = LOSSES[name](data, count=count, **options.get(name, {}))
        total = total + weight * loss
        metrics = parts | metrics
    assert isinstance(total, Tensor), "at least one loss"
    return total, metrics | {"loss": total.detach()}


def implicit_rewards(
    name: str, log_ratios: Tensor, tokens: Tensor, *, beta: float, reduction: Reduction, alpha: float = 0.5
) -> Tensor:
    """The rewards that a loss compares: β f'(π/π_ref) from summed log-ratios and token counts, any shape.

    β log π/π_ref for all but the f-divergences; for a loss without a reference give log π as the log-ratio.
    """
    ratios = reduce(log_ratios, tokens, reduction)
    scores = {"dpo_forward_kl": _forward_kl, "dpo_js": _jensen_shannon, "dpo_alpha": lambda a: _alpha(a, alpha)}
    return beta * scores[name](ratios) if name in scores else beta * ratios


def _forward_kl(log_ratio: Tensor) -> Tensor:
    return 1 - _bounded_exp(-log_ratio)


def _jensen_shannon(log_ratio: Tensor) -> Tensor:
    return math.log(2) + F.logsigmoid(log_ratio)


def _alpha(log_ratio: Tensor, alpha: float) -> Tensor:
    return (1 - _bounded_exp(-alpha * log_ratio)) / alpha


def _logistic(name: str, pairs: Pairs, beta: float, s_w: Tensor, s_l: Tensor, count: Count) -> Losses:
    """−log σ(β (s_w − s_l) − margin) of what stands for the log-ratios."""
    values = -F.logsigmoid(beta * (s_w - s_l) - pairs.margin)
    return _finish(name, values, pairs, beta * s_w, beta * s_l, count)


def _smoothed(logits: Tensor, label_smoothing: float) -> Tensor:
    return -(1 - label_smoothing) * F.logsigmoid(logits) - label_smoothing * F.logsigmoid(-logits)


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 − e^x) for x < 0; each branch is exact where the other is not."""
    small = x > -0.6931
    return torch.where(
        small,
        torch.log(-torch.expm1(torch.where(small, x, -1.0))),
        torch.log1p(-torch.exp(torch.where(small, -1.0, x))),
    )


def _bounded_exp(x: Tensor, limit: float = 30.0) -> Tensor:
    """e^x, and beyond `limit` its tangent there."""
    return torch.exp(x.clamp(max=limit)) * (1 + (x - limit).clamp(min=0))


def _finish(name: str, values: Tensor, pairs: Pairs, chosen: Tensor, rejected: Tensor, count: Count) -> Losses:
    """Weighted mean of the values (N,), and the metrics of the implicit rewards."""
    loss = (pairs.weights * values).sum() / count
    metrics = reward_metrics(chosen, rejected, pairs.chosen, pairs.rejected, pairs.weights, count)
    return loss, {f"loss/{name}": loss.detach(), **metrics}
