"""`accord collect import`, `export` and `backup`, as commands: what goes out reads back equal."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from accord.cli import main
from accord.data.rows import write_records
from accord.data.sources import read_comparisons, read_demonstrations, read_judgements
from accord.feedback.store.answers import CompareAnswer, DemonstrateAnswer, SafetyAnswer
from accord.feedback.store.database import Database
from accord.feedback.store.desk import Desk
from accord.feedback.store.people import People
from accord.feedback.store.questions import Item
from accord.records import Comparison
from accord.stages.collect.config import CollectImport
from tests.fixtures.feedback import PASSWORD, comparison_item, prompt

VERDICTS = [
    {"ranks": [1, 2], "strength": 3},
    {"ranks": [2, 1]},
    {"ranks": [1, 1]},
    {"ranks": [1, 1], "all_bad": True},
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Four comparisons of two replies, one of three, a demonstration and a safety label."""
    path = tmp_path_factory.mktemp("store") / "feedback.db"
    database = Database(str(path), writes=True)
    people, desk = People(database), Desk(database)
    person = people.of_session(people.join(people.invite("annotator", by=None), "Ada", PASSWORD)).id
    desk.add([comparison_item(f"c{n}", ("x", "y")) for n in range(4)] + [comparison_item("k")])
    desk.add([Item("demonstrate", prompt("d")), Item("safety", prompt("s"), ("bad",), ("harmless",), ("m",))])
    answers = [CompareAnswer(choices={"helpful": verdict}) for verdict in VERDICTS]
    answers += [CompareAnswer(choices={"helpful": {"ranks": [2, 1, 2], "strength": 1}}), DemonstrateAnswer(reply="so")]
    answers += [SafetyAnswer(safe=False, category="weapons", severity=2)]
    for n, answer in enumerate(answers):
        desk.submit(person, desk.next(person).number, f"s{n}", answer)
    database.close()
    return path


def exported(store, tmp_path, shape, *more):
    out = tmp_path / f"{shape}.jsonl"
    assert main(["collect", "export", "--database", str(store), "--out", str(out), "--shape", shape, *more]) == 0
    return str(out)


def test_records_lose_nothing(store, tmp_path):
    out = exported(store, tmp_path, "records")
    live = f"feedback:{store}"
    for read, criterion in (
        (read_comparisons, ["helpful"]),
        (read_demonstrations, []),
        (read_judgements, ["harmless"]),
    ):
        assert read(out, *criterion).records == read(live, *criterion).records


def meaning(record, *, strength=True):
    """Ranks by reply, so that a shape may put the better one first."""
    assert isinstance(record, Comparison)
    ranks = dict(zip(record.replies, record.ranks, strict=True))
    said = (record.labeler, record.all_bad, record.strength if strength else 0.0)
    return (record.prompt.turns, record.prompt.slice, tuple(sorted(ranks.items())), said)


@pytest.mark.parametrize("shape, strength", [("preference", True), ("hh", True), ("votes", False), ("rankings", False)])
def test_comparisons_read_back_equal_from_every_shape(store, tmp_path, shape, strength, capsys):
    out = exported(store, tmp_path, shape, "--criterion", "helpful")
    found = [meaning(r, strength=strength) for r in read_comparisons(out, "helpful").records]
    live = read_comparisons(f"feedback:{store}", "helpful").records
    count = 5 if shape == "rankings" else 4
    assert found == [meaning(r, strength=strength) for r in live[:count]]
    told = capsys.readouterr().out
    assert shape == "rankings" or "1 left out: more than two replies" in told


def sourceless(records):
    """The source of a row that is none of Accord's own is the file that it stands in."""
    return [replace(record, prompt=replace(record.prompt, source="")) for record in records]


def test_labels_and_demonstrations_read_back_equal(store, tmp_path):
    live = f"feedback:{store}"
    out = exported(store, tmp_path, "safety", "--criterion", "harmless")
    assert sourceless(read_judgements(out, "harmless").records) == sourceless(read_judgements(live, "harmless").records)
    out = exported(store, tmp_path, "messages")
    (shown,) = (r for r in read_demonstrations(live).records if r.reply == "so")
    assert sourceless(read_demonstrations(out).records) == sourceless([shown])


def test_events_are_the_history_with_its_questions(store, tmp_path):
    rows = [json.loads(line) for line in Path(exported(store, tmp_path, "events")).read_text().splitlines()]
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["question"]["prompt"] == [["user", "s"]] and "Ada" not in json.dumps(rows)


