"""Stop anywhere, go on, and nothing is different: parameters, optimizer, metrics, KL coefficient, multipliers."""

import errno
import json
import os
import shutil

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from accord.objectives.lagrange import Multiplier
from accord.run import RunFolder
from accord.stages import shared
from accord.stages.ppo import state as ppo_state
from accord.training import checkpoint

# command: (its changes, the steps to stop after: first, middle and last of an epoch, and the run's last but one)
# 24 prompts in batches of 8 are 3 iterations an epoch, about 76 conversations in batches of 30 are 3 steps, and the
# documents' 4,355 tokens in batches of 1,400 are 4
CASES = {
    "pretrain": ({"batch_size": 1400}, (1, 2, 4, 5)),
    "pretrain-muon": ({"matrix_learning_rate": 0.01}, (3,)),
    "sft": ({"eval_every": 2}, (1, 2, 3, 5)),
    "preference": ({"epochs": 2}, (1, 2, 3, 5)),
    "cost": ({"epochs": 2}, (1, 2, 3)),
    "dpo": ({"eval_every": 2, "epochs": 2}, (1, 2, 3, 5)),
    "dpo-refresh": ({"refresh_every": 2, "refresh_mix": 0.6, "epochs": 2}, (2, 3)),
    "dpo-kto": ({"loss": "kto", "lora_rank": 2, "cache_reference": "false"}, (2,)),
    "ppo": ({"kl_target": 0.01, "kl_horizon": 20}, (1, 2, 3)),
    "limited": ({"samples": 2, "kl_target": 0.01, "kl_horizon": 20, "critic": "shared"}, (1, 2, 3)),
    "unsafe": ({"samples": 2, "critic": "shared", "limit_window": 2}, (1, 2)),
}


@pytest.fixture(scope="module")
def whole_runs(commands, tmp_path_factory):
    """Uninterrupted runs, made once."""
    done = {}

    def get(name):
        if name not in done:
            done[name] = tmp_path_factory.mktemp("whole") / name
            assert commands.run(name.split("-")[0], done[name], **CASES[name][0]) == 0
        return done[name]

    return get


# of every command, and of every state of its own that it goes on with, one stop; of one command all
QUICK = {("pretrain", 2), ("pretrain-muon", 3), ("sft", 1), ("sft", 2), ("sft", 3), ("preference", 2), ("dpo", 2)}
QUICK |= {("dpo-refresh", 3), ("dpo-kto", 2), ("ppo", 2), ("limited", 2), ("unsafe", 2)}
STOPS = [(name, step) for name, (_, steps) in CASES.items() for step in steps]


@pytest.mark.parametrize(
    ("name", "step"),
    [pytest.param(*stop, marks=() if stop in QUICK else pytest.mark.slow) for stop in STOPS],
)
def test_f1_f2_resume_is_bit_exact(
    name, step, commands, whole_runs, stop_after, same_run, tmp_path, capsys, monkeypatch
):
    changes = CASES[name][0]
    stop_after(step)
    command = name.split("-")[0]
    assert commands.run(command, tmp_path / "run", **changes) == 1
    assert f"stopped after step {step}" in capsys.readouterr().err
    assert not (tmp_path / "run" / "manifest.json").exists()
    stop_after(-1)
    assert commands.run(command, tmp_path / "run", resume="true", **changes) == 0
    same_run(tmp_path / "run", whole_runs(name))


def test_f5_d3_the_kl_coefficient_and_the_multipliers_come_back(commands, whole_runs, stop_after, tmp_path):
    """F5 and D3: what was saved is what the uninterrupted run had at that step, to the bit."""
    whole = whole_runs("limited")  # before any run is told to stop
    stop_after(2)
    assert commands.run("limited", tmp_path / "run", **CASES["limited"][0]) == 1
    state = json.loads((checkpoint.latest(tmp_path / "run" / "checkpoints") / "state.json").read_text())
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert state["step"] == 2
    assert state["kl_coefficient"] == rows[2]["kl_coefficient"] != rows[0]["kl_coefficient"]
    integral, value = state["multipliers"]["harm"]
    assert value == rows[1]["lagrange/harm"] != 2.0
    assert integral != value
    restored = ppo_state.restore(state)
    assert restored.kl_coefficient == rows[2]["kl_coefficient"]
    assert restored.multipliers == {"harm": Multiplier(integral, value)}


