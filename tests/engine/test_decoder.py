"""The lean decoder against the padded one and the models' own forward; slots that come and go."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from accord.config import Adapters
from accord.engine.decode import decoder, matrices, sampler
from accord.engine.decode.decoder import Decoder, decodes
from accord.engine.decode.draw import SampleSettings
from accord.engine.decode.fallback import decode_padded
from accord.engine.decode.matrices import arrange
from accord.engine.decode.sampler import decode_in_slots, make_lanes, sample
from accord.engine.forward.causal import token_logprobs
from accord.engine.packing import pack, reply_group
from accord.models.loading import add_adapters
from tests.engine.test_packed_forward import GROUPED as COMMON

BEGINNING = tuple(3 + i % 20 for i in range(40))
NTK = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
# name: (config class, its settings, whether it is decoded leanly)
ARCHITECTURES = {
    "llama": ("LlamaConfig", {}, True),
    "llama-tied-biased": ("LlamaConfig", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}, True),
    "llama-scaled": (
        "LlamaConfig",
        {"rope_parameters": {**NTK, "original_max_position_embeddings": 16}},
        True,
    ),
    "mistral": ("MistralConfig", {"sliding_window": None}, True),
    "qwen2": ("Qwen2Config", {}, True),
    "qwen3": ("Qwen3Config", {"head_dim": 8}, True),
    "gemma": ("GemmaConfig", {"head_dim": 4}, False),
    "dynamic": ("LlamaConfig", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, False),
}
PROMPTS = [(1, 5, 9, 3, 7, 8, 30, 31), (1, 4), (1, 3, 3, 7, 8), (1, 6, 10, 11), (1, 12), (1, 13, 14)]
SETTINGS = SampleSettings(3, 0.9, 12, frozenset({2, 17, 18}), seed=5)


def make(name):
    kind, settings, _ = ARCHITECTURES[name]
    config = getattr(transformers, kind)(**{**COMMON, **settings}, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="accord")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0) if parameter.ndim > 1 else parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def both_ways(model, cache_tokens=65536):
    order = sorted(range(len(PROMPTS)), key=lambda i: -len(PROMPTS[i]))
    prompts = [PROMPTS[i] for i in order]
    given = prompts, SETTINGS
    with torch.no_grad():
        return [
            [drawn for _, drawn in sorted(decode(model, *given, cache_tokens=cache_tokens))]
            for decode in (decode_in_slots, decode_padded)
        ]


@pytest.fixture(params=["folded", "laid out", "in place"])
def kept(request, monkeypatch):
    """Matrices as a small model's are kept, as one's of some hundred million parameters, and as a large one's."""
    monkeypatch.setattr(matrices, "COPIED", 0 if request.param == "in place" else matrices.COPIED)
    monkeypatch.setattr(matrices, "LAID_OUT", 0 if request.param == "laid out" else matrices.LAID_OUT)
    if request.param == "laid out" and not matrices.can_lay_out(torch.device("cpu")):
        pytest.skip("this machine has no such order")
    return request.param


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_lean_decoder_draws_what_the_model_itself_would(name, kept):
    model = make(name)
    assert decodes(model, longest=30) is ARCHITECTURES[name][2]
    if decodes(model, longest=30):
        ours, theirs = both_ways(model)
        assert [ids for ids, _ in ours] == [ids for ids, _ in theirs]
        assert np.allclose(np.concatenate([p for _, p in ours]), np.concatenate([p for _, p in theirs]), atol=1e-5)
    rollouts = sample(model, PROMPTS, SETTINGS)
    packing = pack([reply_group(r.prompt_ids, r.ids) for r in rollouts])
    drawn = torch.tensor([lp for r in rollouts for lp in r.logprobs])
    assert torch.allclose(token_logprobs(model, packing, temperature=0.9), drawn, atol=1e-5)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ("llama", "gemma") else pytest.mark.slow) for n in ARCHITECTURES]
)
@pytest.mark.parametrize("cache_tokens", [65536, 100])
def test_a_prompt_is_told_of_with_its_last_reply_while_others_are_being_drawn(name, cache_tokens, monkeypatch):
    steps, told = [], {}
    draw = SampleSettings.tokens
    monkeypatch.setattr(SampleSettings, "tokens", lambda self, *given: steps.append(1) or draw(self, *given))

    def finished(place, rollouts):
        assert place not in told
        told[place] = (rollouts, len(steps))

    settings = replace(SETTINGS, stop_ids=frozenset(range(2, 40, 5)))
    drawn = sample(make(name), PROMPTS, settings, finished, cache_tokens=cache_tokens)
    n = SETTINGS.n
    assert [told[i][0] for i in range(len(PROMPTS))] == [drawn[i * n : (i + 1) * n] for i in range(len(PROMPTS))]
    told_at = [at for _, at in told.values()]
    assert min(told_at) < max(told_at) == len(steps)


