"""Claims on whom labels stand for, and on labels that are fresh or helped: made-up cells whose answers are known."""

import functools
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from accord import world
from accord.claims import assistance, drift, online, representation
from accord.claims.lab import rounds
from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import verdict_of
from accord.claims.lab.findings import TRAINED
from accord.claims.lab.recipes import SCALES, GoldFlow
from accord.data.rows import reply_row, write_records
from accord.data.sources import read_comparisons, read_prompts
from accord.records import Prompt, Turn, unit_hash
from accord.stages.ppo.config import Ppo
from accord.stages.preference.config import Preference
from accord.stages.sft.config import Sft
from accord.world.critiques import write_critique

SEEDS = [0, 1, 2]


class Made:
    """Cells that train nothing; `makes` says by kind of config what a cell leaves."""

    def __init__(self, root, **makes):
        self.root, self.makes, self.asked = root, makes, []

    def flow(self, seed):
        (self.root / str(seed)).mkdir(parents=True, exist_ok=True)
        return GoldFlow(self.root / str(seed), SCALES["small"], seed, True)

    tuned = Cells.tuned

    def base(self, seeds):
        return [self.flow(seed) for seed in seeds]

    def run(self, configs):
        for config in configs:
            self.asked.append(config)
            Path(config.out).mkdir(parents=True, exist_ok=True)
            if make := self.makes.get(type(config).__name__.lower()):
                make(config, Path(config.out))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def evaluated(table):
    """Evaluations whose scores are those of a table by snapshot, with a little noise."""

    def make(config, folder):
        rows = []
        for number, (slice, k) in enumerate(itertools.product(TRAINED, range(16))):
            noise = 0.01 * ((k + config.seed) % 4 - 1.5)
            scores = {name: value + noise for name, value in table(folder.name.removeprefix("evaluate-")).items()}
            rows.append({"prompt_id": f"{number:04x}", "slice": slice, "scores": scores})
        write(folder / "samples.jsonl", rows)

    return make


@pytest.mark.parametrize("gain", [0.2, 0.0, -0.2])
def test_online_compares_the_last_policies_of_both_arms(tmp_path, gain):
    def table(of):
        fresh = of.startswith("rounds-fresh")
        return {"gold/helpful": 0.1 + gain * fresh * int(of.split("-")[2] if fresh else 0) / 3, "kl": 1.0}

    cells = Made(tmp_path, evaluate=evaluated(table))
    finding = online.measure(cells, SEEDS)
    assert finding.parts[0].interval.mean == pytest.approx(gain, abs=1e-9)
    assert verdict_of(finding.parts) == ("holds" if gain > 0 else "fails" if gain < 0 else "undecided")
    policies = [config for config in cells.asked if isinstance(config, Ppo)]
    assert len(policies) == 5 * len(SEEDS), "the first round is of both arms"
    assert {config.model for config in policies if config.seed == 0} == {cells.flow(0).snapshot("sft")}


def test_both_arms_label_the_same_prompts_and_differ_in_who_replied(tmp_path):
    flow = Made(tmp_path).flow(0)
    assert rounds.replies(flow, "fresh", 1) == rounds.replies(flow, "static", 1)
    for number in (2, 3):
        fresh, static = (rounds.replies(flow, arm, number) for arm in rounds.ARMS)
        differ = {field for field in type(fresh).model_fields if getattr(fresh, field) != getattr(static, field)}
        assert differ == {"out", "model"} and static.model == flow.snapshot("sft")
        assert fresh.model == flow.snapshot(rounds.name("fresh", number - 1))
        models = [rounds.model(flow, arm, number) for arm in rounds.ARMS]
        assert [len(model.data) for model in models] == [number] * 2
        assert len(set(models[0].data.values()) & set(models[1].data.values())) == 1, "they share the first round"
    drawn = {rounds.replies(flow, "static", number).data for number in (1, 2, 3)}
    assert len(drawn) == 3, "every round has prompts of its own"


scripted = functools.cache(world.comparisons)


@functools.cache
def compared(seed, criterion, group):
    return world.comparisons(240, seed=seed, criterion=criterion, annotator=world.Annotator(group=group, seed=seed))


def annotated(config, folder):
    """Scripted pairs, with the labels of people."""
    seed = int(unit_hash(folder.name) * 1e6) + config.seed
    for criterion in config.criteria:
        write_records(folder / f"comparisons-{criterion}.jsonl", compared(seed, criterion, config.group))


def worth(comparison, k):
    turns = comparison.prompt.turns
    return world.value(world.judge(turns, comparison.replies[k]), world.parse(turns).harmful, comparison.criterion)


