"""What has been done: `rounds.json`, the rounds with their steps, written whole before and after every step."""

from collections.abc import Mapping
from typing import Any, Literal

from accord.disk import read_json
from accord.run import RunFolder

FILE = "rounds.json"
State = Literal["running", "waiting", "done"]
Facts = dict[str, Any]


class Ledger:
    """The rounds of a run folder. A step that is done stays done, whenever the run goes on."""

    def __init__(self, run: RunFolder, head: Mapping[str, Any]) -> None:
        self._run = run
        stored = run.path / FILE
        self.rounds: list[Facts] = read_json(stored)["rounds"] if stored.is_file() else []
        self._head = dict(head)

    def begin(self, number: int, incumbent: str) -> Facts:
        """The round of a number, from 1; a new one has nothing done."""
        if len(self.rounds) < number:
            self.rounds.append({"round": number, "incumbent": incumbent, "steps": {}})
            self._write()
        return self.rounds[number - 1]

    def is_done(self, number: int, step: str) -> bool:
        """Whether a step has ended well."""
        return bool(self._step(number, step).get("state") == "done")

    def facts(self, number: int, step: str) -> Facts:
        """What a step has left to those after it."""
        return dict(self._step(number, step))

    def set(self, number: int, step: str, state: State, **facts: Any) -> None:
        """Write the state of a step; `ended` counts how often it was done, which is once."""
        before = self._step(number, step).get("ended", 0)
        self.rounds[number - 1]["steps"][step] = {"state": state, "ended": before + (state == "done"), **facts}
        self._write()

    def decide(self, number: int, decision: Mapping[str, Any]) -> None:
        """Keep why a round's candidate was promoted or refused."""
        self.rounds[number - 1]["decision"] = dict(decision)
        self._write()

    def _step(self, number: int, step: str) -> Facts:
        found: Facts = self.rounds[number - 1]["steps"].get(step, {})
        return found

    def _write(self) -> None:
        self._run.write_json(FILE, {**self._head, "rounds": self.rounds})
