"""The page of SmolLM2's run, on run folders of a few made-up numbers that are counted here by hand."""

import importlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

RUNS = Path(__file__).resolve().parents[2] / "runs"


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(RUNS)
    return importlib.import_module("smollm2_page")


def value(mean, low, high, n=10):
    return {"mean": mean, "low": low, "high": high, "n": n}


def put(out, folder, samples=(), metrics=(), seconds=60.0, file="evaluation.json", **found):
    """A finished run: `found` is its file, or for a model what its lineage says besides."""
    where = out / folder
    where.mkdir(parents=True)
    for name, rows in (("samples.jsonl", samples), ("metrics.jsonl", metrics)):
        (where / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    lineage = {"seconds": seconds, "peak_memory": 3 * 2**29, "comparisons": found.pop("comparisons", 0)}
    lineage |= {"started": "2026-01-02T10:00:00Z", "finished": "2026-01-02T10:30:00Z", "machine": {"cores": 2}}
    (where / "lineage.json").write_text(json.dumps(lineage))
    (where / file).write_text(json.dumps(found))
    (where / "manifest.json").write_text("{}")


def trust(criterion, **accuracies):
    rows = [
        {"model": name.replace("_", " "), "criterion": criterion, "n": 40, "accuracy": value(a, a - 0.1, a + 0.1)}
        for name, a in accuracies.items()
    ]
    return {"cross": rows, "calibration": {}, "paired": {criterion: []}}


def replies(scores):
    return [
        {"prompt_id": f"p{i}", "slice": slice_, "reply": "", "scores": one} for i, (slice_, one) in enumerate(scores)
    ]


def refusing(*pattern):
    """Replies to two harmful prompts and two look-alikes, of which some refuse."""
    slices = ("harmful/fraud", "red-team", "look-alike/homonyms", "look-alike/homonyms")
    said = ("Sure, gladly.", "I'm sorry, but I cannot help with that.")
    return [
        {"prompt_id": f"q{i}", "slice": slice_, "reply": said[refuses], "scores": {}}
        for i, (slice_, refuses) in enumerate(zip(slices, pattern, strict=True))
    ]


def evaluation(helpful, other, cost, wins=None):
    alone = {"length": value(20, 18, 22), "kl": value(0.5, 0.4, 0.6)}
    return {
        "slices": {
            "all": alone,
            "helpful": {"reward/helpful": value(helpful, -9, 9), "reward/other": value(other, -9, 9)},
            "harmless": {"cost/harmless": value(cost, -9, 9), "cost/harmless/unsafe": value(0.5, 0.1, 0.9)},
        },
        "loss": 2.125,
        "win_rate": wins and {"all": {**wins, "judge": "reward/other"}},
    }


@pytest.fixture
def out(tmp_path):
    told = trust("helpful", quarter=0.55, whole_0=0.65, scratch=0.58, the_longer_reply=0.64, a_bag_of_words=0.6)
    for row in told["cross"]:
        row["model"] = row["model"].replace("whole 0", "whole-0")
    told["paired"]["helpful"] = [
        {"model": "quarter", "less": "whole-0", "n": 40, "difference": value(-0.1, -0.15, -0.05)},
        {"model": "whole-0", "less": "the longer reply", "n": 40, "difference": value(0.01, -0.04, 0.06)},
        {"model": "whole-0", "less": "a bag of words", "n": 40, "difference": value(0.05, 0.01, 0.09)},
        {"model": "whole-0", "less": "scratch", "n": 40, "difference": value(0.07, 0.02, 0.12)},
    ]
    put(tmp_path, "trust-helpful", seconds=120.0, **told)
    put(tmp_path, "helpful-whole-0", seconds=1800.0, comparisons=1234)
    # the reward rises by 1, 2, 3 and the other by 0.5 each time: 1.5 less; the cost rises by 1 each time
    before = [("helpful", {"reward/helpful": 0.0, "reward/other": 0.0})] * 3
    after = [("helpful", {"reward/helpful": rise, "reward/other": 0.5}) for rise in (1.0, 2.0, 3.0)]
    costs = [[("harmless", {"cost/harmless": cost + i})] * 1 for cost in (0.0, 1.0) for i in range(4)]
    put(tmp_path, "evaluate-start", replies([*before, *(c[0] for c in costs[:4])]), **evaluation(0, 0, 1.5))
    won = value(0.4, 0.3, 0.45)
    put(tmp_path, "evaluate-ppo-0", replies([*after, *(c[0] for c in costs[4:])]), **evaluation(2, 0.5, 2.5, won))
    rows = []
    for i in range(
        8
    ):  # KL is a square, so the reward is a line in its root; the gap passes 0.1 in the mean at the seventh
        gap = 0.0 if i < 4 else 0.2
        rows.append({"objective/kl": 0.01 * i * i, "reward/helpful": 0.5 * i, "watch/other/gap": gap})
        rows[-1]["watch/other/score"] = 0.25 * min(i, 4)
    put(tmp_path, "ppo-0", metrics=rows)
    put(tmp_path, "safe-start", refusing(0, 0, 1, 1))
    put(tmp_path, "safe-ppo-0", refusing(1, 0, 0, 1))
    seen = {"seen": value(0.5, 0.2, 0.8), "corrected": None, "how": "judge unmeasured here"}
    sides = {side: {"judges": {"rules": seen}} for side in ("harmful", "look-alike")}
    put(tmp_path, "refusals", file="refusals.json", snapshots={"start": sides, "ppo-0": sides})
    tax = {"tax": value(-0.06, -0.1, -0.02), "tasks": {"web": {"task/loss": value(0.04, 0.01, 0.07)}}}
    tasks = {"piqa": {"task/accuracy": value(0.61, 0.5, 0.7)}, "web": {"task/loss": value(3.5, 3.4, 3.6)}}
    put(tmp_path, "tax-start", tasks=tasks, changes=None)
    put(tmp_path, "tax-ppo-0", tasks=tasks, changes=tax)
    toxic = {"start": {"a": 0.2, "b": 0.6}, "ppo-0": {"a": 0.1, "b": 0.3}}
    (tmp_path / "toxicity.json").write_text(json.dumps(toxic))
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "counts.json").write_text(
        '{"pairs": 70, "files": {"helpful-base": {"evaluation": 90, "held": 50}, "bbq": {"held": 9}}}'
    )
    (tmp_path / "clean" / "evaluation").mkdir(parents=True)
    (tmp_path / "clean" / "evaluation" / "helpful-base.jsonl").write_text("{}\n" * 90)
    (tmp_path / "clean" / "helpful-base.jsonl").write_text("{}\n" * 47)
    (tmp_path / "clean" / "helpful-base.dropped.jsonl").write_text("{}\n" * 3)
    return tmp_path


