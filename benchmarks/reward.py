"""A reward that costs nothing, the same for both sides: how many of a hundred words `w17` of a reply are even."""

from collections.abc import Sequence
from typing import Any


def percent_even(reply: str) -> float:
    """0 for a reply without words; what is no word (an end, padding) is left out."""
    words = [int(word[1:]) for word in reply.split() if word.startswith("w")]
    return 100.0 * sum(word % 2 == 0 for word in words) / max(len(words), 1)


def of_conversations(conversations: Sequence[Sequence[dict[str, str]]]) -> list[float]:
    """As `accord ppo --rewards.NAME MODULE:FUNCTION` asks."""
    return [percent_even(conversation[-1]["content"]) for conversation in conversations]


def of_completions(completions: Sequence[str], **_: Any) -> list[float]:
    """As TRL's `reward_funcs` are asked."""
    return [percent_even(completion) for completion in completions]
