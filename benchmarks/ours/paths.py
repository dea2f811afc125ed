"""How far each path that a GPU alone has is from plain products or plain steps: ‖ours − theirs‖ / ‖theirs‖."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from accord.engine.decode import cuda_graphs
from accord.engine.decode.decoder import Decoder
from accord.engine.forward import flex, linear_logprobs, plain, varlen
from accord.engine.forward.linear_logprobs import LogitTransform
from accord.engine.packing import Attention, pack, reply_group
from accord.models.loading import load_policy
from benchmarks.ours.setting import Result, items_of, options, world_of
from benchmarks.workloads import Item

FAILED = float("inf")  # of a path that cannot be run here; the notes say why
Work = Callable[[], list[tuple[Tensor, Tensor]]]  # pairs of ours and theirs


def paths(folder: Path) -> Result:
    """The largest error of outputs and gradients of every path, and `notes` on those that failed."""
    chosen = options(folder)
    device = world_of(chosen).device
    found: Result = {"notes": {}}
    work: dict[str, Work] = {
        f"{name} {str(dtype).removeprefix('torch.')} {size}": lambda n=name, d=dtype, s=size: attention(  # type: ignore[misc]
            n, items_of(folder), device, d, s
        )
        for name, dtype, size in (
            ("varlen", torch.bfloat16, 64),
            ("varlen", torch.bfloat16, 128),
            ("flex", torch.bfloat16, 64),
            ("flex", torch.float32, 64),
        )
    }
    work["tiled log-probs"] = lambda: tiled(device)
    work["graphs float32"] = lambda: graphs(folder, device, torch.float32)
    work["graphs bfloat16"] = lambda: graphs(folder, device, torch.bfloat16)
    for name, pairs in work.items():
        try:
            found[name] = max(error(ours, theirs) for ours, theirs in pairs())
        except Exception as problem:  # a path that fails is what this looks for
            found[name] = FAILED
            found["notes"][name] = f"{type(problem).__name__}: {str(problem).splitlines()[0][:200]}"
    return found


def error(ours: Tensor, theirs: Tensor) -> float:
    """Relative, in the Frobenius norm."""
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def attention(
    name: str, items: list[Item], device: torch.device, dtype: torch.dtype, size: int
) -> list[tuple[Tensor, Tensor]]:
    """Outputs and gradients of a kernel over prompts with their replies, whole and of a last layer's queries."""
    packing = pack([reply_group(item["prompt"], *item["replies"]) for item in items[:4]]).to(device)
    kernel = {"varlen": varlen, "flex": flex}[name].attend
    pairs = []
    for asked in (packing.attention, packing.ending[0]):
        pairs += compared(kernel, asked, len(packing.ids), device, dtype, size)
    return pairs


def compared(
    kernel: plain.Attend, asked: Attention, tokens: int, device: torch.device, dtype: torch.dtype, size: int
) -> list[tuple[Tensor, Tensor]]:
    """What a kernel gives beside f32 products of the same rounded inputs."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(count, heads, size, generator=generator).to(device, dtype).requires_grad_()
        for count, heads in ((len(asked.at), 4), (tokens, 2), (tokens, 2))
    )
    weights = torch.randn(len(asked.at), 4, size, generator=generator).to(device)
    ours, theirs = kernel(asked, q, k, v), plain.masked(asked, q, k, v)
    gradients = [torch.autograd.grad((out.float() * weights).sum(), (q, k, v)) for out in (ours, theirs)]
    return [(ours.detach(), theirs.detach()), *zip(*gradients, strict=True)]


def tiled(device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Log-probs and gradients in tiles beside log-softmax over the whole vocabulary, in f32."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(rows, 64, generator=generator).to(device).requires_grad_() for rows in (700, 40_000))
    targets = torch.randint(0, 40_000, (700,), generator=generator).to(device)
    ours = linear_logprobs.linear_logprobs(hidden, weight, None, targets, LogitTransform())
    theirs = (hidden @ weight.T).log_softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1)
    gradients = [torch.autograd.grad(out.sum(), (hidden, weight)) for out in (ours, theirs)]
    return [(ours.detach(), theirs.detach()), *zip(*gradients, strict=True)]


@torch.no_grad()
def graphs(folder: Path, device: torch.device, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Logits of decoding steps as CUDA graphs beside plain steps; a shape is captured when it comes again."""
    model = load_policy(str(folder / "model"), trainable=False).to(device, dtype)
    prompts = [item["prompt"] for item in items_of(folder)[:8]]
    plainly, replayed = (Decoder(model, [(8, 1024)]) for _ in range(2))
    replayed.shortcut = cuda_graphs.CudaGraphs(replayed)
    ids = [decoder.admit(0, prompts, 1).argmax(-1) for decoder in (plainly, replayed)]
    pairs = []
    for _ in range(12):
        logits = [decoder.step(token) for decoder, token in zip((plainly, replayed), ids, strict=True)]
        pairs.append((logits[1].clone(), logits[0].clone()))
        ids = [logits[0].argmax(-1)] * 2
    return pairs
