"""Preference and cost models, saving and loading, adapters, roles."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from accord.engine.forward.adapters import bare
from accord.engine.forward.causal import hidden_states, token_logprobs
from accord.engine.forward.low_rank import LowRankLinear
from accord.engine.packing import pack, reply_group
from accord.errors import BadInput
from accord.models import places
from accord.models.critics import make_critics
from accord.models.loading import add_adapters, load_policy, load_scalar
from accord.models.places import base_of, describe
from accord.models.policy import new_policy
from accord.models.reference import Reference
from accord.models.saving import save_model
from accord.models.scalar import Normalizer, Scorer, new_scalar, values
from accord.models.scorers import ConversationScorer
from accord.models.tokenizer import load_renderer
from accord.records import Prompt, Turn
from accord.stages.sft.config import Sft

CPU = torch.device("cpu")
POLICY = {"role": "policy", "criterion": "", "normalizer": {"kind": "none", "shift": 0.0, "scale": 1.0}}


def texts(renderer):
    out = []
    for prompt, replies in (
        ("why", ("the cat", "a dog runs with salt and bread")),
        ("how me help please", ("", "stone")),
    ):
        ids = renderer.prompt_ids((Turn("user", prompt),))
        out.append(reply_group(ids, *(renderer.reply_ids(reply) for reply in replies)))
    return out


def test_b1_the_score_is_that_of_the_last_token_and_of_the_transformers_class(snapshots, renderer):
    """B1 and design section 5: padded on the right by transformers or packed by us, one number."""
    scorer = Scorer(str(snapshots / "reward"), role="preference", device=CPU)
    groups = texts(renderer)
    ours = scorer.raw_scores(groups, micro_tokens=64)
    rows = [[*g.prefix, *reply] for g in groups for reply in g.replies]
    model = AutoModelForSequenceClassification.from_pretrained(snapshots / "reward")
    tokenizer = AutoTokenizer.from_pretrained(snapshots / "reward")
    batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**batch).logits[:, 0]
        alone = torch.stack([model(input_ids=torch.tensor([row])).logits[0, 0] for row in rows])
    assert torch.allclose(ours, theirs, atol=1e-5) and torch.allclose(ours, alone, atol=1e-5)
    assert model.config.id2label == {0: "helpful"}
    assert len(set(ours.tolist())) == 4


def test_a6_rollouts_are_scored_as_the_ids_they_were_drawn_as(snapshots, renderer):
    """A6: a sampled reply may spell its text in other tokens than the tokenizer would; it is scored as sampled."""
    prompt = Prompt((Turn("user", "why"),), "", "by hand")
    spelled = [i for letter in "the cat" for i in renderer.reply_ids(letter)[:-1]] + [renderer.end]
    ids = renderer.prompt_ids(prompt.turns)
    drawn, again = reply_group(ids, spelled), reply_group(ids, renderer.reply_ids("the cat"))
    assert drawn != again
    alone = Scorer(str(snapshots / "reward"), role="preference", device=CPU).scores([drawn, again], micro_tokens=100)
    scorer = ConversationScorer(str(snapshots / "reward"), "preference", renderer, CPU)
    got = scorer.scores([prompt], ["the cat"], [drawn], micro_tokens=100)
    assert torch.allclose(got, alone[:1], atol=1e-6)
    assert abs(float(alone[0] - alone[1])) > 1e-3


def test_scores_do_not_depend_on_micro_batches(snapshots, renderer):
    scorer = Scorer(str(snapshots / "reward"), role="preference", device=CPU)
    groups = texts(renderer)
    assert torch.allclose(scorer.scores(groups, micro_tokens=1), scorer.scores(groups, micro_tokens=10_000), atol=1e-6)


def test_b3_the_same_seed_gives_the_same_head(snapshots):
    torch.manual_seed(99)
    first = new_scalar(str(snapshots / "policy"), "helpful", 4)
    torch.manual_seed(1)
    second = new_scalar(str(snapshots / "policy"), "helpful", 4)
    other = new_scalar(str(snapshots / "policy"), "helpful", 5)
    assert torch.equal(first.score.weight, second.score.weight)
    assert not torch.equal(first.score.weight, other.score.weight)


def test_b9_a_cost_normaliser_keeps_the_zero():
    cost = Normalizer("sign-probability")
    raw = torch.tensor([-3.0, 0.0, 0.5, 1e4])
    assert cost(raw)[1] == 0.0
    assert torch.allclose(cost(raw), 2 * torch.sigmoid(raw) - 1)
    assert torch.equal(torch.sign(cost(raw)), torch.sign(raw))
    assert torch.allclose(Normalizer("standard", 2.0, 4.0)(raw), (raw - 2) / 4)
    assert torch.equal(Normalizer()(raw), raw)


def test_f7_save_and_reload_gives_the_same_log_probs(tmp_path, snapshots, tokenizer, renderer):
    model = load_policy(str(snapshots / "policy"))
    packing = pack(texts(renderer))
    save_model(model, tokenizer, tmp_path / "again", POLICY, "")
    again = load_policy(str(tmp_path / "again"))
    assert torch.equal(token_logprobs(model, packing), token_logprobs(again, packing))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    ids = torch.tensor([[1, 20, 30, 40]])
    assert torch.allclose(plain(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-6)
    assert load_renderer(str(tmp_path / "again")).template == tokenizer.chat_template


def test_f8_tied_embeddings_stay_tied_and_reload(tmp_path, tokenizer, nano, renderer):
    model = new_policy(nano, tokenizer, max_length=64, seed=3)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    with torch.no_grad():
        model.lm_head.weight[5] += 1.0
    save_model(model, tokenizer, tmp_path / "tied", POLICY, "")
    again = load_policy(str(tmp_path / "tied"))
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    packing = pack(texts(renderer))
    assert torch.equal(token_logprobs(model.eval(), packing), token_logprobs(again, packing))


def lora(model, *, scalar=False, **changes):
    config = Sft(model="x", data="x", out="x", lora_rank=2, **changes)
    return add_adapters(model, config, scalar=scalar, seed=0)


def move(model):
    """Change every trained parameter, as training would."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))


