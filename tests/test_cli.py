"""The command line: one table, help that documents every knob, errors that name the key."""

import errno
import os
import re
import subprocess
import sys
from typing import Annotated

import pytest
import yaml

from accord import __version__
from accord.cli import main
from accord.commands import COMMANDS
from accord.config import is_everyday
from accord.errors import BadInput
from accord.parsing import parse


def fails(capsys, *arguments):
    """The one message of a command that ends with exit code 2."""
    assert main([str(a) for a in arguments]) == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert lines[0].startswith(f"accord {arguments[0]}: ")
    return lines[0]


def test_overview_lists_every_command(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == out
    for name in COMMANDS:
        assert re.search(rf"^  {name}\s+{re.escape(COMMANDS[name].sentence)}$", out, re.M), name
        assert (COMMANDS[name].config.__doc__ or "").splitlines()[0] == COMMANDS[name].sentence


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"accord {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_documents_every_knob_and_fits(command, capsys):
    assert main([*command.split(), "--help", "all"]) == 0
    out = capsys.readouterr().out
    cls, positional = COMMANDS[command].config, COMMANDS[command].positional
    for name, field in cls.model_fields.items():
        assert (f"--{name}" in out) or name == positional, name
        assert field.description, name
    assert len(out.splitlines()) <= 120
    assert max(map(len, out.splitlines())) <= 130


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_the_everyday_knobs_and_where_the_others_are(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    out = capsys.readouterr().out
    fields, positional = COMMANDS[command].config.model_fields, COMMANDS[command].positional
    shown = [name for name in fields if re.search(rf"^  --{name} ", out, re.M)]
    assert shown == [name for name, field in fields.items() if is_everyday(field) and name != positional]
    assert len(shown) <= 35
    # nobody needs to look further for a knob without which a command does not run
    assert all(is_everyday(field) for field in fields.values() if field.is_required())
    hidden = [name for name, field in fields.items() if not is_everyday(field)]
    assert (f"accord {command} --help all shows {len(hidden)} more knobs" in out) == bool(hidden)


def test_unknown_command_offers_the_nearest(capsys):
    assert "did you mean preference" in fails(capsys, "preferences", "--x", 1)


def test_names_with_commas_and_one_by_one_are_the_same_list():
    given = [["--judge", "rules,cost/harm"], ["--judge", "rules", "cost/harm"], ["--judge=rules, cost/harm"]]
    for words in given:
        config = parse("evaluate refusals", ["--runs.a", "x", *words, "--out", "o"])
        assert config.judge == ["rules", "cost/harm"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["sft", "--model", "m", "--data", "d", "--out", "o", "--learning_rte", "1"],
            ["learning_rte", "learning_rate"],
        ),
        (["sft", "--model", "m", "--data", "d", "--out", "o", "--batch_size", "many"], ["batch_size"]),
        (["sft", "--model", "m", "--data", "d", "--out", "o", "--batch_size", "-4"], ["batch_size", "greater than 0"]),
        (["sft", "--model", "m", "--data", "d", "--out", "o", "--schedule", "cosin"], ["schedule"]),
        (["sft", "--model", "m", "--data", "d", "--out", "o", "--schedule", "cosin"], ["(did you mean cosine?)"]),
        (
            ["sft", "--model", "m", "--data", "d", "--out", "o", "--epochs", "x"],
            ["--epochs: expected a number, not 'x'"],
        ),
        (["sft", "--seed.x", "1"], ["unknown key 'seed.x' (did you mean seed?)"]),
        (["sft", "stray"], ["stray", "a value follows its knob"]),
        (["sft", "--model", "m", "--out", "o"], ["data"]),
        (["sft"], ["--model", "--data", "--out"]),
        (["ppo", "--model", "m", "--data", "d", "--out", "o"], ["rewards"]),
        (["ppo", "--rewards", "r"], ["missing --", "--rewards: expected names, --rewards.NAME VALUE, not 'r'"]),
        (["ppo", "--rewards.a", "r", "--limits.harm", "x"], ["--limits.harm: expected a number, not 'x'"]),
        (["frontier", "--values", "[0.1, x]"], ["--values.1: expected a number, not 'x'"]),
        (["chat", "m", "--top_k", "1.5"], ["--top_k: expected a whole number, not '1.5'"]),
        (
            ["ppo", "--model", "m", "--data", "d", "--out", "o", "--rewards.a", "r", "--limits.harm", "0"],
            ["--limits.harm", "--costs.harm"],
        ),
        (
            ["ppo", "--model", "m", "--data", "d", "--out", "o", "--rewards.a", "r", "--costs.a", "r"],
            ["both a reward and a cost"],
        ),
        (
            ["preference", "--model", "m", "--data", "d", "--out", "o", "--role", "cost", "--normalizer", "standard"],
            ["zero"],
        ),
    ],
)
def test_f4_what_cannot_be_meant_is_refused_by_name(arguments, words, capsys):
    message = fails(capsys, *arguments)
    assert all(word in message for word in words), message


