"""Cells by field: what each reading takes, what it refuses with its column, and what it counts as nothing."""

import pytest

from accord.data.columns import Fields
from accord.data.conversations import Dropped
from accord.errors import BadInput
from accord.records import Turn
from tests.fixtures.rows import assistant, user

NAN = float("nan")


def cell(value, **columns):
    return Fields({"cell": value, "other": 1}, "here", columns)


def test_a_column_that_is_missing_is_named_as_the_file_has_it():
    cells = Fields({"a": 1, "b": 2}, "here", {"asked": "q"})
    with pytest.raises(BadInput, match=r"here: column 'q' is missing; there are 'a', 'b'\."):
        cells.get("asked")
    with pytest.raises(BadInput, match=r"here: column 'c' is missing"):
        cells.get("c")
    # named for a field, and there under the field's own name
    assert Fields({"asked": 3}, "here", {"asked": "q"}).get("asked") == 3


@pytest.mark.parametrize("value", [None, NAN])
def test_a_null_is_counted_under_the_column_of_the_file(value):
    with pytest.raises(Dropped, match=r"^no cell$"):
        cell(value).get("cell")
    with pytest.raises(Dropped, match=r"^no named$"):
        Fields({"named": value, "cell": value}, "here", {"cell": "named"}).get("cell")
    with pytest.raises(Dropped, match=r"^no named$"):
        Fields({"named": value}, "here", {"cell": "named"}).get("cell")


@pytest.mark.parametrize(
    ("value", "has"), [(None, False), (NAN, False), ("", False), (" ", True), (0, True), ([], True)]
)
def test_whether_something_stands_in_a_cell(value, has):
    assert cell(value).has("cell") is has
    assert not cell(value).has("elsewhere")


def test_renamed_cells_stand_under_both_names_and_share_their_notes():
    cells = Fields({"a": 1, "b": 2}, "here", {"b": "x"})
    other = cells.renamed({"c": "a", "d": "missing"})
    assert other.values == {"a": 1, "b": 2, "c": 1}
    assert other.columns == {"b": "x", "c": "a", "d": "missing"} and other.where == "here"
    other.note("seen")
    assert cells.notes == {"seen": None}
    assert str(other.wrong("c", "text")) == "here: column 'a' must hold text."


@pytest.mark.parametrize(("value", "text", "noted"), [("a ", "a ", False), (7, "7", True), (0.5, "0.5", True)])
def test_a_number_is_text_and_noted(value, text, noted):
    cells = cell(value)
    assert cells.text("cell") == text
    assert list(cells.notes) == ["a number in column cell, read as text"] * noted


def test_what_is_no_text():
    with pytest.raises(Dropped, match=r"^cell is no text$"):
        cell(True).text("cell")
    with pytest.raises(Dropped, match=r"^named is no text$"):
        cell(False, cell="named").text("cell")
    with pytest.raises(BadInput, match="here: column 'cell' must hold text"):
        cell(["a"]).text("cell")
    cells = cell(7, cell="named")
    assert cells.text("cell") == "7" and list(cells.notes) == ["a number in column named, read as text"]


@pytest.mark.parametrize(("value", "number"), [(3, 3), (-0.5, -0.5), ("2.5", 2.5), ("-1e3", -1000), (0, 0)])
def test_a_number_may_be_written_as_text(value, number):
    assert cell(value).number("cell") == number


@pytest.mark.parametrize("value", ["", "nan", None, NAN])
def test_a_number_that_is_none_is_counted(value):
    with pytest.raises(Dropped, match=r"^no cell$"):
        cell(value).number("cell")
    with pytest.raises(Dropped, match=r"^no named$"):
        Fields({"named": value, "cell": value}, "here", {"cell": "named"}).number("cell")


@pytest.mark.parametrize("value", ["much", "inf", float("-inf"), True, [1]])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(BadInput, match="here: column 'cell' must hold a finite number"):
        cell(value).number("cell")


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        *((value, True) for value in (True, 1, 1.0, "safe", "True", "YES", "1", "1.0")),
        *((value, False) for value in (False, 0, 0.0, "Unsafe", "false", "no", "0", "0.0")),
    ],
)
def test_a_flag_in_its_many_forms(value, flag):
    assert cell(value).flag("cell") is flag


@pytest.mark.parametrize("value", [2, 0.5, "maybe", "2", [1], -1])
def test_what_is_no_flag_is_refused(value):
    with pytest.raises(BadInput, match=r"here: column 'cell' must hold true or false \(0 or 1\)"):
        cell(value).flag("cell")


