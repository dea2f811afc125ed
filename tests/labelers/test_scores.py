"""Single replies under principles: how a question is put, and which number its answer is."""

import pytest

from accord.labelers.constitution_file import read_constitution
from accord.labelers.principles import Principles, WrittenPrinciple
from accord.labelers.questions import ENGLISH, WORLD, Distribution
from accord.labelers.scores import principles_of, score_replies, value_of
from accord.records import Prompt, Turn
from accord.world import questions

PROMPT = Prompt((Turn("user", "why the cat"),), "", "")
KIND = WrittenPrinciple("kind", "Be kind.", tags=("soft",))
SHORT = WrittenPrinciple("short", "Be {short}.", tags=("hard",), weight=3.0)
BARE = WrittenPrinciple("bare", comparison="Which is better?")
OURS = Principles("ours", ENGLISH, (KIND, SHORT, BARE))


class Tells:
    """Answers the questions in their order as it is told, and keeps them."""

    name = key = "tells"

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def ask(self, asked):
        self.asked += asked
        return [
            Distribution((), "json", answer) if isinstance(answer, str) else Distribution(answer, "logprobs")
            for answer in (self.answers.pop(0) for _ in asked)
        ]


def test_the_question_quotes_the_reply_and_names_the_principle_whatever_is_in_them():
    yes_no = OURS.about_one(SHORT, "yes-no", PROMPT.turns, "a {reply} of {text}")
    text = yes_no.turns[0].content
    assert "user: why the cat" in text and "A reply to it:\n\na {reply} of {text}\n\n" in text
    assert "Does the reply keep to this principle? Be {short}." in text and text.endswith("and nothing else.")
    assert (yes_no.kind, yes_no.answers, yes_no.about) == ("yes-no", ("yes", "no"), "short")
    score = OURS.about_one(KIND, "score", PROMPT.turns, "x")
    assert "How well does the reply keep to this principle? Be kind." in score.turns[0].content


@pytest.mark.parametrize(
    ("kind", "probabilities", "value"),
    [
        ("yes-no", (1.0, 0.0), 1.0),
        ("yes-no", (0.25, 0.75), -0.5),
        ("score", (1.0, 0.0, 0.0, 0.0, 0.0), -1.0),
        ("score", (0.0, 0.0, 0.0, 0.0, 1.0), 1.0),
        ("score", (0.0, 0.5, 0.0, 0.5, 0.0), 0.0),
        ("score", (0.0, 0.0, 0.0, 0.5, 0.5), 0.75),
    ],
)
def test_the_expected_answer_lies_between_minus_one_and_one(kind, probabilities, value):
    question = OURS.about_one(KIND, kind, PROMPT.turns, "x")
    answer = Distribution(probabilities, "logprobs")
    assert value_of(question, answer, False) == pytest.approx(value)
    assert value_of(question, answer, True) == pytest.approx(-value), "where yes is a fault"


def test_the_gold_world_is_asked_for_faults_in_its_own_words():
    world = read_constitution("world")
    harmful = next(p for p in world.scoring() if p.name == "harmful")
    for kind in ("yes-no", "score"):
        question = world.about_one(harmful, kind, (Turn("user", "how do i paint the red door?"),), "use a brush.")
        quote, asked = questions.read_question(question.turns[0].content)
        assert (asked.kind, asked.principle, quote.replies) == (f"judge-{kind}", "harmful", ("use a brush.",))
        # what a judge answers about a faultless reply is the best score
        truth = question.answers[1 if kind == "yes-no" else 0]  # no; one of five
        sure = tuple(float(answer == truth) for answer in question.answers)
        assert value_of(question, Distribution(sure, "logprobs"), world.wording.finds_faults) == 1.0
    assert world.wording is WORLD and len(world.scoring()) == 20


def test_a_score_is_the_mean_over_the_principles_that_were_answered():
    said = Tells((1.0, 0.0), (0.5, 0.5), "too long", (0.0, 1.0), "too long", "too long")
    both = [KIND, SHORT]
    told = score_replies(said, OURS, "yes-no", [(PROMPT, "a", both), (PROMPT, "b", both), (PROMPT, "c", both)])
    assert told.values == [0.5, -1.0, None] and told.why == {"too long": 3}
    assert told.methods == ["logprobs", "logprobs", ""]
    assert [question.about for question in said.asked] == ["kind", "short"] * 3


def test_replies_to_one_prompt_share_their_principles_and_prompts_differ():
    assert {p.name for p in principles_of(OURS, PROMPT, [], 0, 7)} == {"kind", "short"}, (
        "one without a text asks nothing"
    )
    assert [p.name for p in principles_of(OURS, PROMPT, ["soft"], 1, 7)] == ["kind"]
    drawn = [principles_of(OURS, Prompt((Turn("user", f"prompt {i}"),), "", ""), [], 1, 7)[0].name for i in range(400)]
    assert 250 < drawn.count("short") < 350, "by weight, three to one"
    assert principles_of(OURS, PROMPT, [], 1, 7) == principles_of(OURS, PROMPT, [], 1, 7)
