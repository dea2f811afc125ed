"""Chat, and how replies are drawn in `sample` and `evaluate`: by the flags, else by the model's generation config."""

import io
import json
from types import SimpleNamespace

import pytest
from transformers import GenerationConfig

from accord.cli import main
from accord.engine.texts import TextStream
from accord.parsing import parse
from accord.stages.chat.run import LONGEST, decoding_of


def chat(commands, monkeypatch, capsys, lines, *flags):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    assert main(["chat", str(commands.snapshots / "policy"), "--max_new_tokens", "6", *flags]) == 0
    return [line.removeprefix("assistant: ") for line in capsys.readouterr().out.splitlines()]


def test_what_is_said_can_be_taken_back_and_saved(commands, monkeypatch, capsys, tmp_path):
    file = tmp_path / "talk.jsonl"
    said = chat(
        commands,
        monkeypatch,
        capsys,
        ["why", "how", "/undo", "how", f"/save {file}", "/reset", "why", "/nothing", "/undo"],
    )
    first, second, again, saved, anew, help_line = said
    assert second == again and first == anew  # greedy, and the same conversation
    assert saved == f"saved to {file}" and "/system TEXT" in help_line
    (row,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"] * 2
    assert [turn["content"] for turn in row["messages"]] == ["why", first, "how", second]
    assert main(["data", str(file)]) == 0


def test_a_system_turn_is_part_of_the_conversation(commands, monkeypatch, capsys, tmp_path):
    file = tmp_path / "talk.jsonl"
    lines = ["why", "/system be a cat", "why", f"/save {file}"]
    chat(commands, monkeypatch, capsys, lines)
    (row,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert row["messages"][0] == {"role": "system", "content": "be a cat"} and len(row["messages"]) == 3


def test_a_reply_is_shown_as_it_is_drawn_and_cut_at_a_stop(commands, monkeypatch, capsys):
    plain = chat(commands, monkeypatch, capsys, ["why"])[0]
    pieces = []
    monkeypatch.setattr("builtins.print", lambda *text, **more: pieces.append("".join(text)))
    chat(commands, monkeypatch, capsys, ["why"])
    assert len(pieces) > 3 and "".join(pieces) == "assistant: " + plain
    pieces.clear()
    middle = plain[len(plain) // 2 :][:3]
    chat(commands, monkeypatch, capsys, ["why"], "--stop", json.dumps([middle]))
    assert "".join(pieces) == "assistant: " + plain[: plain.index(middle)]


@pytest.mark.parametrize(
    ("wished", "flags", "expected"),
    [
        ({}, {}, (0.0, 1.0, 0, LONGEST)),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20}, {}, (0.6, 0.9, 20, LONGEST)),
        ({"do_sample": True, "temperature": 0.6, "max_new_tokens": 99}, {"temperature": 0.2}, (0.2, 1.0, 50, 99)),
        ({"temperature": 0.6}, {"top_p": 0.5}, (1.0, 0.5, 0, LONGEST)),
        ({"do_sample": True, "top_k": 0}, {"max_new_tokens": 5}, (1.0, 1.0, 0, 5)),
    ],
)
def test_what_no_flag_says_is_as_the_generation_config_has_it(wished, flags, expected):
    config = parse("chat", ["there", *(part for k, v in flags.items() for part in (f"--{k}", str(v)))])
    wished = GenerationConfig(**{"top_k": 50, **wished}) if wished.get("do_sample") else GenerationConfig(**wished)
    found = decoding_of(config, wished)
    assert (found.temperature, found.top_p, found.top_k, found.max_new_tokens) == expected


def replies(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_sample_and_evaluate_draw_greedily_and_from_a_part_and_stop(commands, tmp_path):
    for name in ("sample", "evaluate"):
        drawn = {}
        for out, flags in {
            "greedy": {"temperature": 0},
            "one": {"top_k": 1},
            "stop": {"temperature": 0, "stop": '["a"]'},
        }.items():
            assert commands.run(name, tmp_path / name / out, **flags) == 0
            drawn[out] = [row["reply"] for row in replies(tmp_path / name / out)]
        assert drawn["greedy"] == drawn["one"]
        assert drawn["stop"] == [reply.partition("a")[0] for reply in drawn["greedy"]] != drawn["greedy"]


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("evaluate", {"top_p": 0.9, "reference": "x"}, ["--reference", "--top_p"]),
        ("evaluate", {"temperature": 0, "reference": "x"}, ["--reference", "--temperature 0"]),
        ("sample", {"min_p": 0.1, "select": "best", "samples": 2, "rewards.a": "x"}, ["--select best", "--min_p"]),
        ("sample", {"top_k": 3, "engine": "http://127.0.0.1:9"}, ["--engine", "--top_k"]),
        ("ppo", {"top_p": 0.9}, ["top_p"]),
        ("ppo", {"temperature": 0}, ["temperature"]),
        ("dpo", {"top_k": 3}, ["top_k"]),
        ("online", {"min_p": 0.1}, ["min_p"]),
    ],
)
def test_log_probs_that_are_used_are_of_the_whole_distribution(commands, tmp_path, capsys, name, flags, words):
    assert commands.run(name, tmp_path / "run", **flags) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said


def test_bf16_scores_and_draws_are_near_those_in_f32(commands, tmp_path):
    seen = []
    for precision in ("f32", "bf16"):
        assert commands.run("evaluate", tmp_path / precision, precision=precision, temperature=0) == 0
        rows = replies(tmp_path / precision)
        seen.append([row["scores"]["reward/helpful"] for row in rows])
    close = sum(abs(a - b) < 0.05 for a, b in zip(*seen, strict=True))
    assert seen[0] != seen[1] and close > 0.5 * len(seen[0])


def test_a_cache_that_is_small_draws_the_same(commands, tmp_path):
    drawn = []
    for tokens in (0, 1, 70):
        assert commands.run("sample", tmp_path / str(tokens), cache_tokens=tokens) == 0
        drawn.append([row["reply"] for row in replies(tmp_path / str(tokens))])
    assert drawn[0] == drawn[1] == drawn[2]


def test_what_may_be_the_beginning_of_a_stop_is_not_told():
    renderer = SimpleNamespace(text=lambda ids: "".join(map(chr, ids)))
    for reply, told in (("cdefg", ""), ("abcdefg", "ab"), ("abcdx", "abcdx")):
        stream, ids = TextStream(renderer, ["cdefg"]), [ord(letter) for letter in reply]
        pieces = [stream.more(ids[:count]) for count in range(1, len(ids) + 1)]
        assert "".join([*pieces, stream.rest(ids)]) == told
