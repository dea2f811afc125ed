"""The parts of claim `dpo` by hand, and the whole of it at the smallest scale."""

import itertools
import math

import numpy as np
import pytest

from accord.claims import cells, dpo
from accord.claims.cells import Cells
from accord.config import DIRECT_LOSSES
from accord.stages.recipes import SCALES, GoldFlow, Scale


def rows(replies):
    return [
        {"prompt_id": prompt, "scores": {"reward/helpful": reward, "gold/helpful": gold}}
        for prompt, pairs in replies.items()
        for reward, gold in pairs
    ]


def test_best_of_n_is_the_mean_over_every_subset(monkeypatch):
    monkeypatch.setattr(dpo, "DRAWN", 5)
    monkeypatch.setattr(dpo, "BEST_OF", (1, 2, 5))
    replies = {"a": [(0.3, 1.0), (0.1, 5.0), (0.9, -2.0), (0.5, 3.0), (0.4, 0.0)], "b": [(i, -i) for i in range(5)]}
    found = dpo.best_of(rows(replies))
    for n, values in zip((1, 2, 5), found, strict=True):
        for value, drawn in zip(values, replies.values(), strict=True):
            subsets = list(itertools.combinations(drawn, n))
            assert value == pytest.approx(sum(max(s)[1] for s in subsets) / len(subsets))
    assert found[0] == pytest.approx([7 / 5, -2.0]) and found[2] == pytest.approx([-2.0, -4.0])


def test_best_of_one_moves_nothing_and_more_moves_further():
    assert dpo.best_of_kl(1) == 0.0
    assert dpo.best_of_kl(4) == pytest.approx(math.log(4) - 0.75)
    assert sorted(dpo.BEST_OF) == list(dpo.BEST_OF) and max(dpo.BEST_OF) <= dpo.DRAWN


def test_the_online_rounds_go_on_from_each_other_and_keep_the_first_reference(tmp_path):
    flow = GoldFlow(tmp_path, SCALES["small"], 3, False)
    rounds = dpo.online(flow)
    models = [train.model for _, _, train in rounds]
    assert models == [flow.snapshot("sft"), flow.snapshot("online-0"), flow.snapshot("online-1")]
    for (sample, annotate, train), model in zip(rounds, models, strict=True):
        assert sample.model == model and annotate.samples == sample.out and train.reference == flow.snapshot("sft")
        assert train.data.startswith(annotate.out) and annotate.criteria == ["helpful"]
    assert len({sample.data for sample, _, _ in rounds}) == dpo.ROUNDS
    counts = [int(sample.data.split("count=")[1].split("&")[0]) for sample, _, _ in rounds]
    assert sum(counts) == 2 * SCALES["small"].preference_prompts


def test_every_setting_is_a_run_and_all_are_trained_on_the_same_comparisons(tmp_path):
    flow = GoldFlow(tmp_path, SCALES["small"], 3, False)
    for lines in dpo.SETTINGS.values():
        for name, changes in lines.items():
            config = flow.dpo(name, **changes)
            assert config.data == str(tmp_path / "annotate" / "comparisons-helpful.jsonl") == flow.helpful().data
            assert set(config.losses) <= set(DIRECT_LOSSES)


def test_a_quotient_is_a_mean_over_seeds():
    interval = dpo.ratio(np.array([1.0, 3.0]), np.array([10.0, 10.0]))
    assert interval.mean == pytest.approx(0.2) and interval.low == pytest.approx(0.1)


@pytest.mark.slow
def test_the_whole_claim_at_the_smallest_scale(tmp_path, monkeypatch, nano):
    """Nothing is learned at this size; every cell runs and every number is there."""
    monkeypatch.setitem(SCALES, "small", Scale("nano", 400, 6, 60, 90, 200, 2, 8, 8))
    monkeypatch.setattr(cells, "run_side_by_side", lambda jobs: [cells.run_stage(*job) for job in jobs])
    finding = dpo.measure(Cells(tmp_path, "small"), [0])
    assert [part.name for part in finding.parts] == [
        "gold helpfulness, DPO − PPO",
        "seconds from SFT to the policy, DPO / PPO",
    ]
    assert all(math.isfinite(part.interval.mean) for part in finding.parts)
    text = "\n".join(finding.notes)
    for name in ("dpo-0.03", "ipo", "kto", "simpo", "online-2", "ppo-weak-kl", "best of 16", "look-alike"):
        assert name in text, name
    assert finding.figure.lstrip().startswith("<svg") and "best of n" in finding.figure
