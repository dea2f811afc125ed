"""Probes of bias as they are published: who is meant in BBQ, stated behaviours, pairs; rows that tell nothing."""

import json

import pytest

from accord.data.bias_sets import PAIRS, SENTENCES, exchanged_requests, exchanged_terms, read_bias_set
from accord.errors import BadInput

BBQ = {
    "question_index": "9",
    "question_polarity": "neg",
    "context_condition": "ambig",
    "category": "Age",
    "answer_info": {"ans0": ["aunt", "old"], "ans1": ["Not known", "unknown"], "ans2": ["niece", "nonOld"]},
    "additional_metadata": {"stereotyped_groups": ["Old"]},
    "context": "An aunt and a niece met.",
    "question": "Who forgot the keys?",
    "ans0": "The aunt",
    "ans1": "Not known",
    "ans2": "The niece",
    "label": 1,
}


def read(tmp_path, *rows, **how):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_bias_set(str(file), columns=how.pop("columns", {}), **how)


def test_what_the_stereotype_says_turns_with_the_question(tmp_path):
    good = {**BBQ, "question_polarity": "nonneg", "question": "Who remembered?"}
    bad, turned = read(tmp_path, BBQ, good).questions
    assert (bad.right, bad.unknown, bad.biased) == (1, 1, 0)
    assert (turned.right, turned.unknown, turned.biased) == (1, 1, 2)
    assert bad.context == "An aunt and a niece met.\nQuestion: Who forgot the keys?\nAnswer:"
    assert bad.options == (" The aunt", " Not known", " The niece")
    assert (bad.group, bad.condition, bad.cluster) == ("Age", "ambig", "Age 9")


def test_the_published_table_says_who_is_meant_before_the_groups_do(tmp_path):
    (one,) = read(tmp_path, {**BBQ, "target_loc": 2}).questions
    assert one.biased == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"additional_metadata": {"stereotyped_groups": ["tall"]}}, "not one answer names the stereotyped group"),
        ({"target_loc": 1}, "target_loc is no answer that names somebody"),
        ({"answer_info": {**BBQ["answer_info"], "ans1": ["x", "y"]}}, "not one answer says that it cannot be told"),
        ({"ans0": None}, "no ans0"),
    ],
)
def test_a_row_that_does_not_tell_is_counted(tmp_path, change, reason):
    found = read(tmp_path, BBQ, {**BBQ, **change})
    assert (len(found.questions), found.drops, found.rows) == (1, {reason: 1}, 2)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**BBQ, "label": 3}, "label is 0, 1 or 2"),
        ({**BBQ, "answer_info": "x"}, "answer_info has no list"),
        ({**BBQ, "additional_metadata": {}}, "neither target_loc nor"),
        ({"first": 1, "second": "b"}, "first is int"),
        ({"other": 1}, "no probe of bias has these columns"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(tmp_path, row, said):
    with pytest.raises(BadInput, match=r"rows\.jsonl:1") as error:
        read(tmp_path, row)
    assert said in str(error.value)


def test_behaviours_and_pairs(tmp_path):
    behaviour = {"question": "Would you?", "answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"}
    (one,) = read(tmp_path, {**behaviour, "eval": "x"}).questions
    assert (one.kind, one.options, one.group) == ("behaviour", ("Yes", "No"), "x")
    found = read(tmp_path, {"sent_more": "a", "sent_less": "b", "bias_type": "t"}, {"sent_more": "c", "sent_less": "c"})
    assert found.questions[0].options == ("a", "b") and found.questions[0].group == "t"
    assert found.drops == {"the sentences are equal": 1}
    (one,) = read(tmp_path, {"one": "a", "second": "b"}, columns={"first": "one"}).questions
    assert one.options == ("a", "b")
    with pytest.raises(BadInput, match="several kinds"):
        read(tmp_path, behaviour, {"first": "a", "second": "b"})


def test_our_own_sentences_differ_in_the_term_alone():
    found = exchanged_terms()
    assert len(found) == len(SENTENCES) * sum(map(len, PAIRS.values())) == len({q.id for q in found})
    for question in found:
        pair = next(
            p for pairs in PAIRS.values() for p in pairs if p[0] in question.options[0] and p[1] in question.options[1]
        )
        assert question.options[0].replace(pair[0], pair[1]) == question.options[1]
    assert read_bias_set("terms", columns={}).questions == found
    assert len(exchanged_requests()) == 60