@pytest.mark.parametrize("columns", [{}, {"cell": "named"}])
def test_a_flag_of_empty_text_is_counted(columns):
    with pytest.raises(Dropped, match=f"^no {columns.get('cell', 'cell')}$"):
        cell("", **columns).flag("cell")


@pytest.mark.parametrize(("value", "index"), [(0, 0), (1, 1), ("0", 0), ("1", 1), (1.0, 1)])
def test_the_number_of_a_response(value, index):
    assert cell(value).index("cell") == index and type(cell(value).index("cell")) is int


@pytest.mark.parametrize("value", [True, False, 2, -1, "2", "a"])
def test_what_numbers_no_response_is_refused(value):
    with pytest.raises(BadInput, match="here: column 'cell' must hold 0 or 1, the number of a response"):
        cell(value).index("cell")


@pytest.mark.parametrize(
    ("value", "items"),
    [([1, "a"], [1, "a"]), ((2,), [2]), (' ["a", 1]', ["a", 1]), ("['a', None]", ["a", None]), ([], [])],
)
def test_a_list_may_be_written_as_text(value, items):
    assert cell(value).items("cell") == items


@pytest.mark.parametrize("value", ["a", "[a", '{"a": 1}', {"a": 1}, 5])
def test_what_is_no_list_is_refused(value):
    with pytest.raises(BadInput, match="here: column 'cell' must hold a list"):
        cell(value).items("cell")


def test_whole_numbers():
    assert cell([2, 3.0, -1]).whole_numbers("cell") == (2, 3, -1)
    assert all(type(v) is int for v in cell([2, 3.0]).whole_numbers("cell"))
    for value in ([1, 0.5], [True], ["1"], [1, None]):
        with pytest.raises(BadInput, match="here: column 'cell' must hold a list of whole numbers"):
            cell(value).whole_numbers("cell")


def test_names_are_as_many_texts_as_there_are_replies():
    assert cell(["x", "y"]).names("cell", 2) == ("x", "y")
    for value, count in ((["x", "y"], 3), (["x", "y"], 1), (["x", ""], 2), (["x", 5], 2)):
        with pytest.raises(BadInput, match=f"here: column 'cell' must hold {count} names, one for each reply"):
            cell(value).names("cell", count)


def test_a_prompt_is_text_a_transcript_or_messages():
    assert cell(" why ").turns("cell") == (Turn("user", " why "),)
    assert cell("\n\nHuman: why\n\nAssistant:").turns("cell") == (Turn("user", "why"),)
    talk = (Turn("user", "q"), Turn("assistant", "a"))
    assert cell([user("q"), assistant("a")]).turns("cell") == talk
    assert cell("[{'role': 'user', 'content': 'q'}, {'role': 'assistant', 'content': 'a'}]").turns("cell") == talk
    assert cell(user("q")).turns("cell") == talk[:1]
    cells = cell(5)
    assert cells.turns("cell") == (Turn("user", "5"),) and len(cells.notes) == 1
    with pytest.raises(Dropped, match="cell is no text"):
        cell(True).turns("cell")


def test_a_side_is_a_reply_with_its_prompt():
    asked = (Turn("user", "q"),)
    assert cell(0).side("cell", " a\n", asked) == (asked, " a\n")
    assert cell(0).side("cell", " a\n", asked, strip=True) == (asked, "a")
    assert cell(0).side("cell", [assistant("a")], asked) == (asked, "a")
    assert cell(0).side("cell", [user("q"), assistant("a")], asked) == (asked, "a")
    assert cell(0).side("cell", [user("q"), assistant("a")], ()) == (asked, "a")
    assert cell(0).side("cell", "[{'role': 'assistant', 'content': 'a'}]", asked) == (asked, "a")
    for value in ([], [user("q")]):
        with pytest.raises(Dropped, match=r"^no reply$"):
            cell(0).side("cell", value, asked)
    cells = cell(0)
    assert cells.side("cell", 1.5, asked) == (asked, "1.5")
    assert list(cells.notes) == ["a number in column cell, read as text"]
    with pytest.raises(Dropped, match=r"^cell is no text$"):
        cell(0).side("cell", True, asked)


def test_messages_are_refused_and_noted_under_their_column():
    cells = cell([{**user("q"), "thinking": "hm"}])
    assert cells.turns("cell") == (Turn("user", "q"),)
    assert list(cells.notes) == ["thoughts beside the content, left out"]
    with pytest.raises(BadInput, match="here: column 'named' must hold messages that are objects"):
        cell(["q"], cell="named").turns("cell")