def test_an_adapter_that_is_off_is_the_reference(snapshots, renderer):
    packing = pack(texts(renderer))
    before = token_logprobs(load_policy(str(snapshots / "policy")), packing)
    model = lora(load_policy(str(snapshots / "policy")))
    move(model)
    reference = Reference(model, None)
    assert torch.equal(reference.token_logprobs(packing), before)
    assert not torch.allclose(token_logprobs(model, packing), before, atol=1e-3)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)


def test_every_linear_layer_under_adapters_is_one_node(adapted, snapshots):
    """Of adapters that are new, and of those that are read from beside a snapshot."""
    there, _, scalar = adapted
    fresh = lora(load_policy(str(snapshots / "policy")))
    read = load_scalar(str(there / "scalar"), role="cost", on=str(there / "policy"))
    for model in (fresh, scalar, read):
        layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        assert layers and {type(layer) for layer in layers} == {LowRankLinear}


def test_adapters_are_put_on_without_an_alarm(tmp_path, snapshots, recwarn):
    model = lora(load_policy(str(snapshots / "policy")))
    model.save_pretrained(tmp_path / "adapted")
    load_policy(str(tmp_path / "adapted"))
    assert [str(warning.message) for warning in recwarn] == []


def test_f7_adapters_of_a_policy_and_a_scalar_model_survive_saving(tmp_path, snapshots, tokenizer, renderer):
    packing = pack(texts(renderer))
    model = lora(load_policy(str(snapshots / "policy")))
    move(model)
    save_model(model, tokenizer, tmp_path / "policy", POLICY, "")
    again = load_policy(str(tmp_path / "policy"), trainable=False)
    assert torch.allclose(token_logprobs(model, packing), token_logprobs(again, packing), atol=1e-5)
    last = pack(texts(renderer), rows="last")
    scalar = lora(new_scalar(str(snapshots / "policy"), "helpful", 0), scalar=True)
    move(scalar)
    described = {**POLICY, "role": "preference", "criterion": "helpful"}
    save_model(scalar, tokenizer, tmp_path / "scalar", described, "")
    again = load_scalar(str(tmp_path / "scalar"), role="preference")
    assert torch.allclose(values(scalar, last), values(again, last), atol=1e-5)
    assert {p.device for p in model.parameters()} == {CPU} and model.active_adapters  # what was saved goes on


