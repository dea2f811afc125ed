"""Models from a size, a directory or a hub id, with optional LoRA adapters; and back to a Hugging Face directory."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
)
from transformers.utils import logging as transformers_logging

from accord.config import Adapters
from accord.data.chat import Renderer
from accord.engine.forward.attention import IMPLEMENTATION
from accord.errors import BadInput

# loading and saving a small model is no progress worth a bar
transformers_logging.disable_progress_bar()

# name: (hidden size, layers, heads, feed-forward); with a vocabulary of 1k: 0.2M, 0.5M, 1M, 5M, 26M, 100M parameters
SIZES: dict[str, tuple[int, int, int, int]] = {
    "nano": (64, 3, 4, 176),
    "tiny": (96, 4, 4, 256),
    "small": (128, 4, 4, 344),
    "base": (256, 6, 8, 688),
    "medium": (512, 8, 8, 1376),
    "large": (768, 14, 12, 2048),
}


def new_policy(size: str, tokenizer: Any, *, max_length: int, seed: int) -> nn.Module:
    """A fresh decoder of the ladder (Llama architecture: RMSNorm, rotary positions, SwiGLU, tied embeddings)."""
    width, layers, heads, inner = SIZES[size]
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=max(2048, max_length),
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation=IMPLEMENTATION,
    )
    model: nn.Module = AutoModelForCausalLM.from_config(config)
    return model


@torch.no_grad()
def embed_roles(model: nn.Module, renderer: Renderer) -> None:
    """Start the role tokens of the chat template, which no text holds, from the words for them (`user:`).

    The mean of the words' embeddings, as for any new token with a description (Hewitt 2021, "Initializing new word
    embeddings for pretrained language models"). What was learned of conversations in text then holds in the template
    from the first step: fine-tuning need not find it again from noise.
    """
    table = bare(model).get_input_embeddings().weight
    for token, words in renderer.role_words().items():
        table[token] = table[list(words)].mean(0)


def load_tokenizer(where: str) -> Any:
    """The snapshot's tokenizer; PAD is another token than EOS, or BadInput says that none can be found."""
    _check_place(where)
    tokenizer = AutoTokenizer.from_pretrained(where)
    if tokenizer.eos_token_id is None:
        raise BadInput(f"{where}: the tokenizer has no EOS token; set eos_token in its tokenizer_config.json")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        # masks come from lengths, so any other token can fill the slots
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise BadInput(
            f"{where}: PAD and EOS are the same token and no other can pad; add a pad_token to the tokenizer"
        )
    return tokenizer


def load_renderer(where: str) -> Renderer:
    """The snapshot's renderer."""
    return Renderer(load_tokenizer(where))


def load_policy(where: str, *, trainable: bool = True) -> nn.Module:
    """A causal language model (f32 weights); LoRA adapters saved in the directory stay adapters.

    Raises BadInput where a preference or cost model is given instead.
    """
    described = describe(where)
    if described["role"] != "policy":
        raise BadInput(f"{where} is a {described['role']} model, not a policy; give a snapshot of pretrain, sft or ppo")
    return _load(AutoModelForCausalLM, where, trainable)


def load_scalar(where: str, *, role: str, trainable: bool = False) -> nn.Module:
    """A preference or cost model; BadInput if the directory holds another role."""
    described = describe(where)
    if described["role"] != role:
        flag = "--costs" if role == "cost" else "--rewards"
        raise BadInput(f"{where} is a {described['role']} model, but {flag} needs a {role} model")
    return _load(AutoModelForSequenceClassification, where, trainable)


def _load(kind: Any, where: str, trainable: bool) -> nn.Module:
    adapted = base_of(where)
    base = adapted or where
    options = {"num_labels": len(heads_of(describe(where)))} if adapted and kind is not AutoModelForCausalLM else {}
    try:
        model = kind.from_pretrained(base, attn_implementation=IMPLEMENTATION, dtype=torch.float32, **options)
        if adapted:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, where, is_trainable=trainable)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BadInput(f"{where}: cannot be loaded as a model ({str(error).splitlines()[0]})") from None
    switch_dropout_off(model)
    if not trainable:
        model.requires_grad_(False)
    model.eval()
    result: nn.Module = model
    return result