def test_a_window_shorter_than_the_text_is_left_to_the_model():
    model = make("mistral")
    model.config.sliding_window = 16
    assert decodes(model, longest=16) and not decodes(model, longest=17)


def with_adapters(name):
    model = add_adapters(make(name), Adapters(lora_rank=2), scalar=False, seed=0).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model


def test_adapters_take_part_as_they_stand(kept):
    model = with_adapters("llama")
    ours, theirs = both_ways(model)
    assert [ids for ids, _ in ours] == [ids for ids, _ in theirs]
    with model.disable_adapter():
        off, _ = both_ways(model)
        assert off == both_ways(model.get_base_model())[0]
    assert off != ours


def test_a_large_model_is_decoded_from_its_own_weights(monkeypatch):
    """No matrix is copied, under adapters neither; where another type is computed in, there is no way around it."""
    model = with_adapters("llama-tied-biased")
    owned = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def copied():
        blocks = Decoder(model, [(2, 8)]).blocks
        used = [m for b in blocks for m in (*b.qkv, b.attention_out, *b.gate_up, b.down)]
        return [m for m in used if m.weight.untyped_storage().data_ptr() not in owned]

    assert len(copied()) == 4 * model.config.num_hidden_layers
    monkeypatch.setattr(matrices, "COPIED", 0)
    assert copied() == []
    with torch.autocast("cpu", torch.bfloat16):
        assert len(copied()) == 4 * model.config.num_hidden_layers


def test_large_matrices_are_laid_out_for_several_rows_in_f32_alone(monkeypatch):
    monkeypatch.setattr(matrices, "can_lay_out", lambda device: True)
    large = torch.zeros(512, 1024)
    assert arrange(large, None, 2).laid_out
    small = torch.zeros(511, 1024)
    low = torch.zeros(1024, 1024, dtype=torch.bfloat16)
    assert not any(arrange(weight, None, rows).laid_out for weight, rows in ((large, 1), (small, 2), (low, 2)))


@pytest.mark.parametrize("cache_tokens", [1, 60, 150, 400])
def test_rows_that_enter_late_are_the_same_rows(cache_tokens):
    model = make("qwen3")
    few, _ = both_ways(model, cache_tokens)
    all_at_once, _ = both_ways(model)
    assert [ids for ids, _ in few] == [ids for ids, _ in all_at_once]
    assert np.allclose(np.concatenate([p for _, p in few]), np.concatenate([p for _, p in all_at_once]), atol=1e-5)


def test_a_prompt_is_computed_once_and_no_token_twice(monkeypatch):
    """Tokens through the trunk: every prompt once, every reply but its last token."""
    seen = []
    plain = Decoder.trunk
    monkeypatch.setattr(Decoder, "trunk", lambda self, ids, *rest: seen.append(len(ids)) or plain(self, ids, *rest))
    model = make("llama")
    decodes(model, longest=30)
    seen.clear()
    for cache_tokens in (1, 150, 65536):
        rollouts = sample(model, PROMPTS, SETTINGS, cache_tokens=cache_tokens)
        assert sum(seen) == sum(map(len, PROMPTS)) + sum(len(r.ids) - 1 for r in rollouts)
        seen.clear()


