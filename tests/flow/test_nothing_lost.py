"""Nothing trained is lost at the end: what could break there is found before training, or survived."""

import json
import threading

import pytest
import torch
from transformers import GenerationConfig

from accord.data.rows import write_records
from accord.disk import write_atomically
from accord.models.loading import load_policy
from accord.models.places import POLICY
from accord.models.reference import ReplyStore
from accord.models.saving import save_model
from accord.records import Comparison, Judgement, Prompt, Turn, unit_hash

HELD_OUT = 0.1  # the default of --eval_share


def compared(text, labeler):
    prompt = Prompt((Turn("user", text),), "", "test")
    return Comparison(prompt, (f"the cat {text}", text), (1, 2), "helpful", labeler, 0.0, (0, 1))


@pytest.fixture
def groups(tmp_path):
    """Comparisons by two groups, with the texts that a run holds out and those that it learns from."""
    texts = [f"why a red stone {number}" for number in range(80)]
    held = [text for text in texts if unit_hash(text + "preference") < HELD_OUT]
    kept = [text for text in texts if text not in held]
    records = [compared(text, ("cats:1", "dogs:1")[number % 2]) for number, text in enumerate(kept[:40] + held[:2])]
    return records, held, kept


@pytest.mark.parametrize("replies", [0, 1])
def test_a_group_without_two_replies_to_learn_from_is_found_before_training(
    replies, groups, commands, tmp_path, capsys, monkeypatch
):
    records, held, kept = groups
    more = {}
    if replies == 0:
        records += [compared(text, "birds:1") for text in held[2:]]
    else:
        prompt = Prompt((Turn("user", kept[50]),), "", "test")
        judged = Judgement(prompt, "the cat", "helpful", "good", 1.0, "birds:1", "", 0.0)
        write_records(tmp_path / "judged.jsonl", [judged])
        more = {"unpaired_data": tmp_path / "judged.jsonl"}
    write_records(tmp_path / "data.jsonl", records)
    monkeypatch.setattr("accord.stages.preference.run.fit", lambda *_, **__: pytest.fail("it was trained"))
    assert commands.run("preference", tmp_path / "run", data=tmp_path / "data.jsonl", by_group="true", **more) == 2
    said = capsys.readouterr().err
    assert "--by_group" in said and "birds" in said and f" {replies} " in said
    assert not (tmp_path / "run").exists()


BROKEN = {
    "greedy with a temperature": {"do_sample": False, "temperature": 0.6, "top_p": 0.9},
    "one beam with a penalty": {"num_beams": 1, "length_penalty": 2.0},
    "several greedy replies": {"do_sample": False, "num_return_sequences": 3},
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_of_a_generation_config_cannot_be_saved_is_left_out_and_the_rest_of_it_stays(
    name, commands, tokenizer, tmp_path, capsys
):
    model = load_policy(str(commands.snapshots / "policy"))
    for knob, value in {**BROKEN[name], "max_new_tokens": 77}.items():
        setattr(model.generation_config, knob, value)
    stops = model.generation_config.eos_token_id
    save_model(model, tokenizer, tmp_path / "saved", POLICY, "")
    said = capsys.readouterr().out
    assert "generation config" in said and list(BROKEN[name])[-1] in said
    saved = GenerationConfig.from_pretrained(tmp_path / "saved")
    saved.validate(strict=True)
    assert saved.max_new_tokens == 77 and saved.eos_token_id == stops is not None
    again = load_policy(str(tmp_path / "saved"))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_two_writers_of_one_file_do_not_take_each_other_s_away(tmp_path):
    path = tmp_path / "file"

    def first(stream):
        stream.write(b"first")
        write_atomically(path, lambda other: other.write(b"second"))  # comes and goes meanwhile
        assert path.read_bytes() == b"second"

    write_atomically(path, first)
    assert path.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_reference_cache_with_several_writers_is_whole_and_stops_none(tmp_path):
    problems = []

    def write(number):
        try:
            for k in range(150):
                ReplyStore(tmp_path, "weights", "f32").add({bytes([number, k] * 8): float(k)})
        except BaseException as error:  # of another thread
            problems.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not problems
    kept = ReplyStore(tmp_path, "weights", "f32").read()
    assert kept and all(value == name[1] for name, value in kept.items())
    assert [p.suffix for p in tmp_path.iterdir()] == [".safetensors"]


def test_what_a_killed_write_left_is_swept_when_the_run_goes_on(commands, tmp_path, stop_after):
    stop_after(1)
    assert commands.run("sft", tmp_path / "run") == 1
    stop_after(-1)
    left = [tmp_path / "run" / ".lineage.json.4711-1.part", tmp_path / "run" / "data" / ".data.json.4711-2.part"]
    for file in left:
        file.write_text("half")
    assert commands.run("sft", tmp_path / "run", resume="true") == 0
    assert not any(file.exists() for file in left)
    assert not [name for name in json.loads((tmp_path / "run" / "manifest.json").read_text()) if ".part" in name]
