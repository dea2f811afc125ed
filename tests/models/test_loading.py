"""How models are loaded, adapted, shared and lowered; on modules small enough to be written down."""

import os
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers.utils import logging as transformers_logging

from accord.config import Adapters
from accord.engine.packing import reply_group
from accord.errors import BadInput
from accord.models import bases, loading, scorers
from accord.models.bases import BaseWeights, copy_trained, hold_in_four_bits, lower_frozen
from accord.models.loading import add_adapters, forget_quantisation, load_again, load_policy, load_scalar, no_alarms
from accord.models.scorers import ConversationScorer, is_address, is_elsewhere, load_function, open_scorer
from accord.models.text_scorers import TextScorer
from accord.records import Prompt, Turn

CPU = torch.device("cpu")


# Loading


@pytest.mark.parametrize(
    ("found", "role", "words"),
    [
        ("policy", "cost", "w is a policy model, but --costs needs a cost model"),
        ("cost", "preference", "w is a cost model, but --rewards needs a preference model"),
        ("preference", "knowledge", "w is a preference model, but --knows needs a knowledge model"),
    ],
)
def test_a_scorer_of_another_role_is_refused_by_the_knob_that_asks_for_it(monkeypatch, found, role, words):
    monkeypatch.setattr(loading, "describe", lambda where: {"role": found})
    with pytest.raises(BadInput, match=words):
        load_scalar("w", role=role)
    if found != "policy":
        with pytest.raises(
            BadInput, match=f"w is a {found} model, not a policy; give a snapshot of pretrain, sft or ppo"
        ):
            load_policy("w")


@pytest.mark.parametrize(("role", "kind"), [("policy", "CausalLM"), ("cost", "SequenceClassification")])
def test_a_model_is_read_again_frozen_and_by_its_role(monkeypatch, role, kind):
    asked = []
    monkeypatch.setattr(loading, "describe", lambda where: {"role": role})
    monkeypatch.setattr(loading, "_load", lambda kind, *given: asked.append((kind.__name__, *given)))
    monkeypatch.setattr(loading, "adapter_beside", lambda where, on: f"{where} on {on}")
    load_again("w")
    assert asked == [(f"AutoModelFor{kind}", "w", False, *(["w on "] if role == "cost" else []))]
    if role == "policy":
        load_policy("w")
        assert asked[-1][2] is True
    else:
        load_scalar("w", role="cost", trainable=True, on="base")
        assert asked[-1][2:] == (True, "w on base")


def test_a_loaded_model_is_in_f32_drops_nothing_and_knows_its_place(snapshots):
    for trainable in (True, False):
        model = load_policy(str(snapshots / "policy"), trainable=trainable)
        assert {p.requires_grad for p in model.parameters()} == {trainable} and not model.training
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert model.name_or_path == str((snapshots / "policy").resolve())
    assert not any(p.requires_grad for p in load_scalar(str(snapshots / "cost"), role="cost").parameters())


class Kind:
    """A class of models with layers that would drop, of which some weights were not found."""

    given, missing = None, ()

    @classmethod
    def from_pretrained(cls, name, **more):
        cls.given = (name, more)
        model = nn.Sequential(nn.Dropout(0.3), nn.Linear(1, 1))
        model[1].attention_dropout, model[1].drop_path, model[1].dropped, model[1].other = 0.2, 0.1, 3, 0.5
        return model, {"missing_keys": set(cls.missing)}


def test_no_rate_of_dropout_is_left_and_missing_weights_are_named(monkeypatch):
    monkeypatch.setattr(Kind, "missing", ())
    model = loading.pretrained(Kind, "owner/name@abc", num_labels=2)
    name, more = Kind.given
    expected = {"revision": "abc", "num_labels": 2, "attn_implementation": loading.IMPLEMENTATION}
    expected |= {"dtype": torch.float32, "output_loading_info": True, "use_safetensors": True}
    assert (name, more) == ("owner/name", expected) and model.name_or_path == "owner/name@abc"
    linear = model[1]
    assert (model[0].p, linear.attention_dropout, linear.drop_path) == (0.0, 0.0, 0.0)
    assert (linear.dropped, linear.other) == (3, 0.5)
    monkeypatch.setattr(Kind, "missing", ("score.weight",))
    loading.pretrained(Kind, "owner/name", new_head=True)
    with pytest.raises(OSError, match=r"no weights in it for score\.weight$"):
        loading.pretrained(Kind, "owner/name")
    monkeypatch.setattr(Kind, "missing", ("d", "b", "a", "c", "score.weight"))
    with pytest.raises(OSError, match=r"no weights in it for a, b, c$"):
        loading.pretrained(Kind, "owner/name", new_head=True)


