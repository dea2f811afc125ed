"""`accord constitution`: critiques and revisions become demonstrations, comparisons become soft labels."""

import json
import os
import signal

import pytest

from accord.config import Asking
from accord.disk import read_json, read_lines
from accord.labelers.backends import Labelers
from accord.labelers.constitution_file import read_constitution
from accord.labelers.journal import Journal
from accord.labelers.labeler import Draft
from accord.labelers.local import LocalLabeler
from accord.labelers.preferences import prefers, thought_over
from accord.labelers.principles import drawn, several_drawn
from accord.labelers.questions import Distribution
from accord.parsing import parse
from accord.records import Prompt, Turn
from accord.run import verify
from accord.stages.constitution import compare, revise
from accord.stages.constitution.compare import watch
from accord.stages.constitution.config import Constitution
from accord.training import distributed
from accord.world import prompts

YAML = """\
name: ours
principles:
  - name: kind
    text: Be kind.
    critique: Is it rude?
    revision: Be kinder.
    comparison: Which is kinder?
    tags: [soft]
  - name: short
    text: Be short.
    revision: Be shorter.
critiques:
  - {prompt: hi, principle: kind, reply: go, critique: rude, revision: hello}
"""


@pytest.fixture
def ours(tmp_path):
    path = tmp_path / "ours.yaml"
    path.write_text(YAML)
    return path


@pytest.fixture(scope="module")
def revised(commands, tmp_path_factory):
    out = tmp_path_factory.mktemp("constitution") / "run"
    assert commands.run("constitution", out, helpful=commands.files / "prompts.jsonl") == 0
    return out


def test_every_step_is_a_record_with_where_it_came_from(revised, snapshots):
    verify(revised)
    rows = read_lines(revised / "samples.jsonl")
    principles = read_constitution("default").revising()
    assert len(rows) == 12 * 3 and [row["step"] for row in rows[:4]] == [0, 1, 2, 0]
    before = {}
    for row in rows:
        assert (row["model"], row["temperature"], row["max_new_tokens"]) == (str(snapshots / "policy"), 1.0, 6)
        assert row["writer"] == "policy"
        if row["step"] and row["reply"]:
            principle = drawn(principles, f"0 {row['prompt_id']} {row['step']}")
            assert (row["principle"], row["revision_request"]) == (principle.name, principle.revision)
            assert row["critique_request"] == principle.critique and row["revised"] == before[row["prompt_id"]]
        if not row["step"] or (row["reply"] and not row["why"]):
            before[row["prompt_id"]] = row["reply"]
    assert len({row["principle"] for row in rows if row["step"]}) > 3
    assert read_constitution(str(revised / "constitution.yaml")).principles == read_constitution("default").principles


def test_whole_revisions_and_helpful_replies_are_demonstrations(revised, commands, tmp_path):
    rows = read_lines(revised / "samples.jsonl")
    whole = {(row["prompt_id"], row["reply"]) for row in rows if row["step"] and row["reply"] and not row["why"]}
    made = read_lines(revised / "demonstrations.jsonl")
    asked = {Prompt(tuple(Turn(**t) for t in row["prompt"]), "", "").id: row["reply"] for row in made}
    assert len(made) > len(whole) > 0 and asked
    pairs = [(Prompt(tuple(Turn(**t) for t in row["prompt"]), "", "").id, row["reply"]) for row in made]
    assert set(pairs[: len(whole)]) == whole and len(set(pairs)) == len(pairs)
    facts = read_json(revised / "lineage.json")
    assert facts["revisions"] == len(whole) and facts["revisions"] + facts["helpful"] == len(made)
    assert facts["not_whole"] + facts["twice"] + len(made) == 24 + 24
    assert [step["step"] for step in read_json(revised / "revisions.json")] == [0, 1, 2]
    assert commands.run("sft", tmp_path / "sft", data=revised / "demonstrations.jsonl") == 0


class Scripted:
    """A labeler that says what it is told and keeps what it was asked."""

    name = key = "scripted"

    def __init__(self, *texts):
        self.texts, self.asked = list(texts), []

    def write(self, prompts, how):
        drafts = []
        for turns in prompts:
            self.asked.append([(turn.role, turn.content) for turn in turns])
            text = self.texts.pop(0)
            drafts.append(text if isinstance(text, Draft) else Draft(text))
        return drafts

    def ask(self, questions):
        self.asked += [[(turn.role, turn.content) for turn in question.turns] for question in questions]
        return [Distribution((p, 1 - p), "logprobs") for p in (self.texts.pop(0) for _ in questions)]


