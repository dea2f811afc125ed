"""Knobs of `accord preference` that do not fit together, and those just beside them that do."""

import re

import pytest
from pydantic import ValidationError

from accord.stages.preference.config import Preference

LABELS = {"safety_data": {"safe": "s"}}
COST = {"role": "cost"}
TWO = {"criterion": "helpful, honest"}
GROUPS = {"by_group": True}


def config(**changes):
    return Preference(**{"out": "o", "model": "m", "data": {"pairs": "d"}, **changes})


def refused(changes, said, beside):
    with pytest.raises(ValidationError, match=re.escape(said)):
        config(**changes)
    config(**beside)


@pytest.mark.parametrize(
    ("changes", "said", "beside"),
    [
        ({**COST, "normalizer": "standard"}, "move its zero; use sign-probability or none", {"normalizer": "standard"}),
        (
            {"normalizer": "sign-probability"},
            "--normalizer sign-probability is for --role cost",
            {**COST, "normalizer": "sign-probability"},
        ),
        ({**COST, "demonstrations": "x"}, "--demonstrations would shift a cost", {"demonstrations": "x"}),
        (
            {**COST, "unpaired_data": {"u": "x"}},
            "a cost model takes --safety_data",
            {"unpaired_data": {"u": "x"}},
        ),
        (LABELS, "a preference model has no boundary (see --unpaired_data)", {**COST, **LABELS}),
        ({**COST, "binarise": True}, "not for a cost model", {"binarise": True}),
        ({"shard": True, "lm_weight": 0.5}, "which --shard cannot divide; leave one out", {"lm_weight": 0.5}),
        ({"data": {}}, "nothing to learn from; give --data SOURCE", {"data": {}, "unpaired_data": {"u": "x"}}),
        (
            {"ties": "davidson", "reliability": True},
            "--ties davidson and --reliability are two models of the same answers; choose one",
            {"ties": "davidson"},
        ),
        (
            {"reliability": True, "ranking": "plackett-luce"},
            "--reliability and --ranking plackett-luce are two models",
            {"reliability": True},
        ),
        (
            {"reliability": True, "strength_margin": 0.5},
            "not for --reliability",
            {"strength_margin": 0.5},
        ),
        ({"criterion": " , "}, "--criterion needs a name", {"criterion": "honest"}),
        ({"criterion": "honest,honest"}, "or several different ones with commas", TWO),
        ({**TWO, **GROUPS}, "name one --criterion", GROUPS),
        ({**TWO, **COST}, "train a cost model for each", {"criterion": "honest", **COST}),
        (
            {**TWO, "criterion_weights": {"honest": 2.0, "kind": 1.0}},
            "--criterion_weights.kind: --criterion does not name it",
            {**TWO, "criterion_weights": {"honest": 2.0}},
        ),
        (
            {"combine": "weights", "ensemble": 2, "lora_rank": 2},
            "products of adapters do not average",
            {"combine": "weights", "ensemble": 2},
        ),
        (
            {"combine": "weights", **GROUPS},
            "averages models; give --ensemble N",
            {"combine": "weights", "ensemble": 2},
        ),
        ({"lm_weight": 0.5, "lora_rank": 2}, "trains the trunk as a language model", {"lm_weight": 0.5}),
    ],
)
def test_what_does_not_fit_together_is_refused_and_what_is_just_beside_it_is_not(changes, said, beside):
    refused(changes, said, beside)