def base_of(where: str) -> str:
    """The snapshot or hub id that an adapter's directory builds on; empty where there is no adapter."""
    adapter = Path(where) / "adapter_config.json"
    return str(json.loads(adapter.read_text())["base_model_name_or_path"]) if adapter.is_file() else ""


def switch_dropout_off(model: nn.Module) -> None:
    """A score must not depend on the draw of a mask: layers, and rates that modules hand to functions."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def describe(where: str) -> dict[str, Any]:
    """Role (policy, preference or cost), criterion and normaliser of a snapshot, from its config alone."""
    _check_place(where)
    folder = Path(where)
    written = folder / "accord.json"
    if written.is_file():
        try:
            described: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadInput(f"{written}: not valid JSON ({error}); make the snapshot again") from None
        return described
    try:
        architectures = AutoConfig.from_pretrained(where).architectures or []
    except (OSError, ValueError) as error:
        raise BadInput(f"{where}: no Hugging Face model there ({str(error).splitlines()[0]})") from None
    classifier = any("SequenceClassification" in name for name in architectures)
    return {"role": "preference" if classifier else "policy", "criterion": "", "normalizer": {"kind": "none"}}


def heads_of(described: dict[str, Any]) -> list[str]:
    """The names of a scalar model's heads: its criteria, or groups of labelers."""
    heads: list[str] = described.get("heads") or [described["criterion"]]
    return heads


def _check_place(where: str) -> None:
    folder = Path(where)
    if folder.is_dir():
        if not ((folder / "config.json").is_file() or (folder / "adapter_config.json").is_file()):
            inside = folder / "snapshot"
            hint = f"; did you mean {inside}?" if inside.is_dir() else ""
            raise BadInput(f"{where}: no config.json there, so it is no snapshot{hint}")
    elif folder.exists():
        raise BadInput(f"{where} is a file; a snapshot is a directory")
    elif where.count("/") != 1 or where.startswith((".", "/", "~")):
        raise BadInput(f"{where}: no such directory (and not a hub id of the form OWNER/NAME)")


def add_adapters(model: nn.Module, config: Adapters, *, scalar: bool, seed: int) -> nn.Module:
    """Wrap the model in trainable LoRA adapters if `lora_rank` asks for them; a scalar head stays trainable.

    A snapshot that is an adapter already goes on with it: another on top could not be saved without losing it.
    """
    if not config.lora_rank:
        return model
    if is_adapted(model):
        rank = model.active_peft_config.r  # type: ignore[union-attr]
        if rank != config.lora_rank:
            raise BadInput(
                f"--lora_rank {config.lora_rank}: the snapshot is an adapter of rank {rank} already, and training "
                f"goes on with it; give --lora_rank {rank}"
            )
        return model
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    targets: str | list[str] = (
        config.lora_targets if config.lora_targets == "all-linear" else config.lora_targets.split(",")
    )
    wrapped: nn.Module = get_peft_model(
        model,
        LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            target_modules=targets,
            task_type="SEQ_CLS" if scalar else "CAUSAL_LM",
            modules_to_save=["score"] if scalar else None,
        ),
    )
    return wrapped


def is_adapted(model: nn.Module) -> bool:
    return hasattr(model, "disable_adapter")


def bare(model: nn.Module) -> Any:
    """The Hugging Face model itself, under the adapters if there are any."""
    return model.get_base_model() if is_adapted(model) else model  # type: ignore[operator]


def save_model(model: nn.Module, tokenizer: Any, folder: Path, description: dict[str, Any], card: str) -> None:
    """Write a Hugging Face directory: weights, tokenizer, chat template, generation config, model card.

    An adapted model is saved as its adapter, naming its base. `description` (role, criterion, normaliser) goes to
    `accord.json` and, for the base class to see, into config.json.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # peft looks for the base's config on the hub
        model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
    (folder / "accord.json").write_text(json.dumps(description, indent=1) + "\n")
    (folder / "README.md").write_text(card)
    # pytorch may have left the mode of a temporary file
    for file in folder.iterdir():
        file.chmod(0o644)
