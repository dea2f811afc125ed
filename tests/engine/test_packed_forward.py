"""The packed forward against the padded one and against the model's own, for the common architectures."""

import copy
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from accord.engine.forward import attention as attention_module
from accord.engine.forward import causal as policy_module
from accord.engine.forward.attention import packed
from accord.engine.forward.causal import (
    alike,
    attention_window,
    forward,
    hidden_states,
    logit_transform,
    logprob_head,
    logprobs_and_entropy,
    packs,
    padded_hidden_states,
    token_logprobs,
)
from accord.engine.forward.linear_logprobs import LogitTransform
from accord.engine.packing import pack, reply_group
from accord.errors import BadInput

COMMON = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GROUPED = {**COMMON, "num_key_value_heads": 2, "max_position_embeddings": 64}
# name: (config class, its settings, whether it packs)
ARCHITECTURES = {
    "llama": ("LlamaConfig", GROUPED, True),
    "llama-tied": ("LlamaConfig", {**GROUPED, "tie_word_embeddings": True}, True),
    "qwen2": ("Qwen2Config", GROUPED, True),
    "qwen3": ("Qwen3Config", {**GROUPED, "head_dim": 4}, True),
    "mistral": ("MistralConfig", {**GROUPED, "sliding_window": None}, True),
    "mistral-window": ("MistralConfig", {**GROUPED, "sliding_window": 4}, False),
    "gpt2": ("GPT2Config", {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64}, True),
    "gpt-neox": ("GPTNeoXConfig", {**COMMON, "max_position_embeddings": 64}, True),
    "gemma": ("GemmaConfig", {**GROUPED, "head_dim": 4}, True),
    "gemma2-window": (
        "Gemma2Config",
        {**GROUPED, "head_dim": 4, "sliding_window": 4, "final_logit_softcapping": 0.5},
        False,
    ),
    "gemma2": (
        "Gemma2Config",
        {**GROUPED, "head_dim": 4, "attn_logit_softcapping": 0.7, "final_logit_softcapping": 0.5},
        True,
    ),
    "gemma3": ("Gemma3TextConfig", {**GROUPED, "head_dim": 4, "layer_types": ["full_attention"] * 2}, True),
    "gemma3-window": ("Gemma3TextConfig", {**GROUPED, "head_dim": 4, "sliding_window": 4}, False),
    "cohere": ("CohereConfig", {**GROUPED, "logit_scale": 0.3}, True),
    "granite": ("GraniteConfig", {**GROUPED, "logits_scaling": 3.0}, True),
}
GROUPS = [
    reply_group((1, 5, 9, 3), (7, 2, 8, 11, 12), (4, 6), (13,)),
    reply_group((3, 3), (17, 18, 19, 20)),
    reply_group((), (21, 22, 23, 24, 25, 26, 27)),
]


