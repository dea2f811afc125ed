"""P(IK) heads: a scalar read at a prompt's last token, whose σ is the chance that the model knows the answer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from accord.engine.packing import Group, cut_by_tokens, pack, reply_group
from accord.models.scalar import values


def prompt_group(ids: Sequence[int]) -> Group:
    """A prompt as what is read at its last token."""
    return reply_group(ids[:-1], ids[-1:])


@torch.no_grad()
def prompt_logits(model: nn.Module, groups: Sequence[Group], micro_tokens: int, device: torch.device) -> Tensor:
    """The head (N,) at the last token of every prompt, on the CPU; groups are those of `prompt_group`."""
    parts = cut_by_tokens(groups, lambda group: group.tokens, micro_tokens)
    found = [values(model, pack(part, rows="last").to(device)).cpu() for part in parts]
    return torch.cat(found) if found else torch.zeros(0)
