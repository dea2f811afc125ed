"""The gold world: a small written world whose truth is known. docs/world.md explains it.

No module here imports torch. The same arguments give the same bytes, on every machine.
"""

from accord.world.annotators import Annotator, Crowd, group_in, people
from accord.world.corpus import corpus
from accord.world.data import comparisons, demonstrations, judgements
from accord.world.judges import Gold, faults, judge
from accord.world.lexicon import lexicon
from accord.world.principles import PRINCIPLES, Principle
from accord.world.prompts import (
    ATTACK_SLICES,
    DOUBT_SLICES,
    HELD_OUT_SLICES,
    LOOK_ALIKE_GRADES,
    MIX,
    REVIEW_SLICES,
    SKILL_GRADES,
    SLICES,
    prompts,
)
from accord.world.requests import Request, parse
from accord.world.topics import TOPICS, topic_of
from accord.world.values import CRITERIA, CROWDS, GROUPS, value
from accord.world.version import VERSION, world_hash

__all__ = [
    "ATTACK_SLICES",
    "CRITERIA",
    "CROWDS",
    "DOUBT_SLICES",
    "GROUPS",
    "HELD_OUT_SLICES",
    "LOOK_ALIKE_GRADES",
    "MIX",
    "PRINCIPLES",
    "REVIEW_SLICES",
    "SKILL_GRADES",
    "SLICES",
    "TOPICS",
    "VERSION",
    "Annotator",
    "Crowd",
    "Gold",
    "Principle",
    "Request",
    "comparisons",
    "corpus",
    "demonstrations",
    "faults",
    "group_in",
    "judge",
    "judgements",
    "lexicon",
    "parse",
    "people",
    "prompts",
    "topic_of",
    "value",
    "world_hash",
]
