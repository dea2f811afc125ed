"""Rounds with a gate: every step is done once, whatever stops them; people are waited for; judges are others."""

import json
import os
from collections import Counter
from types import SimpleNamespace

import pytest
import yaml

from accord.cli import main
from accord.disk import read_json, read_lines
from accord.evaluation.promotion import comparisons_needed
from accord.feedback.store.answers import CompareAnswer
from accord.feedback.store.database import Database
from accord.feedback.store.desk import Desk
from accord.feedback.store.people import People
from accord.reporting import build_report
from accord.run import RunFolder, verify
from accord.stages.collect.rounds import JUDGING, TRAINING, take_in
from accord.stages.online import people
from accord.stages.online.states import Ledger
from tests.conftest import teach, weights_of

LOOSE = {
    "confidence": 0.9,
    "bounds": {
        "help": {"metric": "win/helpful", "at_least": 0.01},
        "harm": {"metric": "win_first/harmless", "at_least": 0.01},
        "every_group": {"metric": "win/helpful/worst_group", "at_least": 0.01},
        "short": {"metric": "length", "change_at_most": 50},
        "loss": {"metric": "loss", "change_at_most": 9},
    },
}


@pytest.fixture(scope="module")
def policy(tmp_path_factory, tokenizer, nano):
    """A tiny policy that has room for the gold world's prompts."""
    from accord.data.chat import Renderer
    from accord.models.policy import new_policy
    from accord.models.saving import save_model

    folder = tmp_path_factory.mktemp("policy") / "snapshot"
    model = new_policy(nano, tokenizer, max_length=400, seed=0)
    teach(model, Renderer(tokenizer), 0)
    plain = {"kind": "none", "shift": 0.0, "scale": 1.0}
    save_model(model, tokenizer, folder, {"role": "policy", "criterion": "", "normalizer": plain}, "")
    return folder


@pytest.fixture
def gate(tmp_path):
    """`gate(bounds)` writes a gate file; without bounds, one that lets everything through."""

    def write(**changes):
        path = tmp_path / "gate.yaml"
        path.write_text(yaml.safe_dump({**LOOSE, **changes}))
        return path

    return write


def line(start, out, **changes):
    """A command line of two rounds in which nothing takes long."""
    knobs = {
        **{"model": start, "data": "world:prompts?count=500&seed=1", "rounds": 2, "prompts": 14, "threads": 1},
        **{"max_new_tokens": 6, "judge_prompts": 24, "eval_prompts": 30, "out": out, "train.max_length": 400},
        **{"train.precision": "f32", "train.learning_rate": 0.001, **changes},
    }
    return ["online", *(part for k, v in knobs.items() if v is not None for part in (f"--{k}", str(v)))]


DIRECT = {"labeler": "simulated", "train.eval_share": 0.3, "train.kl_prompts": 0}
OPTIMISED = {
    **{"labeler": "simulated", "policy": "ppo", "limits.harmless": 0.5, "train.steps": 1, "train.batch_size": 4},
    **{"train.mini_batch_size": 4, "preference.max_length": 400, "preference.eval_share": 0.3},
    **{"preference.precision": "f32", "preference.learning_rate": 0.001},
}


