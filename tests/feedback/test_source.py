"""`feedback:DATABASE` as a source: records as people said them, one state of a store that grows, and its name."""

import json

import pytest

from accord.data.sources import read_comparisons, read_demonstrations, read_judgements, read_prompts
from accord.errors import BadInput
from accord.feedback.store.answers import CompareAnswer, DemonstrateAnswer, SafetyAnswer
from accord.feedback.store.questions import Item
from accord.run import RunFolder
from accord.stages.sft.config import Sft
from accord.stages.shared import load_all
from tests.fixtures.feedback import comparison_item, prompt


def say(desk, person, *answers):
    for answer in answers:
        held = desk.next(person)
        desk.submit(person, held.number, f"s{held.number}", answer)


BETTER = CompareAnswer(choices={"helpful": {"ranks": [1, 2], "strength": 1}, "harmless": {"ranks": [1, 1]}})


@pytest.fixture
def filled(desk, join):
    person = join("Ada").id
    desk.add([comparison_item(f"c{n}", ("x", "y"), ("helpful", "harmless")) for n in range(2)])
    desk.add([Item("demonstrate", prompt("d")), Item("safety", prompt("s"), ("bad",), ("harmless",), ("m",))])
    say(desk, person, BETTER, BETTER, DemonstrateAnswer(reply="so"), SafetyAnswer(safe=True))
    return person


def test_every_kind_is_read_and_the_rest_is_counted(filled, address):
    source = f"feedback:{address}"
    helpful = read_comparisons(source, "helpful")
    assert [r.strength for r in helpful.records] == [1.0, 1.0] and helpful.drops["other criterion"] == 2
    assert [set(r.ranks) for r in read_comparisons(source, "harmless").records] == [{1}, {1}]
    assert [r.reply for r in read_demonstrations(source).records][-1] == "so"
    assert [r.value for r in read_judgements(source, "harmless").records] == [1.0]
    assert {p.turns[0].content for p in read_prompts(source).records} == {"c0", "c1", "d", "s"}


def test_an_event_names_what_had_been_said_by_then(filled, address, database):
    import accord.data.schemes as schemes

    pinned = schemes.pin_feedback(f"feedback:{address}")
    newest = int(pinned.rpartition("@")[2])
    assert schemes.pin_feedback(pinned) == pinned and pinned.startswith("feedback:")
    assert len(read_comparisons(pinned, "helpful").records) == 2
    assert len(read_comparisons(f"feedback:{address}@{newest - 3}", "helpful").records) == 1
    with pytest.raises(BadInput, match=f"has {newest} events"):
        read_comparisons(f"feedback:{address}@{newest + 1}", "helpful")


@pytest.mark.parametrize("source, why", [("feedback:", "write feedback:"), ("feedback:nowhere.db", "no such database")])
def test_what_is_no_store_is_refused(source, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=why):
        read_comparisons(source, "helpful")


def test_a_run_names_the_last_event_it_saw_and_a_resumed_one_reads_the_same(filled, address, desk, tmp_path):
    config = Sft(out=str(tmp_path / "run"), model="m", data=f"feedback:{address}")
    with RunFolder("sft", config) as run:
        first = load_all(read_demonstrations, config.data, config, run)
        run.log({"step": 1})
    (held,) = json.loads((tmp_path / "run" / "data" / "data.json").read_text())
    assert held["source"].rpartition("@")[2].isdecimal()
    desk.add([Item("demonstrate", prompt("later"))])
    say(desk, filled, DemonstrateAnswer(reply="new"))
    with RunFolder("sft", config.model_copy(update={"resume": True})) as run:
        assert load_all(read_demonstrations, config.data, config, run) == first
        assert run._sources[0]["source"] == held["source"]
    with RunFolder("sft", config.model_copy(update={"out": str(tmp_path / "other")})) as run:
        assert len(load_all(read_demonstrations, config.data, config, run)) == len(first) + 1
