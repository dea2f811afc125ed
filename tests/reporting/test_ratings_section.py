"""Ratings in the report: what is shown of one judge and of several."""

import json

import pytest

from accord.reporting import build_report
from accord.reporting.context import load_context
from accord.reporting.ratings_section import ratings_section
from tests.reporting.conftest import write_run


def interval(mean, half=10.0, n=40):
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def judged(gap, **more):
    elo = {"ppo": interval(gap), "sft": interval(0.0, 0.0)}
    return {
        "votes": 80,
        "prompts": 40,
        "ratings": {"elo": elo, "tie_rate": 0.1, "nu": 0.0, "n": 80, "anchor": "sft"},
        "length_controlled": {
            "ppo": {"raw": interval(0.7, 0.1), "controlled": interval(0.62, 0.12), "effect": 0.8},
        },
        "lengths": {"ppo": 321.4, "sft": 120.0},
        "order": {"first_wins": interval(0.55, 0.05), "both_orders": 12, "kept": interval(0.9, 0.08)},
        "cycles": {"seen": interval(0.04, 0.02), "expected": 0.06, "triples": 200},
        "agreement": {},
        **more,
    }


STEPS = ("promised", "scored", "chosen", "judged", "step/prompts", "step/choices", "step/error")


@pytest.fixture
def folder(tmp_path):
    def make(**ratings):
        folder = write_run(tmp_path / "ratings", "evaluate-ratings")
        (folder / "ratings.json").write_text(json.dumps(ratings))
        return folder

    return make


def tables(section):
    return [block for block in section.blocks if block.kind == "table"]


def test_one_judge_has_elo_beside_win_rates(folder):
    section = ratings_section(load_context([folder(judges={"human": judged(85.0)})]))
    figure, ratings, judges = section.blocks
    assert "Win rate against the anchor" in figure.drawn() and "at equal length" in figure.drawn()
    row = ratings.rows[0]
    assert [cell.text for cell in row] == ["ppo", "+85", "0.70", "0.62", "+0.80", "321"]
    assert "[+75, +95]" in row[1].note
    assert [cell.text for cell in ratings.rows[1]][2:5] == ["n/a"] * 3  # the anchor against itself
    assert [cell.text for cell in judges.rows[0]] == ["human", "80", "0.10", "0.55", "0.90", "0.040", "0.060"]
    assert [source.file for source in section.sources] == ["ratings/ratings.json"]


def test_several_judges_are_dots_of_one_figure_with_their_agreement_and_what_was_promised(folder):
    agreed = {"questions": 40, "labelers": 2, "raw": interval(0.8, 0.1), "fleiss_kappa": interval(0.5, 0.1)}
    agreed |= {"krippendorff_alpha": interval(0.51, 0.1), "cohen_kappa": {"human and ai": 0.5}}
    scores_alone = {"seen": interval(0.0, 0.0), "expected": None, "triples": 0}
    found = folder(
        judges={"human": judged(85.0), "ai": judged(120.0, order={}, cycles=scores_alone)},
        agreement=agreed,
        decomposed="helpful",
        decomposition={
            "human": {
                "anchor": "sft",
                "votes": 80,
                "same_prompts": True,
                "snapshots": {"ppo": {step: interval(number * 10) for number, step in enumerate(STEPS)}},
            }
        },
    )
    section = ratings_section(load_context([found]))
    assert "Win rate" not in section.blocks[0].drawn()
    _, _, judges, agreement, parts = tables(section)
    assert [cell.text for cell in judges.rows[1]][3:] == ["n/a"] * 4
    assert agreement.rows[0][0].text == "all judges" and agreement.rows[0][-1].text == "human and ai 0.50"
    assert [cell.text for cell in parts.rows[0]] == ["ppo", "0", "+10", "+20", "+30", "+40", "+50", "+60"]
    assert "No other prompts were scored" in parts.caption
    assert "Head to head" in build_report([found])


def test_a_page_without_ratings_has_no_section(flow):
    assert ratings_section(load_context(flow)) is None
