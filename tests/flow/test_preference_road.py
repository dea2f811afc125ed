"""Preference models from every kind of label: the shared prefix, heads, ensembles, noise, and what is refused."""

import json
import math
import random

import pytest
import torch

from accord.disk import read_json, read_lines
from accord.engine.packing import Group, pack, reply_group
from accord.errors import BadInput
from accord.models.ensemble import Combination, combine, mean_weights
from accord.models.learner import PreferenceLearner
from accord.models.loading import load_scalar
from accord.models.places import describe
from accord.models.scalar import Scorer, new_scalar, start_scalar, values
from accord.parsing import parse
from accord.records import Comparison, Judgement, Prompt, Turn, unit_hash
from accord.stages.preference.items import (
    Label,
    PreferenceData,
    PreferenceItem,
    binarised,
    comparison_items,
    in_half,
    judgement_item,
)
from accord.stages.preference.loss import item_loss, totals
from accord.stages.preference.noise import reverse, support, turned_round
from accord.stages.shared import criteria_of, group_of

CPU = torch.device("cpu")
WORDS = ["the", "cat", "dog", "runs", "sees", "a", "red", "blue", "small", "big", "stone", "river"]


def words(generator, count):
    return " ".join(generator.choice(WORDS) for _ in range(count))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config_of(commands, **changes):
    line = commands.line("preference", "unused", **changes)
    return parse("preference", line[1:])


def ranked(renderer, prompt="why", texts=("the cat", "a dog", "a red stone"), ranks=(2, 1, 3), **more):
    ids = renderer.prompt_ids((Turn("user", prompt),))
    group = reply_group(ids, *(renderer.reply_ids(t) for t in texts))
    prompt = Prompt((Turn("user", prompt),), "", "by hand")
    return PreferenceItem(prompt, texts, group, ranks, head="helpful", labeler="human", **more)


def learner_of(snapshots, heads=("helpful",), labelers=("human",), **more):
    return PreferenceLearner(new_scalar(str(snapshots / "policy"), heads, 3), heads, labelers, tie_rate=0.1, **more)


def gradient(learner):
    return {n: p.grad.clone() for n, p in learner.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "changes", [{}, {"ranking": "plackett-luce"}, {"ties": "davidson"}, {"centring_weight": 0.1}, {"reliability": True}]
)
def test_a_shared_prompt_gives_the_loss_and_gradient_of_the_plain_path(commands, snapshots, renderer, changes):
    """K replies after one copy of their prompt, against each reply after its own copy (padded batches of one text)."""
    config = config_of(commands, **{k: str(v).lower() if v is True else v for k, v in changes.items()})
    items = [
        ranked(renderer, ranks=(2, 1, 2) if changes.get("ties") else (2, 1, 3)),
        ranked(renderer, "how me help please", ("salt", "the big river runs", "a", "blue dog"), (4, 3, 2, 1)),
    ]
    results = []
    for shared in (True, False):
        learner = learner_of(snapshots)
        if not shared:
            plain = {}
            for item in items:
                for ids in item.group.replies:
                    text = torch.tensor([[*item.group.prefix, *ids]])
                    hidden = learner.scorer.base_model(input_ids=text).last_hidden_state[0, -1]
                    plain.setdefault(id(item), []).append(learner.scorer.score(hidden))
            table = torch.cat([torch.stack(plain[id(item)]) for item in items])
            learner.scores = lambda packing, table=table: table
        loss, _ = item_loss(learner, items, totals(items), config, CPU)
        loss.backward()
        results.append((loss.item(), gradient(learner)))
    (loss, mine), (other, theirs) = results
    assert loss == pytest.approx(other, abs=1e-5)
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert torch.allclose(mine[name], theirs[name], atol=1e-5), name