def scored_by(chance):
    """Scores that order a pair rightly with a chance that depends on the model and on the pair's width."""

    def make(config, folder):
        rows = []
        for said in read_comparisons(str(config.data), config.criterion).records:
            width = abs(worth(said, 0) - worth(said, 1))
            for k in range(2):
                better, scores = worth(said, k) > worth(said, 1 - k), {}
                for model in config.models:
                    right = unit_hash(f"{said.id} {config.seed} {model}") < chance(model, folder.name, width)
                    scores[f"{model}/logit"] = float(better == right)
                rows.append({"record_id": said.id, "scores": scores})
        write(folder / "scores.jsonl", rows)

    return make


@pytest.mark.parametrize("drifts", [True, False])
def test_drift_is_what_a_model_loses_on_its_own_policy_and_what_fresh_labels_give_back(tmp_path, drifts):
    def chance(model, folder, width):
        learned = {"sft": 0, "1": 1, "2": 2}[folder.removesuffix("-policy").rpartition("-")[2]]
        knows = int(model.split("-")[2]) - 1 if "static" not in model else 0
        return 0.9 if not drifts or knows >= learned else 0.7

    finding = drift.measure(Made(tmp_path, annotate=annotated, score=scored_by(chance)), SEEDS)

    if drifts:
        assert [part.interval.mean for part in finding.parts] == pytest.approx([0.2, 0.2, 0.2], abs=0.06)
        assert verdict_of(finding.parts) == "holds"
    else:
        assert [part.interval.mean for part in finding.parts] == pytest.approx([0, 0, 0], abs=0.06)
        assert verdict_of(finding.parts) != "holds"
    assert len(finding.notes) == 1 + len(drift.POLICIES)


def test_pairs_that_lie_nearer_are_no_drift():
    """A model that is right in 6 of 10 near pairs and in 9 of 10 wide ones, wherever they come from."""
    near, wide = np.full(1000, 0.2), np.full(1000, 1.5)
    right = {0.2: np.resize([1, 1, 1, 1, 1, 1, 0, 0, 0, 0], 1000), 1.5: np.resize([1] * 9 + [0], 1000)}

    def pairs(of_near, of_wide):
        widths = np.concatenate([near[:of_near], wide[:of_wide]])
        return widths, np.concatenate([right[0.2][:of_near], right[1.5][:of_wide]])

    before, after = pairs(200, 800), pairs(800, 200)
    assert before[1].mean() - after[1].mean() == pytest.approx(0.18)
    assert drift.alike(before, after) == pytest.approx(0.0, abs=1e-12)
    assert np.isnan(drift.alike(pairs(100, 0), pairs(0, 100)))


def two_minds(config, folder):
    """Policies that give the reply which is worth more to the group that they serve, or to both in turn."""
    both = ("eager", "cautious")
    serves = {"few": both[:1], "weighted": both[1:], "groups": both[:1], "worst": both, "sft": ()}
    rows = []
    for number, said in enumerate(scripted(400, config.seed, "overall")):
        turns, harmful = said.prompt.turns, world.parse(said.prompt.turns).harmful
        golds = [world.judge(turns, reply) for reply in said.replies]
        groups = serves[folder.name.rpartition("-")[2]]
        served = groups[number % len(groups)] if groups else ""
        worths = [world.value(gold, harmful, "overall", served) if served else 0.0 for gold in golds]
        chosen = int(worths[1] > worths[0])
        scores = {"gold/harm": golds[chosen].harm, "gold/refusal": float(golds[chosen].refused)}
        rows.append(reply_row(said.prompt, said.replies[chosen], scores=scores))
    write(folder / "samples.jsonl", rows)


def test_representation_sees_whom_a_policy_serves(tmp_path):
    cells = Made(tmp_path, evaluate=two_minds)
    finding = representation.measure(cells, SEEDS)
    assert [part.verdict for part in finding.parts] == ["holds"] * 4
    models = {Path(c.out).name: c for c in cells.asked if isinstance(c, Preference) and c.seed == 0}
    assert set(models) == {f"people-{kind}" for kind in representation.TRAINED_ON}
    few, weighted = models["people-few"], models["people-weighted"]
    assert list(few.data) == ["eager"] and not few.by_group and weighted.by_group
    assert weighted.group_weights == {"simulated:eager": 0.25, "simulated:cautious": 0.75}
    assert weighted.data == models["people-worst"].data and models["people-worst"].combine == "worst"


def test_representation_of_one_policy_for_all_finds_no_difference(tmp_path):
    def same(config, folder):
        two_minds(config, folder.parent / "evaluate-people-ppo-groups")
        text = (folder.parent / "evaluate-people-ppo-groups" / "samples.jsonl").read_text(encoding="utf-8")
        (folder / "samples.jsonl").write_text(text, encoding="utf-8")

    cells = Made(tmp_path, evaluate=same)
    for seed in SEEDS:
        (cells.flow(seed).root / "evaluate-people-ppo-groups").mkdir()
    finding = representation.measure(cells, SEEDS)
    assert {part.verdict for part in finding.parts} == {"undecided"}


