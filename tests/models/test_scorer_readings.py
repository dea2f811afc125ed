"""What a scorer reads of models with several heads, members and groups, by hand on scores that ids decide."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn, tensor

from accord.engine.forward.causal import hidden_states
from accord.engine.packing import pack, reply_group
from accord.errors import BadInput
from accord.models import scalar
from accord.models.ensemble import Combination, combine, mean_weights
from accord.models.loading import load_policy, load_scalar
from accord.models.scalar import Normalizer, Scorer, head_scores, keep_head, new_scalar, normalizers_of, start_scalar

CPU = torch.device("cpu")
GROUPS = [reply_group((5, 6), (7,), (8, 9, 10)), reply_group((5,), (11, 12))]
LAST = [7, 10, 12]


class Model(nn.Module):
    """Its score of a reply is a share of the last token, `heads` times."""

    def __init__(self, share, heads):
        super().__init__()
        self.share, self.heads = share, heads
        text = SimpleNamespace(max_position_embeddings=9)
        self.config = SimpleNamespace(get_text_config=lambda: text)

    def scores(self, groups):
        last = tensor([float(reply[-1]) for group in groups for reply in group.replies])
        return torch.stack([self.share * last + k * last**0.5 for k in range(self.heads)], 1)


@pytest.fixture
def opened(monkeypatch):
    """`opened(role=…, **descriptions)`: a scorer of a snapshot that says this of itself; "w" is the snapshot."""
    loaded = []

    def of(role="preference", head="", on="", **described):
        shares = {where: 0.1 * (1 + place) for place, where in enumerate(described)}
        asked = []

        def load(where, *, role, on):
            loaded.append((where, role, on))
            return Model(shares[where.replace("/", "_")], len(described["w"].get("heads", ["one"])))

        def scores(model, groups, device):
            asked.append(len(groups))
            assert device == CPU and not torch.is_grad_enabled()
            return model.scores(groups)

        monkeypatch.setattr(scalar, "describe", lambda where: described[where.replace("/", "_")])
        monkeypatch.setattr(scalar, "load_scalar", load)
        monkeypatch.setattr(scalar, "head_scores", scores)
        scorer = Scorer("w", role=role, device=CPU, head=head, on=on)
        return SimpleNamespace(scorer=scorer, asked=asked, loaded=loaded)

    return of


def normalizer(shift, scale, kind="standard"):
    return {"kind": kind, "shift": shift, "scale": scale}


def described(**more):
    return {"role": "preference", "criterion": "helpful", "normalizer": normalizer(0.3, 2.0)} | more


def test_one_head_of_one_model_is_read_as_it_is_and_normalised(opened):
    found = opened(w=described(deviation=0.7), on="base")
    scorer = found.scorer
    expected = [0.1 * last for last in LAST]
    assert scorer.raw_scores(GROUPS, micro_tokens=100).tolist() == pytest.approx(expected)
    assert scorer.scores(GROUPS, micro_tokens=100).tolist() == pytest.approx([(x - 0.3) / 2 for x in expected])
    assert scorer.is_plain and scorer.measured == scorer.description and found.loaded == [("w", "preference", "base")]
    assert (scorer.where, scorer.role, scorer.on, scorer.heads) == ("w", "preference", "base", ["helpful"])
    assert scorer.model is scorer.models[0] and scorer.read == ["helpful"]
    assert scorer.raw_scores([], micro_tokens=100).shape == (0,)


def test_the_only_head_is_read_whatever_the_name(opened):
    assert opened(head="another", w=described()).scorer.read == ["helpful"]


TWO = described(
    heads=["helpful", "brief"],
    normalizer={"helpful": normalizer(0.3, 2.0), "brief": normalizer(-0.4, 5.0)},
    deviation=0.7,
)


def test_of_several_criteria_one_is_named_and_read_alone(opened):
    scorer = opened(head="brief", w=TWO).scorer
    raw = [0.1 * last + last**0.5 for last in LAST]
    assert scorer.raw_scores(GROUPS, micro_tokens=100).tolist() == pytest.approx(raw)
    assert scorer.scores(GROUPS, micro_tokens=100).tolist() == pytest.approx([(x + 0.4) / 5 for x in raw])
    assert scorer.is_plain and scorer.measured == {} and scorer.normalizer == Normalizer("standard", -0.4, 5.0)
    other = scorer.reading("helpful")
    assert other.raw_scores(GROUPS, micro_tokens=100).tolist() == pytest.approx([0.1 * last for last in LAST])
    assert (other.read, scorer.read, other.models) == (["helpful"], ["brief"], scorer.models)
    for head, words in (("honest", "'honest' is none of them"), ("", "none was named")):
        with pytest.raises(BadInput, match=f"w has a head for each of helpful, brief, and {words}; use one as the mod"):
            opened(head=head, w=TWO)


@pytest.mark.parametrize(("role", "sign"), [("preference", -1), ("cost", 1)])
def test_members_are_aligned_at_their_zeros_and_combined_by_the_rule(opened, role, sign):
    rule = {"rule": "variance", "weight": 0.7, "weights": {}}
    first = described(ensemble={"members": ["members/1", "members/2"], "combine": rule})
    members = {
        "w": first,
        "w_members_1": described(normalizer=normalizer(-0.2, 3.5)),
        "w_members_2": described(normalizer=normalizer(0.1, 5.0)),
    }
    found = opened(role, **members)
    aligned = [[0.1 * last - 0.3, 0.2 * last + 0.2, 0.3 * last - 0.1] for last in LAST]
    means = [sum(row) / 3 for row in aligned]
    spread = [sum((x - m) ** 2 for x in row) / 3 for row, m in zip(aligned, means, strict=True)]
    expected = [m + sign * 0.7 * v for m, v in zip(means, spread, strict=True)]
    scorer = found.scorer
    assert scorer.raw_scores(GROUPS, micro_tokens=100).tolist() == pytest.approx(expected, rel=1e-5)
    assert scorer.normalizer == Normalizer("standard", 0.0, pytest.approx(3.5)) and not scorer.is_plain
    assert [where for where, *_ in found.loaded] == ["w", "w/members/1", "w/members/2"]


def test_heads_of_groups_are_combined_after_the_members_of_each(opened):
    """Members by their mean, groups by weights; a group's head alone is read by its name."""
    heads = ["cats", "dogs"]
    first = described(
        heads=heads,
        normalizer={"cats": normalizer(0.3, 2.0), "dogs": normalizer(-0.4, 5.0)},
        ensemble={"members": ["1"], "combine": {"rule": "worst", "weight": 0.0, "weights": {}}},
        groups={"rule": "mean", "weight": 0.0, "weights": {"dogs": 3.0}},
    )
    second = described(heads=heads, normalizer={"cats": normalizer(2.0, 1.0), "dogs": normalizer(0.9, 4.0)})
    scorer = opened(w=first, w_1=second).scorer
    cats = [min(0.1 * last - 0.3, 0.2 * last - 2.0) for last in LAST]
    dogs = [min(0.1 * last + last**0.5 + 0.4, 0.2 * last + last**0.5 - 0.9) for last in LAST]
    assert cats[0] == 0.2 * 7 - 2.0 and dogs[0] != 0.1 * 7 + 7**0.5 + 0.4
    expected = [(c + 3 * d) / 4 for c, d in zip(cats, dogs, strict=True)]
    assert scorer.raw_scores(GROUPS, micro_tokens=100).tolist() == pytest.approx(expected, rel=1e-5)
    assert scorer.normalizer == Normalizer("standard", 0.0, 3.0) and scorer.measured == first
    dog = scorer.reading("dogs")
    assert dog.raw_scores(GROUPS, micro_tokens=100).tolist() == pytest.approx(dogs, rel=1e-5)
    assert dog.normalizer == Normalizer("standard", 0.0, 4.5) and dog.measured == {}
    table = scorer.table(GROUPS, micro_tokens=100)
    assert table.shape == (3, 2, 2)
    assert table[:, 1, 0].tolist() == pytest.approx([0.2 * last for last in LAST])


