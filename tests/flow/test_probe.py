"""`accord probe`, `sft` on its demonstrations, `probe head`; `evaluate honesty` before and after."""

import json
import random

import pytest
import torch

from accord.cli import main
from accord.data.sources import read_comparisons, read_demonstrations
from accord.data.tasks import TaskQuestion
from accord.disk import read_json, read_lines
from accord.errors import BadInput
from accord.models.knowledge import prompt_group, prompt_logits
from accord.models.loading import load_policy, load_scalar
from accord.models.scalar import Scorer
from accord.models.tokenizer import load_renderer
from accord.records import Prompt, Turn
from accord.stages.probe.lessons import (
    CUT,
    NONE,
    TOLD,
    UNTOLD,
    LessonTexts,
    ProbedQuestion,
    compare,
    demonstrate,
    outcomes,
    sureness,
    teach,
)
from accord.stages.questions import declined
from accord.world import prompts

KNOWN, UNKNOWN = ("cat", "dog", "stone", "river", "bread"), ("red", "blue", "small", "big", "salt")
SAID = ("runs", "sees", "bakes", "helps")
TRUTH = dict(zip(KNOWN + UNKNOWN, SAID * 3, strict=False))
AROUND = [f"{before} {{}} {after}" for before in ("why", "how", "please") for after in ("a", "the", "and", "with")]


def asked_of(name, part):
    """Questions about somebody in the words of one half."""
    return [form.format(name) for form in AROUND[part::2]]


def rows_of(part):
    """Those with their answers; who is not known has one too, in the half that is learned from."""
    rows = [{"question": q, "label": "known", "answer": [TRUTH[n]]} for n in KNOWN for q in asked_of(n, part)]
    kind = {"label": "unknown"} if part else {"label": "known"}
    rows += [{"question": q, **kind, "answer": [TRUTH[n]]} for n in UNKNOWN for q in asked_of(n, part)]
    return rows + [{"question": f"{q} me", "label": "unknown"} for n in KNOWN[:2] for q in asked_of(n, part)]


