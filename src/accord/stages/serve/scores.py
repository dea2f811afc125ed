"""Scores over HTTP, as Accord's own stages read the model: `--rewards.NAME http://HOST:PORT/scores` takes them."""

import threading
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from accord.data.chat import Renderer
from accord.engine.texts import text_group
from accord.errors import BadInput
from accord.models.scalar import Scorer
from accord.records import Prompt
from accord.stages.serve.talk import Message


class ScoreRequest(BaseModel):
    """Conversations that end with a reply; `head` names the criterion of a model with several."""

    model_config = ConfigDict(extra="forbid")
    conversations: list[list[Message]] = Field(min_length=1)
    head: str = ""


class ServedScorer:
    """A preference or cost model that answers one request after the other."""

    def __init__(self, where: str, scorer: Scorer, renderer: Renderer, *, micro_tokens: int) -> None:
        self.where, self.scorer, self.renderer, self.micro_tokens = where, scorer, renderer, micro_tokens
        self._turn = threading.Lock()

    def score(self, request: ScoreRequest) -> dict[str, Any]:
        """`scores`: of a preference model normalised, of a cost model raw, because limits are on that; and `raw`."""
        groups = []
        for number, conversation in enumerate(request.conversations):
            *turns, reply = [message.turn() for message in conversation]
            if not turns or reply.role != "assistant":
                raise BadInput(f"conversations[{number}]: it must end with the assistant's reply to a turn")
            groups.append(text_group(self.renderer, Prompt(tuple(turns), "", ""), [reply.content]))
        with self._turn:
            scorer = self.scorer.reading(request.head)
            raw = scorer.raw_scores(groups, micro_tokens=self.micro_tokens)
        scores = raw if scorer.role == "cost" else scorer.normalizer(raw)
        return {"scores": scores.tolist(), "raw": raw.tolist(), "role": scorer.role, "head": ", ".join(scorer.read)}
