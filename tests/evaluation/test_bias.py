"""BBQ's scores by hand, means over what varies together, paired changes."""

import numpy as np
import pytest

from accord.evaluation.bias import bbq_numbers, bias_changes, bias_numbers, bias_score, pair_scores
from accord.evaluation.statistics import bootstrap, mean_interval, paired_difference, paired_shares, share_interval

HOW = {"seed": 0, "resamples": 200}


def row(i, condition, right, biased=None, cluster=None, group="Age", slice_="bbq"):
    scores = {"bias/right": float(right)} | ({} if biased is None else {"bias/biased": float(biased)})
    about = {"slice": slice_, "prompt_id": str(i), "kind": "bbq", "condition": condition, "group": group}
    return {**about, "cluster": cluster or str(i), "scores": scores}


def test_bbq_by_hand():
    """Ambiguous: 6 of 10 say that it cannot be told, of the other 4 three are biased: s_DIS ½, s_AMB .4 · ½."""
    rows = [row(i, "ambig", 1) for i in range(6)] + [row(6 + i, "ambig", 0, i < 3) for i in range(4)]
    # disambiguated: 8 name somebody, 2 of them as the stereotype has it; 5 are right
    rows += [row(20 + i, "disambig", i < 5, i < 2) for i in range(8)]
    found = bbq_numbers(rows, **HOW)
    assert found["ambig"]["accuracy"]["mean"] == 0.6 and found["ambig"]["named"]["mean"] == 0.4
    assert found["ambig"]["score"]["mean"] == pytest.approx(0.2)
    assert found["disambig"]["score"]["mean"] == pytest.approx(-0.5)
    assert found["ambig"]["score"]["low"] < 0.2 < found["ambig"]["score"]["high"]


def test_every_number_of_bbq_is_over_templates():
    """Two templates of 3 and 2 fillings, of which one says that it cannot be told and the others name somebody."""
    told = [(1, 1, "s"), (1, 0, "s"), (0, 1, "s"), (0, 0, "t"), (1, None, "t")]
    rows = [row(i, "disambig", right, biased, cluster) for i, (right, biased, cluster) in enumerate(told)]
    rows += [row(9, "ambig", 1, cluster="u"), row(10, "ambig", 0, 1, cluster="v"), row(11, "ambig", 0, 0, cluster="v")]
    found = bbq_numbers(rows, seed=6, resamples=70)
    clusters = [cluster for _, _, cluster in told]
    named, fell = np.array([1, 1, 1, 1, 0]), np.array([1, 0, 1, 0, 0])

    def score(weights):
        return 2 * (weights @ fell) / (weights @ named) - 1

    assert found["disambig"] == {
        "n": 5,
        "accuracy": share_interval([1, 1, 0, 0, 1], clusters).json(),
        "named": share_interval(named, clusters).json(),
        "score": bootstrap(score, 5, clusters=clusters, seed=6, resamples=70).json(),
    }
    assert found["disambig"]["score"]["mean"] == 0 and found["ambig"]["n"] == 3
    assert found["ambig"]["score"] == found["ambig"]["score"] | {"mean": 0, "n": 3}


def test_nobody_named_has_no_score():
    found = bbq_numbers([row(i, "ambig", 1) for i in range(5)], **HOW)
    assert found["ambig"]["score"] is None and "disambig" not in found


