"""`accord evaluate rewards`: preference and cost models on benchmarks, from a file to the report."""

import json

import pytest
import torch

from accord.cli import main
from accord.engine.texts import text_group
from accord.models.scalar import Scorer
from accord.models.tokenizer import load_renderer
from accord.records import Prompt, Turn
from accord.run import read_json, verify


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ask(out, *words):
    return main(["evaluate", "rewards", "--out", str(out), "--max_length", "64", *map(str, words)])


def test_models_are_asked_and_a_cost_prefers_the_less(commands, tmp_path):
    pairs = [
        {"prompt": f"ask {n}", "chosen": f"the cat {n}", "rejected": f"a dog {n}", "subset": "xy"[n % 2]}
        for n in range(12)
    ]
    styles = [
        {"prompt": f"say {n}", "chosen": ["cat", "the cat", "the cat runs"], "rejected": ["dog", "a dog", "a dog runs"]}
        for n in range(6)
    ]
    sets = [
        f"--sets.pairs={write(tmp_path / 'pairs.jsonl', pairs)}",
        f"--sets.styles={write(tmp_path / 's.jsonl', styles)}",
    ]
    models = [f"--models.{name}={commands.snapshots / name}" for name in ("reward", "cost")]
    assert ask(tmp_path / "run", *sets, *models) == 0
    verify(tmp_path / "run")
    rows = read_json(tmp_path / "run" / "evaluation.json")["rewards"]
    assert [(r["set"], r["model"], r["subset"]) for r in rows] == [
        *(("pairs", name, subset) for name in ("reward", "cost") for subset in ("all", "x", "y")),
        *(("styles", name, "all") for name in ("reward", "cost")),
    ]
    for name, role, sign in (("reward", "preference", 1), ("cost", "cost", -1)):
        where = str(commands.snapshots / name)
        scorer, renderer = Scorer(where, role=role, device=torch.device("cpu")), load_renderer(where)
        right = 0
        for row in pairs:
            prompt = Prompt((Turn("user", row["prompt"]),), "", "")
            group = text_group(renderer, prompt, (row["chosen"], row["rejected"]))
            a, b = scorer.raw_scores([group], micro_tokens=1000).tolist()
            right += sign * (a - b) > 0
        found = next(r for r in rows if (r["set"], r["model"], r["subset"]) == ("pairs", name, "all"))
        assert found["answered"]["mean"] == pytest.approx(right / 12) and found["chance"] == 0.5
    styled = rows[-1]
    mean = (3 * styled["hard"]["mean"] + 3 * styled["normal"]["mean"] + 3 * styled["easy"]["mean"]) / 9
    assert styled["answered"]["mean"] == pytest.approx(mean) and styled["length"]["better_is_longer"]["n"] > 0
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "Preference models on benchmarks" in page and "hard pairs" in page


def test_what_cannot_be_asked_is_refused_by_its_name(commands, tmp_path, capsys):
    pairs = write(tmp_path / "pairs.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}])
    model, policy = f"--models.a={commands.snapshots / 'reward'}", f"--models.a={commands.snapshots / 'policy'}"
    for line, words in (
        ([model], "nothing to ask; give --sets.NAME FILE"),
        ([f"--sets.a={pairs}"], "nothing to measure; give --models.NAME DIR"),
        ([f"--sets.a={pairs}", policy], "is a policy"),
        ([f"--sets.a={tmp_path / 'gone.jsonl'}", model], "gone.jsonl"),
    ):
        assert ask(tmp_path / "run", *line) == 2
        err = capsys.readouterr().err
        assert words in err and "Traceback" not in err