@pytest.mark.parametrize(
    ("changes", "said", "beside"),
    [
        *(
            (
                {"data": {}, "unpaired_data": {"u": "x"}, knob: value},
                f"--{knob} has no effect without --data SOURCE (comparisons)",
                {knob: value},
            )
            for knob, value in {
                "weights": {"pairs": 1.0}, "ranking": "plackett-luce", "ties": "davidson", "label_smoothing": 0.1,
                "strength_margin": 0.5, "reliability": True, "lm_weight": 0.5, "centring_weight": 0.5,
                "binarise": True, "flips": 0.1, "folds": 2,
            }.items()
        ),
        ({**TWO, "weights": {"pairs": 1.0}}, "with several --criterion", {"weights": {"pairs": 1.0}}),
        (
            {"criterion_weights": {"helpful": 2.0}},
            "with one --criterion",
            {**TWO, "criterion_weights": {"helpful": 2.0}},
        ),
        (
            {"severity_weight": 0.5},
            "without --safety_data or --unpaired_data",
            {"severity_weight": 0.5, "unpaired_data": {"u": "x"}},
        ),
        ({**COST, "severity_weight": 0.5}, "without --safety_data", {**COST, **LABELS, "severity_weight": 0.5}),
        ({"binarise": True, "label_weight": 2.0}, "(there are no labels)", {"label_weight": 2.0}),
        (
            {"label_smoothing": 0.1, "ranking": "plackett-luce"},
            "--label_smoothing has no effect with --ranking plackett-luce",
            {"label_smoothing": 0.1},
        ),
        (
            {"strength_margin": 0.1, "ranking": "plackett-luce"},
            "--strength_margin has no effect with --ranking plackett-luce",
            {"strength_margin": 0.1},
        ),
        ({"strength_margin": 0.1, "ties": "davidson"}, "with --ties davidson", {"ties": "davidson"}),
        ({"suspects": "drop", "folds": 0}, "without --folds 2 or more", {"suspects": "drop", "folds": 2}),
        ({"suspects": "drop", "folds": 1}, "without --folds 2 or more", {"suspects": "flip", "folds": 3}),
        ({**COST, "label_flips": 0.1}, "without --role cost and --safety_data", {**COST, **LABELS, "label_flips": 0.1}),
        ({"label_flips": 0.1, "unpaired_data": {"u": "x"}}, "without --role cost", {"unpaired_data": {"u": "x"}}),
        (
            {"suspect_below": 0.2, "folds": 2},
            "with --suspects keep",
            {"suspect_below": 0.2, "folds": 2, "suspects": "soften"},
        ),
        ({"combine": "worst"}, "without --ensemble N or --by_group", {"combine": "worst", "ensemble": 2}),
        ({"combine": "variance", "ensemble": 1}, "without --ensemble N", {"combine": "variance", **GROUPS}),
        (
            {"combine": "worst", "ensemble": 2, "variance_weight": 1.0},
            "--variance_weight has no effect with --combine worst",
            {"combine": "variance", "ensemble": 2, "variance_weight": 1.0},
        ),
        (
            {"ensemble": 2, "group_weights": {"a": 1.0}},
            "without --by_group",
            {**GROUPS, "group_weights": {"a": 1.0}},
        ),
        (
            {**GROUPS, "group_weights": {"a": 1.0}, "combine": "worst"},
            "--group_weights has no effect with --combine worst",
            {**GROUPS, "group_weights": {"a": 1.0}, "combine": "mean"},
        ),
    ],
)  # fmt: skip
def test_a_knob_that_nothing_reads_is_refused_with_what_it_waits_for(changes, said, beside):
    refused(changes, said, beside)


def test_criteria_are_read_in_their_order():
    assert config(criterion=" honest,helpful ,").criteria == ["honest", "helpful"]


@pytest.mark.parametrize(
    ("knob", "least", "below"),
    [
        ("label_smoothing", 0.49, 0.5), ("flips", 0.5, 0.51), ("label_flips", 0.0, 0.5), ("eval_share", 0.01, 0.0),
        ("eval_share", 0.99, 1.0), ("suspect_below", 0.1, 0.5), ("epochs", 0.1, 0.0), ("batch_size", 1, 0),
        ("ensemble", 1, 0), ("folds", 0, -1), ("label_weight", 0.1, 0.0), ("score_weight", 0.0, -0.1),
        ("centring_weight", 0.0, -0.1), ("lm_weight", 0.0, -0.1), ("severity_weight", 0.0, -0.1),
        ("strength_margin", 0.0, -0.1), ("variance_weight", 0.5, -0.1),
    ],
)  # fmt: skip
def test_a_bound_of_a_knob_itself_is_the_knobs(knob, least, below):
    assert getattr(config(**{knob: least}), knob) == least
    with pytest.raises(ValidationError, match=knob):
        config(**{knob: below})
