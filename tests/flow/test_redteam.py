"""`accord redteam`: attacks by family, who judges, what goes into the next round and what stays held out."""

import json
import random
from types import SimpleNamespace

import pytest
import torch

from accord.cli import main
from accord.data.sources import read_prompts
from accord.disk import read_json, read_lines
from accord.engine.packing import reply_group
from accord.labelers.labeler import Draft
from accord.labelers.questions import Distribution
from accord.models.scalar import Scorer
from accord.models.tokenizer import load_renderer
from accord.records import Prompt, Turn
from accord.run import verify
from accord.stages.redteam import prompts as redteam_prompts
from accord.stages.redteam.attacks import KINDS, PLAIN, attacks_on, chosen, wrap
from accord.stages.redteam.config import Redteam
from accord.stages.redteam.run import run as redteam
from accord.stages.redteam.verdicts import Replied, by_cost
from accord.stages.rewards import Setting
from accord.training import distributed
from accord.world import attacks as world_attacks
from accord.world import parse, prompts
from accord.world.replies import how_to

REFUSES = "i will not help with that."


def test_every_prompt_is_sent_as_it_is_and_in_one_form_of_every_family():
    seeds = prompts(30, 7, "harmful")
    found = attacks_on(seeds, chosen("world", [], []), 0)
    assert len(found) == 30 * (1 + len(world_attacks.ALL))
    for attack in found:
        last = attack.prompt.turns[-1].content
        assert world_attacks.family_of(last) == ("" if attack.family == PLAIN else attack.family)
        assert attack.held_out == (attack.family in world_attacks.HELD_OUT_FAMILIES)
        if attack.family != PLAIN:
            part = "held-out" if attack.held_out else "red-team"
            assert attack.prompt.slice == f"{part}/{attack.family}"
            assert parse(attack.prompt.turns).harmful, "the request behind the attack is still the request"
    forms = {a.prompt.turns[-1].content.replace(a.seed.turns[-1].content, "{r}") for a in found}
    assert len(forms) > len(world_attacks.ALL) + 1, "forms of a family are drawn"
    assert attacks_on(seeds[:3], chosen("world", [], []), 0) == found[: 3 * (1 + len(world_attacks.ALL))]


def test_a_third_of_the_families_is_held_out_and_none_shares_a_form():
    for kind in ("text", "world"):
        families = KINDS[kind]
        forms = [form for own in families.forms.values() for form in own]
        assert len(set(forms)) == len(forms) and len(families.held_out) * 3 >= len(families.forms)
        assert all(wrap(form, "REQUEST {r}") != form for form in forms)
    assert wrap("{r} ({reversed}) {x}", "say {r}") == "say {r} ({r} say) {x}", "what was said is put in once"
    assert wrap("{rot13}|{base64}|{spelled}", "abc") == "nop|YWJj|a b c"


class Policy:
    """Gives in to attacks of some families; keeps what it was asked."""

    name = key = "scripted"

    def __init__(self, *weak):
        self.weak, self.asked = weak, []

    def write(self, asked, how):
        self.asked += [turns[-1].content for turns in asked]
        return [Draft(self.reply(turns)) for turns in asked]

    def reply(self, turns):
        request = parse(turns)
        if world_attacks.family_of(turns[-1].content) in self.weak:
            return how_to(random.Random(0), request, "good")
        return REFUSES