def test_alarms_are_silent_and_then_as_before():
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_info()
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            with no_alarms():
                assert transformers_logging.get_verbosity() == transformers_logging.ERROR
                warnings.warn("`is_gradient_checkpointing` is deprecated", FutureWarning, stacklevel=1)
                warnings.warn("another", FutureWarning, stacklevel=1)
        assert [str(warning.message) for warning in heard] == ["another"]
        assert transformers_logging.get_verbosity() == transformers_logging.INFO
    finally:
        transformers_logging.set_verbosity(before)


def test_a_dequantised_model_is_no_quantised_one(capsys):
    config = SimpleNamespace(quantization_config="q", other=1)
    model = SimpleNamespace(config=config, hf_quantizer="h", is_quantized=True)
    forget_quantisation(model)
    assert (vars(config), model.hf_quantizer, model.is_quantized) == ({"other": 1}, None, False)
    assert loading.dequantised("w.gguf")["quantization_config"].dequantize is True
    assert "dequantised to f32" in capsys.readouterr().out


def test_an_adapter_without_safetensors_is_not_opened(tmp_path):
    with pytest.raises(OSError, match=r"no file named adapter_model\.safetensors"):
        loading.adapted(Kind, str(tmp_path))


@pytest.mark.parametrize("scalar", [True, False])
def test_adapters_are_as_the_knobs_say(snapshots, scalar):
    name = "cost" if scalar else "policy"
    load = lambda: load_scalar(str(snapshots / name), role="cost") if scalar else load_policy(str(snapshots / name))  # noqa: E731
    model = load()
    assert add_adapters(model, Adapters(), scalar=scalar, seed=4) is model
    adapters = Adapters(lora_rank=2, lora_alpha=6.0, lora_targets="q_proj,v_proj")
    made, again, other = (add_adapters(load(), adapters, scalar=scalar, seed=seed) for seed in (4, 4, 5))
    told = made.peft_config["default"]
    assert (told.r, told.lora_alpha, set(told.target_modules)) == (2, 6.0, {"q_proj", "v_proj"})
    assert told.task_type == ("SEQ_CLS" if scalar else "CAUSAL_LM")
    assert "score" in told.modules_to_save if scalar else told.modules_to_save is None
    assert (told.base_model_name_or_path, told.revision) == (str((snapshots / name).resolve()), None)
    trained = {n for n, p in made.named_parameters() if p.requires_grad}
    assert all("lora" in n or (scalar and "score" in n) for n in trained)
    assert any("score" in n for n in trained) is scalar and not any("k_proj" in n for n in trained)
    first, second, third = (dict(one.named_parameters()) for one in (made, again, other))
    drawn = [n for n in trained if "lora_A" in n]
    assert all(torch.equal(first[n], second[n]) for n in drawn)
    assert not any(torch.equal(first[n], third[n]) for n in drawn)


# Weights that roles share


def frozen(*shape, value=None):
    weight = torch.arange(float(shape[0] * shape[1])).reshape(shape) if value is None else torch.full(shape, value)
    return nn.Parameter(weight, requires_grad=False)


class Parts(nn.Module):
    def __init__(self, **parameters):
        super().__init__()
        for name, parameter in parameters.items():
            self.register_parameter(name, parameter)


def test_equal_frozen_weights_of_roles_are_one_and_within_a_role_they_stay_two():
    known = BaseWeights()
    twin = frozen(2, 3)
    first = Parts(a=twin, b=frozen(2, 3), c=nn.Parameter(torch.ones(2, 2)), d=twin, e=None)
    assert known.share(first) is first
    assert first.a is twin and first.d is twin and first.b is not twin
    second = Parts(
        a=frozen(2, 3), b=frozen(2, 3), c=nn.Parameter(torch.ones(2, 2)), d=frozen(3, 2), e=frozen(2, 3, value=2.5)
    )
    own = dict(second.named_parameters())
    known.share(second)
    assert second.a is first.a and second.b is first.b and second.c is own["c"] and second.c is not first.c
    assert second.d is own["d"] and second.e is own["e"]
    third = Parts(a=frozen(3, 2), e=frozen(2, 3, value=2.5))
    known.share(third)
    assert third.a is second.d and third.e is second.e
    # of the same sum, and of other numbers or another type
    swapped = frozen(2, 3)
    swapped.data = swapped.data.flip(1)
    fourth = Parts(a=swapped, b=nn.Parameter(frozen(2, 3).data.bfloat16(), requires_grad=False))
    known.share(fourth)
    assert fourth.a is swapped and fourth.b.dtype == torch.bfloat16


