"""The parts of claim `dpo` by hand, and the whole of it at the smallest scale."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from accord.claims import dpo
from accord.claims.lab.cells import Cells
from accord.claims.lab.findings import TRAINED
from accord.claims.lab.recipes import SCALES, GoldFlow, Scale
from accord.claims.lab.workers import Workers, run_stage
from accord.objectives.best_of import best_of_kl_bound
from accord.stages.dpo.config import DIRECT_LOSSES
from accord.stages.evaluate.config import Evaluate
from accord.stages.online.config import Annotate
from accord.stages.ppo.config import Ppo
from accord.stages.sample.config import Sample


def rows(replies):
    return [
        {"prompt_id": prompt, "scores": {"reward/helpful": reward, "gold/helpful": gold}}
        for prompt, pairs in replies.items()
        for reward, gold in pairs
    ]


def test_best_of_n_is_the_mean_over_every_subset(monkeypatch):
    """Also of a prompt that was drawn twice and so has more replies than others."""
    monkeypatch.setattr(dpo, "BEST_OF", (1, 2, 5))
    replies = {"a": [(0.3, 1.0), (0.1, 5.0), (0.9, -2.0), (0.5, 3.0), (0.4, 0.0)], "b": [(i, -i) for i in range(7)]}
    found = dpo.best_of(rows(replies))
    for n, values in zip((1, 2, 5), found, strict=True):
        for value, drawn in zip(values, replies.values(), strict=True):
            subsets = list(itertools.combinations(drawn, n))
            assert value == pytest.approx(sum(max(s)[1] for s in subsets) / len(subsets))
    assert found[0] == pytest.approx([7 / 5, -3.0]) and found[2][0] == pytest.approx(-2.0)


def test_best_of_one_moves_nothing_and_more_moves_further():
    assert best_of_kl_bound(1) == 0.0
    assert best_of_kl_bound(4) == pytest.approx(math.log(4) - 0.75)
    assert sorted(dpo.BEST_OF) == list(dpo.BEST_OF) and max(dpo.BEST_OF) <= dpo.DRAWN


def test_the_online_rounds_train_as_dpo_does_on_as_many_prompts(tmp_path):
    flow = GoldFlow(tmp_path, SCALES["small"], 3, False)
    rounds = dpo.online(flow)
    assert rounds.model == flow.snapshot("sft") and rounds.labeler == "simulated"
    train, offline = rounds.training("policy", "data", out="out", resume=False), flow.dpo(**dpo.SETTINGS["dpo"]["dpo"])
    for knob in ("epochs", "beta", "loss", "learning_rate", "batch_size", "max_length", "max_new_tokens", "criterion"):
        assert getattr(train, knob) == getattr(offline, knob), knob
    assert train.reference == flow.snapshot("sft") and train.model == "policy"
    assert 0 <= SCALES["small"].preference_prompts - rounds.rounds * rounds.prompts < rounds.rounds


def test_every_setting_is_a_run_and_all_are_trained_on_the_same_comparisons(tmp_path):
    flow = GoldFlow(tmp_path, SCALES["small"], 3, False)
    for lines in dpo.SETTINGS.values():
        for name, changes in lines.items():
            config = flow.dpo(name, **changes)
            assert (
                config.data == str(tmp_path / "annotate" / "comparisons-helpful.jsonl") == flow.helpful_data()["policy"]
            )
            assert set(config.losses) <= set(DIRECT_LOSSES)


def test_a_quotient_is_a_mean_over_seeds():
    interval = dpo.ratio(np.array([1.0, 3.0, 2.0]), np.array([10.0, 10.0, 10.0]))
    theirs = stats.ttest_1samp([0.1, 0.3, 0.2], 0.0).confidence_interval(0.95)
    assert interval.mean == pytest.approx(0.2) and interval.low == pytest.approx(theirs.low)


GOLD = {"sft": 0.0, "ppo": 0.5, "ppo-weak-kl": 0.3, "dpo": 0.6, "online": 0.7}
KL = {"ppo": 1.21, "ppo-weak-kl": 4.0, "dpo": 0.81}
SECONDS = {"sample": 2.0, "annotate": 1.0, "helpful": 7.0, "ppo": 90.0, "dpo": 17.0, "online": 9.0}


class Written:
    """Cells that train nothing: every run leaves made-up numbers, of which the answers are known."""

    def __init__(self, root):
        self.root = root

    def base(self, seeds):
        flows = [GoldFlow(self.root / str(seed), SCALES["small"], seed, True) for seed in seeds]
        for flow in flows:
            self.run([flow.sample(), flow.annotate(), flow.helpful()])
        return flows

    def run(self, configs):
        for config in configs:
            folder = Path(config.out)
            name = folder.name
            folder.mkdir(parents=True)
            (folder / "lineage.json").write_text(json.dumps({"seconds": SECONDS.get(name, 1.0)}))
            if isinstance(config, Evaluate):
                self.evaluate(folder, name.removeprefix("evaluate-").removesuffix("-drawn"), config.samples)
            elif not isinstance(config, Sample | Annotate):
                row = {"completions/mean_length": 10.0} if isinstance(config, Ppo) else {"num_tokens": 5000}
                (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, **row}) + "\n")

    def evaluate(self, folder, of, samples):
        with open(folder / "samples.jsonl", "w") as stream:
            for prompt, (slice, k) in enumerate(itertools.product((*TRAINED, "skills"), range(4))):
                for draw in range(samples):
                    shift = 0.01 * (k - 1.5) + (0.1 * (draw - 7.5) if samples > 1 else 0.0)
                    scores = {
                        "gold/helpful": GOLD.get(of, 0.2) + shift,
                        "reward/helpful": shift,
                        "gold/correct": 1.0,
                    }
                    if of != "sft":
                        scores["kl"] = KL.get(of, 2.0)
                    stream.write(json.dumps({"prompt_id": str(prompt), "slice": slice, "scores": scores}) + "\n")


def test_the_numbers_of_the_finding_are_those_of_the_runs(tmp_path):
    finding = dpo.measure(Written(tmp_path), [0, 1, 2])
    gold, seconds = finding.parts
    assert gold.interval.mean == pytest.approx(0.1) and gold.verdict == "holds"
    assert seconds.interval.mean == pytest.approx((2 + 1 + 17) / (2 + 1 + 7 + 90)) and seconds.verdict == "holds"
    notes = {note.split(":")[0]: note for note in finding.notes}
    assert "+0.60" in notes["dpo"] and "KL +0.81" in notes["dpo"] and "20 s" in notes["dpo"]
    assert "5 thousand tokens" in notes["dpo"], "of sampling and labels none"
    assert "100 s" in notes["ppo"] and "KL" not in notes["sft"]
    assert " 9 s" in notes["online"]
    assert "+0.20" in notes["gold helpfulness, online − ppo"]
    assert "+0.10" in notes["the same on look-alike prompts, dpo − ppo"]
    # the preference model orders as gold does: the best of 16 is the last draw
    assert "+0.75" in notes["best of 16 by the preference model"]
    assert finding.figure.lstrip().startswith("<svg") and "best of n" in finding.figure


@pytest.mark.slow
def test_the_whole_claim_at_the_smallest_scale(tmp_path, monkeypatch, nano):
    """Nothing is learned at this size; every cell runs and every number is there."""
    monkeypatch.setitem(SCALES, "small", Scale("nano", 400, 6, 60, 90, 60, 60, 200, 2, 8, 8, "f32"))
    monkeypatch.setattr(Workers, "run", lambda self, jobs: [run_stage(*job) for job in jobs])
    finding = dpo.measure(Cells(tmp_path, "small"), [0])
    assert [part.name for part in finding.parts] == [
        "gold helpfulness, DPO − PPO",
        "seconds from SFT to the policy, DPO / PPO",
    ]
    assert all(math.isfinite(part.interval.mean) for part in finding.parts)
    text = "\n".join(finding.notes)
    for name in ("dpo-fast-0.03", "ipo", "kto", "simpo", "online", "ppo-weak-kl", "best of 16", "look-alike"):
        assert name in text, name
    assert finding.figure.lstrip().startswith("<svg") and "best of n" in finding.figure