def test_labels_weigh_their_severity_and_their_criterion(commands, renderer):
    """1 + --severity_weight times the severity of an unsafe reply, and every label as much as its criterion does."""
    config = config_of(commands, role="cost", criterion="harmless", severity_weight=2.0, **{"safety_data": "x"})
    config = config.model_copy(update={"criterion_weights": {"harmless": 3.0}})
    prompt = Prompt((Turn("user", "why"),), "", "by hand")

    def item(kind, value, severity):
        said = Judgement(prompt, "the cat", "harmless", kind, value, "human", "", severity)
        return judgement_item(renderer, said, config, (0.0, 1.0))

    unsafe, safe, rated = item("safe", 0.0, 0.5), item("safe", 1.0, 0.5), item("rating", 0.7, 0.5)
    assert [found.labels[0].weight for found in (unsafe, safe, rated)] == [2.0, 1.0, 1.0]
    whole = totals([unsafe, safe, rated])
    assert (whole.signed, whole.rated) == (3 * 2.0 + 3 * 1.0, 3 * 1.0)


def test_the_prompt_of_a_ranking_is_computed_once(renderer):
    item = ranked(renderer)
    packing = pack([item.group], rows="last")
    assert len(packing.ids) == len(item.group.prefix) + sum(map(len, item.group.replies))


def test_pairs_of_one_prompt_in_one_element_weigh_one(commands, snapshots, renderer):
    """InstructGPT eq. 1 by hand: the mean over C(3, 2) pairs, then over prompts."""
    config = config_of(commands, score_weight=0)
    items = [ranked(renderer), ranked(renderer, "how", ("salt", "stone"), (1, 2))]
    learner = learner_of(snapshots)
    loss, metrics = item_loss(learner, items, totals(items), config, CPU)
    s = values(learner.scorer, pack([i.group for i in items], rows="last")).tolist()

    def term(i, j):
        return math.log1p(math.exp(s[j] - s[i]))

    assert loss.item() == pytest.approx(((term(1, 0) + term(1, 2) + term(0, 2)) / 3 + term(3, 4)) / 2, abs=1e-5)
    assert metrics["margin"].item() == pytest.approx(
        ((s[1] - s[0] + s[1] - s[2] + s[0] - s[2]) / 3 + s[3] - s[4]) / 2, abs=1e-5
    )


def test_ordered_and_tied_pairs_of_one_prompt_weigh_its_weight_together(commands, snapshots, renderer):
    """Davidson by hand, ν = 2τ / (1 − τ): two ordered pairs and a tie of the first prompt, one pair of the second."""
    config = config_of(commands, ties="davidson", score_weight=0)
    items = [ranked(renderer, ranks=(2, 1, 2), weight=3.0), ranked(renderer, "how", ("salt", "stone"), (1, 2))]
    learner = learner_of(snapshots)
    loss, _ = item_loss(learner, items, totals(items), config, CPU)
    s = values(learner.scorer, pack([i.group for i in items], rows="last")).tolist()
    nu = learner.log_ties[0].exp().item()
    assert nu == pytest.approx(2 * 0.1 / 0.9)

    def term(i, j, *, tied=False):
        first, second = math.exp(s[i]), math.exp(s[j])
        middle = nu * math.sqrt(first * second)
        return -math.log((middle if tied else first) / (first + second + middle))

    expected = 3 * (term(1, 0) + term(1, 2) + term(0, 2, tied=True)) / 3 + term(3, 4)
    assert loss.item() == pytest.approx(expected / totals(items).ranked, abs=1e-5)


@pytest.mark.parametrize("changes", [{}, {"ties": "davidson"}, {"ranking": "plackett-luce"}, {"lm_weight": 0.5}])
def test_c15_every_term_sums_over_micro_batches(commands, snapshots, renderer, changes):
    config = config_of(commands, label_weight=0.7, centring_weight=0.1, **changes)
    one = ranked(renderer, "a", ("salt",), (), labels=(Label(0, "below", 0.0, 2.0),), weight=0.5)
    two = ranked(renderer, "the", ("salt cat",), (), labels=(Label(0, "rating", 0.4, 1.0),))
    tied = (1, 1, 2) if changes.get("ties") else (1, 3, 2)
    items = [ranked(renderer), one, ranked(renderer, "how", ranks=tied, probability=1.0), two]
    learner = learner_of(snapshots, start=str(snapshots / "policy") if "lm_weight" in changes else "")
    whole = totals(items)
    loss, metrics = item_loss(learner, items, whole, config, CPU)
    parts = [item_loss(learner, [item], whole, config, CPU) for item in items]
    assert loss.item() == pytest.approx(sum(part.item() for part, _ in parts), abs=1e-5)
    for name, value in metrics.items():
        assert value.item() == pytest.approx(sum(float(m.get(name, 0)) for _, m in parts), abs=1e-5), name
    assert {"loss/ranking", "loss/label", "loss/rating", "loss/centring", "accuracy_label"} <= metrics.keys()


