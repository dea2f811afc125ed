"""Parts of the lean decoder: products by hand, what is copied, what a trial of it looks at."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from accord.engine.decode import decoder, matrices
from accord.engine.decode.decoder import Decoder, Pool, agrees, decodes, tried
from accord.engine.decode.matrices import (
    Matrix,
    arrange,
    blocks_of,
    can_lay_out,
    merged_weights,
    paired,
    product,
    products,
)
from tests.engine.test_decoder import make, with_adapters

LAYS_OUT = can_lay_out(torch.device("cpu"))


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double).to(dtype)


X, WEIGHT, BIAS, RESIDUAL = normal(3, 4), normal(5, 4, seed=1), normal(5, seed=2), normal(3, 5, seed=3)
ADAPTERS = ((normal(4, 2, seed=4), normal(2, 5, seed=5)), (normal(4, 3, seed=6), normal(3, 5, seed=7)))


@pytest.mark.parametrize("laid_out", [False, pytest.param(True, marks=pytest.mark.skipif(not LAYS_OUT, reason="CPU"))])
@pytest.mark.parametrize("residual", [None, torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [None, BIAS])
@pytest.mark.parametrize("adapters", [(), ADAPTERS])
def test_a_product_adds_all_that_there_is(laid_out, residual, bias, adapters, monkeypatch):
    if laid_out and adapters:
        pytest.skip("what is laid out has its adapters merged in")
    monkeypatch.setattr(matrices, "LAID_OUT", 0)
    matrix = arrange(WEIGHT, bias, 3) if laid_out else Matrix(WEIGHT.T, bias, adapters)
    assert matrix.laid_out is laid_out
    there = None if residual is None else RESIDUAL.to(residual)
    expected = X.double() @ WEIGHT.double().T
    expected += 0 if bias is None else bias.double()
    expected += 0 if residual is None else RESIDUAL.double()
    for down, up in adapters:
        expected += X.double() @ down.double() @ up.double()
    found = product(X, matrix, there)
    assert torch.allclose(found.double(), expected, atol=1e-5) and found.dtype == (residual or torch.float32)


def test_a_residual_keeps_digits_that_the_product_has_not():
    low = Matrix(WEIGHT.T.bfloat16(), None)
    residual = 1 + 2.0**-12 * torch.arange(15.0).view(3, 5)
    assert torch.equal(product(torch.zeros(3, 4), low, residual), residual)
    found = product(X, low, residual)
    assert found.dtype == torch.float32
    assert torch.equal(found, residual + (X.bfloat16() @ WEIGHT.T.bfloat16()).float())


def test_products_stand_side_by_side():
    one, other = Matrix(WEIGHT.T, BIAS), Matrix(WEIGHT[:2].T, None)
    assert torch.equal(products(X, (one,)), product(X, one))
    assert torch.equal(products(X, (one, other)), torch.cat([product(X, one), product(X, other)], dim=1))


def test_the_two_that_a_rotation_mixes_stand_side_by_side():
    assert paired(6, torch.device("cpu")).tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.skipif(not LAYS_OUT, reason="this machine has no such order")
def test_only_the_cpus_that_have_an_order_lay_out(monkeypatch):
    cpu = torch.device("cpu")
    assert not can_lay_out(torch.device("cuda"))
    for machine, known in (("AMD64", True), ("x86_64", True), ("arm64", False)):
        monkeypatch.setattr(matrices.platform, "machine", lambda machine=machine: machine)
        assert can_lay_out(cpu) is known
    monkeypatch.setattr(matrices.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not can_lay_out(cpu)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    with monkeypatch.context() as another:
        another.setattr(torch.ops, "mkldnn", SimpleNamespace())
        assert not can_lay_out(cpu)
    monkeypatch.setattr(matrices, "can_lay_out", lambda device: False)
    monkeypatch.setattr(matrices, "LAID_OUT", 0)
    plain = arrange(WEIGHT, BIAS, 3)
    assert not plain.laid_out and plain.weight.is_contiguous() and torch.equal(plain.weight, WEIGHT.T)


def test_matrices_are_laid_out_from_their_bytes_on(monkeypatch):
    monkeypatch.setattr(matrices, "can_lay_out", lambda device: True)
    if not LAYS_OUT:
        pytest.skip("this machine has no such order")
    for least, laid_out in ((80, True), (81, False)):  # 20 numbers of 4 bytes
        monkeypatch.setattr(matrices, "LAID_OUT", least)
        assert arrange(WEIGHT, None, 2).laid_out is laid_out and not arrange(WEIGHT, None, 1).laid_out


@pytest.fixture(scope="module")
def llama():
    return make("llama-tied-biased")


def test_small_models_and_those_of_another_type_are_copied(llama, monkeypatch):
    layers = llama.base_model.layers
    linears = [module for module in layers.modules() if isinstance(module, nn.Linear)]
    assert len(linears) == 7 * len(layers)
    size = 4 * sum(linear.weight.numel() for linear in linears)
    for bound, low, copied in (
        (size, torch.float32, True),
        (size - 1, torch.float32, False),
        (size - 1, torch.bfloat16, True),
    ):
        monkeypatch.setattr(matrices, "COPIED", bound)
        blocks = blocks_of(layers, 4, low, 2)
        assert {block.attention_norm is None for block in blocks} == {copied}
        assert {matrix.weight.dtype for block in blocks for matrix in block.qkv} == {low}


def test_a_head_is_copied_where_it_is_small(llama, monkeypatch):
    weight = llama.get_output_embeddings().weight
    for bound, copied in ((weight.numel() * 4, True), (weight.numel() * 4 - 1, False)):
        monkeypatch.setattr(decoder, "COPIED", bound)
        head = Decoder(llama, [(2, 8)]).head
        assert (head.weight.data_ptr() != weight.data_ptr()) is copied and torch.equal(head.weight, weight.T)


def test_a_head_is_of_the_type_that_is_computed_in(llama):
    linear = nn.Linear(16, 40)
    with torch.autocast("cpu", torch.bfloat16):
        held = Decoder(llama, [(1, 4)])
    for head in (held._head(linear, 1), held.head):
        assert head.weight.dtype == torch.bfloat16
    assert torch.equal(held._head(linear, 1).bias, linear.bias.bfloat16()) and held.head.bias is None
    strange = nn.Sequential(linear)
    assert held._head(strange, 1) is strange, "what is no matrix is asked as it is"


def test_matrices_are_laid_out_for_the_rows_of_all_pools_and_32_at_most(llama, monkeypatch):
    asked = []
    plain = decoder.blocks_of
    monkeypatch.setattr(decoder, "blocks_of", lambda *given: asked.append(given[1:]) or plain(*given))
    for pools in ([(2, 8), (3, 4)], [(20, 8), (13, 4)]):
        Decoder(llama, pools)
    assert asked == [(4, torch.float32, 5), (4, torch.float32, 32)]


def test_adapters_that_are_in_the_weight_or_off_are_not_added():
    model = with_adapters("llama-tied-biased")
    linear = model.base_model.model.model.layers[0].self_attn.q_proj
    base, bias = linear.base_layer.weight.detach().clone(), linear.base_layer.bias.detach()
    scaling = linear.scaling["default"]
    down, up = (getattr(linear, name)["default"].weight.detach() for name in ("lora_A", "lora_B"))
    merged, its_bias = merged_weights(linear)
    assert torch.allclose(merged, base + scaling * up @ down, atol=1e-6) and torch.equal(its_bias, bias)
    view = matrices._view(linear)
    ((first, second),) = view.adapters
    assert torch.equal(first, down.T) and torch.allclose(second, scaling * up.T)
    assert torch.equal(view.weight, base.T) and torch.equal(view.bias, bias) and not view.laid_out
    with model.disable_adapter():
        assert matrices._view(linear).adapters == () and torch.equal(merged_weights(linear)[0], base)
    model.merge_adapter()
    assert matrices._view(linear).adapters == ()
    assert torch.allclose(merged_weights(linear)[0], base + scaling * up @ down, atol=1e-6)
    assert scaling != 1.0, "what would hide a factor"


def test_a_cache_of_another_device_is_made_there():
    made = Pool(1, 2, 1, 3, 2, torch.empty(0, device="meta"))
    assert made.cache.device.type == "meta" and made.cache.shape == (1, 2, 2, 1, 3, 2)


@pytest.mark.parametrize("bound", [0, 10**9])
def test_norms_of_query_and_key_are_taken_along_in_pairs(monkeypatch, bound):
    monkeypatch.setattr(matrices, "COPIED", bound)
    model = make("qwen3")
    assert decoder._probe(model, model) is True
    layer = model.base_model.layers[1]
    block = blocks_of(model.base_model.layers, 8, torch.float32, 2)[1]
    pairs = [0, 4, 1, 5, 2, 6, 3, 7]
    assert torch.equal(block.query_norm, layer.self_attn.q_norm.weight[pairs])
    assert torch.equal(block.key_norm, layer.self_attn.k_norm.weight[pairs])


def test_a_model_of_one_layer_is_decoded():
    model = make("llama")
    model.base_model.layers = model.base_model.layers[:1]
    assert decodes(model, longest=10)


@torch.no_grad()
def last_logits(model, texts):
    return torch.stack([model(input_ids=torch.tensor([text])).logits[0, -1] for text in texts])


def test_steps_of_a_trial_are_those_of_the_model(llama):
    """Two pools, two steps of which are taken by other rows once one has left, and the last has taken its place."""
    with torch.no_grad():
        found = decoder._stepped(Decoder(llama, [(4, 16), (2, 12)]))
    rows = [[1, 2, 3], [1, 2, 3], [4], [4], [2, 1]]
    expected = [last_logits(llama, rows)]
    for _ in range(3):
        rows = [[*row, token] for row, token in zip(rows, (5, 1, 4, 2, 3), strict=True)]
        expected.append(last_logits(llama, rows))
    rows = [rows[0], rows[3], rows[2], rows[4]]
    for _ in range(3):
        rows = [[*row, token] for row, token in zip(rows, (1, 4, 2, 3), strict=True)]
        expected.append(last_logits(llama, rows))
    assert torch.allclose(found, torch.cat(expected), atol=1e-4)


@pytest.mark.parametrize("row", [0, 3, 4, 7, 8, 10, None])
def test_a_trial_sees_a_wrong_row_of_every_step(llama, monkeypatch, row):
    plain = decoder._decoded

    def spoiled(*given):
        logits, order = plain(*given)
        assert len(logits) == 11
        if row is not None:
            logits[row] += 0.1 * logits.abs().max()
        return logits, order

    monkeypatch.setattr(decoder, "_decoded", spoiled)
    assert decoder._probe(llama, llama) is (row is None)


def without(config, **changes):
    return SimpleNamespace(**{**config.to_dict(), **changes})


def test_what_is_known_not_to_be_decoded_is_not_tried(llama, monkeypatch):
    def decoded(*_):
        raise ValueError("it was tried")

    monkeypatch.setattr(decoder, "_decoded", decoded)
    ours = SimpleNamespace(config=llama.config, get_output_embeddings=llama.get_output_embeddings)
    for rope in ({"rope_type": "default"}, {"rope_type": "linear"}, {}, None):
        ours.config = without(llama.config, rope_parameters=rope)
        with pytest.raises(ValueError, match="it was tried"):
            decoder._probe(llama, ours)
    ours.config = without(llama.config, rope_parameters={"rope_type": "dynamic"})
    assert decoder._probe(llama, ours) is False
    ours.config = without(llama.config, model_type="gemma")
    assert decoder._probe(llama, ours) is False
    ours.config, ours.get_output_embeddings = llama.config, lambda: None
    assert decoder._probe(llama, ours) is False


@pytest.mark.parametrize("error", [AttributeError, RuntimeError, TypeError])
def test_layers_of_another_make_are_left_to_the_model(llama, monkeypatch, error):
    def decoded(*_):
        raise error("no such weight")

    monkeypatch.setattr(decoder, "_decoded", decoded)
    assert decoder._probe(llama, llama) is False


@pytest.mark.parametrize(
    ("outcome", "window", "expected"),
    [(True, 0, [True] * 3), (True, 16, [True, True, False]), (False, 0, [False] * 3), (False, 16, [False] * 3)],
)
def test_a_trial_is_made_once_without_autocast_and_its_outcome_is_bound_by_the_window(
    monkeypatch, outcome, window, expected
):
    asked = []

    def probe(model, inner):
        asked.append((model, inner, torch.is_autocast_enabled("cpu")))
        return outcome

    monkeypatch.setattr(decoder, "_probe", probe)
    model = nn.Linear(1, 1)
    model.config = SimpleNamespace(sliding_window=window)
    with torch.autocast("cpu", torch.bfloat16):
        assert [decodes(model, longest=longest) for longest in (15, 16, 17)] == expected
    assert asked == [(model, model, False)]


def test_a_shortcut_is_tried_once_and_told_of_where_it_disagrees(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(decoder, "agrees", lambda model, shortcut: asked.append((model, shortcut)) or shortcut is good)
    good, bad, model = (lambda decoder: None), (lambda decoder: None), nn.Linear(1, 1)
    assert [tried(model, good, "good is slow"), tried(model, good, "good is slow")] == [True, True]
    assert capsys.readouterr().out == ""
    assert [tried(model, bad, "bad is slow"), tried(model, bad, "bad is slow")] == [False, False]
    assert capsys.readouterr().out == "note: bad is slow\n" and asked == [(model, good), (model, bad)]


@pytest.mark.parametrize("wrong", [None, 0, 2, 3, 5, "all", "error"])
def test_a_shortcut_agrees_where_every_step_does(llama, wrong):
    def shortcut(decoder):
        steps = itertools.count()

        def step(ids):
            logits = decoder.forward(ids, [pool.reach for pool in decoder.pools])
            number = next(steps)
            if wrong == "error":
                raise RuntimeError("operation not permitted when stream is capturing")
            return logits + (0.1 * logits.abs().max() if wrong in (number, "all") else 0)

        return step

    assert agrees(llama, shortcut) is (wrong is None)


def test_what_prompts_begin_with_is_what_a_prompt_writes(llama):
    ids = (3, 9, 4, 7)
    held = Decoder(llama, [(1, 8)])
    with torch.no_grad():
        stem = held.beginning(ids)
        held.admit(0, [ids], 1)
    assert stem.shape == (len(held.blocks), 2, held.kv_heads, 4, held.head_size)
    assert torch.allclose(stem, held.pools[0].cache[:, :, 0, :, :4], atol=1e-6)
    assert (stem.abs().sum(-1) > 0).all()


@pytest.mark.parametrize("n", [1, 2])
def test_prompts_enter_behind_live_rows_and_behind_a_stem(llama, n):
    """Logits of the first tokens, and of those of a step, are the model's own."""
    held = Decoder(llama, [(6, 12)])
    ids = (3, 9, 4, 7)
    prompts = [(*ids, 5, 6), (*ids, 8)]
    step = torch.tensor([11, 12, 13, 14, 15, 16])[: 1 + 2 * n]
    with torch.no_grad():
        first = held.admit(0, [(1, 5, 9)], 1)
        more = held.admit(0, prompts, n, held.beginning(ids))
        second = held.step(step)
    rows = [[1, 5, 9], *([*prompt] for prompt in prompts for _ in range(n))]
    assert torch.allclose(torch.cat([first, more]), last_logits(llama, rows), atol=1e-4)
    rows = [[*row, token] for row, token in zip(rows, step.tolist(), strict=True)]
    assert torch.allclose(second, last_logits(llama, rows), atol=1e-4)
    assert held.pools[0].sizes.tolist()[: len(rows)] == [len(row) for row in rows]


def test_a_beginning_is_shared_from_32_tokens_on(llama, monkeypatch):
    counted = []
    plain = Decoder.trunk
    monkeypatch.setattr(Decoder, "trunk", lambda self, ids, *rest: counted.append(len(ids)) or plain(self, ids, *rest))
    for shared, tokens in ((31, 31 + 1 + 31 + 2), (32, 32 + 1 + 2)):
        begins = tuple(3 + i % 20 for i in range(shared))
        prompts = [(*begins, 30), (*begins, 31, 32)]
        with torch.no_grad():
            found = Decoder(llama, [(2, 40)]).admit(0, prompts, 1)
        assert counted.pop() == tokens
        assert torch.allclose(found, last_logits(llama, [list(prompt) for prompt in prompts]), atol=1e-4)
