"""Chat: a terminal conversation with a snapshot."""

import sys

from accord.engine.decode.sampler import sample
from accord.models.loading import load_policy
from accord.models.tokenizer import load_renderer
from accord.records import Turn
from accord.stages.chat.config import Chat
from accord.stages.shared import sample_settings


def run(config: Chat) -> None:
    """Read lines from the terminal until an empty one or end of input; `/reset` forgets the conversation."""
    renderer = load_renderer(config.snapshot)
    model = load_policy(config.snapshot, trainable=False)
    start = [Turn("system", config.system)] if config.system else []
    turns = list(start)
    if sys.stdin.isatty():
        print("empty line: leave · /reset: start again")
    for number in range(sys.maxsize):
        try:
            line = input("you: " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if not line:
            return
        if line == "/reset":
            turns = list(start)
            continue
        turns.append(Turn("user", line))
        settings = sample_settings(config, renderer, 1, config.seed + number)
        (rollout,) = sample(model, [renderer.prompt_ids(turns)], settings)
        reply = renderer.text(rollout.ids)
        print(f"assistant: {reply}")
        turns.append(Turn("assistant", reply))
