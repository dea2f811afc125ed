"""The model of memory against what autograd keeps, the plan by hand, and what is said where memory runs short."""

import json

import pytest
import torch
import yaml
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from accord.config import Adapters
from accord.engine.forward import causal
from accord.engine.forward.attention import IMPLEMENTATION
from accord.engine.forward.causal import token_logprobs
from accord.engine.forward.linear_logprobs import LogitTransform, linear_logprobs
from accord.engine.forward.recompute import recompute_layers
from accord.engine.packing import Group, pack, reply_group
from accord.errors import BadInput
from accord.models.loading import add_adapters
from accord.training import footprint, machine, memory
from accord.training.distributed import World
from accord.training.memory import Need, Plan, free_bytes, is_out_of_memory, longest_first, measure, plan_memory
from accord.training.precision import lowered, one_cast

ONE = World(0, 1, torch.device("cpu"))


def test_what_is_kept_is_counted_by_hand():
    """A linear layer keeps its input, tanh its output; the weights are not counted: 4 bytes · (3 + 2) per token."""
    model = nn.Linear(3, 2, bias=False)
    need = measure(lambda items: model(torch.cat(items)).tanh().sum(), torch.ones(10, 3), 10, [model])
    assert need.per_token == memory.PEAK * 4 * 5
    assert need.fixed == 3 * 6 * 4  # a gradient and two moments of six weights


def test_what_is_frozen_has_no_gradient_and_no_moments():
    model = nn.Linear(3, 2, bias=False).requires_grad_(False)
    x = torch.ones(10, 3, requires_grad=True)
    assert measure(lambda items: model(torch.cat(items)).tanh().sum(), x, 10, [model]).fixed == 0


def little(kind):
    shape = {"attn_implementation": IMPLEMENTATION, "vocab_size": 211}
    if kind == "gpt2":
        shape |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)  # as every model that is loaded
        return AutoModelForCausalLM.from_config(
            GPT2Config(n_embd=32, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2, **shape)
        )
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return AutoModelForCausalLM.from_config(LlamaConfig(**sizes, **shape))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("low", [False, True])
def test_the_need_grows_with_the_tokens_alone(kind, low):
    """Measured on one text, it holds for a micro-batch of twelve."""
    model = little(kind)
    item = reply_group((), range(5, 69))

    def loss(items):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            return -token_logprobs(model, pack(items)).sum()

    loss([item])  # the probe of the packed forward
    need = measure(loss, item, item.tokens, [model])
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = memory.kept_for_backward(loss, [item] * 12, weights)
    states = 12 * sum(p.numel() for p in model.parameters())
    expected = (need.fixed - states) + need.per_token * 12 * item.tokens / memory.PEAK
    assert kept == pytest.approx(expected, rel=0.02)
    assert (need.fixed - states > 1000) == low  # weights cast to bf16 are kept once


def test_a_plan_by_hand(monkeypatch):
    """Activations are kept in a quarter of a CPU's memory, else computed again in 0.8 of it."""
    plain, again = Need(fixed=2000.0, per_token=10.0), Need(fixed=2000.0, per_token=2.0)
    asked = []

    def plan(free, longest, **more):
        found = plan_memory(
            lambda: plain, lambda: asked.append(free) or again, free, longest=longest, device="cpu", **more
        )
        return found.micro_tokens, found.recompute

    # 0.25 · 32 000 − 2000 = 6000 bytes are 600 tokens, in steps of 256
    assert plan(32_000, 100) == (512, False)
    assert plan(32_000, 550) == (550, False)
    assert asked == [], "what is computed again is not measured where what is kept fits"
    # 0.8 · 20 000 − 2000 = 14 000 bytes are 7000 tokens of two bytes each
    assert plan(20_000, 601) == (6912, True)
    # 30 000 bytes of activations keep every core busy, and longer texts may take more
    assert plan(10_000_000, 100) == (8192, False)
    monkeypatch.setitem(footprint.BUSY, "cpu", 30_000.0)
    assert plan(10_000_000, 100) == (2816, False)
    assert plan(10_000_000, 12_000) == (12_000, False)
    # what is asked for is kept, and fits into 0.8 with activations or without
    assert plan(20_000, 100, micro_tokens=1400) == (1400, False)
    assert plan(20_000, 100, micro_tokens=1401) == (1401, True)
    with pytest.raises(BadInput, match="--max_length 7000"):
        plan(20_000, 7001)
    with pytest.raises(BadInput, match="--max_length 1400"):  # a model whose layers cannot
        plan_memory(lambda: plain, None, 20_000, longest=1401, device="cpu")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_with_recomputation_a_graph_keeps_what_enters_the_layers(kind):
    """T rows of 32 numbers into each of two layers beside what head, embedding and the last norm keep."""
    model, item = little(kind).train(), reply_group((), range(5, 69))
    ways = machine.needs(lambda items: -token_logprobs(model, pack(items)).sum(), item, [model], ONE)
    plain, again = (way() for way in ways)
    assert not any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
    width, bytes_each = 32, 4
    outside = kept_outside(model, item)
    inside = plain.per_token / memory.PEAK - outside
    assert again.per_token / memory.PEAK == pytest.approx(outside + 2 * width * bytes_each + inside / 2, rel=0.1)
    assert again.per_token < 0.75 * plain.per_token