def test_the_language_model_term_is_the_policys_own_loss_and_trains_the_trunk(commands, snapshots, renderer):
    from accord.engine.forward.causal import token_logprobs
    from accord.models.loading import load_policy

    learner = learner_of(snapshots, start=str(snapshots / "policy"))
    items = [ranked(renderer)]
    config = config_of(commands, lm_weight=1.0)
    _, metrics = item_loss(learner, items, totals(items), config, CPU)
    best = reply_group(items[0].group.prefix, items[0].group.replies[1])
    expected = -token_logprobs(load_policy(str(snapshots / "policy")), pack([best])).mean()
    assert metrics["loss/lm"].item() == pytest.approx(expected.item(), abs=1e-5)
    metrics_after = learner.token_logprobs(pack([best])).sum()
    metrics_after.backward()
    assert learner.scorer.base_model.layers[0].self_attn.q_proj.weight.grad.abs().sum() > 0
    assert learner.language.lm_head.weight is learner.scorer.base_model.embed_tokens.weight


# One run, every kind of label


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Files of every kind, in which a reply is the better the more cats it has; two groups disagree about dogs."""
    root = tmp_path_factory.mktemp("everything")
    generator = random.Random(5)
    prompts = [words(generator, 4) + f" {i}" for i in range(90)]
    good = lambda: "the cat " + words(generator, 3)  # noqa: E731
    bad = lambda: "a stone " + words(generator, 3)  # noqa: E731
    write(root / "pairs.jsonl", [{"prompt": p, "chosen": good(), "rejected": bad(), "margin": 1} for p in prompts])
    said = [{"probability": 0.9}, {"tie": True}, {"tie": True, "all_bad": True}, {"all_bad": True}, {}]
    soft = [{"prompt": p, "chosen": good(), "rejected": bad(), **said[i % 5]} for i, p in enumerate(prompts)]
    write(root / "said.jsonl", soft)
    write(
        root / "rankings.jsonl", [{"prompt": p, "responses": [bad(), good(), "a"], "ranks": [2, 1, 2]} for p in prompts]
    )
    write(root / "ratings.jsonl", [{"prompt": p, "completion": good(), "rating": 4} for p in prompts[:40]]
          + [{"prompt": p, "completion": bad(), "rating": 1} for p in prompts[40:]])  # fmt: skip
    write(root / "labels.jsonl", [{"prompt": p, "completion": bad(), "label": False} for p in prompts[:30]])
    write(root / "demonstrations.jsonl", [{"prompt": p, "completion": good()} for p in prompts])
    groups = []
    for i, p in enumerate(prompts):
        cats, dogs = "the cat " + words(generator, 2), "big dog " + words(generator, 2)
        for group, (x, y) in (("cats", (cats, dogs)), ("dogs", (dogs, cats))):
            groups.append({"prompt": p, "chosen": x, "rejected": y, "labeler": f"{group}:{i % 3}"})
    write(root / "groups.jsonl", groups)
    return root


def test_every_kind_of_label_is_learned_from_in_one_run(commands, everything, tmp_path):
    changes = {
        "data": None,
        "data.plain": everything / "pairs.jsonl",
        "data.said": everything / "said.jsonl",
        "data.ranked": everything / "rankings.jsonl",
        "unpaired_data.rated": everything / "ratings.jsonl",
        "unpaired_data.labelled": everything / "labels.jsonl",
        "weights.plain": 1,
        "weights.said": 2,
        "weights.ranked": 1,
        "demonstrations": everything / "demonstrations.jsonl",
        "ties": "davidson",
        "centring_weight": 0.01,
        "lm_weight": 0.1,
    }
    assert commands.run("preference", tmp_path / "run", epochs=3, learning_rate=1e-2, **changes) == 0
    last = read_lines(tmp_path / "run" / "metrics.jsonl")[-1]
    assert {"loss/ranking", "loss/label", "loss/rating", "loss/lm", "accuracy", "accuracy_label"} <= last.keys()
    assert read_json(tmp_path / "run" / "evaluation.json")["rows"][0]["accuracy"]["mean"] > 0.7
    learned = read_json(tmp_path / "run" / "learned.json")
    assert learned["ties"]["helpful"] > 0 and learned["rating"]["helpful"]["gain"] > 0
    report = read_json(tmp_path / "run" / "data" / "data.json")
    assert {part["name"]: part["used"] for part in report} == {"plain": 68, "said": 135, "ranked": 68}


def test_demonstrations_score_0_on_average_and_a_cost_refuses_them(commands, everything, tmp_path, renderer, capsys):
    data = {"data": everything / "pairs.jsonl", "demonstrations": everything / "demonstrations.jsonl"}
    assert commands.run("preference", tmp_path / "run", **data) == 0
    rows = [json.loads(line) for line in (everything / "demonstrations.jsonl").read_text().splitlines()]
    groups = [
        reply_group(renderer.prompt_ids((Turn("user", r["prompt"]),)), renderer.reply_ids(r["completion"]))
        for r in rows
    ]
    scorer = Scorer(str(tmp_path / "run" / "snapshot"), role="preference", device=CPU)
    assert scorer.scores(groups, micro_tokens=8192).mean().item() == pytest.approx(0, abs=1e-5)
    assert abs(scorer.raw_scores(groups, micro_tokens=8192).mean().item()) > 1e-4
    assert commands.run("cost", tmp_path / "cost", demonstrations=everything / "demonstrations.jsonl") == 2
    assert "--demonstrations would shift a cost" in capsys.readouterr().err


# Heads


def test_one_trunk_has_a_head_for_each_criterion_scored_in_one_forward(commands, everything, tmp_path, renderer):
    data = {
        "data": None,
        "criterion": "helpful,honest",
        "data.helpful-a": everything / "pairs.jsonl",
        "data.honest": everything / "groups.jsonl",
        "criterion_weights.honest": 0.5,
    }
    assert commands.run("preference", tmp_path / "run", epochs=2, **data) == 0
    where = str(tmp_path / "run" / "snapshot")
    described = describe(where)
    assert described["heads"] == ["helpful", "honest"] and set(described["normalizer"]) == {"helpful", "honest"}
    config = load_scalar(where, role="preference").config
    assert config.id2label == {0: "helpful", 1: "honest"} and config.label2id == {"helpful": 0, "honest": 1}
    calls = []
    scorer = Scorer(where, role="preference", device=CPU, head="honest")
    scorer.table([ranked(renderer).group], micro_tokens=100)  # the first call tries whether the model packs
    scorer.model.get_input_embeddings().register_forward_hook(lambda *_: calls.append(1))
    group = ranked(renderer).group
    table = scorer.table([group], micro_tokens=100)
    assert table.shape == (3, 1, 2) and len(calls) == 1
    for place, head in enumerate(described["heads"]):
        alone = Scorer(where, role="preference", device=CPU, head=head)
        assert torch.allclose(alone.raw_scores([group], micro_tokens=100), table[:, 0, place])
        shift, scale = (described["normalizer"][head][k] for k in ("shift", "scale"))
        assert torch.allclose(alone.scores([group], micro_tokens=100), (table[:, 0, place] - shift) / scale)


def test_ppo_reads_the_head_that_the_reward_is_called_after(commands, everything, tmp_path, capsys):
    data = {"data": everything / "pairs.jsonl", "criterion": "helpful,honest", "epochs": 1}
    assert commands.run("preference", tmp_path / "two", **data) == 0
    two = tmp_path / "two" / "snapshot"
    for critic in ("separate", "shared"):
        changes = {"rewards.honest": two, "rewards.helpful": None, "steps": 1, "batch_size": 4, "critic": critic}
        assert commands.run("ppo", tmp_path / critic, **changes) == 0
        assert "reward/honest" in read_lines(tmp_path / critic / "metrics.jsonl")[-1]
    capsys.readouterr()
    assert commands.run("ppo", tmp_path / "no", **{"rewards.helpful": None, "rewards.kind": two}) == 2
    assert "a head for each of helpful, honest" in capsys.readouterr().err


def test_groups_have_heads_that_disagree_and_are_combined(commands, everything, tmp_path, renderer):
    data = {"data": everything / "groups.jsonl", "by_group": "true", "combine": "worst"}
    assert commands.run("preference", tmp_path / "run", epochs=4, learning_rate=1e-2, **data) == 0
    where = str(tmp_path / "run" / "snapshot")
    prompt = renderer.prompt_ids((Turn("user", "red blue small big 7"),))
    group = reply_group(prompt, renderer.reply_ids("the cat runs a"), renderer.reply_ids("big dog runs a"))
    by = {
        head: Scorer(where, role="preference", device=CPU, head=head).raw_scores([group], micro_tokens=100)
        for head in ("cats", "dogs", "helpful")
    }
    assert by["cats"][0] > by["cats"][1] and by["dogs"][0] < by["dogs"][1]
    shifts = describe(where)["normalizer"]
    least = torch.minimum(by["cats"] - shifts["cats"]["shift"], by["dogs"] - shifts["dogs"]["shift"])
    assert torch.allclose(by["helpful"], least, atol=1e-6)


# Ensembles


def test_combinations_by_hand():
    table = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    assert combine(table, Combination()).tolist() == [2.0, 0.0]
    assert combine(table, Combination("worst")).tolist() == [1.0, 0.0]
    assert combine(table, Combination("worst"), higher_is_better=False).tolist() == [3.0, 0.0]
    assert combine(table, Combination("variance", 0.5)).tolist() == [1.5, 0.0]
    assert combine(table, Combination("variance", 0.5), higher_is_better=False).tolist() == [2.5, 0.0]
    weighted = Combination("mean", weights={"b": 3.0})
    assert combine(table, weighted, names=["a", "b"]).tolist() == [2.5, 0.0]


@pytest.mark.parametrize(
    "rule", [pytest.param("mean", marks=pytest.mark.slow), pytest.param("worst", marks=pytest.mark.slow), "variance"]
)
def test_an_ensemble_is_one_snapshot_that_ppo_takes_as_reward(commands, tmp_path, renderer, rule):
    changes = {"ensemble": 2, "combine": rule, **({"variance_weight": 2.0} if rule == "variance" else {})}
    assert commands.run("preference", tmp_path / "run", **changes) == 0
    where = tmp_path / "run" / "snapshot"
    scorer = Scorer(str(where), role="preference", device=CPU)
    assert len(scorer.models) == 2 and (where / "trained_prompts.txt").exists()
    group = ranked(renderer).group
    alone = [Scorer(str(w), role="preference", device=CPU) for w in (where / "members" / "1",)]
    first = describe(str(where))["normalizer"]
    raw = values(scorer.models[0], pack([group], rows="last")).detach() - first["shift"]
    other = alone[0].raw_scores([group], micro_tokens=100) - alone[0].normalizer.shift
    assert not torch.allclose(raw, other, atol=1e-4)
    expected = combine(torch.stack([raw, other], 1), Combination(rule, 2.0))
    assert torch.allclose(scorer.raw_scores([group], micro_tokens=100), expected, atol=1e-5)
    scale = (first["scale"] + alone[0].normalizer.scale) / 2
    assert torch.allclose(scorer.scores([group], micro_tokens=100), expected / scale, atol=1e-5)
    assert commands.run("ppo", tmp_path / "ppo", **{"rewards.helpful": where, "steps": 1}) == 0


def test_averaged_weights_are_one_ordinary_model(commands, tmp_path):
    assert commands.run("preference", tmp_path / "run", ensemble=2, combine="weights") == 0
    where = tmp_path / "run" / "snapshot"
    assert "ensemble" not in describe(str(where)) and not (where / "members").exists()
    from safetensors.torch import load_file

    mean = load_scalar(str(where), role="preference").score.weight
    heads = [
        load_file(tmp_path / "run" / "members" / str(k) / "weights" / "learner.safetensors")["scorer.score.weight"]
        for k in range(2)
    ]
    assert torch.allclose(mean, (heads[0] + heads[1]) / 2) and not torch.equal(heads[0], heads[1])
    start = new_scalar(str(commands.snapshots / "policy"), "helpful", 0).score.weight
    assert all((head - start).abs().max() < 0.1 for head in heads)  # WARM: the members share their first head


def test_mean_weights_by_hand():
    states = [
        {"a": torch.tensor([1.0, 3.0]), "n": torch.tensor(2)},
        {"a": torch.tensor([3.0, 3.0]), "n": torch.tensor(2)},
    ]
    assert mean_weights(states)["a"].tolist() == [2.0, 3.0] and mean_weights(states)["n"] == 2


RUNS = ("whole", "cut")


def test_a_stopped_ensemble_goes_on_and_ends_the_same(commands, tmp_path, stop_after):
    changes = {"ensemble": 2, "combine": "worst", "epochs": 1}
    assert commands.run("preference", tmp_path / "whole", **changes) == 0
    stop_after(2)
    assert commands.run("preference", tmp_path / "cut", **changes) == 1
    stop_after(10_000)
    assert commands.run("preference", tmp_path / "cut", resume="true", **changes) == 0
    for k in ("0", "1"):
        assert read_lines(tmp_path / "whole" / "members" / k / "metrics.jsonl")
        same_weights = [
            (tmp_path / run / "members" / k / "weights" / "learner.safetensors").read_bytes() for run in RUNS
        ]
        assert same_weights[0] == same_weights[1]
    whole, cut = (read_json(tmp_path / run / "evaluation.json") for run in RUNS)
    assert whole == cut


@pytest.fixture(scope="module")
def halves(commands, everything, tmp_path_factory):
    """A model of either half of the prompts: `train` and `test`."""
    root = tmp_path_factory.mktemp("halves")
    for half in ("train", "test"):
        changes = {"half": half, "data": everything / "pairs.jsonl", "epochs": 0.5}
        assert commands.run("preference", root / half, **changes) == 0
    return root


def test_halves_share_no_prompt(halves):
    found = [set((halves / h / "snapshot" / "trained_prompts.txt").read_text().split()) for h in ("train", "test")]
    assert found[0] and found[1] and not found[0] & found[1]
    prompt = Prompt((Turn("user", "why"),), "", "")
    assert in_half(prompt, "train") != in_half(prompt, "test") and in_half(prompt, "")


def test_a_policy_trained_on_one_half_is_watched_by_the_other(commands, halves, tmp_path):
    """The alarm of two models: the gap between what one half's model pays and what the other half's would."""
    watched = {
        "rewards.helpful": halves / "train" / "snapshot",
        "watch.other": halves / "test" / "snapshot",
        "alarms.watch/other/gap": "warn above -100",
    }
    assert commands.run("ppo", tmp_path / "ppo", steps=2, batch_size=4, mini_batch_size=4, **watched) == 0
    first, second = read_lines(tmp_path / "ppo" / "metrics.jsonl")
    assert first["watch/other/gap"] == pytest.approx(0.0, abs=1e-6) and second["watch/other/gap"] != 0
    assert first["watch/other/score"] != pytest.approx(first["reward/helpful"], abs=1e-3)
    assert [row["watch/alarms"] for row in (first, second)] == [1, 1]


# Preference-model pretraining


def test_binarised_pairs_are_askells(renderer):
    item = ranked(renderer, texts=("A", "B"), ranks=(2, 1))
    twins = binarised(renderer, item, (1, 0))
    assert [t.texts for t in twins] == [("good: B", "bad: B"), ("bad: A", "good: A")]
    assert all(t.ranks == (1, 2) for t in twins)
    assert twins[0].group.replies[0] == tuple(renderer.reply_ids("good: B"))


def test_a_pretrained_preference_model_goes_on_with_its_head(commands, everything, tmp_path):
    pretrain = {"data": everything / "pairs.jsonl", "binarise": "true", "epochs": 0.5}
    assert commands.run("preference", tmp_path / "pmp", **pretrain) == 0
    rows = read_json(tmp_path / "pmp" / "lineage.json")
    assert rows["comparisons"] == 180
    pmp = str(tmp_path / "pmp" / "snapshot")
    head = load_scalar(pmp, role="preference").score.weight
    assert torch.equal(start_scalar(pmp, ["helpful"], role="preference", seed=9).score.weight, head)
    other = start_scalar(pmp, ["honest"], role="preference", seed=9)
    assert not torch.equal(other.score.weight, head) and other.config.id2label == {0: "honest"}
    assert torch.equal(
        other.base_model.embed_tokens.weight, load_scalar(pmp, role="preference").base_model.embed_tokens.weight
    )
    for lora in (0, 2):
        assert commands.run("preference", tmp_path / f"tuned{lora}", model=pmp, epochs=0.5, lora_rank=lora) == 0
        Scorer(str(tmp_path / f"tuned{lora}" / "snapshot"), role="preference", device=CPU)
    again = {"model": str(tmp_path / "tuned2" / "snapshot"), "lora_rank": 2}
    assert commands.run("preference", tmp_path / "again", **again, epochs=0.5) == 0
    head = load_scalar(str(tmp_path / "tuned2" / "snapshot"), role="preference").score.weight
    assert torch.equal(start_scalar(again["model"], ["helpful"], role="preference", seed=9).score.weight, head)


# Noise


def test_flips_turn_their_share_round_and_nothing_held_out(commands, everything, tmp_path):
    generator = random.Random(0)
    prompts = [Prompt((Turn("user", str(i)),), "", "") for i in range(400)]
    none = Group((), (), ())
    items = [
        PreferenceItem(prompt, (words(generator, 3), "b"), none, (1, 2), head="h", labeler="x") for prompt in prompts
    ]
    turned = turned_round(items, 0.25, seed=1)
    share = sum(a.ranks != b.ranks for a, b in zip(items, turned, strict=True)) / 400
    assert share == pytest.approx(0.25, abs=0.06) and turned_round(items, 0.25, seed=1) == turned
    assert turned_round(items, 0.25, seed=2) != turned and reverse(turned[0]).texts == items[0].texts
    data = {"data": everything / "pairs.jsonl", "epochs": 4, "learning_rate": 1e-2}
    assert commands.run("preference", tmp_path / "run", flips=0.1, **data) == 0
    assert read_json(tmp_path / "run" / "evaluation.json")["rows"][0]["accuracy"]["mean"] > 0.85


def test_support_by_hand():
    item = PreferenceItem(Prompt((), "", ""), ("a", "b", "c"), Group((), (), ()), (1, 2, 2), head="h", labeler="x")
    expected = (1 / (1 + math.exp(-1)) + 1 / (1 + math.exp(1))) / 2
    assert support(item, [1.0, 0.0, 2.0]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "treatment", ["flip", pytest.param("soften", marks=pytest.mark.slow), pytest.param("drop", marks=pytest.mark.slow)]
)
def test_suspects_are_what_models_of_other_folds_reject(commands, everything, tmp_path, treatment):
    """A tenth of clean pairs is turned round; what is flagged is nearly all of it and little else."""
    rows = [json.loads(line) for line in (everything / "pairs.jsonl").read_text().splitlines()]
    wrong = {row["prompt"] for row in rows[::10]}
    for row in rows[::10]:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    data = {"data": write(tmp_path / "noisy.jsonl", rows), "epochs": 6, "learning_rate": 1e-2}
    noise = {"folds": 2, "suspects": treatment, "suspect_below": 0.3, "ensemble": 2 if treatment == "drop" else 1}
    assert commands.run("preference", tmp_path / "run", **data, **noise) == 0
    found = read_json(tmp_path / "run" / "suspects.json")
    assert found["treated"] == treatment and all(s["probability"] < 0.3 for s in found["suspects"])
    prompts = [Prompt((Turn("user", p),), "", "") for p in wrong]
    kept = {p.id for p in prompts if unit_hash(p.opening + "preference") >= 0.1}
    flagged = {s["prompt_id"] for s in found["suspects"]}
    assert len(flagged & kept) >= 0.6 * len(kept) > 2 and len(flagged - kept) <= 3
    folds = sorted(p.name for p in (tmp_path / "run" / "folds").iterdir())
    assert folds == (["0-0", "0-1", "1-0", "1-1"] if treatment == "drop" else ["0", "1"])


def test_reliabilities_are_learned_with_the_model(commands, everything, tmp_path):
    """Three labelers answer the same clean question; one of them answers it the wrong way round half of the time."""
    rows = [json.loads(line) for line in (everything / "pairs.jsonl").read_text().splitlines()]
    generator, out = random.Random(2), []
    for name, reliability in (("anna", 0.98), ("bert", 0.9), ("carl", 0.5)):
        for row in rows:
            sides = [row["chosen"], row["rejected"]]
            if generator.random() > reliability:
                sides.reverse()
            out.append({"prompt": row["prompt"], "chosen": sides[0], "rejected": sides[1], "labeler": name})
    data = {"data": write(tmp_path / "labelers.jsonl", out), "eval_share": 0.4, "reliability": "true"}
    assert commands.run("preference", tmp_path / "run", epochs=5, learning_rate=1e-2, **data) == 0
    found = read_json(tmp_path / "run" / "learned.json")["reliability"]
    assert found["carl"]["learned"] < found["bert"]["learned"] < found["anna"]["learned"] + 0.02
    assert found["carl"]["held_out"]["low"] < 0.5 + 0.15 and found["anna"]["held_out"]["low"] > 0.75


def test_names_of_groups_and_sources():
    assert group_of("simulated:cautious:3") == "simulated:cautious" and group_of("human") == "human"
    assert criteria_of("helpful-base", ["helpful", "honest"]) == ["helpful"]
    assert criteria_of("mine", ["helpful", "honest"]) == ["helpful", "honest"]


REFUSED = {
    "two models of answers": ({"ties": "davidson", "reliability": "true"}, ["--ties davidson and --reliability"]),
    "margin and luce": ({"ranking": "plackett-luce", "strength_margin": 1}, ["--strength_margin", "plackett-luce"]),
    "smoothed luce": ({"ranking": "plackett-luce", "label_smoothing": 0.1}, ["--label_smoothing"]),
    "two costs": ({"role": "cost", "criterion": "a,b"}, ["--role cost takes one"]),
    "a shifted cost": ({"role": "cost", "normalizer": "standard"}, ["--normalizer standard would shift"]),
    "nothing combined": ({"combine": "worst"}, ["--combine has no effect", "--ensemble"]),
    "one model averaged": ({"combine": "weights", "by_group": "true"}, ["--combine weights", "--ensemble"]),
    "adapters averaged": ({"combine": "weights", "ensemble": 2, "lora_rank": 2}, ["--lora_rank 0"]),
    "suspects without folds": ({"suspects": "flip"}, ["--suspects has no effect", "--folds"]),
    "no data": ({"data": None}, ["--data"]),
    "groups under two criteria": ({"by_group": "true", "criterion": "a,b"}, ["--by_group", "name one --criterion"]),
    "one group": ({"by_group": "true"}, ["--by_group", "one group"]),
    "a weight for nothing": ({"criterion": "a,b", "criterion_weights.x": 1}, ["--criterion_weights.x"]),
    "safety labels of a preference": ({"safety_data": "x.jsonl"}, ["--safety_data", "--unpaired_data"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_with_its_key(commands, tmp_path, capsys, name):
    changes, said = REFUSED[name]
    assert commands.run("preference", tmp_path / "run", **changes) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err and all(part in err for part in said), err


@pytest.mark.parametrize("probability", [1.0, 0.8])
def test_a_ranking_of_plackett_and_luce_has_no_probabilities(commands, renderer, probability):
    asked = Prompt((Turn("user", "why"),), "", "by hand")
    said = Comparison(asked, ("the cat", "a dog"), (1, 2), "helpful", "human", 0.0, (0, 1), probability)
    config = config_of(commands, ranking="plackett-luce")
    if probability == 1:
        assert [item.ranks for item in comparison_items(renderer, said, config)] == [(1, 2)]
    else:
        with pytest.raises(BadInput, match="use pairs"):
            comparison_items(renderer, said, config)


def test_the_tie_rate_is_the_share_of_pairs_that_tie(renderer):
    """Ranks 1, 2, 2: two pairs in order and one tie; 1, 2, 3: three pairs in order."""
    items = [ranked(renderer, ranks=(1, 2, 2)), ranked(renderer, ranks=(1, 2, 3))]
    assert PreferenceData(items, [], [], ["helpful"]).tie_rate == pytest.approx(1 / 6)
    assert PreferenceData(items[1:], [], [], ["helpful"]).tie_rate == 0.0
