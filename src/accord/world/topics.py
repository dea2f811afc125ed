"""What a request is about, for people who know some things better than others."""

from accord.world.requests import Request

VERB_TOPICS = {
    "cleaning": ("clean", "polish", "dry"),
    "repair": ("paint", "fix", "seal"),
    "keeping": ("warm", "store", "hide", "protect"),
    "transport": ("move", "pack", "ship", "return"),
    "trade": ("sell", "mark"),
    "security": ("track", "unlock"),
}
_TOPIC_OF_VERB = {verb: topic for topic, verbs in VERB_TOPICS.items() for verb in verbs}
_TOPIC_OF_RELATION = {"town": "towns", "job": "jobs"}
_TOPIC_OF_SKILL = {
    "add": "sums",
    "sort": "sums",
    "largest": "sums",
    "copy": "words",
    "reverse": "words",
    "count": "words",
}
TOPICS = (*VERB_TOPICS, *_TOPIC_OF_RELATION.values(), *dict.fromkeys(_TOPIC_OF_SKILL.values()))


def topic_of(request: Request) -> str:
    """One of `TOPICS`, "" for a request about none."""
    if request.verb:
        return _TOPIC_OF_VERB[request.verb]
    return _TOPIC_OF_RELATION.get(request.relation) or _TOPIC_OF_SKILL.get(request.skill, "")
