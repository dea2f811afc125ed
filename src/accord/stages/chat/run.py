"""Chat: a terminal conversation with a snapshot, whose replies appear as they are drawn."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from accord.config import Decoding
from accord.data.chat import Renderer
from accord.engine.decode.sampler import sample
from accord.engine.forward.adapters import bare
from accord.engine.texts import TextStream, said
from accord.models.loading import load_policy
from accord.models.tokenizer import load_renderer
from accord.records import Turn, as_messages
from accord.stages.chat.config import Chat
from accord.stages.shared import sample_settings
from accord.training import distributed
from accord.training.precision import choose_precision, lowered

LONGEST = 512  # tokens of a reply where neither a flag nor the model says
HELP = "empty line: leave · /reset: start again · /undo: take the last turn back · /system TEXT · /save FILE.jsonl"


def run(config: Chat) -> None:
    """Read lines from the terminal until an empty one or end of input; those that begin with / are commands."""
    world = distributed.start(torch.get_num_threads())
    talk = Conversation(config, load_renderer(config.snapshot), load_policy(config.snapshot, trainable=False))
    talk.model.to(world.device)
    precision = choose_precision(world) if config.precision == "auto" else config.precision
    if sys.stdin.isatty():
        print(HELP)
    while True:
        try:
            line = input("you: " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if not line:
            return
        if line.startswith("/"):
            talk.command(*line[1:].partition(" ")[::2])
            continue
        with lowered(precision, world.device):
            talk.answer(line)


@dataclass
class Conversation:
    """The turns so far, and who answers; `drawn` counts replies, each of which has random numbers of its own."""

    config: Chat
    renderer: Renderer
    model: nn.Module
    drawn: int = 0

    def __post_init__(self) -> None:
        self.turns: list[Turn] = []
        self.system = self.config.system
        self.decoding = decoding_of(self.config, getattr(bare(self.model), "generation_config", None))
        self.restart()

    def restart(self) -> None:
        self.turns = [Turn("system", self.system)] if self.system else []

    def command(self, name: str, rest: str) -> None:
        """`/reset`, `/undo`, `/system TEXT`, `/save FILE`; another name is answered with these."""
        commands: dict[str, Callable[[str], None]] = {
            "reset": lambda _: self.restart(),
            "undo": lambda _: self.undo(),
            "system": self.change_system,
            "save": self.save,
        }
        if name not in commands:
            print(HELP)
            return
        commands[name](rest.strip())

    def undo(self) -> None:
        """Forget the last thing said and its answer."""
        if self.turns and self.turns[-1].role == "assistant":
            del self.turns[-2:]
        else:
            print("nothing to take back")

    def change_system(self, text: str) -> None:
        """Another system turn, or none, and from the start."""
        self.system = text
        self.restart()

    def save(self, where: str) -> None:
        """Write the conversation as one row of messages, which every stage reads as a demonstration."""
        if not where:
            print("/save needs a file: /save talk.jsonl")
            return
        row = {"messages": as_messages(self.turns)}
        try:
            with open(where, "a", encoding="utf-8", newline="\n") as stream:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            print(f"{where}: not saved ({error.strerror})")
            return
        print(f"saved to {where}")

    def answer(self, text: str) -> None:
        """Draw the reply to another user turn, and show it as it comes."""
        self.turns.append(Turn("user", text))
        prompt = self.renderer.prompt_ids(self.turns)
        settings = sample_settings(self.decoding, self.renderer, 1, self.config.seed + self.drawn)
        print("assistant: ", end="", flush=True)
        stream = TextStream(self.renderer, self.decoding.stop)

        def hear(ids: Sequence[int]) -> bool:
            if piece := stream.more(ids):
                print(piece, end="", flush=True)
            return settings.stopped(ids)

        (rollout,) = sample(self.model, [prompt], replace(settings, ends=hear))
        print(stream.rest(rollout.ids), flush=True)
        self.drawn += 1
        self.turns.append(Turn("assistant", said(self.renderer, self.decoding.stop, rollout.ids)))


def decoding_of(config: Chat, wished: Any) -> Decoding:
    """The flags; what they leave open as the model's generation config `wished` has it, as `generate` would read it.

    A config that does not ask for sampling is greedy, unless a flag asks.
    """
    flags = {knob: getattr(config, knob) for knob in ("temperature", "top_p", "top_k", "min_p", "max_new_tokens")}
    given = {knob: value for knob, value in flags.items() if value is not None}
    sampling = bool(getattr(wished, "do_sample", False))
    theirs = {knob: getattr(wished, knob, None) for knob in flags} if sampling else {"temperature": None}
    asked = {knob: value for knob, value in theirs.items() if value is not None}
    if not sampling and not given.keys() - {"max_new_tokens"}:
        asked["temperature"] = 0.0
    longest = getattr(wished, "max_new_tokens", None) or LONGEST
    return Decoding(**{"max_new_tokens": longest, **asked, **given, "stop": config.stop})
