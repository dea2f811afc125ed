"""lm-eval and Inspect by one command: what is said where they are not installed, and real tasks where they are."""

import gc
import importlib.util
import json
from pathlib import Path

import pytest

from accord.cli import main
from accord.disk import read_json
from accord.run import verify
from accord.stages.evaluate import harness

ABSENT = {name: importlib.util.find_spec(name) is None for name in ("lm_eval", "inspect_ai")}


@pytest.mark.parametrize(("command", "module"), [("lm_eval", "lm_eval"), ("inspect", "inspect_ai")])
def test_the_extra_is_named_where_it_is_missing(commands, tmp_path, capsys, monkeypatch, command, module):
    monkeypatch.setattr(harness.importlib.util, "find_spec", lambda name: None)
    line = ["evaluate", command, str(commands.snapshots / "policy"), "--tasks", "a,b", "--out", str(tmp_path / "run")]
    assert main(line) == 2
    assert f"needs {module}; install it with: pip install 'accord[eval]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_lm_eval_is_told_of_a_place(tmp_path):
    assert harness.hugging_face("owner/name@abc") == {"pretrained": "owner/name", "revision": "abc"}
    assert harness.hugging_face(str(tmp_path)) == {"pretrained": str(tmp_path)}
    import numpy as np

    assert json.dumps(harness.plain({"a": np.float32(0.5), "b": (1, "x"), 3: [np.int64(2)]})) == (
        '{"a": 0.5, "b": [1, "x"], "3": [2]}'
    )


def test_where_inspect_looks_for_a_task(tmp_path, monkeypatch):
    """Below the working folder, by a pattern; `Path.glob` knows no absolute one."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "here").mkdir()
    file = tmp_path / "tasks" / "cats.py"
    file.write_text("")
    monkeypatch.chdir(tmp_path / "here")
    (found,) = Path.cwd().glob(harness.from_here(str(file)))
    assert found.samefile(file)
    kept = [f"{file}@cats", "cats.py", "package/cats", "../tasks/*.py"]
    assert [harness.from_here(task) for task in kept] == kept


TASK = """
task: red_or_blue
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {file}}}}}
validation_split: validation
output_type: multiple_choice
doc_to_text: "{{{{query}}}}"
doc_to_target: "{{{{gold}}}}"
doc_to_choice: "{{{{choices}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(ABSENT["lm_eval"], reason="lm-eval is not installed")
def test_lm_eval_finds_what_our_own_scorer_finds(commands, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"query": f"the cat {i}", "choices": ["sees red", "runs"], "gold": i % 2} for i in range(20)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text(TASK.format(file=file))
    where = str(commands.snapshots / "policy")
    line = ["evaluate", "lm_eval", where, "--task_files", str(tmp_path / "tasks"), "--threads", "1"]
    assert main([*line, "--tasks", "red_or_blue", "--out", str(tmp_path / "theirs")]) == 0
    verify(tmp_path / "theirs")
    ours = ["evaluate", "tasks", "--model", where, "--tasks.mine", str(file), "--out", str(tmp_path / "ours")]
    assert main(ours) == 0
    found = read_json(tmp_path / "theirs" / "lm_eval.json")["results"]["red_or_blue"]
    mine = read_json(tmp_path / "ours" / "evaluation.json")["tasks"]["mine"]
    assert found["acc,none"] == pytest.approx(mine["task/accuracy"]["mean"])
    assert found["acc_norm,none"] == pytest.approx(mine["task/accuracy_norm"]["mean"])
    capsys.readouterr()
    assert main([*line, "--tasks", "red_or_blu", "--out", str(tmp_path / "no")]) == 2
    assert "did you mean red_or_blue" in capsys.readouterr().err


INSPECT = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes


@task
def cats():
    return Task(dataset=[Sample(input=f"the cat {i}", target="the") for i in range(4)], scorer=includes())
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(ABSENT["inspect_ai"], reason="inspect-ai is not installed")
def test_inspect_asks_a_snapshot(commands, tmp_path):
    file = tmp_path / "cats.py"
    file.write_text(INSPECT)
    line = ["evaluate", "inspect", str(commands.snapshots / "policy"), "--tasks", str(file), "--max_new_tokens", "6"]
    assert main([*line, "--out", str(tmp_path / "run")]) == 0
    verify(tmp_path / "run")
    (found,) = read_json(tmp_path / "run" / "inspect.json")["tasks"]
    gc.collect()  # Inspect leaves streams open, which warn once they are collected: here, where a warning is no error
    assert found["task"] == "cats" and found["samples"] == 4 and 0 <= found["scores"]["includes/accuracy"] <= 1
