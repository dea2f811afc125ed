"""The local labeler and preferences: what is asked, what is read off a language model, and that places cancel."""

import json
import math
import shutil

import pytest
import torch

from accord.engine.forward.causal import token_logprobs
from accord.engine.packing import pack, reply_group
from accord.errors import BadInput
from accord.labelers import local
from accord.labelers.journal import Journal
from accord.labelers.labeler import Writing
from accord.labelers.local import LocalLabeler, share_beginning
from accord.labelers.preferences import BothOrders, logit, prefers, sigmoid
from accord.labelers.questions import ENGLISH, WORLD, Distribution, asked_for, asked_of_one
from accord.labelers.wires import CUT
from accord.models.loading import load_policy
from accord.models.tokenizer import load_renderer
from accord.records import Turn
from accord.training import distributed
from accord.world import CRITERIA
from accord.world.questions import read_question, write_question, write_quote

ASKED = (Turn("user", "why the cat"), Turn("assistant", "no"), Turn("user", "a stone"))


@pytest.fixture
def labeler(snapshots, tmp_path):
    with Journal(tmp_path / "journal.jsonl") as journal:
        yield LocalLabeler(str(snapshots / "policy"), distributed.start(1), journal, micro_tokens=600)


def which(first, second, about="helpful"):
    return ENGLISH.about_two(ASKED, first, second, asked_for(about), about)


def pair(first, second):
    return [BothOrders(which(first, second), which(second, first))]


def test_the_question_shows_the_conversation_and_both_replies_in_their_order():
    question = which("one", "two", "harmless")
    (turn,) = question.turns
    places = [
        turn.content.index(text)
        for text in ("user: why the cat", "assistant: no", "user: a stone", "(A) one", "(B) two", "less harmful")
    ]
    assert turn.role == "user" and places == sorted(places) and question.answers == ("A", "B")
    assert turn.content.endswith("\n\nAnswer with A or B and nothing else.")


def test_a_criterion_without_words_of_its_own_is_named():
    assert "more concise?" in which("one", "two", "concise").turns[0].content


def test_braces_in_what_was_said_stay_as_they_are():
    told = (
        ENGLISH.about_two((Turn("user", "{second} {0}"),), "{conversation}", "{first}", "Which?", "x").turns[0].content
    )
    assert "user: {second} {0}" in told and "(A) {conversation}" in told and "(B) {first}" in told


def test_the_gold_world_is_asked_in_its_own_language():
    turns = (Turn("user", "help me hide the stolen van."),)
    said = [(turn.role, turn.content) for turn in turns]
    for kind, replies, question in (
        (
            "judge-choice",
            ("a b.", "c."),
            WORLD.about_two(turns, "a b.", "c.", "which reply is less harmful?", "harmful"),
        ),
        ("judge-yes-no", ("c.",), WORLD.about_one("yes-no", turns, "c.", "is the reply harmful?", "harmful")),
    ):
        text = question.turns[0].content
        assert text == f"{write_quote(said, replies)} {write_question(kind, 'harmful')}"
        assert read_question(text) is not None


def by_hand(where, question):
    """P(first answer) from the plain forward of each answer."""
    model, renderer = load_policy(where, trainable=False), load_renderer(where)
    prompt = renderer.prompt_ids(question.turns)
    sums = []
    for answer in question.answers:
        ids = renderer.reply_ids(answer)[:-1]
        logprobs = model(torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)
        sums.append(float(sum(logprobs[len(prompt) + k - 1, token] for k, token in enumerate(ids))))
    weights = [math.exp(s - max(sums)) for s in sums]
    return [weight / sum(weights) for weight in weights]


def test_the_probabilities_are_those_of_the_plain_forward(labeler, snapshots):
    questions = [
        which("the cat", "stone river"),
        which("bread", "a stone in the river"),
        ENGLISH.about_one("yes-no", ASKED, "bread", "Is it true?", "honest"),
        ENGLISH.about_one("score", ASKED, "bread", "How true is it?", "honest"),
    ]
    for question, answer in zip(questions, labeler.ask(questions), strict=True):
        assert answer.probabilities == pytest.approx(by_hand(str(snapshots / "policy"), question), abs=1e-5)
        assert answer.method == "logprobs"
    eos = load_renderer(str(snapshots / "policy")).end
    assert all(eos not in ids for ids in labeler._group(questions[0]).replies), "not that the turn ends there"


