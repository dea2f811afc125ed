"""Replies are scored while others are drawn: by remote scorers always, by all beside a remote engine."""

import threading
from concurrent.futures import wait
from types import SimpleNamespace

import pytest
import torch

from accord.models.text_scorers import AT_ONCE, ScorerFailed, TextScorer
from accord.records import Prompt, Rollout, Turn
from accord.stages.ppo.config import Ppo
from accord.stages.ppo.rollouts import Scoring
from accord.training.distributed import World

SAMPLES = 2
PROMPTS = [Prompt((Turn("user", f"prompt {i}"),), "", "") for i in range(80)]
CPU = torch.device("cpu")


def rollouts(place):
    return [Rollout((1, place), (10 * place + k, 2), (-0.5, -0.5), "stop", 1.0, "") for k in range(SAMPLES)]


def scorer(renderer, call, remote):
    return TextScorer("here", "preference", renderer, call, remote=remote)


def length_and_words(conversations):
    """A number of its own for every conversation."""
    return [float(c[0]["content"].split()[1]) + float(c[-1]["content"]) / 1000 for c in conversations]


EXPECTED = torch.tensor([place + (10 * place + k) / 1000 for place in range(80) for k in range(SAMPLES)])


@pytest.fixture
def scoring(renderer, tmp_path):
    """A function that opens the scores of all prompts by the scorers that are given."""
    opened = []

    def make(*, engine_remote=False, prompts=PROMPTS, **calls):
        scorers = {name: scorer(renderer, call, name.startswith("remote")) for name, call in calls.items()}
        actors = SimpleNamespace(
            scorers=scorers,
            engine=SimpleNamespace(remote=engine_remote),
            renderer=SimpleNamespace(text=lambda ids: str(ids[0])),
        )
        config = Ppo(model="m", data="d", out=str(tmp_path), rewards={"r": "r"}, samples=SAMPLES)
        opened.append(Scoring(config, actors, prompts, World(0, 1, CPU)))
        return opened[-1]

    yield make
    for one in opened:
        one.__exit__()


@pytest.mark.parametrize("engine_remote", [False, True])
def test_scores_are_in_the_order_of_the_prompts_however_they_ended(scoring, engine_remote):
    one = scoring(engine_remote=engine_remote, remote=length_and_words, local=length_and_words)
    for place in torch.randperm(80, generator=torch.Generator().manual_seed(0)).tolist():
        one.add(place, rollouts(place))
    scores = one.result()
    assert torch.equal(scores["remote"], EXPECTED) and torch.equal(scores["local"], EXPECTED)


def test_a_rank_without_prompts_has_no_scores(scoring):
    scores = scoring(prompts=[], remote=length_and_words, local=length_and_words).result()
    assert {name: tuple(score.shape) for name, score in scores.items()} == {"remote": (0,), "local": (0,)}


def test_a_remote_scorer_answers_before_the_last_reply_has_ended(scoring):
    answered = threading.Event()

    def call(conversations):
        assert threading.current_thread() is not threading.main_thread()
        answered.set()
        return length_and_words(conversations)

    one = scoring(remote=call)
    for place in range(AT_ONCE // SAMPLES):
        assert not answered.is_set()
        one.add(place, rollouts(place))
    assert answered.wait(10)
    for place in range(AT_ONCE // SAMPLES, 80):
        one.add(place, rollouts(place))
    assert torch.equal(one.result()["remote"], EXPECTED)


@pytest.mark.parametrize("engine_remote", [False, True])
def test_what_computes_here_waits_for_an_engine_that_does_too(scoring, engine_remote):
    asked = []

    def call(conversations):
        asked.append(len(conversations))
        assert threading.current_thread() is threading.main_thread()
        return length_and_words(conversations)

    one = scoring(engine_remote=engine_remote, local=call)
    for place in range(80):
        one.add(place, rollouts(place))
    assert asked == ([AT_ONCE, AT_ONCE] if engine_remote else [])
    one.result()
    assert asked == [AT_ONCE, AT_ONCE, 2 * 80 - 2 * AT_ONCE]


def test_b7_what_a_remote_scorer_raises_ends_the_drawing(scoring):
    def call(conversations):
        raise ScorerFailed("no number")

    one = scoring(remote=call)
    for place in range(AT_ONCE // SAMPLES):
        one.add(place, rollouts(place))
    wait(answer for _, _, answer in one._asked)
    with pytest.raises(ScorerFailed, match="no number"):
        one.add(79, rollouts(79))


def test_b7_what_a_remote_scorer_raises_at_the_last_reply_is_raised(scoring):
    def call(conversations):
        raise ScorerFailed("no number")

    one = scoring(remote=call)
    for place in range(AT_ONCE // SAMPLES - 1):
        one.add(place, rollouts(place))
    with pytest.raises(ScorerFailed, match="no number"):
        one.result()


def test_the_samplers_precision_is_not_the_scorers(scoring):
    seen = []

    def call(conversations):
        seen.append(torch.is_autocast_enabled("cpu"))
        return length_and_words(conversations)

    one = scoring(engine_remote=True, local=call)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for place in range(80):
            one.add(place, rollouts(place))
    assert seen and not any(seen)


def test_a_remote_scorer_is_asked_one_thing_at_a_time(scoring):
    lock, most = threading.Lock(), []

    def call(conversations):
        most.append(lock.acquire(blocking=False))
        threading.Event().wait(0.02)
        if most[-1]:
            lock.release()
        return length_and_words(conversations)

    one = scoring(remote=call)
    for place in range(80):
        one.add(place, rollouts(place))
    assert torch.equal(one.result()["remote"], EXPECTED) and most == [True] * len(most) and len(most) == 3


def test_what_was_not_asked_by_the_end_is_not_asked_and_nobody_waits(scoring):
    begun, go = threading.Event(), threading.Event()

    def call(conversations):
        begun.set()
        go.wait(2)
        return length_and_words(conversations)

    one = scoring(remote=call)
    for place in range(80):
        one.add(place, rollouts(place))
    first, second = (answer for _, _, answer in one._asked)
    assert begun.wait(10)
    one.__exit__()
    assert not first.done()
    go.set()
    wait([first])
    assert second.cancelled() and not first.cancelled()


@pytest.mark.parametrize("collective", [False, True])
def test_a_scorer_that_all_ranks_ask_at_once_waits_for_the_last_reply(scoring, monkeypatch, collective):
    monkeypatch.setattr(TextScorer, "collective", collective)
    asked = []

    def call(conversations):
        asked.append(len(conversations))
        return length_and_words(conversations)

    one = scoring(engine_remote=True, local=call)
    for place in range(80):
        one.add(place, rollouts(place))
    assert asked == ([] if collective else [AT_ONCE, AT_ONCE])
    assert torch.equal(one.result()["local"], EXPECTED)
    # one without prompts takes part all the same
    monkeypatch.setattr(TextScorer, "raw_scores", lambda *given, **more: asked.append("none") or torch.zeros(0))
    assert scoring(prompts=[], engine_remote=True, local=call).result()["local"].shape == (0,)
    assert (asked[-1] == "none") == collective
