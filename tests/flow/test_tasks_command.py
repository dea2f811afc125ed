"""`accord evaluate tasks`: packed scores are those of one text alone, every kind of task, tax, gate, bad input."""

import json
import random

import pytest
import torch

from accord.cli import main
from accord.data.tasks import TaskQuestion
from accord.disk import read_json, read_lines
from accord.engine.packing import pack
from accord.models.likelihood import likelihoods
from accord.models.loading import load_policy
from accord.models.tokenizer import load_renderer
from accord.reporting.context import load_context
from accord.reporting.tasks_section import tasks_section
from accord.stages.evaluate.tasks import question_groups
from tests.conftest import WORDS, sentence


@pytest.fixture(scope="module")
def battery(tmp_path_factory):
    """One file of each kind, of words that the tiny models know."""
    root, generator = tmp_path_factory.mktemp("battery"), random.Random(3)
    kinds = {
        "choice": lambda: {"query": sentence(generator), "choices": [sentence(generator) for _ in range(3)], "gold": 1},
        "schema": lambda: {"context_options": ["he " + sentence(generator), "she"], "continuation": "runs", "gold": 0},
        "next": lambda: {"context": sentence(generator), "continuation": generator.choice(WORDS[:3])},
        "answer": lambda: {"context": sentence(generator), "answer": "the cat"},
        "number": lambda: {"question": sentence(generator), "answer": f"#### {generator.randrange(9)}"},
        "pair": lambda: {"sentence_good": sentence(generator), "sentence_bad": sentence(generator), "UID": "u"},
        "text": lambda: {"text": sentence(generator, 30, 60)},
    }
    for name, make in kinds.items():
        (root / f"{name}.jsonl").write_text("".join(json.dumps(make()) + "\n" for _ in range(25)))
    return root


def ask(commands, battery, out, *more, model="policy", tasks=None):
    tasks = tasks or sorted(file.stem for file in battery.iterdir())
    words = [word for task in tasks for word in (f"--tasks.{task}", str(battery / f"{task}.jsonl"))]
    line = ["evaluate", "tasks", "--model", str(commands.snapshots / model), *words]
    line += ["--max_new_tokens", "6"] if "answer" in tasks else []
    return main([*line, "--max_length", "200", "--threads", "1", "--bootstrap", "50", "--out", str(out), *more])


def alone(model, renderer, context, option):
    """log p of an option by a plain forward pass over one text, and whether greedy decoding says it."""
    before, after = renderer.continued(context, option)
    logits = model(torch.tensor([[*before, *after]])).logits[0, len(before) - 1 : -1].log_softmax(-1)
    chosen = logits[torch.arange(len(after)), torch.tensor(after)]
    return float(chosen.sum()), bool((logits.argmax(-1) == torch.tensor(after)).all())


def test_packed_scores_are_those_of_each_text_alone(snapshots):
    where = str(snapshots / "policy")
    model, renderer = load_policy(where, trainable=False), load_renderer(where)
    asked = [
        TaskQuestion("choice", ("the cat sees",), (" a dog", " red", " the big stone runs"), 0),
        TaskQuestion("choice", ("a dog runs", "the cat"), (" home.",), 1),
        TaskQuestion("choice", ("",), ("the cat runs", "cat the runs")),
        TaskQuestion("next", ("the cat ",), ("sees",)),
    ]
    groups = [question_groups(renderer, question) for question in asked]
    assert [len(of) for of in groups] == [1, 2, 1, 1]
    # the context of three options is in the packing once
    (first,) = groups[0]
    assert len(pack([first]).ids) == len(first.prefix) + sum(len(reply) - 1 for reply in first.replies)
    flat = [group for of in groups for group in of]
    for micro_tokens in (7, 10_000):
        found = [one for of in likelihoods(model, flat, micro_tokens, torch.device("cpu"), greedy=True) for one in of]
        pairs = [pair for question in asked for pair in question.pairs()]
        with torch.no_grad():
            expected = [alone(model, renderer, *pair) for pair in pairs]
        assert [one.logprob for one in found] == pytest.approx([total for total, _ in expected], abs=1e-4)
        assert [one.greedy for one in found] == [greedy for _, greedy in expected]
        assert [one.tokens for one in found] == [len(renderer.continued(*pair)[1]) for pair in pairs]