def test_steps_logged_after_the_checkpoint_are_not_logged_twice(commands, whole_runs, same_run, tmp_path, monkeypatch):
    """Killed between checkpoints: what came after the last one is forgotten and done again."""
    from accord.run import RunFolder

    plain = RunFolder.log

    def dies(self, row):
        plain(self, row)
        if row["step"] == 5:
            raise MemoryError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", dies)
        assert commands.run("sft", tmp_path / "run", checkpoint_every=2, **CASES["sft"][0]) == 1
    with open(tmp_path / "run" / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 6, "lo')  # a torn line
    assert commands.run("sft", tmp_path / "run", resume="true", checkpoint_every=2, **CASES["sft"][0]) == 0
    same_run(tmp_path / "run", whole_runs("sft"))


@pytest.mark.parametrize("where", ["save_file", "fsync", "replace"])
def test_f6_a_save_that_fails_leaves_the_checkpoint_before_it_whole(
    where, commands, whole_runs, same_run, tmp_path, monkeypatch, capsys
):
    """F6 and a full disk: exit 1, the last checkpoint loads, and --resume ends where it should."""

    def fails(original):
        def call(*arguments, **settings):
            writing = list((tmp_path / "run" / "checkpoints").glob(".step-00000004.part"))
            if writing and (where == "fsync" or "step-00000004.part" in str(arguments)):
                if where == "save_file":
                    arguments[1].write_bytes(b"half a file")
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*arguments, **settings)

        return call

    with monkeypatch.context() as patch:
        if where == "save_file":
            patch.setattr(checkpoint, "save_file", fails(checkpoint.save_file))
        else:
            patch.setattr(os, where, fails(getattr(os, where)))
        assert commands.run("sft", tmp_path / "run", checkpoint_every=2, **CASES["sft"][0]) == 1
    assert "No space left" in capsys.readouterr().err
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").name == "step-00000002"
    assert commands.run("sft", tmp_path / "run", resume="true", checkpoint_every=2, **CASES["sft"][0]) == 0
    same_run(tmp_path / "run", whole_runs("sft"))


def test_f6_a_kill_in_the_middle_of_a_save(commands, whole_runs, same_run, tmp_path, monkeypatch):
    """The process ends between two files of the checkpoint, nothing is cleaned up."""

    def dies(tensors, path):
        path.write_bytes(b"half")
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        real = checkpoint.save_file
        patch.setattr(checkpoint, "save_file", lambda t, p: dies(t, p) if "00000004" in str(p) else real(t, p))
        with pytest.raises(SystemExit):
            commands.run("sft", tmp_path / "run", checkpoint_every=2, **CASES["sft"][0])
    assert commands.run("sft", tmp_path / "run", resume="true", checkpoint_every=2, **CASES["sft"][0]) == 0
    same_run(tmp_path / "run", whole_runs("sft"))


def test_only_the_newest_checkpoint_is_kept_and_it_holds_no_pickle(commands, tmp_path, stop_after):
    stop_after(5)
    assert commands.run("sft", tmp_path / "run", checkpoint_every=1) == 1
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert folder.name == "step-00000005"
    assert {f.name for f in folder.iterdir()} == {"tensors.safetensors", "state.json", "manifest.json"}


def test_f4_resume_with_another_config_raises(commands, tmp_path, stop_after, capsys):
    stop_after(1)
    assert commands.run("sft", tmp_path / "run") == 1
    assert commands.run("sft", tmp_path / "run", resume="true", learning_rate=0.5) == 2
    assert "--learning_rate" in capsys.readouterr().err


def test_a_finished_run_is_not_done_again(commands, whole_runs, tmp_path):
    shutil.copytree(whole_runs("pretrain"), tmp_path / "run")
    before = (tmp_path / "run" / "manifest.json").read_text()
    assert commands.run("pretrain", tmp_path / "run", resume="true", **CASES["pretrain"][0]) == 0
    assert (tmp_path / "run" / "manifest.json").read_text() == before


