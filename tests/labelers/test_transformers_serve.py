"""A real server: `transformers serve` on a tiny model of this machine, asked for typed decisions and for texts."""

import shutil

import pytest

from accord.data.chat import train_tokenizer
from accord.errors import BadInput
from accord.labelers.backends import Labelers
from accord.labelers.journal import Journal
from accord.labelers.labeler import Writing
from accord.labelers.questions import ENGLISH
from accord.models.policy import new_policy
from accord.models.saving import save_model
from accord.records import Turn
from accord.training import distributed
from tests.fixtures.serving import program
from tests.labelers.conftest import Asks

PATIENCE = 120  # seconds for the server to load the model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(nano, tmp_path_factory):
    """A tiny policy for which the labels of the server's decisions are tokens."""
    labels = "A B C D E Yes No yes no 1 2 3 4 5 "
    tokenizer = train_tokenizer([labels * 20, "why the cat is a stone in the river"] * 50, 320)
    folder = tmp_path_factory.mktemp("model") / "decides"
    described = {"role": "policy", "criterion": "", "normalizer": {"kind": "none", "shift": 0.0, "scale": 1.0}}
    save_model(new_policy(nano, tokenizer, max_length=512, seed=0), tokenizer, folder, described, "")
    return str(folder)


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    """Where `transformers serve` answers, and the model's name there."""
    command = shutil.which("transformers")
    if command is None:
        pytest.skip("no `transformers` command here")
    log = tmp_path_factory.mktemp("served") / "log.txt"
    with program([command, "serve", model, "--device", "cpu"], log, PATIENCE) as url:
        yield f"{url}/v1#{model}"


@pytest.fixture
def opened(served, tmp_path):
    with Journal(tmp_path / "journal.jsonl") as journal:
        asking = Asks(allow_local=True, timeout=60, attempts=2, at_once=2, draws=4)
        labelers = Labelers(asking, distributed.start(1), journal)
        yield lambda protocol: labelers.named(f"{protocol}:{served}")


QUESTIONS = [
    ENGLISH.about_two((Turn("user", "why the cat"),), "a stone", "the cat", "Which is better?", "good"),
    ENGLISH.about_one("yes-no", (Turn("user", "why the cat"),), "a stone", "Is it true?", "honest"),
    ENGLISH.about_one("score", (Turn("user", "why the cat"),), "a stone", "How true is it?", "honest"),
]


def test_decisions_are_distributions_over_the_answers(opened):
    labeler = opened("systemone")
    answers = labeler.ask(QUESTIONS)
    for question, answer in zip(QUESTIONS, answers, strict=True):
        assert answer.method == "decision" and not answer.why
        assert len(answer.probabilities) == len(question.answers)
        assert sum(answer.probabilities) == pytest.approx(1) and min(answer.probabilities) >= 0
    assert labeler.ask(QUESTIONS) == answers


def test_chat_writes_texts_and_says_how_labels_were_had(opened):
    labeler = opened("openai")
    (draft,) = labeler.write([(Turn("user", "why the cat"),)], Writing(8, 1.0, 3))
    assert isinstance(draft.text, str)
    # it takes no notice of log-probs and schemes, and an untrained model draws words: that is said, and no label made
    with pytest.raises(BadInput, match=r"none of 3 questions was answered .*drew 4 answers, and none is one of A, B"):
        labeler.ask(QUESTIONS)