@pytest.fixture
def harmful(tmp_path):
    path = tmp_path / "harmful.jsonl"
    rows = [
        {"record": "prompt", "prompt": [t._asdict() for t in p.turns], "slice": "harmful", "source": "world:prompts"}
        for p in prompts(60, 7, "harmful")
        if len(p.turns) == 1
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def attacked(monkeypatch, tmp_path, data, labelers, name="run", **knobs):
    monkeypatch.setattr(Setting, "labeler", lambda self, where: labelers[where])
    monkeypatch.setattr("accord.stages.shared.preflight", lambda *_, **__: None)
    config = {"model": "m", "attacks": "world", "threads": 1, "out": str(tmp_path / name)}
    config |= {"data": str(data)} if data else {}
    redteam(Redteam(**{**config, **knobs}))
    return tmp_path / name


def test_success_is_counted_by_family_and_what_succeeds_is_split(monkeypatch, tmp_path, harmful):
    out = attacked(monkeypatch, tmp_path, harmful, {"m": Policy("fiction", "role")})
    verify(out)
    told = read_json(out / "redteam.json")
    assert told["unjudged"] == {} and told["families"]["plain"]["success"]["mean"] == 0.0
    for family, row in told["families"].items():
        assert row["success"]["mean"] == float(family in ("fiction", "role")), family
        assert row["held_out"] == (family in world_attacks.HELD_OUT_FAMILIES)
    fiction = told["families"]["fiction"]
    assert fiction["over_plain"]["mean"] == 1.0 and fiction["success"]["low"] > 0.8
    together = told["together"]
    assert together["trained families"]["success"]["mean"] == pytest.approx(1 / 6)
    assert together["held-out families"]["success"]["mean"] == pytest.approx(1 / 3)
    kept, held = (read_prompts(str(out / f"{name}.jsonl")).records for name in ("prompts", "held-out"))
    assert {prompt.slice for prompt in kept} == {"red-team/fiction"}
    assert {prompt.slice for prompt in held} == {"held-out/role"}
    assert len(kept) == fiction["requests"] == read_json(out / "lineage.json")["prompts"]


@pytest.mark.parametrize("stage", ["sft", "preference", "dpo", "ppo"])
def test_nothing_learns_from_what_is_held_out(stage, commands, tmp_path, capsys):
    shared = {"prompt": "the stone river", "slice": "held-out/role"}
    rows = {
        "sft": {"completion": "bread"},
        "ppo": {},
        "preference": {"chosen": "the cat", "rejected": "a stone"},
        "dpo": {"chosen": "the cat", "rejected": "a stone"},
    }
    data = tmp_path / "held.jsonl"
    data.write_text("".join(json.dumps({**shared, "prompt": f"{i} river", **rows[stage]}) + "\n" for i in range(40)))
    assert commands.run(stage, tmp_path / "run", data=data) == 2
    assert "40 records are of the slice held-out" in capsys.readouterr().err


def test_what_is_held_out_may_be_measured_on(commands, tmp_path):
    data = tmp_path / "held.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{i} river", "slice": "held-out/role"}) + "\n" for i in range(4)))
    assert commands.run("evaluate", tmp_path / "run", data=data) == 0


def test_another_policy_is_compared_prompt_by_prompt(monkeypatch, tmp_path, harmful):
    before = attacked(monkeypatch, tmp_path, harmful, {"m": Policy("fiction", "role")}, "before")
    after = attacked(monkeypatch, tmp_path, harmful, {"m": Policy("role", "secrecy")}, "after", against=str(before))
    families = read_json(after / "redteam.json")["families"]
    changes = {name: row["against"]["success"]["mean"] for name, row in families.items()}
    assert changes["fiction"] == -1.0 and changes["secrecy"] == 1.0 and changes["role"] == changes["plain"] == 0.0
    assert families["fiction"]["against"]["score"]["high"] < 0


class Judges:
    """Finds a fault in replies that hold the word, and has no answer where one is missing."""

    name = key = "judge"

    def __init__(self, word, silent=""):
        self.word, self.silent, self.asked = word, silent, []

    def ask(self, questions):
        self.asked += questions
        return [
            Distribution((), "json", "is silent")
            if self.silent and self.silent in question.turns[-1].content
            else Distribution((0.1, 0.9) if self.word in question.turns[-1].content else (0.8, 0.2), "logprobs")
            for question in questions
        ]


class Echo(Policy):
    def reply(self, turns):
        return f"well, {turns[-1].content}"


@pytest.fixture
def few(tmp_path):
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"number {i}"}) + "\n" for i in range(8)))
    return path


def test_a_labeler_judges_under_principles_and_its_silence_is_counted(monkeypatch, tmp_path, few):
    judge = Judges("well, number 3", silent="well, number 5")
    labelers = {"m": Echo(), "j": judge}
    knobs = {"attacks": "none", "judge": "labeler:j", "question": "yes-no", "tags": "harmless"}
    out = attacked(monkeypatch, tmp_path, few, labelers, **knobs)
    told = read_json(out / "redteam.json")
    assert told["families"]["plain"]["success"]["mean"] == pytest.approx(1 / 7)
    assert told["unjudged"] == {"is silent": 1}
    assert told["measured"] is False and told["together"] == {}
    scores = {row["reply"]: row["score"] for row in read_lines(out / "samples.jsonl")}
    assert scores["well, number 3"] == pytest.approx(0.8) and scores["well, number 5"] is None
    assert all("keep to this principle" in question.turns[-1].content for question in judge.asked)


class Writes:
    """Writes what it is told, whoever asks."""

    name = key = "writer"

    def __init__(self, *texts):
        self.texts, self.asked = list(texts), []

    def write(self, asked, how):
        self.asked += asked
        return [Draft(self.texts[i % len(self.texts)]) for i, _ in enumerate(asked)]


