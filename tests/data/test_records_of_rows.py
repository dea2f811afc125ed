"""From what a row says to records: every field of each kind, and each reason for which a row gives none."""

import json
from dataclasses import replace

import pytest

from accord.data.conversations import Dropped
from accord.data.formats import Row
from accord.data.parse import HEAD, Reader, check_id, cut_at_difference, make_records, with_shapes
from accord.data.parts import Parts, Ranking, Verdict
from accord.errors import BadInput
from accord.records import Comparison, Demonstration, Document, Judgement, Prompt, Turn

Q = (Turn("user", "q"),)
LONG = (*Q, Turn("assistant", "a"), Turn("user", "r"))
PROMPT = Prompt(Q, "benign", "file")
HELPFUL = Ranking("helpful", (2, 1, 3), 0.75, (2, 0, 1), 0.625, True, "ai")
HONEST = Ranking("honest", (1, 2, 2))
PLAIN = Ranking("", (3, 2, 1))
SAID = Parts(
    prompts=(Q, Q, Q),
    replies=("one", "two", "three"),
    ideal=1,
    rankings=(HELPFUL, HONEST, PLAIN),
    slice="benign",
    source="file",
    labeler="gold",
)
JUDGED = replace(
    SAID,
    rankings=(),
    ideal=-1,
    verdicts=(
        Verdict(1, "harmless", "safe", 1.0, "theft", 2.5, "ai"),
        Verdict(0, "", "rating", -0.5),
        Verdict(2, "honest", "good", 0.0),
    ),
)


def of_two(a, b, **more):
    return Parts(prompts=(a, b), replies=("one", "two"), rankings=(Ranking("", (1, 2)),), ideal=0, **more)


def reason(kind, parts, criterion=None):
    with pytest.raises(Dropped) as dropped:
        make_records(kind, parts, criterion)
    return str(dropped.value)


# Records


def test_a_document_a_prompt_and_a_demonstration():
    assert make_records("document", Parts(text=" a text ", source="file")) == [Document(" a text ", "file")]
    assert make_records("prompt", SAID) == [PROMPT]
    assert make_records("demonstration", SAID) == [Demonstration(PROMPT, "two")]


def test_comparisons_of_the_criterion_that_is_asked_for_and_of_none():
    replies = ("one", "two", "three")
    helpful = Comparison(PROMPT, replies, (2, 1, 3), "helpful", "ai", 0.75, (2, 0, 1), 0.625, True)
    plain = Comparison(PROMPT, replies, (3, 2, 1), "helpful", "gold", 0.0, (0, 1, 2))
    assert make_records("comparison", SAID, "helpful") == [helpful, plain]
    honest = Comparison(PROMPT, replies, (1, 2, 2), "honest", "gold", 0.0, (0, 1, 2))
    assert make_records("comparison", SAID) == [helpful, honest, replace(plain, criterion="")]
    assert make_records("comparison", replace(SAID, snapshots=("x", "y", "z")), "honest") == [
        replace(honest, snapshots=("x", "y", "z")),
        replace(plain, criterion="honest", snapshots=("x", "y", "z")),
    ]


def test_battles_know_no_order_that_was_not_said():
    named = replace(SAID, snapshots=("x", "y", "z"))
    helpful, plain = make_records("battle", named, "helpful")
    assert helpful == Comparison(
        PROMPT, SAID.replies, (2, 1, 3), "helpful", "ai", 0.75, (2, 0, 1), 0.625, True, ("x", "y", "z")
    )
    assert plain == Comparison(PROMPT, SAID.replies, (3, 2, 1), "helpful", "gold", 0.0, (), snapshots=("x", "y", "z"))


def test_judgements_of_the_criterion_that_is_asked_for_and_of_none():
    safe = Judgement(PROMPT, "two", "harmless", "safe", 1.0, "ai", "theft", 2.5)
    rating = Judgement(PROMPT, "one", "harmless", "rating", -0.5, "gold", "", 0.0)
    good = Judgement(PROMPT, "three", "honest", "good", 0.0, "gold", "", 0.0)
    assert make_records("judgement", JUDGED, "harmless") == [safe, rating]
    assert make_records("judgement", JUDGED) == [safe, replace(rating, criterion=""), good]


def test_a_reply_that_stands_there_twice_is_said_once():
    parts = Parts(
        prompts=(Q, Q, LONG[:1], Q),
        replies=("one", "one", "two", "three"),
        first=(0, 2, 3),
        rankings=(Ranking("", (1, 1, 2, 3), 0.5),),
    )
    (found,) = make_records("comparison", parts, "helpful")
    assert (found.replies, found.ranks, found.strength) == (("one", "two", "three"), (1, 2, 3), 0.5)
    assert found.order == (0, 1, 2)


