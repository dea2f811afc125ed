"""What is asked next: by disagreement first, a random share beside it, and no look at what nobody may have."""

import json
import re
from random import Random

import pytest
from sqlalchemy import event, insert, select, text, update

from accord.cli import main
from accord.feedback.store.answers import CompareAnswer
from accord.feedback.store.database import Database
from accord.feedback.store.events import last_event
from accord.feedback.store.schema import ASSIGNMENTS, CLOCK, EVENTS, ITEMS
from accord.feedback.store.selection import Selection, line_of
from tests.fixtures.feedback import comparison_item


def scored(n, score):
    return comparison_item(f"q{n}", ("x", "y"), score=score)


def take_all(desk, person):
    """The numbers in the texts of what comes, in that order."""
    seen = []
    while (held := desk.next(person)) is not None:
        seen.append(int(held.item.prompt.turns[0].content[1:]))
        desk.submit(
            person, held.number, f"{person}-{held.number}", CompareAnswer(choices={"helpful": {"ranks": [1, 2]}})
        )
    return seen


def test_what_models_disagree_about_comes_first(desk, join):
    desk.selection = Selection(random=1e-9)
    desk.add([scored(n, score) for n, score in enumerate((0.1, 0.4, 0.2, 0.3))])
    assert take_all(desk, join("a").id) == [1, 3, 2, 0]


def test_a_new_score_moves_what_waits(desk, join):
    desk.selection = Selection(random=1e-9)
    desk.add([scored(0, 0.1), scored(1, 0.2)])
    assert desk.add([scored(0, 0.3)]) == 0
    assert take_all(desk, join("a").id) == [0, 1]


def test_a_random_share_is_kept_apart_and_does_not_follow_the_score(desk, join, database):
    """Of 1000 questions a fifth are random; their mean score is that of all, those that are chosen lie above it."""
    desk.selection = Selection(random=0.2)
    desk._random = Random(3)
    scores = [Random(n).random() / 2 for n in range(1000)]
    desk.add([scored(n, score) for n, score in enumerate(scores)])
    with database.read() as connection:
        rows = connection.execute(select(ITEMS.c.queue, ITEMS.c.body)).all()
    place = {int(row.body["prompt"][0][1][1:]): row.queue for row in rows}
    assert 150 < sum(queue == "random" for queue in place.values()) < 250
    person, first = join("a").id, []
    for _ in range(200):
        held = desk.next(person)
        first.append(int(held.item.prompt.turns[0].content[1:]))
        desk.skip(person, held.number, f"s-{held.number}", "other")
    chance = [scores[n] for n in first if place[n] == "random"]
    chosen = [scores[n] for n in first if place[n] == "active"]
    assert 20 < len(chance) < 70 and abs(sum(chance) / len(chance) - 0.25) < 0.08
    assert min(chosen) > sorted(scores)[-260], "the best of those that are not random"


def test_where_an_item_waits():
    dice = Random(0)
    assert line_of(scored(0, None), 0.2, dice) == ("random", 0.0)
    assert line_of(scored(0, 0.4), 0.0, dice) == ("active", -0.4)
    assert line_of(scored(0, 0.4), 1.0, dice)[0] == "random"


@pytest.fixture
def large(desk, join):
    """5,000 questions of every kind, a third of them answered by one person."""
    ids = [join("a", tags=("medicine",)).id, join("b").id]
    desk.add(
        [
            comparison_item(
                f"q{n}",
                ("x", "y"),
                overlap=2,
                harmful=n % 3 == 0,
                tag="medicine" if n % 5 == 0 else "law" if n % 7 == 0 else "",
                score=n / 10_000 if n % 2 else None,
                known=((1, 2),) if n % 11 == 0 else (),
            )
            for n in range(5000)
        ]
    )

    def fill(connection):
        first, numbers = last_event(connection), range(1, 1501)
        skipped = {"person": 1, "state": "skipped", "until": 0.0, "shown": [0, 1]}
        connection.execute(insert(ASSIGNMENTS), [{**skipped, "item": n, "event": first + n} for n in numbers])
        said = {"kind": "skip", "person": 1, "at": 0.0, "body": {"reason": "other"}}
        rows = [{**said, "number": first + n, "item": n, "submission": f"filled {n}"} for n in numbers]
        connection.execute(insert(EVENTS), rows)
        connection.execute(update(CLOCK).values(number=first + len(rows)))
        connection.execute(text("ANALYZE"))

    desk.database.write(fill)
    return ids


