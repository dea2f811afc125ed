"""Scores over HTTP, as Accord's own stages read the model: `--rewards.NAME http://HOST:PORT/scores` takes them."""

import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from accord.data.chat import Renderer
from accord.engine.packing import Group, reply_group
from accord.engine.remote.scores import About
from accord.errors import BadInput
from accord.lineage import model_key
from accord.models.scalar import Scorer
from accord.records import Turn
from accord.stages.serve.talk import Message


class IdGroup(BaseModel):
    """A prompt and replies to it in token ids; they share its tokens."""

    model_config = ConfigDict(extra="forbid")
    prefix: list[int] = Field(min_length=1)
    replies: list[list[int]] = Field(min_length=1)


class ScoreRequest(BaseModel):
    """Conversations that end with a reply, or groups of ids; `head` names the criterion of a model with several.

    Of conversations `ended` says which replies are whole; one that is not is read at its last token.
    """

    model_config = ConfigDict(extra="forbid")
    conversations: list[list[Message]] = []
    ended: list[bool] = []
    groups: list[IdGroup] = []
    head: str = ""


class ServedScorer:
    """A preference or cost model that answers one request after the other."""

    def __init__(self, where: str, scorer: Scorer, renderer: Renderer, *, micro_tokens: int) -> None:
        self.where, self.scorer, self.renderer, self.micro_tokens = where, scorer, renderer, micro_tokens
        self._turn = threading.Lock()
        self._about = About(model_key(where), scorer.role, renderer.identity, readings_of(scorer))

    def about(self) -> dict[str, Any]:
        """What this is, by which one who asks can tell that it is what was meant."""
        return asdict(self._about)

    def score(self, request: ScoreRequest) -> dict[str, Any]:
        """`scores`: of a preference model normalised, of a cost model raw, because limits are on that; and `raw`."""
        if bool(request.conversations) == bool(request.groups):
            raise BadInput("give conversations, or groups of token ids; one of them, and not none")
        groups = self._groups(request.groups) if request.groups else self._texts(request.conversations, request.ended)
        with self._turn:
            scorer = self.scorer.reading(request.head)
            raw = scorer.raw_scores(groups, micro_tokens=self.micro_tokens)
        scores = raw if scorer.role == "cost" else scorer.normalizer(raw)
        return {"scores": scores.tolist(), "raw": raw.tolist(), "role": scorer.role, "head": ", ".join(scorer.read)}

    def _groups(self, asked: Sequence[IdGroup]) -> list[Group]:
        for number, group in enumerate(asked):
            for ids in (group.prefix, *group.replies):
                if not ids or not self.renderer.vocabulary.issuperset(ids):
                    raise BadInput(f"groups[{number}]: no ids, or one that the tokenizer of {self.where} has not")
        return [reply_group(group.prefix, *group.replies) for group in asked]

    def _texts(self, conversations: Sequence[Sequence[Message]], ended: Sequence[bool]) -> list[Group]:
        if ended and len(ended) != len(conversations):
            raise BadInput(f"ended: {len(ended)} for {len(conversations)} conversations")
        groups = []
        for number, conversation in enumerate(conversations):
            *turns, reply = [message.turn() for message in conversation] or [Turn("user", "")]
            if not turns or reply.role != "assistant":
                raise BadInput(f"conversations[{number}]: it must end with the assistant's reply to a turn")
            ids = self.renderer.reply_ids(reply.content, turns)
            whole = not ended or ended[number]
            groups.append(reply_group(self.renderer.prompt_ids(turns), ids if whole else ids[:-1]))
        return groups


def readings_of(scorer: Scorer) -> dict[str, dict[str, Any]]:
    """Every criterion that can be read, its normaliser and what was measured of it; "" where none need be named."""
    any_name = len(scorer.heads) == 1 or "groups" in scorer.description
    found = {}
    for head in [""] if any_name else scorer.heads:
        reading = scorer.reading(head)
        kept = {key: reading.measured[key] for key in ("deviation", "calibration") if key in reading.measured}
        found[head] = {"normalizer": reading.normalizer.as_json(), "measured": kept}
    return found