# Reasons


@pytest.mark.parametrize(
    ("kind", "parts", "said"),
    [
        ("document", Parts(text=" \n"), "empty text"),
        ("document", replace(SAID, text="a text"), "other kind of record"),
        ("prompt", Parts(text="a text"), "other kind of record"),
        ("comparison", Parts(text="a text"), "other kind of record"),
        ("prompt", of_two(Q, (Turn("user", "r"),)), "prompts differ"),
        ("prompt", of_two(Q, LONG), "sides part before the last turn"),
        ("prompt", of_two((*Q, Turn("assistant", "b")), LONG), "sides part before the last turn"),
        ("prompt", of_two(Q, (*Q, Turn("user", "r"))), "prompts differ"),
        ("prompt", Parts(prompts=((Turn("user", " "), Turn("tool", "\n")),)), "empty prompt"),
        ("prompt", Parts(prompts=((),)), "empty prompt"),
        ("prompt", Parts(prompts=(LONG[:2],)), "prompt ends with the assistant"),
        ("prompt", Parts(prompts=(LONG[:2],), replies=("b",)), "two assistant turns at the end"),
        ("demonstration", Parts(prompts=(Q,)), "no reply"),
        ("demonstration", Parts(prompts=(Q,), stored=("prompt", "")), "other kind of record"),
        ("demonstration", JUDGED, "other kind of record"),
        ("demonstration", replace(SAID, ideal=-1), "tie"),
        ("demonstration", replace(SAID, replies=("one", " \n", "three")), "empty reply"),
        ("comparison", JUDGED, "other kind of record"),
        ("comparison", replace(SAID, replies=("one", "two", " ")), "empty reply"),
        ("comparison", replace(SAID, replies=("one", "two", " one\n")), "equal replies"),
        ("battle", JUDGED, "other kind of record"),
        ("battle", replace(JUDGED, snapshots=("x", "y", "z")), "other kind of record"),
        ("battle", SAID, "no snapshot named"),
        ("battle", replace(SAID, snapshots=("x", "y", "x")), "a snapshot against itself"),
        ("battle", replace(of_two(Q, (Turn("user", "r"),)), snapshots=("x", "y")), "prompts differ"),
        ("judgement", SAID, "other kind of record"),
        ("judgement", replace(JUDGED, replies=("one", " ", "three")), "empty reply"),
    ],
)
def test_why_a_row_gives_no_record(kind, parts, said):
    assert reason(kind, parts) == said


def test_another_criterion_gives_no_record():
    assert reason("comparison", replace(SAID, rankings=(HONEST,)), "helpful") == "other criterion"
    named = replace(SAID, rankings=(HONEST,), snapshots=("x", "y", "z"))
    assert reason("battle", named, "helpful") == "other criterion"
    assert reason("judgement", replace(JUDGED, verdicts=JUDGED.verdicts[::2]), "helpful") == "other criterion"
    # an empty reply counts where it is the one that is judged
    empty = replace(JUDGED, replies=("one", "two", ""))
    assert len(make_records("judgement", empty, "harmless")) == 2
    # white space around a prompt's turns is none of its own
    assert make_records("prompt", Parts(prompts=((Turn("system", ""), *Q),)))


def test_a_battle_is_about_the_turns_that_all_sides_begin_with():
    parts = replace(of_two(LONG, (*LONG[:2], Turn("user", "s"))), snapshots=("x", "y"))
    (found,) = make_records("battle", parts, "helpful")
    assert found.prompt.turns == LONG[:2]
    (found,) = make_records("battle", replace(of_two(Q, LONG), snapshots=("x", "y")), "helpful")
    assert found.prompt.turns == Q


# Sides that part early


def test_sides_are_cut_at_the_first_answers_that_differ():
    other = (*LONG[:1], Turn("assistant", "b"), Turn("user", "s"))
    parts = of_two(LONG, other, notes=("seen",))
    cut = replace(parts, prompts=(Q, Q), replies=("a", "b"), notes=("seen", "cut where the sides part"))
    assert cut_at_difference(parts) == cut
    assert cut_at_difference(of_two(Q, LONG)).replies == ("one", "a")
    longer = (*LONG, Turn("assistant", "c"), Turn("user", "t"))
    assert cut_at_difference(of_two(longer, LONG)) == replace(
        of_two(LONG, LONG), replies=("c", "two"), notes=("cut where the sides part",)
    )


