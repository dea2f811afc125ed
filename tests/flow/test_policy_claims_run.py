"""The claims on policy optimisation, run for real on one development seed at a size of seconds."""

import dataclasses
import json

import pytest

from accord.claims.lab import recipes
from accord.claims.lab.contract import recomputed
from accord.claims.lab.recipes import Scale
from accord.cli import main
from tests.fixtures.toys import people_choose

# so many prompts that people slip on some of them (an untrained model is never honest by itself) and a tenth of their
# labels calibrates a cost
TOY = Scale("nano", 400, 4, 60, 1000, 60, 60, 200, 2, 8, 6, "f32")


# a model that has learned to end its replies and to refuse some: what is criticised and compared has to be whole
TAUGHT = dataclasses.replace(TOY, documents=2000, pretrain_steps=200, demonstrations=800, harmful_prompts=300)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["constitution", "revisions", "red-team-data", "oversight", "cost-of-feedback"])
def test_a_claim_on_ai_feedback_runs_and_writes_its_page(name, monkeypatch, tmp_path_factory):
    whole(name, TAUGHT, monkeypatch, tmp_path_factory.getbasetemp() / "feedback-claims")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "kl-limits",
        "overoptimisation",
        "two-halves",
        "adaptive-kl",
        "critics",
        "ptx",
        "small-beats-large",
        "tax",
        "tension",
        "thresholds",
        "anneal",
        "online",
        "drift",
        "assistance",
        "representation",
    ],
)
def test_a_claim_on_policies_runs_and_writes_its_page(name, monkeypatch, tmp_path_factory):
    whole(name, TOY, monkeypatch, tmp_path_factory.getbasetemp() / "policy-claims")


def whole(name, scale, monkeypatch, out):
    """The claim by its command, on a base that all of them share."""
    people_choose(monkeypatch.setattr)
    monkeypatch.setitem(recipes.SCALES, "small", scale)
    assert main(["claims", name, "--seeds", "1", "--out", str(out)]) == 0
    result = json.loads((out / "results" / f"{name}.json").read_text())
    assert result["parts"] and recomputed(result) == [] and result["seeds"] == [0]
    assert "<svg" in (out / "results" / f"{name}.svg").read_text()