def talk(monkeypatch, tmp_path, ours, texts, **changes):
    """One prompt's way with a scripted model."""
    said = Scripted(*texts)
    monkeypatch.setattr(Labelers, "named", lambda self, where: said)
    monkeypatch.setattr("accord.stages.shared.preflight", lambda *_, **__: None)
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "why"}\n')
    config = {"model": "m", "data": str(data), "constitution": str(ours), "out": str(tmp_path / "run"), **changes}
    from accord.stages.constitution.run import run

    run(Constitution(**{"revisions": 1, "tags": ["soft"], "threads": 1, **config}))
    return said.asked


SHOT = [("user", "hi"), ("assistant", "go"), ("user", "Is it rude?"), ("assistant", "rude")]
SHOT += [("user", "Be kinder."), ("assistant", "hello")]


def test_the_critic_sees_example_prompt_reply_and_request_and_then_its_own_critique(monkeypatch, tmp_path, ours):
    asked = talk(monkeypatch, tmp_path, ours, ["no", "it is rude", "yes"])
    assert asked[0] == [("user", "why")]
    assert asked[1] == [*SHOT, ("user", "why"), ("assistant", "no"), ("user", "Is it rude?")]
    assert asked[2] == [*asked[1], ("assistant", "it is rude"), ("user", "Be kinder.")]
    assert [row["reply"] for row in read_lines(tmp_path / "run" / "demonstrations.jsonl")] == ["yes"]


def test_without_critiques_neither_examples_nor_requests_hold_one(monkeypatch, tmp_path, ours):
    asked = talk(monkeypatch, tmp_path, ours, ["no", "yes"], critique=False)
    assert asked[1] == [*SHOT[:2], *SHOT[4:], ("user", "why"), ("assistant", "no"), ("user", "Be kinder.")]


def test_a_revision_that_was_cut_is_no_demonstration_and_not_revised(monkeypatch, tmp_path, ours):
    texts = ["no", "c", Draft("yes and", "cut"), "c", "yes"]
    asked = talk(monkeypatch, tmp_path, ours, texts, revisions=2, shots=0)
    assert asked[3] == [("user", "why"), ("assistant", "no"), ("user", "Is it rude?")]
    assert [row["reply"] for row in read_lines(tmp_path / "run" / "demonstrations.jsonl")] == ["yes"]
    assert read_json(tmp_path / "run" / "lineage.json")["not_whole"] == 1


def test_progress_is_said_after_every_step_of_a_chunk(monkeypatch, tmp_path, ours):
    told = []
    monkeypatch.setattr(revise.Progress, "update", lambda self, done, numbers: told.append((done, self.steps)))
    talk(monkeypatch, tmp_path, ours, ["no", "c", "yes", "c", "so"], revisions=2)
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_nothing_whole_is_refused(monkeypatch, tmp_path, ours):
    from accord.errors import BadInput

    with pytest.raises(BadInput, match="no revision is whole"):
        talk(monkeypatch, tmp_path, ours, ["no", "c", Draft("yes", "cut")])


class Killed(BaseException):
    """What a process that is killed does not survive."""


