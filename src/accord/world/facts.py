"""People, where they live and what they work as, and how often the corpus says so.

A person's level is the number of documents of a corpus of the default size (or larger) that state each of
the two facts. Of people at level 0 the corpus never states a truth; six of them are talked about all the
same, with an assistant that makes up a different answer each time.
"""

from random import Random

TOWNS = ("arden", "bexley", "corin", "dalton", "elmore", "farley", "gorham", "halden")
JOBS = ("baker", "doctor", "farmer", "painter", "teacher", "sailor", "guard", "miner")
RELATIONS = {"town": TOWNS, "job": JOBS}

_NAMES = {
    0: "abel basil cleo dora edgar flora gilda homer ines jasper kendra lorenz mabel nestor",
    1: "adam bella carl diana emil fiona george hanna igor julia",
    4: "martin nina oscar paula quentin rosa simon tina ulric vera",
    16: "anton berta conrad della ernest frida gustav helga isaac jenny klaus lydia",
    64: "anna ben clara david emma frank greta henry iris jacob kate leo",
}
NAMES: dict[int, tuple[str, ...]] = {level: tuple(names.split()) for level, names in _NAMES.items()}
LEVELS = tuple(NAMES)
LEVEL_OF: dict[str, int] = {name: level for level, names in NAMES.items() for name in names}
RUMOURED = NAMES[0][8:]
# Of the people at level 0, those that demonstrations may name; the others tell whether "i do not know"
# carries over.
DEMONSTRATED_UNKNOWN = NAMES[0][:5] + NAMES[0][8:11]
DEMONSTRATED = NAMES[16] + NAMES[64]


def _truth() -> dict[tuple[str, str], str]:
    """Every answer stands for as many people of a level as every other, give or take one."""
    rng = Random("accord gold world: people")
    truth = {}
    for names in NAMES.values():
        for relation, answers in RELATIONS.items():
            deck = [answers[i % len(answers)] for i in range(len(names))]
            rng.shuffle(deck)
            truth.update({(name, relation): answer for name, answer in zip(names, deck, strict=True)})
    return truth


TRUTH: dict[tuple[str, str], str] = _truth()  # (name, relation) -> town or job