def test_greedy_is_told(snapshots):
    """What the model itself says next is greedy; another word is not."""
    where = str(snapshots / "policy")
    model, renderer = load_policy(where, trainable=False), load_renderer(where)
    before, _ = renderer.continued("the cat", " x")
    with torch.no_grad():
        likeliest = int(model(torch.tensor([before])).logits[0, -1].argmax())
    from accord.engine.packing import reply_group

    group = reply_group(before, (likeliest,), ((likeliest + 1) % 200,))
    (found,) = likelihoods(model, [group], 100, torch.device("cpu"), greedy=True)
    assert [one.greedy for one in found] == [True, False]


def test_every_kind_of_task_and_what_it_cost(commands, battery, tmp_path, capsys):
    assert ask(commands, battery, tmp_path / "first") == 0
    assert ask(commands, battery, tmp_path / "second", "--against", str(tmp_path / "first"), model="other") == 0
    said = capsys.readouterr().out
    first, second = (read_json(tmp_path / name / "evaluation.json") for name in ("first", "second"))
    assert set(first["tasks"]) == {"answer", "choice", "next", "number", "pair", "schema", "text"}
    assert first["changes"] is None and set(second["changes"]["tasks"]) == set(first["tasks"])
    assert first["tasks"]["choice"]["chance"] == pytest.approx(1 / 3) and "chance" not in first["tasks"]["next"]
    rows = {name: read_lines(tmp_path / name / "samples.jsonl") for name in ("first", "second")}
    for task in ("choice", "text"):
        metric = "task/loss" if task == "text" else "task/logprob"
        before, after = ({r["prompt_id"]: r["scores"][metric] for r in rows[n] if r["slice"] == task} for n in rows)
        change = second["changes"]["tasks"][task][metric]
        assert change["mean"] == pytest.approx(sum(after[i] - before[i] for i in before) / len(before))
    accuracy = [numbers["task/accuracy"]["mean"] for t, numbers in second["changes"]["tasks"].items() if t != "text"]
    assert second["changes"]["tax"]["mean"] == pytest.approx(sum(accuracy) / 6)
    assert "mean change of accuracy over tasks" in said
    section = tasks_section(load_context([tmp_path / "first", tmp_path / "second"]))
    tables = [block for block in section.blocks if hasattr(block, "head")]
    assert tables[0].head == ["task", "policy", "other"] and len(tables[0].rows) == 7
    assert tables[1].rows[-1][0].text == "all tasks"