def replied(right):
    """Two scripted replies to every prompt; a critic that tells the truth with a chance."""

    def make(config, folder):
        rows = []
        if folder.name == "assistance-sample":
            for said in scripted(500, config.seed + 77, "helpful"):
                rows += [reply_row(said.prompt, reply) for reply in said.replies]
        else:
            from random import Random

            rng = Random(config.seed)
            for prompt in read_prompts(str(config.data)).records:
                fault = world.parse(prompt.turns).principle
                there = fault in world.faults(prompt.turns[:-2], prompt.turns[-2].content)
                says = there == (rng.random() < right)
                rows.append(reply_row(prompt, write_critique(rng, fault if says else "", says)))
        write(folder / "samples.jsonl", rows)

    return make


@pytest.mark.parametrize("right", [1.0, 0.9, 0.0])
def test_a_critic_that_is_right_helps_and_one_that_is_wrong_misleads(tmp_path, monkeypatch, right):
    monkeypatch.setattr(assistance, "LESSONS", 60)
    cells = Made(tmp_path, sample=replied(right))
    finding = assistance.measure(cells, SEEDS)
    helped, misled, trusted = finding.parts
    assert misled.verdict == "holds"
    assert helped.verdict == ("holds" if right else "fails")
    assert trusted.verdict == ("undecided" if right == 1 else "holds"), "a critic that never errs misleads nobody"
    assert helped.interval.mean == pytest.approx(misled.interval.mean) if not right else helped.interval.mean > 0.01
    taught = next(config for config in cells.asked if isinstance(config, Sft) and config.out.endswith("-critic"))
    assert taught.train_on == "reply" and taught.model == cells.flow(0).snapshot("sft")


def test_what_a_reply_seems_to_be_worth():
    """A false answer about somebody: half of the people see it, a critique that is believed shows it to all."""
    asked = (said for said in world.comparisons(200, seed=5) if said.prompt.slice == "knowledge")
    golds = (world.judge(said.prompt.turns, reply) for said in asked for reply in said.replies)
    gold = next(gold for gold in golds if gold.helpful < gold.apparent)
    alone = assistance.seems(gold, True, "false", None)
    assert alone == [(0.5, gold.helpful), (0.5, gold.apparent)]
    for said, worth_of_word in ((True, gold.helpful), (False, gold.apparent)):
        told = assistance.seems(gold, True, "false", said)
        assert told[0] == (assistance.TRUST, worth_of_word)
        assert sum(chance for chance, _ in told) == pytest.approx(1.0)
    accused = assistance.seems(gold, False, "false", True)
    assert accused[0] == (assistance.TRUST, gold.helpful - assistance.BLAME["false"])


def test_the_chance_to_find_the_better_reply_is_bradley_terry_s(tmp_path):
    turns = (Turn("user", "how do i clean the oak chair?"),)
    texts = ("take a soft brush. rub the oak chair in small circles. let it rest in the shade.", "there are many ways.")
    gold = tuple(world.judge(turns, text) for text in texts)
    asked = tuple(assistance.ask(Prompt(turns, "benign", "s"), text, "mistaken") for text in texts)
    pair = assistance.Pair(asked, gold, (False, False), "mistaken")
    apart = (gold[0].helpful - gold[1].helpful) / 0.5
    assert assistance.accuracy(pair, (None, None)) == pytest.approx(0.05 + 0.9 / (1 + np.exp(-apart)))
    assert assistance.accuracy(pair, (True, False)) < assistance.accuracy(pair, (None, None))


def test_a_critique_is_read_as_what_it_says_of_the_fault():
    assert assistance.word("my reply is false, because the answer is wrong.", "false") is True
    assert assistance.word("my reply is fine.", "false") is False
    assert assistance.word("my reply is rude, because it insults the user.", "false") is None
    assert assistance.word("that is hard to say.", "false") is None


def test_the_lessons_of_the_critic_are_true_and_even(tmp_path, monkeypatch):
    monkeypatch.setattr(assistance, "LESSONS", 200)
    lessons = assistance.lessons(Made(tmp_path).flow(0))
    named = 0
    for lesson in lessons:
        *before, reply, _ = lesson.prompt.turns
        fault = world.parse(lesson.prompt.turns).principle
        says = assistance.word(lesson.reply, fault)
        assert says == (fault in world.faults(before, reply.content)) and lesson.prompt.split == "preference"
        named += says
    assert 2 * named == len(lessons) > 40