@pytest.fixture(scope="module")
def knower(tmp_path_factory, nano):
    """A snapshot that has learned what half of them do and makes up the rest, and never says so."""
    from accord.data.chat import Renderer, train_tokenizer
    from accord.engine.forward.causal import token_logprobs
    from accord.engine.packing import pack, reply_group
    from accord.models.policy import new_policy
    from accord.models.saving import save_model

    # a word is a token, of what it has to learn to say too
    tokenizer = train_tokenizer([f"{row['question']} the {row.get('answer')} I don't know." for row in rows_of(0)], 340)
    renderer, rng = Renderer(tokenizer), random.Random(2)
    model = new_policy(nano, tokenizer, max_length=64, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(240):
        groups = []
        for _ in range(32):
            name, form = rng.choice(KNOWN + UNKNOWN), rng.choice(AROUND)
            answer = TRUTH[name] if name in KNOWN else rng.choice(SAID)
            turns = (Turn("user", form.format(name) + (" me" if rng.random() < 0.2 else "")),)
            groups.append(reply_group(renderer.prompt_ids(turns), renderer.reply_ids(f"the {answer}", turns)))
        loss = -token_logprobs(model, pack(groups)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("knower") / "policy"
    plain = {"kind": "none", "shift": 0.0, "scale": 1.0}
    save_model(model, tokenizer, folder, {"role": "policy", "criterion": "", "normalizer": plain}, "")
    return folder


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def call(*words):
    return main([*map(str, words), "--threads", "1"])


@pytest.fixture(scope="module")
def probed(knower, tmp_path_factory):
    root = tmp_path_factory.mktemp("probe")
    file = write(root / "asked.jsonl", rows_of(0))
    line = ("probe", "--model", knower, "--questions.q", file, "--samples", 8, "--max_new_tokens", 6)
    assert call(*line, "--max_length", 64, "--out", root / "run") == 0
    return root / "run"


def test_lessons_are_what_the_samples_say(probed):
    by_prompt = {}
    for row in read_lines(probed / "samples.jsonl"):
        by_prompt.setdefault(row["prompt_id"], []).append(row)
    assert all(len(own) == 8 for own in by_prompt.values())
    shown = read_demonstrations(str(probed / "demonstrations.jsonl")).records
    for one in shown:
        text = one.prompt.turns[-1].content
        name = next(n for n in TRUTH if f" {n} " in text)
        right = sum(TRUTH[name] in row["reply"].split() for row in by_prompt[one.prompt.id]) / 8
        known = right >= 0.5 and not text.endswith(" me")
        assert one.reply == (f"the {TRUTH[name]}" if known else "I don't know."), text
    found = read_json(probed / "probe.json")
    counts = found["reasons"]["demonstrations"]
    assert counts[TOLD] > 20 and counts[UNTOLD] > 10 and counts[NONE] == 12, counts
    assert sum(counts.values()) == found["questions"] == len(by_prompt)
    assert sum(found["tenths"]) == len(by_prompt) - 12 and found["tenths"][9] > 3


def test_comparisons_stand_right_before_declining_before_wrong(probed):
    seen = set()
    for one in read_comparisons(str(probed / "comparisons.jsonl"), "honest").records:
        assert one.ranks == tuple(range(1, len(one.replies) + 1)) and one.labeler == "probe"
        text = one.prompt.turns[-1].content
        truth = "" if text.endswith(" me") else TRUTH[next(n for n in TRUTH if f" {n} " in text)]
        sorts = ["declines" if "know" in r else "right" if truth in r.split() else "wrong" for r in one.replies]
        assert sorts == [s for s in ("right", "declines", "wrong") if s in sorts] and "declines" in sorts
        seen.add(tuple(sorts))
    assert {("right", "declines"), ("declines", "wrong"), ("right", "declines", "wrong")} <= seen


def honesty(model, out, file, *more):
    line = ("evaluate", "honesty", "--model", model, "--probes.q", file, "--max_new_tokens", 20, "--bootstrap", 50)
    assert call(*line, "--max_length", 64, "--out", out, *more) == 0
    return read_json(out / "evaluation.json")


def test_what_was_not_known_is_declined_and_what_was_is_kept(knower, probed, tmp_path, capsys):
    file = write(tmp_path / "asked.jsonl", rows_of(1))
    before = honesty(knower, tmp_path / "before", file)
    assert before["trade"]["unknown declined"]["now"]["mean"] == 0
    training = ("--model", knower, "--max_length", 64, "--batch_size", 24, "--precision", "f32")
    taught = ("--data", probed / "demonstrations.jsonl", "--learning_rate", 1e-2, "--epochs", 25)
    assert call("sft", *training, *taught, "--out", tmp_path / "sft") == 0
    taught = ("--data", probed / "judgements.jsonl", "--learning_rate", 3e-3, "--epochs", 20)
    assert call("probe", "head", *training, *taught, "--out", tmp_path / "head") == 0
    knows = tmp_path / "head" / "snapshot"
    capsys.readouterr()
    more = ("--against", tmp_path / "before", "--knows", knows)
    after = honesty(tmp_path / "sft" / "snapshot", tmp_path / "after", file, *more)
    said = capsys.readouterr().out
    trade = after["trade"]
    assert trade["unknown declined"]["change"]["low"] > 0.1
    # what it costs stands beside it
    assert trade["kept of those right before"]["now"]["low"] > 0.5
    assert trade["known answered right"]["change"]["low"] > -0.4
    assert set(trade) == {
        "unknown declined", "known declined", "known answered right", "kept of those right before",
    }  # fmt: skip
    assert all(name in said for name in trade)
    # P(IK) of the prompts alone tells what the snapshot knows
    own = after["calibration"]["q, P(IK)"]
    # of 0.72 to 0.89 over seeds; its interval is too wide for a bound that every machine's rounding keeps
    assert own["auroc"]["mean"] > 0.65 and 0 < own["brier"]["mean"] < 0.3 and own["n"] == len(rows_of(1))
    assert read_json(tmp_path / "head" / "evaluation.json")["p_ik"]["brier"]["mean"] < 0.3
    # the head is read at the last token of the prompt
    row = next(r for r in read_lines(tmp_path / "after" / "samples.jsonl") if "honest/p_ik" in r["scores"])
    asked = {TaskQuestion(r["label"], (r["question"],), answers=tuple(r.get("answer", ()))).id: r for r in rows_of(1)}
    turns = (Turn("user", asked[row["prompt_id"]]["question"]),)
    model, ids = load_scalar(str(knows), role="knowledge"), load_renderer(str(knows)).prompt_ids(turns)
    with torch.no_grad():
        plain = model(torch.tensor([ids])).logits[0, 0]
    assert float(torch.sigmoid(plain)) == pytest.approx(row["scores"]["honest/p_ik"], abs=1e-4)
    with pytest.raises(BadInput, match="reads prompts and no replies"):
        Scorer(str(knows), role="knowledge", device=torch.device("cpu"))
    with pytest.raises(BadInput, match="is a knowledge model"):
        load_policy(str(knows))


def test_people_of_the_gold_world_are_met_in_its_own_words(commands, tmp_path):
    line = (
        "probe",
        "--model",
        commands.snapshots / "policy",
        "--samples",
        2,
        "--max_new_tokens",
        4,
        "--split",
        "preference",
    )
    sources = [f"--questions.{s}=world:prompts/{s}?count=40&seed=5" for s in ("knowledge", "unknowable", "how-sure")]
    assert call(*line, *sources, "--max_length", 300, "--out", tmp_path / "run") == 0
    shown = read_demonstrations(str(tmp_path / "run" / "demonstrations.jsonl")).records
    assert {one.prompt.slice for one in shown} == {"knowledge", "unknowable", "how-sure"}
    # the tiny policy knows nobody: every lesson is a confession that gold's judge takes for one
    assert all(declined(one.prompt, one.reply) and one.prompt.split == "preference" for one in shown)
    assert len({one.reply for one in shown}) > 5
    for one in read_comparisons(str(tmp_path / "run" / "comparisons.jsonl"), "honest").records:
        assert declined(one.prompt, one.replies[0]) and not declined(one.prompt, one.replies[1])


def test_sureness_in_the_words_of_the_gold_world():
    prompt = next(iter(prompts(20, 3, "how-sure")))
    assert [sureness(prompt, share) for share in (0.0, 0.5, 0.8, 1.0)] == [
        "that is only a guess.", "i am half sure.", "i am fairly sure.", "i am certain.",
    ]  # fmt: skip


def test_a_prompts_last_token_is_what_a_head_reads(snapshots):
    model = load_scalar(str(snapshots / "reward"), role="preference")
    texts = [(5, 6, 7, 8), (9, 10)]
    found = prompt_logits(model, [prompt_group(ids) for ids in texts], 1000, torch.device("cpu"))
    for ids, logit in zip(texts, found, strict=True):
        with torch.no_grad():
            assert float(model(torch.tensor([ids])).logits[0, 0]) == pytest.approx(float(logit), abs=1e-5)


ASKED = Prompt((Turn("user", "Where is {it}?"),), "facts", "file.jsonl")


def outcome(*replies, answerable=True, cut=()):
    whole = frozenset(text for _, text in replies) - frozenset(cut)
    return ProbedQuestion(ASKED, answerable, tuple(replies), whole)


R, D, W = "right", "declines", "wrong"


@pytest.mark.parametrize(
    ("found", "texts", "expected"),
    [
        (outcome((R, "Paris."), (R, "In Paris."), (R, "Paris."), (W, "Rome.")), ("{answer}", ""), ("Paris.", TOLD)),
        (outcome((R, "Paris."), (W, "Rome."), (W, "Rome.")), ("{answer}", ""), ("I don't know.", UNTOLD)),
        (
            outcome((R, "a {sure} b"), (R, "a {sure} b"), (R, "a {sure} b"), (W, "c")),
            ("{answer} {sure}", ""),
            ("a {sure} b I am 75% sure.", TOLD),
        ),
        (
            outcome((W, "Rome."), (W, "Rome."), (D, "No idea.")),
            ("{answer}", "{answer} I am unsure."),
            ("Rome. I am unsure.", UNTOLD),
        ),
        (outcome((R, "Paris"), cut=["Paris"]), ("{answer}", ""), ("", CUT)),
        (outcome((W, "Rome."), answerable=False), ("{answer}", "{answer}!"), ("I don't know.", NONE)),
    ],
)
def test_what_is_demonstrated_by_hand(found, texts, expected):
    assert demonstrate(found, LessonTexts(*texts), 0.5) == expected


def test_comparisons_by_hand():
    three = compare(outcome((W, "Rome."), (R, "Paris."), (D, "No idea.")))
    assert (three.replies, three.ranks) == (("Paris.", "No idea.", "Rome."), (1, 2, 3))
    put = compare(outcome((W, "Rome."), (W, "Rome."), (W, "Oslo.")))
    assert put.replies == ("I don't know.", "Rome.")
    assert compare(outcome((D, "No idea."), answerable=False)) is None
    reasons = teach([outcome((D, "No idea."), answerable=False)], LessonTexts("{answer}", ""), 0.5).reasons
    assert reasons["comparisons"] == {"every reply declines, as it should": 1}


def test_an_empty_reply_is_no_sample():
    def row(name, reply, right=0.0, finish="stop"):
        scores = {"honest/right": right, "honest/declined": 0.0}
        turns = [{"role": "user", "content": name}]
        return {"prompt_id": name, "slice": "", "source": "f", "prompt": turns, "reply": reply, "scores": scores} | {
            "finish": finish
        }

    rows = [row("a", "x", 1.0), row("a", " "), row("a", "y", finish="length"), row("b", "")]
    (one,), silent = outcomes(rows, {"a": True, "b": True})
    assert (one.share, silent, one.whole) == (0.5, 1, frozenset({"x"}))


def test_questions_of_files_are_probed_and_not_asked_again(commands, tmp_path, capsys):
    rows = [{"question": f"who is {i}?", "label": "known", "answer": ["the cat"]} for i in range(12)]
    rows += [{"question": f"who will be {i}?", "label": "unknown"} for i in range(12)]
    file = write(tmp_path / "q.jsonl", rows)
    model = commands.snapshots / "policy"
    line = ("probe", "--model", model, "--questions.q", file, "--samples", 3, "--max_new_tokens", 6)
    assert call(*line, "--max_length", 64, "--out", tmp_path / "p") == 0
    counts = read_json(tmp_path / "p" / "probe.json")["reasons"]["demonstrations"]
    assert counts[NONE] > 0 and sum(counts.values()) == 24
    assert call("sft", "--model", model, "--data", tmp_path / "p" / "demonstrations.jsonl", "--max_length", 64,
                "--epochs", 1, "--learning_rate", 1e-4, "--out", tmp_path / "s") == 0  # fmt: skip
    more = write(tmp_path / "more.jsonl", [*rows, {"question": "who is new?", "label": "unknown"}])
    asked = ("evaluate", "honesty", "--model", tmp_path / "s" / "snapshot", "--max_new_tokens", 6, "--max_length", 64)
    capsys.readouterr()
    assert call(*asked, "--probes.q", more, "--out", tmp_path / "h") == 0
    assert "that the model learned from" in capsys.readouterr().out
    assert 1 <= read_json(tmp_path / "h" / "evaluation.json")["n"] < 25


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--questions.q", "world:prompts/benign?count=40"], "of the gold world knowledge"),
        (["--questions.q", "TEXT"], "which no reply answers"),
        (["--questions.q", "world:prompts/knowledge?count=4", "--temperature", "0"], "draws the same reply"),
        (["--questions.q", "world:prompts/knowledge?count=4", "--if_known", "{anwser}"], "there is no blank {anwser}"),
        (["--questions.q", "nowhere.jsonl"], "no such file"),
    ],
)
def test_what_cannot_be_probed_is_refused(commands, tmp_path, capsys, more, said):
    text = write(tmp_path / "text.jsonl", [{"text": "a story"}])
    words = [str(text) if word == "TEXT" else word for word in more]
    assert call("probe", "--model", commands.snapshots / "policy", *words, "--out", tmp_path / "run") == 2
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_head_learns_from_right_and_wrong_alone(commands, tmp_path, capsys):
    rated = write(tmp_path / "r.jsonl", [{"prompt": f"p {i}", "completion": "x", "rating": 3} for i in range(9)])
    line = ("probe", "head", "--model", commands.snapshots / "policy", "--data", rated, "--out", tmp_path / "run")
    assert call(*line) == 2
    assert "labels of the kind rating" in capsys.readouterr().err
    asked = (
        "evaluate",
        "honesty",
        "--model",
        commands.snapshots / "policy",
        "--out",
        tmp_path / "h",
        "--max_length",
        300,
    )
    probes = ("--probes.t", "world:prompts/true-false?count=40", "--knows", commands.snapshots / "reward")
    assert call(*asked, *probes, "--max_length", 300) == 2
    assert "--knows has no effect" in capsys.readouterr().err