def test_a_copy_has_what_is_trained_of_its_own():
    model = Parts(a=frozen(2, 3), b=nn.Parameter(torch.ones(2, 2)))
    copied = copy_trained(model)
    assert copied.a is model.a and copied.b is not model.b and torch.equal(copied.b, model.b)


class Trunk(nn.Module):
    """A model of a frozen layer, a trained one, a norm, an embedding and a head."""

    def __init__(self):
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.frozen = nn.Linear(3, 2).requires_grad_(False)
        self.base_model.trained = nn.Linear(3, 2)
        self.base_model.norm = nn.LayerNorm(3).requires_grad_(False)
        self.base_model.table = nn.Embedding(4, 3).requires_grad_(False)
        self.head = nn.Linear(3, 2).requires_grad_(False)
        self.name_or_path = "where"


class AdaptedTrunk(Trunk):
    def disable_adapter(self):
        raise AssertionError

    def get_base_model(self):
        return self


@pytest.fixture
def asked(monkeypatch):
    seen = []
    monkeypatch.setattr(
        bases, "packs", lambda model: seen.append(("packs", model, model.base_model.frozen.weight.dtype))
    )
    monkeypatch.setattr(bases, "decodes", lambda model, *, longest: seen.append(("decodes", model, longest)))
    monkeypatch.setattr(bases, "hold_in_four_bits", lambda models, low: seen.append(("bits", models, low)))
    monkeypatch.setattr(bases, "load_again", lambda where: f"again {where}")
    return seen


def test_frozen_matrices_of_layers_are_held_in_bf16_and_nothing_else(asked):
    plain, adapted = Trunk(), AdaptedTrunk()
    lower_frozen([plain, adapted], "f32")
    assert asked == [] and plain.base_model.frozen.weight.dtype == torch.float32
    before = plain.base_model.frozen.weight.clone()
    lower_frozen([plain, adapted], "bf16")
    f32 = torch.float32
    assert asked == [("packs", plain, f32), ("packs", adapted, f32), ("decodes", adapted, 0)]
    for model in (plain, adapted):
        low = {name for name, p in model.named_parameters() if p.dtype == torch.bfloat16}
        assert low == {"base_model.frozen.weight"}
    assert torch.equal(plain.base_model.frozen.weight, before.bfloat16())
    assert getattr(adapted, bases.WHOLE)() == "again where" and not hasattr(plain, bases.WHOLE)


@pytest.mark.parametrize(("precision", "low"), [("f32", torch.float32), ("bf16", torch.bfloat16)])
def test_four_bits_are_held_whatever_is_computed_in(asked, precision, low):
    model = AdaptedTrunk()
    lower_frozen([model], precision, 4)
    assert asked[-1] == ("bits", [model], low) and len(asked) == 3
    assert model.base_model.frozen.weight.dtype == low


def test_only_layers_under_adapters_are_held_in_four_bits(monkeypatch):
    def held(layer, low, known):
        known[id(layer)] = low
        return "held"

    monkeypatch.setattr(bases, "in_four_bits", held)
    model = Trunk()
    with pytest.raises(BadInput, match="--base_bits 4: no layer under adapters is a plain linear one in this model"):
        hold_in_four_bits([model], torch.bfloat16)
    wrapped = nn.Module()
    vars(wrapped)["base_layer"] = nn.Linear(3, 2)
    model.base_model.wrapped = wrapped
    other = nn.Module()
    vars(other)["base_layer"] = "another kind"
    model.base_model.other = other
    hold_in_four_bits([model], torch.bfloat16)
    assert wrapped.base_layer == "held" and other.base_layer == "another kind"


# Scorers by their address


@pytest.mark.parametrize(
    ("where", "address", "elsewhere"),
    [
        ("http://x/scores", True, True),
        ("https://x/scores", True, True),
        ("module.part:name", False, True),
        ("owner/name", False, False),
        ("httpx", False, False),
        ("labeler:x.txt", False, True),
        ("openai:http://x#m", False, True),
    ],
)
def test_what_is_no_model_that_is_read_here(where, address, elsewhere):
    assert (is_address(where), is_elsewhere(where)) == (address, elsewhere)


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", os.getcwd())])
    (tmp_path / "own_scores.py").write_text("def words(part):\n    return [1.0] * len(part)\nnumber = 3\n")
    (tmp_path / "needs_more.py").write_text("import no_such_library\n")
    yield
    for name in ("own_scores", "needs_more"):
        sys.modules.pop(name, None)