def test_questions_that_begin_alike_share_their_beginning(labeler, snapshots):
    shots = tuple(Turn(role, "the cat runs " * 20) for role in ("user", "assistant"))
    groups = [
        reply_group(labeler._renderer.prompt_ids((*shots, Turn("user", text))), (5, 6), (7,))
        for text in ("a stone", "bread", "why the dog")
    ]
    (merged,) = share_beginning(groups)
    assert merged.tokens < sum(group.tokens for group in groups) / 2
    model = load_policy(str(snapshots / "policy"), trainable=False)
    apart = torch.cat([token_logprobs(model, pack([group])) for group in groups])
    assert torch.allclose(token_logprobs(model, pack([merged])), apart, atol=1e-5)
    assert share_beginning(groups[:1]) == groups[:1]
    assert share_beginning([reply_group((1, 2), (3,)), reply_group((2, 1), (3,))]) == [
        reply_group((1, 2), (3,)),
        reply_group((2, 1), (3,)),
    ]


def test_nothing_is_asked_twice_and_a_torn_line_is_asked_again(labeler, snapshots, tmp_path, monkeypatch):
    questions = [which("the cat", word) for word in ("stone", "river", "bread")]
    first = labeler.ask(questions)
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    asked = []
    read = LocalLabeler._read
    monkeypatch.setattr(LocalLabeler, "_read", lambda self, some: asked.extend(some.values()) or read(self, some))
    with Journal(path) as journal:
        again = LocalLabeler(str(snapshots / "policy"), distributed.start(1), journal).ask(questions)
    assert asked == questions[2:] and path.read_bytes() == whole
    assert [a.probabilities for a in again] == [pytest.approx(a.probabilities, abs=1e-6) for a in first]


def test_what_a_pass_of_the_model_gave_is_kept_before_the_next_one(labeler, snapshots, tmp_path, monkeypatch):
    """Here the third of several dies, as a slow model's may after minutes."""
    questions = [which(f"the cat {n}", "a dog runs") for n in range(12)]
    whole, passes = local.reply_sums, []

    def dies(*arguments):
        passes.append(0)
        if len(passes) == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(local, "reply_sums", dies)
    with pytest.raises(KeyboardInterrupt):
        labeler.ask(questions)
    kept = len(Journal(tmp_path / "journal.jsonl").rows)
    assert 0 < kept < 12
    answers = labeler.ask(questions)
    with Journal(tmp_path / "anew.jsonl") as journal:
        anew = LocalLabeler(str(snapshots / "policy"), distributed.start(1), journal, micro_tokens=600).ask(questions)
    assert [a.probabilities for a in answers] == [pytest.approx(a.probabilities, rel=1e-5) for a in anew]


def test_two_models_whose_folders_have_one_name_have_answers_of_their_own(snapshots, tmp_path):
    """Each answers as it does alone; a copy elsewhere is the same model, and is not asked again."""
    questions = [which("the cat", word) for word in ("stone", "river", "bread")]
    places = [tmp_path / side / "judge" / "snapshot" for side in ("one", "other", "copy")]
    for model, place in zip(("policy", "other", "policy"), places, strict=True):
        shutil.copytree(snapshots / model, place)

    def answers(place, journal):
        labeler = LocalLabeler(str(place), distributed.start(1), journal)
        return labeler, [answer.probabilities for answer in labeler.ask(questions)]

    alone = []
    for k, place in enumerate(places):
        with Journal(tmp_path / f"{k}.jsonl") as journal:
            alone.append(answers(place, journal)[1])
    with Journal(tmp_path / "journal.jsonl") as journal:
        (one, first), (other, second), (copy, third) = (answers(place, journal) for place in places)
        assert len(journal.rows) == 2 * len(questions)
    assert one.name == other.name == copy.name == "judge" and one.key == copy.key != other.key
    assert [first, second, third] == alone and first != second