def make(name, implementation="accord"):
    kind, settings, _ = ARCHITECTURES[name]
    config = getattr(transformers, kind)(**settings, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    return model.eval()


def plain_logprobs(model, groups):
    """The model's own forward, one sequence at a time: the oracle."""
    out = []
    for group in groups:
        for reply in group.replies:
            ids = torch.tensor([[*group.prefix, *reply]])
            logs = F.log_softmax(model(input_ids=ids).logits[0].float(), -1)
            for j, token in enumerate(reply):
                if j or group.prefix:
                    out.append(logs[len(group.prefix) + j - 1, token])
    return torch.stack(out)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_padded_and_plain_agree_with_gradients(name, capsys):
    model = make(name)
    packing = pack(GROUPS)
    weights = torch.randn(len(packing.rows), generator=torch.Generator().manual_seed(1))
    assert packs(model) is ARCHITECTURES[name][2]
    said = capsys.readouterr().out
    assert ("does not compute packed rows" in said) is not ARCHITECTURES[name][2]
    ours = token_logprobs(model, packing)
    head = logprob_head(model, packing)
    padded = head(padded_hidden_states(model, packing))
    own = "eager" if name.startswith("gemma2") else "sdpa"
    plain = plain_logprobs(make(name, own), GROUPS)
    assert torch.allclose(ours, plain, atol=1e-5)
    assert torch.allclose(padded, plain, atol=1e-5)
    mine = gradients(model, (weights * ours).sum())
    twin = make(name, own)
    theirs = gradients(twin, (weights * plain_logprobs(twin, GROUPS)).sum())
    assert mine.keys() == theirs.keys()
    for key in theirs:
        assert torch.allclose(mine[key], theirs[key], atol=2e-5 * float(theirs[key].abs().max().clamp(min=1))), key


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt-neox", "qwen3"])
def test_packed_agrees_with_eager_attention(name):
    packing = pack(GROUPS)
    ours = token_logprobs(make(name), packing)
    assert torch.allclose(ours, plain_logprobs(make(name, "eager"), GROUPS), atol=1e-5)


def test_a_window_shorter_than_the_text_is_respected(capsys):
    """The probe's short texts fit into a window of 30; a text of 50 tokens does not."""
    settings = {**GROUPED, "sliding_window": 30}
    config = transformers.MistralConfig(**settings, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="accord").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0)
    twin = AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="sdpa").eval()
    twin.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(3, 40, (50,), generator=generator).tolist()
    groups = [reply_group(text[:5], text[5:]), reply_group(text[:4], text[4:9])]
    ours, plain = token_logprobs(model, pack(groups)), plain_logprobs(twin, groups)
    assert torch.allclose(ours, plain, atol=2e-5)
    assert "does not compute packed rows" in capsys.readouterr().out
    short = groups[1:]
    assert packs(model) and torch.allclose(token_logprobs(model, pack(short)), plain_logprobs(twin, short), atol=2e-5)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, 0),
        ({"sliding_window": None, "attention_chunk_size": None}, 0),
        ({"sliding_window": 30}, 30),
        ({"sliding_window": 30, "use_sliding_window": True, "attention_chunk_size": 20}, 20),
        ({"sliding_window": 30, "attention_chunk_size": 40}, 30),
        ({"sliding_window": 30, "use_sliding_window": False}, 0),
        ({"sliding_window": 30, "use_sliding_window": False, "attention_chunk_size": 40}, 40),
    ],
)
def test_the_window_is_the_shortest_reach_that_is_in_use(config, expected):
    assert attention_window(SimpleNamespace(**config)) == expected


def test_a_text_as_long_as_the_window_is_packed_and_a_longer_one_is_padded_which_is_said_once(capsys):
    model = SimpleNamespace(config=SimpleNamespace(sliding_window=30), _accord_way=policy_module._by_attention)
    assert packs(model) and packs(model, longest=30)
    assert not capsys.readouterr().out
    assert not packs(model, longest=31) and not packs(model, longest=99)
    assert capsys.readouterr().out.count("does not compute packed rows") == 1
    padded = SimpleNamespace(config=model.config, _accord_way=padded_hidden_states)
    assert not packs(padded) and not packs(padded, longest=31) and not capsys.readouterr().out  # said when it was tried
    endless = SimpleNamespace(config=SimpleNamespace(), _accord_way=policy_module._by_attention)
    assert packs(endless, longest=10**6)


def test_how_long_a_text_is_has_nothing_to_do_with_where_it_lies(monkeypatch):
    """A prompt of two tokens with replies of three and one more, behind a text of nine."""
    asked = []
    monkeypatch.setattr(policy_module, "_way", lambda model, longest: asked.append(longest) or (lambda *given: given))
    model = SimpleNamespace()
    packing = pack([reply_group((), range(10)), reply_group((5, 6), (7, 8, 9, 4), (3, 2))])
    assert hidden_states(model, packing) == (model, packing)
    assert hidden_states(model, short := pack([reply_group((5, 6), (7, 8, 9, 4), (3, 2))])) == (model, short)
    assert asked == [9, 5]


@pytest.mark.parametrize("way", ["_by_attention", "padded_hidden_states"])
def test_where_nothing_is_decoded_no_cache_is_kept(way):
    model = make("gpt2")
    seen = []
    model.base_model.register_forward_hook(lambda module, given, out: seen.append(out.past_key_values))
    getattr(policy_module, way)(model, pack(GROUPS))
    assert seen == [None]


