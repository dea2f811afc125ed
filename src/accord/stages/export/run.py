"""Export: a snapshot as others load it, so that they stop where training ended and write what was trained.

Every program has a place of its own where it looks for the end of a reply: transformers and vLLM in
`generation_config.json`, llama.cpp's converter in the tokenizer's EOS. All are set to the end of the template's turn.
"""

import os
import shutil
from pathlib import Path

import torch

from accord.data.chat import Renderer
from accord.errors import BadInput
from accord.models.loading import load_policy, load_scalar
from accord.models.places import describe
from accord.models.saving import save_model
from accord.models.tokenizer import load_renderer
from accord.records import Turn
from accord.stages.export.config import Export
from accord.stages.leaks import LABELLED_PROMPTS, TRAINED_PROMPTS
from accord.stages.shared import card

DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
PROBE = (Turn("user", "Hello."), Turn("assistant", "Yes."), Turn("user", "And now?"))


def run(config: Export) -> Path:
    """Write the folder and say what ends a reply of it; an ensemble is written with its members."""
    out = Path(config.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out} is not an empty folder; choose another")
    renderer = load_renderer(config.snapshot)
    ends_by_template(renderer)
    described = describe(config.snapshot)
    members = described.get("ensemble", {}).get("members", [])
    written = out.with_name(f".{out.name}.part")
    shutil.rmtree(written, ignore_errors=True)
    for member in ("", *members):
        where = str(Path(config.snapshot) / member) if member else config.snapshot
        export(where, renderer, written / member, DTYPES[config.dtype])
    for name in (TRAINED_PROMPTS, LABELLED_PROMPTS):
        if (listed := Path(config.snapshot) / name).is_file():
            shutil.copy(listed, written / name)
    if out.exists():
        out.rmdir()
    os.replace(written, out)
    names = ", ".join(repr(renderer.tokenizer.convert_ids_to_tokens(i)) for i in sorted(renderer.stops))
    print(f"{out}: {described['role']} in {config.dtype}, whole; a reply ends with {names}")
    return out


def export(where: str, renderer: Renderer, folder: Path, dtype: torch.dtype) -> None:
    """Write one model."""
    described = describe(where)
    role = described["role"]
    model = load_policy(where) if role == "policy" else load_scalar(where, role=role)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model.to(dtype), renderer.tokenizer, folder, described, card("export", {"parent": where}))


def ends_by_template(renderer: Renderer) -> None:
    """Make the end of the template's turn the tokenizer's EOS, unless its template would then write otherwise."""
    tokenizer = renderer.tokenizer
    before, eos = renderer.prompt_ids(PROBE), tokenizer.eos_token
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(renderer.end)
    if Renderer(tokenizer, stops=renderer.stops, aloud=False).prompt_ids(PROBE) != before:
        tokenizer.eos_token = eos
        print(f"the template writes EOS itself: it stays {eos!r}, and llama.cpp needs the end of a turn by a flag")