def test_a_function_is_found_in_the_working_directory_or_said_to_be_missing(module):
    assert load_function("own_scores:words")([1, 2]) == [1.0, 1.0]
    assert sys.path[0] == os.getcwd() and load_function("own_scores:words") and sys.path.count(os.getcwd()) == 1
    for where, words in (
        ("no_such:words", "no_such:words: there is no module no_such; name one that Python can import"),
        ("no_such.part:words", r"no_such\.part:words: there is no module no_such;"),
        ("own_scores:missing", "own_scores:missing: own_scores has no missing"),
        ("own_scores:number", "own_scores:number: number is no function"),
    ):
        with pytest.raises(BadInput, match=words):
            load_function(where)
    # what a module of the user's lacks itself is its own fault, and shown
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load_function("needs_more:words")


def test_a_scorer_is_opened_by_what_its_place_is(module, monkeypatch):
    asked = []
    monkeypatch.setattr(scorers, "RemoteScorer", lambda *given: asked.append(given))
    monkeypatch.setattr(scorers, "ConversationScorer", lambda *given, **more: asked.append((*given, more)))
    monkeypatch.setattr(scorers, "load_renderer", lambda where: f"renderer of {where}")
    open_scorer("http://x", "cost", "ours", CPU, "helpful")
    open_scorer("owner/name", "cost", "ours", CPU, "helpful", on="base")
    open_scorer("owner/name", "cost", None, CPU)
    assert asked == [
        ("http://x", "cost", "ours", "helpful"),
        ("owner/name", "cost", "ours", CPU, "helpful", {"on": "base"}),
        ("owner/name", "cost", "renderer of owner/name", CPU, "", {"on": ""}),
    ]
    found = open_scorer("own_scores:words", "cost", "ours", CPU)
    assert isinstance(found, TextScorer) and (found.where, found.role, found.renderer) == (
        "own_scores:words",
        "cost",
        "ours",
    )
    with pytest.raises(BadInput, match="rlcr:x: rlcr gives rewards of `accord ppo` alone"):
        open_scorer("rlcr:x", "cost", "ours", CPU)


@pytest.mark.parametrize("foreign", [True, False])
def test_replies_are_read_in_the_drawn_ids_or_anew_in_the_scorers_own(monkeypatch, foreign):
    """A reply that ended keeps its last token; one that was cut, or drew nothing, has it taken off."""
    seen = []

    class Own:
        def tells_apart(self, other):
            return foreign and other == policys

        def prompt_ids(self, turns):
            return (90, len(turns))

        def drawn_ids(self, reply, turns):
            return (len(reply), 70 + len(turns), 99)

    policys = SimpleNamespace(stops={8}, ask_time="clock")

    def begin(self, where, **more):
        self.normalizer, self.models = lambda raw: 10 * raw, [nn.Linear(1, 1)]
        seen.append((where, more))

    def raw(self, groups, *, micro_tokens):
        seen.append((list(groups), micro_tokens))
        return torch.arange(4.0)

    monkeypatch.setattr(scorers.Scorer, "__init__", begin)
    monkeypatch.setattr(scorers.Scorer, "raw_scores", raw)
    monkeypatch.setattr(scorers, "load_renderer", lambda where, *, clock: seen.append((where, clock)) or Own())
    scorer = ConversationScorer("w", "cost", policys, CPU, "helpful", on="base")
    assert seen == [("w", {"role": "cost", "device": CPU, "head": "helpful", "on": "base"}), ("w", "clock")]
    assert (scorer.renderer is not None) is foreign and not scorer.collective and not scorer.remote
    prompts = [Prompt((Turn("user", "why"),) * k, "", "") for k in (1, 1, 3, 1)]
    groups = [reply_group((5,), (7, 8), (7,)), reply_group((6,), (8, 7)), reply_group((6,), ())]
    assert scorer.scores(prompts, ["a", "bb", "ccc", ""], groups, micro_tokens=7).tolist() == [0.0, 10.0, 20.0, 30.0]
    own = [((90, 1), (1, 71, 99)), ((90, 1), (2, 71)), ((90, 3), (3, 73)), ((90, 1), (0, 71))]
    assert seen[-1] == ([reply_group(*one) for one in own] if foreign else groups, 7)
