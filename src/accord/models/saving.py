"""Models to Hugging Face directories."""

import json
import warnings
from pathlib import Path
from typing import Any

from torch import nn
from transformers import GenerationConfig

DESCRIPTION = "accord.json"
POLICY = {"role": "policy", "criterion": "", "normalizer": {"kind": "none"}}


def save_model(model: nn.Module, tokenizer: Any, folder: Path, description: dict[str, Any], card: str) -> None:
    """Write a Hugging Face directory: weights, tokenizer, chat template, generation config, model card.

    An adapted model is saved as its adapter, naming its base. `description` (role, criterion, normaliser) goes to
    `accord.json` and, for the base class to see, into config.json.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # peft looks for the base's config on the hub
        save_weights(model, folder)
    tokenizer.save_pretrained(folder)
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")
    # pytorch may have left the mode of a temporary file
    for file in folder.iterdir():
        file.chmod(0o644)


def save_weights(model: Any, folder: Path) -> None:
    """Weights and configs. Of a generation config that its class refuses to save, what can be saved is."""
    try:
        model.save_pretrained(folder)
    except ValueError:
        config = getattr(model, "generation_config", None)
        if not isinstance(config, GenerationConfig):
            raise
        model.generation_config, dropped = without_contradictions(config)
        if not dropped:
            raise
        print(f"generation config: left out {', '.join(dropped)}, which contradict the rest of it and cannot be saved")
        model.save_pretrained(folder)


def without_contradictions(config: GenerationConfig) -> tuple[GenerationConfig, list[str]]:
    """The config without the values that cannot stand beside those before them, by name; and the names of these."""
    kept, dropped = GenerationConfig(), []
    for name, value in sorted(vars(config).items()):
        if name.startswith("_") or (before := getattr(kept, name, None)) == value:
            continue
        setattr(kept, name, value)
        try:
            kept.validate(strict=True)
        except ValueError:
            setattr(kept, name, before)
            dropped.append(name)
    return kept, dropped


def add_to_description(folder: Path, found: dict[str, Any]) -> None:
    """Add what only the saved model could tell to its `accord.json`."""
    described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    (folder / DESCRIPTION).write_text(json.dumps(described | found, indent=1) + "\n", encoding="utf-8")
