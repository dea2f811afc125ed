"""The right way to do each task: a tool, an action, a finish.

The verb decides the tool and the action, the material (or the class of the noun) the tool's quality and the
finish. So a plan is composed of two parts that are each seen often, and carries over to pairs never seen.
"""

from functools import cache
from typing import NamedTuple

from accord.world import language, objects


class Steps(NamedTuple):
    """The right steps. `tool` is (quality, tool); `action` and `finish` are the sentences that say them."""

    tool: tuple[str, str]
    action: tuple[str, ...]
    finish: tuple[str, ...]


@cache
def plan(verb: str, pair: tuple[str, str]) -> Steps:
    """The plan of doing `verb` to the object `pair`, its sentences filled in."""
    tool, actions = language.VERBS[verb]
    quality, finishes = language.KINDS[objects.kind_of(pair)]
    named = objects.phrase(pair)
    return Steps((quality, tool), tuple(form.format(o=named) for form in actions), finishes)
