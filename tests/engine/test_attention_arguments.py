"""What a model attends with is computed or refused, never left out; the oracle is the model loaded apart as eager."""

import pytest
import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModelForCausalLM

from accord.engine.decode.draw import SampleSettings
from accord.engine.decode.sampler import sample
from accord.engine.forward import attention
from accord.engine.forward.attention import (
    IMPLEMENTATION,
    UnknownArgument,
    current_packing,
    explicit_attention,
    own_attention,
    packed,
)
from accord.engine.forward.causal import packs, token_logprobs
from accord.engine.packing import pack, reply_group
from accord.errors import BadInput

SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
# families with sinks: a number beside every head's scores, which takes part of the softmax
SINKS = {
    "GptOssConfig": {"num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 8},
    "GraniteSWAConfig": {"sliding_window": 8},
}
GROUPS = [reply_group([5, 9, 11], [7, 8, 1], [21, 3]), reply_group([4], [6, 1])]


@pytest.fixture(params=SINKS)
def models(request, tmp_path):
    """Ours, and the same weights loaded apart."""
    torch.manual_seed(0)
    config = getattr(transformers, request.param)(**SMALL, **SINKS[request.param])
    made = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(torch.randn(parameter.shape) * (2.0 if "sink" in name else 0.3))
    made.save_pretrained(tmp_path)
    return tuple(
        AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=how, dtype=torch.float32).eval()
        for how in (IMPLEMENTATION, "eager")
    )


def expected_logprobs(model, groups):
    found = []
    for group in groups:
        for reply in group.replies:
            ids = torch.tensor([[*group.prefix, *reply]])
            logs = F.log_softmax(model(input_ids=ids).logits[0, len(group.prefix) - 1 : -1].float(), -1)
            found.append(logs.gather(1, torch.tensor(reply)[:, None])[:, 0])
    return torch.cat(found)


@torch.no_grad()
def test_log_probs_of_a_model_with_sinks_are_those_of_its_own_attention(models, capsys):
    ours, apart = models
    assert torch.allclose(token_logprobs(ours, pack(GROUPS)), expected_logprobs(apart, GROUPS), atol=1e-5)
    assert not packs(ours) and "padded batches are used instead" in capsys.readouterr().out


@torch.no_grad()
def test_replies_of_a_model_with_sinks_are_drawn_at_its_own_log_probs(models):
    ours, apart = models
    settings = SampleSettings(2, 1.0, 5, frozenset({1}), seed=0)
    rollouts = sample(ours, [(5, 9, 11), (4, 7)], settings)
    drawn = torch.tensor([p for r in rollouts for p in r.logprobs])
    groups = [reply_group(r.prompt_ids, r.ids) for r in rollouts]
    assert torch.allclose(drawn, expected_logprobs(apart, groups), atol=1e-5)


def test_an_argument_that_is_not_known_is_named():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SMALL, attn_implementation=IMPLEMENTATION)
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(UnknownArgument, match="LlamaAttention attends with position_bias"):
        model(input_ids=torch.tensor([[1, 2]]), position_bias=torch.zeros(1))
    model(input_ids=torch.tensor([[1, 2]]), position_bias=None, output_attentions=False)


def test_attention_that_is_wrong_in_every_way_of_ours_is_seen(monkeypatch):
    """Packed, padded and plain agree with one another here; the model's own attention does not."""
    config = transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=IMPLEMENTATION).eval()
    packed, plain = attention.attend_packed, attention.sdpa_attention_forward
    monkeypatch.setattr(attention, "attend_packed", lambda *a, **k: 3 * packed(*a, **k))
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *a, **k: (3 * plain(*a, **k)[0], None))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    with pytest.raises(BadInput, match="not known here"):
        token_logprobs(model, pack(GROUPS))


def test_a_model_attends_by_the_innermost_packing_and_by_none_outside():
    outer, inner = pack(GROUPS), pack(GROUPS[:1])
    assert current_packing() is None
    with packed(outer):
        with packed(inner):
            assert current_packing() is inner
        assert current_packing() is outer
    assert current_packing() is None


def test_a_models_own_attention_is_left_as_it_was_found_even_by_a_failure():
    config = transformers.LlamaConfig(**SMALL, attn_implementation=IMPLEMENTATION)
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ZeroDivisionError), own_attention(model):
        assert model.config._attn_implementation == "eager"
        raise ZeroDivisionError
    assert model.config._attn_implementation == IMPLEMENTATION