@pytest.mark.parametrize(
    ("ours", "expected", "dtype", "same"),
    [
        ((9e-4, 10.0), (0.0, 10.0), torch.float32, True),  # a ten-thousandth of the largest
        ((1.1e-3, 10.0), (0.0, 10.0), torch.float32, False),
        ((0.0, 10.0105), (0.0, 10.0), torch.float32, True),  # and a thousandth of its own
        ((0.0, 10.0115), (0.0, 10.0), torch.float32, False),
        ((9e-5, 0.5), (0.0, 0.5), torch.float32, True),  # of small ones as if the largest were 1
        ((1.1e-4, 0.5), (0.0, 0.5), torch.float32, False),
        ((0.45, 10.0), (0.0, 10.0), torch.bfloat16, True),
        ((0.55, 10.0), (0.0, 10.0), torch.bfloat16, False),
        ((0.0, 15.4), (0.0, 10.0), torch.bfloat16, True),
        ((0.0, 15.6), (0.0, 10.0), torch.bfloat16, False),
    ],
)
def test_logits_are_alike_within_what_products_round(ours, expected, dtype, same):
    assert alike(torch.tensor(ours), torch.tensor(expected), dtype) is same


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, LogitTransform(1.0, 0.0, 0.7)),
        ({"logit_scale": 0.3}, LogitTransform(0.3, 0.0, 0.7)),
        ({"logits_scaling": 4.0, "logit_scale": None}, LogitTransform(0.25, 0.0, 0.7)),
        ({"final_logit_softcapping": 30.0}, LogitTransform(1.0, 30.0, 0.7)),
    ],
)
def test_a_config_says_what_is_done_with_the_heads_product(config, expected):
    model = SimpleNamespace(config=SimpleNamespace(**config))
    assert logit_transform(model, 0.7) == expected and logit_transform(model).temperature == 1.0


@pytest.mark.parametrize("name", ["llama", "mistral-window"])
@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_tried_as_it_is_used_and_left_in_its_mode(name, training, capsys):
    model = make(name).train(training)
    assert packs(model) is packs(model) is ARCHITECTURES[name][2]
    assert capsys.readouterr().out.count("does not compute packed rows") == (not ARCHITECTURES[name][2])
    assert model.training is training and all(module.training is training for module in model.modules())
    assert model.config._attn_implementation == "accord"


def test_a_model_that_scores_is_tried_by_its_hidden_states():
    config = transformers.LlamaConfig(**GROUPED, num_labels=1, pad_token_id=0)
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="accord").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    packing = pack(GROUPS)
    assert packs(model) and model._accord_way is policy_module._by_layers
    assert torch.allclose(hidden_states(model, packing), padded_hidden_states(model, packing), atol=1e-5)


def test_short_segments_in_bf16_are_computed_explicitly_and_alike(monkeypatch):
    """The explicit products and the fused kernel differ by rounding alone."""
    model, packing = make("llama"), pack(GROUPS)
    calls = []
    plain = attention_module.explicit_attention
    monkeypatch.setattr(attention_module, "explicit_attention", lambda *a, **k: calls.append(1) or plain(*a, **k))
    exact = token_logprobs(model, packing)
    assert not calls
    with torch.autocast("cpu", torch.bfloat16):
        explicit = token_logprobs(model, packing)
        assert calls
        monkeypatch.setattr(attention_module, "_explicit_is_faster", lambda key: False)
        fused = token_logprobs(model, packing)
    stored = token_logprobs(copy.deepcopy(model).bfloat16(), packing)  # weights in bf16, and no autocast
    for low in (explicit, stored):
        assert (low - exact).abs().max() <= 2 * (fused - exact).abs().max()


def test_replies_that_share_a_prompt_equal_separate_texts():
    model = make("llama")
    shared = pack(GROUPS)
    separate = pack([reply_group(g.prefix, reply) for g in GROUPS for reply in g.replies])
    weights = torch.randn(len(shared.rows), generator=torch.Generator().manual_seed(1))
    a, b = token_logprobs(model, shared), token_logprobs(model, separate)
    assert torch.allclose(a, b, atol=1e-5)
    ours, theirs = (
        gradients(model, (weights * a).sum()),
        gradients(model, (weights * token_logprobs(model, separate)).sum()),
    )
    assert all(torch.allclose(ours[k], theirs[k], atol=1e-5) for k in theirs)


def test_a13_no_left_and_right_padding_agree():
    """A13: positions start at the first real token, whatever stands before it."""
    model, twin = make("llama"), make("llama", "sdpa")
    groups = [reply_group((1, 5, 9, 3), (7, 2, 8, 11, 12)), reply_group((3, 3), (17, 18))]
    ours = token_logprobs(model, pack(groups))
    texts = [[*g.prefix, *g.replies[0]] for g in groups]
    width = max(map(len, texts))
    rows = []
    for left in (True, False):
        ids, mask = torch.zeros(2, width, dtype=torch.long), torch.zeros(2, width, dtype=torch.long)
        for i, text in enumerate(texts):
            at = slice(width - len(text), width) if left else slice(0, len(text))
            ids[i, at], mask[i, at] = torch.tensor(text), 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logs = F.log_softmax(twin(input_ids=ids, attention_mask=mask, position_ids=positions).logits.float(), -1)
        found = []
        for i, group in enumerate(groups):
            first = (width - len(texts[i])) if left else 0
            for j, token in enumerate(group.replies[0]):
                found.append(logs[i, first + len(group.prefix) + j - 1, token])
        rows.append(torch.stack(found))
    assert torch.allclose(ours, rows[0], atol=1e-5) and torch.allclose(ours, rows[1], atol=1e-5)


