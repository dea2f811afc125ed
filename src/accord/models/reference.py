"""References: the frozen view that KL and log-ratios are measured to, token by token or summed over replies.

Sums of whole replies are what the direct family subtracts. They are computed once before training and kept under a
key of everything that decides them; or anew at every step from a frozen view; or are 0 where a loss has no reference.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from accord.disk import write_atomically
from accord.engine.forward.causal import hidden_states, logits_head, token_logprobs
from accord.engine.packing import Group, Packing, pack
from accord.objectives.implicit import sequence_logprobs
from accord.training.distributed import World
from accord.training.shards import in_step, local

ENTRY = 16  # bytes of the name of an entry
Parts = Sequence[Sequence[int]]
Logprobs = Callable[[Packing], Tensor]


class Reference:
    """The frozen view of single tokens: the policy with its adapter off, or a model of its own."""

    def __init__(self, policy: nn.Module, separate: nn.Module | None) -> None:
        self.separate = separate
        self._model = policy if separate is None else separate
        self._adapter_off = separate is None

    @torch.no_grad()
    def token_logprobs(self, packing: Packing, *, temperature: float = 1.0) -> Tensor:
        """Log-probs (R,) of the packing's targets under the reference."""
        with self._frozen():
            return token_logprobs(self._model, packing, temperature=temperature)

    @torch.no_grad()
    def logits(self, packing: Packing, *, temperature: float = 1.0) -> Tensor:
        """Logits / temperature (R, V) at the packing's rows."""
        with self._frozen():
            return logits_head(self._model, temperature=temperature)(hidden_states(self._model, packing))

    def _frozen(self) -> contextlib.AbstractContextManager[None]:
        return self._model.disable_adapter() if self._adapter_off else contextlib.nullcontext()  # type: ignore


@dataclass(frozen=True)
class ReplyReference:
    """log π_ref(y|x) of whole replies, by the number that a group has in its run.

    `kept[i]` (replies of group i,) was computed before training; without it `logprobs` is asked anew for a packing's
    tokens; without either everything is 0, for losses that have no reference.
    """

    kept: Sequence[Tensor] | None = None
    logprobs: Logprobs | None = None

    @torch.no_grad()
    def sums(self, numbers: Sequence[int], packing: Packing) -> Tensor:
        """(replies,) of a packing that packs the groups of these numbers."""
        if self.kept is not None:
            return torch.cat([self.kept[number] for number in numbers]).to(packing.ids.device)
        if self.logprobs is not None:
            return sequence_logprobs(self.logprobs(packing), packing.owner, packing.replies, "sum")
        return torch.zeros(packing.replies, device=packing.ids.device)

    def of(self, numbers: Sequence[int], groups: Sequence[Group], parts: Parts, world: World) -> list[Tensor]:
        """(replies,) of every group by itself, on the CPU and on every rank; `parts` as in `reply_sums`."""
        if self.kept is not None:
            return [self.kept[number] for number in numbers]
        if self.logprobs is not None:
            return reply_sums(self.logprobs, groups, parts, world)
        return [torch.zeros(len(group.replies)) for group in groups]


@torch.no_grad()
def follow(reference: nn.Module, policy: nn.Module, mix: float) -> None:
    """π_ref ← mix · π + (1 − mix) · π_ref over what is trained: TR-DPO, Gorbatovski et al. 2024 (arXiv:2404.09656)."""
    theirs = dict(reference.named_parameters())
    for name, parameter in policy.named_parameters():
        if parameter.requires_grad:
            local(theirs[name]).lerp_(local(parameter), mix)


