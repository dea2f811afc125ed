"""A call that was refused can be made again with its input mended, in the same place."""

import errno
import shutil

import pytest

from accord.errors import BadInput
from accord.run import RunFolder
from accord.stages.sft.config import Sft


def config(folder, **changes):
    return Sft(out=str(folder), model="m", data="d", **changes)


def test_a_refused_call_leaves_no_folder_behind(tmp_path):
    with pytest.raises(BadInput), RunFolder("sft", config(tmp_path / "run")) as run:
        run.write_json("data/data.json", [])
        raise BadInput("nothing is left")
    assert not (tmp_path / "run").exists()
    with RunFolder("sft", config(tmp_path / "run", epochs=3)):
        pass


def test_what_was_done_before_a_refusal_stays(tmp_path):
    with pytest.raises(BadInput), RunFolder("sft", config(tmp_path / "run")) as run:
        run.log({"step": 1})
        raise BadInput("too late to be nothing")
    assert (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_refused_resume_keeps_the_folder_of_the_run(tmp_path):
    with RunFolder("sft", config(tmp_path / "run")):
        pass
    with pytest.raises(BadInput), RunFolder("sft", config(tmp_path / "run", resume=True)):
        raise BadInput("nothing is left")
    assert (tmp_path / "run" / "config.yaml").exists()


def test_a_folder_that_failed_otherwise_stays(tmp_path):
    with pytest.raises(ZeroDivisionError), RunFolder("sft", config(tmp_path / "run")):
        raise ZeroDivisionError
    assert (tmp_path / "run" / "config.yaml").exists()


HUB = {
    "sft": {"model": "nobody/nothing"},
    "ppo": {"model": "nobody/nothing"},
    "preference": {"model": "nobody/nothing"},
    "evaluate": {"reference": "nobody/nothing"},
    "pretrain": {"tokenizer": "nobody/nothing", "vocab_size": 4096},
    "sample": {"model": "nobody/nothing"},
}


@pytest.mark.parametrize("name", HUB)
def test_a_wrong_hub_id_is_bad_input_and_leaves_no_folder_behind(name, commands, tmp_path, capsys):
    assert commands.run(name, tmp_path / "runs" / "new" / "run", **HUB[name]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"accord {name}: nobody/nothing: ") and len(said.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_snapshot_whose_weights_are_broken_is_named(commands, tmp_path, capsys):
    shutil.copytree(commands.snapshots / "policy", tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"not weights")
    assert commands.run("preference", tmp_path / "run", model=tmp_path / "broken") == 2
    assert str(tmp_path / "broken") in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_named(commands, tmp_path, capsys, monkeypatch):
    """As another user's folder is; the superuser may write everywhere."""

    def denied(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.mkdir", denied)
        assert commands.run("sft", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert f"--out {tmp_path / 'run'}" in said and "Permission denied" in said


def test_a_disk_that_is_full_while_a_model_is_fetched_is_no_bad_input(commands, tmp_path, capsys, monkeypatch):
    from accord.models import places

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(places.AutoTokenizer, "from_pretrained", full)
    assert commands.run("sft", tmp_path / "run") == 1
    assert "No space left" in capsys.readouterr().err
