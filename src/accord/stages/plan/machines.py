"""What a plan knows of a machine: the table of `machines.yaml`, a file of the user's own, or a look at this one."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from accord.disk import read_yaml
from accord.errors import BadInput, did_you_mean
from accord.lineage import available_cores

TABLE = Path(__file__).with_name("machines.yaml")
GIB = 2**30
LARGE = {"cpu": (1024, 2**24), "cuda": (8192, 2**28)}  # side of the product that is timed, and numbers of the copy
MEASURING = 0.5  # seconds of each


@dataclass(frozen=True)
class Machine:
    """Devices and what joins them; units stand in `machines.yaml`."""

    name: str
    device: str
    devices: int
    memory: float
    f32: float
    bf16: float
    bandwidth: float
    source: str
    per_node: int = 8
    near: float = 10e9
    far: float = 1.25e9
    latency: float = 20e-6
    step: float = 0.001
    straggle: float = 0.02
    hours: float = 50_700.0
    restart: float = 10.0

    @property
    def bytes(self) -> float:
        """Memory of a device in bytes; devices of a CPU are processes that share it."""
        return self.memory * GIB / (min(self.devices, self.per_node) if self.device == "cpu" else 1)

    @property
    def nodes(self) -> int:
        return -(-self.devices // self.per_node)

    def rate(self, precision: str) -> float:
        """Operations per second of a device."""
        return self.bf16 if precision == "bf16" else self.f32

    @property
    def link(self) -> float:
        """Bytes per second of the slowest link of a ring through all devices."""
        return self.near if self.devices <= self.per_node else self.far


def find_machine(where: str) -> Machine:
    """The machine that `--machine` names. BadInput says what is wrong with a file, or the nearest name of the table."""
    if where == "this":
        return this_machine()
    table = read_table(TABLE)
    if where in table:
        return make_machine(where, table, str(TABLE))
    file = Path(where)
    if not file.is_file():
        raise BadInput(
            f"--machine {where} is neither a file nor one of {', '.join(table)}, this{did_you_mean(where, table)}"
        )
    own = read_table(file)
    if len(own) != 1:
        raise BadInput(f"{file}: describes {len(own)} machines; a file of your own holds one")
    return make_machine(next(iter(own)), table | own, str(file))


def read_table(file: Path) -> dict[str, dict[str, Any]]:
    """Machines of a YAML file by name."""
    found = read_yaml(file, "--machine")
    if not isinstance(found, dict) or not all(isinstance(value, dict) for value in found.values()):
        raise BadInput(f"{file}: write NAME: and its numbers below, as docs/scale.md shows")
    return found


def make_machine(name: str, table: dict[str, dict[str, Any]], file: str) -> Machine:
    """The machine of a name, with what it takes from the one that it is `like`."""
    given = dict(table[name])
    base = given.pop("like", "")
    if base:
        if base not in table or "like" in table[base]:
            raise BadInput(f"{file}: {name} is like {base}, which is no machine with numbers of its own")
        given = table[base] | given
    known = {field.name: field for field in fields(Machine)}
    for key, value in given.items():
        if key not in known or key == "name":
            raise BadInput(f"{file}: {name} has an unknown {key!r}{did_you_mean(key, known)}")
        if known[key].type in (float, int):
            given[key] = _number(file, name, key, value)
    missing = [key for key in ("device", "devices", "memory", "f32", "bf16", "bandwidth", "source") if key not in given]
    if missing:
        raise BadInput(f"{file}: {name} has no {missing[0]}")
    if given["device"] not in ("cpu", "cuda"):
        raise BadInput(f"{file}: device of {name} is {given['device']!r}; write cpu or cuda")
    return Machine(name, **{**given, "devices": int(given["devices"]), "per_node": int(given.get("per_node", 8))})


def _number(file: str, name: str, key: str, value: Any) -> float:
    try:  # YAML reads 3e12 as text
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not number > 0 and not (key == "straggle" and number == 0):
        raise BadInput(f"{file}: {key} of {name} is {value!r}; write a number above 0")
    return number


def this_machine() -> Machine:
    """This machine: memory and speed measured, the rest from the row of the table that is most like it."""
    import torch

    from accord.training.memory import free_bytes

    table = read_table(TABLE)
    if torch.cuda.is_available():
        named = torch.cuda.get_device_name().lower()
        row = next((n for n in ("h200", "h100", "a100", "rtx-4090") if n.split("-")[-1] in named), "a100")
        memory = torch.cuda.get_device_properties(0).total_memory / GIB
        seen: dict[str, Any] = {"devices": torch.cuda.device_count(), "memory": memory}
    else:
        row, seen = "laptop", {"devices": 1, "memory": free_bytes(torch.device("cpu")) / GIB}
    seen |= speeds(table[row]["device"])
    given = table[row] | seen | {"source": f"memory and speed as measured here, the rest as {row}"}
    return make_machine("this", {"this": given}, str(TABLE))


@functools.cache
def speeds(device: str) -> dict[str, float]:
    """Operations per second of a large product in f32 and in bf16, and bytes per second of a large copy, read and
    written: the best of some runs, for what is beside them would only slow them down."""
    import torch

    side, numbers = LARGE[device]
    found = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(available_cores())  # as a stage will, whatever was set before
    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.ones(side, side, dtype=dtype, device=device)
        found[name] = 2 * side**3 / _least_seconds(lambda a=a: a @ a, device)  # type: ignore[misc]
    source = torch.ones(numbers, device=device)
    target = torch.empty_like(source)
    found["bandwidth"] = 2 * source.nbytes / _least_seconds(lambda: target.copy_(source), device)
    torch.set_num_threads(threads)
    return found


def _least_seconds(work: Callable[[], Any], device: str) -> float:
    """Of one call: without the first one, which loads libraries and chooses kernels."""
    _timed(work, device)
    taken = [_timed(work, device)]
    while sum(taken) < MEASURING:
        taken.append(_timed(work, device))
    return max(min(taken), 1e-9)


def _timed(work: Callable[[], Any], device: str) -> float:
    started = time.perf_counter()
    work()
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter() - started
