"""What a policy of the direct family says about held-out comparisons, and how far it has moved."""

import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from accord.data.chat import Renderer
from accord.data.rows import rollout_row
from accord.disk import write_text
from accord.engine.decode.draw import SampleSettings
from accord.engine.decode.sampler import sample
from accord.engine.packing import cut_by_tokens
from accord.engine.texts import rollout_groups
from accord.evaluation.preference import ScoredPair, preference_evaluation
from accord.evaluation.statistics import mean_interval
from accord.models.loading import load_policy
from accord.models.policy import reply_logprobs
from accord.models.reference import Logprobs, reply_sums
from accord.objectives.direct import implicit_rewards
from accord.objectives.kl import sqrt_kl
from accord.run import RunFolder
from accord.stages.dpo.config import DIRECT_LOSSES, Dpo
from accord.stages.dpo.items import DirectItem
from accord.stages.dpo.losses import keywords
from accord.stages.dpo.margins import check_limits
from accord.training import heap
from accord.training.distributed import World


class HeldOut:
    """Held-out comparisons with the log-probs of their replies under the reference and under the policy at the start.

    `before` are the reference's; `logprobs` gives those of the policy as it stands.
    """

    def __init__(
        self, config: Dpo, world: World, logprobs: Logprobs, items: Sequence[DirectItem], before: Sequence[Tensor]
    ) -> None:
        self.config, self.world, self.logprobs, self.items, self.before = config, world, logprobs, items, before
        self.start = self._sums() if config.reference else list(before)
        self.warned = False

    def _sums(self) -> list[Tensor]:
        parts = cut_by_tokens(range(len(self.items)), lambda i: self.items[i].group.tokens, self.config.micro_tokens)
        return reply_sums(self.logprobs, [item.group for item in self.items], parts, self.world)

    def rewards(self, sums: Sequence[Tensor]) -> list[Tensor]:
        """Implicit rewards of every item's replies, as the first loss that has rewards defines them."""
        names = [name for name in self.config.losses if name != "nll"] or ["dpo"]
        known = keywords(self.config, names[0])
        known = {key: known[key] for key in ("beta", "reduction", "alpha") if key in known}
        out = []
        for item, ours, theirs in zip(self.items, sums, self.before, strict=True):
            ratios = ours - theirs if DIRECT_LOSSES[names[0]][1] else ours
            tokens = torch.tensor([len(reply) for reply in item.group.replies])
            out.append(implicit_rewards(names[0], ratios, tokens, **known))
        return out

    def measure(self) -> dict[str, float]:
        """Accuracy and margin of the implicit reward, log-probs and their drift since the start; a prompt counts once.

        `eval/displacement` is 1 where the chosen replies became less probable, by more than twice the standard error,
        while the margin grew; the first time it is said on the terminal too.
        """
        return self._means(self._sums())

    def _means(self, sums: Sequence[Tensor]) -> dict[str, float]:
        rows = []
        for item, rewards, ours, start in zip(self.items, self.rewards(sums), sums, self.start, strict=True):
            better, worse = ([pair[side] for pair in item.pairs] for side in (0, 1))
            margins = rewards[better] - rewards[worse]
            right = (margins > 0).float() + 0.5 * (margins == 0).float()
            drift = ours - start
            columns = (right, margins, ours[better], ours[worse], drift[better], drift[worse])
            rows.append(torch.stack([column.mean() for column in columns]))
        table = torch.stack(rows)
        means = dict(zip(MEASURED, table.mean(0).tolist(), strict=True))
        error = float(table[:, 4].std() / len(table) ** 0.5) if len(table) > 1 else math.inf
        chosen, rejected = means["eval/logps/chosen_drift"], means["eval/logps/rejected_drift"]
        displaced = chosen < -2 * error and chosen > rejected
        if displaced and not self.warned and self.world.is_main:
            self.warned = True
            print(
                f"warning: on held-out comparisons the chosen replies became less probable ({chosen:+.2f} nats) while "
                f"the margin grew ({chosen - rejected:+.2f}): what becomes more probable is neither. A lower "
                "--learning_rate, a larger --beta, or --loss.nll beside the loss helps",
                flush=True,
            )
        return means | {"eval/displacement": float(displaced)}

    def summarise(self) -> dict[str, Any]:
        """Accuracy by slice beside a length-only baseline, calibration of σ(reward margin), and the drift."""
        if not self.items:
            return {}
        sums = self._sums()
        pairs = [
            ScoredPair(item.prompt.slice, item.prompt.id, float(r[i] - r[j]), len(item.texts[i]) - len(item.texts[j]))
            for item, r in zip(self.items, self.rewards(sums), strict=True)
            for i, j in item.pairs
        ]
        drift = {name: value for name, value in self._means(sums).items() if "drift" in name or "displacement" in name}
        return {"cross_validated": False, **preference_evaluation(pairs), **drift}


MEASURED = (
    "eval/rewards/accuracies",
    "eval/rewards/margins",
    "eval/logps/chosen",
    "eval/logps/rejected",
    "eval/logps/chosen_drift",
    "eval/logps/rejected_drift",
)


def measure_samples(
    config: Dpo,
    run: RunFolder,
    policy: nn.Module,
    renderer: Renderer,
    items: Sequence[DirectItem],
    device: torch.device,
) -> dict[str, Any]:
    """Replies to some held-out prompts: KL to the reference (without one, to the start) in nats per reply, limits."""
    heap.trim()
    prompts = list({item.prompt.id: item.prompt for item in items}.values())[: config.kl_prompts]
    settings = SampleSettings(
        1, 1.0, config.max_new_tokens, renderer.stops, config.seed, vocabulary=renderer.vocabulary
    )
    asked = [renderer.prompt_ids(prompt.turns) for prompt in prompts]
    rollouts = sample(policy, asked, settings, cache_tokens=config.micro_tokens)
    groups = rollout_groups(rollouts)
    reference = load_policy(config.reference or config.model, trainable=False).to(device)
    theirs = reply_logprobs(reference, groups, 1.0, config.micro_tokens, device)
    kl = [sum(rollout.logprobs) - other for rollout, other in zip(rollouts, theirs, strict=True)]
    rows: list[dict[str, Any]] = [
        rollout_row(prompt, renderer.text(rollout.ids), rollout, scores={"kl": value}, kl=value)
        for prompt, rollout, value in zip(prompts, rollouts, kl, strict=True)
    ]
    result: dict[str, Any] = {}
    if config.limits:
        result["limits"] = check_limits(config, renderer, prompts, rollouts, rows, device)
    write_text(run.path / "samples.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    interval = mean_interval(kl, seed=config.seed)
    return {"kl": interval.json(), "sqrt_kl": sqrt_kl(interval.mean), **result}
