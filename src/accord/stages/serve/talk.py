"""Chat as OpenAI's clients ask for it: what a request may say, and its answer, whole or in pieces as it is drawn."""

import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from accord.data.chat import Renderer
from accord.engine.decode.draw import SampleSettings
from accord.engine.decode.sampler import sample
from accord.engine.texts import TextStream, said, says
from accord.errors import BadInput
from accord.models.places import most_positions
from accord.records import Rollout, Turn

# of a reply's number and of what hears its ids as they are drawn
Settings = Callable[[int, Callable[[Sequence[int]], bool]], SampleSettings]


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

        def settings(k: int, hear: Callable[[Sequence[int]], bool]) -> SampleSettings:
            return SampleSettings(
                n=1,
                temperature=request.temperature,
                max_new_tokens=longest,
                stop_ids=self.renderer.stops,
                seed=seed,
                numbers=[k],
                vocabulary=self.renderer.vocabulary,
                ends=hear,
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
        self,
        head: dict[str, Any],
        prompt: tuple[int, ...],
        request: ChatRequest,
        settings: Settings,
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
        settings: Settings,
        answer: Completion,
        k: int,
    ) -> Iterator[str]:
        """The text of reply `k` as it is drawn; `answer` has all of it in the end.

        It is drawn in another thread, which ends when a text of `stop_texts` is there or nobody asks for more.
        """
        drawn: queue.SimpleQueue[Sequence[int] | Rollout | BaseException] = queue.SimpleQueue()
        left = threading.Event()

        def hear(ids: Sequence[int]) -> bool:
            if left.is_set():
                raise Left
            drawn.put(tuple(ids))
            return bool(stop_texts) and says(self.renderer, stop_texts, ids)

        def draw() -> None:
            try:
                with self._turn:
                    (rollout,) = sample(self.model, [prompt], settings(k, hear))
                drawn.put(rollout)
            except Left:
                pass
            except BaseException as error:  # told to the one who waits for the reply
                drawn.put(error)

        threading.Thread(target=draw, daemon=True).start()
        stream = TextStream(self.renderer, stop_texts)
        try:
            while not isinstance(heard := drawn.get(), Rollout):
                if isinstance(heard, BaseException):
                    raise heard
                if piece := stream.more(heard):
                    yield piece
            answer.text = said(self.renderer, stop_texts, heard.ids)
            answer.finish, answer.tokens = heard.finish, len(heard.ids)
            if piece := stream.rest(heard.ids):
                yield piece
        finally:
            left.set()


def usage_of(prompt: int, completion: int) -> dict[str, int]:
    """Tokens as the protocol counts them."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
