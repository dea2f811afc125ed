"""A call that was refused can be made again with its input mended, in the same place."""

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