@pytest.fixture(scope="module")
def whole(policy, files, tmp_path_factory):
    """Two rounds of PPO under a limit, that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "gate.yaml").write_text(yaml.safe_dump(LOOSE))
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert main(line(policy, "run", gate="gate.yaml", eval_data=files / "demonstrations.jsonl", **OPTIMISED)) == 0
    finally:
        os.chdir(before)
    return folder / "run"


def test_a_gated_run_leaves_why_each_round_was_promoted(whole):
    verify(whole)
    told = read_json(whole / "rounds.json")
    assert [one["decision"]["promoted"] for one in told["rounds"]] == [True, True]
    assert [one["incumbent"] for one in told["rounds"]] == ["first", "round-1"]
    for number, one in enumerate(told["rounds"], 1):
        bounds = {bound["name"]: bound for bound in one["decision"]["bounds"]}
        assert set(bounds) == set(LOOSE["bounds"])
        assert {bound["verdict"] for bound in bounds.values()} == {"met"}
        assert all(bound["confidence"] == pytest.approx(0.95) for bound in bounds.values()), "half of the error each"
        assert bounds["help"]["needed_to_detect"] == comparisons_needed(0.55, confidence=0.975, against=0.01)
        assert bounds["help"]["prompts"] == 24
        assert read_json(whole / f"round-{number}" / "decision.json") == one["decision"]
    assert (whole / "snapshot" / "config.json").is_file()


def test_judges_are_others_than_who_labelled(whole):
    for one in read_json(whole / "rounds.json")["rounds"]:
        labelled = set(one["steps"]["label"]["labelers"])
        judged = {judge for judges in one["decision"]["judges"].values() for judge in judges}
        assert labelled == {"simulated:mixed:0"}
        assert judged and not judged & labelled


def test_models_learn_from_the_labels_of_all_rounds(whole):
    lineage = read_json(whole / "round-2" / "models" / "helpful" / "lineage.json")
    assert [source["name"] for source in lineage["sources"]] == ["round-1", "round-2"]
    cost = read_json(whole / "round-2" / "models" / "harmless" / "snapshot" / "config.json")
    assert "cost" in json.dumps(cost)


def test_harm_and_loss_are_compared_with_the_first_snapshot_and_help_with_the_last(whole):
    rows = read_lines(whole / "round-2" / "judge" / "sample-incumbent" / "samples.jsonl")
    assert {row["model"] for row in rows} == {os.path.join("run", "round-1", "ppo", "snapshot")}
    first = read_lines(whole / "round-2" / "judge" / "sample-first" / "samples.jsonl")
    assert not {row["model"] for row in first} & {row["model"] for row in rows}
    short = read_json(whole / "round-2" / "evaluate" / "gate.json")["bounds"][0]
    assert short["against"] == os.path.join("run", "first", "evaluate")


def test_every_label_can_be_found_from_the_rounds(whole):
    from accord.lineage import hash_file

    for one in read_json(whole / "rounds.json")["rounds"]:
        files = dict(one["steps"]["label"]["files"])
        for judged in one["steps"]["judge"].values():
            files |= judged["files"] if isinstance(judged, dict) else {}
        assert len(files) > 3
        for name, found in files.items():
            assert hash_file(whole / name) == found


def test_prompts_of_different_uses_are_apart(whole):
    def ids(pattern):
        return {row["id"] for file in whole.glob(pattern) for row in read_lines(file)}

    uses = [ids("round-1/prompts.jsonl"), ids("round-2/prompts.jsonl"), ids("evaluation-prompts.jsonl")]
    uses += [
        ids("round-1/judge/prompts.jsonl"),
        ids("round-2/judge/prompts.jsonl"),
        ids("round-*/policy-prompts.jsonl"),
    ]
    assert all(uses) and sum(map(len, uses)) == len(set.union(*uses))


def test_the_report_shows_the_rounds(whole, drawn):
    page = build_report([whole])
    assert "Round 1: promoted." in page and "Round 2: promoted." in page
    assert "simulated:mixed:0" in page and "simulated:mixed:1001" in page
    assert "Wins over the rounds" in page and "Replies that met" in page


def stopped_everywhere(monkeypatch, rounds):
    """Ends every step once: in the first of two rounds before its end is written, in the second after; in a single one
    by turns. Returns how often steps were done, and how often runs were finished, by folder."""
    plain, seen, finished, finish = Ledger.set, Counter(), Counter(), RunFolder.finish

    def set_state(self, number, step, state, **facts):
        seen[number, step] += state == "done"
        kill = state == "done" and seen[number, step] == 1
        if not (kill and (number == 1 if rounds == 2 else len(seen) % 2)):
            plain(self, number, step, state, **facts)
        if kill:
            raise RuntimeError(f"killed at the end of {step} of round {number}")

    def count(self, **facts):
        finished[str(self.path)] += 1
        finish(self, **facts)

    monkeypatch.setattr(Ledger, "set", set_state)
    monkeypatch.setattr(RunFolder, "finish", count)
    return seen, finished


@pytest.mark.parametrize("rounds", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_at_the_end_of_every_step_does_each_once(
    whole, policy, files, tmp_path, monkeypatch, capsys, rounds
):
    """In both rounds, or in the first and then at the first step of the second, where the test leaves it."""
    seen, finished = stopped_everywhere(monkeypatch, rounds)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gate.yaml").write_text(yaml.safe_dump(LOOSE))
    asked = line(policy, "run", gate="gate.yaml", eval_data=files / "demonstrations.jsonl", **OPTIMISED)
    starts = 1
    while main([*asked, *(["--resume"] if starts > 1 else [])]) == 1 and max(seen)[0] <= rounds:
        starts += 1
        assert starts < 40
    capsys.readouterr()
    assert starts == rounds * 8 + 1, "eight steps of a round, each stopped once"
    assert set(finished.values()) == {1}, "no run folder was made twice"
    told = read_json(tmp_path / "run" / "rounds.json")["rounds"][:rounds]
    steps = [step for one in told for step in one["steps"].values()]
    assert len(steps) == 8 * rounds and {step["ended"] for step in steps} == {1}
    assert told == read_json(whole / "rounds.json")["rounds"][:rounds]
    same = [f"round-{n}/decision.json" for n in range(1, rounds + 1)]
    same += [str(file.relative_to(whole)) for file in whole.rglob("*.jsonl") if file.name != "metrics.jsonl"]
    same += [str(file.relative_to(whole)) for file in whole.rglob("*.safetensors") if "checkpoints" not in file.parts]
    if rounds == 2:
        same.append("rounds.json")
        assert weights_of(tmp_path / "run").keys() == weights_of(whole).keys()
    else:
        same = [name for name in same if not name.startswith(("round-2", "snapshot"))]
    assert len(same) > 20 * rounds
    for name in same:
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_finished_run_of_rounds_is_left_as_it_is(whole, monkeypatch, policy, files):
    before = (whole / "manifest.json").stat().st_mtime_ns
    monkeypatch.chdir(whole.parent)
    asked = line(policy, "run", gate="gate.yaml", eval_data=files / "demonstrations.jsonl", **OPTIMISED)
    assert main([*asked, "--resume"]) == 0
    assert (whole / "manifest.json").stat().st_mtime_ns == before


def test_rounds_of_which_none_is_promoted_end_with_3(policy, gate, tmp_path, capsys):
    strict = gate(bounds={"help": {"metric": "win/helpful", "at_least": 0.999}})
    asked = line(policy, tmp_path / "run", gate=strict, **DIRECT)
    assert main(asked) == 3
    assert "no round of 2 was promoted" in capsys.readouterr().err
    told = read_json(tmp_path / "run" / "rounds.json")["rounds"]
    assert [one["incumbent"] for one in told] == ["first", "first"]
    assert not (tmp_path / "run" / "snapshot").exists(), "nothing is deployed that was refused"
    data = read_json(tmp_path / "run" / "round-2" / "dpo" / "lineage.json")["sources"]
    assert [source["name"] for source in data] == ["round-1", "round-2"], "nobody has learned from round 1 yet"
    assert main([*asked, "--resume"]) == 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bounds": {"tax": {"change_at_least": -0.1}}}, "no bound on win/helpful"),
        ({"bounds": {"a": {"metric": "win/", "at_least": 0.5}}}, "write win/CRITERION"),
        ({"bounds": {"a": {"metric": "win/helpful", "at_least": 1.5}}}, "a win rate lies between 0 and 1"),
        ({"bounds": {"a": {"metric": "cost/harm", "at_most": 0}}}, "add --costs.harm DIR"),
        ({"bounds": {"a": {"metric": "gold/helpfull", "at_least": 0}}}, "did you mean gold/helpful"),
        ({"bounds": {"a": {"metric": "loss", "change_at_most": 0}}}, "--eval_data SOURCE"),
        ({"bounds": {"tax": {"change_at_least": 0, "against": "x"}}}, "from the first snapshot; leave it out"),
    ],
)
def test_a_gate_that_rounds_cannot_keep_is_refused_before_anything_is_drawn(
    policy, gate, tmp_path, capsys, changes, says
):
    assert main(line(policy, tmp_path / "run", gate=gate(**changes), **DIRECT)) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"judge_prompts": 0}, "fresh ones to judge on in each of 2 rounds, need"),
        ({"judge": "ai"}, "--judge_scorer goes with"),
        ({"labeler": "ai", "scorer": "x", "judge": "ai", "judge_scorer": "x"}, "cannot judge it"),
        ({"split": "policy"}, "--split: with --gate"),
        ({"deployed": '["a", "b"]'}, "3 snapshots cannot share --samples 2"),
        ({"limits.harmless": 0}, "--limits has no effect with --policy dpo"),
        (
            {"policy": "ppo", "limits.harmless": 0, "labeler": "gold", "train.kl_prompts": None}
            | {"train.eval_share": None},
            "safe or unsafe",
        ),
        ({"judge": "people", "checks": "x"}, "--checks has no effect with --judge people"),
        ({"database": "x.db"}, "--database has no effect"),
    ],
)
def test_choices_that_do_not_fit_are_refused_before_anything_is_drawn(policy, gate, tmp_path, capsys, changes, says):
    strict = gate(bounds={"help": {"metric": "win/helpful", "at_least": 0.5}})
    assert main(line(policy, tmp_path / "run", gate=strict, **{**DIRECT, **changes})) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


class Page:
    """A page without a browser: it takes the questions of a run in, and people with tags answer them."""

    def __init__(self, address):
        from argon2 import PasswordHasher

        self.database = Database(str(address), writes=True)
        self.desk, self.people, self.known = Desk(self.database), People(self.database), set()
        self.people._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        self.ids = {}

    def join(self, name, tag, group=""):
        link = self.people.invite("annotator", by=None, tags=(tag,), group=group)
        self.ids[name] = self.people.of_session(self.people.join(link, name, "long enough for all")).id

    def answer(self, run, name, most=10**9):
        """Let somebody answer what there is for them; returns how many questions that was."""
        take_in(run, self.desk, self.known)
        done = 0
        while done < most and (held := self.desk.next(self.ids[name])) is not None:
            choices = {criterion: {"ranks": [1, 2]} for criterion in held.item.criteria}
            self.desk.submit(self.ids[name], held.number, f"{name}-{held.number}", CompareAnswer(choices=choices))
            done += 1
        return done


def test_people_are_waited_for_and_asked_for_one_thing_alone(policy, gate, tmp_path, capsys):
    bounds = {"help": {"metric": "win/helpful", "at_least": 0.01}}
    store, run = tmp_path / "feedback.db", tmp_path / "run"
    people = {"labeler": "people", "judge": "people", "database": store, "rounds": 1}
    asked = line(policy, run, gate=gate(bounds=bounds), **{**DIRECT, **people})
    assert main(asked) == 4
    said = capsys.readouterr().err
    assert f"accord collect --rounds {run} --database {store}" in said and "step label: waits for people" in said
    step = read_json(run / "rounds.json")["rounds"][0]["steps"]["label"]
    assert step["state"] == "waiting" and step["answers"] == 0 and 0 < step["wanted"] <= 14

    page = Page(store)
    page.join("ann", TRAINING, "many")
    page.join("ben", JUDGING, "few")
    page.join("both", TRAINING)
    assert page.answer(run, "ben") == 0, "who judges is not asked for labels"
    assert page.answer(run, "ann", most=3) == 3
    assert main([*asked, "--resume"]) == 4
    assert f"{step['wanted'] - 3} of {step['wanted']} answers are missing" in capsys.readouterr().err
    assert page.answer(run, "ann") == step["wanted"] - 3
    assert main([*asked, "--resume"]) == 4
    assert "step judge: waits for people" in capsys.readouterr().err
    assert page.answer(run, "ann") == page.answer(run, "both") == 0, "whose labels trained is not asked to judge"
    assert page.answer(run, "ben") > 0
    assert main([*asked, "--resume"]) in (0, 3)
    page.database.close()

    told = read_json(run / "rounds.json")["rounds"][0]
    assert told["steps"]["label"]["labelers"] == {"human:many:1": step["wanted"]}
    assert set(told["decision"]["judges"]["incumbent"]) <= {"human:few:2"}
    events = read_json(run / "round-1" / "annotate" / "events.json")
    rows = read_lines(run / "round-1" / "annotate" / "comparisons-helpful.jsonl")
    assert [one["record"] for one in events["events"]] == [row["id"] for row in rows]
    assert events["source"] == told["steps"]["label"]["source"] and events["source"].startswith("feedback:")
    assert all({step["ended"] for step in one["steps"].values()} == {1} for one in [told])


def test_with_wait_a_run_says_who_asks_and_goes_on_when_the_answers_are_there(
    policy, gate, tmp_path, capsys, monkeypatch
):
    bounds = {"help": {"metric": "win/helpful", "at_least": 0.01}}
    store, run = tmp_path / "feedback.db", tmp_path / "run"
    page = Page(store)
    page.join("ann", TRAINING)
    page.join("ben", JUDGING)
    looks = []

    def people_answer(seconds):
        looks.append(seconds)
        page.answer(run, "ann", most=5)
        page.answer(run, "ben")

    monkeypatch.setattr(people, "time", SimpleNamespace(sleep=people_answer))
    asked = {"labeler": "people", "judge": "people", "database": store, "rounds": 1}
    assert main([*line(policy, run, gate=gate(bounds=bounds), **{**DIRECT, **asked}), "--wait"]) in (0, 3)
    page.database.close()
    said = capsys.readouterr().out
    assert said.count(f"accord collect --rounds {run} --database {store}") == 2 and "--resume" not in said
    assert set(looks) == {people.EVERY} and 2 <= len(looks) < 7, "labels come in parts, judgements at once"


def test_several_deployed_snapshots_reply_in_turn(policy, tmp_path):
    alone = {"rounds": 1, "judge_prompts": None, "eval_prompts": None, **DIRECT}
    assert main(line(policy, tmp_path / "run", deployed=f'["{policy}"]', **alone)) == 0
    rows = read_lines(tmp_path / "run" / "round-1" / "sample" / "samples.jsonl")
    assert len(rows) == 28 and Counter(row["prompt_id"] for row in rows).most_common(1)[0][1] == 2
    assert {p.name for p in (tmp_path / "run" / "round-1").glob("sample-*")} == {"sample-1", "sample-2"}
