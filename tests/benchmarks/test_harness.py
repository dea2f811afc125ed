"""How sides are compared, on sides made up here; nothing is timed."""

import json

import pytest

from benchmarks import harness
from benchmarks.harness import (
    Case,
    Goal,
    Job,
    Measure,
    Pair,
    Side,
    at_least,
    at_most,
    empty_rows,
    failure,
    faster,
    make_row,
    readings,
    run_case,
    spread,
)

SIDE = "import json, os, sys\n"
SAYS = SIDE + "print('noise'); print(json.dumps({'seconds': [SECONDS], 'versions': {'NAME': '1'}}))\n"
BOTH = Job(Side("ours", "ours.py"), "task", {"a": 1}), Job(Side("peer", "peer.py"), "task", {"a": 2})


class NoWorkload:
    """A workload that needs no models."""

    def write(self, folder):
        (folder / "items.json").write_text("[]")


def case(**changed):
    measures = [Measure(at_least(3), faster)]
    fields = {"workload": NoWorkload(), "ours": BOTH[0], "theirs": BOTH[1], "equality": lambda pair: {"holds": True}}
    return Case("case", measures=measures, **{**fields, **changed})


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Two sides, of which the peer takes four times as long."""
    for name, seconds in (("ours", "2.0"), ("peer", "8.0")):
        (tmp_path / f"{name}.py").write_text(SAYS.replace("SECONDS", seconds).replace("NAME", name))
    monkeypatch.setattr(harness, "HERE", tmp_path)
    return tmp_path


def test_the_ratio_is_the_peers_mean_over_ours_by_round():
    pair = Pair([{"seconds": [1.0, 1.0, 4.0]}, {"seconds": [1.0]}], [{"seconds": [8.0]}, {"seconds": [3.0]}])
    found = readings(Measure(at_least(3), faster), pair)
    assert found == [4.0, 3.0] and spread(found) == {"median": 3.5, "min": 3.0, "max": 4.0}


def test_goals_are_bounds_from_below_or_above():
    assert str(at_least(3)) == "≥ 3x" and at_least(3).met(3.0) and not at_least(3).met(2.99)
    assert str(at_most(8, "s")) == "≤ 8 s" and at_most(8).met(8.0) and not at_most(8).met(8.01)


def test_a_row_without_its_equality_is_void():
    pair = Pair([{"seconds": [1.0]}], [{"seconds": [5.0]}])
    row = make_row(case(), case().measures[0], pair, {"holds": True})
    assert row["ratio"]["median"] == 5.0 and row["met"] is True and row["seconds"] == [1.0, 5.0]
    void = make_row(case(), case().measures[0], pair, {"holds": False})
    assert void["ratio"] is None and void["met"] is None and void["void"]["median"] == 5.0


def test_what_is_no_ratio_stands_beside_its_unit():
    measure = Measure(Goal(8, True, "s"), lambda ours, _: ours["help"], ", help")
    row = make_row(case(theirs=None), measure, Pair([{"help": 2.0}]), {})
    assert row["ratio"] is None and row["measured"]["median"] == 2.0 and row["unit"] == "s" and row["met"] is True
    assert row["case"] == "case, help"


def test_sides_take_turns_each_in_a_fresh_process_with_its_own_options(programs):
    note = f"open({str(programs / 'log')!r}, 'a').write(f'{{os.getpid()}} {{sys.argv[1]}} {{open(sys.argv[2] + "
    note += '"/options.json").read()}\\n\')\n'
    for name in ("ours", "peer"):
        file = programs / f"{name}.py"
        file.write_text(SIDE + note + file.read_text())
    rows, versions = run_case(case(given="before"), 2, toy=False)
    lines = [line.split(" ", 2) for line in (programs / "log").read_text().splitlines()]
    assert [task for _, task, _ in lines] == ["before"] * 2 + ["task"] * 4
    assert [json.loads(options)["a"] for _, _, options in lines] == [1, 2] * 3
    assert len({pid for pid, _, _ in lines}) == 6
    assert rows[0]["ratio"]["median"] == 4.0 and versions == {"ours": "1", "peer": "1"}


def test_what_is_given_before_the_rounds_is_seen_by_the_equality(programs):
    (programs / "peer.py").write_text(
        SIDE + "found = {'advantages': [1]} if sys.argv[1] == 'before' else {'seconds': [8.0]}\n"
        "print(json.dumps({**found, 'versions': {}}))"
    )
    seen = []
    run_case(case(given="before", equality=lambda pair: seen.append(pair) or {}), 2, toy=False)
    assert seen[0].theirs[0] == {"advantages": [1], "seconds": [8.0], "versions": {}}
    assert "advantages" not in seen[0].theirs[1]


def test_a_side_that_fails_gives_a_row_that_says_so(programs, capsys):
    (programs / "peer.py").write_text("import sys; print('a hint', file=sys.stderr); sys.exit('no such model\\n')")
    rows, _ = run_case(case(), 2, toy=False)
    assert rows == [{"case": "case", "ratio": None, "equality": "failed: no such model", "goal": "≥ 3x", "met": None}]
    assert "a hint" in capsys.readouterr().err


def test_an_error_without_words_is_named():
    assert failure(ValueError("first\n last \n\n")) == "failed: last"
    assert failure(KeyError()) == "failed: KeyError"


def test_without_an_interpreter_the_way_to_one_is_said(monkeypatch):
    monkeypatch.delenv("SOME_PEER", raising=False)
    peer = Job(Side("trl==1.16.0", "peer.py", "SOME_PEER"), "task", {})
    rows, _ = run_case(case(theirs=peer), 1, toy=True)
    assert "pip install trl==1.16.0" in rows[0]["equality"] and "SOME_PEER" in rows[0]["equality"]


def test_what_the_machine_cannot_measure_runs_as_a_toy_alone_and_has_no_figure(programs, monkeypatch):
    monkeypatch.setattr(harness, "abilities", set)
    rows, _ = run_case(case(needs="bf16"), 1, toy=False)
    assert rows[0]["equality"].startswith("not run") and not (programs / "options.json").exists()
    rows, versions = run_case(case(needs="bf16"), 1, toy=True)
    assert rows[0]["equality"].startswith("ran at toy size") and rows[0]["ratio"] is None and versions
    monkeypatch.setattr(harness, "abilities", lambda: {"bf16"})
    assert run_case(case(needs="bf16"), 1, toy=False)[0][0]["ratio"]["median"] == 4.0


@pytest.mark.parametrize(
    ("flags", "unit"),
    [("fma avx512f", ""), ("avx512_bf16 avx512f", "AVX-512"), ("avx512_bf16 amx_bf16", "AMX")],
)
def test_a_machine_has_bf16_where_its_processor_has_units_for_it(monkeypatch, tmp_path, flags, unit):
    (tmp_path / "cpuinfo").write_text(f"model name : a CPU\nflags : {flags}\n")
    monkeypatch.setattr(harness, "CPUINFO", tmp_path / "cpuinfo")
    found = harness.machine()
    assert found["bf16"] == unit and found["cpu"] == "a CPU"
    assert ("bf16" in harness.abilities()) == bool(unit)


def test_a_case_has_a_row_for_each_of_its_measures():
    measures = [Measure(at_least(8), faster), Measure(at_most(0.35), faster, ", extra memory")]
    rows = empty_rows(Case("V", NoWorkload(), *BOTH, dict, measures), "not run")
    assert [row["case"] for row in rows] == ["V", "V, extra memory"]
    assert [row["goal"] for row in rows] == ["≥ 8x", "≤ 0.35x"]
