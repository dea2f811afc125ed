"""Experience: replies sampled from the policy, with everything that the other roles say about them."""

import functools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from accord.engine.decode.draw import SampleSettings
from accord.engine.engines import Engine, Served
from accord.engine.forward.causal import token_logprobs
from accord.engine.forward.dtype import exact
from accord.engine.packing import Group, cut_by_tokens, length_mask, pack, pack_replies, reply_group
from accord.models.scalar import Scorer
from accord.models.text_scorers import AT_ONCE
from accord.objectives.kl import EXACT, SAMPLED
from accord.objectives.policy_gradient import truncated_ratios
from accord.records import Prompt, Rollout
from accord.stages.ppo.actors import Actors, exact_kls
from accord.stages.ppo.config import Ppo
from accord.stages.ppo.experience import CAP, Experience, weighted_sum
from accord.stages.ppo.state import State
from accord.stages.shared import sample_settings
from accord.stages.verdicts import in_slices
from accord.training import heap
from accord.training.distributed import World
from accord.training.precision import lowered
from accord.training.shards import in_step, whole

# nats per token up to which the sampler's log-probs stand for the trainer's: what rounding makes of equal weights
GAP = {"f32": 1e-5, "bf16": 1e-4}
MEASURED = 16  # of so many prompts one is asked about
BLANK = reply_group((0,), (0,))  # passes through sharded models on a rank that has nothing left


class Scoring:
    """Raw scores of `--samples` rollouts to each prompt, by every scorer.

    A remote scorer is asked about some replies as soon as they have ended, in a thread of its own, while this process
    draws others and evaluates. A scorer of this process would take its cores from an engine that draws here, and waits
    for the last reply; beside a remote engine it too scores as they come. It is called in this thread, which a Python
    function may need (signals, event loops).
    """

    def __init__(self, config: Ppo, actors: Actors, prompts: Sequence[Prompt], world: World) -> None:
        self._config, self._actors, self._prompts, self._world = config, actors, prompts, world
        scorers = actors.scorers
        self._pools = {n: ThreadPoolExecutor(1, f"scorer-{n}") for n, s in scorers.items() if s.remote}
        here = [name for name in scorers if name not in self._pools]
        # one that every rank asks at once is asked at the end, where all have as many replies as they will
        soon = [name for name in here if actors.engine.remote and not scorers[name].collective]
        # remote ones first: they answer while this process scores
        self._early, self._late = [*self._pools, *soon], [name for name in here if name not in soon]
        self._asked: list[tuple[str, list[int], Future[Tensor]]] = []
        self._replies: dict[int, tuple[list[str], Group]] = {}
        self._unasked: list[int] = []
        self._scores = {name: torch.zeros(len(prompts), config.samples) for name in actors.scorers}

    def __enter__(self) -> "Scoring":
        return self

    def __exit__(self, *_: Any) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def add(self, place: int, rollouts: list[Rollout]) -> None:
        """All rollouts to the prompt at `place`. Raises what a scorer has raised by now."""
        texts = [self._actors.renderer.text(rollout.ids) for rollout in rollouts]
        self._replies[place] = texts, reply_group(rollouts[0].prompt_ids, *(rollout.ids for rollout in rollouts))
        self._unasked.append(place)
        for _, _, asked in self._asked:
            if asked.done():
                asked.result()
        if len(self._unasked) * self._config.samples >= AT_ONCE:
            self._ask(self._early, self._unasked)
            self._unasked = []

    @property
    def groups(self) -> list[Group]:
        """Every prompt with its replies, which share its tokens."""
        return [self._replies[place][1] for place in range(len(self._prompts))]

    def result(self) -> dict[str, Tensor]:
        """Raw scores (B,) by scorer, prompt by prompt; raises what a scorer raised."""
        self._ask(self._early, self._unasked)
        self._ask(self._late, list(range(len(self._prompts))))
        for name, places, asked in self._asked:
            self._scores[name][places] = asked.result()
        return {name: scores.flatten() for name, scores in self._scores.items()}

    def _ask(self, names: Sequence[str], places: list[int]) -> None:
        names = [name for name in names if places or self._actors.scorers[name].collective]
        if not names:
            return
        prompts = [self._prompts[place] for place in places for _ in range(self._config.samples)]
        texts = [text for place in places for text in self._replies[place][0]]
        groups = [self._replies[place][1] for place in places]
        for name in names:
            if pool := self._pools.get(name):
                self._asked.append((name, places, pool.submit(self._score, name, prompts, texts, groups)))
            else:
                self._scores[name][places] = self._score(name, prompts, texts, groups)

    def _score(self, name: str, prompts: list[Prompt], texts: list[str], groups: list[Group]) -> Tensor:
        scorer = self._actors.scorers[name]
        # whatever engine drew and in whichever thread this is; a function of somebody else's computes as it was written
        precision = self._config.precision if isinstance(scorer, Scorer) else "f32"
        with lowered(precision, self._world.device):
            scores = scorer.raw_scores(prompts, texts, groups, micro_tokens=self._config.micro_tokens)
        return scores.view(len(groups), self._config.samples)


