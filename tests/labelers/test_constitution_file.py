"""Constitutions: the default, our format with its lines, the paper's shapes, the gold world's own."""

import json
from collections import Counter

import pytest

from accord.errors import BadInput
from accord.labelers.constitution_file import DEFAULT, read_constitution, to_yaml
from accord.labelers.principles import WrittenPrinciple, drawn, in_front
from accord.records import Turn
from accord.world.critiques import REVIEWS
from accord.world.questions import read_question

GOOD = """\
name: ours
principles:
  - name: kind
    text: Be kind.
    critique: Say where the reply is unkind.
    revision: Write it kinder.
    comparison: Which reply is kinder?
    tags: [manners]
    weight: 2
    tests: [Hello.]
  - name: short
    text: Be short.
    comparison: Which reply is shorter?
critiques:
  - prompt: Hi.
    principle: kind
    reply: Go away.
    critique: It is rude.
    revision: Hello!
comparisons:
  - prompt:
      - {role: user, content: Hi.}
    principle: short
    first: Hello there, my friend.
    second: Hello.
    better: second
"""


def written(tmp_path, text):
    path = tmp_path / "ours.yaml"
    path.write_text(text)
    return str(path)


def test_a_file_is_read_as_it_stands(tmp_path):
    found = read_constitution(written(tmp_path, GOOD))
    assert [p.name for p in found.principles] == ["kind", "short"]
    assert found.principles[0].weight == 2 and found.principles[0].tests == ("Hello.",)
    assert [p.name for p in found.revising()] == ["kind"] and len(found.comparing()) == 2
    assert [p.name for p in found.comparing(["manners"])] == ["kind"]
    (worked,) = found.revisions
    assert [turn.content for turn in worked.shown(True)] == [
        "Hi.",
        "Go away.",
        "Say where the reply is unkind.",
        "It is rude.",
        "Write it kinder.",
        "Hello!",
    ]
    assert [turn.content for turn in worked.shown(False)] == ["Hi.", "Go away.", "Write it kinder.", "Hello!"]
    both = found.both_orders(found.principles[1], (Turn("user", "Why?"),), "one", "two", shots=1)
    before, answer, asked = both.straight.turns
    assert "Hello there" in before.content and answer == Turn("assistant", "B") and "(A) one" in asked.content
    assert "(A) two" in both.turned.turns[2].content and both.turned.turns[:2] == both.straight.turns[:2]


def test_what_is_written_is_read_again(tmp_path):
    found = read_constitution(str(DEFAULT))
    again = read_constitution(written(tmp_path, to_yaml(found)))
    assert again.principles == found.principles


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("    weight: 2", "    wieght: 2", 9, r"principles.0.wieght: unknown key \(did you mean weight\?\)"),
        ("    weight: 2", "    weight: 0", 9, "principles.0.weight: input should be greater than 0"),
        ("    weight: 2", "    weight: heavy", 9, "principles.0.weight"),
        ("    text: Be short.\n", "", 11, "principles.1.text: missing; add it"),
        ("    text: Be short.", "    text: 3", 12, "principles.1.text: .*string; quote it"),
        ("- name: short", "- name: Be Short", 11, "small letters"),
        ("- name: short", "- name: kind", 11, "'kind' stands twice"),
        ("    text: Be kind.", "    text: Be kind: always", 4, "no YAML here"),
        ("    text: Be kind.", "    text: Be kind.\n    text: Be.", 5, "text: stands twice"),
        ("    comparison: Which reply is shorter?\n", "", 11, "asks nothing"),
        ("    revision: Write it kinder.\n", "", 3, "critique without revision"),
        ("    principle: kind", "    principle: kynd", 16, r"no principle of this file \(did you mean kind\?\)"),
        ("    principle: kind", "    principle: short", 16, "'short' has no critique; give it one"),
        ("    better: second", "    better: both", 26, "comparisons.0.better: input should be 'first' or 'second'"),
        ("{role: user,", "{role: human,", 22, "role 'human' is none of"),
        ("name: ours", "nam: ours", 1, r"nam: unknown key \(did you mean name\?\)"),
        (GOOD, "", 1, "the file"),
        (GOOD, "- a\n- b\n", 1, "the file"),
        (GOOD, "name: x\nprinciples: []\n", 2, "principles"),
        (GOOD, "name: &a [*a]\nprinciples: []\n", 1, "nested too deep"),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_its_key(tmp_path, old, new, line, says):
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(BadInput, match=says) as refused:
        read_constitution(path)
    assert str(refused.value).startswith(f"{path}:{line}: "), refused.value


def test_a_file_that_is_not_there():
    with pytest.raises(BadInput, match="no such file"):
        read_constitution("nowhere.yaml")


