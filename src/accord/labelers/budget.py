"""What a run may spend on a server: calls, and money by the prices that its owner states."""

import threading
from dataclasses import dataclass

from accord.errors import Interrupted


class BudgetSpent(Interrupted):
    """The next call could go beyond the budget. What was answered is in the journal."""


@dataclass(frozen=True)
class Prices:
    """Of a million tokens that are sent, and of a million that are answered, in any currency."""

    sent: float = 0.0
    answered: float = 0.0

    def of(self, sent: int, answered: int) -> float:
        return (sent * self.sent + answered * self.answered) / 1e6


class Budget:
    """At most so many calls, failed ones too, and so much money; 0 bounds neither. Threads may share one.

    A call is let through only if its dearest end is within the budget, given the dearest ends of those in flight: what
    is spent never exceeds it.
    """

    def __init__(self, max_calls: int, max_cost: float, prices: Prices, *, calls: int = 0, cost: float = 0.0) -> None:
        self.prices, self.calls, self.cost = prices, calls, cost
        self._max_calls, self._max_cost = max_calls, max_cost
        self._flying, self._held = 0, 0.0
        self._changed = threading.Condition()

    @property
    def counts_money(self) -> bool:
        return self._max_cost > 0

    def take(self, dearest: float) -> None:
        """Let a call go that costs at most this much; waits for those in flight where they may leave too little.

        Raises BudgetSpent.
        """
        with self._changed:
            if self._max_calls and self.calls >= self._max_calls:
                raise BudgetSpent(f"--max_calls {self._max_calls}: all are made; --resume with more of them goes on")
            while self._max_cost and self._flying and self.cost + self._held + dearest > self._max_cost:
                self._changed.wait()
            if self._max_cost and self.cost + dearest > self._max_cost:
                raise BudgetSpent(
                    f"--max_cost {self._max_cost:g}: {self.cost:.4g} is spent, and one more call may cost "
                    f"{dearest:.4g}; --resume with more goes on"
                )
            self.calls += 1
            self._flying += 1
            self._held += dearest

    def settle(self, dearest: float, cost: float) -> None:
        """A call has ended that was let go at `dearest`, and cost this much."""
        with self._changed:
            self._flying -= 1
            self._held = self._held - dearest if self._flying else 0.0
            self.cost += cost
            self._changed.notify_all()
