"""`accord check`: a page of what was found with its remedy; exit 2 where something is wrong, and nothing is written."""

import json
import shutil

import pytest
from transformers import LlamaConfig, LlamaForSequenceClassification

from accord.cli import main

STRICT = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system turns here') }}{% endif %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def page(capsys):
    """`page(*words)`: exit code and page of a check, its lines joined."""

    def run(*words):
        capsys.readouterr()
        code = main(["check", *map(str, words), "--max_new_tokens", "5"])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_a_model_that_fits_is_told_with_three_replies(page, commands, tmp_path):
    s, f = commands.snapshots, commands.files
    code, said = page(s / "policy", "--reference", s / "other", "--rewards.r", s / "reward", "--costs.c", s / "cost")
    assert code == 0 and "wrong" not in said and said.count("user: ") == said.count("assistant: ") == 3
    for about in (
        "positions",
        "vocabulary",
        "generation config",
        "memory",
        "step",
        "reference",
        "role",
        "labels",
        "head",
    ):
        assert f"fine   {about}: " in said, about
    for about in ("template", "prompt", "end of a reply", "stops", "PAD", "score"):
        assert f"fine   {about}: " in said, about
    code, said = page(s / "policy", "--data", f / "comparisons.jsonl", "--max_length", 14)
    assert code == 0 and "80 comparisons of 80 rows" in said and "are longer than --max_length 14" in said
    first = json.loads((f / "comparisons.jsonl").read_text().splitlines()[0])["prompt"]
    assert f"user: {first}" in said


def test_what_a_step_keeps_is_counted_and_does_not_fit_everywhere(page, commands, monkeypatch):
    policy = commands.snapshots / "policy"
    kept = [page(policy, "--max_length", n)[1].split(f"{n} tokens keeps ")[1].split(" GiB")[0] for n in (500, 1000)]
    assert float(kept[1]) == pytest.approx(2 * float(kept[0]), rel=0.1) and float(kept[0]) > 0
    free = iter([2**40, 1000])  # the weights fit, a step does not
    monkeypatch.setattr("accord.stages.check.machine.free_bytes", lambda device: next(free))
    code, said = page(policy, "--max_length", 500)
    assert code == 0 and "note   step: " in said and "give a smaller --max_length" in said


def test_every_wrong_thing_is_on_the_page_and_the_first_is_the_error(page, commands, tokenizer, tmp_path):
    """The role that is asked for, and labels; nothing is loaded, so there are no replies."""
    s = commands.snapshots
    three = LlamaForSequenceClassification(
        LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=3)
    )
    three.save_pretrained(tmp_path / "three")
    tokenizer.save_pretrained(tmp_path / "three")
    code, said = page(s / "policy", "--rewards.a", s / "cost", "--rewards.b", tmp_path / "three", "--max_length", 9999)
    assert code == 2 and "user: " not in said
    assert "is a cost model, and a preference model is asked for" in said and "has 3 labels" in said
    assert said.splitlines()[-1].startswith("accord check: ") and "reads 2048 tokens" in said.splitlines()[-1]


def test_a_template_that_refuses_and_a_score_that_is_read_elsewhere_are_notes(page, commands, tokenizer, tmp_path):
    """As a card has it, the score is read behind the line break that the template writes after a turn."""
    where = shutil.copytree(commands.snapshots / "reward", tmp_path / "theirs")
    (where / "chat_template.jinja").write_text(STRICT)
    config = json.loads((where / "config.json").read_text())
    del config["accord"]
    (where / "config.json").write_text(json.dumps(config))
    code, said = page(where)
    assert code == 0 and "user: " not in said  # it is no policy
    assert "note   template: a system turn first: the chat template: no system turns here" in said
    assert "note   score: " in said and "\\n' follows a reply there" in said
    file = tmp_path / "rows.jsonl"
    rows = [{"messages": [{"role": "system", "content": "be"}, *turns]} for turns in ([], [])]
    asked = [{"role": "user", "content": "why"}, {"role": "assistant", "content": "the cat"}]
    rows = [{"messages": [{"role": "system", "content": "be"}, *asked]}, {"messages": asked}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, said = page(where, "--data", file)
    assert "1 demonstrations of 2 rows" in said and "dropped: 1 the chat template: no system turns here" in said


def test_data_that_holds_nothing_is_wrong(page, commands, tmp_path):
    (tmp_path / "odd.jsonl").write_text('{"colour": "red"}\n')
    code, said = page(commands.snapshots / "policy", "--data", tmp_path / "odd.jsonl")
    assert code == 2 and "wrong  data: " in said
