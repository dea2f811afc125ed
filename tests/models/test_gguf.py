"""A GGUF file as a model: dequantised, said, trained on and saved as any other."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from accord.cli import main
from accord.config import Adapters
from accord.engine.forward.adapters import merged
from accord.errors import BadInput
from accord.models.bases import lower_frozen
from accord.models.loading import add_adapters, load_policy
from accord.models.places import asked_for, describe
from accord.models.tokenizer import load_renderer
from accord.records import Turn

gguf = pytest.importorskip("gguf")
Q8 = gguf.GGMLQuantizationType.Q8_0
HEADS = 2
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def as_llama_cpp_has_it(name, weight):
    """Rows of queries and keys stand there by pairs, not by halves."""
    if "q_proj" in name or "k_proj" in name:
        rows, columns = weight.shape
        return weight.reshape(HEADS, 2, rows // HEADS // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    return weight


@pytest.fixture(scope="module")
def written(tokenizer, tmp_path_factory):
    """A tiny Llama as a Q8_0 file with its tokenizer and template; and its weights as they were rounded."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": HEADS}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, tie_word_embeddings=True))
    file = tmp_path_factory.mktemp("gguf") / "tiny.Q8_0.gguf"
    out = gguf.GGUFWriter(file, "llama")
    out.add_block_count(1)
    out.add_context_length(2048)
    out.add_embedding_length(32)
    out.add_feed_forward_length(64)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_layer_norm_rms_eps(1e-6)
    out.add_rope_freq_base(10000.0)
    out.add_vocab_size(len(tokenizer))
    backend = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    out.add_tokenizer_model("gpt2")
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    out.add_token_list([name for name, _ in tokens])
    control = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    out.add_token_types([3 if i in control else 1 for _, i in tokens])
    out.add_token_merges([" ".join(pair) for pair in backend["merges"]])
    out.add_bos_token_id(tokenizer.bos_token_id)
    out.add_eos_token_id(tokenizer.eos_token_id)
    out.add_pad_token_id(tokenizer.pad_token_id)
    out.add_chat_template(tokenizer.chat_template)
    rounded = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        weight = tensor.numpy().astype(np.float32)
        parts = name.removesuffix(".weight").split(".")
        theirs = {"embed_tokens": "token_embd", "norm": "output_norm"}.get(parts[1])
        theirs = theirs or f"blk.{parts[2]}.{NAMES['.'.join(parts[3:])]}"
        if weight.ndim == 1:
            out.add_tensor(f"{theirs}.weight", weight)
            rounded[name] = torch.from_numpy(weight)
            continue
        blocks = gguf.quantize(as_llama_cpp_has_it(name, weight), Q8)
        out.add_tensor(f"{theirs}.weight", blocks, raw_dtype=Q8)
        rounded[name] = torch.from_numpy(gguf.dequantize(gguf.quantize(weight, Q8), Q8))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return file, rounded


def test_its_weights_are_the_rounded_ones_in_f32_and_that_is_said(written, capsys):
    file, rounded = written
    model = load_policy(str(file))
    assert "dequantised to f32" in capsys.readouterr().out
    assert not model.is_quantized and not hasattr(model.config, "quantization_config")
    found = model.state_dict()
    for name, weight in rounded.items():
        assert found[name].dtype == torch.float32 and torch.equal(found[name], weight), name
    assert describe(str(file))["role"] == "policy"


def test_it_is_trained_on_and_its_snapshot_is_a_plain_one(written, commands, tmp_path):
    file, _ = written
    assert commands.run("sft", tmp_path / "run", model=file) == 0
    where = tmp_path / "run" / "snapshot"
    model = AutoModelForCausalLM.from_pretrained(where)
    assert not getattr(model.config, "quantization_config", None) and (where / "model.safetensors").is_file()
    turns = (Turn("user", "why <|end|> the cat"),)
    assert load_renderer(str(file)).prompt_ids(turns) == load_renderer(str(where)).prompt_ids(turns)
    assert main(["check", str(file), "--max_new_tokens", "3"]) == 0


def test_under_adapters_its_weights_are_read_again_where_they_were_held_in_bf16(written):
    model = add_adapters(load_policy(str(written[0])), Adapters(lora_rank=2), scalar=False, seed=0)
    before = merged(model).state_dict()
    lower_frozen([model], "bf16")
    after = merged(model).state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_without_the_library_it_is_said_what_to_install(written, monkeypatch, tmp_path):
    monkeypatch.setattr("accord.models.places.importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install 'accord\[gguf\]'"):
        asked_for(str(written[0]))
    with pytest.raises(BadInput, match="is a file; a snapshot is a directory"):
        (tmp_path / "weights.bin").write_bytes(b"x")
        asked_for(str(tmp_path / "weights.bin"))
