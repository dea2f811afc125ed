"""How sides are compared, on sides made up here; nothing is timed."""

import json
import sys

import pytest

from benchmarks import harness
from benchmarks.harness import OURS, Pair, Side, finish, interleave, peer, row, training_equality
from benchmarks.workloads import EOS, hh_items, make_item

GOOD = {"tokens": "ab", "losses": [1.0, 1, 1, 1, 0.9], "grad_norms": [2.0]}


def test_the_ratio_is_the_peers_time_over_ours_by_round():
    pair = Pair([{"seconds": [1.0, 2.0, 3.0]}, {"seconds": [1.0]}], [{"seconds": [8.0]}, {"seconds": [3.0]}])
    assert pair.ratio == {"median": 3.5, "min": 3.0, "max": 4.0}


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({}, True),
        ({"losses": [1.00005, 1, 1, 1, 0.9]}, True),
        ({"losses": [1.0002, 1, 1, 1, 0.9]}, False),
        ({"losses": [1.0, 1, 1, 1, 0.902]}, False),
        ({"grad_norms": [2.003]}, False),
        ({"tokens": "ac"}, False),
    ],
)
def test_equality_is_of_tokens_losses_and_gradients(change, holds):
    assert training_equality({**GOOD, **change}, GOOD)["holds"] is holds


def test_a_speed_row_without_its_equality_is_void():
    ratio = {"median": 5.0, "min": 4.0, "max": 6.0}
    assert row("c", ratio, {"holds": True}, "3x")["ratio"] == ratio
    void = row("c", ratio, {"holds": False}, "3x")
    assert void["ratio"] is None and void["void"] == ratio


def test_sides_take_turns_each_in_a_fresh_process(tmp_path, monkeypatch, capsys):
    log = tmp_path / "log"
    program = tmp_path / "side.py"
    program.write_text(
        "import json, os, sys\n"
        f"open({str(log)!r}, 'a').write(f'{{os.getpid()}} {{sys.argv[1]}}\\n')\n"
        "print('noise'); print(json.dumps({'seconds': [2.0], 'threads': os.environ['OMP_NUM_THREADS']}))\n"
    )
    monkeypatch.setattr(harness, "HERE", tmp_path)
    sides = [Side(name, sys.executable, "side.py") for name in ("accord", "peer")]
    pair = interleave("task", tmp_path, *sides, rounds=2)
    lines = log.read_text().split()
    assert lines[1::2] == ["task"] * 4 and len(set(lines[::2])) == 4
    assert pair.ratio["median"] == 1.0 and pair.ours[0]["threads"] == "1"
    assert "round 2/2" in capsys.readouterr().out


def test_a_side_that_fails_shows_why(tmp_path, monkeypatch):
    (tmp_path / "side.py").write_text("raise SystemExit('no such model')")
    monkeypatch.setattr(harness, "HERE", tmp_path)
    with pytest.raises(RuntimeError, match="no such model"):
        Side("peer", sys.executable, "side.py").run("task", tmp_path)


def test_without_an_interpreter_the_peer_does_not_run_and_the_way_to_one_is_said(monkeypatch, capsys):
    monkeypatch.delenv("SOME_PEER", raising=False)
    assert peer("SOME_PEER", "trl==1.16.0", "peer_trl.py") is None
    assert "pip install trl==1.16.0" in capsys.readouterr().out


def test_the_last_line_is_the_json_of_the_design(capsys):
    finish("sft", [row("c", None, "not run", "3x")], {"accord": "0"})
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(last) == {"name", "rows", "versions", "machine"}
    assert set(last["rows"][0]) >= {"case", "ratio", "equality", "goal"}


def test_workloads_have_the_recorded_lengths_and_end_with_eos():
    items = hh_items(200, 512, replies=4)
    assert len(items) == 200
    assert all(len(item["replies"]) == 4 and all(reply[-1] == EOS for reply in item["replies"]) for item in items)
    texts = [(item["prompt"], *item["replies"][:2]) for item in items[:192]]
    means = [sum(len(row[k]) for row in texts) / 192 for k in range(3)]
    assert [round(m) for m in means] == [118, 59, 46]
    assert items == hh_items(200, 512, replies=4)
    tokens = [t for item in items for reply in item["replies"] for t in reply[:-1]]
    assert min(tokens) > EOS


def test_ours_runs_on_a_toy_workload(tmp_path):
    """The package's own loop and losses, as the benchmarks call them; the peer needs an environment of its own."""
    import numpy as np

    from benchmarks.workloads import SIZES, write_workload

    generator = np.random.default_rng(0)
    items = [make_item(generator, 64, 5, [4, 3]) for _ in range(12)]
    options = {"steps": 5, "warm": 1, "batch_size": 2, "learning_rate": 1e-3, "stop_ids": [2], "max_new_tokens": 4}
    options |= {"greedy_tokens": 3, "repeats": 1, "cached": True}
    write_workload(tmp_path / "w", items, vocab=64, size=SIZES["toy"], options=options)
    for task in ("sft", "preference", "dpo"):
        result = OURS.run(task, tmp_path / "w")
        assert len(result["losses"]) == 5 and len(result["seconds"]) == 3
    assert OURS.run("generation", tmp_path / "w")["tokens"] <= 4
    assert OURS.run("agreement", tmp_path / "w")["f32"]["mean"] < 1e-5
