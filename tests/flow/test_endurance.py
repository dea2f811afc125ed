"""What ends a run early, and files that were made to do harm: nothing is lost, nothing is executed, all is said."""

import json
import os
import shutil
import signal

import pytest

from accord.run import RunFolder
from accord.stages.sft import run as stage
from accord.training import checkpoint
from accord.training.finite import KEPT

TERM = ("pretrain", "sft", "preference", "cost", "dpo", "ppo", "limited")
SIGNALS = [*((name, signal.SIGTERM) for name in TERM), ("sft", signal.SIGINT), ("limited", signal.SIGINT)]
# a cost model is trained by the preference stage, and PPO without a limit by the loop that has one
ALIKE = [("cost", signal.SIGTERM), ("ppo", signal.SIGTERM), ("limited", signal.SIGINT)]
SIGNALS = [pytest.param(*case, marks=pytest.mark.slow) if case in ALIKE else case for case in SIGNALS]


@pytest.mark.parametrize(("name", "signals"), SIGNALS)
def test_a_signal_ends_a_stage_after_the_step_it_is_in_and_the_run_goes_on(
    name, signals, commands, same_run, tmp_path, monkeypatch, capsys
):
    """Between the signal and the checkpoint there is no further step."""
    changes = {"steps": 2} if name in ("ppo", "limited", "pretrain") else {"epochs": 1}
    plain = RunFolder.log

    def log(run, row):
        plain(run, row)
        if row["step"] == 1:
            os.kill(os.getpid(), signals)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", log)
        assert commands.run(name, tmp_path / "run", **changes) == 1
    assert "stopped after step 1; --resume goes on" in capsys.readouterr().err
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").name == "step-00000001"
    assert commands.run(name, tmp_path / "run", resume="true", **changes) == 0
    assert commands.run(name, tmp_path / "whole", **changes) == 0
    same_run(tmp_path / "run", tmp_path / "whole")


def test_a_signal_between_folds_loses_no_finished_fold(commands, tmp_path, monkeypatch):
    plain = RunFolder.log

    def log(run, row):
        plain(run, row)
        if run.path.name == "1":
            os.kill(os.getpid(), signal.SIGTERM)

    changes = {"folds": 2, "epochs": 1, "max_rows": 40}
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", log)
        assert commands.run("preference", tmp_path / "run", **changes) == 1
    assert (tmp_path / "run/folds/0/manifest.json").exists()
    before = (tmp_path / "run/folds/0/scores.json").stat().st_mtime_ns
    assert commands.run("preference", tmp_path / "run", resume="true", **changes) == 0
    assert (tmp_path / "run/folds/0/scores.json").stat().st_mtime_ns == before


def poisoned(monkeypatch, number):
    """Make the loss of one conversation infinite, wherever it stands: the one that is seen as the `number`-th alone."""
    known = {}
    real = stage.text_loss

    def text_loss(model, world, precision):
        loss = real(model, world, precision)

        def with_poison(groups, count):
            known.setdefault("group", groups[number % len(groups)])
            value, parts = loss(groups, count)
            bad = any(group is known["group"] for group in groups)
            return (value * float("inf") if bad else value), parts

        return with_poison

    monkeypatch.setattr(stage, "text_loss", text_loss)
    return known


def test_a_row_whose_loss_is_not_finite_is_named_and_its_batch_kept(commands, tmp_path, monkeypatch, capsys):
    """And learned from neither: the same command without the poison goes on from where it was."""
    with monkeypatch.context() as patch:
        known = poisoned(patch, 3)
        assert commands.run("sft", tmp_path / "run", epochs=1) == 1
    said = capsys.readouterr().err
    kept = json.loads((tmp_path / "run" / KEPT).read_text())
    assert "step 1: loss or gradient is non-finite, from row" in said and str(tmp_path / "run" / KEPT) in said
    assert "Traceback" not in said
    (row,) = kept["rows"]
    group = known["group"]
    assert kept["batch"][row] == {
        "prefix": list(group.prefix),
        "replies": [list(ids) for ids in group.replies],
        "masks": [list(mask) for mask in group.masks],
    }
    assert kept["step"] == 1 and len(kept["batch"]) == 30 and kept["losses"][str(row)] == "inf"
    assert commands.run("sft", tmp_path / "run", resume="true", epochs=1) == 0


def test_a_value_that_is_not_finite_ends_ppo_before_it_is_learned_from(commands, tmp_path, monkeypatch, capsys):
    from accord.stages.ppo import update

    plain = update.value_loss
    monkeypatch.setattr(
        update, "value_loss", lambda *a, **k: (lambda loss, parts: (loss * float("nan"), parts))(*plain(*a, **k))
    )
    assert commands.run("ppo", tmp_path / "run", steps=2) == 1
    said = capsys.readouterr().err
    kept = json.loads((tmp_path / "run" / KEPT).read_text())
    assert "step 1: loss or gradient is non-finite" in said
    assert kept["rows"] == list(range(len(kept["batch"]))) and len(kept["batch"]) == 4
    assert all(row["prefix"] and row["replies"] for row in kept["batch"])


