"""The scripts of runs/: every command that they give parses, and finds there what it reads."""

import importlib
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from accord import cli, parsing
from accord.disk import read_json, read_lines, read_yaml

RUNS = Path(__file__).resolve().parents[2] / "runs"
TABLES = ("smollm2", "constitution_smollm2")
# &-jobs write at the same time: one file per call. A run folder is there when its command has ended.
ACCORD = """#!/usr/bin/env bash
printf "%s\\n" "$@" > "$(mktemp "$CALLS/XXXXXX")"
while [ $# -gt 1 ]; do
    if [ "$1" = --out ]; then case $2 in *.html | *.jsonl) touch "$2" || exit 2 ;;
        *) mkdir -p "$2"; touch "$2/manifest.json" ;; esac; fi
    shift
done
"""
# the scripts that read data and models are not what is tried here, but for the one that reads the tables
PYTHON = f"""#!/usr/bin/env bash
case $1 in *pieces.py) exec {sys.executable} "$@" ;; esac
"""


@pytest.fixture
def pieces(monkeypatch):
    monkeypatch.syspath_prepend(RUNS)
    return importlib.import_module("pieces")


@pytest.fixture
def carried_out(tmp_path):
    """Runs a script of runs/ with an accord and a python that do nothing; gives what accord was asked."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    calls.mkdir()
    for name, text in (("accord", ACCORD), ("python", PYTHON)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(calls)}

    def carry_out(script, *arguments):
        for file in calls.iterdir():
            file.unlink()
        subprocess.run(["bash", RUNS / script, *arguments], env=environment, check=True, timeout=60, cwd=RUNS.parent)
        return [file.read_text().splitlines() for file in calls.iterdir()]

    return carry_out


def parsed(words):
    """The command of these words, and its knobs."""
    count = 2 if " ".join(words[:2]) in cli.COMMANDS else 1
    command = " ".join(words[:count])
    return command, parsing.parse(command, words[count:])


@pytest.mark.parametrize(
    ("script", "stages"),
    [
        ("hh.sh", {"pretrain", "sft", "preference", "ppo", "dpo", "evaluate", "report"}),
        ("hh_preference.sh", {"pretrain", "preference"}),
        ("head_to_head.sh", {"evaluate ratings", "report"}),
        ("rounds.sh", {"online", "report"}),
    ],
)
def test_every_command_of_a_script_parses(carried_out, tmp_path, script, stages):
    where = [tmp_path / "out"] if script == "rounds.sh" else ["data", tmp_path / "out"]
    assert {parsed(words)[0] for words in carried_out(script, *where)} == stages


ROADS = [(table, road) for table in TABLES for road in read_yaml(RUNS / f"{table}.yaml")["roads"]]


@pytest.mark.parametrize(
    ("table", "road"),
    [pytest.param(*one, marks=pytest.mark.slow) if one == ("smollm2", "whole") else one for one in ROADS],
)
def test_every_command_of_a_road_parses_and_goes_on_when_called_again(carried_out, tmp_path, table, road):
    line = [f"{table}.sh", "the data", "--road", road, "--model", "m", "--out", tmp_path / "out"]
    first = {parsed(words)[0] for words in carried_out(*line)}
    assert first >= (
        {"constitution"} if table == "constitution_smollm2" else {"preference", "ppo", "evaluate", "report"}
    )
    for words in carried_out(*line):
        command, config = parsed(words)
        assert command == "report" or config.resume, words
    assert ("data" in first) == (road == "whole")


@pytest.mark.parametrize(("table", "road"), ROADS)
def test_whatever_a_command_of_a_road_reads_an_earlier_step_has_left(pieces, table, road):
    told = read_yaml(RUNS / f"{table}.yaml")
    asked = pieces.flags(told).parse_args(["DATA", "--road", road, "--model", "MODEL", "--out", "OUT"])
    left = (
        {f"prepared/{part}" for part in ("held", "learned", "preference", "evaluation")} if road == "whole" else set()
    )
    used = 0
    for command in pieces.planned(told, asked):
        for place in re.findall(r"OUT/(\S+)", " ".join(command.words)):
            whole = place.removesuffix("/snapshot")
            found = {whole, whole.rpartition("/")[0]} & left
            assert found, f"{command.leaves} reads {place}, which nothing has left"
            assert found & command.needs or whole.startswith("prepared/")
            used += 1
        left.add(command.leaves)
        if told["roads"][road]["at_once"] > 1 and command.words[0] not in (*pieces.ONCE, "report"):
            assert "--threads" in command.words, f"{command.leaves} would take the cores of what runs beside it"
    assert used or table == "constitution_smollm2"
    assert set(told["pieces"]) == {piece for one in told["roads"].values() for piece in one["pieces"]}


def test_a_size_grows_with_the_pairs_and_stays_above_its_least(pieces):
    table = {"sizes": {"steps": {"times": 0.024, "least": 4}, "rows": {"times": 2, "most": 1500}}}
    assert pieces.sizes(table, 100) == {"steps": 4, "rows": 200}
    assert pieces.sizes(table, 1000) == {"steps": 24, "rows": 1500}


def test_a_piece_runs_alone_and_one_that_there_is_not_is_named(carried_out, pieces, tmp_path):
    line = ["smollm2.sh", "data", "--road", "whole", "--pairs", "500", "--model", "m", "--out", tmp_path / "out"]
    (one, other) = [parsed(words)[1] for words in carried_out(*line, "--piece", "helpful-whole")]
    assert {one.seed, other.seed} == {0, 1} and one.max_rows == other.max_rows == 1200
    table = read_yaml(RUNS / "smollm2.yaml")
    with pytest.raises(SystemExit, match="--piece helpfull: the road whole has prepare, helpful"):
        pieces.planned(table, pieces.flags(table).parse_args(["data", "--road", "whole", "--piece", "helpfull"]))


def test_a_command_needs_what_it_names_of_what_earlier_ones_leave(pieces):
    before = ["prepared/counts.json", "clean/a.jsonl", "clean/b.jsonl", "half", "half-more"]
    assert pieces.needed(("ppo", "--model", "the out/half/snapshot"), "the out", before) == {"half"}
    assert pieces.needed(("data", "out/prepared/held/a.jsonl?kind=prompt"), "out", before) == {"prepared/counts.json"}
    assert pieces.needed(("evaluate", "--data", "out/clean/a.jsonl"), "out", before) == set(before[1:3])
    assert pieces.needed(("evaluate", "--model", "out/other/snapshot"), "out", before) == set()
    assert pieces.needed(("report",), "out", before) == set(before)


def test_a_command_begins_when_what_it_needs_has_ended_and_none_waits_for_another(pieces):
    begun, ended, both = [], [], threading.Barrier(2, timeout=5)

    def carry_out(command):
        begun.append((command.leaves, set(ended)))
        if command.leaves in ("long", "after"):  # they lie over each other, though `short` has ended between
            both.wait()
        ended.append(command.leaves)
        return 0

    needs = {"long": (), "short": (), "late": ("long",), "after": ("short",)}
    commands = [pieces.Command(name, (), frozenset(names)) for name, names in needs.items()]
    assert pieces.in_order(commands, 2, carry_out) == 0
    for name, there in begun:
        assert there >= set(needs[name])
    assert len(begun) == len(set(ended)) == 4


def test_nothing_is_begun_after_a_command_that_failed(pieces):
    begun, failed = [], threading.Event()

    def carry_out(command):
        begun.append(command.leaves)
        if command.leaves == "fails":
            failed.set()
            return 3
        failed.wait(5)
        return 0

    commands = [pieces.Command(name, (), frozenset()) for name in ("waits", "fails", "never")]
    assert pieces.in_order(commands, 2, carry_out) == 3 and begun == ["waits", "fails"]
    assert pieces.in_order(commands[2:], 2, lambda command: 0) == 0


def test_what_is_measured_on_stands_apart_from_what_is_learned_from(pieces, tmp_path, monkeypatch):
    data = importlib.import_module("smollm2_data")
    for number in range(60):
        turns = f"\\n\\nHuman: Question {number}?\\n\\nAssistant:"
        with (tmp_path / "pairs.jsonl").open("a") as pairs, (tmp_path / "labels.jsonl").open("a") as labels:
            pairs.write(f'{{"chosen": "{turns} Yes.", "rejected": "{turns} No."}}\n')
            labels.write(f'{{"prompt": "Question {number}?", "response": ["safe {number}", "unsafe"]}}\n')
    columns = data.LEARNED["safety"].partition("?")[2]
    monkeypatch.setattr(data, "LEARNED", {"pairs": "pairs.jsonl", "labels": f"labels.jsonl?{columns}"})
    monkeypatch.setattr(data, "MEASURED", {"all": ("labels.jsonl", 6, 0.01)})
    monkeypatch.setattr(data, "HELD", (3, 0.01))
    monkeypatch.setattr(data, "WRITTEN_TO", ("pairs",))
    data.main(tmp_path, 100, tmp_path / "out" / "counts.json")
    written = read_json(tmp_path / "out" / "counts.json")
    assert written["pairs"] == 100
    counts = written["files"]
    lines = {str(f.relative_to(tmp_path / "out")): read_lines(f) for f in (tmp_path / "out").rglob("*.jsonl")}
    sizes = counts["pairs"]
    assert sizes == counts["labels"] | {"held": 3} and sum(counts["labels"].values()) == 60
    assert len(lines["evaluation/pairs.jsonl"]) == len(lines["evaluation/labels.jsonl"]) == sizes["evaluation"] > 3
    assert len(lines["held/pairs.jsonl"]) == 3 and "held/labels.jsonl" not in lines
    assert len(lines["learned/pairs.jsonl"]) == sizes["preference"] + sizes["policy"]
    assert len(lines["preference/pairs.jsonl"]) == sizes["preference"]
    learned = {row["chosen"] for row in lines["learned/pairs.jsonl"]}
    assert not learned & {row["chosen"] for row in lines["evaluation/pairs.jsonl"] + lines["held/pairs.jsonl"]}
    assert set(lines["learned/labels.jsonl"][0]) == {"prompt", "safe", "unsafe"}
    # every tenth, so that no end of the file is left out
    assert [row["prompt"] for row in lines["held/all.jsonl"]] == [f"Question {n}?" for n in range(0, 60, 10)]