@pytest.fixture
def adapted(tmp_path, snapshots, tokenizer, monkeypatch):
    """A LoRA preference model on a LoRA policy, made in one folder by relative paths and read in another."""
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    shutil.copytree(snapshots / "policy", "base")
    policy = lora(load_policy("base"))
    move(policy)
    save_model(policy, tokenizer, Path("policy"), POLICY, "")
    scalar = lora(new_scalar("policy", ["helpful", "brief"], 0), scalar=True)
    move(scalar)
    described = {**POLICY, "role": "cost", "criterion": "two", "heads": ["helpful", "brief"]}
    save_model(scalar, tokenizer, Path("scalar"), described, "")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "there", policy, scalar


def test_a_lora_preference_model_loads_in_the_transformers_class_with_batches_of_two(adapted, renderer):
    """By itself, with PAD in its config: the same scores padded as packed."""
    there, _, scalar = adapted
    packing = pack(texts(renderer), rows="last")
    ours = values(scalar, packing).reshape(-1, 2)
    shutil.rmtree(there / "base")
    shutil.rmtree(there / "policy")
    model = AutoModelForSequenceClassification.from_pretrained(there / "scalar")
    rows = [[*g.prefix, *reply] for g in texts(renderer) for reply in g.replies]
    batch = AutoTokenizer.from_pretrained(there / "scalar").pad({"input_ids": rows}, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**batch).logits
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert model.config.id2label == {0: "helpful", 1: "brief"}
    assert model.config.label2id == {"helpful": 0, "brief": 1}


def test_adapters_name_their_base_so_that_peft_finds_it_from_another_folder(adapted, renderer):
    from peft import AutoPeftModelForCausalLM, PeftModel

    there, policy, scalar = adapted
    packing = pack(texts(renderer))
    again = AutoPeftModelForCausalLM.from_pretrained(there / "policy" / "adapter")
    assert torch.allclose(token_logprobs(again, packing), token_logprobs(policy, packing), atol=1e-5)
    # the scalar's base is the whole policy, adapter included
    base = json.loads((there / "scalar" / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    head = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    found = PeftModel.from_pretrained(head, there / "scalar" / "adapter")
    last = pack(texts(renderer), rows="last")
    assert torch.allclose(values(found, last), values(scalar, last), atol=1e-5)


def test_role_criterion_and_normaliser_are_in_the_config_of_a_hub_model(adapted, tmp_path, monkeypatch):
    """As the hub's cache has it: no other file of ours is asked for. A revision is that, and no other."""
    there, _, scalar = adapted
    old, new = "0" * 40, "1" * 40
    cached = tmp_path / "hub" / "models--owner--name"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(new)
    shutil.copytree(there / "scalar", cached / "snapshots" / old)
    shutil.copytree(there / "base", cached / "snapshots" / new)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert describe("owner/name")["role"] == "policy"
    found = describe(f"owner/name@{old}")
    assert (found["role"], found["criterion"], found["heads"]) == ("cost", "two", ["helpful", "brief"])
    loaded = load_scalar(f"owner/name@{old}", role="cost")
    assert torch.equal(loaded.score.weight, bare(scalar).score.modules_to_save["default"].weight)
    assert load_renderer(f"owner/name@{old}").stops == load_renderer("owner/name").stops
    with pytest.raises(BadInput, match="owner/name@gone"):
        load_policy("owner/name@gone")
    wrapped = lora(load_policy("owner/name"))
    wrapped.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    assert wrapped.peft_config["default"].revision == new and base_of(str(tmp_path / "adapter")) == f"owner/name@{new}"
    named = lora(load_policy(f"owner/name@{new}")).peft_config["default"]
    assert (named.base_model_name_or_path, named.revision) == ("owner/name", new)


def test_an_adapter_of_others_is_read_with_its_base_and_is_a_model_like_any(tmp_path, snapshots, renderer, monkeypatch):
    """As peft leaves it: no config, a base by a path that holds beside the adapter, a head of one label.

    From where we stand the same path leads to a folder that holds no model.
    """
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path / "base")
    packing = pack(texts(renderer))
    model = lora(load_policy(str(snapshots / "policy")))
    move(model)
    model.save_pretrained(tmp_path / "made" / "adapter")
    shutil.copytree(snapshots / "policy", tmp_path / "made" / "base")
    config = tmp_path / "made" / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "../base"}))
    where = str(tmp_path / "made" / "adapter")
    assert describe(where)["role"] == "policy"
    again = load_policy(where)
    assert torch.allclose(token_logprobs(model, packing), token_logprobs(again, packing), atol=1e-5)
    assert all(p.requires_grad for p in again.parameters())
    scalar = lora(new_scalar(str(snapshots / "policy"), "helpful", 0), scalar=True)
    move(scalar)
    scalar.save_pretrained(tmp_path / "scores")
    assert describe(str(tmp_path / "scores"))["role"] == "preference"
    last = pack(texts(renderer), rows="last")
    found = load_scalar(str(tmp_path / "scores"), role="preference")
    assert torch.allclose(values(found, last), values(scalar, last), atol=1e-5)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "../gone"}))
    with pytest.raises(BadInput, match=r"its base \.\./gone is not there; set base_model_name_or_path"):
        load_policy(where)


