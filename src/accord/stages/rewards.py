"""Rewards by name, those that are no model with a head among them: SCHEME:WHERE, by the table `OPEN`.

A scheme opens a `ReplyScorer` (`accord.models.scorers`): it sees prompts and replies as text and gives a number each,
higher is better. What it asks of others goes by way of the run's journal, so that a resumed run asks nothing twice.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from accord.config import Asking, Labeling, is_server, scheme_of
from accord.data.chat import Renderer
from accord.engine.packing import Group
from accord.errors import BadInput
from accord.labelers.backends import Labelers
from accord.labelers.constitution_file import asked_by, read_constitution
from accord.labelers.journal import Journal
from accord.labelers.labeler import Labeler
from accord.labelers.scores import Scores, principles_of, score_replies
from accord.labelers.trust import measured, read_calibration
from accord.models.scalar import Normalizer
from accord.models.scorers import ReplyScorer, open_scorer
from accord.models.text_scorers import ScorerFailed
from accord.records import Prompt
from accord.run import RunFolder
from accord.stages.sureness import SurenessScorer
from accord.training.distributed import World


class Setting:
    """What rewards of a run are opened with: its journal, the policy's renderer, how labelers are asked."""

    def __init__(self, run: RunFolder, world: World, renderer: Renderer | None, asking: Asking, on: str = "") -> None:
        self.world, self.renderer, self.on = world, renderer, on
        self.asking, self.seed = asking, int(run.config.seed)
        self.journal = Journal(run.path / "journal.jsonl")
        self._labelers: Labelers | None = None
        self._named: dict[str, str] = {}
        self._by_itself: Setting | None = None

    def alone(self) -> "Setting":
        """The same for this process by itself, as if there were no other; labelers of both have one budget."""
        self._by_itself = self._by_itself or copy.copy(self)
        self._by_itself.world = replace(self.world, rank=0, size=1, sharded=False)
        return self._by_itself

    def labeler(self, where: str) -> Labeler:
        """The labeler that `where` names; all of a run have one budget."""
        if self.world.size > 1:
            raise BadInput(f"labeler {where}: one process asks a labeler here; run without torchrun")
        self._labelers = self._labelers or Labelers(self.asking, self.world, self.journal)
        labeler = self._labelers.named(where)
        if is_server(where) and self._named.setdefault(labeler.key, where) != where:
            raise BadInput(
                f"labeler {where}: its answers would be journalled as those of {self._named[labeler.key]}, which has "
                "the same name; serve it under another"
            )
        return labeler


def open_rewards(named: Mapping[str, str], setting: Setting) -> dict[str, ReplyScorer]:
    """Every scorer that `--rewards.NAME` or the like names. Raises BadInput where there is none."""
    found: dict[str, ReplyScorer] = {}
    for name, where in named.items():
        if scheme := scheme_of(where):
            found[name] = OPEN[scheme](where.partition(":")[2], setting)
        else:
            device = setting.world.device
            found[name] = open_scorer(where, "preference", setting.renderer, device, name, on=setting.on)
    return found


def parents_of(rewards: Mapping[str, str], labeling: Labeling) -> dict[str, str]:
    """Names of roles → what stands behind rewards that are asked: labelers, and what was measured of them."""
    behind = {
        f"model.{name}": where.partition(":")[2] for name, where in rewards.items() if scheme_of(where) == "labeler"
    }
    return behind | ({"calibration": labeling.calibration} if labeling.calibration else {})


