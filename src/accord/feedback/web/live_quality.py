"""Quality while people answer: the numbers of the newest answers, not more often than the server can bear."""

import threading
import time
from typing import Any

from accord.feedback.store.desk import Desk
from accord.feedback.store.events import last_event
from accord.feedback.store.quality import quality

NEWEST = 2000  # answers that the page looks at; `accord collect quality` looks at all
RESAMPLES = 100
LASTS = 60.0  # seconds


class LiveQuality:
    """The numbers of a desk, kept for a minute; one thread computes them, others wait for it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self._found: Any = None
        self._until = 0.0

    def now(self) -> Any:
        """As `quality` gives them."""
        with self._lock:
            if time.monotonic() >= self._until:
                with self._desk.database.read() as connection:
                    self._found = quality(connection, last_event(connection), newest=NEWEST, resamples=RESAMPLES)
                self._until = time.monotonic() + LASTS
            return self._found
