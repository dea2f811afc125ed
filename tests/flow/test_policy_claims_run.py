"""The claims on policy optimisation, run for real on one development seed at a size of seconds."""

import json

import pytest

from accord.claims.lab import recipes
from accord.claims.lab.contract import recomputed
from accord.claims.lab.recipes import Scale
from accord.cli import main

# so many prompts that people slip on some of them (an untrained model is never honest by itself) and a tenth of their
# labels calibrates a cost
TOY = Scale("nano", 400, 4, 60, 1000, 60, 60, 200, 2, 8, 6, "f32")


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
        "tension",
        "thresholds",
        "anneal",
    ],
)
def test_a_claim_on_policies_runs_and_writes_its_page(name, monkeypatch, tmp_path_factory):
    monkeypatch.setitem(recipes.SCALES, "small", TOY)
    out = tmp_path_factory.getbasetemp() / "policy-claims"  # one base for all of them
    assert main(["claims", name, "--seeds", "1", "--out", str(out)]) == 0
    result = json.loads((out / "results" / f"{name}.json").read_text())
    assert result["parts"] and recomputed(result) == [] and result["seeds"] == [0]
    assert "<svg" in (out / "results" / f"{name}.svg").read_text()