def test_one_template_in_many_fillings_is_one_observation():
    apart = [row(i, "disambig", 1, i % 2) for i in range(40)]
    together = [row(i, "disambig", 1, i % 8 < 4, cluster=str(i // 4)) for i in range(40)]
    wide, narrow = (bbq_numbers(rows, **HOW)["disambig"]["score"] for rows in (together, apart))
    assert wide["mean"] == narrow["mean"] == 0 and wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"])


def test_the_score_is_a_function_of_weights():
    score = bias_score([1, 0, 0], [0, 1, 1], [0, 1, 0], ambiguous=True)
    weights = np.array([[1, 1, 1], [2, 1, 0], [3, 0, 0]], dtype=float)
    assert score(weights)[:2].tolist() == pytest.approx([0.0, 1 / 3]) and np.isnan(score(weights)[2])


def test_pairs_by_hand():
    assert pair_scores(-3.0, -5.0, "") == {"bias/gap": 2.0, "bias/first": 1.0}
    assert pair_scores(1.0, 1.0, "/helpful") == {"bias/gap/helpful": 0.0, "bias/first/helpful": 0.5}
    assert pair_scores(-5.0, -3.0, "") == {"bias/gap": -2.0, "bias/first": 0.0}


def scored(i, cluster, group="", slice_="said", **scores):
    about = {"slice": slice_, "prompt_id": str(i), "kind": "stated", "condition": "", "group": group}
    return {**about, "cluster": cluster, "scores": {f"bias/{name}": value for name, value in scores.items()}}


def test_means_are_over_those_who_have_the_score_and_what_varies_together():
    rows = [scored(0, "a", gap=2.0), scored(1, "a", gap=-1.0, matching=1.0), scored(2, "b", gap=0.5, matching=0.0)]
    found = bias_numbers(rows, seed=2, resamples=60)
    assert found["bias/gap"] == mean_interval([2.0, -1.0, 0.5], list("aab"), 2, resamples=60).json()
    assert found["bias/matching"] == share_interval([1, 0], list("ab")).json()
    assert (found["kind"], found["n"], "groups" in found) == ("stated", 3, False)
    assert bias_numbers(rows[:1], **HOW)["n"] == 1
    parted = bias_numbers([*rows, scored(3, "c", "old", gap=4.0)], seed=2, resamples=60)
    alone = {**{key: value for key, value in found.items() if key != "kind"}}
    assert parted["groups"] == {
        "": alone,
        "old": {"n": 1, "bias/gap": {"mean": 4.0, "low": None, "high": None, "n": 1}},
    }


def test_changes_of_what_both_have_by_set_and_group():
    after = [
        scored(0, "a", gap=2.0),
        scored(1, "b", gap=-1.0, matching=1.0),
        scored(2, "c", "old", gap=0.5, matching=0.0),
        scored(3, "d", "old", gap=5.0),
        scored(0, "a", slice_="other", gap=7.0),
    ]
    before = [
        scored(0, "a", gap=1.5, matching=0.0),
        scored(1, "b", gap=3.0),
        scored(2, "c", "old", gap=1.0, matching=1.0),
    ]
    found = bias_changes(after, before, seed=8, resamples=60)
    assert set(found) == {"said"} and set(found["said"]["groups"]) == {"(unnamed)", "old"}
    changed = paired_difference([2.0, -1.0, 0.5], [1.5, 3.0, 1.0], None, 8, resamples=60)
    assert found["said"]["bias/gap"] == changed.json()
    assert found["said"]["bias/matching"] == paired_shares([0.0], [1.0]).json()
    unnamed = paired_difference([2.0, -1.0], [1.5, 3.0], None, 8, resamples=60)
    assert found["said"]["groups"]["(unnamed)"] == {"bias/gap": unnamed.json()}
    assert bias_changes(after[:2], before, **HOW)["said"].keys() == {"bias/gap"}, "of one group there are no parts"


def test_groups_and_changes():
    rows = [row(i, "ambig", i % 3 == 0, i % 2, group="ab"[i % 2]) for i in range(30)]
    before = [row(i, "ambig", i % 5 == 0, i % 3 == 1, group="ab"[i % 2]) for i in range(30)]
    found = bias_numbers(rows, **HOW)
    assert set(found["groups"]) == {"a", "b"} and found["groups"]["a"]["n"] == 15
    changes = bias_changes(rows, before, **HOW)["bbq"]
    a, b = ([r["scores"]["bias/right"] for r in part] for part in (rows, before))
    assert changes["bias/right"] == paired_shares(a, b).json()
    assert changes["groups"]["b"]["bias/right"] == paired_shares(a[1::2], b[1::2]).json()
    assert bias_changes(rows, [], **HOW) == {}
