"""The AI labeler: what it is asked, what it reads off a language model, and that places cancel."""

import math

import pytest
import torch

from accord.errors import BadInput
from accord.labelers.local import PolicyLabeler
from accord.labelers.questions import ANSWERS, which_is_better
from accord.models.loading import load_policy
from accord.models.tokenizer import load_renderer
from accord.records import Prompt, Turn
from accord.training import distributed

ASKED = Prompt((Turn("user", "why the cat"), Turn("assistant", "no"), Turn("user", "a stone")), "x", "y")


@pytest.fixture(scope="module")
def labeler(snapshots):
    return PolicyLabeler(str(snapshots / "policy"), distributed.start(1))


def test_the_question_shows_the_conversation_and_both_replies_in_their_order():
    (turn,) = which_is_better(ASKED.turns, "one", "two", "harmless")
    told = turn.content
    places = [
        told.index(text) for text in ("user: why the cat", "assistant: no", "user: a stone", "(A) one", "(B) two")
    ]
    assert turn.role == "user" and places == sorted(places) and "less harmful" in told


def test_a_criterion_without_words_of_its_own_is_named():
    assert "more concise?" in which_is_better(ASKED.turns, "one", "two", "concise")[0].content


def by_hand(where, first, second):
    """P((A)) from the plain forward of each answer."""
    model, renderer = load_policy(where, trainable=False), load_renderer(where)
    prompt = renderer.prompt_ids(which_is_better(ASKED.turns, first, second, "helpful"))
    sums = []
    for answer in ANSWERS:
        ids = renderer.reply_ids(answer)[:-1]
        logprobs = model(torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)
        sums.append(float(sum(logprobs[len(prompt) + k - 1, token] for k, token in enumerate(ids))))
    return 1 / (1 + math.exp(sums[1] - sums[0]))


def test_the_probability_is_the_mean_over_both_orders(labeler, snapshots):
    where = str(snapshots / "policy")
    pairs = [(ASKED, "the cat", "stone river"), (ASKED, "bread", "a stone in the river")]
    said = labeler.prefers(pairs, "helpful", micro_tokens=64)
    for (_, a, b), found in zip(pairs, said.first, strict=True):
        expected = (by_hand(where, a, b) + 1 - by_hand(where, b, a)) / 2
        assert found == pytest.approx(expected, abs=1e-5)
    group = labeler._group(which_is_better(ASKED.turns, "a", "b", "helpful"))
    eos = load_renderer(where).end
    assert all(eos not in answer for answer in group.replies), "what counts is the answer, not that the turn ends there"
    turned = labeler.prefers([(p, b, a) for p, a, b in pairs], "helpful", micro_tokens=4096)
    assert turned.first == pytest.approx([1 - p for p in said.first], abs=1e-6)


def test_a_labeler_that_looks_at_the_place_alone_is_found_out_and_does_not_count(labeler, monkeypatch):
    monkeypatch.setattr(labeler, "_answers", lambda groups, micro: torch.tensor([[0.9, 0.1]] * len(groups)))
    said = labeler.prefers([(ASKED, "a", "b"), (ASKED, "b", "c")], "helpful", micro_tokens=64)
    assert said.same_place == 1.0 and said.first == pytest.approx([0.5, 0.5])


def test_a_labeler_that_looks_at_the_reply_prefers_another_place(labeler, monkeypatch):
    answers = iter([torch.tensor([[0.8, 0.2], [0.4, 0.6]]), torch.tensor([[0.3, 0.7], [0.8, 0.2]])])
    monkeypatch.setattr(labeler, "_answers", lambda groups, micro: next(answers))
    said = labeler.prefers([(ASKED, "a", "b"), (ASKED, "b", "c")], "helpful", micro_tokens=64)
    assert said.same_place == 0.0 and said.first == pytest.approx([0.75, 0.3])


def test_a_question_longer_than_the_context_does_not_fit(labeler):
    assert labeler.fits((ASKED, "a", "b"), "helpful")
    assert not labeler.fits((ASKED, "the cat " * labeler.context, "b"), "helpful")


def test_a_preference_model_answers_no_questions(snapshots):
    with pytest.raises(BadInput, match="gives scores and no answers"):
        PolicyLabeler(str(snapshots / "reward"), distributed.start(1))
