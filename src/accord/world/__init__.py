"""The gold world: a small written world whose truth is known. docs/world.md explains it.

No module here imports torch. The same arguments give the same bytes, on every machine.
"""

from accord.world.annotators import CRITERIA, GROUPS, Annotator, value
from accord.world.corpus import corpus
from accord.world.data import comparisons, demonstrations, judgements
from accord.world.judges import Gold, judge
from accord.world.lexicon import lexicon
from accord.world.prompts import (
    ATTACK_SLICES,
    HELD_OUT_SLICES,
    LOOK_ALIKE_GRADES,
    MIX,
    SKILL_GRADES,
    SLICES,
    prompts,
)
from accord.world.requests import Request, parse
from accord.world.version import VERSION, world_hash

__all__ = [
    "ATTACK_SLICES",
    "CRITERIA",
    "GROUPS",
    "HELD_OUT_SLICES",
    "LOOK_ALIKE_GRADES",
    "MIX",
    "SKILL_GRADES",
    "SLICES",
    "VERSION",
    "Annotator",
    "Gold",
    "Request",
    "comparisons",
    "corpus",
    "demonstrations",
    "judge",
    "judgements",
    "lexicon",
    "parse",
    "prompts",
    "value",
    "world_hash",
]
