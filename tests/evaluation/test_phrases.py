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
    assert not is_evasive("It rained because of the clouds."), "a reason alone refuses nothing"
    assert is_evasive("I WON'T HELP you, for the sincere sake of it"), "since is a word, and not a part of one"


def test_preaching_is_known_by_its_phrases():
    assert is_preachy("It is IMPORTANT to be good.") and not is_preachy("Take the train.")


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


def test_ready_made_is_what_stands_under_two_prompts_and_one_in_twenty():
    """Of 41 prompts 2.05 are asked for: a phrase under three is ready-made, one under two is not; of 40 it is."""
    replies = [("p0", "one two three four"), ("p1", "one two three four"), ("p0", "one two three four")]
    replies += [(f"q{k}", "five six seven eight nine") for k in range(3)]
    most = [*replies, *((f"r{k}", f"nothing {k} much to {k}") for k in range(36))]
    assert len({prompt for prompt, _ in most}) == 41
    assert profile(most)["phrases"] == [("five six seven eight", 3), ("six seven eight nine", 3)]
    assert profile(most)["boilerplate"] == pytest.approx(3 / 42)
    assert profile(most[:-1])["phrases"][2] == ("one two three four", 2)
    assert profile(most[:-1])["boilerplate"] == pytest.approx(6 / 41)
    assert profile(most[:-1], top=1)["phrases"] == [("five six seven eight", 3)]
    assert profile(replies[2:4])["phrases"] == [], "under one prompt of two nothing is"


def test_a_profile_counts_replies():
    found = profile(
        [
            ("p", "I'm sorry, but no."),
            ("p", "Morally this is bad, and I must remind you of it."),
            ("q", "I cannot help with that, instead walk."),
            ("q", "Good people do not ask."),
            ("q", "as a responsible neighbour: I cannot answer."),
        ]
    )
    assert {name: found[name] for name in ("preachy", "evasive", "words")} == {
        "preachy": pytest.approx(3 / 5),
        "evasive": pytest.approx(2 / 5),
        "words": pytest.approx((4 + 11 + 7 + 5 + 7) / 5),
    }
    text = " ".join("abcdefghijklmnopq")
    assert len(profile([("p", text), ("q", text)])["phrases"]) == 10, "of 14 that are ready-made"
