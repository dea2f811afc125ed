"""Whether parts of a model are compiled: where the run is long enough to pay for it, by measurement.

The parts are the norms and MLPs of every block, whose elementwise operations become one kernel each; all blocks share
what is compiled. Attention stays as it is: its shapes change from batch to batch. On a CPU in f32 that saves a tenth of
a step or less, in bf16 and on GPUs more, and compiling takes seconds to half a minute.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import nn

from accord.run import RunFolder
from accord.training.distributed import World
from accord.training.memory import undisturbed

HOPED = 0.15  # share of a run that compiling may save: where this would not pay, it is not tried
COMPILING = 10.0  # seconds that it takes at least
PAYS = 3.0  # times its own seconds that it must save
ROUNDS = 3

Work = Callable[[], None]  # forward and backward pass of a micro-batch


class Compilation:
    """`--compile` of a run that trains `modules`: at once where it is `on`; where it is open, after the first step."""

    def __init__(self, run: RunFolder, world: World, modules: Sequence[nn.Module], *, sharded: bool = False) -> None:
        self.run, self.world, self.modules = run, world, modules
        decision = run.decide("compile", lambda: "auto")
        # of sharded weights a pass is every rank's, and is not tried
        self.open = decision == "auto" and not sharded
        if decision == "on":
            compile_parts(modules)

    def consider(self, left: float, work: Work | None, times: float) -> None:
        """Decide, the same on every rank, if that is open. No random number is used up and no gradient is left behind.

        `left` seconds at most are left to save from; `work` computes a micro-batch forward and backward (None on a rank
        that has none), of which about `times` as many are left. It is called only where they may pay.
        """
        if not self.open:
            return
        self.open = False
        if self.run.decide("compile", lambda: choose_compile(self.world, self.modules, left, work, times)) == "on":
            compile_parts(self.modules)


def choose_compile(world: World, modules: Sequence[nn.Module], left: float, work: Work | None, times: float) -> str:
    """`on` where compiled micro-batches save several times what compiling them took, else `off`.

    It is tried where what may be saved pays for the trial too: of a long text's passes seven can outlast the run.
    """
    ready = all(world.gather(work is not None))
    trial = (2 * ROUNDS + 1) * left / max(times, 1.0)
    if work is None or not ready or max(world.gather(left * HOPED - trial)) < PAYS * COMPILING:
        return "off"
    with undisturbed(modules, world.device):
        plain = min(seconds(work, world.device) for _ in range(ROUNDS))
        compile_parts(modules)
        try:
            took = seconds(work, world.device)
            saved = (plain - min(seconds(work, world.device) for _ in range(ROUNDS))) * times
        except RuntimeError as error:  # no compiler for C++, or a module that it cannot read
            print(f"note: this model is not compiled: {str(error).splitlines()[0]}", flush=True)
            took, saved = 0.0, 0.0
        plain_again(modules)
    measured = world.gather((saved, took))
    return "on" if min(saved for saved, _ in measured) > PAYS * max(took for _, took in measured) else "off"


def seconds(work: Work, device: torch.device) -> float:
    """Wall seconds of a micro-batch."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    started = now()
    work()
    return now() - started


def parts(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Norms and MLPs, by the names that transformers' decoders give them, outermost first."""
    for module in modules:
        found: set[nn.Module] = set()
        for name, part in module.named_modules():
            last = name.rsplit(".", 1)[-1]
            if last in ("mlp", "feed_forward") or "norm" in last or last.startswith("ln_"):
                if part not in found:
                    yield part
                found.update(part.modules())  # what stands inside is compiled with it


def compile_parts(modules: Iterable[nn.Module]) -> None:
    for part in parts(modules):
        part.compile(dynamic=True)


def plain_again(modules: Iterable[nn.Module]) -> None:
    for part in parts(modules):
        part._compiled_call_impl = None  # torch has no public way back
