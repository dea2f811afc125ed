"""BBQ's scores by hand, means over what varies together, paired changes."""

import numpy as np
import pytest

from accord.evaluation.bias import bbq_numbers, bias_changes, bias_numbers, bias_score, pair_scores
from accord.evaluation.statistics import paired_shares

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
