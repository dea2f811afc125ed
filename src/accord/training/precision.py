"""In what numbers a forward pass computes: f32, or bf16 with f32 master weights where a probe shows that it pays.

The probe times what a training step is made of: a matrix product with both of its gradients, and attention with its
gradient, in either type. On a CPU without units for bf16 (AMX, AVX-512 BF16) bf16 is slower; with them, and on a GPU,
up to several times faster. Weights, gradients, optimizer states, residual stream and log-softmax are f32 in any case.
"""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from accord.training.distributed import World

PAYS = 2.0  # speed-up of the probe from which bf16 is chosen
# rows, width and inner width of the product; small ones would time a GPU's launches
SIZES = {"cpu": (128, 256, 1024), "cuda": (4096, 2048, 8192)}
HEADS, LENGTH, SIZE = 4, 128, 32  # of the attention, 4 texts
ROUNDS = 8


def choose_precision(world: World) -> str:
    """`bf16` where it pays on every rank's device, else `f32`: the meaning of `--precision auto`."""
    return "bf16" if all(world.gather(speed_up(world.device.type) >= PAYS)) else "f32"


@functools.cache
def speed_up(device: str) -> float:
    """Seconds of the probe in f32 over those in bf16; measured once per process. 0 on devices that it does not know.

    The lower quartile of a few rounds: beside other work a single one may be off by half, and a machine on the border
    would train in another precision from run to run.
    """
    if device not in SIZES:
        return 0.0
    ratios = sorted(f32 / bf16 for f32, bf16 in rounds(device))
    return ratios[len(ratios) // 4]


def rounds(device: str) -> list[tuple[float, float]]:
    """Seconds of the probe in f32 and in bf16, in turn."""
    f32, bf16 = (_probe(device, dtype) for dtype in (torch.float32, torch.bfloat16))
    for work in (f32, bf16):
        work()  # libraries are loaded, kernels chosen
    return [(_timed(f32, device), _timed(bf16, device)) for _ in range(ROUNDS)]


def _probe(device: str, dtype: torch.dtype) -> Callable[[], None]:
    """One product and one attention, both with their gradients."""
    rows, width, inner = SIZES[device]
    x = torch.ones(rows, width, device=device, dtype=dtype, requires_grad=True)
    w = torch.ones(inner, width, device=device, dtype=dtype, requires_grad=True)
    q = torch.ones(4, HEADS, LENGTH, SIZE, device=device, dtype=dtype, requires_grad=True)

    def once() -> None:
        product = F.linear(x, w)
        torch.autograd.grad(product, (x, w), torch.ones_like(product))
        if device == "cpu" and dtype == torch.bfloat16:  # as engine.forward.attention computes it there
            seen = (q @ q.transpose(2, 3)).float().softmax(-1).to(dtype) @ q
        else:
            seen = F.scaled_dot_product_attention(q, q, q, is_causal=True)
        torch.autograd.grad(seen, q, torch.ones_like(seen))

    return once


def _timed(work: Callable[[], None], device: str) -> float:
    if device == "cpu":  # the clock of the process: other processes do not count
        started = time.process_time()
        work()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def lowered(precision: str, device: torch.device) -> torch.autocast:
    """The context in which a forward pass computes in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def one_cast(precision: str, device: torch.device, *, sharded: bool = False) -> Iterator[None]:
    """Around the micro-batches of a step: each weight is cast once, not once per micro-batch.

    Autocast keeps its casts until the outermost context ends. Nothing may run without gradients inside on weights that
    are trained: a cast made there would be kept too, and the gradient would end at it. Of `sharded` weights none is
    kept: together they would be a whole model.
    """
    with lowered("f32" if sharded else precision, device), torch.autocast(device.type, enabled=False):
        yield
