"""`kill -9` at random moments of `accord constitution`: it goes on, asks nothing that is journalled again, and leaves
the records of a run that was never killed."""

import hashlib
import json
import math
import os
import random
import signal
import time

import pytest

from accord.cli import main
from accord.disk import read_json, read_lines
from accord.labelers.wires import read_top
from tests.fixtures.serving import serving
from tests.labelers.conftest import Server

FILES = ("samples.jsonl", "demonstrations.jsonl", "comparisons.jsonl", "labels.jsonl")


class Deterministic(Server):
    """Says what hangs on nothing but what it is asked, and keeps what it has said."""

    def chat(self, body):
        told = hashlib.sha256(json.dumps([body["messages"], body.get("seed")]).encode()).hexdigest()
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"said {told[:16]}"}}
        if body.get("logprobs"):
            first = (int(told[:8], 16) + 1) / (16**8 + 2)
            top = [{"token": name, "logprob": math.log(p)} for name, p in (("A", first), ("B", 1 - first))]
            choice["logprobs"] = {"content": [{"token": "A", "top_logprobs": top}]}
        return {"choices": [choice]}


@pytest.fixture
def server():
    stub = Deterministic()
    stub.pause = 0.004
    with serving(stub):
        yield stub


def started(line):
    """The command in a process of its own, which has everything loaded already."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = main(line)
        finally:
            os._exit(code)
    return child


def kept(row):
    """What tells a journalled answer from all others: the text that was said, or the first probability."""
    return row["text"] if "text" in row else row["probabilities"][0]


def told(choice):
    """The same of what the server says."""
    return read_top(choice, ("A", "B"))[0] if choice.get("logprobs") else choice["message"]["content"]


def killed_and_resumed(server, line, kills, seed, tmp_path):
    """Run to the end, killed at that many moments; every request that was journalled by then is never made again."""
    generator = random.Random(seed)
    whole = tmp_path / "whole"
    before = time.monotonic()
    assert os.waitpid(started([*line, "--out", str(whole)]), 0)[1] == 0
    lasted, calls = time.monotonic() - before, len(server.seen)
    out, done = tmp_path / "killed", 0
    server.seen.clear()
    repeated = []
    for number in range(kills):
        resume = ["--resume"] if out.exists() and any(out.iterdir()) else []
        child = started([*line, "--out", str(out), *resume])
        time.sleep(generator.random() * lasted * 1.2 / (1 + kills / 8))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        done += (out / "manifest.json").exists()
        journal = out / "journal.jsonl"
        lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
        answered = {kept(json.loads(row)) for row in lines if b'"labeler"' in row}
        repeated.append((answered, len(server.seen)))
        if (samples := out / "samples.jsonl").exists() and number % 3 == 0:
            samples.write_bytes(samples.read_bytes()[:-3])  # and a last line was torn
    assert os.waitpid(started([*line, "--out", str(out), "--resume"]), 0)[1] == 0
    for answered, since in repeated:
        again = {told(server.chat(body)["choices"][0]) for _, _, body in server.seen[since:]}
        assert not again & answered, "what was journalled was asked again"
    for file in FILES:
        assert (whole / file).exists() == (out / file).exists()
        assert not (whole / file).exists() or (whole / file).read_bytes() == (out / file).read_bytes(), file
    rows = read_lines(out / "journal.jsonl")
    assert len({row["id"] for row in rows}) == len(rows) and read_json(out / "manifest.json")
    assert len(server.seen) >= calls and done < kills, "some of the kills came while it ran"


def demonstrations(server, commands):
    place = f"openai:{server.url}#judge"
    line = [
        "constitution",
        "--model",
        place,
        "--data",
        commands.files / "harmful.jsonl",
        "--revisions",
        2,
        "--shots",
        1,
    ]
    line += ["--allow_local", "true", "--at_once", 4, "--max_new_tokens", 6, "--threads", 1]
    return [str(part) for part in line]


def test_a_run_that_is_killed_three_times_leaves_the_same_records(server, commands, tmp_path, monkeypatch):
    monkeypatch.setattr("accord.stages.constitution.revise.CHUNK", 4)
    killed_and_resumed(server, demonstrations(server, commands), 3, 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("make", ["demonstrations", "comparisons"])
def test_a_run_that_is_killed_fifty_times_leaves_the_same_records(server, commands, tmp_path, monkeypatch, make):
    for module in ("revise", "compare"):
        monkeypatch.setattr(f"accord.stages.constitution.{module}.CHUNK", 4)
    line = demonstrations(server, commands)
    if make == "comparisons":
        at = line.index("--revisions")
        line = [*line[:at], *line[at + 2 :], "--make", "comparisons", "--samples", "3"]
    killed_and_resumed(server, line, 50, 2, tmp_path)
