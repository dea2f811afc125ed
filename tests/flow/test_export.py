"""`accord export`: a snapshot as others load it, in other programs' own calls."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from accord.cli import main
from accord.engine.decode.draw import SampleSettings
from accord.engine.decode.sampler import sample
from accord.models.loading import load_policy
from accord.models.places import describe
from accord.models.tokenizer import load_renderer
from accord.records import Turn
from tests.conftest import WORDS

# an EOS that is no end of a turn, as Gemma's: a server that knows the EOS alone would run on
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|tool|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ASKED = [{"role": "user", "content": "why the cat"}]


@pytest.fixture
def exported(commands, tmp_path):
    """A policy whose turns end otherwise than its texts, trained to end them, and its export."""
    from accord.models.places import POLICY
    from accord.models.saving import save_model

    renderer = load_renderer(str(commands.snapshots / "policy"))
    tokenizer = renderer.tokenizer
    tokenizer.chat_template = TEMPLATE
    save_model(load_policy(str(commands.snapshots / "policy")), tokenizer, tmp_path / "start", POLICY, "")
    rows = [{"prompt": f"why the cat {word}", "completion": "the cat runs"} for word in WORDS]
    (tmp_path / "demos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"model": tmp_path / "start", "data": tmp_path / "demos.jsonl", "batch_size": 10}
    changes |= {"learning_rate": 1e-2, "epochs": 12}
    assert commands.run("sft", tmp_path / "run", **changes) == 0
    out = tmp_path / "out"
    assert main(["export", str(tmp_path / "run" / "snapshot"), "--out", str(out), "--dtype", "f32"]) == 0
    return tmp_path / "run" / "snapshot", out


def test_an_export_answers_as_sample_does_and_ends_where_training_ended(exported):
    snapshot, out = exported
    renderer = load_renderer(str(snapshot))
    prompt = renderer.prompt_ids((Turn("user", "why the cat"),))
    cold = SampleSettings(1, 1e-6, 40, renderer.stops, 0)
    (ours,) = sample(load_policy(str(snapshot)), [prompt], cold)
    assert ours.finish == "stop" and renderer.tokenizer.decode([ours.ids[-1]]) == "<|tool|>"
    # as anyone writes it, from the folder alone
    tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForCausalLM.from_pretrained(out)
    inputs = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    theirs = model.generate(**inputs, max_new_tokens=40, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tuple(theirs.tolist()) == ours.ids
    # every program's own place: transformers and vLLM read the first, llama.cpp's converter the last
    stops = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
    assert ours.ids[-1] in (stops if isinstance(stops, list) else [stops])
    assert tokenizer.eos_token == "<|tool|>" and tokenizer.pad_token_id == model.config.pad_token_id
    assert not (out / "adapter").exists() and (out / "trained_prompts.txt").is_file()


def test_bf16_is_what_is_written_and_rounds(commands, tmp_path):
    assert main(["export", str(commands.snapshots / "policy"), "--out", str(tmp_path / "half")]) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "half")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    whole = AutoModelForCausalLM.from_pretrained(commands.snapshots / "policy")
    for half, full in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(half, full.bfloat16())


def test_a_cost_model_keeps_what_it_is_and_an_ensemble_its_members(commands, tmp_path):
    assert main(["export", str(commands.snapshots / "calibrated"), "--out", str(tmp_path / "cost")]) == 0
    assert describe(str(tmp_path / "cost")) == describe(str(commands.snapshots / "calibrated"))
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "cost").config.num_labels == 1
    assert commands.run("preference", tmp_path / "run", ensemble=2, epochs=0.5) == 0
    assert main(["export", str(tmp_path / "run" / "snapshot"), "--out", str(tmp_path / "two")]) == 0
    assert (tmp_path / "two" / "members" / "1" / "model.safetensors").is_file()


def test_a_folder_that_holds_something_is_not_written_to(commands, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    assert main(["export", str(commands.snapshots / "policy"), "--out", str(tmp_path / "out")]) == 2
    assert f"--out {tmp_path / 'out'} is not an empty folder" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
