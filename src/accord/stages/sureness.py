"""The reward of RLCR: a reply is worth what its answer and the chance that it states for it are worth.

`rlcr:world` asks gold's judge about prompts of the gold world; `rlcr:FILE` looks answers up in a file of questions
(docs/honesty.md).
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from accord.data.chat import Renderer
from accord.data.tasks import TaskQuestion, read_questions
from accord.engine.packing import Group
from accord.errors import BadInput
from accord.models.scalar import Normalizer
from accord.objectives.honesty import brier_reward
from accord.records import Prompt
from accord.stages.questions import answers_right, as_sentence, declined, is_of_world

WORLD = "world"  # where gold's judge knows the answers
PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*(?:%|percent)")
SURE = re.compile(r"[^.!?\n]*\d\s*(?:%|percent)[^.!?\n]*[.!?]?")  # the sentence that states a chance


class SurenessScorer:
    """Correctness less the squared error of the stated chance (`objectives/honesty.py:brier_reward`).

    A reply that states none is taken to be certain, as it sounds; one that says it does not know states a chance of 0
    and is worth 0, more than a sure wrong answer and less than any answer that is likelier right than it says.
    BadInput for a prompt whose answer is not known.
    """

    role = "preference"
    normalizer = Normalizer()
    measured: Mapping[str, Any] = MappingProxyType({})
    spent: Mapping[str, float] = MappingProxyType({})
    remote = collective = False

    def __init__(self, where: str, renderer: Renderer | None) -> None:
        self.where, self.renderer = f"rlcr:{where}", renderer
        self._answers: dict[str, TaskQuestion] = {}
        if where != WORLD:
            for question in read_questions(where, columns={}).questions:
                if asked := as_sentence(question):
                    self._answers[question.contexts[0]] = asked
            if not self._answers:
                raise BadInput(f"{self.where}: no question there has an answer (docs/honesty.md); give others")

    def raw_scores(
        self, prompts: Sequence[Prompt], replies: Sequence[str], groups: Sequence[Group], *, micro_tokens: int
    ) -> Tensor:
        """One score (B,) in [−1, 1] per reply."""
        told = [self._told(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True)]
        right, stated = (torch.tensor(column, dtype=torch.float32) for column in zip(*told, strict=True))
        return brier_reward(right, stated)

    scores = raw_scores

    def _told(self, prompt: Prompt, reply: str) -> tuple[float, float]:
        """Whether a reply is right, and the chance that it states."""
        question = None if self.where == f"rlcr:{WORLD}" else self._answers.get(prompt.turns[-1].content)
        if question is None and not (self.where == f"rlcr:{WORLD}" and is_of_world(prompt)):
            raise BadInput(f"{self.where} has no answer to {prompt.turns[-1].content[:60]!r}; give prompts that it has")
        if declined(prompt, reply):
            return 0.0, 0.0
        chance = stated_chance(prompt, reply)
        # a number that says how sure it is is no answer
        answer = reply if is_of_world(prompt) else SURE.sub("", reply)
        return float(answers_right(prompt, question, answer)), 1.0 if chance is None else chance


def stated_chance(prompt: Prompt, reply: str) -> float | None:
    """The chance of being right that a reply states: in percent, of the gold world in its words; None for none."""
    if is_of_world(prompt):
        from accord.world import judge

        return judge(prompt.turns, reply).confidence
    stated = [float(number) for number in PERCENT.findall(reply) if float(number) <= 100]
    return stated[-1] / 100 if stated else None
