"""Claims about AI feedback on made-up runs whose answers are known: replies are scripted, gold scores are real."""

import functools
import json
import random
from pathlib import Path
from statistics import NormalDist

import pytest

from accord import world
from accord.claims import constitution, cost_of_feedback, oversight, red_team_data, revisions
from accord.claims.lab import feedback, oversee
from accord.claims.lab.cells import Cells
from accord.claims.lab.contract import verdict_of
from accord.claims.lab.recipes import SCALES, GoldFlow
from accord.claims.lab.workers import run_stage
from accord.data.rows import reply_row, write_records
from accord.data.sources import read_comparisons
from accord.disk import read_json, read_lines
from accord.labelers.preferences import soft_label
from accord.records import Comparison
from accord.stages.constitution.config import Constitution
from accord.stages.evaluate.config import Evaluate
from accord.stages.online.config import Annotate
from accord.stages.redteam.config import Redteam
from accord.stages.shared import gold_scores
from accord.world.critiques import ALL_CLEAR, FAULTY
from accord.world.principles import PRINCIPLES
from accord.world.replies import how_to

SEEDS = [0, 1, 2]
N = 40  # prompts of a slice
HARM = FAULTY.format(f="harmful", why=PRINCIPLES["harmful"].whys[0])


def write(folder, rows, name="samples.jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@functools.cache
def said(prompt, quality):
    return how_to(random.Random(prompt.id + quality), world.parse(prompt.turns), quality)


def row_of(prompt, quality, **more):
    reply = said(prompt, quality)
    return reply_row(prompt, reply, why="", **gold_scores(prompt, reply), **more)


@functools.cache
def drawn(slice):
    return world.prompts(N, 9, slice)


@functools.cache
def graded(prompt, quality):
    """A row of an evaluation: every arm of every seed says one of a few things to the same prompts."""
    reply = said(prompt, quality)
    return reply_row(prompt, reply, scores=gold_scores(prompt, reply))


@pytest.fixture
def right_share(monkeypatch):
    """As the claims have it. What is scripted of a policy hangs on it too: a file of labels is read once for both."""
    once = functools.cache(feedback.right_share)
    for module in (feedback, oversight, cost_of_feedback):
        monkeypatch.setattr(module, "right_share", once)


def spread(share, k):
    """Whether the k-th of N is of a share."""
    return k < round(share * N)


class Scripted:
    """Cells that train nothing. `table` has for a snapshot the share of unsafe replies to harmful prompts, of its
    refusals those without a reason, and of good replies to benign prompts."""

    def __init__(self, root, table=None):
        self.root, self.table, self.asked = root, table or {}, []

    def flow(self, seed):
        return GoldFlow(self.root / str(seed), SCALES["small"], seed, True)

    tuned = Cells.tuned

    def base(self, seeds):
        return [self.flow(seed) for seed in seeds]

    def run(self, configs):
        for config in configs:
            self.asked.append(config)
            if isinstance(config, Evaluate):
                self.evaluate(config, Path(config.out))

    def of(self, config, name):
        return self.table.get(name, (0.5, 0.5, 0.5))

    def evaluate(self, config, folder):
        unsafe, bare, good = self.of(config, folder.name.removeprefix("evaluate-feedback-"))
        rows = []
        for slice in feedback.SLICES:
            for k, prompt in enumerate(drawn(slice)):
                if world.parse(prompt.turns).harmful:
                    refusal = "refusal" if k % 10 < round(10 * bare) else "explained"
                    quality = "good" if spread(unsafe, k) else refusal
                else:
                    quality = "good" if spread(good, k) else "vague"
                rows.append(graded(prompt, quality))
        write(folder, rows)


def verdicts(finding):
    return [part.verdict for part in finding.parts]


# ---------------------------------------------------------------- constitution


class Compared(Scripted):
    """The judge's labels are right in four of five pairs."""

    def run(self, configs):
        super().run(configs)
        for config in configs:
            if isinstance(config, Constitution) and config.make == "comparisons":
                made = []
                for k, prompt in enumerate(world.prompts(N, 3, "harmful")):
                    good, bad = said(prompt, "explained"), said(prompt, "good")
                    made.append(soft_label(prompt, good, bad, "harmless", 0.9 if k % 5 else 0.2, "ai:m:logprobs"))
                Path(config.out).mkdir(parents=True, exist_ok=True)
                write_records(Path(config.out) / "comparisons.jsonl", made)
            if isinstance(config, Annotate) and config.criteria == ["helpful"]:
                helped(config)


def helped(config):
    """People want help with what only looks harmful."""
    found = [(prompt, said(prompt, "good"), said(prompt, "explained")) for prompt in world.prompts(4, 3, "look-alike")]
    made = [soft_label(prompt, good, bad, "helpful", 1.0, "people") for prompt, good, bad in found]
    Path(config.out).mkdir(parents=True, exist_ok=True)
    write_records(Path(config.out) / "comparisons-helpful.jsonl", made)


def test_ai_feedback_that_does_what_it_promises_is_found_to(tmp_path):
    table = {"sft": (0.5, 0.6, 0.5), "hh-human": (0.05, 0.9, 0.8)}
    table |= {"cai-16": (0.1, 0.2, 0.8), "cai-16-soft": (0.1, 0.2, 0.8), "cai-1": (0.1, 0.2, 0.8)}
    cells = Compared(tmp_path, table)
    finding = constitution.measure(cells, SEEDS)
    assert verdicts(finding) == ["holds"] * 7 and "<svg" in finding.figure
    values = [part.interval.mean for part in finding.parts]
    assert values[:3] == pytest.approx([0.1 - 0.5, 0.1 - 0.5, 0.1 - 0.05], abs=0.01)
    assert values[3] < -0.5 and values[4] == pytest.approx(0.0, abs=0.02)
    assert any("labels under 16" in note and "+0.80" in note for note in finding.notes)
    worse = {**table, "cai-16": (0.3, 1.0, 0.3), "cai-16-soft": (0.5, 0.2, 0.8), "cai-1": (0.1, 0.2, 0.8)}
    found = verdicts(constitution.measure(Compared(tmp_path / "worse", worse), SEEDS[:2]))
    assert found == ["holds", "holds", "fails", "fails", "fails", "fails", "fails"]
    assert verdict_of(constitution.measure(Compared(tmp_path / "same"), SEEDS[:2]).parts) != "holds"


@pytest.fixture
def gold(tmp_path):
    """A flow in which people have compared replies to look-alikes."""
    flow = GoldFlow(tmp_path, SCALES["small"], 0, True)
    helped(constitution.compared_alike(flow))
    return flow


def test_no_human_label_of_harm_comes_near_ai_feedback(gold):
    """Every cell of the arms, followed back through its files, but for the baseline's and the soft arm's."""
    arms = [constitution.policy(gold, arm) for arm in constitution.ARMS]
    models = [constitution.model(gold, arm) for arm in constitution.ARMS]
    labels = [constitution.labelled(gold, n) for n in (1, 16)]
    before = [f(gold, n) for n in (1, 16) for f in (constitution.revised, constitution.tuned)]
    text = "".join(config.model_dump_json() for config in (*arms, *models, *labels, *before))
    people = ("annotate", "harmless-preference", "/harmless/", "sample-harm", "hh-human", "judge-measured")
    assert not [name for name in people if name in text]
    assert [set(config.rewards) for config in arms] == [{"helpful", "harmless"}] * 3
    assert "harmless-preference" in constitution.baseline(gold).model_dump_json()
    assert all(config.split == "preference" for config in (*labels, before[0], before[2]))


def test_of_what_only_looks_harmful_people_compare_how_it_helps(gold):
    """Rows of the harmlessness model, and none about harm."""
    config = constitution.compared_alike(gold)
    assert (config.criteria, config.judged, config.samples) == (["helpful"], [], str(gold.root / "sample-look-alike"))
    rows = read_comparisons(constitution.alike(gold), "harmless").records
    people = read_comparisons(str(Path(config.out) / "comparisons-helpful.jsonl"), "helpful").records
    assert [(row.prompt.id, row.replies, row.ranks) for row in rows] == [
        (row.prompt.id, row.replies, row.ranks) for row in people
    ]
    assert not any(world.parse(row.prompt.turns).harmful for row in rows)


def test_the_arms_differ_in_one_thing_each(gold):
    hard, soft, measured = (
        f(gold) for f in (lambda flow: constitution.labelled(flow, 16), constitution.softened, constitution.calibrated)
    )
    assert soft.replies == hard.out and (soft.judge, soft.tags) == (hard.judge, hard.tags)
    assert (soft.labels, hard.labels) == ("soft", "hard") and soft.calibration == measured.out
    assert (measured.judge, measured.tags, measured.constitution) == (hard.judge, hard.tags, hard.constitution)
    one = constitution.labelled(gold, 1)
    assert one.tags == ["harmful"] and one.data == hard.data and len(hard.tags) == 16
    assert constitution.policy(gold, constitution.SOFT).model == constitution.policy(gold, constitution.MAIN).model
    ways = [constitution.baseline(gold), *(constitution.policy(gold, arm) for arm in constitution.ARMS)]
    assert [way.reward_weights for way in ways] == [{"harmless": 2.0}] * 4
    people, machine = constitution.model(gold, constitution.MAIN), constitution.harmless_preference(gold)
    differ = {name for name in type(people).model_fields if getattr(people, name) != getattr(machine, name)}
    assert differ <= {"out", "data", "resume"}


# ---------------------------------------------------------------- revisions


class Revised(Scripted):
    """Unsafe shares after every revision, by way; the one principle is repetitive."""

    def run(self, configs):
        for config in (config for config in configs if isinstance(config, Constitution)):
            shares = self.table[Path(config.out).name.removeprefix("revisions-")]
            rows = []
            for slice in revisions.DRAWN:
                for k, prompt in enumerate(world.prompts(N, 4, slice)):
                    for step, share in enumerate(shares):
                        quality = "good" if spread(share, k) else "explained"
                        row = row_of(prompt, quality, step=step)
                        if step and config.tags == ["harmful"]:
                            row["reply"] = "no, i will not help."
                        rows.append(row)
            write(Path(config.out), rows)


def test_revisions_are_counted_by_their_number(tmp_path):
    table = {"critiques": (0.5, 0.1, 0.05, 0.05, 0.0), "direct": (0.5, 0.3, 0.2, 0.1, 0.1)}
    table["one-principle"] = (0.5, 0.1, 0.1, 0.0, 0.0)
    finding = revisions.measure(Revised(tmp_path, table), SEEDS)
    assert verdicts(finding) == ["holds"] * 7 and "<svg" in finding.figure
    assert [part.interval.mean for part in finding.parts[:6]] == pytest.approx([-0.4, -0.4, -0.1, 0.35, -0.125, 0.0])
    table["critiques"] = (0.5, 0.5, 0.5, 0.5, 0.5)
    assert verdicts(revisions.measure(Revised(tmp_path / "b", table), SEEDS))[:6] == [
        "undecided", "undecided", "undecided", "undecided", "fails", "fails",
    ]  # fmt: skip


def test_a_revision_that_was_cut_leaves_the_reply_before_it(tmp_path):
    cells = Revised(tmp_path, {"critiques": (1.0, 0.0, 0.0, 0.0, 0.0)})
    config = revisions.revised(cells.flow(0), "critiques")
    cells.run([config])
    rows = read_lines(Path(config.out) / "samples.jsonl")
    for row in rows:
        row["why"] = "cut" if row["step"] == 1 else ""
    write(Path(config.out), rows)
    assert revisions.read(config).curve(("harmful",)).tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert not config.helpful and config.split == "evaluation" and config.critique
    assert not revisions.revised(cells.flow(0), "direct").critique


# ---------------------------------------------------------------- red-team data


class Attacked(Scripted):
    """Attack success in trained and held-out families by snapshot."""

    def run(self, configs):
        super().run(configs)
        for config in configs:
            if isinstance(config, Redteam):
                trained, held = self.success[Path(config.out).name.removeprefix("redteam-")]
                families = {"plain": (trained, False), "orders": (trained, False), "role": (held, True)}
                told = {
                    "families": {n: {"held_out": h, "success": {"mean": s}} for n, (s, h) in families.items()},
                    "together": {
                        "trained families": {"success": {"mean": trained}},
                        "held-out families": {"success": {"mean": held}},
                    },
                }
                Path(config.out).mkdir(parents=True, exist_ok=True)
                (Path(config.out) / "redteam.json").write_text(json.dumps(told))


def test_red_team_data_is_judged_on_families_that_are_held_out(tmp_path):
    cells = Attacked(tmp_path)
    cells.success = {"sft": (0.5, 0.5), "limited-plain": (0.2, 0.3), "limited-attacks": (0.05, 0.1)}
    finding = red_team_data.measure(cells, SEEDS)
    assert verdicts(finding) == ["holds", "holds"]
    assert [part.interval.mean for part in finding.parts] == pytest.approx([-0.2, -0.15])
    assert "held-out" in finding.parts[0].name and "<svg" in finding.figure
    cells = Attacked(tmp_path / "b")
    cells.success = {"sft": (0.5, 0.5), "limited-plain": (0.2, 0.1), "limited-attacks": (0.05, 0.3)}
    assert verdicts(red_team_data.measure(cells, SEEDS)) == ["fails", "holds"]


def test_the_arms_of_red_team_data_have_as_many_prompts_and_no_other_labels(tmp_path):
    flow = GoldFlow(tmp_path, SCALES["small"], 0, True)
    plain, attacks = (red_team_data.sample(flow, arm) for arm in red_team_data.ARMS)
    assert set(plain.data) == {"harmful", "look-alike"} and set(attacks.data) == {"harmful", "look-alike", "red-team"}
    counts = [sum(int(s.partition("count=")[2].partition("&")[0]) for s in c.data.values()) for c in (plain, attacks)]
    assert counts[0] == counts[1]
    for arm in red_team_data.ARMS:
        cost, policy = red_team_data.cost(flow, arm), red_team_data.policy(flow, arm)
        assert cost.role == "cost" and f"annotate-{arm}/" in cost.data and f"annotate-{arm}/" in cost.safety_data
        assert policy.costs == {"harmless": flow.snapshot(f"harmless-{arm}")} and policy.data == flow.limited().data
        assert red_team_data.annotate(flow, arm).judged == ["harmless"]
    assert red_team_data.attacked(flow, "sft").attacks == "world"


# ---------------------------------------------------------------- oversight


class Overseen(Scripted):
    """Labels are made in earnest from scripted replies; the policy is as unsafe as its labels are wrong."""

    faithful = 1.0  # share of critiques that are right
    pairs = 40

    def run(self, configs):
        for config in configs:
            if isinstance(config, Constitution):
                self.criticise(config)
            elif isinstance(config, oversee.Oversee):
                run_stage("oversee", config)
        super().run(configs)

    def criticise(self, config):
        rows, second = [], config.out.endswith("second")
        for k, prompt in enumerate(world.prompts(self.pairs, 5, "harmful")):
            harmful = (k % 2 == 0) != second
            row = row_of(prompt, "good" if harmful else "explained", step=0)
            says = HARM if harmful == (k % 100 < 100 * self.faithful) else ALL_CLEAR
            rows += [row, {**row, "step": 1, "critique": says, "revised": row["reply"]}]
        write(Path(config.out), rows)

    def of(self, config, name):
        if name == "sft":
            return 0.5, 0.5, 0.5
        folder = Path(config.out).parent / f"labels-{name}"
        return 1 - feedback.right_share(folder / "comparisons.jsonl"), 0.5, 0.5


def test_oversight_tells_help_from_harm(tmp_path, right_share):
    cells = Overseen(tmp_path)
    finding = oversight.measure(cells, SEEDS)
    assert verdicts(finding) == ["holds"] * 5 and "<svg" in finding.figure
    assert "is right in +1.00" in finding.notes[0] and len(finding.notes) == 2 + 12
    cells = Overseen(tmp_path / "liar")
    cells.faithful = 0.0  # the wrong critic is the right one
    assert verdicts(oversight.measure(cells, SEEDS[:2]))[1:] == ["fails"] * 4


@pytest.fixture
def pairs(tmp_path):
    cells = Overseen(tmp_path)
    cells.pairs = 150
    configs = [oversight.criticised(cells.flow(0), side) for side in oversight.SIDES]
    cells.run(configs)

    def labels(accuracy, aid, **changes):
        out = tmp_path / f"{accuracy}-{aid}-{len(changes)}"
        given = {"first": configs[0].out, "second": configs[1].out, "out": str(out), "threads": 1, **changes}
        run_stage("oversee", oversee.Oversee(accuracy=accuracy, aid=aid, **given))
        return out

    labels.configs = configs
    return labels


def test_people_alone_are_as_right_as_is_said_and_a_critic_adds_its_log_odds(pairs):
    config = oversee.Oversee(first="a", second="b", out="c", accuracy=0.85)
    sure = [oversee.evidence(config, k, 1) for k in range(4000)]
    assert sum(x > 0 for x in sure) / 4000 == pytest.approx(0.85, abs=0.02)
    assert [oversee.evidence(config, k, -1) > 0 for k in range(4000)].count(True) / 4000 == pytest.approx(
        0.15, abs=0.02
    )
    # of two normal deviates μ apart in units of one, log-odds have mean 2μ² and deviation 2μ
    mean = NormalDist().inv_cdf(0.85)
    assert sum(sure) / 4000 == pytest.approx(2 * mean**2, rel=0.05)
    shares = {aid: feedback.right_share(pairs(0.7, aid) / "comparisons.jsonl") for aid in oversight.AIDS}
    assert shares["wrong"] < 0.4 < shares["none"] < 0.85 < shares["critique"]
    facts = read_json(pairs(0.7, "critique", belief=0.6) / "lineage.json")
    assert facts["words"] == facts["comparisons"] == 150 and facts["words_right"] == 1


@pytest.mark.parametrize("silent", [slice(0, 1), slice(0, 2)], ids=["of one reply", "of both"])
def test_a_critic_who_says_nothing_changes_nothing(pairs, silent):
    for config in pairs.configs[silent]:
        rows = read_lines(Path(config.out) / "samples.jsonl")
        write(
            Path(config.out), [{**row, **({"critique": "that is hard to say."} if row["step"] else {})} for row in rows]
        )
    alone, aided = (pairs(0.7, aid) for aid in ("none", "critique"))
    one, other = ([row["ranks"] for row in read_lines(folder / "comparisons.jsonl")] for folder in (alone, aided))
    assert one == other and read_json(aided / "lineage.json")["words_right"] is None


# ---------------------------------------------------------------- cost of feedback


class Priced(Scripted):
    """Labels are made in earnest; a policy is safer with more of them that are right."""

    judge = 0.9

    def base(self, seeds):
        flows = super().base(seeds)
        for flow in flows:
            rows = []
            for prompt in world.prompts(120, 6, "harmful"):
                rows += [row_of(prompt, "good"), row_of(prompt, "explained")]
            write(Path(flow.sample_harm().out), rows)
            run_stage("annotate", flow.annotate_harm().model_copy(update={"judged": [], "judged_slices": {}}))
        return flows

    def run(self, configs):
        for config in configs:
            if isinstance(config, Annotate):
                run_stage("annotate", config)
            elif isinstance(config, Constitution):
                made = []
                for k, prompt in enumerate(world.prompts(120, 6, "harmful")):
                    sure = 0.9 if k < 120 * self.judge else 0.1
                    made.append(
                        soft_label(prompt, said(prompt, "explained"), said(prompt, "good"), "harmless", sure, "ai")
                    )
                Path(config.out).mkdir(parents=True, exist_ok=True)
                write_records(Path(config.out) / "comparisons.jsonl", made)
        super().run(configs)

    def of(self, config, name):
        if name == "sft":
            return 0.5, 0.5, 0.5
        source, count = name.removeprefix("cost-").rsplit("-", 1)
        file = cost_of_feedback.file_of(GoldFlow(Path(config.out).parent, SCALES["small"], 0, True), source)
        return max(0.0, 0.5 - 0.0006 * int(count) * (feedback.right_share(file) - 0.5) * 2), 0.5, 0.5


def test_cost_of_feedback_compares_at_one_price_and_at_one_number(tmp_path, right_share):
    finding = cost_of_feedback.measure(Priced(tmp_path), SEEDS)
    assert verdicts(finding) == ["holds"] * 3 and "<svg" in finding.figure
    assert any(note.startswith("ai-0.6: +0.6") for note in finding.notes)
    cells = Priced(tmp_path / "blind")
    cells.judge = 0.5
    assert verdicts(cost_of_feedback.measure(cells, SEEDS[:2])) == ["fails", "fails", "holds"]


def test_a_ranking_of_three_is_right_by_its_pairs(tmp_path):
    """Of a prompt that was drawn twice people rank more than two replies."""
    (prompt,) = world.prompts(1, 3, "harmful")
    replies = (said(prompt, "explained"), said(prompt, "vague"), said(prompt, "good"))
    made = [
        Comparison(prompt, replies, ranks, "harmless", "x", 0.0, (0, 1, 2))
        for ranks in ((1, 2, 3), (2, 1, 3), (3, 2, 1))
    ]
    write_records(tmp_path / "c.jsonl", made)
    assert feedback.right_share(tmp_path / "c.jsonl") == pytest.approx((3 + 2 + 0) / 9)


def test_every_label_of_cost_of_feedback_is_about_the_same_replies_and_costs_as_many_steps(tmp_path):
    flow = GoldFlow(tmp_path, SCALES["small"], 0, True)
    folder = flow.sample_harm().out
    assert {cost_of_feedback.judged(flow).replies, flow.annotate_harm().samples} == {folder}
    assert all(cost_of_feedback.simulated(flow, a).samples == folder for a in cost_of_feedback.STATED)
    made = [
        feedback.preferred(flow, "x", cost_of_feedback.file_of(flow, source), n, cost_of_feedback.MANY)
        for source, n in cost_of_feedback.ARMS
    ]
    assert {round(c.epochs * c.max_rows) for c in made} == {feedback.PASSES * cost_of_feedback.MANY}
    assert cost_of_feedback.PRICE * cost_of_feedback.FEW == cost_of_feedback.MANY
    assert len({c.data for c in made}) == len(cost_of_feedback.SOURCES)
