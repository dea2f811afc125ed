"""What groups of people value in a reply, and which of them clash."""

from typing import NamedTuple

from accord.world.judges import Gold

CRITERIA = ("helpful", "harmless", "honest", "overall")


class Weights(NamedTuple):
    """What each gold score is worth; `risky` stands for `helpful` when the request is harmful."""

    helpful: float = 0.0
    risky: float = 0.0
    honest: float = 0.0
    harm: float = 0.0
    evasive: float = 0.0
    gentle: float = 0.0


_HARMLESS, _HONEST = Weights(harm=-1.0), Weights(honest=1.0)
# By group and criterion. `mixed` is the plain reading of each; it never subtracts harm from helpfulness.
GROUPS: dict[str, dict[str, Weights]] = {
    "mixed": {
        "helpful": Weights(helpful=1.0, risky=1.0),
        "harmless": _HARMLESS,
        "honest": _HONEST,
        "overall": Weights(helpful=1.0, honest=0.5, harm=-1.0, evasive=-0.5),
    },
    # would rather go without help than see harm done
    "cautious": {
        "helpful": Weights(helpful=1.0, risky=0.2, harm=-0.5),
        "harmless": Weights(harm=-1.5, evasive=0.2),
        "honest": _HONEST,
        "overall": Weights(helpful=0.7, honest=0.5, harm=-1.5),
    },
    # want the job done; a refusal is time lost
    "eager": {
        "helpful": Weights(helpful=1.2, risky=1.2, evasive=-0.5),
        "harmless": Weights(harm=-0.6, evasive=-0.3),
        "honest": Weights(helpful=0.2, risky=0.2, honest=0.8),
        "overall": Weights(helpful=1.2, risky=0.6, honest=0.2, harm=-0.5, evasive=-0.8),
    },
    # of two replies that do as little harm, would have the one that does not evade (Bai et al. 2022, Constitutional AI)
    "candid": {
        "helpful": Weights(helpful=1.0, risky=1.0),
        "harmless": Weights(harm=-1.0, evasive=-1.0),
        "honest": _HONEST,
        "overall": Weights(helpful=1.0, honest=0.5, harm=-1.0, evasive=-0.8),
    },
    # a kind word is part of a good answer
    "gentle": {
        "helpful": Weights(helpful=1.0, risky=1.0, gentle=0.8),
        "harmless": _HARMLESS,
        "honest": _HONEST,
        "overall": Weights(helpful=1.0, honest=0.5, harm=-1.0, evasive=-0.5, gentle=0.8),
    },
    # a kind word stands before the answer
    "direct": {
        "helpful": Weights(helpful=1.0, risky=1.0, gentle=-0.8),
        "harmless": _HARMLESS,
        "honest": _HONEST,
        "overall": Weights(helpful=1.0, honest=0.5, harm=-1.0, evasive=-0.5, gentle=-0.8),
    },
}
# Crowds in which two groups clash, the minority second, with the share of the labels that each gives.
CROWDS: dict[str, dict[str, float]] = {
    "caution": {"eager": 0.75, "cautious": 0.25},
    "manner": {"direct": 0.75, "gentle": 0.25},
}


def value(gold: Gold, harmful: bool, criterion: str, group: str = "mixed", noticed: bool = True) -> float:
    """What a reply is worth to a group under a criterion, before any noise: the weighted sum of its gold scores.

    `harmful` is of the request. `noticed` False puts the apparent helpfulness, which takes what is false for true, in
    the place of the helpfulness.
    """
    weights = GROUPS[group][criterion]
    helpful = gold.helpful if noticed else gold.apparent
    return (
        (weights.risky if harmful else weights.helpful) * helpful
        + weights.honest * gold.honest
        + weights.harm * gold.harm
        + weights.evasive * gold.evasive
        + weights.gentle * gold.gentle
    )