def test_texts_are_scored_by_micro_batch_and_none_may_be_longer_than_the_model_reads(opened, monkeypatch):
    found = opened(w=described())
    found.scorer.raw_scores(GROUPS, micro_tokens=6)
    assert found.asked == [1, 1]
    found.scorer.raw_scores([reply_group((1,) * 5, (2,), (3,) * 4)], micro_tokens=99)
    with pytest.raises(BadInput, match="w reads 9 tokens, and a conversation has 10 of its; give shorter"):
        found.scorer.raw_scores([GROUPS[0], reply_group((1,) * 5, (2,), (3,) * 5)], micro_tokens=99)
    found.scorer.model.config.get_text_config().max_position_embeddings = None
    assert len(found.scorer.raw_scores([reply_group((1,) * 50, (2,))], micro_tokens=99)) == 1


def test_what_is_computed_for_the_other_ranks_sake_is_no_score(opened, monkeypatch):
    told = []

    def in_step(sharded, parts, filler):
        told.append(filler)
        return [*((part, True) for part in parts), ([filler], False)]

    monkeypatch.setattr(scalar, "in_step", in_step)
    found = opened(w=described())
    assert len(found.scorer.raw_scores(GROUPS, micro_tokens=100)) == 3 and found.asked == [2, 1]
    assert told[0].tokens == 2