def test_a2_pad_and_unknown_ids_inside_a_text_are_ordinary_tokens():
    """A2: id 0 is the PAD; a text that holds it is attended and scored like any other, packed and padded."""
    model = make("llama")
    groups = [reply_group((1, 0, 9), (7, 0, 0, 8)), reply_group((3,), (17, 0))]
    packing = pack(groups)
    plain = plain_logprobs(make("llama", "sdpa"), groups)
    assert torch.allclose(token_logprobs(model, packing), plain, atol=1e-5)
    assert torch.allclose(logprob_head(model, packing)(padded_hidden_states(model, packing)), plain, atol=1e-5)


def test_the_padded_slots_of_the_fallback_do_not_matter(monkeypatch):
    """Slots beyond a text hold id 0 and are masked: another filler gives the same log-probs."""
    model = make("llama")
    packing = pack(GROUPS)
    monkeypatch.setattr(policy_module, "_way", lambda *_, **__: padded_hidden_states)
    before = token_logprobs(model, packing)
    with torch.no_grad():
        model.get_input_embeddings().weight[0] += 100.0
    assert torch.allclose(token_logprobs(model, packing), before, atol=1e-5)


def test_c21_dropout_in_a_config_is_off_in_training_and_scoring(tmp_path, tokenizer):
    """C21: models are loaded with every dropout at 0, the attention's too, so two evaluations are one."""
    from accord.models.loading import load_policy
    from accord.models.saving import save_model
    from accord.models.scalar import new_scalar, values

    for kind, settings in (
        ("GPT2Config", {"vocab_size": len(tokenizer), "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}),
        ("LlamaConfig", {**GROUPED, "vocab_size": len(tokenizer), "attention_dropout": 0.5}),
        ("GPTNeoXConfig", {**COMMON, "vocab_size": len(tokenizer), "attention_dropout": 0.5, "hidden_dropout": 0.5}),
    ):
        config = getattr(transformers, kind)(**settings)
        for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
            if hasattr(config, name):
                setattr(config, name, 0.5)
        where = tmp_path / kind
        plain = {"role": "policy", "criterion": "", "normalizer": {"kind": "none"}}
        save_model(AutoModelForCausalLM.from_config(config), tokenizer, where, plain, "")
        packing = pack(GROUPS)
        model = load_policy(str(where)).train()
        assert torch.equal(token_logprobs(model, packing), token_logprobs(model, packing)), kind
        first, second = (padded_hidden_states(model, packing) for _ in range(2))
        assert torch.equal(first, second), kind
        scalar = new_scalar(str(where), "helpful", 0).train()
        assert torch.equal(values(scalar, packing), values(scalar, packing)), kind


def test_heads_of_one_forward_agree_with_the_full_distribution():
    model = make("llama")
    packing = pack(GROUPS)
    hidden = hidden_states(model, packing)
    logprobs, entropy = logprobs_and_entropy(model, packing, hidden, temperature=0.7)
    logs = F.log_softmax(model.lm_head(hidden) / 0.7, -1)
    assert torch.allclose(logprobs, logs.gather(1, packing.targets[:, None])[:, 0], atol=1e-6)
    assert torch.allclose(entropy, -(logs.exp() * logs).sum(-1), atol=1e-6)
    head = logprob_head(model, packing, temperature=0.7)
    assert torch.equal(forward(model, packing, {"logprobs": head})["logprobs"], logprobs)


def test_a_model_whose_logits_are_computed_otherwise_is_refused(monkeypatch):
    model = make("llama")
    plain = model.forward

    def odd(*args, **kwargs):
        out = plain(*args, **kwargs)
        out.logits = out.logits**3
        return out

    monkeypatch.setattr(model, "forward", odd)
    with pytest.raises(BadInput, match="not known here"):
        token_logprobs(model, pack(GROUPS))


def test_packed_is_left_even_when_the_block_fails():
    model = make("llama")
    packing = pack(GROUPS)
    with pytest.raises(ZeroDivisionError), packed(packing):
        raise ZeroDivisionError
    ids = torch.tensor([[1, 2, 3]])
    assert torch.allclose(model(input_ids=ids).logits, make("llama", "sdpa")(input_ids=ids).logits, atol=1e-6)