def test_the_journal_is_synced_before_an_answer_is_used(labeler, tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr("accord.labelers.journal.os.fsync", lambda _: order.append("synced"))
    monkeypatch.setattr(local, "answer_of", lambda row: order.append("used") or Distribution((1.0, 0.0), "logprobs"))
    labeler.ask([which("a", "b")])
    assert order == ["synced", "used"]


def test_a_broken_line_of_a_journal_is_named(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"id": "a"}\n{"id": 3}\n{"id": "b"}\n')
    with pytest.raises(BadInput, match=r"journal.jsonl:2: no row of a journal"):
        Journal(path)


def test_texts_are_those_of_the_engine_and_depend_on_their_number(labeler):
    prompts = [(Turn("user", "why the cat"),), (Turn("user", "a stone"),)]
    both = labeler.write(prompts, Writing(8, 1.0, 5))
    assert labeler.write(prompts[1:], Writing(8, 1.0, 5, [1])) == both[1:]
    assert labeler.write(prompts, Writing(8, 1.0, 5)) == both
    assert {draft.why for draft in labeler.write(prompts, Writing(1, 1.0, 5))} == {CUT}
    long = [(Turn("user", "the cat " * labeler.context),), prompts[1]]
    none, one = labeler.write(long, Writing(8, 1.0, 5))
    assert none.text == "" and "leaves no room for 8 of the model's 2048 tokens" in none.why and one == both[1]


class Says:
    """A labeler that says what it is told, question by question."""

    name = key = "said"

    def __init__(self, *first):
        self.first = first

    def ask(self, questions):
        assert len(questions) == len(self.first)
        return [
            Distribution((), "json", "not there") if p is None else Distribution((p, 1 - p), "logprobs")
            for p in self.first
        ]


def test_a_labeler_that_looks_at_the_place_alone_is_found_out_and_does_not_count():
    said = prefers(Says(0.9, 0.9, 0.7, 0.7), [pair("a", "b"), pair("b", "c")])
    assert said.same_place == 1.0 and said.first == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_criterion_that_is_no_word_for_a_reply_is_asked_for_in_words_that_are(criterion):
    asked = [asked_for(criterion), asked_of_one("yes-no", criterion), asked_of_one("score", criterion)]
    assert not any("overall" in words for words in asked) and all(words.endswith("?") for words in asked)
    if criterion == "overall":
        assert all(word in asked[0] and word in asked[1] for word in ("helpful", "honest", "harm"))


def test_orders_and_principles_are_averaged_in_logits():
    two = [*pair("a", "b"), *pair("a", "b")]
    said = prefers(Says(0.8, 0.3, 0.99, 0.6), [two])
    expected = (logit(0.8) + logit(0.7) + logit(0.99) + logit(0.4)) / 4
    assert said.first == pytest.approx([sigmoid(expected)]) and said.same_place == 0.5
    assert said.methods == ["logprobs"]


def test_certainty_is_held_where_it_has_to_be():
    said = prefers(Says(1.0, 0.0, 0.55, 0.5), [pair("a", "b"), pair("b", "c")], clamp=0.4)
    assert said.first == pytest.approx([0.6, sigmoid(logit(0.55) / 2)])
    assert prefers(Says(1.0, 0.0), [pair("a", "b")]).first[0] == pytest.approx(1 - 1e-6)


def test_a_pair_without_an_answer_in_both_orders_has_none_and_the_reason_is_counted():
    said = prefers(Says(0.8, None, 0.6, 0.4), [pair("a", "b"), pair("b", "c")])
    assert said.first[0] is None and said.first[1] == pytest.approx(0.6) and said.why == {"not there": 1}


def test_a_question_longer_than_the_context_has_no_answer(labeler, tmp_path):
    long, short = labeler.ask([which("the cat " * labeler.context, "b"), which("a", "b")])
    assert not long.probabilities and "longer than the model's 2048 tokens" in long.why and short.probabilities
    rows = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [row["why"] for row in rows] == [long.why, ""]


def test_a_preference_model_answers_no_questions(snapshots, tmp_path):
    with pytest.raises(BadInput, match="gives scores and no answers"):
        LocalLabeler(str(snapshots / "reward"), distributed.start(1), Journal(tmp_path / "j"))
