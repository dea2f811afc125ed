"""More than one objective in the direct family: margins from the scores of other criteria, limits that are checked.

Safety labels order the pairs: `direct_data.prefer_safe`. Stepwise alignment (Wachi et al. 2024, SACPO,
arXiv:2404.11049) needs nothing of its own: align to one criterion with β, then from that snapshot to the other with
β / λ; the result is π_ref · exp((r + λ g) / β), as of one step on r + λ g.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from accord.data.chat import Renderer
from accord.engine.packing import MICRO_TOKENS, reply_group
from accord.engine.texts import rollout_groups
from accord.models.limits import open_limits
from accord.models.scorers import ReplyScorer, open_scorer
from accord.records import Prompt, Rollout
from accord.stages.dpo.config import Dpo
from accord.stages.dpo.items import Choice, DirectItem
from accord.stages.verdicts import judge_limit


def score_margins(
    config: Dpo, items: Sequence[DirectItem], renderer: Renderer, device: torch.device
) -> list[DirectItem]:
    """MODPO's margins: weight · (score of the better reply − of the worse one), of a cost its negative.

    Zhou et al. 2023 (arXiv:2310.03708) eq. 8. With r the criterion of the comparisons the optimum is
    π_ref · exp((r + Σ weight · score) / β); the paper's w and β are weight = w_i / w_0 and β / w_0 here.
    """
    items = list(items)
    signs = {**dict.fromkeys(config.rewards, 1.0), **dict.fromkeys(config.costs, -1.0)}
    for name, weight in config.margin_weights.items():
        scorer = make_scorer(config, name, renderer, device)
        flat = [
            (item.prompt, text, reply)
            for item in items
            for text, reply in zip(item.texts, item.group.replies, strict=True)
        ]
        groups = [reply_group(item.group.prefix, reply) for item in items for reply in item.group.replies]
        prompts, texts = [prompt for prompt, _, _ in flat], [text for _, text, _ in flat]
        at_once = config.micro_tokens or MICRO_TOKENS  # micro-batches are not settled yet
        scores = iter(scorer.scores(prompts, texts, groups, micro_tokens=at_once).tolist())
        for place, item in enumerate(items):
            own = [signs[name] * weight * next(scores) for _ in item.texts]
            choices = [Choice(i, j, margin + own[i] - own[j]) for i, j, margin in item.choices]
            items[place] = replace(item, choices=tuple(choices))
    return items


def make_scorer(config: Dpo, name: str, renderer: Renderer, device: torch.device) -> ReplyScorer:
    """The preference or cost model of a name."""
    if name in config.costs:
        return open_scorer(config.costs[name], "cost", renderer, device, name)
    return open_scorer(config.rewards[name], "preference", renderer, device, name)


def check_limits(
    config: Dpo,
    renderer: Renderer,
    prompts: Sequence[Prompt],
    rollouts: Sequence[Rollout],
    rows: Sequence[dict[str, Any]],
    device: torch.device,
) -> dict[str, Any]:
    """What is bounded, of sampled replies on each limit's slices, with its interval and whether the limit holds.

    Nothing is enforced: a loss of this family has no multiplier. Every reply's raw costs go into its row.
    """
    out: dict[str, Any] = {}
    texts = [renderer.text(rollout.ids) for rollout in rollouts]
    groups = rollout_groups(rollouts)
    scorers = {name: make_scorer(config, name, renderer, device) for name in config.limits}
    for name, limit in open_limits(config.limits, config.limit_of, scorers).items():
        costs = scorers[name].raw_scores(prompts, texts, groups, micro_tokens=config.micro_tokens)
        for row, cost in zip(rows, costs.tolist(), strict=True):
            row["scores"][f"cost/{name}"] = cost
        out[name] = judge_limit(limit, costs, prompts, config.limit_slices.get(name, ""), seed=config.seed)
    return out
