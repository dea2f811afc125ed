"""Weights are read from safetensors alone: a pickle runs what its author wrote into it."""

import ast
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import accord

SOURCE = Path(accord.__file__).parent


@pytest.fixture
def closed(monkeypatch):
    """Fail where a pickle is opened, by whatever road."""

    def opens(*_, **__):
        pytest.fail("a pickle was opened")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, opens)


def as_pickle(folder, name):
    """The folder with its weights as older programs wrote them."""
    weights = folder / f"{name}.safetensors"
    torch.save(load_file(weights), folder / {"model": "pytorch_model.bin", "adapter_model": "adapter_model.bin"}[name])
    weights.unlink()
    return folder


CASES = {
    "sft": ("model", "policy"),
    "ppo": ("rewards.helpful", "reward"),
    "preference": ("model", "policy"),
    "dpo": ("reference", "policy"),
    "evaluate": ("costs.harmless", "cost"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_model_of_pickles_is_refused_with_what_to_do_and_not_opened(name, commands, tmp_path, capsys, closed):
    knob, role = CASES[name]
    folder = shutil.copytree(commands.snapshots / role, tmp_path / "old")
    as_pickle(folder, "model")
    assert commands.run(name, tmp_path / "run", **{knob: folder}) == 2
    said = capsys.readouterr().err
    assert str(folder) in said and "safetensors" in said and "save_pretrained" in said and len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.fixture
def adapter(commands, tmp_path):
    assert commands.run("sft", tmp_path / "adapter", lora_rank=2, epochs=0.5) == 0
    return as_pickle(tmp_path / "adapter" / "snapshot" / "adapter", "adapter_model")


def test_an_adapter_of_pickles_is_refused_and_not_opened(adapter, commands, tmp_path, capsys, closed):
    assert commands.run("sample", tmp_path / "run", model=adapter) == 2
    said = capsys.readouterr().err
    assert str(adapter) in said and "safetensors" in said and "save_pretrained" in said


def test_every_model_is_asked_for_as_safetensors():
    """`from_pretrained` of a model takes a pickle where there is nothing else, unless it is told not to."""
    asked = 0
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if ".from_pretrained" in text else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".from_pretrained"):
                kind = ast.unparse(node.func).removesuffix(".from_pretrained")
                if kind not in ("AutoTokenizer", "AutoConfig", "GenerationConfig", "PeftModel"):
                    asked += 1
                    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                    assert given.get("use_safetensors") == "True", f"{path}:{node.lineno}"
    assert asked


def test_an_adapter_beside_a_hub_model_is_refused_before_its_pickle_is_opened(
    commands, tmp_path, capsys, closed, monkeypatch
):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--owner--name"
    shutil.copytree(commands.snapshots / "policy", cached / "snapshots" / commit)
    (cached / "snapshots" / commit / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "base_model_name_or_path": "owner/name"}'
    )
    (cached / "snapshots" / commit / "adapter_model.bin").write_bytes(b"\x80\x04.")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert commands.run("sample", tmp_path / "run", model="owner/name") == 2
    assert "owner/name" in (said := capsys.readouterr().err) and "adapter" in said and "directory" in said