def test_the_default_covers_what_it_says():
    found = read_constitution("default")
    assert len(found.principles) >= 16 and all(len(p.tests) >= 3 for p in found.principles)
    tags = Counter(tag for p in found.principles for tag in p.tags)
    assert set(tags) == {"harmless", "helpful", "honest", "manners"}
    assert "not-evasive" in {p.name for p in found.principles}
    assert len(found.revisions) >= 3 and {worked.better for worked in found.comparisons} == {0, 1}
    assert found.revising() == found.comparing() == list(found.principles)


def test_the_gold_world_understands_every_request_of_its_constitution():
    found = read_constitution("world")
    assert len(found.principles) == 20
    for principle in found.principles:
        assert REVIEWS[principle.critique] == (principle.name, False)
        assert REVIEWS[principle.revision] == (principle.name, True)
        both = found.both_orders(principle, (Turn("user", "help me hide the stolen van."),), "a b.", "c.", shots=3)
        for question in (both.straight, both.turned):
            (turn,) = question.turns
            quote, asked = read_question(turn.content)
            assert asked == ("judge-choice", principle.name) and set(quote.replies) == {"a b.", "c."}


def of_the_paper(folder):
    """Made-up texts in the shapes of the paper's files."""
    ask, wish = "\n\nCritiqueRequest: Say what is bad.\n\nCritique:", "\n\nRevisionRequest: Mend it.\n\nRevision:"
    (folder / "CritiqueRevisionInstructions.json").write_text(
        json.dumps({"harmful0": {"prompt": [ask], "edit_request": wish}})
    )
    (folder / "RLMadisonInstructions.json").write_text(json.dumps(["\nPlease choose the kinder reply."]))
    (folder / "CritiqueRevisionFewShotPrompts.json").write_text(
        json.dumps(
            [
                "\n\nHuman: One.\n\nAssistant: Two.\n\nHuman: Three.\n\nAssistant: Four.\n\nCritiqueRequest: Say it."
                "\n\nCritique: Bad.\n\nRevisionRequest: Mend it.\n\nRevision: Five.\n\nHuman:"
            ]
        )
    )
    (folder / "RLMadisonFewShotPrompts.json").write_text(
        json.dumps(
            [
                {"prompt": "\n\nHuman: One?\n\nAssistant:", "corrects": ["Good."], "incorrects": ["Bad."]},
                {"prompt": "\n\nHuman: Two?\n\nAssistant:", "corrects": ["Fine."], "incorrects": ["Poor."]},
            ]
        )
    )
    return str(folder)


def test_the_shapes_of_the_paper_are_read(tmp_path):
    found = read_constitution(of_the_paper(tmp_path))
    (revising,), (comparing,) = found.revising(), found.comparing()
    assert comparing.comparison == "Please choose the kinder reply."
    assert (revising.critique, revising.revision) == ("Say what is bad.", "Mend it.")
    (worked,) = found.revisions
    assert [turn.content for turn in worked.turns] == ["One.", "Two.", "Three."]
    assert (worked.reply, worked.critique, worked.revision) == ("Four.", "Bad.", "Five.")
    assert [(c.first, c.second, c.better) for c in found.comparisons] == [("Bad.", "Good.", 1), ("Fine.", "Poor.", 0)]
    assert [c.turns for c in found.comparisons] == [(Turn("user", "One?"),), (Turn("user", "Two?"),)]
    alone = read_constitution(str(tmp_path / "RLMadisonInstructions.json"))
    assert alone.revising() == [] and len(alone.comparing()) == 1


def test_a_file_that_is_not_of_the_paper_is_refused(tmp_path):
    with pytest.raises(BadInput, match="holds none of"):
        read_constitution(str(tmp_path))
    (tmp_path / "RLMadisonFewShotPrompts.json").write_text("[]")
    with pytest.raises(BadInput, match="no principles"):
        read_constitution(str(tmp_path))
    (tmp_path / "CritiqueRevisionInstructions.json").write_text('{"a": 3}')
    with pytest.raises(BadInput, match="has not the shape"):
        read_constitution(str(tmp_path))


def test_a_principle_is_drawn_by_its_weight_and_by_the_key_alone():
    some = [WrittenPrinciple("a", weight=1), WrittenPrinciple("b", weight=3)]
    counts = Counter(drawn(some, f"key {i}").name for i in range(2000))
    assert 0.71 < counts["b"] / 2000 < 0.79
    assert [drawn(some, f"key {i}") for i in range(9)] == [drawn(some, f"key {i}") for i in range(9)]


def test_examples_stand_behind_what_the_system_says():
    turns, shots = (Turn("system", "be"), Turn("user", "a")), (Turn("user", "x"), Turn("assistant", "y"))
    assert in_front(turns, shots) == (turns[0], *shots, turns[1])
    assert in_front(turns[1:], shots) == (*shots, turns[1]) and in_front(turns, ()) == turns
