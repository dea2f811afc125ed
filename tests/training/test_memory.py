"""The model of memory against what autograd keeps, the plan by hand, and what is said where memory runs short."""

import json

import pytest
import torch
import yaml
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from accord.engine.forward.attention import IMPLEMENTATION
from accord.engine.forward.causal import token_logprobs
from accord.engine.packing import pack, reply_group
from accord.errors import BadInput
from accord.training import memory
from accord.training.distributed import World
from accord.training.memory import Need, free_bytes, is_out_of_memory, longest_first, measure, plan_micro_tokens

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


def test_a_plan_by_hand():
    need = Need(fixed=2000.0, per_token=10.0)
    # 0.8 · 10 000 − 2000 = 6000 bytes are 600 tokens, in steps of 256
    assert plan_micro_tokens(need, 10_000, longest=100, most=8192) == 512
    assert plan_micro_tokens(need, 10_000, longest=550, most=8192) == 550
    assert plan_micro_tokens(need, 10_000_000, longest=100, most=8192) == 8192
    with pytest.raises(BadInput, match="--max_length 600"):
        plan_micro_tokens(need, 10_000, longest=601, most=8192)


def test_the_longest_micro_batch_of_many():
    items = [3, 9, 5, 20, 5]
    assert longest_first(items, lambda x: x, 10) == [20]  # an item alone may exceed it
    assert longest_first(items, lambda x: x, 30) == [20, 9]
    assert longest_first([], lambda x: x, 30) == []


def rehearse(model, loss, items, micro_tokens=100):
    memory.rehearse(loss, items, len, micro_tokens, [model], ONE)


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
    assert seen == [[8], [8, 8], [8, 7]]  # measured, then rehearsed


def test_there_is_no_rehearsal_where_memory_is_plenty(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**9)
    model, seen = nn.Linear(1, 1), []

    def loss(items):
        seen.append(len(items))
        return model(torch.ones(sum(map(len, items)), 1)).sum()

    rehearse(model, loss, [range(3)] * 5)
    assert seen == [1, 2]


def test_more_than_there_is_is_refused_before_the_system_ends_the_process(monkeypatch):
    """100 tokens at 6 bytes and 24 bytes of states are more than 200; 0.8 · 200 − 24 bytes hold 22 tokens."""
    monkeypatch.setattr(memory, "free_bytes", lambda device: 200)
    model = nn.Linear(1, 1)
    with pytest.raises(BadInput, match="--micro_tokens 22"):
        rehearse(model, lambda items: model(torch.ones(sum(map(len, items)), 1)).sum(), [range(20)] * 5)
    assert all(p.grad is None for p in model.parameters())


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
    monkeypatch.setattr(memory, "free_bytes", lambda device: 100)
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


@pytest.mark.parametrize("name", ["pretrain", "sft", "cost", "dpo", "limited"])
def test_planned_micro_batches_give_what_others_give(name, commands, tmp_path):
    rows = []
    for micro_tokens in (0, 60):
        out = tmp_path / str(micro_tokens)
        assert commands.run(name, out, micro_tokens=micro_tokens) == 0
        rows.append([json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()])
    for a, b in zip(*rows, strict=True):
        for key in set(a) - {"tokens_per_second"}:
            assert a[key] == pytest.approx(b[key], rel=2e-3, abs=2e-4), key
    assert yaml.safe_load((tmp_path / "0" / "config.yaml").read_text())["micro_tokens"] == memory.MOST["cpu"]


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