@pytest.mark.parametrize("given", [{"is_causal": False}, {"is_causal": 0, "softcap": 2.0}, {"s_aux": torch.zeros(1)}])
def test_what_would_change_the_numbers_is_refused(given):
    (name,) = set(given) - {"softcap"}
    with pytest.raises(UnknownArgument, match=f"Linear attends with {name}, which is not known here"):
        attention._refuse_unknown(torch.nn.Linear(1, 1), given)
    attention._refuse_unknown(torch.nn.Linear(1, 1), {"is_causal": True, "softcap": 2.0, "dropout": 0.0, "bias": None})


@pytest.mark.parametrize(
    ("shape", "dtype", "faster"),
    [
        ((1, 2, 512, 4), torch.bfloat16, True),
        ((1, 2, 513, 4), torch.bfloat16, False),
        ((900, 900, 512, 900), torch.bfloat16, True),
        ((1, 2, 8, 4), torch.float32, False),
        ((1, 2, 8, 4), torch.float16, False),
    ],
)
def test_short_keys_in_bf16_are_multiplied_explicitly(shape, dtype, faster):
    assert attention._explicit_is_faster(torch.empty(1, dtype=dtype).expand(shape)) is faster
    assert not attention._explicit_is_faster(torch.empty(1, dtype=dtype, device="meta").expand(shape))


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("masked", [False, True])
def test_explicit_attention_is_the_fused_one(scaling, masked):
    """Three queries of four heads behind two more keys of two heads; without a mask aligned at the end."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, n, 6, generator=generator) for heads, n in ((4, 3), (2, 5), (2, 5)))
    causal = torch.ones(3, 5, dtype=torch.bool).tril(2)
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 0, 0, 1], [1, 1, 1, 0, 0]], dtype=torch.bool) if masked else None
    expected = F.scaled_dot_product_attention(
        q, k, v, attn_mask=causal if mask is None else mask, scale=scaling, enable_gqa=True
    )
    assert torch.allclose(explicit_attention(q, k, v, mask, scaling=scaling), expected, atol=1e-6)


def test_scores_are_capped_by_hand():
    """Scores 2 and −4 of one query, halved and capped at 1.5."""
    q = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    k, v = (
        torch.tensor([[2.0, 9.0], [-4.0, 9.0]]).view(1, 1, 2, 2),
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 1, 2, 2),
    )
    found = explicit_attention(q, k, v, None, scaling=0.5, cap=1.5).flatten()
    expected = (1.5 * torch.tanh(torch.tensor([1.0, -2.0]) / 1.5)).softmax(0)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("served", "cap", "expected"),
    [
        (("varlen", "flex"), 0.0, "varlen"),
        (("varlen", "flex"), 2.0, "flex"),  # the one kernel knows no cap
        (("flex",), 0.0, "flex"),
    ],
)
def test_kernels_of_gpus_are_asked_in_turn_for_all_that_is_given(monkeypatch, served, cap, expected):
    asked = []
    for name in ("varlen", "flex"):
        module = getattr(attention, name)
        monkeypatch.setattr(module, "serves", lambda query, name=name: name in served)
        monkeypatch.setattr(module, "attend", lambda *given, name=name, **named: asked.append((name, given, named)))
    attention.attend_packed("attention", "query", "key", "value", scaling=0.3, cap=cap)
    named = {"scaling": 0.3} if expected == "varlen" else {"scaling": 0.3, "cap": cap}
    assert asked == [(expected, ("attention", "query", "key", "value"), named)]


@pytest.mark.parametrize("cap", [0.0, 1.5])
def test_grouped_heads_of_a_packed_row_attend_by_its_segments_and_cap(cap):
    packing = pack(GROUPS)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, len(packing.ids), 6, generator=generator) for heads in (4, 2, 2))
    mask = torch.zeros(len(packing.ids), len(packing.ids), dtype=torch.bool)
    for segment in packing.segments:
        for query in range(segment.start, segment.stop):
            for start, stop in segment.keys:
                mask[query, start : min(stop, query + 1)] = True
    expected = explicit_attention(q, k, v, mask, scaling=0.4, cap=cap).transpose(1, 2)
    with packed(packing):
        found, _ = attention._attention(torch.nn.Linear(1, 1), q, k, v, None, scaling=0.4, softcap=cap or None)
    assert torch.allclose(found, expected, atol=1e-6)
    if cap:
        found, _ = attention._attention(torch.nn.Linear(1, 1), q, k, v, mask, scaling=0.4, softcap=cap)
        assert torch.allclose(found, expected, atol=1e-6)
