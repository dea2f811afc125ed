"""Progress on the terminal: the step, a few numbers, the rate and the time left."""

import sys
import time
from collections.abc import Mapping


class Progress:
    """Prints at most one line every `interval` seconds, and the last step always."""

    def __init__(
        self,
        what: str,
        steps: int,
        *,
        unit: str = "step",
        first: int = 0,
        interval: float = 5.0,
        quiet: bool = False,
    ) -> None:
        self.what, self.unit = what, unit
        self.first, self.steps = first, steps
        self.interval, self.quiet = interval, quiet
        self.started = time.monotonic()
        self.printed = self.started

    def update(self, step: int, numbers: Mapping[str, float]) -> None:
        """`step` steps are done; `numbers` are shown beside them."""
        now = time.monotonic()
        if self.quiet or (now - self.printed < self.interval and step < self.steps):
            return
        self.printed = now
        rate = max(step - self.first, 1) / max(now - self.started, 1e-9)
        left = (self.steps - step) / rate
        shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        print(
            f"{self.what}: {self.unit} {step}/{self.steps}  {shown}  {rate:.2f}/s, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