def test_slots_hold_what_the_memory_bound_says(monkeypatch):
    held = []
    plain = Decoder.__init__

    def init(self, model, pools):
        held.append(sum(slots * capacity for slots, capacity in pools))
        plain(self, model, pools)

    model = make("llama")
    decodes(model, longest=30)
    monkeypatch.setattr(Decoder, "__init__", init)
    for cache_tokens in (150, 250):
        sample(model, PROMPTS, SETTINGS, cache_tokens=cache_tokens)
        assert held.pop() <= cache_tokens
    sample(model, PROMPTS, SETTINGS, cache_tokens=1)
    assert held.pop() == 3 * (8 + 12)


def test_lanes_hold_prompts_of_similar_length_and_every_prompt_once():
    lengths = sorted([400, 390, 210, 205, 201, 200, *[90] * 40, *[40] * 40, 10], reverse=True)
    lanes = make_lanes(lengths, 8, 40, 10_000)
    assert [i for lane in lanes for i in lane.waiting] == list(range(len(lengths)))
    for lane in lanes:
        inside = [lengths[i] for i in lane.waiting]
        assert lane.capacity == inside[0] + 40
        assert inside[0] <= 2 * inside[-1] or lane is lanes[-1]
        assert lane.slots % 8 == 0
    assert sum(lane.slots * lane.capacity for lane in lanes) <= 10_000 + 8 * sum(lane.capacity for lane in lanes)


def test_a_few_rows_that_end_move_a_few_rows():
    decoder = Decoder(make("llama"), [(6, 8)])
    with torch.no_grad():
        decoder.admit(0, [(1, 2, 3), (4, 5), (6,)], 2)
    (pool,) = decoder.pools
    before = pool.cache.clone()
    order = pool.keep(np.array([True, False, True, True, False, True]))
    assert order.tolist() == [0, 5, 2, 3] and pool.live == 4
    assert pool.lengths.tolist() == [3, 1, 2, 2, 0, 0] == pool.sizes.tolist()
    assert torch.equal(pool.cache[:, :, 1, :, :1], before[:, :, 5, :, :1])
    assert torch.equal(pool.cache[:, :, [0, 2, 3]], before[:, :, [0, 2, 3]])


def test_an_unknown_architecture_is_decoded_by_its_own_forward(monkeypatch):
    model = make("gemma")
    monkeypatch.setattr(sampler, "decode_in_slots", None)
    assert len(sample(model, PROMPTS, SETTINGS)) == 18


@pytest.mark.parametrize("n", [1, 3])
def test_a_long_beginning_of_all_prompts_is_computed_once(monkeypatch, n):
    model = make("qwen2")
    prompts = [(*BEGINNING, *prompt) for prompt in PROMPTS] + [BEGINNING]
    counted = []
    trunk = Decoder.trunk
    monkeypatch.setattr(Decoder, "trunk", lambda self, ids, *rest: counted.append(len(ids)) or trunk(self, ids, *rest))

    def first_and_second(decoder):
        with torch.no_grad():
            first = decoder.admit(0, prompts, n)
            return torch.cat([first, decoder.step(torch.arange(len(first)) % 20)])

    together = first_and_second(Decoder(model, [(n * len(prompts), 64)]))
    own = sum(map(len, PROMPTS))
    assert counted[0] == len(BEGINNING) - 1 + own + len(prompts), "the last prompt has a token of its own"
    monkeypatch.setattr(decoder, "LONG_BEGINNING", 1000)
    apart = first_and_second(Decoder(model, [(n * len(prompts), 64)]))
    assert counted[2] == own + len(BEGINNING) * len(prompts)
    assert torch.allclose(together, apart, atol=2e-5)
