"""Models to Hugging Face directories."""

import json
import warnings
from pathlib import Path
from typing import Any

from torch import nn

DESCRIPTION = "accord.json"
POLICY = {"role": "policy", "criterion": "", "normalizer": {"kind": "none"}}


def save_model(model: nn.Module, tokenizer: Any, folder: Path, description: dict[str, Any], card: str) -> None:
    """Write a Hugging Face directory: weights, tokenizer, chat template, generation config, model card.

    An adapted model is saved as its adapter, naming its base. `description` (role, criterion, normaliser) goes to
    `accord.json` and, for the base class to see, into config.json.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # peft looks for the base's config on the hub
        model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")
    (folder / "README.md").write_text(card)
    # pytorch may have left the mode of a temporary file
    for file in folder.iterdir():
        file.chmod(0o644)


def add_to_description(folder: Path, found: dict[str, Any]) -> None:
    """Add what only the saved model could tell to its `accord.json`."""
    described = json.loads((folder / DESCRIPTION).read_text())
    (folder / DESCRIPTION).write_text(json.dumps(described | found, indent=1) + "\n")