def kept_outside(model, item):
    """Bytes per token that are kept where the layers do nothing."""
    layers = model.base_model.layers if hasattr(model.base_model, "layers") else model.base_model.h
    kept = list(layers)
    for _ in kept:
        del layers[0]
    layers.append(nn.Identity())
    try:
        hidden = torch.nn.Embedding(211, 32)
        final = model.base_model.norm if hasattr(model.base_model, "norm") else model.base_model.ln_f
        head = model.get_output_embeddings().weight

        def loss(items):
            packing = pack(items)
            rows = final(hidden(packing.ids))[packing.rows]
            return linear_logprobs(rows, head, None, packing.targets, LogitTransform()).sum()

        return measure(loss, item, item.tokens, []).per_token / memory.PEAK
    finally:
        del layers[0]
        layers.extend(kept)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("kind", ["llama", "gpt2", "padded"])
@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("adapted", [False, True])
def test_recomputed_activations_give_the_same_gradients(kind, low, adapted, monkeypatch):
    """By layers, by a model's own attention, and by padded batches; a shared prompt; two micro-batches of one step."""
    model = little("gpt2" if kind == "gpt2" else "llama")
    if kind == "padded":
        monkeypatch.setattr(model, "_accord_way", causal.padded_hidden_states, raising=False)
    model = add_adapters(model, Adapters(lora_rank=2 * adapted), scalar=False, seed=0).train()
    batches = [
        [reply_group((5, 6, 7, 8), (9, 10, 11), (12, 13)), reply_group((), range(40, 70))],
        [reply_group((3,), (4, 5))],
    ]
    assert causal.packs(model, longest=64) != (kind == "padded")  # which tries what is right for it
    found, runs = [], []
    layer = causal.bare(model).base_model.layers[0] if kind != "gpt2" else causal.bare(model).base_model.h[0]
    hook = next(layer.mlp.children()).register_forward_hook(lambda *_: runs.append(1))
    for on in (False, True):
        runs.clear()
        assert recompute_layers([model], on) == 2 * on
        model.zero_grad()
        with one_cast("bf16" if low else "f32", torch.device("cpu")):
            for batch in batches:
                with lowered("bf16" if low else "f32", torch.device("cpu")):
                    loss = -token_logprobs(model, pack(batch)).sum()
                loss.backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        assert len(runs) == (4 if on else 2)
    hook.remove()
    assert found[0].keys() == found[1].keys() and found[0]
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


def test_a_long_text_is_measured_by_its_ends():
    group = reply_group(range(1000), range(2000), range(1000))
    short = machine.shortened(group, 400)
    assert (len(short.prefix), [len(reply) for reply in short.replies]) == (100, [200, 100])
    assert short.replies[0][-1] == 1999 and [len(mask) for mask in short.masks] == [200, 100]
    assert machine.shortened(short, 400) is short
    whole = machine.shortened(Group((), (tuple(range(900)),), ((False,) * 700 + (True,) * 200,)), 300)
    assert whole.trained == 200


def test_the_longest_micro_batch_of_many():
    items = [3, 9, 5, 20, 5]
    assert longest_first(items, lambda x: x, 10) == [20]  # an item alone may exceed it
    assert longest_first(items, lambda x: x, 30) == [20, 9]
    assert longest_first([], lambda x: x, 30) == []


def rehearse(model, loss, items, micro_tokens=100, per_token=6.0):
    parts = longest_first(items, len, micro_tokens)
    plan = Plan(micro_tokens, False, Need(24.0, per_token))
    memory.rehearse(loss, parts, sum(map(len, parts)), plan, [model], ONE)


def test_a_rehearsal_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 400)
    model, seen = nn.Linear(1, 1), []

    def loss(items):
        seen.append([len(item) for item in items])
        return model(torch.rand(sum(map(len, items)), 1)).sum()

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    rehearse(model, loss, [range(3), range(8), range(7)], micro_tokens=15)
    assert torch.rand(1) == expected and all(p.grad is None for p in model.parameters())
    assert seen == [[8, 7]]


def test_there_is_no_rehearsal_where_memory_is_plenty(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**9)
    rehearse(nn.Linear(1, 1), lambda items: pytest.fail("rehearsed"), [range(3)] * 5)


