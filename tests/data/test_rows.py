"""A row of `samples.jsonl`: one builder, and its prompt reads back."""

import json
from pathlib import Path

import accord
from accord.data.rows import prompt_of_row, rollout_row
from accord.records import Prompt, Rollout, Turn

STAGES = sorted((Path(accord.__file__).parent / "stages").rglob("*.py"))
PROMPT = Prompt((Turn("system", "be brief"), Turn("user", "why „é“?")), "benign", "file.jsonl")


def test_a_row_says_what_was_asked_answered_and_how_it_ended():
    row = rollout_row(PROMPT, "so", Rollout((1, 2), (5,), (-0.5,), "length", 1.0, "step-3"), kl=0.25)
    assert row == {
        "prompt_id": PROMPT.id,
        "slice": "benign",
        "source": "file.jsonl",
        "prompt": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why „é“?"}],
        "reply": "so",
        "finish": "length",
        "kl": 0.25,
    }
    assert prompt_of_row(json.loads(json.dumps(row))) == PROMPT


def test_stages_build_no_such_row_by_hand():
    """What every row has must be added in one place."""
    for path in STAGES:
        text = path.read_text(encoding="utf-8")
        assert not ('"prompt_id":' in text and '"reply":' in text), path
        assert '"finish"' not in text and "finish=" not in text, path
