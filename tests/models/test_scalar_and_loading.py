"""Preference and cost models, saving and loading, adapters, roles."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from accord.engine.forward.adapters import bare
from accord.engine.forward.causal import hidden_states, token_logprobs
from accord.engine.packing import pack, reply_group
from accord.errors import BadInput
from accord.models.critics import make_critics
from accord.models.loading import add_adapters, load_policy, load_scalar
from accord.models.policy import new_policy
from accord.models.reference import Reference
from accord.models.saving import save_model
from accord.models.scalar import Normalizer, Scorer, new_scalar, values
from accord.models.scorers import ConversationScorer
from accord.models.tokenizer import load_renderer, load_tokenizer
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
    spelled = [i for letter in "the cat" for i in renderer.reply_ids(letter)[:-1]] + [renderer.eos]
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
    assert load_tokenizer(str(tmp_path / "again")).chat_template == tokenizer.chat_template


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


def test_f7_adapters_of_a_policy_and_a_scalar_model_survive_saving(tmp_path, snapshots, tokenizer, renderer):
    packing = pack(texts(renderer))
    model = lora(load_policy(str(snapshots / "policy")))
    move(model)
    save_model(model, tokenizer, tmp_path / "policy", POLICY, "")
    again = load_policy(str(tmp_path / "policy"), trainable=False)
    assert torch.allclose(token_logprobs(model, packing), token_logprobs(again, packing), atol=1e-6)
    last = pack(texts(renderer), rows="last")
    scalar = lora(new_scalar(str(snapshots / "policy"), "helpful", 0), scalar=True)
    move(scalar)
    described = {**POLICY, "role": "preference", "criterion": "helpful"}
    save_model(scalar, tokenizer, tmp_path / "scalar", described, "")
    again = load_scalar(str(tmp_path / "scalar"), role="preference")
    assert torch.allclose(values(scalar, last), values(again, last), atol=1e-6)


def test_a_scalar_model_starts_from_an_adapted_snapshot(tmp_path, snapshots, tokenizer, renderer):
    """The trunk under the new head is the adapted policy, not its base."""
    from accord.engine.forward.causal import hidden_states

    model = lora(load_policy(str(snapshots / "policy")))
    move(model)
    save_model(model, tokenizer, tmp_path / "adapted", POLICY, "")
    packing = pack(texts(renderer), rows="last")
    scalar = new_scalar(str(tmp_path / "adapted"), "helpful", 0)
    assert torch.allclose(hidden_states(scalar, packing), hidden_states(model, packing), atol=1e-5)
    assert all(p.requires_grad for p in scalar.parameters())


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
    from accord.models.loading import describe

    shutil.copytree(snapshots / "cost", tmp_path / "cost")
    (tmp_path / "cost" / "accord.json").write_text('{"role": "cost",')
    with pytest.raises(BadInput, match=r"accord\.json: not valid JSON"):
        describe(str(tmp_path / "cost"))


def test_description_survives_and_a_plain_classifier_is_a_preference_model(tmp_path, snapshots):
    from accord.models.loading import describe

    assert describe(str(snapshots / "cost"))["role"] == "cost"
    shutil.copytree(snapshots / "reward", tmp_path / "plain")
    (tmp_path / "plain" / "accord.json").unlink()
    assert describe(str(tmp_path / "plain"))["role"] == "preference"
    shutil.copytree(snapshots / "policy", tmp_path / "policy")
    (tmp_path / "policy" / "accord.json").unlink()
    assert describe(str(tmp_path / "policy"))["role"] == "policy"
    assert json.loads((snapshots / "cost" / "accord.json").read_text())["criterion"] == "harmless"


def test_bare_is_the_model_itself(snapshots):
    model = load_policy(str(snapshots / "policy"))
    assert bare(model) is model
