"""`accord evaluate bias`: probes against a plain pass, scores of preference models, sentiment, changes, bad input."""

import json
import math

import pytest
import torch

from accord.cli import main
from accord.data.bias_sets import exchanged_requests
from accord.disk import read_json, read_lines
from accord.models.loading import load_policy, load_scalar
from accord.models.tokenizer import load_renderer
from accord.records import Turn
from accord.reporting.bias_section import bias_section
from accord.reporting.context import load_context
from accord.reporting.page import build_report
from tests.data.test_bias_sets import BBQ

WORDS = ("sees", "runs", "red", "blue")
PAIRS = [{"first": f"the cat {w}", "second": f"the dog {w}", "group": "ab"[i % 2]} for i, w in enumerate(WORDS)]
ANSWERS = {"answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"}
STATED = [{"question": f"would you see {w}?", **ANSWERS, "eval": "ab"[i % 2]} for i, w in enumerate(WORDS)]
ASKED = [
    {**BBQ, "context": f"{who} met.{told}", "question_index": str(i), "context_condition": condition, "label": label}
    for i, who in enumerate(("an aunt", "a niece", "a cat"))
    for condition, label, told in (("ambig", 1, ""), ("disambig", 0, " the aunt runs."))
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("bias")
    for name, rows in (("pairs", PAIRS), ("stated", STATED), ("bbq", ASKED)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: str(root / f"{name}.jsonl") for name in ("pairs", "stated", "bbq")}


def probe(out, sets, *more):
    words = [word for name, source in sets.items() for word in (f"--sets.{name}", source)]
    return main(["evaluate", "bias", *words, "--threads", "1", "--bootstrap", "50", "--out", str(out), *map(str, more)])


def length(conversations):
    """How kind a reply is, to this test: how long."""
    return [float(len(conversation[-1]["content"])) for conversation in conversations]


def test_every_probe_is_what_a_plain_pass_says(commands, sources, tmp_path):
    where = commands.snapshots / "policy"
    scorers = ("--models.helpful", commands.snapshots / "reward", "--models.harm", commands.snapshots / "cost")
    assert probe(tmp_path / "run", sources, "--model", where, *scorers) == 0
    model, renderer = load_policy(str(where), trainable=False), load_renderer(str(where))

    def logprob(before, after):
        with torch.no_grad():
            logits = model(torch.tensor([[*before, *after]])).logits[0, len(before) - 1 : -1].log_softmax(-1)
        return float(logits[torch.arange(len(after)), torch.tensor(after)].sum())

    def plain(context, options):
        return [logprob(*renderer.continued(context, option)) for option in options]

    rows = {name: [r for r in read_lines(tmp_path / "run" / "samples.jsonl") if r["slice"] == name] for name in sources}
    for row, pair in zip(rows["pairs"], PAIRS, strict=True):
        first, second = plain("", (pair["first"], pair["second"]))
        assert row["scores"]["bias/gap"] == pytest.approx(first - second, abs=1e-3)
        assert row["scores"]["bias/first"] == float(first > second)
    for row, asked in zip(rows["bbq"], ASKED, strict=True):
        context = f"{asked['context']}\nQuestion: {asked['question']}\nAnswer:"
        found = plain(context, [f" {asked[f'ans{k}']}" for k in range(3)])
        chosen = found.index(max(found))
        expected = {"bias/right": float(chosen == asked["label"])}
        expected |= {} if chosen == 1 else {"bias/biased": float(chosen == 0)}
        assert row["scores"] == expected
    for row, asked in zip(rows["stated"], STATED, strict=True):
        turns = (Turn("user", asked["question"]),)
        yes, no = (logprob(renderer.prompt_ids(turns), renderer.reply_ids(text, turns)[:-1]) for text in ("Yes", "No"))
        assert row["scores"]["bias/chance"] == pytest.approx(1 / (1 + math.exp(no - yes)), abs=1e-4)
    # a preference model scores the sentences as replies; a cost is turned round
    turns = (Turn("user", "Tell me about somebody."),)
    for name, role, sign in (("helpful", "preference", 1), ("harm", "cost", -1)):
        scalar = load_scalar(str(commands.snapshots / ("reward" if sign > 0 else "cost")), role=role)
        for row, pair in zip(rows["pairs"], PAIRS, strict=True):
            with torch.no_grad():
                ids = [[*renderer.prompt_ids(turns), *renderer.reply_ids(pair[k], turns)] for k in ("first", "second")]
                first, second = (float(scalar(torch.tensor([each])).logits[0, 0]) for each in ids)
            assert row["scores"][f"bias/gap/{name}"] == pytest.approx(sign * (first - second), abs=1e-4)
    found = read_json(tmp_path / "run" / "evaluation.json")["bias"]
    assert set(found["stated"]["groups"]) == {"a", "b"} and set(found["bbq"]) >= {"ambig", "disambig"}


def test_before_and_after_on_one_page(commands, sources, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    more = ("--sentiment", "tests.flow.test_bias_command:length", "--max_new_tokens", "6")
    assert probe(first, sources, "--model", commands.snapshots / "policy", *more) == 0
    assert probe(second, sources, "--model", commands.snapshots / "other", *more, "--against", first) == 0
    rows = {run: [r for r in read_lines(run / "samples.jsonl") if r["slice"] == "stated"] for run in (first, second)}
    mean = {run: sum(r["scores"]["bias/matching"] for r in own) / len(own) for run, own in rows.items()}
    found = read_json(second / "evaluation.json")
    assert found["changes"]["stated"]["bias/matching"]["mean"] == pytest.approx(mean[second] - mean[first])
    assert set(found["changes"]["stated"]["groups"]) == {"a", "b"}
    assert found["bias"]["sentiment"]["n"] == len(exchanged_requests())
    section = bias_section(load_context([first, second]))
    assert section.blocks[0].head == ["BBQ", "policy", "other"]
    assert any(row[0].text == "change" for row in section.blocks[1].rows) and section.blocks[-1].folded
    assert 'id="bias"' in build_report([first, second])
    capped = ("--model", commands.snapshots / "other", *more[:2], "--max_new_tokens", "7", "--against", first)
    assert probe(tmp_path / "third", sources, *capped) == 2


def test_preference_models_alone_read_our_own_sentences(commands, tmp_path):
    models = ("--models.helpful", commands.snapshots / "reward")
    assert probe(tmp_path / "run", {"terms": "terms"}, *models) == 0
    found = read_json(tmp_path / "run" / "evaluation.json")["bias"]["terms"]
    assert set(found["groups"]) == {"gender", "age", "origin", "faith"} and found["n"] == 210
    assert found["bias/gap/helpful"]["low"] is not None and "bias/gap" not in found


def test_a_bound_on_bias_is_a_gate(commands, sources, tmp_path):
    gate = tmp_path / "gate.yaml"
    gate.write_text("bounds: {even: {metric: bias/first, slice: pairs, at_least: 0.9}}")
    where = ("--model", commands.snapshots / "policy", "--gate", gate)
    assert probe(tmp_path / "run", {"pairs": sources["pairs"]}, *where) == 3
    gate.write_text("bounds: {even: {metric: bias/right, slice: pairs, at_least: 0.9}}")
    assert probe(tmp_path / "again", {"pairs": sources["pairs"]}, *where) == 2


@pytest.mark.parametrize(
    ("sets", "more", "said"),
    [
        ({"terms": "terms"}, [], "nobody to ask"),
        ({}, ["--model", "x"], "nothing to ask"),
        ({"bbq": "bbq"}, ["--models.a", "reward"], "is answered by a policy"),
        ({"bbq": "bbq"}, ["--model", "policy", "--models.a", "reward"], "--models has no effect"),
        ({"sentiment": "terms"}, ["--model", "policy"], "take another"),
        ({"terms": "terms"}, ["--models.a", "reward", "--sentiment", "a:b"], "--sentiment has no effect"),
    ],
)
def test_what_cannot_be_asked_is_refused(commands, sources, tmp_path, capsys, sets, more, said):
    given = {name: sources.get(source, source) for name, source in sets.items()}
    words = [str(commands.snapshots / word) if word in ("policy", "reward") else word for word in more]
    assert probe(tmp_path / "run", given, *words) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()
