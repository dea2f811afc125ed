"""Other people's models through the commands: their stops, their clocks, and what their templates refuse."""

import json

import pytest
import yaml

from accord.cli import main
from accord.models.tokenizer import load_renderer
from fixtures.families import FAMILIES, published

NOON = "2024-07-26T12:00:00"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    return {name: published(FAMILIES[name], root / name) for name in ("gemma-2", "llama-3.1", "qwen2.5")}


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Demonstrations; every third has a system turn."""
    file = tmp_path_factory.mktemp("data") / "shown.jsonl"
    rows = []
    for i in range(150):
        system = [{"role": "system", "content": "Be kind."}] if i % 3 == 0 else []
        asked = [{"role": "user", "content": f"Which bird is number {i}?"}]
        rows.append({"prompt": system + asked, "completion": [{"role": "assistant", "content": "The heron."}]})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def sft(model, data, out, *more):
    line = ["sft", "--model", model, "--data", data, "--out", out, "--threads", 1, "--batch_size", 40]
    return main([*map(str, line), "--precision", "f32", "--learning_rate", "0.001", *more])


def test_rows_that_a_template_refuses_are_dropped_in_its_words(models, shown, tmp_path, capsys):
    assert sft(models["gemma-2"], shown, tmp_path / "a") == 0
    reason = "the chat template: System role not supported"
    (report,) = json.loads((tmp_path / "a" / "data" / "data.json").read_text())
    assert report["drops"] == {reason: 50} and report["used"] == 100
    assert f"dropped 50 {reason}" in capsys.readouterr().out
    rows = [json.loads(line) for line in shown.read_text().splitlines()]
    only = tmp_path / "only.jsonl"
    only.write_text("".join(json.dumps(row) + "\n" for row in rows if len(row["prompt"]) == 2))
    assert sft(models["gemma-2"], only, tmp_path / "b") == 2
    assert reason in capsys.readouterr().err and not (tmp_path / "b").exists()


def test_prompts_that_a_template_refuses_are_dropped_too(models, shown, tmp_path):
    line = ["sample", "--model", models["gemma-2"], "--data", shown, "--out", tmp_path / "s", "--max_new_tokens", 4]
    assert main([*map(str, line), "--threads", "1"]) == 0
    assert len((tmp_path / "s" / "samples.jsonl").read_text().splitlines()) == 100


def test_a_snapshot_stops_where_training_ended(models, shown, tmp_path):
    assert sft(models["gemma-2"], shown, tmp_path / "run") == 0
    saved = json.loads((tmp_path / "run" / "snapshot" / "generation_config.json").read_text())
    tokenizer = load_renderer(str(tmp_path / "run" / "snapshot")).tokenizer
    assert tokenizer.convert_ids_to_tokens(saved["eos_token_id"]) == ["<end_of_turn>", "<eos>"]


def test_the_time_that_a_template_writes_is_kept_and_can_be_given(
    models, shown, tmp_path, stop_after, same_run, capsys
):
    given = ["--clock", NOON, "--epochs", "2"]
    assert sft(models["llama-3.1"], shown, tmp_path / "whole", *given) == 0
    assert yaml.safe_load((tmp_path / "whole" / "config.yaml").read_text())["clock"] == NOON
    assert sft(models["llama-3.1"], shown, tmp_path / "now") == 0
    told = yaml.safe_load((tmp_path / "now" / "config.yaml").read_text())["clock"]
    assert told > NOON and f"it is told {told} throughout" in capsys.readouterr().out
    assert sft(models["qwen2.5"], shown, tmp_path / "still") == 0
    assert yaml.safe_load((tmp_path / "still" / "config.yaml").read_text())["clock"] == ""
    capsys.readouterr()
    assert sft(models["qwen2.5"], shown, tmp_path / "idle", "--clock", NOON) == 2
    assert "--clock has no effect" in capsys.readouterr().err
    assert sft(models["llama-3.1"], shown, tmp_path / "odd", "--clock", "noon") == 2
    assert "write it as 2024-07-26T12:00:00" in capsys.readouterr().err
    # the time of the first start holds for a resumed run
    stop_after(2)
    assert sft(models["llama-3.1"], shown, tmp_path / "cut", *given) == 1
    assert sft(models["llama-3.1"], shown, tmp_path / "cut", "--epochs", "2", "--resume") == 0
    same_run(tmp_path / "whole", tmp_path / "cut")