def test_it_goes_on_where_it_was_stopped(commands, battery, tmp_path):
    assert ask(commands, battery, tmp_path / "whole") == 0
    assert ask(commands, battery, tmp_path / "part") == 0
    for name in ("manifest.json", "evaluation.json", "lineage.json"):
        (tmp_path / "part" / name).unlink()
    samples = tmp_path / "part" / "samples.jsonl"
    samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:60]) + '{"torn')
    assert ask(commands, battery, tmp_path / "part", "--resume") == 0
    ours, theirs = read_lines(samples), read_lines(tmp_path / "whole" / "samples.jsonl")
    assert [row["prompt_id"] for row in ours] == [row["prompt_id"] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a["scores"] == pytest.approx(b["scores"], abs=1e-4)


def test_graded_skills_of_the_gold_world(commands, tmp_path):
    line = ["evaluate", "tasks", "--model", str(commands.snapshots / "policy"), "--max_new_tokens", "8"]
    skills = ["--tasks.second", "world:prompts/skills-2?count=40&seed=3"]
    assert main([*line, *skills, "--threads", "1", "--out", str(tmp_path / "run")]) == 0
    rows = read_lines(tmp_path / "run" / "samples.jsonl")
    assert rows and all(row["kind"] == "chat" and row["scores"] == {"task/accuracy": 0.0} for row in rows)
    assert "world" in read_json(tmp_path / "run" / "lineage.json")
    unknown = ["--tasks.it", "world:prompts/benign?count=20"]
    assert main([*line, *unknown, "--threads", "1", "--out", str(tmp_path / "bad")]) == 2


def test_the_loss_on_the_gold_world_s_text(commands, tmp_path):
    """That of each document by a plain forward pass, cut where it is longer than --max_length."""
    from accord.world import corpus

    where, source = str(commands.snapshots / "policy"), "world:corpus?count=40&seed=9"
    line = ["evaluate", "tasks", "--model", where, "--tasks.text", source, "--max_length", "64", "--threads", "1"]
    assert main([*line, "--out", str(tmp_path / "run")]) == 0
    found = read_json(tmp_path / "run" / "evaluation.json")["tasks"]["text"]
    model, renderer = load_policy(where, trainable=False), load_renderer(where)
    losses = {}
    for document in corpus(40, 9):
        ids = renderer.document(document.text)
        for start in range(0, len(ids), 64):
            piece = ids[start : start + 64]
            if len(piece) > 1:
                with torch.no_grad():
                    logits = model(torch.tensor([piece])).logits[0, :-1]
                losses[tuple(piece)] = float(torch.nn.functional.cross_entropy(logits, torch.tensor(piece[1:])))
    assert found["n"] == len(losses)
    assert found["task/loss"]["mean"] == pytest.approx(sum(losses.values()) / len(losses), abs=1e-4)


def test_a_task_is_a_slice_of_a_gate(commands, battery, tmp_path):
    gate = tmp_path / "gate.yaml"
    assert ask(commands, battery, tmp_path / "first", tasks=["choice", "text"]) == 0
    gate.write_text(
        f"against: {tmp_path / 'first'}\n"
        "bounds: {known: {metric: task/accuracy, slice: choice, change_at_least: -0.5},"
        " fluent: {metric: task/loss, slice: text, change_at_most: -1}}"
    )
    assert ask(commands, battery, tmp_path / "second", "--gate", str(gate), tasks=["choice", "text"]) == 3
    found = {bound["name"]: bound["verdict"] for bound in read_json(tmp_path / "second" / "gate.json")["bounds"]}
    assert found == {"known": "met", "fluent": "not met"}


def test_examples_stand_before_the_question(commands, battery, tmp_path, monkeypatch):
    from accord.stages.evaluate import tasks

    seen, plain = [], tasks.question_groups
    monkeypatch.setattr(tasks, "question_groups", lambda r, q: seen.append(q.contexts[0]) or plain(r, q))
    examples = ["--shots", "2", "--examples.next", str(battery / "next.jsonl")]
    assert ask(commands, battery, tmp_path / "run", *examples, tasks=["next"]) == 0
    assert all(context.count("\n\n") == 2 for context in seen)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--shots", "1"], "--shots 1 of what?"),
        (["--examples.next", "x", "--shots", "1"], "--examples.next belongs to no task"),
        (["--examples.choice", "x"], "--examples has no effect without --shots"),
        (["--delimiters.choise", "x"], "belongs to no task of a file (did you mean choice?)"),
        (["--against", "nowhere"], "--against nowhere: no finished run"),
        (["--max_new_tokens", "3"], "none of the --tasks is answered by a reply"),
        (["--max_length", "8"], "every text is longer than --max_length 8"),
    ],
)
def test_what_cannot_be_asked_is_refused(commands, battery, tmp_path, capsys, more, said):
    assert ask(commands, battery, tmp_path / "run", *more, tasks=["choice"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_questions_asked_in_another_way_are_not_compared(commands, battery, tmp_path, capsys):
    assert ask(commands, battery, tmp_path / "first", tasks=["choice"]) == 0
    against = ["--against", str(tmp_path / "first")]
    assert ask(commands, battery, tmp_path / "run", *against, "--delimiters.choice", "\nAnswer:", tasks=["choice"]) == 2
    assert "was measured with --delimiters" in capsys.readouterr().err
    assert ask(commands, battery, tmp_path / "run", *against, tasks=["next"]) == 2
    assert "asked none of these questions" in capsys.readouterr().err