@torch.no_grad()
def reply_sums(logprobs: Logprobs, groups: Sequence[Group], parts: Parts, world: World) -> list[Tensor]:
    """Summed log-probs (replies,) of every group's replies, on the CPU and on every rank.

    `logprobs` gives a packing's token log-probs; `parts` are micro-batches as indices of groups. A training step on the
    same micro-batch with the same weights has the same bits, so that rewards at the first step are exactly 0.
    """
    done: list[tuple[Sequence[int], list[Tensor]]] = []
    for own, counts in in_step(world.sharded, [list(part) for part in world.share(parts)], 0):
        packing = pack([groups[i] for i in own]).to(world.device)
        flat = sequence_logprobs(logprobs(packing), packing.owner, packing.replies, "sum").cpu()
        if counts:
            done.append((own, list(flat.split([len(groups[i].replies) for i in own]))))
    out: list[Tensor] = [torch.zeros(0)] * len(groups)
    for part, values in world.interleave(done):
        for i, value in zip(part, values, strict=True):
            out[i] = value
    return out


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and bytes of every weight, adapters included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class ReplyStore:
    """log π(y|x) of whole replies, kept in one file of `folder` for a model at a precision.

    The weights and the precision name the file; the tokens of prompt and reply name an entry, so data, tokenizer and
    chat template decide it. Nothing differs between ranks, and any run may add entries. Of two that write at once one
    loses what it added, which is then computed again.
    """

    def __init__(self, folder: Path, weights: str, precision: str) -> None:
        self.key = hashlib.sha256(json.dumps([weights, precision]).encode()).hexdigest()[:32]
        self.file = folder / f"{self.key}.safetensors"

    def read(self) -> dict[bytes, float]:
        """What is kept; nothing where there is no file, one of another key was put there, or it is broken."""
        with contextlib.suppress(OSError, ValueError, KeyError, SafetensorError):
            tensors = load(self.file.read_bytes())  # by its name it is opened twice, and may be replaced between
            names, sums = tensors[f"{self.key}.names"], tensors[f"{self.key}.sums"]
            if names.shape == (len(sums), ENTRY):
                flat = names.numpy().tobytes()
                starts = range(0, len(flat), ENTRY)
                return {flat[i : i + ENTRY]: value for i, value in zip(starts, sums.tolist(), strict=True)}
        return {}

    def add(self, found: Mapping[bytes, float]) -> None:
        """Keep these too."""
        entries = self.read() | dict(found)
        names = torch.frombuffer(bytearray(b"".join(entries)), dtype=torch.uint8).reshape(-1, ENTRY)
        tensors = {f"{self.key}.names": names, f"{self.key}.sums": torch.tensor(list(entries.values()))}
        content = save(tensors)
        write_atomically(self.file, lambda stream: stream.write(content))


def entry_names(groups: Sequence[Group]) -> list[list[bytes]]:
    """Of every reply of every group the name of its entry: a hash of the prompt's tokens and its own."""
    names = []
    for group in groups:
        prompt = hashlib.sha256(f"{tuple(group.prefix)}".encode())
        own = []
        for reply in group.replies:
            digest = prompt.copy()
            digest.update(f" {tuple(reply)}".encode())
            own.append(digest.digest()[:ENTRY])
        names.append(own)
    return names


def kept_sums(
    store: ReplyStore, groups: Sequence[Group], world: World, compute: Callable[[set[int]], list[Tensor]]
) -> list[Tensor]:
    """log π(y|x) (replies,) of every group, from the store or else computed and added to it; the same on every rank.

    `compute` is given the numbers of the groups that are missing and returns the sums of all groups, of which only
    theirs are used.
    """
    names = entry_names(groups)
    known = store.read()
    own = {i for i, replies in enumerate(names) if any(name not in known for name in replies)}
    missing = set().union(*world.gather(own))  # a rank that computes waits for the others
    if not missing:
        return [torch.tensor([known[name] for name in replies]) for replies in names]
    computed = compute(missing)
    values = [
        computed[i] if i in missing else torch.tensor([known[name] for name in replies])
        for i, replies in enumerate(names)
    ]
    if world.is_main:
        found = [(names[i], values[i].tolist()) for i in sorted(missing)]
        store.add({name: value for pair in found for name, value in zip(*pair, strict=True)})
    world.gather(None)
    return values