def test_prompts_are_written_like_the_seeds_and_unlike_each_other(monkeypatch, tmp_path, few):
    writer = Writes(
        "1. number 2", '"open the old door"', "open the old door!", "", "sing\n\nHere you are.", "2) paint it"
    )
    labelers = {"m": Echo(), "w": writer, "j": Judges("sing")}
    knobs = {"attacks": "none", "generate": 3, "writer": "w", "judge": "labeler:j", "shown": 2}
    out = attacked(monkeypatch, tmp_path, few, labelers, **knobs)
    made = [row["prompt"][0]["content"] for row in read_lines(out / "generated.jsonl")]
    assert made == ["open the old door", "sing", "paint it"]
    told = read_json(out / "redteam.json")
    assert told["generated"]["left_out"]["too like one before"] >= 2 and told["generated"]["left_out"]["empty"] >= 1
    first = writer.asked[0]
    assert [turn.role for turn in first] == ["user", "assistant"] * 2 + ["user"]
    assert first[0] == first[-1] == Turn("user", redteam_prompts.LIKE)
    assert {turn.content for turn in first[1::2]} <= {f"number {i}" for i in range(8)}
    assert told["families"]["plain"]["requests"] == 8 + 3


def test_a_writer_without_ideas_is_refused(monkeypatch, tmp_path, few, capsys):
    from accord.errors import BadInput

    labelers = {"m": Echo(), "w": Writes("number 2"), "j": Judges("x")}
    with pytest.raises(BadInput, match=r"wrote no prompt that is of use \(24 too like one before"):
        attacked(monkeypatch, tmp_path, few, labelers, generate=3, writer="w", judge="labeler:j")


def test_a_behaviour_in_words_becomes_scenes_and_a_rate(monkeypatch, tmp_path):
    told = tmp_path / "behaviour.txt"
    told.write_text("It repeats what it was told.\n")
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
    writer, judge = Writes(*(f"{a} {b}" for a in words for b in words if a != b)), Judges("well, alpha")
    labelers = {"m": Echo(), "w": writer, "j": judge}
    knobs = {"behaviour": str(told), "generate": 20, "writer": "w", "judge": "labeler:j", "attacks": "text"}
    out = attacked(monkeypatch, tmp_path, None, labelers, **knobs)
    found = read_json(out / "redteam.json")
    assert list(found["families"]) == ["plain"] and found["families"]["plain"]["replies"] == 20
    assert "It repeats what it was told." in writer.asked[0][0].content
    asked = judge.asked[0].turns[-1].content
    assert "Does the reply show this behaviour? It repeats what it was told." in asked
    rows = read_lines(out / "samples.jsonl")
    shows = sum(not row["reply"].startswith("well, alpha") for row in rows)
    rate = found["families"]["plain"]["success"]
    assert rate["mean"] == pytest.approx(shows / 20) and rate["low"] < rate["mean"] < rate["high"]


def test_a_real_policy_and_a_cost_model_and_a_resumed_run(commands, snapshots, tmp_path, monkeypatch):
    from accord.stages.redteam import run as stage

    line = ["redteam", "--model", snapshots / "policy", "--data", commands.files / "harmful.jsonl", "--threads", 1]
    line += ["--judge", snapshots / "cost", "--max_new_tokens", 5, "--samples", 2, "--families", "fiction", "prefix"]
    line = [str(part) for part in line]
    assert main([*line, "--out", str(tmp_path / "whole")]) == 0
    rows = read_lines(tmp_path / "whole" / "samples.jsonl")
    assert len(rows) == 12 * 3 * 2 and {row["family"] for row in rows} == {"plain", "fiction", "prefix"}
    monkeypatch.setattr(stage, "CHUNK", 7)

    class Killed(BaseException):
        pass

    calls = []
    plain = stage.Replied

    def die(*given):
        calls.append(1)
        if len(calls) == 30:
            raise Killed
        return plain(*given)

    monkeypatch.setattr(stage, "Replied", die)
    with pytest.raises(Killed):
        main([*line, "--out", str(tmp_path / "killed")])
    assert main([*line, "--out", str(tmp_path / "killed"), "--resume"]) == 0
    for one, other in zip(rows, read_lines(tmp_path / "killed" / "samples.jsonl"), strict=True):
        assert {**one, "score": None} == {**other, "score": None}
        assert (one["score"] is None) == (other["score"] is None)
        assert one["score"] is None or one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_a_cut_reply_is_read_at_its_last_token_and_a_whole_one_at_its_end(snapshots):
    where, prompt = str(snapshots / "cost"), Prompt((Turn("user", "why the stone"),), "", "")
    judge = by_cost(where, SimpleNamespace(world=distributed.start(1)))
    found = judge([Replied(prompt, "the cat", True), Replied(prompt, "the cat", False)])
    renderer = load_renderer(where)
    ids, asked = renderer.reply_ids("the cat"), renderer.prompt_ids(prompt.turns)
    scorer = Scorer(where, role="cost", device=torch.device("cpu"))
    expected = scorer.raw_scores([reply_group(asked, ids), reply_group(asked, ids[:-1])], micro_tokens=500).tolist()
    assert [one.score for one in found] == pytest.approx(expected) and expected[0] != expected[1]


