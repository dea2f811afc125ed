"""What scorers of texts send, whom, and what they take for an answer; the servers are objects of this process."""

import numpy as np
import pytest
import torch

from accord.engine.packing import reply_group
from accord.engine.remote.scores import About, ScoresRefused
from accord.errors import BadInput
from accord.models import text_scorers
from accord.models.scalar import Normalizer
from accord.models.text_scorers import (
    RemoteScorer,
    ScorerFailed,
    TextScorer,
    agreed,
    checked,
    conversations_of,
    read_of,
)
from accord.records import Prompt, Turn

PROMPTS = [Prompt((Turn("system", "be brief"), Turn("user", word)), "", "") for word in ("cat", "dog", "river")]
REPLIES = ["the cat", "", "a big river"]
READING = {"normalizer": {"kind": "standard", "shift": 0.5, "scale": 2.0}, "measured": {"deviation": 0.3}}


def about(**changes):
    readings = {"helpful": READING, "brief": {"normalizer": {"kind": "none"}, "measured": {}}}
    return About(**{"snapshot": "s", "role": "preference", "tokenizer": "t", "readings": readings} | changes)


class LetterServer:
    """Answers with what it was asked: a number that tells the reply and its place."""

    told = None
    answers = None
    seen = None

    def __init__(self, url):
        self.url = url

    def about(self):
        return type(self).told

    def is_well(self):
        return True

    def ask(self, body):
        type(self).seen.append(body)
        if isinstance(self.answers, Exception):
            raise self.answers
        if self.answers is not None:
            return self.answers
        if "groups" in body:
            scores = [0.5 + sum(reply) for group in body["groups"] for reply in group["replies"]]
        else:
            scores = [0.5 + len(one[-1]["content"]) for one in body["conversations"]]
        return {"raw": scores, "scores": [-score for score in scores]}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(text_scorers, "ScoreServer", LetterServer)
    LetterServer.told, LetterServer.answers, LetterServer.seen = about(), None, []
    return LetterServer


def groups_of(renderer, cut=()):
    ids = [renderer.reply_ids(reply) for reply in REPLIES]
    ids = [one[:-1] if place in cut else one for place, one in enumerate(ids)]
    return [reply_group(renderer.prompt_ids(PROMPTS[0].turns), *ids[:2]), reply_group((5,), ids[2])], ids


def test_a_server_of_the_policys_tokens_is_sent_the_ids_that_were_drawn(server, renderer):
    server.told = about(tokenizer=renderer.identity)
    groups, ids = groups_of(renderer)
    scorer = RemoteScorer("a, b", "preference", renderer, "helpful")
    raw = scorer.raw_scores(PROMPTS, REPLIES, groups, micro_tokens=7)
    assert raw.tolist() == [0.5 + sum(one) for one in ids] and raw.dtype == torch.float32
    # two servers take two replies at most at once, and a prompt travels once for its replies
    expected = [{"groups": [{"prefix": g.prefix, "replies": g.replies}], "head": "helpful"} for g in groups]
    assert sorted(server.seen, key=str) == sorted(expected, key=str)
    assert scorer.scores(PROMPTS, REPLIES, groups, micro_tokens=7).tolist() == pytest.approx(
        [sum(one) / 2 for one in ids]
    )
    assert scorer.normalizer == Normalizer("standard", 0.5, 2.0) and dict(scorer.measured) == {"deviation": 0.3}
    assert (scorer.where, scorer.role, scorer.renderer, dict(scorer.spent)) == ("a, b", "preference", renderer, {})
    assert scorer.remote and not scorer.collective


def test_one_of_other_tokens_is_told_which_replies_have_ended(server, renderer):
    groups, _ = groups_of(renderer, cut=(1, 2))
    groups.append(reply_group((5,), ()))
    scorer = RemoteScorer("a,b", "preference", renderer, "brief")
    texts, prompts = [*REPLIES, "big"], [*PROMPTS, PROMPTS[0]]
    found = scorer.raw_scores(prompts, texts, groups, micro_tokens=7)
    assert found.tolist() == [0.5 + len(text) for text in texts]
    told = sorted(server.seen, key=lambda body: body["conversations"][0][1]["content"])
    assert [body["ended"] for body in told] == [[True, False], [False, False]]
    assert {body["head"] for body in told} == {"brief"}
    assert told[0]["conversations"] == conversations_of(prompts[:2], texts[:2])


def test_without_a_renderer_nothing_is_said_of_the_ends(server, renderer):
    scorer = RemoteScorer("a", "preference", None, "helpful")
    assert scorer.raw_scores(PROMPTS, REPLIES, groups_of(renderer)[0], micro_tokens=7).tolist() == [7.5, 0.5, 11.5]
    (body,) = server.seen
    assert body["ended"] == [] and len(body["conversations"]) == 3


def test_a_server_that_says_nothing_of_itself_is_sent_conversations_alone(server, renderer, capsys):
    server.told = None
    scorer = RemoteScorer("a", "cost", renderer, "helpful")
    assert "note: a does not say what it is" in capsys.readouterr().out
    groups, _ = groups_of(renderer)
    assert scorer.scores(PROMPTS, REPLIES, groups, micro_tokens=7).tolist() == [-7.5, -0.5, -11.5]
    assert server.seen == [{"conversations": conversations_of(PROMPTS, REPLIES)}]
    assert scorer.normalizer == Normalizer() and dict(scorer.measured) == {}