@torch.no_grad()
def collect(
    config: Ppo,
    world: World,
    actors: Actors,
    prompts: Sequence[Prompt],
    state: State,
    following: Sequence[Prompt] = (),
) -> Experience:
    """Sample replies to the prompts and evaluate them under every role. Each rank does its share; all get the whole.

    Replies to the `following` prompts, those of the next iteration, are begun by the weights of this one.
    """
    heap.trim()
    numbered = world.share(list(enumerate(prompts)))
    own = [prompt for _, prompt in numbered]
    ahead = actors.in_flight.take(state.step)
    with Scoring(config, actors, own, world) as scoring:
        with whole(actors.policy) as policy, lowered(config.precision, world.device):
            if ahead is None or following:
                follow_policy(world, actors.engine, policy)
            if ahead is None:
                asked = request(config, actors, numbered, state.step, weights=state.step)
                rollouts = actors.engine.sample(*asked, finished=scoring.add)
            else:
                rollouts = ahead
                for place in range(len(own)):
                    scoring.add(place, ahead[place * config.samples : (place + 1) * config.samples])
        if following:
            later = world.share(list(enumerate(following)))
            asked = request(config, actors, later, state.step + 1, weights=state.step)
            actors.in_flight.start(state.step + 1, functools.partial(actors.engine.sample, *asked))
        share = evaluate(config, world, actors, own, rollouts, scoring, behind=ahead is not None)
    return complete(config, gather(world, share, config.samples))


def follow_policy(world: World, engine: Engine, policy: nn.Module) -> None:
    """Have the engine draw from the policy as it is now. No rank asks a server that has older weights."""
    if world.is_main or not engine.remote:
        engine.follow(policy)
    if isinstance(engine, Served):
        engine.pushed = world.gather(engine.pushed)[0]


def request(
    config: Ppo, actors: Actors, numbered: Sequence[tuple[int, Prompt]], step: int, *, weights: int
) -> tuple[list[tuple[int, ...]], SampleSettings]:
    """What an engine is asked to draw in iteration `step`, of prompts with their numbers, by the weights of another."""
    settings = sample_settings(
        config,
        actors.renderer,
        config.samples,
        config.seed * 1_000_003 + step,
        version=f"step-{weights}",
        numbers=[number for number, _ in numbered],
    )
    return [actors.renderer.prompt_ids(prompt.turns) for _, prompt in numbered], settings