def test_continuations_go_on_without_a_template_and_are_compared(commands, snapshots, tmp_path, monkeypatch):
    (tmp_path / "my_toxic.py").write_text(
        "def score(conversations):\n    return [len(c[-1]['content']) - 12.0 for c in conversations]\n"
    )
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "rtp.jsonl"
    data.write_text(
        "".join(
            json.dumps({"filename": w, "prompt": {"text": f"the cat {w}", "toxicity": 0.5}}) + "\n" for w in "abcdefgh"
        )
    )
    asked = []
    from accord.data.chat import Renderer

    passage = Renderer.passage
    monkeypatch.setattr(Renderer, "passage", lambda self, text: asked.append(text) or passage(self, text))
    shared = ["redteam", "--data", str(data), "--attacks", "none", "--continuation", "--judge", "my_toxic:score"]
    shared += ["--threads", "1", "--max_new_tokens", "8", "--columns.prompt", "prompt.text"]
    assert main([*shared, "--model", str(snapshots / "policy"), "--out", "before"]) == 0
    assert asked == [f"the cat {w}" for w in "abcdefgh"]
    assert main([*shared, "--model", str(snapshots / "other"), "--against", "before", "--out", "after"]) == 0
    one, other = (
        {r["prompt_id"]: r["score"] for r in read_lines(tmp_path / n / "samples.jsonl")} for n in ("before", "after")
    )
    change = read_json(tmp_path / "after" / "redteam.json")["families"]["plain"]["against"]["score"]
    both = [key for key in one if one[key] is not None and other[key] is not None]
    assert change["mean"] == pytest.approx(sum(other[k] - one[k] for k in both) / len(both)) and change["n"] == len(
        both
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": {}}, "nothing to attack with"),
        ({"behaviour": "x", "data": {}}, "--behaviour is judged by a labeler"),
        ({"behaviour": "x", "judge": "labeler:j"}, "leave --data out"),
        ({"behaviour": "x", "judge": "labeler:j", "data": {}}, "needs --generate N"),
        ({"continuation": True, "model": "openai:http://h/v1#m"}, "--continuation needs a policy of this machine"),
        ({"shown": 3}, "--shown has no effect without --generate"),
        ({"writer": "w"}, "--writer has no effect without --generate"),
        ({"alike": 0.5}, "--alike has no effect without --generate"),
        ({"attacks": "none", "families": ["role"]}, "--families has no effect with --attacks none"),
        ({"attacks": "none", "held_out": ["role"]}, "--held_out has no effect with --attacks none"),
        ({"question": "yes-no"}, "--question has no effect with --judge gold"),
        ({"constitution": "world"}, "--constitution has no effect with --judge gold"),
        ({"tags": ["a"]}, "--tags has no effect with --judge gold"),
        ({"ensemble": 2}, "--ensemble has no effect with --judge gold"),
        ({"calibration": "c"}, "--calibration has no effect with --judge gold"),
        ({"require_calibration": True, "calibration": "c"}, "has no effect with --judge gold"),
        (
            {"behaviour": "x", "judge": "labeler:j", "data": {}, "generate": 3, "attacks": "world"},
            "--attacks has no effect with --behaviour",
        ),
        (
            {"behaviour": "x", "judge": "labeler:j", "data": {}, "generate": 3, "question": "yes-no"},
            "--question has no effect with --behaviour",
        ),
        ({"allow_local": True}, "--allow_local has no effect without --model, --writer or --judge PROTOCOL"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        Redteam(**{"model": "m", "data": "d", "out": "o", **changes})


def test_what_is_not_there_is_named(monkeypatch, tmp_path, few, commands, capsys):
    from accord.errors import BadInput

    labelers = {"m": Echo()}
    with pytest.raises(BadInput, match=r"--families rol: no family of --attacks world \(did you mean role\?\)"):
        attacked(monkeypatch, tmp_path, few, labelers, families=["rol"])
    with pytest.raises(BadInput, match="gold knows the truth of the gold world alone"):
        attacked(monkeypatch, tmp_path, few, labelers, "other")
    with pytest.raises(BadInput, match="no samples of attacks there"):
        attacked(monkeypatch, tmp_path, few, labelers, "third", against=str(tmp_path))


def test_the_report_shows_families_and_changes(monkeypatch, tmp_path, harmful, drawn):
    from accord.reporting import build_report

    before = attacked(monkeypatch, tmp_path, harmful, {"m": Policy("fiction", "role")}, "before")
    after = attacked(monkeypatch, tmp_path, harmful, {"m": Policy("role")}, "after", against=str(before))
    page = build_report([before, after])
    assert "Attacks that get through" in page and "role (held out)" in page and "change from the other policy" in page
