"""A labeler behind HTTP: a row of the journal for every question, and many calls in flight."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from accord.engine.remote.http import CallFailed
from accord.errors import BadInput, Interrupted
from accord.labelers.budget import BudgetSpent
from accord.labelers.endpoint import Caller, Spent
from accord.labelers.journal import Journal
from accord.labelers.labeler import Draft, Writing, answer_of, draft_of, label_id, label_row, text_id, text_row, told_by
from accord.labelers.questions import Distribution, Method, Question
from accord.labelers.wires import Beside, Unsupported
from accord.records import Turn

REFUSED = (400, 413, 422)  # the question may be to blame; any other status that lasts is the server's
MISDIRECTED = (401, 402, 403, 404, 405)

Item = TypeVar("Item")


class ServerLost(Interrupted):
    """A server does not answer any more. What it has answered is in the journal."""


class RemoteLabeler:
    """The model of an endpoint."""

    def __init__(self, caller: Caller, journal: Journal) -> None:
        self.name = self.key = caller.endpoint.model.replace(":", "-")
        self._caller, self._journal, self._where = caller, journal, caller.endpoint.url
        self._ways, self._writes = caller.wire.ways, caller.wire.write
        self._without: set[Method] = set(journal["ways"]["without"]) if "ways" in journal else set()
        self._lock = threading.Lock()

    def ask(self, questions: Sequence[Question]) -> list[Distribution]:
        """An answer to every question, each asked once; none where the server refuses it or answers beside it.

        Raises ServerLost, BudgetSpent, and BadInput where the server refuses all.
        """
        names = [label_id(self, question) for question in questions]
        waiting = {n: q for n, q in zip(names, questions, strict=True) if n not in self._journal}
        self._each(list(waiting.items()), lambda item: self._label(*item))
        answers = [answer_of(self._journal[name]) for name in names]
        if answers and not any(answer.probabilities for answer in answers):
            raise BadInput(f"{self._where}: none of {len(answers)} questions was answered ({answers[0].why})")
        return answers

    def write(self, prompts: Sequence[Sequence[Turn]], how: Writing) -> list[Draft]:
        """A text to every prompt, each drawn once. Raises as `ask` does."""
        if self._writes is None or how.plain:
            what = "goes on with no text; name a policy" if how.plain else "writes no texts; name a chat model"
            raise BadInput(f"{self._where}: this protocol {what}")
        numbers = range(len(prompts)) if how.numbers is None else how.numbers
        waiting, names = {}, []
        for turns, number in zip(prompts, numbers, strict=True):
            names.append(text_id(self, turns, how, number))
            if names[-1] not in self._journal:
                waiting[names[-1]] = turns, Writing(how.max_new_tokens, how.temperature, how.seed + number)
        self._each(list(waiting.items()), lambda item: self._text(item[0], *item[1]))
        return [draft_of(self._journal[name]) for name in names]

    def _each(self, items: list[Item], do: Callable[[Item], None]) -> None:
        """Do it for each, many at once; the first goes alone, and shows what the server can."""
        if not items:
            return
        do(items[0])
        pool = ThreadPoolExecutor(self._caller.endpoint.at_once)
        try:
            for _ in pool.map(do, items[1:]):
                pass
        finally:
            pool.shutdown(cancel_futures=True)

    def _label(self, name: str, question: Question) -> None:
        """By the first of the protocol's ways that gives an answer."""
        answer, unknown, reason = Distribution((), list(self._ways)[-1]), [], ""
        with self._kept(name) as spent:
            for method in [method for method in self._ways if method not in self._without]:
                try:
                    answer = Distribution(self._ways[method](self._caller.post(spent), question), method)
                    break
                except Beside as error:
                    answer = Distribution((), method, f"the server {error}")
                except (Unsupported, CallFailed) as error:
                    if isinstance(error, CallFailed) and error.status not in REFUSED:
                        raise
                    answer, reason = Distribution((), method, f"the server {error}"), str(error)
                    unknown.append(method)
        if answer.probabilities and unknown:
            self._forgo(unknown, reason)
        self._journal.add(label_row(name, self, answer, **spent.json()))

    def _text(self, name: str, turns: Sequence[Turn], how: Writing) -> None:
        assert self._writes is not None  # `write` has refused it
        with self._kept(name) as spent:
            draft = self._writes(self._caller.post(spent), turns, how, 1)[0]
        self._journal.add(text_row(name, self, draft, **spent.json()))

    @contextmanager
    def _kept(self, name: str) -> Iterator[Spent]:
        """What the calls for one question take, kept also where they fail for good."""
        spent = Spent()
        try:
            yield spent
        except CallFailed as error:
            if 300 <= error.status < 400 or error.status in MISDIRECTED:
                hint = "redirects are not followed" if error.status < 400 else "is it the right address, model and key?"
                raise BadInput(f"{self._where}: the server {error}; {hint}") from None
            self._lose(name, spent, error)
            raise ServerLost(
                f"{self._where}: the server {error} (after {spent.calls} calls for one question, as many as --attempts "
                "and --timeout let it have); what was answered is kept, and --resume goes on"
            ) from None
        except BudgetSpent as error:
            self._lose(name, spent, error)
            raise

    def _lose(self, name: str, spent: Spent, error: Exception) -> None:
        if spent.calls:
            told = {**told_by(self), "failed": str(error), **spent.json()}
            self._journal.add({"id": f"failed {name} {time.time_ns()}", **told})

    def _forgo(self, methods: Sequence[Method], why: str) -> None:
        """Remember which ways the server does not know, and say so."""
        with self._lock:
            new = [method for method in methods if method not in self._without]
            if not new:
                return
            self._without |= set(new)
            without = sorted(self._without)
        print(f"note: {self._where} is not asked for {' and '.join(new)} any more: it {why}")
        self._journal.add({"id": "ways", "without": without})