@pytest.mark.parametrize(
    "words, why",
    [
        (["--shape", "hh"], "holds one criterion"),
        (["--criterion", "honest"], "nothing was said under"),
        (["--shape", "messages", "--criterion", "helpful"], "no effect"),
        (["--shape", "events", "--decisions", "False"], "has no effect with --shape events, which holds both"),
        (["--until", "1"], "nothing was said yet"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_no_file(store, tmp_path, words, why, capsys):
    out = tmp_path / "out.jsonl"
    assert main(["collect", "export", "--database", str(store), "--out", str(out), *words]) == 2
    assert why in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_transcript_takes_no_text_that_would_read_as_another_speaker(tmp_path):
    from accord.data.conversations import Dropped
    from accord.records import Prompt, Turn
    from accord.stages.collect.shapes import hh

    asked = (Turn("user", "q"),)

    def of(reply, turns=asked):
        return Comparison(Prompt(turns, "", ""), (reply, "b"), (1, 2), "helpful", "human:1", 0.0, (0, 1))

    hh(of("a"))
    for record in (
        of("a\n\nHuman: no"),
        of("Assistant: no"),
        of(" a"),
        of("a", (Turn("system", "s"), Turn("user", "q"))),
    ):
        with pytest.raises(Dropped):
            hh(record)


def imported(database, *words):
    return main(["collect", "import", "--database", str(database), *words])


def test_questions_come_from_any_source_once(tmp_path, store, capsys):
    source = exported(store, tmp_path, "rankings", "--criterion", "helpful")
    words = ["--data", source, "--criterion", "helpful", "--criterion", "harmless", "--overlap", "2"]
    new = tmp_path / "new.db"
    assert imported(new, *words) == 0 and "5 new questions" in capsys.readouterr().out
    assert imported(new, *words) == 0 and "0 new questions, 5 there before" in capsys.readouterr().out
    assert imported(new, "--data", source, "--mode", "demonstrate") == 0
    records = exported(store, tmp_path, "messages")
    for mode in ("edit", "safety"):
        assert imported(new, "--data", records, "--mode", mode, "--criterion", '["harmless"]') == 0
    labels = exported(store, tmp_path, "safety", "--criterion", "harmless")
    assert imported(new, "--data", labels, "--mode", "safety", "--criterion", '["harmless"]') == 0
    database = Database(str(new), writes=True)
    people = People(database)
    person = people.of_session(people.join(people.invite("annotator", by=None), "Ada", PASSWORD)).id
    item = Desk(database).next(person).item
    assert item.criteria == ("helpful", "harmless") and item.replies == ("x", "y")
    assert Desk(database).progress(person)["wanted"] == 5 * 2 + 5 + 3
    database.close()


def test_an_import_without_a_criterion_is_refused(tmp_path, capsys):
    write_records(tmp_path / "p.jsonl", [prompt("q")])
    assert imported(tmp_path / "a.db", "--data", str(tmp_path / "p.jsonl")) == 2
    assert "--criterion helpful" in capsys.readouterr().err
    words = ["--data", str(tmp_path / "p.jsonl"), "--mode", "demonstrate", "--criterion", '["helpful"]']
    assert imported(tmp_path / "a.db", *words) == 2 and "asks under none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "knobs, why",
    [
        ({"mode": "edit", "known": True}, "whose answers are written"),
        ({"known": True, "overlap": 2}, "everybody is asked"),
        ({"mode": "safety", "scores": "s"}, "but with --mode compare"),
        ({"random_share": 0.5}, "without --scores"),
    ],
)
def test_an_import_refuses_what_nothing_reads(knobs, why):
    with pytest.raises(ValidationError, match=why):
        CollectImport(data="d", criterion=["helpful"], **knobs)


def test_a_backup_is_taken_while_somebody_writes(store, tmp_path, capsys):
    database = Database(str(store), writes=True)
    copy = tmp_path / "copy.db"
    assert main(["collect", "backup", "--database", str(store), "--out", str(copy)]) == 0
    database.close()
    assert read_comparisons(f"feedback:{copy}", "helpful").records == (
        read_comparisons(f"feedback:{store}", "helpful").records
    )
    assert oct(copy.stat().st_mode & 0o777) == "0o600"
    assert main(["collect", "backup", "--database", str(store), "--out", str(copy)]) == 2
    assert "must be a new file" in capsys.readouterr().err
    assert main(["collect", "backup", "--database", "postgresql://h/n", "--out", "x"]) == 2
    assert "pg_dump" in capsys.readouterr().err


def test_a_damaged_store_gives_no_backup(store, tmp_path, capsys):
    broken = tmp_path / "broken.db"
    with sqlite3.connect(store) as source, sqlite3.connect(broken) as copy:
        source.backup(copy)
        copy.execute("PRAGMA writable_schema=ON")
        copy.execute("UPDATE sqlite_master SET rootpage = 3 WHERE name = 'events'")
    copy.close()
    source.close()
    assert main(["collect", "backup", "--database", str(broken), "--out", str(tmp_path / "copy.db")]) == 2
    assert not (tmp_path / "copy.db").exists()
