"""Chat as OpenAI's clients ask for it: what a request may say, and its answer, whole or in pieces as it is drawn."""

import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from accord.data.chat import Renderer
from accord.engine.decode.draw import SampleSettings
from accord.engine.decode.sampler import sample
from accord.errors import BadInput
from accord.models.places import most_positions
from accord.records import Turn

COLDEST = 1e-6  # temperature 0: so cold that the likeliest token is drawn


class TextPart(BaseModel):
    """A piece of a content; texts alone."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A turn as clients send it."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[TextPart]

    def turn(self) -> Turn:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Turn(self.role, text)


class StreamOptions(BaseModel):
    """What a stream ends with."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """What of the protocol is answered. What is not here, or has one value, is refused and not ignored."""

    model_config = ConfigDict(extra="forbid")
    messages: list[Message] = Field(min_length=1)
    model: str = ""
    max_tokens: int | None = Field(None, gt=0)
    max_completion_tokens: int | None = Field(None, gt=0)
    temperature: float = Field(1.0, ge=0, le=2)
    n: int = Field(1, ge=1, le=64)
    seed: int | None = None
    stop: str | list[str] = []
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: str = ""
    top_p: Literal[1] = 1
    presence_penalty: Literal[0] = 0
    frequency_penalty: Literal[0] = 0

    @property
    def stop_texts(self) -> list[str]:
        return [text for text in ([self.stop] if isinstance(self.stop, str) else self.stop) if text]


class Left(Exception):
    """Nobody waits for the rest of a reply."""


@dataclass(frozen=True)
class Watched(SampleSettings):
    """Settings that tell of every token as it is drawn."""

    heard: Callable[[int], None] = lambda token: None

    def tokens(self, logits: Tensor, streams: np.ndarray, step: int | np.ndarray) -> tuple[Tensor, Tensor]:
        drawn = super().tokens(logits, streams, step)
        self.heard(int(drawn[0][0]))
        return drawn


@dataclass
class Completion:
    """A reply as far as it is drawn."""

    text: str = ""
    finish: str = "length"
    tokens: int = 0


class Talker:
    """A policy that answers one request after the other."""

    def __init__(self, name: str, model: nn.Module, renderer: Renderer, *, max_new_tokens: int) -> None:
        self.name, self.model, self.renderer, self.max_new_tokens = name, model, renderer, max_new_tokens
        self._turn = threading.Lock()

    def complete(self, request: ChatRequest) -> dict[str, Any] | Iterator[str]:
        """The protocol's answer; with `stream`, its events. Raises BadInput for what cannot be answered."""
        prompt = self.renderer.prompt_ids([message.turn() for message in request.messages])
        room = most_positions(getattr(self.model, "config")) or 2**31  # noqa: B009 - nn.Module knows no config
        asked = request.max_completion_tokens or request.max_tokens
        longest = asked or min(self.max_new_tokens, room - len(prompt))
        if len(prompt) + longest > room or longest < 1:
            raise BadInput(f"the model reads {room} tokens: {len(prompt)} of the prompt and {asked or 1} are more")
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": self.name}
        seed = uuid.uuid4().int % 2**31 if request.seed is None else request.seed % 2**31

        def settings(k: int, heard: Callable[[int], None]) -> Watched:
            return Watched(
                n=1,
                temperature=request.temperature or COLDEST,
                max_new_tokens=longest,
                stop_ids=self.renderer.stops,
                seed=seed,
                numbers=[k],
                vocabulary=self.renderer.vocabulary,
                heard=heard,
            )

        if request.stream:
            if request.n > 1:
                raise BadInput("n: a stream has one reply")
            return self._events(head, prompt, request, settings)
        answers = []
        for k in range(request.n):
            answer = Completion()
            for _ in self._pieces(prompt, request.stop_texts, settings, answer, k):
                pass
            answers.append(answer)
        choices = [
            {"index": k, "message": {"role": "assistant", "content": answer.text}, "finish_reason": answer.finish}
            for k, answer in enumerate(answers)
        ]
        usage = usage_of(len(prompt), sum(answer.tokens for answer in answers))
        return {**head, "object": "chat.completion", "choices": choices, "usage": usage}

    def _events(
        self, head: dict[str, Any], prompt: tuple[int, ...], request: ChatRequest, settings: Callable[..., Watched]
    ) -> Iterator[str]:
        """The reply as server-sent events."""

        def event(delta: dict[str, str], finish: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            body = {**head, "object": "chat.completion.chunk", "choices": [choice]}
            return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"

        answer = Completion()
        yield event({"role": "assistant", "content": ""})
        for piece in self._pieces(prompt, request.stop_texts, settings, answer, 0):
            yield event({"content": piece})
        yield event({}, answer.finish)
        if request.stream_options.include_usage:
            body = {**head, "object": "chat.completion.chunk", "choices": []}
            yield f"data: {json.dumps({**body, 'usage': usage_of(len(prompt), answer.tokens)})}\n\n"
        yield "data: [DONE]\n\n"

    def _pieces(
        self,
        prompt: tuple[int, ...],
        stop_texts: list[str],
        settings: Callable[..., Watched],
        answer: Completion,
        k: int,
    ) -> Iterator[str]:
        """The text of reply `k` as it is drawn; `answer` has all of it in the end.

        It is drawn in another thread, which ends when a text of `stop_texts` is there or nobody asks for more.
        """
        drawn: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        left = threading.Event()

        def heard(token: int) -> None:
            if left.is_set():
                raise Left
            drawn.put(token)

        def draw() -> None:
            try:
                with self._turn:
                    sample(self.model, [prompt], settings(k, heard))
                drawn.put(None)
            except Left:
                pass
            except BaseException as error:  # told to the one who waits for the token
                drawn.put(error)

        threading.Thread(target=draw, daemon=True).start()
        ids: list[int] = []
        held = max((len(text) for text in stop_texts), default=1) - 1  # a stop text may have begun
        sent = 0
        try:
            while (token := drawn.get()) is not None:
                if isinstance(token, BaseException):
                    raise token
                ids.append(token)
                answer.tokens += 1
                text = self.renderer.text(ids)
                ends = [place for stop in stop_texts if (place := text.find(stop)) >= 0]
                answer.text = text[: min(ends)] if ends else text
                if ends or token in self.renderer.stops:
                    answer.finish = "stop"
                    break
                # a character may want more tokens yet
                ready = 0 if text.endswith("\ufffd") else len(text) - held
                if ready > sent:
                    yield text[sent:ready]
                    sent = ready
            if len(answer.text) > sent:
                yield answer.text[sent:]
        finally:
            left.set()


def usage_of(prompt: int, completion: int) -> dict[str, int]:
    """Tokens as the protocol counts them."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
