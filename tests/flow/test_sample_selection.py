"""Best of n and rejection sampling through `accord sample`; soups."""

import json

import pytest
import torch
from safetensors.torch import load_file

from accord.claims.lab import soup
from accord.claims.lab.soup import Soup
from accord.data.sources import read_demonstrations
from accord.disk import read_lines
from accord.errors import BadInput
from accord.objectives.best_of import best_of_kl_bound
from accord.records import Prompt, Turn
from accord.stages.sample.config import Sample
from accord.stages.sample.run import select

PROMPT = Prompt((Turn("user", "hello"),), "", "")


def settings(**changes):
    return Sample(**{"model": "m", "data": "d", "out": "o", "samples": 4, "rewards": {"r": "x"}, **changes})


def test_the_first_of_the_best_is_kept():
    kept = select(settings(select="best"), PROMPT, torch.tensor([0.0, 2.0, -1.0, 2.0]))
    assert kept.tolist() == [False, True, False, False]


def test_what_is_accepted_is_a_function_of_seed_and_prompt_and_the_best_always_is():
    scores = torch.tensor([0.0, 5.0, 4.9, -9.0])
    kept = select(settings(select="accepted", beta=0.5), PROMPT, scores)
    assert kept[1] and torch.equal(kept, select(settings(select="accepted", beta=0.5), PROMPT, scores))
    drawn = [select(settings(select="accepted", beta=5.0, seed=seed), PROMPT, scores) for seed in range(400)]
    # exp(−5/5) of the first
    assert float(torch.stack(drawn).float().mean(0)[0]) == pytest.approx(0.368, abs=0.07)


def test_best_of_n_through_the_command_leaves_demonstrations(commands, tmp_path):
    line = {"samples": 4, "select": "best", "rewards.helpful": commands.snapshots / "reward"}
    assert commands.run("sample", tmp_path / "run", **line) == 0
    rows = read_lines(tmp_path / "run" / "samples.jsonl")
    by_prompt = {}
    for row in rows:
        by_prompt.setdefault(row["prompt_id"], []).append(row)
    assert all(len(group) == 4 for group in by_prompt.values()) and len(by_prompt) == 24
    for group in by_prompt.values():
        (kept,) = [row for row in group if row["kept"]]
        assert kept["score"] == max(row["score"] for row in group)
    shown = read_demonstrations(str(tmp_path / "run" / "demonstrations.jsonl")).records
    assert {d.reply for d in shown} == {row["reply"] for row in rows if row["kept"] and row["reply"]}
    lineage = json.loads((tmp_path / "run" / "lineage.json").read_text())
    assert lineage["kept"] == 24 and lineage["kl_bound"] == best_of_kl_bound(4)
    assert 0 <= lineage["kl_estimate"] <= lineage["kl_bound"]


@pytest.mark.parametrize(
    "changes", [{"select": "best", "rewards": {}}, {"select": "all"}, {"select": "best", "samples": 1}]
)
def test_a_selection_without_scores_or_choice_is_refused(changes):
    with pytest.raises(ValueError, match="--select"):
        settings(**changes)


def test_a_soup_is_the_weighted_mean_of_its_models(commands, tmp_path):
    models = {"a": str(commands.snapshots / "policy"), "b": str(commands.snapshots / "other")}
    run = soup.run(Soup(out=str(tmp_path / "run"), threads=1, models=models, weights={"a": 0.25, "b": 0.75}))
    a, b = (load_file(f"{path}/model.safetensors") for path in models.values())
    mixed = load_file(run.path / "snapshot" / "model.safetensors")
    assert all(torch.allclose(mixed[k], 0.25 * a[k] + 0.75 * b[k], atol=1e-6) for k in a)


def test_models_of_another_shape_and_weights_that_do_not_sum_are_refused(commands, tmp_path):
    with pytest.raises(ValueError, match="sum to"):
        Soup(out="o", models={"a": "x", "b": "y"}, weights={"a": 1.0, "b": 0.5})
    with pytest.raises(ValueError, match="same snapshots"):
        Soup(out="o", models={"a": "x"}, weights={"b": 1.0})
    from accord.models.policy import new_policy
    from accord.models.saving import save_model
    from accord.models.tokenizer import load_renderer

    tokenizer = load_renderer(str(commands.snapshots / "policy")).tokenizer
    plain = {"kind": "none", "shift": 0.0, "scale": 1.0}
    described = {"role": "policy", "criterion": "", "normalizer": plain}
    save_model(new_policy("tiny", tokenizer, max_length=32, seed=0), tokenizer, tmp_path / "big", described, "")
    models = {"a": str(commands.snapshots / "policy"), "b": str(tmp_path / "big")}
    with pytest.raises(BadInput, match="another shape"):
        soup.interpolate(models, {"a": 0.5, "b": 0.5})
