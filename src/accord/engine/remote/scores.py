"""Scores of conversations from a server over HTTP: `accord serve` of a preference or cost model, or any other.

GET  URL   what it is (`About`); a server that does not say so is asked all the same
POST URL   {"conversations": [[{"role", "content"}, …], …]} → {"scores": […]}
           one that says what it is also takes {"groups": [{"prefix", "replies"}, …]} in token ids, and with
           conversations which replies have `ended`, and answers {"raw": […]} too
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from accord.engine.remote.fleet import ServerAway
from accord.engine.remote.http import LOCAL, CallFailed, call_json
from accord.errors import BadInput

TIMEOUT = 300.0  # seconds for one request
WELL = 10.0  # seconds that a server may take to say what it is
AWAY = (0, 502, 503, 504)  # statuses of a server that is not there, or does not serve yet
KEY = "ACCORD_SCORES_KEY"  # environment variable whose value is sent as a bearer token


class ScoresRefused(RuntimeError):
    """A server refuses a request, or answers what is no score: asking again would not help."""


@dataclass(frozen=True)
class About:
    """What a server says that it is: key of its `snapshot` (`lineage.model_key`), role, hash of tokenizer and template.

    `readings` has for every criterion that can be read its `normalizer` and what was `measured` of it; "" is read
    whatever the criterion's name.
    """

    snapshot: str
    role: str
    tokenizer: str
    readings: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class ScoreServer:
    """A server at an address. BadInput for one that holds a key, or to which a key would travel readable."""

    url: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if not parts.hostname:
            raise BadInput(f"{self.url!r} is no address; write http://HOST:PORT/scores")
        if parts.username or parts.password:
            raise BadInput(f"{parts.scheme}://{parts.hostname}: an address holds no key; put it into {KEY}")
        if os.environ.get(KEY) and parts.scheme == "http" and parts.hostname not in LOCAL:
            raise BadInput(f"{self.url}: {KEY} would travel readable by anyone; use https, or unset it")

    def about(self) -> About | None:
        """What it says that it is; None of one that does not. Raises ServerAway where there is no answer."""
        try:
            told = self._call(None, WELL)
        except CallFailed as error:
            if error.status in AWAY:
                raise self._away(error) from None
            if error.status in (401, 403):
                raise BadInput(f"{self.url} {error}; put its key into {KEY}") from None
            return None
        fields = ("snapshot", "role", "tokenizer", "readings")
        if not isinstance(told, dict) or not all(name in told for name in fields):
            return None
        return About(*(told[name] for name in fields))

    def ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Its answer; ServerAway where a later try may get one, ScoresRefused where none will."""
        try:
            answer = self._call(body, TIMEOUT)
        except CallFailed as error:
            if error.passing:
                raise self._away(error) from None
            raise ScoresRefused(f"{self.url} {error}") from None
        if not isinstance(answer, dict) or "scores" not in answer:
            raise ScoresRefused(f"{self.url} answered no JSON object with scores: {str(answer)[:80]}")
        return answer

    def is_well(self) -> bool:
        """Whether it answers at all."""
        try:
            self._call(None, WELL)
        except CallFailed as error:
            return error.status not in AWAY
        return True

    def _call(self, body: Mapping[str, Any] | None, timeout: float) -> Any:
        key = os.environ.get(KEY)
        return call_json(self.url, body, timeout=timeout, headers={"Authorization": f"Bearer {key}"} if key else {})

    def _away(self, error: CallFailed) -> ServerAway:
        hint = "" if error.status else "; is the server running?"
        return ServerAway(f"{self.url} {error}{hint}", error.status, error.pause)
