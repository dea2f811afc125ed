"""Labels that may be wrong: turned round on purpose, or flagged because models of other data reject them."""

import math
from collections.abc import Sequence
from dataclasses import replace

from accord.records import unit_hash
from accord.run import RunFolder
from accord.stages.preference.config import Preference
from accord.stages.preference.items import PreferenceItem


def turned_round(items: Sequence[PreferenceItem], share: float, seed: int) -> list[PreferenceItem]:
    """A `share` of the items in the opposite order, chosen by a hash of what they are about and the seed."""
    if not share:
        return list(items)
    return [
        reverse(item) if unit_hash(f"{item.prompt.id}|{'|'.join(item.texts)}|{item.head}|flip {seed}") < share else item
        for item in items
    ]


def reverse(item: PreferenceItem) -> PreferenceItem:
    """The same item in the opposite order."""
    return replace(item, ranks=tuple(max(item.ranks) + 1 - rank for rank in item.ranks))


def support(item: PreferenceItem, scores: Sequence[float]) -> float:
    """Mean over an item's pairs of the probability σ(s_better − s_worse) that models give to its order."""
    chances = [0.5 * (1 + math.tanh(0.5 * (scores[i] - scores[j]))) for i, j in item.pairs]
    return sum(chances) / len(chances)


def without_suspects(
    config: Preference, run: RunFolder, items: Sequence[PreferenceItem], scores: Sequence[Sequence[float]]
) -> list[PreferenceItem]:
    """Flip, soften or drop the items whose order the models of other folds give a probability below `suspect_below`.

    Wang et al. 2024 (arXiv:2401.06080) sections 2 and 3, with models that did not learn from the pair itself. Softened
    is the probability that those models give; `suspects.json` lists them all.
    """
    out, listed = [], []
    for item, scored in zip(items, scores, strict=True):
        chance = support(item, scored) if item.pairs else 1.0
        if chance >= config.suspect_below:
            out.append(item)
            continue
        listed.append(
            {
                "prompt_id": item.prompt.id,
                "replies": list(item.texts),
                "ranks": list(item.ranks),
                "labeler": item.labeler,
                "probability": chance,
            }
        )
        out += {
            "flip": [reverse(item)],
            "soften": [replace(item, probability=chance)],
            "drop": [],
        }[config.suspects]
    run.write_json("suspects.json", {"treated": config.suspects, "of": len(items), "suspects": listed})
    print(f"{len(listed)} of {len(items)} comparisons are suspect ({config.suspects})")
    return out
