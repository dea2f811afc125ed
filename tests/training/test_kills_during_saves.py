"""`kill -9` of processes that only save: a whole checkpoint is always there, and none that was told of is lost."""

import os
import random
import signal
import time

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from accord.training import checkpoint

WIDTH = 160  # 0.3 MB of weights and moments: a save is files being written, and not the beginning or end of one


def made():
    module = nn.Linear(WIDTH, WIDTH)
    return module, torch.optim.AdamW(module.parameters(), lr=0.0)


def with_states(optimizer):
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()


@torch.no_grad()
def mark(module, optimizer, step):
    """Every number that is saved says which step it is of."""
    for parameter in module.parameters():
        parameter.fill_(step)
        for slot in ("exp_avg", "exp_avg_sq"):
            optimizer.state[parameter][slot].fill_(step)


def save_for_ever(folder, told, module, optimizer, *, speaks=True):
    """Go on from the newest checkpoint; write the number of every save that has returned to the pipe `told`."""
    with_states(optimizer)
    found, step = checkpoint.latest(folder), 0
    if found is not None:
        step = checkpoint.load(found, {"model": module}, {"adamw": optimizer})["step"]
    if speaks:
        os.write(told, b"0\n")
    while True:
        step += 1
        mark(module, optimizer, step)
        checkpoint.save(folder, step, {"model": module}, {"adamw": optimizer}, {"tokens": 3 * step})
        if speaks:
            os.write(told, b"%d\n" % step)


def alone(folder, told, place):
    save_for_ever(folder, told, *made())


def sharded(rank):
    def work(folder, told, place):
        store = dist.FileStore(str(place), 2)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
        module, _ = made()
        fully_shard(module, mesh=init_device_mesh("cpu", (2,)))
        save_for_ever(folder, told, module, torch.optim.AdamW(module.parameters(), lr=0.0), speaks=rank == 0)

    return work


def forked(work, *arguments):
    child = os.fork()
    if child == 0:
        try:
            work(*arguments)
        finally:
            os._exit(9)
    return child


def newest(folder):
    """What the newest checkpoint says, read as a resumed run reads it; every number in it must be of one save."""
    module, optimizer = made()
    state = checkpoint.load(checkpoint.latest(folder), {"model": module}, {"adamw": optimizer})
    numbers = [*module.parameters()]
    numbers += [optimizer.state[p][slot] for p in module.parameters() for slot in ("exp_avg", "exp_avg_sq")]
    assert all(bool((tensor == state["step"]).all()) for tensor in numbers) and state["tokens"] == 3 * state["step"]
    return state["step"]


def killed(workers, kills, folder, tmp_path):
    """Start, kill at a random moment of the next few saves, look, go on; how many kills left a save half done."""
    generator, in_saves, reached = random.Random(7), 0, 0
    for number in range(kills):
        heard, told = os.pipe()
        children = [forked(work, folder, told, tmp_path / f"store-{number}") for work in workers]
        os.close(told)
        with os.fdopen(heard, "rb") as stream:
            assert stream.readline() == b"0\n", "no process began"
            began = time.monotonic()
            first = stream.readline()
            time.sleep(3 * generator.random() * (time.monotonic() - began))
            generator.shuffle(children)
            for child in children:
                os.kill(child, signal.SIGKILL)
                time.sleep(0.01 * generator.random() * (len(children) > 1))
            ends = [os.waitpid(child, 0)[1] for child in children]
            assert ends[0] == signal.SIGKILL, "it ended by itself"  # the others may, once the first has gone
            *_, last = [first, *(line for line in stream if line.endswith(b"\n"))]
        in_saves += len(list(folder.iterdir())) != 1
        step = newest(folder)
        assert step >= int(last) > reached, f"kill {number}: {int(last)} was told, {step} is there"
        reached = step
    return in_saves


def test_a_process_that_is_killed_in_its_saves_loses_nothing_that_it_told(tmp_path):
    assert killed([alone], 12, tmp_path / "checkpoints", tmp_path) >= 6


@pytest.mark.slow
def test_200_kills_during_saves(tmp_path):
    assert killed([alone], 200, tmp_path / "checkpoints", tmp_path) >= 100


@pytest.mark.slow
@pytest.mark.parametrize("part", [1, 2])
def test_200_kills_during_sharded_saves(part, tmp_path):
    """In two halves."""
    assert killed([sharded(0), sharded(1)], 100, tmp_path / "checkpoints", tmp_path) >= 50