def test_a_head_that_reads_prompts_scores_no_replies():
    with pytest.raises(
        BadInput, match=r"w is a P\(IK\) head: it reads prompts and no replies; ask it by `evaluate hon"
    ):
        Scorer("w", role="knowledge", device=CPU)


# Normalisers and rules


def test_normalisers_are_one_for_all_heads_or_one_for_each():
    shared = described(heads=["a", "b"], normalizer=normalizer(0.3, 2.0))
    assert normalizers_of(shared) == {name: Normalizer("standard", 0.3, 2.0) for name in ("a", "b")}
    assert normalizers_of(TWO)["brief"] == Normalizer("standard", -0.4, 5.0)
    odd = described(heads=["kind", "b"], normalizer={"kind": normalizer(0.3, 2.0), "b": normalizer(0.1, 3.0)})
    assert normalizers_of(odd)["kind"] == Normalizer("standard", 0.3, 2.0)
    assert Normalizer("standard", 0.3, 2.0).as_json() == normalizer(0.3, 2.0)
    assert Normalizer() == Normalizer("none", 0.0, 1.0)


def test_rules_by_hand_on_three_columns():
    table = tensor([[1.0, 4.0, -2.0], [0.5, 0.25, 3.0]])
    names = ["a", "b", "c"]
    weights = Combination("mean", weights={"b": 3.0, "c": 0.5})
    assert combine(table, weights, names=names).tolist() == pytest.approx([12 / 4.5, 2.75 / 4.5])
    assert combine(table, Combination()).tolist() == pytest.approx([1.0, 1.25])
    assert combine(table, Combination("worst")).tolist() == [-2.0, 0.25]
    assert combine(table, Combination("worst"), higher_is_better=False).tolist() == [4.0, 3.0]
    spread = [(0 + 9 + 9) / 3, (0.75**2 + 1 + 1.75**2) / 3]
    for better, sign in ((True, -1), (False, 1)):
        found = combine(table, Combination("variance", 0.3), higher_is_better=better)
        assert found.tolist() == pytest.approx([1.0 + sign * 0.3 * spread[0], 1.25 + sign * 0.3 * spread[1]])
    assert Combination("mean", 0.5, {"b": 3.0}).as_json() == {"rule": "mean", "weight": 0.5, "weights": {"b": 3.0}}
    assert Combination() == Combination("mean", 0.0, {})