def test_more_than_there_is_is_refused_before_the_system_ends_the_process(monkeypatch):
    """100 tokens at 6 bytes and 24 bytes of states are more than 200; 0.8 · 200 − 24 bytes hold 22 tokens."""
    monkeypatch.setattr(memory, "free_bytes", lambda device: 200)
    with pytest.raises(BadInput, match="--micro_tokens 22"):
        rehearse(nn.Linear(1, 1), lambda items: pytest.fail("rehearsed"), [range(20)] * 5)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("not enough memory: you tried to allocate 8 bytes"),
    ],
)
def test_an_allocator_that_finds_nothing_is_bad_input_with_a_number(monkeypatch, error):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    model = nn.Linear(1, 1)

    def loss(items):
        if len(items) > 2:
            raise error
        return model(torch.ones(sum(map(len, items)), 1)).sum()

    assert is_out_of_memory(error)
    with pytest.raises(BadInput, match="--micro_tokens 50"):
        rehearse(model, loss, [range(20)] * 5)


def test_other_errors_pass(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 200)
    with pytest.raises(RuntimeError, match="shapes"):
        rehearse(nn.Linear(1, 1), lambda items: (_ for _ in ()).throw(RuntimeError("shapes")), [range(20)])


def test_a_real_allocator_says_what_is_looked_for():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58)
    assert is_out_of_memory(caught.value) and not is_out_of_memory(RuntimeError("shapes differ"))


def test_free_memory_is_shared_by_the_ranks_of_a_machine(monkeypatch):
    monkeypatch.setattr(memory, "_available", lambda: 900)
    assert free_bytes(torch.device("cpu")) == 900
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert free_bytes(torch.device("cpu")) == 300


def test_the_limit_of_a_container_counts(tmp_path):
    for name, text in (
        ("memory.max", "1000\n"),
        ("memory.current", "700\n"),
        ("memory.stat", "anon 5\ninactive_file 50\n"),
    ):
        (tmp_path / name).write_text(text)
    assert memory._left_in_container(tmp_path) == 350
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._left_in_container(tmp_path) > 2**60
    assert memory._left_in_container(tmp_path / "nowhere") > 2**60


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        *(pytest.param(name, {}, marks=pytest.mark.slow, id=name) for name in ("pretrain", "sft", "cost")),
        pytest.param("dpo", {}, id="dpo"),
        pytest.param("limited", {"steps": 2}, id="limited"),
    ],
)
def test_neither_micro_batches_nor_recomputation_change_a_result(name, shared, commands, tmp_path):
    rows = []
    for out, changes in {"planned": {}, "small": {"micro_tokens": 60}, "again": {"recompute": "on"}}.items():
        assert commands.run(name, tmp_path / out, **shared, **changes) == 0
        rows.append([json.loads(line) for line in (tmp_path / out / "metrics.jsonl").read_text().splitlines()])
    for a, b, c in zip(*rows, strict=True):
        for key in set(a) - {"tokens_per_second"}:
            assert a[key] == pytest.approx(b[key], rel=2e-3, abs=2e-4), key
            assert a[key] == c[key], key
    stored = yaml.safe_load((tmp_path / "planned" / "config.yaml").read_text())
    assert (stored["micro_tokens"], stored["recompute"]) == (footprint.MOST["cpu"], "off")


@pytest.mark.parametrize(("name", "changes"), [("sft", {}), ("limited", {"steps": 1})])
def test_where_memory_is_short_activations_are_computed_again(name, changes, commands, tmp_path, monkeypatch):
    """Between what recomputation needs and what keeping needs."""
    asked = []
    plain = machine.plan_memory

    def plan(kept, again, free, **more):
        all_kept, computed = kept(), again()
        asked.append((all_kept, computed))
        longest = more["longest"]
        between = (computed.of(longest) / memory.SHARE + all_kept.of(longest) / memory.KEEPING["cpu"]) / 2
        return plain(lambda: all_kept, lambda: computed, between, **more)

    monkeypatch.setattr(machine, "plan_memory", plan)
    assert commands.run(name, tmp_path / "run", **changes) == 0
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert stored["recompute"] == "on" and asked[0][1].per_token < asked[0][0].per_token


@pytest.mark.parametrize("name", ["sft", "limited"])
def test_a_command_that_will_not_fit_says_so_before_its_first_step(name, commands, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**5)
    assert commands.run(name, tmp_path / "run") == 2
    assert "--micro_tokens" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_was_decided_is_kept_on_resume(commands, tmp_path, stop_after, monkeypatch):
    from accord.training import machine as settling

    out = tmp_path / "run"
    stop_after(1)
    monkeypatch.setattr(settling, "choose_precision", lambda world: "f32")
    assert commands.run("sft", out, micro_tokens=0, precision="auto") == 1
    stored = yaml.safe_load((out / "config.yaml").read_text())
    assert stored["precision"] == "f32" and stored["micro_tokens"] == 8192
    stop_after(-1)
    monkeypatch.setattr(settling, "choose_precision", lambda world: "bf16")
    assert commands.run("sft", out, micro_tokens=0, precision="auto", resume="true") == 0
    assert yaml.safe_load((out / "config.yaml").read_text()) == stored | {"resume": True}
