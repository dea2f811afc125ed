"""Norms and MLPs are compiled where a run is long enough to pay for it: same numbers, a kept decision."""

import shutil

import pytest
import torch
import transformers
import yaml
from transformers import AutoModelForCausalLM

from accord.training import compilation as compiling
from accord.training.compilation import choose_compile, compile_parts, parts, plain_again
from accord.training.distributed import World

WORLD = World(0, 1, torch.device("cpu"))
SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def make(kind, **more):
    return AutoModelForCausalLM.from_config(getattr(transformers, kind)(**SMALL, **more))


@pytest.fixture
def clock(monkeypatch):
    """`clock(…)` are the seconds of one micro-batch after the other; what stands behind them is computed too."""

    def install(*times):
        found = list(times)

        def seconds(work, device):
            work()
            return found.pop(0)

        monkeypatch.setattr(compiling, "seconds", seconds)
        monkeypatch.setattr(torch.nn.Module, "compile", stand_in)
        return found

    return install


def stand_in(self, **options):
    assert options == {"dynamic": True}
    self._compiled_call_impl = self._call_impl


def prepared(model, seen):
    def work():
        seen.append(sum(part._compiled_call_impl is not None for part in parts([model])))
        model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()

    return work


def test_norms_and_mlps_are_the_parts():
    llama, gpt2 = make("LlamaConfig", intermediate_size=24), make("GPT2Config")
    assert [type(part).__name__ for part in parts([llama])] == ["LlamaMLP", "LlamaRMSNorm", "LlamaRMSNorm"] * 2 + [
        "LlamaRMSNorm"
    ]
    mlp = torch.nn.ModuleDict({"norm": torch.nn.LayerNorm(2)})
    assert list(parts([torch.nn.ModuleDict({"mlp": mlp})])) == [mlp]  # and what stands inside with it
    assert [type(part).__name__ for part in parts([gpt2])] == ["LayerNorm", "LayerNorm", "GPT2MLP"] * 2 + ["LayerNorm"]


@pytest.mark.parametrize(
    ("plain", "compiled", "chosen"), [(1.0, 0.7, "on"), (1.0, 0.71, "off"), (1.0, 1.2, "off"), (1.0, 1.0, "off")]
)
def test_it_is_on_where_it_saves_three_times_what_it_took(clock, plain, compiled, chosen):
    """100 micro-batches are left; compiling took 10 − 0.01 seconds. The fastest of three rounds counts."""
    left = clock(plain + 1, plain, plain + 2, 9.99, compiled + 1, compiled, compiled)
    model, seen = make("LlamaConfig", intermediate_size=24), []
    before = torch.get_rng_state()
    assert choose_compile(WORLD, [model], 1e6, prepared(model, seen), 100) == chosen
    assert seen == [0] * 3 + [7] * 4 and not left
    assert all(part._compiled_call_impl is None for part in parts([model]))
    assert all(p.grad is None for p in model.parameters()) and torch.equal(torch.get_rng_state(), before)


def test_a_short_run_is_not_asked_for_work():
    assert choose_compile(WORLD, [], 199.0, lambda: pytest.fail("asked"), 1e6) == "off"


@pytest.mark.parametrize(("times", "tried"), [(1, False), (46, False), (100, True)])
def test_it_is_not_tried_where_the_trial_takes_what_it_may_save(clock, times, tried):
    """10,000 seconds are left, of which 1,500 may be saved; the trial's seven passes take 70,000 over `times`."""
    clock(*[1.0] * 7)
    model, seen = make("GPT2Config"), []
    assert choose_compile(WORLD, [model], 1e4, prepared(model, seen), times) == "off"
    assert bool(seen) == tried


def test_what_cannot_be_compiled_runs_as_it_is(clock, monkeypatch, capsys):
    clock(1.0, 1.0, 1.0)
    model = make("GPT2Config")

    def refuse(self, **options):
        def fail(*arguments, **more):
            raise RuntimeError("no C++ compiler\nmore")

        self._compiled_call_impl = fail

    monkeypatch.setattr(torch.nn.Module, "compile", refuse)
    assert choose_compile(WORLD, [model], 1e6, prepared(model, []), 1e6) == "off"
    assert capsys.readouterr().out == "note: this model is not compiled: no C++ compiler\n"
    assert model(input_ids=torch.tensor([[1, 2]])).logits.isfinite().all()


def test_ranks_agree(clock, monkeypatch):
    """Off where one rank has no micro-batch, or saves nothing."""
    model = make("GPT2Config")
    monkeypatch.setattr(World, "gather", lambda self, value: [value, False if value is True else value])
    assert choose_compile(WORLD, [model], 1e6, lambda: pytest.fail("asked"), 1e6) == "off"
    clock(1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5)
    monkeypatch.setattr(World, "gather", lambda self, value: [value, (0.0, 1.0) if isinstance(value, tuple) else value])
    assert choose_compile(WORLD, [model], 1e6, prepared(model, []), 1e6) == "off"


@pytest.mark.parametrize(("name", "shared"), [("sft", {}), ("limited", {"steps": 2})])
def test_a_run_is_compiled_at_once_if_asked_and_decides_else_after_a_step(
    name, shared, commands, tmp_path, monkeypatch
):
    compiled, asked = [], []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compiled.append(self))
    assert commands.run(name, tmp_path / "on", compile="on", **shared) == 0
    assert compiled and yaml.safe_load((tmp_path / "on" / "config.yaml").read_text())["compile"] == "on"
    compiled.clear()

    def choose(world, modules, left, work, times):
        asked.append((left > 0, times > 0))
        work()
        return "on"

    assert commands.run(name, tmp_path / "short", **shared) == 0 and not compiled
    assert yaml.safe_load((tmp_path / "short" / "config.yaml").read_text())["compile"] == "off"
    monkeypatch.setattr(compiling, "choose_compile", choose)
    assert commands.run(name, tmp_path / "long", **shared) == 0
    assert compiled and asked == [(True, True)]
    assert yaml.safe_load((tmp_path / "long" / "config.yaml").read_text())["compile"] == "on"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, of tensors that its tracer looks at
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_parts_give_the_same_numbers():
    torch.manual_seed(0)
    model = make("LlamaConfig", intermediate_size=24)

    def gradients():
        model.zero_grad()
        loss = model(input_ids=torch.tensor([[1, 2, 3, 4]]), labels=torch.tensor([[1, 2, 3, 4]])).loss
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in model.parameters())]

    plain = gradients()
    compile_parts([model])
    for a, b in zip(plain, gradients(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    plain_again([model])
    for a, b in zip(plain, gradients(), strict=True):
        assert torch.equal(a, b)