@pytest.mark.parametrize(("count", "sizes"), [(300, [64] * 4 + [44]), (65, [33, 32]), (3, [2, 1]), (2, [1, 1])])
def test_a_request_has_64_replies_at_most_and_two_servers_share_fewer(server, count, sizes):
    scorer = RemoteScorer("a,b", "preference", None, "helpful")
    found = scorer.raw_scores(PROMPTS[:1] * count, [str(k % 7) * k for k in range(count)], [], micro_tokens=7)
    assert found.tolist() == [k + 0.5 for k in range(count)]
    assert sorted((len(body["conversations"]) for body in server.seen), reverse=True) == sizes
    server.seen.clear()
    assert scorer.raw_scores([], [], [], micro_tokens=7).tolist() == [] and server.seen == []


def test_to_each_server_four_requests_are_in_flight(server, monkeypatch):
    given = []
    monkeypatch.setattr(text_scorers, "Fleet", lambda *asked, **more: given.append((asked, more)))
    scorer = RemoteScorer("a , b", "preference", None, "helpful")
    ((servers, revive), more) = given[0]
    assert [one.url for one in servers] == ["a", "b"] and more == {"at_once": 4}
    revive(servers[0])
    server.told = about(snapshot="another")
    with pytest.raises(BadInput, match=r"a came back as another model; serve the one of before, .*--resume"):
        revive(servers[0])
    assert scorer.about == about()


def test_what_a_server_refuses_or_answers_badly_is_a_failure(server):
    scorer = RemoteScorer("a", "preference", None, "helpful")
    server.answers = ScoresRefused("a will not")
    with pytest.raises(ScorerFailed, match="a will not"):
        scorer.raw_scores(PROMPTS, REPLIES, [], micro_tokens=7)
    server.answers = {"scores": [1.0, 2.0, 3.0]}
    with pytest.raises(ScorerFailed, match="a gave a NoneType for 3 replies"):
        scorer.raw_scores(PROMPTS, REPLIES, [], micro_tokens=7)


def test_servers_are_one_scorer_where_they_agree(server, monkeypatch):
    servers = [LetterServer("a"), LetterServer("b")]
    assert agreed(servers, "preference") == about()
    for role, needed, flag in (("cost", "preference", "--costs"), ("preference", "cost", "--rewards")):
        server.told = about(role=role)
        with pytest.raises(
            BadInput, match=f"a serves a {role} model, and a {needed} model is needed; give it to {flag}"
        ):
            agreed(servers, needed)
    answers = {"a": about(), "b": about(snapshot="another")}
    monkeypatch.setattr(LetterServer, "about", lambda self: answers[self.url])
    with pytest.raises(BadInput, match="b serves another model than a; servers with commas between are one scorer"):
        agreed(servers, "preference")


def test_the_criterion_that_is_read_is_the_named_one_or_the_one_without_a_name():
    assert read_of(about(), "brief", "where") == "brief"
    assert read_of(about(readings={"": READING, "helpful": READING}), "helpful", "where") == "helpful"
    assert read_of(about(readings={"": READING}), "helpful", "where") == ""
    with pytest.raises(BadInput, match="where has a head for each of helpful, brief; use one as the model's NAME"):
        read_of(about(), "honest", "where")


def test_conversations_end_with_the_reply():
    assert conversations_of(PROMPTS[:1], ["the cat"]) == [
        [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "cat"},
            {"role": "assistant", "content": "the cat"},
        ]
    ]
    with pytest.raises(ValueError, match="shorter"):
        conversations_of(PROMPTS, ["the cat"])


@pytest.mark.parametrize("found", [[1, 2.5], (1, 2.5), np.array([1.0, 2.5]), torch.tensor([1.0, 2.5])])
def test_any_list_of_finite_numbers_is_scores(found):
    assert checked("where", found, 2) == [1.0, 2.5]
    assert all(type(value) is float for value in checked("where", found, 2))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([1.0], "where gave 1 scores for 2 replies"),
        ((1.0,), "where gave 1 scores for 2 replies"),
        ([1.0, 2.0, 3.0], "3 scores for 2"),
        ("no", "a str for 2"),
        (np.array(1.0), "a float for 2"),
        ([1.0, True], "where gave True, which is no finite number"),
        (["1", 2.0], "'1', which"),
        ([float("nan"), 2.0], "nan, which"),
        ([1.0, float("-inf")], "-inf, which"),
    ],
)
def test_anything_else_is_a_failure(found, words):
    with pytest.raises(ScorerFailed, match=words):
        checked("where", found, 2)


def test_a_function_is_told_its_role_and_place(renderer):
    scorer = TextScorer("here", "cost", renderer, lambda part: [1.5] * len(part))
    assert (scorer.where, scorer.role, scorer.renderer, scorer.remote) == ("here", "cost", renderer, False)
    assert TextScorer("here", "cost", renderer, lambda part: [], remote=True).remote
    assert scorer.scores(PROMPTS, REPLIES, [], micro_tokens=1).tolist() == [1.5] * 3
    assert scorer.raw_scores([], [], [], micro_tokens=1).tolist() == [] and not scorer.collective
    assert scorer.normalizer == Normalizer() and (dict(scorer.measured), dict(scorer.spent)) == ({}, {})