@pytest.mark.parametrize("make", ["demonstrations", "comparisons"])
def test_a_run_that_is_killed_at_any_call_goes_on_to_the_same_records(commands, tmp_path, monkeypatch, make):
    for module in (revise, compare):
        monkeypatch.setattr(module, "CHUNK", 2)
    changes = {"make": make, "max_rows": 6, **({"revisions": None} if make == "comparisons" else {})}
    calls, killed_at = [0], [0]

    def counted(plain):
        def method(self, *given):
            calls[0] += 1
            if calls[0] == killed_at[0]:
                raise Killed
            return plain(self, *given)

        return method

    for name in ("write", "ask"):
        monkeypatch.setattr(LocalLabeler, name, counted(getattr(LocalLabeler, name)))
    assert commands.run("constitution", tmp_path / "whole", **changes) == 0
    total = calls[0]
    assert total >= 6
    for at in {1, total // 3, 2 * total // 3, total}:
        out = tmp_path / f"killed-{at}"
        calls[0], killed_at[0] = 0, at
        with pytest.raises(Killed):
            commands.run("constitution", out, **changes)
        if (samples := out / "samples.jsonl").exists():
            samples.write_bytes(samples.read_bytes()[:-5])  # and its last line was torn
        killed_at[0] = 0
        assert commands.run("constitution", out, resume="true", **changes) == 0
        for file in ("samples.jsonl", "demonstrations.jsonl", "comparisons.jsonl", "labels.jsonl", "journal.jsonl"):
            one, other = (folder / file for folder in (tmp_path / "whole", out))
            assert one.exists() == other.exists() and (not one.exists() or one.read_bytes() == other.read_bytes()), at


def test_a_stop_is_heard_after_a_step_of_revisions_and_nothing_written_is_drawn_again(commands, tmp_path, monkeypatch):
    assert commands.run("constitution", tmp_path / "whole") == 0
    drawn, plain, begin = [], LocalLabeler._draw, revise.begin

    def draw(self, prompts, numbers, how):
        drawn.append(len(prompts))
        return plain(self, prompts, numbers, how)

    def stopped(config, policy, chains):
        begin(config, policy, chains)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(LocalLabeler, "_draw", draw)
    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(revise, "begin", stopped)
        assert commands.run("constitution", out) == 1
    assert len(drawn) == 1 and not (out / "samples.jsonl").exists()
    before = len(read_lines(out / "journal.jsonl"))
    assert before == drawn[0]
    drawn.clear()
    assert commands.run("constitution", out, resume="true") == 0
    for name in ("samples.jsonl", "demonstrations.jsonl", "journal.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sum(drawn) + before == len(read_lines(out / "journal.jsonl"))


def test_replies_to_helpful_prompts_are_drawn_in_parts_to_the_same_demonstrations(
    revised, commands, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(revise, "CHUNK", 3)
    out, helpful = tmp_path / "parts", commands.files / "prompts.jsonl"
    assert commands.run("constitution", out, helpful=helpful) == 0
    assert "helpful reply" in capsys.readouterr().err
    for name in ("samples.jsonl", "demonstrations.jsonl"):
        assert (out / name).read_bytes() == (revised / name).read_bytes()


@pytest.fixture(scope="module")
def compared(commands, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "run"
    knobs = {"make": "comparisons", "ensemble": 2, "revisions": None, "samples": 3}
    assert commands.run("constitution", out, **knobs) == 0
    return out


def test_soft_labels_are_the_mean_over_orders_and_principles(compared, snapshots, tmp_path):
    verify(compared)
    made, labels = (read_lines(compared / name) for name in ("comparisons.jsonl", "labels.jsonl"))
    found = read_constitution("default")
    assert len(made) == len(labels) > 12
    assert len({label["principles"][0] for label in labels}) > 3
    with Journal(tmp_path / "journal.jsonl") as journal:
        labeler = Labelers(Asking(), distributed.start(1), journal).named(str(snapshots / "policy"))
        for row, label in list(zip(made, labels, strict=True))[:5]:
            turns = tuple(Turn(**turn) for turn in row["prompt"])
            prompt = Prompt(turns, "", "")
            by = several_drawn(found.comparing(), f"0 {prompt.id} {row['replies'][0]} {row['replies'][1]}", 2)
            assert label["principles"] == [p.name for p in by] and label["id"] == row["id"]
            pairs = [[found.both_orders(p, turns, *row["replies"], shots=1) for p in by]]
            (first,) = prefers(labeler, pairs).first
            assert label["first"] == pytest.approx(first, abs=1e-5)
            assert row["probability"] == pytest.approx(max(first, 1 - first), abs=1e-5)
            assert row["criterion"] == "harmless" and row["labeler"] == "ai:policy:logprobs"


def test_preference_and_dpo_learn_from_the_soft_labels(compared, commands, tmp_path):
    data = compared / "comparisons.jsonl"
    assert commands.run("preference", tmp_path / "pm", data=data, criterion="harmless", eval_share=0.2) == 0
    assert (
        commands.run("dpo", tmp_path / "dpo", data=data, criterion="harmless", kl_prompts=0, max_new_tokens=None) == 0
    )


def test_given_replies_are_compared_in_both_orders(monkeypatch, tmp_path, ours):
    drawn_before = tmp_path / "drawn"
    drawn_before.mkdir()
    (prompt,) = prompts(1, 7, "benign")
    shared = {"prompt_id": prompt.id, "slice": "x", "source": "y", "prompt": [t._asdict() for t in prompt.turns]}
    (drawn_before / "samples.jsonl").write_text(
        "".join(json.dumps({**shared, "reply": reply}) + "\n" for reply in ("a b", "a b c d"))
    )
    knobs = {"make": "comparisons", "replies": str(drawn_before), "judge": "j", "model": "", "data": ""}
    said = Scripted(0.8, 0.3)
    monkeypatch.setattr(Labelers, "named", lambda self, where: said)
    monkeypatch.setattr("accord.stages.shared.preflight", lambda *_, **__: None)
    from accord.stages.constitution.run import run

    run(Constitution(out=str(tmp_path / "run"), constitution=str(ours), tags=["soft"], threads=1, **knobs))
    straight, turned = (asked[-1][1] for asked in said.asked)
    assert straight.index("(A) a b\n") < straight.index("(B) a b c d") and "Which is kinder?" in straight
    assert turned.index("(A) a b c d") < turned.index("(B) a b\n")
    (row,) = read_lines(tmp_path / "run" / "comparisons.jsonl")
    assert row["ranks"] == [1, 2] and row["slice"] == "x" and row["labeler"] == "ai:scripted:logprobs"
    watched = read_json(tmp_path / "run" / "watch.json")
    assert watched["longer_preferred"] == 0 and watched["uneven"] == 1 and watched["preferred"]["words"] == 2


def test_hard_labels_are_the_choice_of_the_same_questions(compared, commands, tmp_path, snapshots):
    given = {"make": "comparisons", "ensemble": 2, "labels": "hard", "replies": compared, "judge": snapshots / "policy"}
    given |= dict.fromkeys(("model", "data", "revisions", "max_new_tokens", "helpful"))
    assert commands.run("constitution", tmp_path / "hard", **given) == 0
    soft, hard = (read_lines(folder / "comparisons.jsonl") for folder in (compared, tmp_path / "hard"))
    assert {row.get("probability", 1.0) for row in hard} == {1.0}
    assert all(0.5 < row["probability"] < 1 for row in soft)
    assert [(row["replies"], row["ranks"]) for row in hard] == [(row["replies"], row["ranks"]) for row in soft]
    asked = [[row["asked"] for row in read_lines(f / "labels.jsonl")] for f in (compared, tmp_path / "hard")]
    assert asked[0] == asked[1]


@pytest.mark.parametrize(
    "line",
    [
        ["constitution", "--model", "m", "--data", "d"],
        ["redteam", "--model", "m", "--data", "d", "--judge", "labeler:j"],
        ["evaluate principles", "--model", "m", "--judge", "j"],
    ],
    ids=lambda line: line[0],
)
def test_tags_have_commas_between_on_a_command_line_too(line):
    assert parse(line[0], [*line[1:], "--out", "o", "--tags", "soft, short"]).tags == ["soft", "short"]
    assert parse(line[0], [*line[1:], "--out", "o", "--tags", '["soft"]']).tags == ["soft"]


def test_principles_are_chosen_by_their_names_too(monkeypatch, tmp_path, ours):
    found = read_constitution(str(ours))
    assert [p.name for p in found.revising(["short"])] == ["short"] and found.comparing(["short"]) == []
    assert [p.name for p in found.revising(["short", "soft"])] == ["kind", "short"]
    asked = talk(monkeypatch, tmp_path, ours, ["no", "yes"], tags=["short"])
    assert asked[1][-1] == ("user", "Be shorter.")


def test_helpful_prompts_are_of_the_split_that_is_asked_for(commands, tmp_path):
    assert commands.run("constitution", tmp_path / "run", helpful=commands.files / "prompts.jsonl", split="policy") == 0
    made = read_lines(tmp_path / "run" / "demonstrations.jsonl")
    prompts_ = [Prompt(tuple(Turn(**turn) for turn in row["prompt"]), "", "") for row in made]
    assert made and {prompt.split for prompt in prompts_} == {"policy"}


def test_thoughts_are_written_greedily_and_the_answer_follows_them():
    found = read_constitution("default")
    both = found.both_orders(found.principles[0], (Turn("user", "why"),), "one", "two", shots=0)
    said = Scripted("because", "")
    after, other = thought_over(said, [both.straight, both.turned], tokens=9, seed=3)
    assert said.asked[0][0][1].endswith("Do not answer yet.") and "nothing else" not in said.asked[0][0][1]
    roles = [turn.role for turn in after.turns]
    assert roles == ["user", "assistant", "user"] and after.turns[1].content == "because"
    assert after.turns[2].content == "Answer with A or B and nothing else." and other.turns[1].content == "…"


def test_watching_counts_ties_out():
    assert watch([]) == {"replies": {"n": 0}, "preferred": {"n": 0}, "longer_preferred": None, "uneven": 0}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "needs --model and --data"),
        ({"make": "comparisons"}, "or --replies and --judge"),
        ({"make": "principles"}, "needs --from_votes and --statements"),
        ({"make": "comparisons", "replies": "r"}, "compared by --judge"),
        ({"model": "m", "data": "d", "samples": 3}, "--samples has no effect with --make demonstrations"),
        ({"make": "comparisons", "model": "m", "data": "d", "clamp": 0.2}, "--clamp has no effect without --think"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        Constitution(out="o", **changes)


def test_a_constitution_that_has_nothing_for_it_is_refused(commands, tmp_path, ours, capsys):
    assert commands.run("constitution", tmp_path / "run", constitution=ours, tags='["hard"]') == 2
    assert "no principle with a tag of hard revises" in capsys.readouterr().err
    assert (
        commands.run("constitution", tmp_path / "t", constitution="world", make="comparisons", think=5, revisions=None)
        == 2
    )
    assert "--think: the language of the constitution world" in capsys.readouterr().err