class LabelerScorer:
    """A labeler that is asked one typed question about each reply under drawn principles (Lee et al. 2023, d-RLAIF).

    The score is the expected answer on [−1, 1], a mean over the principles; with a calibration it is divided by the
    temperature that was measured, and in logits as a preference model's. Raises ScorerFailed for a reply about which
    no question is answered, BadInput for a labeler or a constitution that does not do.
    """

    role = "preference"
    normalizer = Normalizer()
    measured: Mapping[str, Any] = MappingProxyType({})
    collective = False

    def __init__(self, where: str, setting: Setting) -> None:
        how = setting.asking
        assert isinstance(how, Labeling)  # the stages that open one have its knobs
        self._how, self._seed, self._journal = how, setting.seed, setting.journal
        self._constitution = read_constitution(self._how.constitution)
        if not self._constitution.scoring(self._how.tags):
            tagged = f" with a tag of {', '.join(self._how.tags)}" if self._how.tags else ""
            raise BadInput(f"constitution {self._how.constitution}: no principle{tagged} has a text; add one")
        self._labeler = setting.labeler(where)
        asked = asked_by(self._labeler, self._constitution, how.question, how.tags, how.ensemble)
        self._maps = read_calibration(how.calibration, asked)
        self.where, self.remote = f"labeler:{where}", is_server(where)
        self.renderer = setting.renderer

    def raw_scores(
        self, prompts: Sequence[Prompt], replies: Sequence[str], groups: Sequence[Group], *, micro_tokens: int
    ) -> Tensor:
        """One score (B,) per reply."""
        told = self.told(prompts, replies)
        found = []
        for value, method in zip(told.values, told.methods, strict=True):
            if value is None:
                why = ", ".join(f"{count} {reason}" for reason, count in told.why.items())
                raise ScorerFailed(f"{self.where} gave no answer about a reply ({why})")
            found.append(measured(value, method, self._maps))
        return torch.tensor(found, dtype=torch.float32)

    scores = raw_scores

    def told(self, prompts: Sequence[Prompt], replies: Sequence[str]) -> Scores:
        """The scores before any calibration, and why some are missing."""
        how, constitution = self._how, self._constitution
        asked = [
            (prompt, reply, principles_of(constitution, prompt, how.tags, how.ensemble, self._seed))
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
        return score_replies(self._labeler, constitution, how.question, asked)

    @property
    def spent(self) -> Mapping[str, float]:
        """Questions that were answered, calls, cost: of this run so far, of whoever has this key."""
        return self._journal.spent(self._labeler.key)


class OneRankAsks:
    """A labeler as a reward of several ranks: the first asks about all replies, and alone has a labeler and a journal.

    Every rank is told its scores, what was spent, and what was raised.
    """

    role = "preference"
    normalizer = Normalizer()
    measured: Mapping[str, Any] = MappingProxyType({})
    remote, collective = False, True

    def __init__(self, where: str, setting: Setting) -> None:
        self.where, self.renderer = f"labeler:{where}", setting.renderer
        self.spent: Mapping[str, float] = MappingProxyType({})
        self._world = setting.world
        self._scorer = LabelerScorer(where, setting.alone()) if setting.world.is_main else None

    def raw_scores(
        self, prompts: Sequence[Prompt], replies: Sequence[str], groups: Sequence[Group], *, micro_tokens: int
    ) -> Tensor:
        """One score (B,) per reply of this rank; every rank calls it."""

        def ask(ranks: list[tuple[list[Prompt], list[str]]]) -> list[tuple[Tensor, Mapping[str, float]]]:
            assert self._scorer is not None  # the first rank has it
            everything = (
                [prompt for some, _ in ranks for prompt in some],
                [reply for _, some in ranks for reply in some],
            )
            scores = self._scorer.raw_scores(*everything, [], micro_tokens=micro_tokens)
            parts = scores.split([len(some) for _, some in ranks])
            return [(part, self._scorer.spent) for part in parts]

        scores, self.spent = self._world.on_main((list(prompts), list(replies)), ask)
        return scores

    scores = raw_scores


def open_labeler(where: str, setting: Setting) -> ReplyScorer:
    """A labeler as a reward, however many ranks there are."""
    return LabelerScorer(where, setting) if setting.world.size == 1 else OneRankAsks(where, setting)


OPEN: dict[str, Callable[[str, Setting], ReplyScorer]] = {
    "labeler": open_labeler,
    "rlcr": lambda where, setting: SurenessScorer(where, setting.renderer),
}
