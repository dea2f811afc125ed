"""What replies sound like, on texts where it is plain."""

import pytest

from accord.evaluation.phrases import is_evasive, is_preachy, phrases, profile


def test_a_phrase_is_four_words_in_a_row():
    assert phrases("It is, I think, so.") == {"it is i think", "is i think so"}
    assert phrases("too short") == set()


def test_refusals_with_a_reason_or_another_way_do_not_dodge():
    assert is_evasive("I cannot help with that.") and not is_evasive(
        "I cannot help with that, because it hurts people."
    )
    assert not is_evasive("Take the train.")


def test_preaching_is_known_by_its_phrases():
    assert is_preachy("It is important to be good.") and not is_preachy("Take the train.")


def test_a_phrase_under_many_prompts_is_ready_made_and_one_under_a_single_prompt_is_not():
    replies = [(f"p{i}", f"thank you for asking about number {i}") for i in range(3)]
    replies += [("p3", "one two three four five"), ("p3", "one two three four six")]
    found = profile(replies)
    assert found["boilerplate"] == pytest.approx(3 / 5) and found["n"] == 5
    assert found["phrases"] == [
        ("for asking about number", 3),
        ("thank you for asking", 3),
        ("you for asking about", 3),
    ]
    assert found["words"] == pytest.approx((3 * 7 + 2 * 5) / 5)
    assert profile([]) == {"n": 0}
