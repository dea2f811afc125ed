"""The world's version and hash, which stand in every claim that is made on it."""

import hashlib
import json
from dataclasses import astuple
from functools import lru_cache

from accord.world import attacks, facts, language, objects
from accord.world.corpus import DEFAULT_COUNT, corpus, fact_plan
from accord.world.data import comparisons, demonstrations, judgements
from accord.world.judges import judge
from accord.world.lexicon import lexicon
from accord.world.prompts import DRAW, prompts
from accord.world.topics import VERB_TOPICS
from accord.world.values import CRITERIA, CROWDS, GROUPS

VERSION = "2"


@lru_cache(maxsize=1)
def world_hash() -> str:
    """16 hex digits over the tables, a fixed sample of everything that is generated, and its gold scores."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        digest.update(json.dumps(value, sort_keys=True, ensure_ascii=True).encode())

    add([VERSION, lexicon(), sorted(map(list, facts.TRUTH.items())), fact_plan(DEFAULT_COUNT)])
    add([language.VERBS, language.KINDS, language.QUESTIONS, language.STATEMENTS, objects.TRAINED_TASKS])
    add([objects.HARMFUL, objects.HARMFUL_HELD_OUT, objects.LOOK_ALIKE, objects.LOOK_ALIKE_HELD_OUT])
    add([attacks.ALL, GROUPS, CROWDS, VERB_TOPICS])
    add([document.text for document in corpus(400, seed=0)])
    for slice in DRAW:
        add([prompt.turns for prompt in prompts(40, seed=0, slice=slice)])
    for shown in demonstrations(200, seed=0):
        add([shown.prompt.turns, shown.reply, astuple(judge(shown.prompt.turns, shown.reply))])
    for criterion in CRITERIA:
        for pair in comparisons(60, seed=0, criterion=criterion):
            add(
                [
                    pair.prompt.turns,
                    pair.replies,
                    pair.ranks,
                    [astuple(judge(pair.prompt.turns, r)) for r in pair.replies],
                ]
            )
    add([[said.reply, said.value] for said in judgements(100, seed=0, criterion="harmless")])
    return digest.hexdigest()[:16]
