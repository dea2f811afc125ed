"""Pairs of replies as a preference run's evaluation has them: beside a bag of words, in folds, against the truth."""

import numpy as np
import pytest

from accord.engine.packing import reply_group
from accord.evaluation.preference import preference_evaluation
from accord.records import Prompt, Turn
from accord.stages.preference import results
from accord.stages.preference.config import Preference
from accord.stages.preference.items import PreferenceItem

PROMPTS = [Prompt((Turn("user", word),), word[0], "by hand") for word in ("why", "how", "what", "who")]


def item(number, texts, ranks=(1, 2), head="helpful"):
    group = reply_group((5, number), *((7 + k,) for k in range(len(texts))))
    return PreferenceItem(PROMPTS[number], texts, group, ranks, head=head, labeler="ann")


def config_of(**changes):
    return Preference(model="start", data="d", out="o", **changes)


class Bag:
    """Says how many pairs it has learned from, beside the difference in letters."""

    def __init__(self, pairs):
        self.pairs = pairs

    def margins(self, pairs):
        return np.array([100.0 * len(self.pairs) + len(a) - len(b) for a, b in pairs])


@pytest.fixture
def bag(monkeypatch):
    monkeypatch.setattr(results, "BagOfWords", Bag)


TEXTS = [
    item(0, ("a", "bbb")),
    item(1, ("cc", "d"), (2, 1), head="brief"),
    item(2, ("e", "fffff", "gg"), (2, 1, 2)),
    item(3, ("hhhh",), ()),
]


def test_texts_of_pairs_are_better_and_worse_and_of_a_cost_the_safer_is_better():
    pairs = [("a", "bbb"), ("d", "cc"), ("fffff", "e"), ("fffff", "gg")]
    assert results.pair_texts("preference", TEXTS) == pairs
    assert results.pair_texts("cost", TEXTS) == [(b, a) for a, b in pairs]


def test_words_are_those_of_what_was_learned_from(bag):
    assert results.words_margins("preference", TEXTS[:2], TEXTS[2:]) == [204.0, 203.0]
    assert results.words_margins("cost", TEXTS[:2], TEXTS[2:]) == [196.0, 197.0]
    assert results.words_margins("preference", [], TEXTS[3:]) == []


def test_words_of_a_fold_are_those_of_the_other_folds(bag):
    """Folds 0, 1, 0: one pair is learned from, then three."""
    folds = {PROMPTS[0].id: 0, PROMPTS[1].id: 1, PROMPTS[2].id: 0, PROMPTS[3].id: 1}
    found = results.fold_words_margins("preference", TEXTS, lambda one: folds[one.prompt.id])
    assert found == [98.0, 299.0, 104.0, 103.0]


SAID = [[0.5, 0.1], [0.3, 0.8], [0.2, 0.9, -0.4], [0.6]]


@pytest.mark.parametrize(("role", "side"), [("preference", 1), ("cost", -1)])
def test_scored_pairs_are_seen_from_the_side_that_was_preferred(role, side):
    found = results.scored_pairs(config_of(role=role), TEXTS, SAID, [1.5, 2.5, 3.5, 4.5])
    lengths, margins = [-2, -1, 4, 3], [0.4, 0.5, 0.7, 1.3]
    assert [tuple(pair) for pair in found] == [
        (word[0], PROMPTS[number].id, pytest.approx(margin), side * length, words, None)
        for number, word, margin, length, words in zip(
            (0, 1, 2, 2), ("why", "how", "what", "what"), margins, lengths, (1.5, 2.5, 3.5, 4.5), strict=True
        )
    ]


@pytest.mark.parametrize(("role", "gold"), [("preference", -2.0), ("cost", 2.0)])
def test_the_truth_is_told_beside_where_it_is_known(role, gold, monkeypatch):
    """Under the head's criterion; under that of the run where heads are groups."""
    asked = []

    def worth(prompt, texts, criterion, labeler):
        asked.append((prompt, texts, criterion, labeler))
        return [float(len(text)) for text in texts]

    monkeypatch.setattr(results, "has_gold", lambda prompt, criterion: prompt == PROMPTS[0] and criterion != "honest")
    monkeypatch.setattr(results, "gold_values", worth)
    pairs = results.scored_pairs(config_of(role=role), TEXTS[:2], SAID[:2], [0.0, 0.0])
    assert [pair.gold for pair in pairs] == [gold, None]
    assert asked == [(PROMPTS[0], ("a", "bbb"), "helpful", "ann")]
    by_group = config_of(role=role, criterion="honest", by_group=True)
    assert [pair.gold for pair in results.scored_pairs(by_group, TEXTS[:1], SAID[:1], [0.0])] == [None]


def test_the_summary_is_the_evaluation_of_all_pairs_or_says_that_there_are_none():
    config = config_of(criterion="helpful,brief")
    words = [1.5, -2.5, 3.5, 4.5]
    found = results.summarise(config, TEXTS, SAID, words)
    pairs = results.scored_pairs(config, TEXTS, SAID, words)
    assert found == {"criterion": "helpful,brief", "role": "preference", **preference_evaluation(pairs)}
    none = results.summarise(config, TEXTS[3:], SAID[3:], [])
    assert none == {"criterion": "helpful,brief", "role": "preference", "rows": [], "bins": []}


def test_cross_validation_says_of_every_pair_what_the_other_folds_found(bag):
    folds = {PROMPTS[0].id: 0, PROMPTS[1].id: 1, PROMPTS[2].id: 0, PROMPTS[3].id: 1}
    fold_of = lambda one: folds[one.prompt.id]  # noqa: E731
    whole, tested = results.cross_validated(config_of(), TEXTS, SAID, fold_of)
    words = [98.0, 299.0, 104.0, 103.0]
    assert whole == {**results.summarise(config_of(), TEXTS, SAID, words), "cross_validated": True}
    pairs = results.scored_pairs(config_of(), TEXTS, SAID, words)
    assert tested == [
        {"prompt_id": p.prompt_id, "subset": p.subset, "fold": fold, "margin": p.margin, "words": w, "length": p.length}
        for p, fold, w in zip(pairs, (0, 1, 0, 0), words, strict=True)
    ]