def test_optimizer_and_random_state_round_trip(tmp_path):
    torch.manual_seed(3)
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, fused=True)
    module(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    checkpoint.save(tmp_path, 7, {"m": module}, {"o": optimizer}, {"tokens": 12})
    expected = torch.randn(3)
    other = torch.nn.Linear(3, 2)
    fresh = torch.optim.AdamW(other.parameters(), lr=0.1, fused=True)
    state = checkpoint.load(checkpoint.latest(tmp_path), {"m": other}, {"o": fresh})
    assert state == {"step": 7, "tokens": 12}
    assert torch.equal(torch.randn(3), expected)
    assert torch.equal(other.weight, module.weight)
    for mine, theirs in zip(optimizer.state.values(), fresh.state.values(), strict=True):
        assert all(torch.equal(mine[k], theirs[k]) and mine[k].dtype == theirs[k].dtype for k in mine)


@pytest.mark.parametrize("name", ["sft", pytest.param("ppo", marks=pytest.mark.slow), "sample"])
def test_a_resume_on_changed_rows_is_refused_and_on_the_same_rows_goes_on(
    name, commands, files, stop_after, same_run, tmp_path, capsys, monkeypatch
):
    """The same rows in another order too: they would come in other batches."""
    source = files / ("demonstrations.jsonl" if name == "sft" else "prompts.jsonl")
    rows = source.read_text().splitlines(keepends=True)
    data = tmp_path / "data.jsonl"
    data.write_text("".join(rows))
    if name == "sample":  # it has no steps: it is stopped between its chunks
        monkeypatch.setattr(shared, "CHUNK", 8)
        plain = RunFolder.add_sample
        monkeypatch.setattr(
            RunFolder, "add_sample", lambda run, row: (plain(run, row), setattr(run, "stop_requested", True))
        )
    stop_after(2)
    assert commands.run(name, tmp_path / "run", data=data) == 1
    stop_after(-1)
    if name == "sample":
        monkeypatch.setattr(RunFolder, "add_sample", plain)
    before = (tmp_path / "run" / "data" / "data.json").read_text()
    for changed in ([rows[1], rows[0], *rows[2:]], rows[:-1], [rows[0].replace("}", ', "more": 1}'), *rows[1:]]):
        data.write_text("".join(changed))
        capsys.readouterr()
        assert commands.run(name, tmp_path / "run", data=data, resume="true") == 2
        said = capsys.readouterr().err
        assert "data.jsonl" in said and "--resume" in said and len(said.splitlines()) == 1
        assert (tmp_path / "run" / "data" / "data.json").read_text() == before
    data.write_text("".join(rows))
    assert commands.run(name, tmp_path / "run", data=data, resume="true") == 0
    (source_of,) = json.loads((tmp_path / "run" / "lineage.json").read_text())["sources"]
    assert source_of["knob"] == "data" and source_of["rows"] == len(rows) and len(source_of["hash"]) == 64
    assert source_of["source"] == str(data)


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


ENDS = {  # what each command has still to do when its last step is done
    "sft": "accord.stages.shared.save_model",
    "preference": "accord.stages.preference.results.save_model",
    "dpo": "accord.stages.dpo.run.measure_samples",
    "ppo": "accord.stages.shared.save_model",
    "limited": "accord.stages.ppo.run.finish",
    "pretrain": "accord.run.RunFolder.finish",
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n == "ppo" else ()) for n in ENDS])
def test_a_run_that_has_trained_leaves_a_checkpoint_before_anything_that_can_still_fail(
    name, commands, whole_runs, same_run, tmp_path, monkeypatch
):
    whole = whole_runs(name)
    with monkeypatch.context() as patch:
        patch.setattr(ENDS[name], full)
        assert commands.run(name, tmp_path / "run", **CASES[name][0]) == 1
    steps = len((whole / "metrics.jsonl").read_text().splitlines())
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").name == f"step-{steps:08d}"
    with monkeypatch.context() as patch:  # nothing is trained again
        patch.setattr("torch.Tensor.backward", full)
        assert commands.run(name, tmp_path / "run", resume="true", **CASES[name][0]) == 0
    same_run(tmp_path / "run", whole)


