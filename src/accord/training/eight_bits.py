"""AdamW whose two moments take a byte a number (`--optimizer_bits 8`): bitsandbytes' (Dettmers et al. 2022).

Blocks of 256 numbers have a scale of their own, and a byte names one of 256 shares of it, finer towards zero. A step
makes f32 of them, updates as AdamW does, and rounds again. Tensors of less than 4,096 numbers keep f32.
"""

from typing import Any

import torch
from bitsandbytes.optim import AdamW8bit

STEP = "step"  # an int in bitsandbytes, a tensor in a checkpoint


class AdamW8(AdamW8bit):
    """The same with its states flat, as those of every other optimizer, so that a checkpoint holds them by name."""

    def state_dict(self) -> dict[str, Any]:
        return torch.optim.Optimizer.state_dict(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for slots in self.state.values():
            slots[STEP] = int(slots[STEP])
