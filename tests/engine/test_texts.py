"""Records as groups of token ids, and texts that end a reply, by hand."""

from types import SimpleNamespace

import pytest

from accord.engine.packing import Group, reply_group
from accord.engine.texts import (
    RankedReplies,
    TextStream,
    conversation_group,
    document_groups,
    rollout_groups,
    said,
    says,
    text_group,
)
from accord.records import Demonstration, Document, Prompt, Rollout, Turn

# a tokenizer whose tokens are bytes
BYTES = SimpleNamespace(text=lambda ids: bytes(ids).decode(errors="replace"))


def test_ranks_give_their_pairs_and_ties_and_equal_tokens_are_seen():
    prompt = Prompt((Turn("user", "why"),), "", "by hand")
    ranked = RankedReplies(prompt, ("a", "b", "c"), reply_group((5,), (6, 7), (8,), (9,)), ranks=(2, 1, 2))
    assert ranked.pairs == ((1, 0), (1, 2)) and ranked.ties == ((0, 2),) and not ranked.alike
    assert ranked.probability == 1.0
    same = RankedReplies(prompt, ("a", "b", "c"), reply_group((5,), (6, 7), (8,), (6, 7)))
    assert same.alike and same.pairs == same.ties == ()


def test_replies_that_are_texts_share_their_prompt(renderer):
    turns = (Turn("user", "why"), Turn("assistant", "the cat"), Turn("user", "how"))
    group = text_group(renderer, Prompt(turns, "", "by hand"), ["a stone", "the dog"])
    assert group.prefix == renderer.prompt_ids(turns)
    assert group.replies == (renderer.reply_ids("a stone", turns), renderer.reply_ids("the dog", turns))
    assert all(all(mask) for mask in group.masks)


def test_a_rollout_is_learned_from_in_the_tokens_that_were_drawn():
    rollouts = [
        Rollout((5, 6), (7, 8, 2), (-0.5, -1.0, -0.1), "stop", 1.0, ""),
        Rollout((9,), (4,), (-2.0,), "length", 1.0, ""),
    ]
    assert rollout_groups(rollouts) == [
        Group((5, 6), ((7, 8, 2),), ((True, True, True),)),
        Group((9,), ((4,),), ((True,),)),
    ]


def test_a_document_is_cut_into_pieces_that_are_all_used():
    renderer = SimpleNamespace(document=lambda text: tuple(map(int, text.split())))
    documents = [Document("1 2 3 4 5 6 7 8", "by hand"), Document("9 10 11 12", "by hand"), Document("13", "by hand")]
    groups = document_groups(renderer, documents, 3)
    # 12 and 13 stand alone, where nothing predicts them
    assert [group.replies for group in groups] == [((1, 2, 3),), ((4, 5, 6),), ((7, 8),), ((9, 10, 11),)]
    assert [group.masks for group in groups[:3]] == [((True,) * 3,), ((True,) * 3,), ((True,) * 2,)]
    assert all(group.prefix == () for group in groups)


def test_a_conversation_is_learned_from_in_all_turns_of_the_assistant_or_in_the_last(renderer):
    turns = (Turn("user", "why"), Turn("assistant", "the cat"), Turn("user", "how"))
    demonstration = Demonstration(Prompt(turns, "", "by hand"), "a stone")
    every, last = (conversation_group(renderer, demonstration, how) for how in ("assistant", "reply"))
    reply = renderer.reply_ids("a stone", turns)
    assert every.replies == last.replies == ((*renderer.prompt_ids(turns), *reply),) and every.prefix == ()
    assert last.masks[0] == (False,) * len(renderer.prompt_ids(turns)) + (True,) * len(reply)
    assert sum(every.masks[0]) == len(reply) + len(renderer.reply_ids("the cat", turns[:1]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so it ends", True),
        ("so it END", False),
        ("ends" + 12 * ".", True),
        ("ends" + 13 * ".", False),  # further back than where a last token can have put it
        ("daß", True),
        ("", False),
    ],
)
def test_a_text_stops_a_reply_at_whose_end_it_stands(text, expected):
    """Of the longest text's four bytes twice as many tokens are read, and eight for what the last token is of."""
    assert says(BYTES, ["ß", "ends"], list(text.encode())) is expected


def test_a_stop_is_as_long_as_its_bytes():
    """Three characters of nine bytes: 26 tokens are read, where as many letters would have 14."""
    text = "一二三" + 17 * "."
    assert says(BYTES, ["一二三"], list(text.encode()))
    assert not says(BYTES, ["一二三"], list((text + ".").encode()))


@pytest.mark.parametrize(
    ("stops", "expected"),
    [(["dog", "cat"], "the "), (["the"], ""), (["cow"], "the cat and the dog"), ([], "the cat and the dog")],
)
def test_a_reply_is_what_stands_before_the_first_text_that_stops_it(stops, expected):
    assert said(BYTES, stops, list(b"the cat and the dog")) == expected


def streamed(text, stops, renderer=BYTES):
    """The pieces that are told after each token, and the rest."""
    ids, stream = list(text.encode()), TextStream(renderer, stops)
    return [stream.more(ids[: k + 1]) for k in range(len(ids))], stream.rest(ids)


def test_a_reply_without_stops_is_told_at_once():
    assert streamed("abc", []) == (["a", "b", "c"], "")


def test_what_may_begin_a_stop_is_held_back():
    """Of the longest, of three characters, two: told are no more than those before them."""
    assert streamed("abcde", ["x", "xyz"]) == (["", "", "a", "b", "c"], "de")
    assert streamed("abxyz", ["xyz"]) == (["", "", "a", "b", ""], "")


def test_a_character_waits_for_its_last_byte():
    assert streamed("aßb", []) == (["a", "", "ß", "b"], "")


def test_nothing_is_taken_back_where_a_text_changes():
    """A tokenizer may write what it wrote before otherwise: then nothing is added to what was told."""
    texts = {1: "ab", 2: "aXc", 3: "abcd"}
    renderer = SimpleNamespace(text=lambda ids: texts[len(ids)])
    stream = TextStream(renderer, [])
    assert [stream.more([0] * n) for n in (1, 2, 3)] == ["ab", "", "cd"]