def test_a_scalar_model_starts_from_an_adapter_of_others(tmp_path, snapshots, renderer):
    """The trunk under the new head is the adapted policy, not its base."""
    model = lora(load_policy(str(snapshots / "policy")))
    move(model)
    model.save_pretrained(tmp_path / "adapted")
    packing = pack(texts(renderer), rows="last")
    scalar = new_scalar(str(tmp_path / "adapted"), "helpful", 0)
    assert torch.allclose(hidden_states(scalar, packing), hidden_states(model, packing), atol=1e-5)
    assert all(p.requires_grad for p in scalar.parameters())
    named = lora(scalar, scalar=True).peft_config["default"]
    assert named.base_model_name_or_path == str((tmp_path / "adapted").resolve())


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("reward", lambda where: load_policy(where)),
        ("cost", lambda where: load_policy(where)),
        ("cost", lambda where: load_scalar(where, role="preference")),
        ("reward", lambda where: load_scalar(where, role="cost")),
        ("policy", lambda where: load_scalar(where, role="preference")),
    ],
)
def test_a_model_of_another_role_is_refused(snapshots, name, call):
    with pytest.raises(BadInput, match=r"is a (policy|preference|cost) model"):
        call(str(snapshots / name))


def test_places_that_are_no_snapshot_are_refused_by_name(tmp_path, snapshots):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    shutil.copytree(snapshots / "policy", tmp_path / "run" / "snapshot")
    for where, message in (
        (tmp_path / "missing", "no such directory"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "empty", "no config.json"),
        (tmp_path / "run", r"did you mean .*snapshot"),
    ):
        with pytest.raises(BadInput, match=message):
            load_policy(str(where))
    shutil.copytree(snapshots / "policy", tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(BadInput, match="broken"):
        load_policy(str(tmp_path / "broken"))


def other_tokenizer():
    from accord.data.chat import train_tokenizer

    return train_tokenizer(["entirely other words of another world"] * 5, 280)


def test_b10_a_scorer_with_another_tokenizer_renders_the_conversation_anew(tmp_path, snapshots, renderer, nano):
    """B10: the same score as by itself, and never the policy's ids."""
    tokenizer = other_tokenizer()
    save_model(new_policy(nano, tokenizer, max_length=64, seed=1), tokenizer, tmp_path / "p", POLICY, "")
    described = {**POLICY, "role": "preference", "criterion": "helpful"}
    save_model(new_scalar(str(tmp_path / "p"), "helpful", 0), tokenizer, tmp_path / "r", described, "")
    scorer = ConversationScorer(str(tmp_path / "r"), "preference", renderer, CPU)
    assert scorer.renderer is not None
    prompt = Prompt((Turn("user", "why"),), "", "by hand")
    ids = renderer.prompt_ids(prompt.turns)
    mine = [reply_group(ids, renderer.reply_ids("the cat"))]
    got = scorer.scores([prompt], ["the cat"], mine, micro_tokens=100)
    own = load_renderer(str(tmp_path / "r"))
    alone = Scorer(str(tmp_path / "r"), role="preference", device=CPU).scores(
        [reply_group(own.prompt_ids(prompt.turns), own.reply_ids("the cat"))], micro_tokens=100
    )
    assert torch.equal(got, alone)
    same = ConversationScorer(str(snapshots / "reward"), "preference", renderer, CPU)
    assert same.renderer is None
    # its critic starts from the policy, in the policy's ids
    policy = load_policy(str(snapshots / "policy"))
    critics = make_critics("separate", str(snapshots / "policy"), policy, {"reward": scorer}, 0)
    packing = pack(texts(renderer))
    assert critics.values(policy, packing)["reward"].shape == (len(packing.rows),)


@pytest.mark.parametrize("kind", ["separate", "shared"])
def test_critics_give_one_value_per_token_and_signal(snapshots, renderer, kind):
    policy = load_policy(str(snapshots / "policy"))
    starts = {
        "reward": ConversationScorer(str(snapshots / "reward"), "preference", renderer, CPU),
        "harm": ConversationScorer(str(snapshots / "cost"), "cost", renderer, CPU),
    }
    critics = make_critics(kind, str(snapshots / "policy"), policy, starts, 0)
    packing = pack(texts(renderer))
    out = critics.values(policy, packing)
    assert set(out) == {"reward", "harm"} and all(v.shape == (len(packing.rows),) for v in out.values())
    # hidden states that are known already change nothing, and only the shared kind reads them
    for name, value in critics.values(policy, packing, hidden_states(policy, packing)).items():
        assert torch.allclose(value, out[name], atol=1e-6)
    if kind == "separate":
        # a critic is its scorer read at every token: at the end of the reply it says the score
        last = pack(texts(renderer), rows="last")
        expected = values(starts["harm"].model, last)
        assert torch.allclose(values(critics.models["harm"], last), expected, atol=1e-6)


def test_a_broken_description_is_named(tmp_path, snapshots):
    shutil.copytree(snapshots / "cost", tmp_path / "cost")
    (tmp_path / "cost" / "config.json").write_text('{"role": "cost",')
    with pytest.raises(BadInput, match=r"config\.json"):
        describe(str(tmp_path / "cost"))


def without_description(source, folder):
    """A copy as any other program leaves it."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("accord")["criterion"] in ("", "helpful")
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_description_survives_and_a_plain_classifier_is_a_preference_model(tmp_path, snapshots):
    assert describe(str(snapshots / "cost"))["role"] == "cost"
    assert describe(without_description(snapshots / "reward", tmp_path / "plain"))["role"] == "preference"
    assert describe(without_description(snapshots / "policy", tmp_path / "policy"))["role"] == "policy"
    # what another program trained on our policy is a classifier, whatever the config has kept
    model = AutoModelForSequenceClassification.from_pretrained(snapshots / "policy", num_labels=1)
    model.save_pretrained(tmp_path / "theirs")
    assert describe(str(tmp_path / "theirs")) == {**places.POLICY, "role": "preference"}


def test_bare_is_the_model_itself(snapshots):
    model = load_policy(str(snapshots / "policy"))
    assert bare(model) is model


@pytest.mark.parametrize("alpha", [3.0, 16.0])
def test_an_adapter_weighs_alpha_over_rank(alpha, snapshots, tmp_path):
    config = Sft(model="m", data="d", out=str(tmp_path), lora_rank=2, lora_alpha=alpha)
    adapted = add_adapters(load_policy(str(snapshots / "policy")), config, scalar=False, seed=0)
    scales = [module.scaling["default"] for module in adapted.modules() if isinstance(module, LoraLayer)]
    assert scales and set(scales) == {alpha / 2}


def test_a_description_alone_is_no_model(tmp_path):
    (tmp_path / "accord.json").write_text(json.dumps(POLICY))
    with pytest.raises(BadInput, match=r"no config\.json there"):
        describe(str(tmp_path))