def evaluate(
    config: Ppo,
    world: World,
    actors: Actors,
    prompts: Sequence[Prompt],
    rollouts: list[Rollout],
    scoring: Scoring,
    *,
    behind: bool = False,
) -> Experience:
    """What reference, critics and scorers say about a rank's rollouts; remote scorers answer meanwhile.

    Where these are of weights that are `behind`, the sampler's log-probs are kept beside the policy's.
    """
    groups = scoring.groups
    actors.policy.eval()
    lengths = [len(r.ids) for r in rollouts]
    width = max(lengths, default=0)  # a rank may have no prompt
    sampled = pack_replies([r.logprobs for r in rollouts], width)
    by_sampler = sampled.clone() if behind else None
    reference, kl = torch.zeros_like(sampled), torch.zeros_like(sampled)
    values = {name: torch.zeros_like(sampled) for name in actors.critics.names}
    gap = measure_gap(config, world, actors, groups, sampled)
    # the ratio must compare numbers of one arithmetic where it matters, or rounding looks like learning
    apart = behind or gap > (config.sampler_gap or GAP[config.precision])
    start = 0
    for part, counts in in_step(world.sharded, cut_by_tokens(groups, lambda g: g.tokens, config.micro_tokens), BLANK):
        packing = pack(part).to(world.device)
        found: list[tuple[Tensor, Tensor]] = []  # where it goes, and what was found of every token
        with lowered(config.precision, world.device):
            found.append((reference, actors.reference.token_logprobs(packing, temperature=config.temperature)))
            found += [(values[name], value) for name, value in actors.critics.values(actors.policy, packing).items()]
            if config.kl_estimator in EXACT:
                found.append((kl, exact_kls(actors, packing, config.kl_estimator, temperature=config.temperature)))
            if apart:
                found.append((sampled, token_logprobs(actors.policy, packing, temperature=config.temperature)))
        if counts:
            for matrix, tokens in found:
                matrix[start : start + packing.replies] = packing.scatter(tokens, width).cpu()
            start += packing.replies
    mask = length_mask(lengths, width)
    if config.kl_estimator in SAMPLED:
        kl = torch.where(mask, SAMPLED[config.kl_estimator](sampled, reference), torch.zeros_like(sampled))
    own = [prompt for prompt in prompts for _ in range(config.samples)]
    raw = scoring.result()
    scores = {name: actors.scorers[name].normalizer(raw[name]) for name in raw}
    raw_costs = {name: raw[name] for name in actors.costs}
    return Experience(
        own, rollouts, groups, mask, sampled, reference, kl, scores, values, raw_costs, gap, sampled=by_sampler
    )


def measure_gap(config: Ppo, world: World, actors: Actors, groups: Sequence[Group], sampled: Tensor) -> float:
    """Mean |log p of the sampler − log p of the trainer| in nats per token, on every 16th prompt of all ranks.

    `sampled` (B, T) are the sampler's. The trainer computes as it will in the first update.
    """
    total, count = 0.0, 0
    picked = range(0, len(groups), MEASURED)
    parts = cut_by_tokens(picked, lambda i: groups[i].tokens, config.micro_tokens)
    for part, counts in in_step(world.sharded, parts, -1):
        packing = pack([groups[i] for i in part] if counts else [BLANK]).to(world.device)
        with lowered(config.precision, world.device):
            trained = token_logprobs(actors.policy, packing, temperature=config.temperature)
        if not counts:
            continue
        rows = [i * config.samples + k for i in part for k in range(config.samples)]
        ours = sampled[rows][packing.owner.cpu(), packing.slots.cpu()]
        total += float(exact((ours - trained.cpu()).abs()).sum())
        count += len(ours)
    sums = world.gather((total, count))
    return sum(t for t, _ in sums) / max(1, sum(c for _, c in sums))


def gather(world: World, part: Experience, samples: int) -> Experience:
    """Every rank's experience as one, in the order of the prompts."""
    if world.size == 1:
        return part

    def whole(items: Sequence[Any]) -> list[Any]:
        blocks = [list(items[i : i + samples]) for i in range(0, len(items), samples)]
        return [item for block in world.interleave(blocks) for item in block]

    width = max(world.gather(part.mask.shape[1]))

    def stack(matrix: Tensor) -> Tensor:
        return torch.stack(whole(list(torch.nn.functional.pad(matrix, (0, width - matrix.shape[1])))))

    return Experience(
        whole(part.prompts),
        whole(part.rollouts),
        world.interleave(part.groups),
        stack(part.mask),
        stack(part.logprobs),
        stack(part.reference),
        stack(part.kl),
        {name: torch.stack(whole(list(score))) for name, score in part.scores.items()},
        {name: stack(value) for name, value in part.values.items()},
        {name: torch.stack(whole(list(cost))) for name, cost in part.raw_costs.items()},
        part.sampler_gap,
        sampled=None if part.sampled is None else stack(part.sampled),
    )


def complete(config: Ppo, experience: Experience) -> Experience:
    """With the reward that is optimised, the replies that each limit holds on, what tokens of older weights weigh."""
    inside = {name: in_slices(experience.prompts, config.limit_slices.get(name, "")) for name in config.limits}
    importance = None
    if experience.sampled is not None:
        importance = truncated_ratios(experience.logprobs, experience.sampled, experience.mask, cap=CAP)
    reward = weighted_sum(experience.scores, config.summed)
    return replace(experience, reward=reward, inside=inside, importance=importance)
