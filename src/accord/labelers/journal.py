"""Every call to a labeler, kept before its answer is used: nothing is asked twice, and a crash loses nothing."""

import json
import os
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from accord.errors import BadInput

SPENT = ("questions", "calls", "cost")


class Journal:
    """JSON lines, found again by their `id`. `add` returns once its row lies on the disk; threads may share one.

    What a killed process left of a last line is cut off. Raises BadInput for any other line that is broken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, dict[str, Any]] = {}
        self._spent: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(SPENT, 0.0))
        if path.exists():
            self._read()
        self._stream: IO[bytes] | None = None  # opened by the first row: a run that asks nothing leaves no file
        self._written = self._synced = 0
        self._writing, self._syncing = threading.Lock(), threading.Lock()

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self._rows[name]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every row, in the order in which they were added."""
        return list(self._rows.values())

    def spent(self, key: str) -> dict[str, float]:
        """Questions that the labeler of this key has answered, calls to it and their cost, over all of its rows."""
        return dict(self._spent[key])

    def add(self, *rows: Mapping[str, Any]) -> None:
        """Append rows and wait until they are on the disk; those of other threads are synced along with them."""
        data = b"".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n" for row in rows)
        with self._writing:
            self._stream = self._stream or open(self.path, "ab")  # noqa: SIM115, closed by `close`
            self._stream.write(data)
            self._stream.flush()
            self._written += 1
            mine = self._written
        with self._syncing:
            if self._synced < mine:
                reached = self._written
                os.fsync(self._stream.fileno())
                self._synced = reached
        with self._writing:
            for row in rows:
                self._keep(dict(row))

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self) -> None:
        with open(self.path, "r+b") as stream:
            whole = 0
            for number, line in enumerate(stream, 1):
                if not line.endswith(b"\n"):
                    stream.truncate(whole)
                    break
                self._keep(self._parsed(number, line))
                whole += len(line)

    def _keep(self, row: dict[str, Any]) -> None:
        self._count(self._rows.get(row["id"], {}), -1)
        self._rows[row["id"]] = row
        self._count(row, 1)

    def _count(self, row: Mapping[str, Any], sign: int) -> None:
        sums = self._spent[row.get("key", "")]
        sums["questions"] += sign * ("probabilities" in row)
        for what in ("calls", "cost"):
            sums[what] += sign * row.get(what, 0)

    def _parsed(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
            if not isinstance(row["id"], str):
                raise ValueError("its id is no text")
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{self.path}:{number}: no row of a journal ({error}); delete the line") from None
        return dict(row)
