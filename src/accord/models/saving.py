"""Models to Hugging Face directories that load anywhere."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import GenerationConfig

from accord.data.chat import Renderer
from accord.engine.forward.adapters import is_adapted, merged
from accord.models.places import DESCRIPTION


def save_model(model: nn.Module, tokenizer: Any, folder: Path, description: dict[str, Any], card: str) -> None:
    """Write a Hugging Face directory: weights, tokenizer, chat template, generation config, model card.

    Adapters are merged into the weights, so that the directory needs no other; beside them `adapter/` holds the
    adapters alone, and names their base. `description` (role, criterion, normaliser) goes into config.json, whose PAD
    is the tokenizer's: without one, batches of scores are refused or read off a slot of padding.
    """
    whole = merged(model)
    agree_on_tokens(whole, tokenizer)
    whole.config.update({DESCRIPTION: description})
    save_weights(whole, folder)
    if is_adapted(model):
        # the base's vocabulary is not changed, and peft would look for its config on the hub to find that out
        model.save_pretrained(str(folder / "adapter"), save_embedding_layers=False)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    # pytorch may have left the mode of a temporary file
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o644)


def agree_on_tokens(model: Any, tokenizer: Any) -> None:
    """Write PAD, BOS and what ends a reply into the model's configs, as the tokenizer and its template have them.

    The end of a turn comes first, then what else its server stops on.
    """
    generation = getattr(model, "generation_config", None)
    known = listed(generation.eos_token_id) if generation is not None else []
    renderer = Renderer(tokenizer, stops=known, aloud=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = renderer.padding()
    ends = [renderer.end, *sorted(renderer.stops - {renderer.end})]
    for config in (model.config, generation):
        if config is not None:
            config.eos_token_id = ends if len(ends) > 1 else ends[0]
            config.pad_token_id, config.bos_token_id = tokenizer.pad_token_id, tokenizer.bos_token_id


def listed(ids: int | Sequence[int] | None) -> list[int]:
    """Token ids as configs write them: none, one, or several."""
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else [int(token) for token in ids]


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
    """Add what only the saved model could tell to its description in config.json."""
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config[DESCRIPTION] |= found
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
