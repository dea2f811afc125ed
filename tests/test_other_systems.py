"""What cannot be run here, Apple's GPUs and Windows, is kept by tests that forbid what they lack."""

import ast
import errno
import fcntl
import os
from pathlib import Path

import psutil  # noqa: F401 - asks the system as it is imported, before a test takes that away
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import accord
from accord.engine.decode import draw
from accord.models.ensemble import mean_weights
from accord.run import RunFolder
from accord.stages.sft.config import Sft
from accord.training import checkpoint, memory
from tests.fixtures.sources import nodes

SOURCE = Path(accord.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [path.relative_to(SOURCE).as_posix() for path in FILES]
# rooms whose tensors may lie on a device; in the two files the device is asked for first, and seen to be below
ON_DEVICES = ("engine", "models", "training", "labelers", "stages")
ASKS = ("engine/forward/dtype.py", "engine/decode/draw.py")


class NoDoubles(TorchDispatchMode):
    """Apple's GPUs: a tensor of f64 cannot be made there."""

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        result = operation(*arguments, **(options or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "mps" and tensor.dtype == torch.float64:
                raise TypeError(f"{operation}: MPS has no float64")
        return result


@pytest.fixture
def apple():
    with FakeTensorMode(allow_non_fake_inputs=True), NoDoubles():
        yield torch.device("mps")


def test_a_token_is_drawn_on_apple_silicon(apple):
    logits = torch.empty(3, 70, device=apple)
    settings = draw.SampleSettings(1, 0.7, 4, frozenset({2}), 0)
    token, logprobs = settings.tokens(logits, settings.streams(3), 0)
    assert (token.device.type, token.shape, token.dtype) == ("mps", (3,), torch.int64)
    assert (logprobs.device.type, logprobs.dtype) == ("mps", torch.float32)


def test_weights_are_averaged_on_apple_silicon(apple):
    states = [{"w": torch.empty(2, 3, device=apple), "n": torch.empty(1, dtype=torch.int64, device=apple)}] * 2
    mean = mean_weights(states)
    assert mean["w"].dtype == torch.float32 and mean["w"].device.type == "mps"


def doubles(path):
    """Lines that make f64 of a tensor, but for new ones from Python's numbers, which lie on the CPU."""
    new = set()
    for node in nodes(path):
        made = isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.tensor"
        if made and not any(keyword.arg == "device" for keyword in node.keywords):
            new |= {id(part) for part in ast.walk(node)}
    for node in nodes(path):
        if isinstance(node, ast.Attribute) and node.attr in ("double", "float64") and id(node) not in new:
            whole = ast.unparse(node)
            if node.attr == "double" or whole == "torch.float64":
                yield f"line {node.lineno}: {whole}"


def test_no_f64_is_made_of_what_may_lie_on_a_device():
    on_devices = [name for name in NAMES if name.startswith(ON_DEVICES) and name not in ASKS]
    assert not {name: found for name in on_devices if (found := list(doubles(SOURCE / name)))}


# modules, calls and signals that Windows has not
MISSING = ("fcntl", "resource", "pwd", "grp", "termios", "pty", "os.fork", "os.sysconf", "os.getuid", "os.geteuid")
MISSING += ("os.killpg", "os.setsid", "os.uname", "os.statvfs", "signal.SIGKILL", "signal.SIGUSR1", "signal.SIGALRM")
ENDINGS = {name.rpartition(".")[2] for name in MISSING}


def places():
    """Every file with each node of its syntax tree."""
    return ((name, node) for name in NAMES for node in nodes(SOURCE / name))


def test_nothing_is_called_that_windows_lacks():
    for name, node in places():
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert not {alias.name for alias in node.names} & set(MISSING), f"{name}:{node.lineno}"
            assert getattr(node, "module", "") not in MISSING, f"{name}:{node.lineno}"
        if isinstance(node, ast.Attribute) and node.attr in ENDINGS:
            assert ast.unparse(node) not in MISSING, f"{name}:{node.lineno}"


def test_lines_end_alike_on_windows():
    """A file that is opened as text to be written to says how its lines end."""
    for name, node in places():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            modes = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
            if modes and set(modes[0]) & set("wa") and "b" not in modes[0]:
                assert "newline" in {keyword.arg for keyword in node.keywords}, f"{name}:{node.lineno}"


@pytest.fixture
def windows_fsync(monkeypatch):
    """There a file that was opened for reading alone cannot be synced."""
    plain = os.fsync

    def fsync(descriptor):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def test_what_is_synced_was_opened_for_writing(windows_fsync, tmp_path):
    with RunFolder("sft", Sft(model="m", data="d", out=str(tmp_path / "run"))) as run:
        with run.new_snapshot() as folder:
            (folder / "weights").write_bytes(b"x")
        checkpoint.save(run.path / "checkpoints", 1, {"m": torch.nn.Linear(2, 2)}, {}, {})
    assert (run.snapshot / "weights").read_bytes() == b"x"


def test_free_memory_is_known_without_linux(monkeypatch):
    monkeypatch.delattr(os, "sysconf", raising=False)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    assert memory.free_bytes(torch.device("cpu")) > 2**20
    assert memory.is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))