def test_mean_weights_are_summed_in_f32_and_what_is_no_weight_is_the_firsts():
    states = [{"w": tensor([x, 2.0], dtype=torch.bfloat16), "n": tensor(k)} for k, x in enumerate((256.0, 1.0, 1.0))]
    found = mean_weights(states)
    assert found["w"].dtype == torch.bfloat16 and found["w"].tolist() == [86.0, 2.0] and found["n"] == 0


# Models themselves


def test_a_fresh_head_is_drawn_by_the_seed_with_the_deviation_of_a_unit_score(snapshots):
    model = new_scalar(str(snapshots / "policy"), ["helpful", "brief"], 4)
    torch.manual_seed(4)
    width = model.config.hidden_size
    assert torch.equal(model.score.weight, torch.empty(2, width).normal_(std=1 / math.sqrt(width + 1)))
    assert (model.num_labels, model.config.num_labels) == (2, 2)
    assert model.config.id2label == {0: "helpful", 1: "brief"} and model.config.label2id == {"helpful": 0, "brief": 1}
    assert new_scalar(str(snapshots / "policy"), "helpful", 4).config.id2label == {0: "helpful"}


def test_training_starts_from_the_same_head_or_draws_another_on_the_trunk(snapshots):
    where = str(snapshots / "reward")
    old = load_scalar(where, role="preference")
    same = start_scalar(where, ["helpful"], role="preference", seed=9)
    assert torch.equal(same.score.weight, old.score.weight) and all(p.requires_grad for p in same.parameters())
    for heads, role in ((["helpful"], "cost"), (["brief"], "preference"), (["helpful", "brief"], "preference")):
        model = start_scalar(where, heads, role=role, seed=9)
        torch.manual_seed(9)
        drawn = torch.empty(len(heads), model.config.hidden_size).normal_(
            std=1 / math.sqrt(model.config.hidden_size + 1)
        )
        assert torch.equal(model.score.weight, drawn) and model.score.bias is None
        assert (model.num_labels, model.config.id2label) == (len(heads), dict(enumerate(heads)))
        trunk, before = model.base_model.state_dict(), old.base_model.state_dict()
        assert all(torch.equal(trunk[name], before[name]) for name in before)
    fresh = start_scalar(str(snapshots / "policy"), ["helpful"], role="preference", seed=9)
    assert torch.equal(fresh.score.weight, new_scalar(str(snapshots / "policy"), ["helpful"], 9).score.weight)


@pytest.mark.parametrize("trained", [True, False])
def test_a_critic_keeps_one_head_of_several(snapshots, trained):
    model = new_scalar(str(snapshots / "policy"), ["a", "b", "c"], 4).requires_grad_(trained)
    weight = model.score.weight
    assert keep_head(model, 1) is model and model.score.weight.shape == (1, weight.shape[1])
    assert model.score.out_features == 1
    assert torch.equal(model.score.weight[0], weight[1]) and model.score.weight.requires_grad is trained
    assert model.score.weight.data_ptr() != weight[1].data_ptr() and model.score.bias is None
    only = new_scalar(str(snapshots / "policy"), "a", 4)
    before = only.score
    assert keep_head(only, 0).score is before


def test_head_scores_and_features_are_read_at_the_last_token_of_every_reply(snapshots):
    scorer = Scorer(str(snapshots / "reward"), role="preference", device=CPU)
    hidden = hidden_states(scorer.model, pack(GROUPS, rows="last")).detach()
    for cut in (3, 100):
        assert torch.allclose(scorer.features(GROUPS, micro_tokens=cut), hidden, atol=1e-5)
    assert not scorer.features(GROUPS, micro_tokens=100).requires_grad
    found = head_scores(scorer.model, GROUPS, CPU)
    assert found.shape == (3, 1) and torch.allclose(found, hidden @ scorer.model.score.weight.T, atol=1e-5)
    two = new_scalar(str(snapshots / "policy"), ["a", "b"], 4)
    assert head_scores(two, GROUPS[1:], CPU).shape == (1, 2)
    assert load_policy(str(snapshots / "policy")).training is False
