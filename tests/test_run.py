"""The run folder: whole files, one owner, lineage and manifest that add up."""

import json
import os
import shutil
import signal
import time

import pytest
import yaml
from filelock import FileLock

from accord import run as run_module
from accord.disk import read_json, read_lines, write_atomically, write_text
from accord.errors import BadInput, Interrupted
from accord.lineage import hash_directory, hash_file, model_key, peak_memory
from accord.run import RunFolder, config_hash, verify
from accord.stages.ppo.config import Ppo
from accord.stages.sft.config import Sft


def config(out, **changes):
    return Sft(model="m", data="d", out=str(out), **changes)


def test_a_finished_run_holds_its_config_lineage_and_manifest(tmp_path):
    parent = tmp_path / "parent"
    parent.mkdir()
    (parent / "file").write_text("x")
    with RunFolder("sft", config(tmp_path / "run"), {"model": parent}) as run:
        assert not run.finished
        run.log({"step": 1, "loss": 0.5})
        run.add_sample({"reply": "é"})
        with run.new_snapshot() as folder:
            (folder / "config.json").write_text("{}")
        run.finish(extra=3)
        assert run.finished
    assert yaml.safe_load((run.path / "config.yaml").read_text())["model"] == "m"
    lineage = read_json(run.path / "lineage.json")
    assert lineage["parents"] == [{"role": "model", "path": str(parent), "hash": hash_directory(parent)}]
    assert lineage["stage"] == "sft" and lineage["extra"] == 3 and lineage["seed"] == 0
    assert lineage["config_hash"] == config_hash(config("elsewhere"))
    manifest = read_json(run.path / "manifest.json")
    written = {"config.yaml", "lineage.json", "metrics.jsonl", "samples.jsonl", "snapshot/config.json"}
    assert set(manifest) == {*written, "data/parents.json"}
    assert manifest["metrics.jsonl"] == hash_file(run.path / "metrics.jsonl")
    assert not [p for p in run.path.rglob("*") if ".part" in p.name]
    verify(run.path)


def test_a_finished_run_that_is_asked_to_go_on_stays_as_it_is(tmp_path):
    with RunFolder("sft", config(tmp_path / "run")) as run:
        run.finish()
    with RunFolder("sft", config(tmp_path / "run", resume=True, micro_tokens=99)) as run:
        assert run.finished
    verify(tmp_path / "run")


def test_verify_names_the_first_file_that_was_changed_or_lost(tmp_path):
    with RunFolder("sft", config(tmp_path / "run")) as run:
        run.log({"step": 1})
        run.write_json("a.json", {"x": 1})
        run.finish()
    (run.path / "a.json").write_text("{}")
    with pytest.raises(BadInput, match=r"a\.json: differs"):
        verify(run.path)
    (run.path / "a.json").unlink()
    with pytest.raises(BadInput, match=r"a\.json: listed in the manifest but missing"):
        verify(run.path)


def test_a_folder_that_is_not_empty_is_refused_without_resume(tmp_path):
    (tmp_path / "something").write_text("x")
    with pytest.raises(BadInput, match="not empty"), RunFolder("sft", config(tmp_path)):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["something"]


def test_a_folder_in_use_is_refused(tmp_path):
    with RunFolder("sft", config(tmp_path / "run")) as first:
        with pytest.raises(BadInput, match="in use"), RunFolder("sft", config(tmp_path / "run", resume=True)):
            pass
        first.log({"step": 1})
    with RunFolder("sft", config(tmp_path / "run", resume=True)):
        pass  # the lock went with its holder


def test_the_lock_is_let_go_when_the_run_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), RunFolder("sft", config(tmp_path / "run")):
        raise ZeroDivisionError
    with FileLock(tmp_path / "run" / ".lock").acquire(blocking=False):
        pass


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="is a file"), RunFolder("sft", config(tmp_path / "file")):
        pass


def test_resume_with_another_knob_is_refused_and_placement_may_change(tmp_path):
    with RunFolder("sft", config(tmp_path / "run")):
        pass
    with (
        pytest.raises(BadInput, match=r"--epochs \(2.0 before, 3.0 now\)"),
        RunFolder("sft", config(tmp_path / "run", resume=True, epochs=3.0)),
    ):
        pass
    changed = config(tmp_path / "run", resume=True, micro_tokens=17, checkpoint_every=5)
    with RunFolder("sft", changed):
        pass


def test_config_hash_is_blind_to_placement_and_nothing_else(tmp_path):
    assert config_hash(config("a")) == config_hash(config("b", micro_tokens=3, checkpoint_every=1))
    assert config_hash(config("a")) != config_hash(config("a", seed=1))


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old")

    def breaks(stream):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(path, breaks)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_snapshot_that_fails_leaves_the_old_one(tmp_path):
    with RunFolder("sft", config(tmp_path / "run")) as run:
        with run.new_snapshot() as folder:
            (folder / "weights").write_text("old")
        with pytest.raises(OSError), run.new_snapshot() as folder:
            (folder / "weights").write_text("half")
            raise OSError(28, "No space left on device")
        assert (run.snapshot / "weights").read_text() == "old"