def test_a_yaml_file_gives_knobs_and_flags_win(tmp_path):
    (tmp_path / "c.yaml").write_text("model: m\ndata:\n  a: one.jsonl\n  b: two.jsonl\nepochs: 3\nseed: 5\n")
    config = parse("sft", ["--config", str(tmp_path / "c.yaml"), "--out", "o", "--seed", "9"])
    assert config.data == {"a": "one.jsonl", "b": "two.jsonl"}
    assert config.epochs == 3 and config.seed == 9


def test_f4_an_unknown_key_in_a_yaml_file_is_refused(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("model: m\ndata: d\nepoch: 3\n")
    message = fails(capsys, "sft", "--config", tmp_path / "c.yaml", "--out", "o")
    assert "epoch" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("epoch: 3\n", "unknown key 'epoch' (did you mean epochs?)"),
        ("model: 3\n", "--model: expected a text, not 3"),
        ("epochs: x\n", "--epochs: expected a number, not 'x'"),
        ("data: [a]\n", "--data: expected a text or names, --data.NAME VALUE, not ['a']"),
        ("data: {a: 3}\n", "--data.a: expected a text, not 3"),
        ("- a\n", "a mapping of knobs is needed"),
    ],
)
def test_what_a_file_says_wrongly_is_named_with_the_file(tmp_path, capsys, content, words):
    (tmp_path / "c.yaml").write_text(content)
    assert f"--config {tmp_path / 'c.yaml'}: {words}" in fails(capsys, "sft", "--config", tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("content", "word"),
    [("model: [", "c.yaml"), (None, "c.yaml"), ("lora_rank: 2\nlora_rank: 4", "'lora_rank' stands twice")],
)
def test_a_broken_or_missing_yaml_file_is_named(tmp_path, capsys, content, word):
    if content is not None:
        (tmp_path / "c.yaml").write_text(content)
    assert word in fails(capsys, "sft", "--config", tmp_path / "c.yaml", "--out", "o", "--model", "m", "--data", "d")


LINE = (
    "--model m --data.a x --data.b y --out o --rewards.helpful r --costs.harm c --limits.harm -0.5 "
    "--limit_slices.harm a,b --resume"
)


def test_dotted_flags_make_dictionaries():
    config = parse(
        "ppo",
        LINE.split(),
    )
    assert config.data == {"a": "x", "b": "y"}
    assert config.limits == {"harm": -0.5} and config.limit_slices == {"harm": "a,b"}
    assert config.resume is True


def test_an_interrupt_and_a_failure_end_with_1(monkeypatch, capsys, tmp_path):
    import accord.stages.report.run as report

    for error, word in (
        (KeyboardInterrupt(), "interrupted"),
        (OSError(28, "No space left on device"), "No space left"),
        (RuntimeError("boom"), "boom"),
    ):

        def breaks(config, error=error):
            raise error

        monkeypatch.setattr(report, "run", breaks)
        assert main(["report", str(tmp_path)]) == 1
        assert word in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["OutOfMemoryError", "RuntimeError"])
def test_out_of_memory_names_the_number_to_change(monkeypatch, capsys, tmp_path, kind):
    import torch

    import accord.stages.sample.run as sample

    def breaks(config):
        if kind == "RuntimeError":
            torch.empty(2**58)  # the CPU's allocator has no type of its own
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(sample, "run", breaks)
    line = ["sample", "--model", "m", "--data", "d", "--out", str(tmp_path / "run"), "--cache_tokens", "3000"]
    assert main(line) == 1
    error = capsys.readouterr().err
    assert "--cache_tokens 1500" in error and "Traceback" not in error