@pytest.fixture
def page(module, out):
    return "\n".join(module.page(out))


def test_what_is_open_says_how_much_would_decide_it(module):
    wants = importlib.import_module("smollm2_found").wants
    assert wants(value(0.1, -0.1, 0.3)) == " (10 prompts; 4.0 times as many would decide this size)"
    assert wants(value(0.1, 0.05, 0.15)) == wants(value(0.0, -0.1, 0.1)) == wants(value(0.001, -0.1, 0.1)) == ""
    assert wants({"mean": 0.1, "low": None, "high": None, "n": 1}) == ""


def test_the_gold_worlds_verdict_is_that_of_development_where_there_is_one(module, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GOLD", tmp_path)
    (tmp_path / "development").mkdir()
    for file, verdict in (("old.json", "fails"), ("tax.json", "fails"), ("development/tax.json", "holds")):
        (tmp_path / file).write_text(json.dumps({"verdict": verdict}))
    found = [module.verdict_of(name) for name in ("old", "tax", "new")]
    assert found == ["fails", "holds on development seeds", "not run yet"]


def test_time_is_counted_once_where_stages_ran_at_once(module):
    spans = [("10:00", "10:30"), ("10:10", "10:20"), ("10:30", "10:45"), ("11:30", "11:45")]
    assert module.at_once([tuple(f"2026-01-02T{at}:00Z" for at in span) for span in spans]) == (2, 1.0)
    assert module.at_once([tuple(f"2026-01-02T{at}:00Z" for at in span) for span in spans[:1] * 3]) == (3, 0.5)


def part(page, title):
    return page.split(f"## {title}", 1)[1].split("\n## ", 1)[0]


def test_what_did_not_improve_stands_first(page):
    told = part(page, "Summary")
    worse, rest = told.split("**Not shown")
    still, better = rest.split("**Better")
    assert "PPO, seed 0: accuracy on five tasks: -0.060 [-0.100, -0.020]" in worse
    assert "loss on web text, how much lower: -0.040 [-0.070, -0.010]" in worse
    assert "wins against the start by the other half, less a half: -0.100 [-0.200, -0.050]" in worse
    assert "cost on harmless-base prompts, how much lower: -1.000 [-1.000, -1.000]" in worse
    assert "beside the longer reply, accuracy: +0.010 [-0.040, +0.060]" in still
    assert "PPO, seed 0: harmful prompts refused more often: +0.500 [" in still
    assert "PPO, seed 0: look-alikes refused less often: +0.500 [" in still
    assert "beside a bag of words, accuracy: +0.050 [+0.010, +0.090]" in better
    assert "beside scratch, accuracy: +0.070 [+0.020, +0.120]" in better
    assert page.index("## Summary") < page.index("## Preference models")


def test_the_claims_of_the_gold_world_say_whether_they_hold_here(page):
    lines = [line for line in part(page, "The gold world's claims").splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    told = {(row[0], row[2].partition(":")[0]): row[3:] for row in rows}
    # the quarter is 0.1 worse than the whole
    assert told["pm-scaling", "helpful"] == ["+0.100 [+0.050, +0.150]", "agrees"]
    assert told["pm-scaling", "harmless"] == ["–", "not asked"]
    # a single seed has no interval
    assert told["sqrt-kl", "R² of the reward in √KL less that in KL, over seeds"] == ["–", "not asked"]
    assert told["overoptimisation", "PPO"][0].startswith("+1.500 [")
    assert told["tension", "PPO on helpfulness alone"] == ["+1.000 [+1.000, +1.000]", "agrees"]
    assert told["tax", "PPO"] == ["-0.060 [-0.100, -0.020]", "agrees"]


def test_where_the_halves_part_is_counted_from_the_iterations(page):
    told = part(page, "KL against both rewards")
    # means of five gaps: 0.04, 0.08, 0.12 at the fifth, sixth and seventh iteration; √KL is 0.6 there
    assert "The two part at iteration 7, √KL 0.60." in told
    # the other is 0.25, 0.5, 0.75, 1, 1, 1: highest in the mean of the last five, around the sixth
    assert "mean over 5 is highest, 0.95, at iteration 6 of 8; reward R² 1.00 in √KL" in told
    assert "| 8 | 0.490 | 0.70 | 3.50 | 1.00 | 0.20 |" in told


def test_every_table_has_the_numbers_of_its_files(page):
    assert "| whole-0 | 1,234 | 40 | 0.650 [0.550, 0.750] | – | – |" in part(page, "Preference models")
    policies = part(page, "Policies")
    assert (
        "| PPO, seed 0 | 2.00 [-9.00, 9.00] | 0.50 [-9.00, 9.00] | 2.50 [-9.00, 9.00] | 0.50 [0.10, 0.90] |" in policies
    )
    assert "| 2.125 | 0.40 [0.30, 0.45] | – |" in policies
    assert "| 0.61 [0.50, 0.70] | 3.50 [3.40, 3.60] | -0.060 [-0.100, -0.020] | +0.040 [+0.010, +0.070] |" in part(
        page, "The tax"
    )
    assert "| SmolLM2 as it comes | 0.50 [0.20, 0.80] | – |" in part(page, "Harm and over-refusal")
    assert "smollm2.sh DATA_DIR --road whole --pairs 70` left" in page
    measured = part(page, "What was measured on")
    assert "| helpful-base, every comparison | 90 | 0 |\n| helpful-base | 50 | 3 |" in measured
    assert "| bbq | 9 | not compared |" in measured
    effort = part(page, "Time and memory")
    assert "| helpful-whole | helpful-whole-0 | 30.0 | 1.5 |" in effort
    assert re.search(r"On 2 cores up to \d+ stages ran at once: 0\.\d hours of stages in 0\.5\.", effort)


def test_how_toxic_replies_are_is_told_beside_the_start_and_by_whom_it_can_be_measured(page, module, out):
    told = part(page, "Toxicity")
    assert "| SmolLM2 as it comes | 2 | 0.50 [" in told and "| 0.400 [" in told
    row = next(line for line in told.splitlines() if line.startswith("| PPO, seed 0 | 2 | 0.00 ["))
    assert "| 0.200 [" in row and "| -0.200 [" in row
    assert "PPO, seed 0: toxicity of replies, how much lower: +0.200 [" in part(page, "Summary")
    (out / "toxicity.json").unlink()
    assert "`runs/smollm2_toxicity.py` has not run here" in "\n".join(module.page(out))


def test_a_replys_toxicity_is_what_the_package_says_of_it_whatever_folder_it_is_in(
    module, tmp_path, monkeypatch, capsys
):
    script = importlib.import_module("smollm2_toxicity")
    for folder, rows in (("evaluate-ppo-0", {"a": "fine", "b": "bad!"}), ("safe-ppo-0", {"c": "bad"})):
        (tmp_path / folder).mkdir()
        lines = [json.dumps({"prompt_id": prompt, "reply": reply}) for prompt, reply in rows.items()]
        (tmp_path / folder / "samples.jsonl").write_text("\n".join(lines))
    folders = [tmp_path / "evaluate-ppo-0", tmp_path / "safe-ppo-0"]
    monkeypatch.setitem(sys.modules, "profanity_check", None)  # as where it is not installed
    assert script.main(folders, tmp_path / "told.json") == 2
    assert "pip install alt-profanity-check" in capsys.readouterr().err and not (tmp_path / "told.json").exists()
    by_words = SimpleNamespace(predict_prob=lambda texts: np.array([0.75 if "bad" in text else 0.25 for text in texts]))
    monkeypatch.setitem(sys.modules, "profanity_check", by_words)
    assert script.main(folders, tmp_path / "told.json") == 0
    assert json.loads((tmp_path / "told.json").read_text()) == {"ppo-0": {"a": 0.25, "b": 0.75, "c": 0.75}}


def test_the_page_says_why_a_model_is_not_beyond_what_is_simpler(page):
    """The longer reply is 0.01 [-0.04, 0.06] behind the whole; scratch and the bag of words are beaten."""
    told = part(page, "Preference models")
    assert "Why `whole-0` is not shown to be beyond the longer reply: the 10 comparisons" in told
    assert "differences of about 0.050 from none" in told and "It has read 1234 comparisons" in told
    assert "its accuracy changed by +0.100 [+0.050, +0.150]." in told


def test_of_what_is_not_told_apart_the_widest_interval_is_named_and_what_is_better_is_not_among_it(module, out):
    simpler = {
        "scratch": value(-0.2, -0.3, -0.1),
        "length": value(0.01, -0.04, 0.06, 50),
        "words": value(0.02, -0.06, 0.10, 30),
        "alone": {"mean": 0.1, "low": None, "high": None, "n": 1},
    }
    (said, _) = module.why_not_beyond(module.Found(out), "helpful", simpler, {})
    assert "beyond length, words: the 30 comparisons" in said and "about 0.080 from none" in said
    assert module.why_not_beyond(module.Found(out), "helpful", {"scratch": simpler["scratch"]}, {}) == []


def test_what_is_missing_is_named_and_a_whole_run_says_nothing_of_it(page, module, out):
    assert "**This run is not whole.**" in page
    assert "- helpful-whole: helpful-whole-1\n" in page and "- knowledge: honesty-start, honesty-honest" in page
    assert "## Bias" not in page and "## Honesty" not in page
    for names in module.Found(out).pieces.values():
        for name in names:
            (out / name).mkdir(exist_ok=True)
            (out / name / "manifest.json").touch()
    assert not module.Found(out).missing and module.missing(module.Found(out)) == []
