"""A language model of this machine as labeler: how likely it finds each answer is read off it, and it writes texts."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from accord.engine.decode.draw import SampleSettings
from accord.engine.decode.sampler import CACHED, cache_bytes
from accord.engine.decode.stems import Stems
from accord.engine.engines import InProcess
from accord.engine.forward.causal import token_logprobs
from accord.engine.forward.dtype import exact
from accord.engine.packing import MICRO_TOKENS, Group, common_beginning, cut_by_tokens, reply_group
from accord.errors import BadInput
from accord.labelers.journal import Journal
from accord.labelers.labeler import Draft, Writing, answer_of, draft_of, label_id, label_row, text_id, text_row
from accord.labelers.questions import Distribution, Question
from accord.labelers.wires import CUT
from accord.lineage import model_key
from accord.models.loading import load_policy
from accord.models.places import describe
from accord.models.reference import reply_sums
from accord.models.tokenizer import load_renderer
from accord.records import Turn
from accord.training.distributed import World
from accord.training.memory import free_bytes, plan_cache

CHUNK = 256  # questions that are rendered at once, texts that are written between two looks of the journal


class LocalLabeler:
    """Any causal language model. Raises BadInput for a model with another head."""

    def __init__(
        self,
        snapshot: str,
        world: World,
        journal: Journal,
        *,
        micro_tokens: int = MICRO_TOKENS,
        cache_tokens: int = 0,
    ) -> None:
        if (role := describe(snapshot)["role"]) != "policy":
            raise BadInput(f"{snapshot}: a {role} model gives scores and no answers; name a policy")
        where = Path(snapshot)
        self.name = (where.parent if where.name == "snapshot" else where).name
        self.key = model_key(snapshot)
        self._renderer = load_renderer(snapshot)
        self._model = load_policy(snapshot, trainable=False).to(world.device)
        self._world, self._journal, self._micro_tokens = world, journal, micro_tokens
        cache = cache_tokens or plan_cache(cache_bytes(self._model), free_bytes(world.device), CACHED)
        self._engine = InProcess(self._model, cache, Stems())
        self.context = int(getattr(self._model.config, "max_position_embeddings", 0)) or 2**31

    def ask(self, questions: Sequence[Question]) -> list[Distribution]:
        """π(answer | question), normalised over its answers; none to a question longer than the model reads."""
        names = [label_id(self, question) for question in questions]
        waiting = {n: q for n, q in zip(names, questions, strict=True) if n not in self._journal}
        items = list(waiting.items())
        for start in range(0, len(items), CHUNK):
            self._read(dict(items[start : start + CHUNK]))
        return [answer_of(self._journal[name]) for name in names]

    def write(self, prompts: Sequence[Sequence[Turn]], how: Writing) -> list[Draft]:
        """A text of the model's own to each prompt, each drawn once; none to one that leaves no room for it."""
        numbers = range(len(prompts)) if how.numbers is None else how.numbers
        names = [text_id(self, turns, how, number) for turns, number in zip(prompts, numbers, strict=True)]
        asked = zip(names, prompts, numbers, strict=True)
        waiting = {name: (turns, number) for name, turns, number in asked if name not in self._journal}
        items = list(waiting.items())
        for start in range(0, len(items), CHUNK):
            part = items[start : start + CHUNK]
            drafts = self._draw([turns for _, (turns, _) in part], [number for _, (_, number) in part], how)
            self._journal.add(*(text_row(name, self, draft) for (name, _), draft in zip(part, drafts, strict=True)))
        return [draft_of(self._journal[name]) for name in names]

    def _draw(self, prompts: Sequence[Sequence[Turn]], numbers: Sequence[int], how: Writing) -> list[Draft]:
        renderer = self._renderer
        ids = [renderer.passage(turns[-1].content) if how.plain else renderer.prompt_ids(turns) for turns in prompts]
        fit = [i for i, prompt in enumerate(ids) if len(prompt) + how.max_new_tokens <= self.context]
        settings = SampleSettings(
            1,
            how.temperature,
            how.max_new_tokens,
            self._renderer.stops,
            how.seed,
            numbers=[numbers[i] for i in fit],
            vocabulary=self._renderer.vocabulary,
        )
        drafts = [Draft("", f"leaves no room for {how.max_new_tokens} of the model's {self.context} tokens")] * len(ids)
        for i, rollout in zip(fit, self._engine.sample([ids[i] for i in fit], settings), strict=True):
            drafts[i] = Draft(self._renderer.text(rollout.ids), CUT if rollout.finish == "length" else "")
        return drafts

    def _read(self, questions: Mapping[str, Question]) -> None:
        """The answers go into the journal with every pass of the model: a slow one would lose minutes by more."""
        groups = {name: self._group(question) for name, question in questions.items()}
        fit = [name for name, group in groups.items() if group.tokens <= self.context]
        if longer := groups.keys() - fit:
            none = Distribution((), "logprobs", f"longer than the model's {self.context} tokens")
            self._journal.add(*(label_row(name, self, none) for name in groups if name in longer))
        parts = cut_by_tokens(fit, lambda name: groups[name].tokens, self._micro_tokens)
        for start in range(0, len(parts), self._world.size):  # a part for every rank
            together = parts[start : start + self._world.size]
            names = [name for part in together for name in part]
            sums = self._sums([[groups[name] for name in part] for part in together])
            answers = [Distribution(tuple(exact(own).softmax(0).tolist()), "logprobs") for own in sums]
            self._journal.add(*(label_row(name, self, said) for name, said in zip(names, answers, strict=True)))

    def _group(self, question: Question) -> Group:
        """The question once and its answers, without the end of the turn: what matters is which answer begins."""
        answers = (self._renderer.reply_ids(answer, question.turns)[:-1] for answer in question.answers)
        return reply_group(self._renderer.prompt_ids(question.turns), *answers)

    def _sums(self, parts: Sequence[Sequence[Group]]) -> list[Tensor]:
        """log π (answers,) of every group's answers, each part packed; questions that begin alike share that."""
        packed = [share_beginning(part) for part in parts]
        flat = [group for part in packed for group in part]
        starts = [sum(map(len, packed[:i])) for i in range(len(packed) + 1)]
        ranges = [range(a, b) for a, b in itertools.pairwise(starts)]
        sums = reply_sums(lambda packing: token_logprobs(self._model, packing), flat, ranges, self._world)
        return list(torch.cat(sums).split([len(group.replies) for part in parts for group in part]))


def share_beginning(groups: Sequence[Group]) -> list[Group]:
    """The same replies to one prefix, that which all groups begin with, where this packs fewer tokens.

    The rest of each group's prefix then stands before each of its replies, masked.
    """
    common = common_beginning([group.prefix for group in groups])
    replies = [(*g.prefix[common:], *reply) for g in groups for reply in g.replies]
    masks = [(*(False,) * (len(g.prefix) - common), *mask) for g in groups for mask in g.masks]
    merged = Group(groups[0].prefix[:common], tuple(replies), tuple(masks))
    return [merged] if common > 0 and merged.tokens < sum(group.tokens for group in groups) else list(groups)