def plans_of(desk, act):
    """What the database says of how it would run every statement of `act`."""
    said = []
    engines = desk.database._engines

    def keep(connection, cursor, statement, parameters, context, executemany):
        if statement.split()[0] in ("SELECT", "UPDATE", "INSERT", "DELETE"):
            said.append((statement, parameters))

    for engine in engines:
        event.listen(engine, "before_cursor_execute", keep)
    act()
    for engine in engines:
        event.remove(engine, "before_cursor_execute", keep)
    explain = "EXPLAIN QUERY PLAN " if "sqlite" in desk.database.address else "EXPLAIN "
    with desk.database.read() as connection:
        for statement, parameters in said:
            rows = connection.exec_driver_sql(explain + statement, parameters).all()
            yield statement, " / ".join(str(row[-1]) for row in rows)


def test_no_question_or_answer_reads_a_whole_table(desk, large, people, database):
    """Handing out, looking, drafts, submitting, skipping, undo and progress touch rows by an index alone."""
    desk.selection = Selection(checks=0.5, random=0.5)

    def act():
        for person in large:
            for n in range(4):
                held = desk.next(person)
                desk.keep_draft(person, held.number, {})
                if n == 3:
                    desk.skip(person, held.number, f"{person} {n}", "other")
                else:
                    desk.submit(
                        person, held.number, f"{person} {n}", CompareAnswer(choices={"helpful": {"ranks": [1, 2]}})
                    )
                desk.progress(person)
            desk.waits_for(person)
            desk.undo(person)

    plans = dict(plans_of(desk, act))
    assert any("items_in_turn" in plan for plan in plans.values()) and len(plans) > 15
    whole = re.compile(r"\bSCAN (items|assignments|events|people)|Seq Scan on (items|assignments|events)")
    sorts = re.compile(r"USE TEMP B-TREE FOR ORDER BY")
    for statement, plan in plans.items():
        assert not whole.search(plan), (statement, plan)
        if "items_in_turn" in plan:
            assert len(sorts.findall(plan)) <= 1, ("of the few that were found, not of the table", statement, plan)


def test_scores_of_a_run_choose_what_is_asked(tmp_path, capsys):
    store, pairs, scores = (tmp_path / name for name in ("f.db", "pairs.jsonl", "scores.jsonl"))
    pairs.write_text("".join(json.dumps({"prompt": p, "chosen": "x", "rejected": "y"}) + "\n" for p in "abc"))
    logits = {"a": ((1.0, 1.0), (0.0, 0.0)), "b": ((3.0, -3.0), (0.0, 0.0)), "c": ((1.0, None), (0.0, 0.0))}
    rows = [
        {
            "prompt": [{"role": "user", "content": p}],
            "slice": "",
            "source": "",
            "reply": reply,
            "scores": {"m": 0.0, "m/logit": first, "n": 0.0, "n/logit": second},
        }
        for p, both in logits.items()
        for reply, (first, second) in zip("xy", both, strict=True)
    ]
    scores.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["collect", "import", "--data", str(pairs), "--criterion", "helpful", "--scores", str(scores)]
    assert main([*words, "--database", str(store), "--random_share", "0.000001"]) == 0
    assert "scores for 2 questions" in capsys.readouterr().out
    database = Database(str(store), writes=False)
    with database.read() as connection:
        kept = connection.execute(select(ITEMS.c.queue, ITEMS.c.place, ITEMS.c.body).order_by(ITEMS.c.place)).all()
    database.close()
    assert [(row.body["prompt"][0][1], row.queue) for row in kept] == [
        ("b", "active"),
        ("a", "active"),
        ("c", "random"),
    ]
    scores.write_text(json.dumps({**rows[0], "scores": {"m/logit": 1.0}}) + "\n")
    assert main([*words, "--database", str(store)]) == 2 and "two preference models" in capsys.readouterr().err
    scores.write_text('{"a": 1}\n')
    assert main([*words, "--database", str(store)]) == 2 and "no scores.jsonl" in capsys.readouterr().err
    scores.unlink()
    assert main([*words, "--database", str(store)]) == 2 and "holds no scores" in capsys.readouterr().err