HARM = "touch harmed"


def hostile_header(folder, harm):
    """A safetensors file whose header is not what it says."""
    file = folder / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if harm == "huge":
        content = (2**60).to_bytes(8, "little") + content[8:]
    elif harm == "nested":
        content = (100_000).to_bytes(8, "little") + b"[" * 100_000 + content[8 + length :]
    elif harm == "outside":
        header = json.loads(content[8 : 8 + length])
        name = next(key for key in header if key != "__metadata__")
        header[name]["data_offsets"] = [0, 2**40]
        text = json.dumps(header).encode()
        content = len(text).to_bytes(8, "little") + text + content[8 + length :]
    elif harm == "cut":
        content = content[: len(content) // 2]
    file.write_bytes(content)


@pytest.mark.parametrize("harm", ["huge", "nested", "outside", "cut"])
def test_a_hostile_safetensors_header_is_refused_by_name(harm, commands, tmp_path, capsys):
    folder = shutil.copytree(commands.snapshots / "policy", tmp_path / "hostile")
    hostile_header(folder, harm)
    assert commands.run("sft", tmp_path / "run", model=folder) == 2
    said = capsys.readouterr().err
    assert str(folder) in said and "Traceback" not in said


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for c in [].__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
        "{{ cycler.__init__.__globals__.os.system('touch harmed') }}",
        "{% include '/etc/hostname' %}",
    ],
)
def test_a_hostile_chat_template_executes_nothing(template, commands, tmp_path, capsys, monkeypatch):
    """Templates run in a sandbox without attributes of Python's own, files or modules."""
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(commands.snapshots / "policy", tmp_path / "hostile")
    (folder / "chat_template.jinja").write_text(template)
    assert commands.run("sft", tmp_path / "run", model=folder) == 2
    said = capsys.readouterr().err
    assert "template" in said and "Traceback" not in said
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    "text",
    [
        f"model: !!python/object/apply:os.system ['{HARM}']",
        f"data: !!python/object/new:os.system ['{HARM}']",
        "a: &a [x, x, x, x, x, x, x, x, x]\nmodel: !!python/name:os.system",
    ],
)
def test_a_hostile_config_file_executes_nothing(text, commands, tmp_path, capsys, monkeypatch):
    from accord.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    assert main(["sft", "--config", "config.yaml", "--out", str(tmp_path / "run")]) == 2
    assert "config.yaml" in capsys.readouterr().err
    assert not (tmp_path / "harmed").exists()


def test_a_run_folder_whose_config_was_made_to_do_harm_executes_nothing(commands, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(f"model: !!python/object/apply:os.system ['{HARM}']")
    assert commands.run("sft", tmp_path / "run", resume="true") == 2
    said = capsys.readouterr().err
    assert "config.yaml" in said and "Traceback" not in said
    assert not (tmp_path / "harmed").exists()


GGUF = {
    "magic": b"NOPE" + bytes(60),
    "counts": b"GGUF" + (3).to_bytes(4, "little") + (2**62).to_bytes(8, "little") + (2**62).to_bytes(8, "little"),
    "key": b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (1).to_bytes(8, "little") + (2**50).to_bytes(8, "little"),
    "cut": b"GGUF" + (3).to_bytes(4, "little"),
}


@pytest.mark.parametrize("harm", GGUF)
def test_a_hostile_gguf_file_is_refused_by_name(harm, commands, tmp_path, capsys):
    pytest.importorskip("gguf")
    (tmp_path / "hostile.gguf").write_bytes(GGUF[harm])
    assert commands.run("sample", tmp_path / "run", model=tmp_path / "hostile.gguf") == 2
    said = capsys.readouterr().err
    assert "hostile.gguf" in said and "Traceback" not in said


@pytest.fixture(scope="module")
def cut(commands, tmp_path_factory):
    """A run that was stopped after its second step."""
    out, plain = tmp_path_factory.mktemp("cut") / "run", RunFolder.log

    def log(run, row):
        plain(run, row)
        run.stop_requested = row["step"] == 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "log", log)
        assert commands.run("sft", out) == 1
    return out


@pytest.mark.parametrize("how", ["flip", "cut", "missing", "state"])
def test_a_checkpoint_that_is_not_what_was_written_is_refused_by_name(how, cut, commands, tmp_path, capsys):
    shutil.copytree(cut, tmp_path / "run")
    folder = checkpoint.latest(tmp_path / "run" / "checkpoints")
    file = folder / ("state.json" if how == "state" else "tensors.safetensors")
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    else:
        place = len(content) // 2
        changed = content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
        file.write_bytes(content[:place] if how == "cut" else changed)
    capsys.readouterr()
    assert commands.run("sft", tmp_path / "run", resume="true") == 2
    assert file.name in capsys.readouterr().err
