"""What a claim saves is enough to reach its intervals and its verdict again."""

import json
import math

import numpy as np
import pytest

from accord.claims import runner
from accord.claims.lab.contract import Claim, Finding, Part, level_of, recomputed
from accord.cli import main
from accord.evaluation.statistics import Interval, interval_of_seeds, nested_interval, seeds_to_decide

rng = np.random.default_rng(0)
PARTS = [
    Part("a mean", nested_interval(rng.normal(1.0, 0.1, (4, 50))), 0.0, "above"),
    Part("a share", nested_interval([[0] * 30, [0] * 29 + [1], [0] * 30, [0] * 30], "share"), 0.1, "below"),
    Part("an R²", nested_interval([0.9, 0.95, 0.93, 0.91], "r2"), 0.8, "above"),
    Part("what there is none of", Interval(math.nan, math.nan, math.nan, 0), 0.0, "above"),
]


@pytest.fixture
def result(monkeypatch, tmp_path):
    """NAME.json of a claim whose last condition has nothing to compare with."""
    claim = Claim(
        "made-up", "it is", "nobody", "a number", "above", lambda cells, seeds: Finding(PARTS, ["n"], "<svg/>")
    )
    monkeypatch.setitem(runner.CLAIMS, "made-up", claim)
    assert main(["claims", "made-up", "--seeds", "4", "--out", str(tmp_path)]) == 0
    return tmp_path / "results" / "made-up.json"


def test_the_value_of_every_seed_is_saved(result):
    saved = json.loads(result.read_text())
    assert saved["values"] == saved["parts"][0]["values"] == list(PARTS[0].interval.values)
    assert [part.get("kind") for part in saved["parts"]] == ["mean", "share", "r2", None]
    assert saved["parts"][1]["sizes"] == [30] * 4 and saved["parts"][1]["values"][1] == pytest.approx(1 / 30)
    assert [part["passing"] for part in saved["parts"]] == [4, 4, 4, None]
    assert [part["verdict"] for part in saved["parts"]] == ["holds", "holds", "holds", "undecided"]
    page = result.with_suffix(".md").read_text()
    assert "| a share | 0.008 |" in page and "| below 0.1 | 4 of 4 | 120 | holds |" in page
    assert "old method" not in page


def test_intervals_and_verdicts_follow_from_what_is_saved(result, capsys):
    assert main(["claims", "made-up", "--verify", "--out", str(result.parents[1])]) == 0
    assert "intervals and verdict undecided follow" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda saved: saved["parts"][0]["values"].__setitem__(2, 1.1), "a mean: "),
        (lambda saved: saved["parts"][1].update(high=0.02), "a share: "),
        (lambda saved: saved["parts"][2].update(verdict="fails"), "an R²: holds and not fails"),
        (lambda saved: saved.update(verdict="holds"), "the whole: undecided and not holds"),
        (lambda saved: [saved["parts"][0].pop(key) for key in ("values", "sizes", "kind")], "old method"),
    ],
)
def test_a_number_that_does_not_follow_is_found(result, change, said, capsys):
    saved = json.loads(result.read_text())
    assert recomputed(saved) == []
    change(saved)
    (wrong,) = recomputed(saved)
    assert said in wrong
    result.write_text(json.dumps(saved))
    assert main(["claims", "made-up", "--verify", "--out", str(result.parents[1])]) == 2
    assert "do not follow" in capsys.readouterr().err


def test_undecided_says_how_many_seeds_would_decide():
    part = Part("x", nested_interval([0.3, -0.1, 0.2]), 0.0, "above")
    assert part.verdict == "undecided" and part.passing == 2
    n = part.deciding_n
    assert n == seeds_to_decide(part.interval, 0.0) and n > 10
    spread = np.tile([0.3, -0.1, 0.2], 1000)[:n]
    assert n > 3 and Part("x", nested_interval(spread), 0.0, "above").verdict == "holds"
    assert Part("x", nested_interval([[0.1, -0.3, 0.5, 0.1]]), 0.0, "above").deciding_n > 4, "one seed: its outcomes"
    assert PARTS[0].deciding_n is None


def test_a_second_try_is_told_and_pays_for_itself(monkeypatch, tmp_path, capsys):
    """Three seeds at 1, 2 and 3: a first try's interval, 2 ± 2.48, has the bound outside; a second one's does not."""
    part = Part("x", nested_interval([1.0, 2.0, 3.0]), -0.5, "above")
    claim = Claim("tried", "it is", "nobody", "a number", "above", lambda cells, seeds: Finding([part], [], "<svg/>"))
    monkeypatch.setitem(runner.CLAIMS, "tried", claim)

    def attempt(first, seeds=3):
        line = ["claims", "tried", "--seeds", str(seeds), "--first_seed", str(first), "--out", str(tmp_path)]
        code = main(line)
        return json.loads((tmp_path / "results" / "tried.json").read_text()) if code == 0 else code

    assert attempt(0)["tries"] == 1
    first = attempt(1000)
    assert (first["tries"], first["earlier"]) == (1, [])
    assert attempt(1000) == first, "the same seeds are the same try"
    assert "Before it" not in (tmp_path / "results" / "tried.md").read_text()
    second = attempt(1003)
    assert second["tries"] == 2 and [told["seeds"] for told in second["earlier"]] == [[1000, 1001, 1002]]
    wider = interval_of_seeds([1.0, 2.0, 3.0], [1, 1, 1], level=0.975)
    assert second["interval"] == [wider.low, wider.high] and wider.low < -0.5 < first["interval"][0]
    assert (first["verdict"], second["verdict"]) == ("holds", "undecided")
    page = (tmp_path / "results" / "tried.md").read_text()
    assert "97.5 % interval" in page and "seeds 1000, 1001, 1002: holds, 2.000 [-0.484, 4.484]" in page
    assert recomputed(second) == []
    third = attempt(1010)
    assert third["tries"] == 3 and len(third["earlier"]) == 2 and recomputed(third) == []
    capsys.readouterr()
    assert attempt(1001) == 2 and "fresh" in capsys.readouterr().err
    assert attempt(1020, seeds=1) == 2 and "--seeds 2" in capsys.readouterr().err
    assert attempt(0) == 2 and "--results" in capsys.readouterr().err


def test_all_tries_together_err_no_more_than_5_percent_on_one_side():
    errors = [(1 - level_of(tries)) / 2 for tries in range(1, 40)]
    assert errors[0] == pytest.approx(0.025) and sum(errors) <= 0.05 + 1e-12
