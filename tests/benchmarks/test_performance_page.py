"""The results page: every row in it, nothing lost when one benchmark fails, others' rows kept where they still hold."""

import json
from dataclasses import replace

import pytest

from benchmarks import __main__ as command
from benchmarks import page
from benchmarks.cases import Plan
from benchmarks.harness import Case, Job, Measure, Side, at_least, faster

ROW = {"case": "c", "ratio": {"median": 5.0, "min": 4.0, "max": 6.0}, "equality": {"holds": True}, "goal": "≥ 3x"}
BUSY = {"cpu": "a CPU", "cores": 2, "bf16": "AVX-512", "load": 0.1, "measured": "2026-01-02"}


def result(name="sft", code="abc", **changed):
    settings = {"rounds": 5, "steps": 12, "size": "9M"}
    found = {"name": name, "rows": [{**ROW, "met": True}], "versions": {"trl": "1.16.0"}, "machine": BUSY}
    return {**found, "settings": settings, "code": code, "seconds": 60, **changed}


def test_the_page_shows_what_was_measured_whether_it_is_enough_and_of_which_code():
    text = page.page([result()])
    assert "| sft | c | 5x (4–6) | ≥ 3x | yes | holds True |" in text
    assert "| sft | abc | 9M | 5 | 12 | 0.1 | 60 | 2026-01-02 | a CPU, 2 cores, bf16 by AVX-512 |" in text
    assert "trl 1.16.0" in text


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({**ROW}, "5x (4–6)"),
        ({**ROW, "ratio": None}, ""),
        ({**ROW, "ratio": None, "void": ROW["ratio"]}, "void"),
        ({**ROW, "ratio": None, "unit": "s", "measured": ROW["ratio"]}, "5 s (4–6)"),
        ({**ROW, "ratio": None, "unit": "s", "measured": None}, ""),
    ],
)
def test_a_figure_is_a_ratio_or_has_its_unit_or_is_not_there(row, shown):
    assert page.figure(row) == shown


@pytest.mark.parametrize(
    ("stored", "stays"),
    [
        (result(), True),
        (result(name="dpo"), False),
        (result(code="abd"), True),
        (result(settings={"rounds": 4, "steps": 12, "size": "9M"}), False),
        (result(name="gone"), False),
    ],
)
def test_other_rows_are_kept_of_the_same_settings_alone(tmp_path, stored, stays):
    plans = {name: Plan(5, 12, "9M") for name in ("sft", "dpo")}
    (tmp_path / "performance.json").write_text(json.dumps([stored]))
    assert page.kept(tmp_path, plans, without=["dpo"]) == ([stored] if stays else [])


@pytest.mark.parametrize("code", ["", "abc" + page.CHANGED])
def test_rows_of_code_that_no_commit_holds_are_never_kept(tmp_path, code):
    (tmp_path / "performance.json").write_text(json.dumps([result(code=code)]))
    assert page.kept(tmp_path, {"sft": Plan(5, 12, "9M")}, without=[]) == []


class NoWorkload:
    def write(self, folder):
        pass


def made_up(plan):
    jobs = [Job(Side(name, "no-such-program.py"), "task", {}) for name in ("ours", "peer")]
    return [Case("made up", NoWorkload(), *jobs, lambda pair: {}, [Measure(at_least(3), faster)])]


def unmakeable(plan):
    raise ValueError("no lengths")


def run_all(monkeypatch, tmp_path, *words):
    made = {"first": unmakeable, "second": made_up, "third": lambda plan: []}
    monkeypatch.setattr(command, "BENCHMARKS", {n: command.Benchmark(c, 1, 7) for n, c in made.items()})
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command.page, "code_version", lambda: "abc")
    monkeypatch.setattr("sys.argv", ["benchmarks", "all", "--size", "toy", *words])
    return command.main(), json.loads((tmp_path / "performance.json").read_text())


def test_a_benchmark_that_fails_loses_no_other(monkeypatch, tmp_path, capsys):
    code, stored = run_all(monkeypatch, tmp_path)
    assert code == 1 and [found["name"] for found in stored] == ["first", "second", "third"]
    assert stored[0]["rows"][0]["equality"] == "failed: no lengths"
    assert stored[1]["rows"][0]["equality"].startswith("failed: ")
    assert "no lengths" in (tmp_path / "performance.md").read_text()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"name", "rows", "versions", "machine"} <= set(last)


def test_only_some_are_run_and_the_page_keeps_the_others_in_their_order(monkeypatch, tmp_path):
    settings = page.settings(Plan(1, 7, "toy"))
    old = [result("third", settings=settings, seconds=5)]
    (tmp_path / "performance.json").write_text(json.dumps(old))
    code, stored = run_all(monkeypatch, tmp_path, "--only", "second")
    assert code == 1 and [found["name"] for found in stored] == ["second", "third"]
    assert stored[1] == old[0]
    code, stored = run_all(monkeypatch, tmp_path, "--only", "third")
    assert code == 0 and stored[1]["rows"] == [] and stored[0]["name"] == "second"
    with pytest.raises(SystemExit):
        run_all(monkeypatch, tmp_path, "--only", "fourth")


def test_a_run_saves_after_every_case_and_starts_none_when_its_minutes_are_over(monkeypatch, tmp_path):
    clock, saved = [0.0], []
    monkeypatch.setattr(command.time, "time", lambda: clock[0])

    def slow(case, rounds, *, toy):
        clock[0] += 90
        saved.append((tmp_path / "out.json").is_file() and json.loads((tmp_path / "out.json").read_text())[0]["rows"])
        return [{"case": case.name, "ratio": None, "equality": "ran", "goal": "", "met": None}], {}

    cases = [replace(made_up(None)[0], name=name) for name in ("a1", "b", "a2", "a3")]
    monkeypatch.setattr(command, "BENCHMARKS", {"one": command.Benchmark(lambda plan: cases, 1, 1)})
    monkeypatch.setattr(command, "run_case", slow)
    found = command.run("one", Plan(1, 1, "toy"), "abc", command.Bounds(2, tmp_path / "out.json", "a"))
    assert [row["equality"] for row in found["rows"]] == ["ran", "ran", "not run: 2 minutes were over"]
    assert saved[0] is False and [row["case"] for row in saved[1]] == ["a1"]
    assert "| one | a2 |" in (tmp_path / "out.md").read_text()