def test_truncate_forgets_later_steps_and_torn_lines(tmp_path):
    with RunFolder("sft", config(tmp_path / "run")) as run:
        for step in (1, 2, 3):
            run.log({"step": step})
        with open(run.path / "metrics.jsonl", "a") as stream:
            stream.write('{"step": 4, "loss')
        run.truncate_logs(2)
        assert [row["step"] for row in read_lines(run.path / "metrics.jsonl")] == [1, 2]


def test_reading_what_is_broken_names_the_file_and_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"x": 1}\nnot json\n')
    with pytest.raises(BadInput, match=r"a\.jsonl:2"):
        read_lines(tmp_path / "a.jsonl")
    assert read_lines(tmp_path / "missing.jsonl") == []
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(BadInput, match=r"a\.json: not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(BadInput, match="not there"):
        read_json(tmp_path / "missing.json")


def test_ctrl_c_asks_once_and_insists_twice(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with RunFolder("sft", config(tmp_path / "run")) as run:
        assert not run.stop_requested
        os.kill(os.getpid(), signal.SIGINT)
        assert run.stop_requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert isinstance(run.interrupted(3), Interrupted)
    assert signal.getsignal(signal.SIGINT) is before


def test_only_the_first_rank_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with RunFolder("sft", config(tmp_path / "run")) as run:
        run.log({"step": 1})
        run.write_json("a.json", {})
        run.truncate_logs(0)
        run.finish()
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


def test_seconds_are_those_of_all_starts_without_the_time_between(tmp_path):
    folder = tmp_path / "run"
    now = time.time()
    for ago, worked in ((1000, 100), (500, 30)):  # two starts that were killed 100 and 30 seconds later
        with RunFolder("sft", config(folder, resume=ago == 500)) as run:
            run.log({"step": 1})
        for name, at in (("data/parents.json", now - ago), ("metrics.jsonl", now - ago + worked)):
            os.utime(folder / name, (at, at))
        if (folder / "data" / "worked.json").exists():
            os.utime(folder / "data" / "worked.json", (now - ago, now - ago))
    refused = RunFolder("sft", config(folder, resume=True, max_length=77))
    with pytest.raises(BadInput, match="another --max_length"), refused:
        pass  # and adds nothing
    with RunFolder("sft", config(folder, resume=True)) as run:
        run.finish()
    lineage = read_json(folder / "lineage.json")
    assert 130 <= lineage["seconds"] < 200
    assert 2**20 < lineage["peak_memory"] < 2**45
    verify(folder)


def test_memory_is_left_open_where_the_system_does_not_say(monkeypatch):
    monkeypatch.setattr("accord.lineage.Path.exists", lambda path: False)
    assert peak_memory() is None


def test_f6_every_file_of_a_run_is_written_whole(tmp_path):
    with RunFolder("sft", config(tmp_path / "run")) as run:
        run.write_json("a.json", {"x": [1, 2]})
        assert json.loads((run.path / "a.json").read_text()) == {"x": [1, 2]}
        assert sorted(p.name for p in run.path.iterdir()) == [".lock", "a.json", "config.yaml", "data"]


def test_threads_that_are_left_open_are_decided_once_kept_on_resume_and_hashed(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "available_cores", lambda: 6)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with RunFolder("sft", config(tmp_path / "run")) as run:
        assert run.threads == 3
    monkeypatch.setattr(run_module, "available_cores", lambda: 64)
    with RunFolder("sft", config(tmp_path / "run", resume=True)) as run:
        assert run.threads == 3
        run.finish()
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["threads"] == 3
    asked = config("elsewhere")
    assert read_json(run.path / "lineage.json")["config_hash"] == config_hash(config("elsewhere", threads=3))
    assert config_hash(run_module.settled(config(tmp_path / "run"))) == config_hash(config("elsewhere", threads=3))
    assert config_hash(asked) != config_hash(config("elsewhere", threads=3))
    with (
        pytest.raises(BadInput, match=r"--threads \(3 before, 4 now\)"),
        RunFolder("sft", config(tmp_path / "run", resume=True, threads=4)),
    ):
        pass


def test_what_was_left_open_and_is_not_decided_yet_may_still_be_given(tmp_path):
    with RunFolder("sft", config(tmp_path / "run")):
        pass  # stopped before anything was computed
    with RunFolder("sft", config(tmp_path / "run", resume=True, threads=2, precision="f32")) as run:
        assert run.threads == 2


def ppo(out, **changes):
    return Ppo(model="m", data="d", out=str(out), rewards={"a": "r"}, **changes)


def test_what_draws_is_part_of_a_config_and_where_it_answers_is_not(tmp_path):
    first, moved = (ppo("a", engine=f"http://{host}:8000") for host in ("here", "there"))
    assert config_hash(first) == config_hash(moved) != config_hash(ppo("a"))
    with RunFolder("ppo", ppo(tmp_path / "run", engine="http://here:8000")):
        pass
    with RunFolder("ppo", ppo(tmp_path / "run", engine="http://there:8000", resume=True)):
        pass
    with pytest.raises(BadInput, match="--engine"), RunFolder("ppo", ppo(tmp_path / "run", resume=True)):
        pass


@pytest.mark.parametrize(("knob", "value"), [("sampler_gap", 0.5), ("compile", "on"), ("threads", 7)])
def test_a_knob_that_changes_what_is_computed_is_hashed_and_refused_on_resume(knob, value, tmp_path):
    given = {"threads": 1, "compile": "off"}
    assert config_hash(ppo("a", **given)) != config_hash(ppo("a", **{**given, knob: value}))
    with RunFolder("ppo", ppo(tmp_path / "run", **given)):
        pass
    with (
        pytest.raises(BadInput, match=f"--{knob}"),
        RunFolder("ppo", ppo(tmp_path / "run", **{**given, knob: value}, resume=True)),
    ):
        pass


def test_the_lineage_names_the_revision_of_every_hub_model(tmp_path, monkeypatch):
    """Of a parent, and of the base that a parent's adapter names; a score's function or address has none."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--owner--name"
    (cached / "snapshots" / commit).mkdir(parents=True)
    (cached / "snapshots" / commit / "config.json").write_text("{}")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/name"}')
    parents = {"model": "owner/name", "reference": adapter, "reward.a": "module:score", "cost.b": "http://there/score"}
    with RunFolder("sft", config(tmp_path / "run"), parents) as run:
        run.finish()
    found = {parent["role"]: parent for parent in read_json(run.path / "lineage.json")["parents"]}
    assert found["model"] == {"role": "model", "path": "owner/name", "hash": None, "revision": commit}
    assert found["reference"]["base"] == {"path": "owner/name", "revision": commit} and found["reference"]["hash"]
    assert found["reward.a"]["path"] == "module:score" and found["reward.a"]["revision"] is None
    assert found["cost.b"]["path"] == "http://there/score" and found["cost.b"]["revision"] is None


def test_a_resume_on_another_parent_is_refused_and_on_the_same_goes_on(tmp_path):
    """The same path, and other weights behind it; what has finished asks for its parents no more."""
    parent = tmp_path / "parent"
    parent.mkdir()
    (parent / "model.safetensors").write_text("x")
    with RunFolder("sft", config(tmp_path / "run"), {"model": parent}):
        pass
    again = config(tmp_path / "run", resume=True)
    (parent / "model.safetensors").write_text("y")
    with (
        pytest.raises(BadInput, match=f"{parent}: changed since this run began"),
        RunFolder("sft", again, {"model": parent}),
    ):
        pass
    (parent / "model.safetensors").write_text("x")
    with RunFolder("sft", again, {"model": parent}) as run:
        run.finish()
    shutil.rmtree(parent)
    with RunFolder("sft", again, {"model": parent}) as run:
        assert run.finished
    verify(run.path)


def test_a_model_of_one_file_is_known_by_its_content(tmp_path):
    """A GGUF file: what stands in it is in the lineage, and a resume on another of the name is refused."""
    parent = tmp_path / "tiny.gguf"
    parent.write_bytes(b"x")
    with RunFolder("sft", config(tmp_path / "run"), {"model": parent}):
        pass
    again, was = config(tmp_path / "run", resume=True), hash_file(parent)
    parent.write_bytes(b"y")
    with pytest.raises(BadInput, match="changed since this run began"), RunFolder("sft", again, {"model": parent}):
        pass
    parent.write_bytes(b"x")
    with RunFolder("sft", again, {"model": parent}) as run:
        run.finish()
    assert read_json(run.path / "lineage.json")["parents"] == [{"role": "model", "path": str(parent), "hash": was}]


def test_a_models_key_is_its_content_wherever_it_is(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "model.safetensors").write_text("x")
        (folder / "model.gguf").write_text("z")
    assert model_key(str(one)) == model_key(str(two)) and len(model_key(str(one))) == 16
    assert model_key(str(one / "model.gguf")) == model_key(str(two / "model.gguf")) != model_key(str(one))
    (two / "model.safetensors").write_text("y")
    (two / "model.gguf").write_text("other")
    assert model_key(str(one)) != model_key(str(two))
    assert model_key(str(one / "model.gguf")) != model_key(str(two / "model.gguf"))
    (one / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/name"}')
    keys = set()
    for commit in ("a", "b"):
        monkeypatch.setattr("accord.lineage.hub_revision", lambda where, found=commit: found)
        keys |= {model_key("owner/name"), model_key(str(one))}
    assert {"owner/name@a", "owner/name@b"} < keys and len(keys) == 4


def test_a_resume_on_another_commit_of_a_hub_model_is_refused(tmp_path, monkeypatch):
    commits = iter(["a", "b"])
    monkeypatch.setattr("accord.lineage.hub_revision", lambda where: next(commits))
    with RunFolder("sft", config(tmp_path / "run"), {"model": "owner/name"}):
        pass
    again = RunFolder("sft", config(tmp_path / "run", resume=True), {"model": "owner/name"})
    with pytest.raises(BadInput, match="owner/name"), again:
        pass