def test_a_last_evaluation_that_fails_is_made_up_for(commands, whole_runs, same_run, tmp_path, monkeypatch):
    whole = whole_runs("pretrain")
    with monkeypatch.context() as patch:
        patch.setattr("accord.stages.pretrain.run.mean_loss", full)
        assert commands.run("pretrain", tmp_path / "run", **CASES["pretrain"][0]) == 1
    assert commands.run("pretrain", tmp_path / "run", resume="true", **CASES["pretrain"][0]) == 0
    same_run(tmp_path / "run", whole)


@pytest.mark.parametrize(("name", "steps"), [("sft", 6), ("ppo", 4)])
def test_a_checkpoint_is_written_by_the_clock_too(name, steps, commands, tmp_path, monkeypatch):
    """Steps of four minutes, a checkpoint every ten: after every third."""
    clock = iter(range(0, 240 * 1000, 240))
    monkeypatch.setattr(checkpoint, "monotonic", lambda: next(clock), raising=False)
    written = []
    plain = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda f, step, *rest: (written.append(step), plain(f, step, *rest)))
    assert commands.run(name, tmp_path / "run", checkpoint_every=0, **CASES[name][0]) == 0
    assert written == sorted({3, steps})
    assert commands.run(name, tmp_path / "other", checkpoint_every=2, checkpoint_minutes=0, **CASES[name][0]) == 0
    assert written == [*sorted({3, steps}), *range(2, steps + 1, 2)]


@pytest.mark.parametrize("name", ["sft", "ppo"])
def test_a_run_killed_before_its_first_checkpoint_begins_again_and_logs_every_step_once(
    name, commands, whole_runs, same_run, tmp_path, monkeypatch
):
    plain = RunFolder.log

    def dies(run, row):
        plain(run, row)
        if row["step"] == 2:
            raise MemoryError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", dies)
        assert commands.run(name, tmp_path / "run", **CASES[name][0]) == 1
    assert commands.run(name, tmp_path / "run", resume="true", **CASES[name][0]) == 0
    same_run(tmp_path / "run", whole_runs(name))
    if name == "ppo":
        ours, theirs = (folder / "samples.jsonl" for folder in (tmp_path / "run", whole_runs(name)))
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_checkpoint_copies_only_what_it_must(tmp_path):
    """A copy of weights and states would be as much memory again; what shares a storage or is turned is none the less
    written."""
    whole = torch.arange(12.0).reshape(3, 4)
    given = {"own": whole, "again": whole[1:], "turned": torch.arange(6.0).reshape(2, 3).T, "other": torch.ones(2)}
    apart = checkpoint._apart(given)
    assert all(torch.equal(apart[name], tensor) for name, tensor in given.items())
    same = {name for name, tensor in given.items() if apart[name].data_ptr() == tensor.data_ptr()}
    assert same == {"own", "other"}
    save_file(apart, tmp_path / "tensors.safetensors")


def test_a_rank_writes_its_part_in_files_that_its_memory_can_hold(tmp_path, monkeypatch):
    """Torch's writer holds a file twice; every file of a rank is part of the checkpoint and is read again."""
    monkeypatch.setattr(checkpoint, "FILE", 4 * 300)
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        module = nn.Linear(16, 16)
        fully_shard(module, mesh=init_device_mesh("cpu", (1,)))
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
        module(torch.ones(2, 16)).sum().backward()
        optimizer.step()
        checkpoint.save(tmp_path / "all", 1, {"model": module}, {"adamw": optimizer}, {})
    finally:
        dist.destroy_process_group()
    files = [file.stat().st_size for file in (tmp_path / "all" / "step-00000001").glob("*.safetensors")]
    # the random state alone has 5,056 bytes; of three matrices of 1,024 and their vectors no file holds all
    assert len(files) >= 3 and sorted(files)[-2] < 3 * checkpoint.FILE
    plain = nn.Linear(16, 16)
    other = torch.optim.AdamW(plain.parameters(), lr=0.1)
    checkpoint.load(checkpoint.latest(tmp_path / "all"), {"model": plain}, {"adamw": other})
    assert torch.equal(plain.weight, module.weight.to_local())
    saved = optimizer.state[module.weight]["exp_avg"].to_local()
    assert torch.equal(other.state[plain.weight]["exp_avg"], saved) and saved.any()