@pytest.mark.parametrize(
    "parts",
    [
        of_two(LONG, LONG),
        Parts(prompts=(LONG,), replies=("one",)),
        Parts(text="a text"),
        of_two(Q, (Turn("user", "r"),)),
        of_two(Q, (*Q, Turn("user", "r"))),
    ],
)
def test_sides_that_do_not_part_at_an_answer_stay(parts):
    assert cut_at_difference(parts) is parts


# A reader


def rows_of(tmp_path, *rows, name="a.jsonl"):
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / name)


def test_a_reader_fills_in_slice_and_source_where_a_row_has_none(tmp_path):
    source = rows_of(tmp_path, {"prompt": "q"}, {"prompt": "r", "slice": "own", "from": "book"}, {"prompt": None})
    how = Reader(slice="named", columns={"source": "from"})
    with pytest.raises(BadInput, match="there is no column 'from'"):
        list(how.rows(source, "prompt"))
    source = rows_of(
        tmp_path,
        {"prompt": "q", "from": None},
        {"prompt": "r", "slice": "own", "from": "book"},
        {"prompt": None, "from": ""},
    )
    (row, shape, first), (_, _, second), (_, _, third) = how.rows(source, "prompt")
    assert (row, shape) == (Row({"prompt": "q", "from": None}, f"{source}:1", source), "prompt")
    assert (first.slice, first.source, second.slice, second.source) == ("named", source, "own", "book")
    assert third == "no prompt"


def test_columns_of_the_source_come_before_those_of_the_reader(tmp_path):
    source = rows_of(tmp_path, {"a": "q", "b": "r"})
    ((_, _, parts),) = Reader(columns={"prompt": "a"}).rows(f"{source}?prompt=b", "prompt")
    assert parts.prompts == ((Turn("user", "r"),),)


def test_a_reader_takes_so_many_rows_and_lines_as_prompts(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    source = str(tmp_path / "a.txt")
    assert [parts.prompts[0][0].content for _, _, parts in Reader().rows(source, "prompt")] == ["one", "two"]
    assert [parts.text for _, _, parts in Reader().rows(source, "document")] == ["one\n\ntwo"]
    assert [parts.text for _, _, parts in Reader().rows(source, None)] == ["one\n\ntwo"]
    assert len(list(Reader(max_rows=1).rows(source, "prompt"))) == 1


def test_uneven_sides_are_cut_on_request_alone(tmp_path):
    sides = {
        side: [{"role": turn.role, "content": turn.content} for turn in (*turns, Turn("assistant", side))]
        for side, turns in (("chosen", Q), ("rejected", LONG))
    }
    source = rows_of(tmp_path, sides)
    ((_, _, kept),) = Reader().rows(source, "comparison")
    ((_, _, cut),) = Reader(uneven="cut").rows(source, "comparison")
    assert kept.prompts == (Q, LONG) and kept.notes == ()
    assert (cut.prompts, cut.replies) == ((Q, Q), ("chosen", "a"))


def test_the_first_hundred_rows_of_a_file_tell_its_shape():
    def table(place, count=HEAD + 20):
        return [
            Row({"prompt": "q", "completion": "a" if k >= place else None}, f"f:{k + 1}", "f") for k in range(count)
        ]

    assert HEAD == 100
    assert {shape for _, shape in with_shapes(table(HEAD - 1), {}, None)} == {"prompt and completion"}
    assert {shape for _, shape in with_shapes(table(HEAD), {}, None)} == {"prompt"}
    rows = [row for row, _ in with_shapes(table(0), {}, None)]
    assert rows == table(0)
    with pytest.raises(BadInput, match=r"^f:1: no comparisons can be read"):
        list(with_shapes(table(0), {}, "comparison"))


def test_each_file_has_a_shape_of_its_own():
    rows = [Row({"prompt": "q"}, "a:1", "a"), Row({"text": "t"}, "b:1", "b"), Row({"prompt": "q"}, "c:1", "c")]
    assert [(row.where, shape) for row, shape in with_shapes(rows, {}, None)] == [
        ("a:1", "prompt"),
        ("b:1", "text"),
        ("c:1", "prompt"),
    ]


def test_an_id_is_looked_at_where_the_row_has_one_of_its_kind():
    row = Row({}, "f:7", "f")
    for stored in (("prompt", "x"), ("prompt", ""), ("judgement", "y"), ("", "y")):
        check_id(Parts(stored=stored), "prompt", "x", row)
    with pytest.raises(BadInput, match=r"^f:7: the id of this prompt does not fit its content; .* remove the key 'id'"):
        check_id(Parts(stored=("prompt", "y")), "prompt", "x", row)