def test_out_of_memory_with_a_planned_number_names_it(monkeypatch, capsys, tmp_path):
    import torch

    import accord.stages.sft.run as sft

    def breaks(config):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(sft, "run", breaks)
    (tmp_path / "config.yaml").write_text("micro_tokens: 2048\n")
    assert main(["sft", "--model", "m", "--data", "d", "--out", str(tmp_path), "--micro_tokens", "0"]) == 1
    assert "--micro_tokens 1024" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "there/file"), ["Permission denied", "there/file"]),
        (ConnectionResetError(104, "Connection reset by peer"), ["Connection reset by peer"]),
        (FileNotFoundError(2, "No such file or directory", "there/file"), ["No such file", "there/file"]),
    ],
)
def test_an_error_that_is_no_full_disk_is_not_called_one(error, words, monkeypatch, capsys, tmp_path):
    import accord.stages.report.run as report

    def breaks(config):
        raise error

    monkeypatch.setattr(report, "run", breaks)
    assert main(["report", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert all(word in said for word in words) and "what was saved before" not in said and "full" not in said


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_called_one(number, monkeypatch, capsys, tmp_path):
    import accord.stages.report.run as report

    def breaks(config):
        raise OSError(number, "said by the system")

    monkeypatch.setattr(report, "run", breaks)
    assert main(["report", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "the disk is full" in said and "said by the system" in said and "Traceback" not in said


# a pipe of Windows, and a system without a locale
LOCALES = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


TWICE = """
import pathlib, sys
from accord.cli import main
line = sys.argv[1:]
code = main(line)
(pathlib.Path(line[-1]) / "manifest.json").unlink()
sys.exit(code or main([*line, "--resume"]))
"""


def in_locale(name, *arguments, start=("-m", "accord")):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONIOENCODING", "LANG", "PYTHONUTF8")}
    line = [sys.executable, *start, *map(str, arguments)]
    return subprocess.run(line, env={**environment, **LOCALES[name]}, capture_output=True, timeout=120)


@pytest.mark.parametrize("name", LOCALES)
def test_help_is_utf8_whatever_the_locale(name):
    done = in_locale(name, "ppo", "--help", "all")
    assert done.returncode == 0, done.stderr
    assert "λ" in done.stdout.decode("utf-8")


def test_cards_and_configs_are_utf8_whatever_the_locale(commands, tmp_path):
    """Written, read by --config, and read again by --resume."""
    name = "grüße-λ"
    given = {"model": str(commands.snapshots / "policy"), "data": {name: str(commands.files / "demonstrations.jsonl")}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(given, allow_unicode=True), encoding="utf-8")
    knobs = ("--epochs", 0.5, "--threads", 1, "--precision", "f32", "--out", tmp_path / "run")
    line = ("sft", "--config", tmp_path / "c.yaml", *knobs)
    done = in_locale("ascii", *line, start=["-c", TWICE])
    assert done.returncode == 0, done.stderr.decode()
    assert name in (tmp_path / "run" / "config.yaml").read_bytes().decode("utf-8")
    assert name in (tmp_path / "run" / "snapshot" / "README.md").read_bytes().decode("utf-8")


# beside these every bounded number begins at 0 and has no end
STARTS = {"max_length": 1.0}
ENDS = dict.fromkeys(("gamma", "lam", "refresh_mix", "weight_average", "warmup", "eval_share", "off_policy_steps"), 1.0)
ENDS |= dict.fromkeys(("label_smoothing", "flips", "label_flips", "suspect_below"), 0.5)


@pytest.mark.parametrize("command", ["ppo", "preference", "sft", "pretrain"])
def test_numbers_are_refused_beyond_their_bounds_and_taken_at_them(command):
    from pydantic import TypeAdapter, ValidationError

    def takes(name, number):
        field = COMMANDS[command].config.model_fields[name]
        try:
            TypeAdapter(Annotated[float, *field.metadata]).validate_python(number)
        except ValidationError:
            return False
        return True

    bounded = [name for name, field in COMMANDS[command].config.model_fields.items() if "number" in kinds(field)]
    assert len(bounded) > 10
    for name in bounded:
        start, end = STARTS.get(name, 0.0), ENDS.get(name, 1e12)
        assert takes(name, start + 1e-6) and not takes(name, start - 1e-6), name
        assert takes(name, end - 1e-6) and takes(name, end + 1e-6) == (name not in ENDS), name


def kinds(field):
    """ "number" where the knob has bounds, beside what else its metadata are."""
    return {"number" for bound in field.metadata if {"ge", "gt"} & set(dir(bound))}


@pytest.mark.parametrize(
    "words", [["--criterion", "a", "--criterion", "b"], ["--criterion", "a", "b"], ["--criterion", '["a", "b"]']]
)
def test_a_list_is_given_by_its_members_or_as_json(words):
    settings = parse("collect import", [*words, "--data", "d", "--overlap", "2"])
    assert (settings.criterion, settings.data, settings.overlap) == (["a", "b"], "d", 2)


def test_a_list_of_known_words_is_given_like_any_other():
    words = ["--snapshots", "s", "--criterion", "helpful", "--mode"]
    assert parse("collect", [*words, "chat"]).mode == ["chat"]
    assert parse("collect", [*words, "compare", "redteam"]).mode == ["compare", "redteam"]
    with pytest.raises(BadInput, match="--mode"):
        parse("collect", [*words, "chatting"])
