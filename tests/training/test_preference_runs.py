"""Which models a preference run trains, on what and in which folder, and which labels it doubts; nothing is trained."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from accord.engine.packing import reply_group
from accord.errors import BadInput
from accord.models.learner import PreferenceLearner
from accord.records import Prompt, Turn, fold_of, unit_hash
from accord.run import Interrupted
from accord.stages.preference import run as stage
from accord.stages.preference.config import Preference
from accord.stages.preference.items import Label, PreferenceData, PreferenceItem
from accord.stages.preference.noise import reverse, support, turned_round, without_suspects
from accord.training.distributed import World
from accord.training.order import batch_indices

CPU = torch.device("cpu")
ONE = World(0, 1, CPU)


def item(number, replies=2, ranks=(1, 2), **more):
    prompt = Prompt((Turn("user", f"why {number}"),), "", "by hand")
    texts = tuple(f"r{k}" for k in range(replies))
    group = reply_group((5, number), *((7 + k,) * (1 + k) for k in range(replies)))
    return PreferenceItem(prompt, texts, group, ranks, **{"head": "helpful", "labeler": "ann"} | more)


def single(number):
    return item(number, 1, (), labels=(Label(0, "above", 0.0, 1.0),))


def config_of(tmp_path=None, **changes):
    out = str(tmp_path / "run") if tmp_path else "o"
    return Preference(**{"model": "start", "data": "d", "out": out, "seed": 3} | changes)


def data_of(items, labelled=()):
    return PreferenceData(list(items), list(labelled), [], ["helpful"])


# Noise


def test_what_is_turned_round_hangs_on_prompt_texts_head_and_seed():
    items = [item(k) for k in range(12)]
    keys = [f"{one.prompt.id}|r0|r1|helpful|flip 3" for one in items]
    turned = turned_round(items, 0.4, 3)
    expected = [(2, 1) if unit_hash(key) < 0.4 else (1, 2) for key in keys]
    assert {(1, 2), (2, 1)} == set(expected) and [one.ranks for one in turned] == expected
    assert turned_round(items, 0.0, 3) == items and turned_round(items, 0.0, 3) is not items


def test_the_opposite_order_keeps_ties():
    assert reverse(item(0, 4, (1, 3, 2, 3))).ranks == (3, 1, 2, 1)


def test_support_is_the_mean_chance_of_the_pairs():
    chances = [torch.tensor(d).sigmoid().item() for d in (0.7 - 0.1, 0.7 + 0.4)]
    assert support(item(0, 3, (2, 1, 2)), [0.1, 0.7, -0.4]) == pytest.approx(sum(chances) / 2)


@pytest.mark.parametrize("treated", ["flip", "soften", "drop"])
def test_suspects_are_below_the_bound_and_listed(treated):
    """Chances of 0.5, of ½ · (σ(−3) + σ(−4)) and of nothing, as it is a tie; the bound itself is no suspect."""
    written = {}
    items = [item(0), item(1, 3, (2, 1, 2)), item(2, 2, (1, 1))]
    config = config_of(folds=2, suspects=treated, suspect_below=0.1)
    run = SimpleNamespace(write_json=written.__setitem__)
    found = without_suspects(config, run, items, [[0.4, 0.4], [3.0, 0.0, 4.0], [0.0, 9.0]])
    chance = sum(torch.tensor([-3.0, -4.0]).sigmoid().tolist()) / 2
    assert [found[0], found[-1]] == [items[0], items[2]] and len(found) == (2 if treated == "drop" else 3)
    if treated == "flip":
        assert found[1].ranks == (1, 2, 1)
    elif treated == "soften":
        assert (found[1].ranks, found[1].probability) == ((2, 1, 2), pytest.approx(chance))
    assert written == {
        "suspects.json": {
            "treated": treated,
            "of": 3,
            "suspects": [
                {
                    "prompt_id": items[1].prompt.id,
                    "replies": ["r0", "r1", "r2"],
                    "ranks": [2, 1, 2],
                    "labeler": "ann",
                    "probability": pytest.approx(chance),
                }
            ],
        }
    }


def test_a_chance_at_the_bound_is_no_suspect():
    """σ(0) is ½ exactly; with 0.5 as the bound it stays."""
    config = config_of(folds=2, suspects="drop").model_copy(update={"suspect_below": 0.5})
    run = SimpleNamespace(write_json=lambda *_: None)
    assert without_suspects(config, run, [item(0)], [[0.4, 0.4]]) == [item(0)]


# Batches and scores


def test_an_epoch_passes_over_comparisons_and_beside_them_over_labels():
    items, labels = [item(k) for k in range(7)], [single(k) for k in range(5)]
    assert stage.batches(config_of(batch_size=3), data_of(items, labels)) == (items, labels, 3, 2)
    assert stage.batches(config_of(batch_size=2), data_of([], labels)) == (labels, [], 3, 0)


def linear(scale=1.0):
    """A learner whose score of a reply is a function of its ids, and what it was asked for."""
    learner = PreferenceLearner(nn.Linear(1, 1, bias=False), ["helpful", "brief"], ["ann"], tie_rate=0.1)
    asked = []

    def scores(packing):
        asked.append(packing.replies)
        last = packing.ids[packing.rows].float() * scale
        return torch.stack([last + packing.replies, -last], 1)

    learner.scores = scores
    return learner, asked


def test_items_are_scored_by_micro_batch_each_by_its_own_head():
    learner, asked = linear()
    items = [item(0), item(1, 3, (1, 2, 3), head="brief"), item(2)]
    found = stage.score_items(learner, items, 13, ONE)
    assert asked == [5, 2] and found == [[12.0, 13.0], [-7.0, -8.0, -9.0], [9.0, 10.0]]
    assert stage.score_items(learner, [], 13, ONE) == [] and asked == [5, 2]


# Which models


def test_every_fold_is_scored_by_the_others_and_models_are_averaged(monkeypatch, tmp_path):
    items, asked = [item(k, 2 + k % 2, (1, 2, 3)[: 2 + k % 2]) for k in range(9)], []
    assert {fold_of(one.prompt, 2) for one in items} == {0, 1}

    def scored(config, world, fold, number, outside, inside):
        asked.append((fold, number))
        assert {fold_of(one.prompt, 2) for one in inside} == {fold}
        assert [one for one in items if one not in inside] == outside.items
        return [[k + 0.5 + 3.0 * number for k in range(len(one.texts))] for one in inside]

    monkeypatch.setattr(stage, "fold_scores", scored)
    found = stage.cross_validate(config_of(folds=2, ensemble=2), ONE, data_of(items))
    assert asked == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert found == [[2.0, 3.0, 4.0][: len(one.texts)] for one in items]
    with pytest.raises(BadInput, match=r"--folds 2: fold [01] is empty; use fewer folds"):
        stage.cross_validate(config_of(folds=2), ONE, data_of([one for one in items if fold_of(one.prompt, 2) == 0]))


@pytest.fixture
def trained(monkeypatch):
    """What `train` was asked for; it returns a learner of the seed."""
    asked = []

    def train(run, world, config, data, held_out, *, seed, only_built=False):
        asked.append((run.path.as_posix(), config, seed, only_built))
        learner, _ = linear()
        with torch.no_grad():
            learner.scorer.weight.fill_(0.0 if only_built else 1.0 + config.seed)
        return learner

    monkeypatch.setattr(stage, "train", train)
    return asked


def test_one_model_is_trained_in_the_runs_own_folder(trained):
    run, config = SimpleNamespace(path=SimpleNamespace(as_posix=lambda: "here")), config_of()
    assert len(stage.train_members(run, ONE, config, data_of([item(0)]), [])) == 1
    assert trained == [("here", config, 3, False)]


@pytest.mark.parametrize("combine", ["worst", "weights"])
def test_members_are_trained_in_folders_of_their_own_from_seeds_one_apart(trained, tmp_path, combine):
    """Those whose weights are averaged draw one head; what is finished is read and not trained again."""
    config = config_of(tmp_path, ensemble=3, combine=combine, folds=2)
    for again in (False, True):
        config = config.model_copy(update={"resume": again})
        found = stage.train_members(None, ONE, config, data_of([item(0)]), [])
        weights = [learner.scorer.weight.item() for learner in found]
        assert weights == (pytest.approx([5.0]) if combine == "weights" else [4.0, 5.0, 6.0])
    folders = [f"{tmp_path.as_posix()}/run/members/{k}" for k in range(3)]
    assert [where for where, *_ in trained] == folders * 2
    assert [seed for _, _, seed, _ in trained] == ([3, 3, 3] if combine == "weights" else [3, 4, 5]) * 2
    assert [built for *_, built in trained] == [False] * 3 + [True] * 3
    for k, (_, part, *_) in enumerate(trained[:3]):
        assert (part.out, part.seed, part.folds, part.ensemble) == (folders[k], 3 + k, 0, 1)


def test_a_part_that_heard_what_was_meant_for_the_whole_ends_it():
    sub = SimpleNamespace(stop_requested=False, interrupted=lambda number, what: Interrupted(f"{what} {number}"))
    stage.end_if_asked(sub, ONE, 2, "member")
    sub.stop_requested = True
    with pytest.raises(Interrupted, match="member 2"):
        stage.end_if_asked(sub, ONE, 2, "member")


def test_members_and_folds_are_counted_from_1_where_one_is_stopped(trained, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(stage, "end_if_asked", lambda sub, world, number, what: told.append((number, what)))
    monkeypatch.setattr(stage, "score_items", lambda learner, items, micro_tokens, world: [[float(micro_tokens)]])
    config = config_of(tmp_path, ensemble=2, combine="worst")
    stage.train_members(None, ONE, config, data_of([item(0)]), [])
    stage.fold_scores(config, ONE, 4, 1, data_of([item(0)]), [item(1)])
    assert told == [(1, "member"), (2, "member"), (5, "fold")]


def test_a_fold_is_scored_once_and_read_again(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(
        stage, "score_items", lambda learner, items, micro_tokens, world: [[float(micro_tokens)], [2.5]]
    )
    for number, more, name in ((0, {}, "4"), (1, {"ensemble": 2, "combine": "worst"}, "4-1")):
        trained.clear()
        for again in (False, True):
            config = config_of(tmp_path, folds=5, micro_tokens=7, resume=again, **more)
            assert stage.fold_scores(config, ONE, 4, number, data_of([item(0)]), [item(1)]) == [[7.0], [2.5]]
        ((where, part, seed, built),) = trained
        assert where == f"{tmp_path.as_posix()}/run/folds/{name}" == part.out and not built
        assert (seed, part.seed, part.folds, part.ensemble) == (3 + number, 3 + number, 0, 1)
    assert json.loads((tmp_path / "run" / "folds" / "4" / "scores.json").read_text()) == [[7.0], [2.5]]


# Training and what it is told


@pytest.fixture
def fitted(monkeypatch):
    """What `fit` is given; nothing is trained."""
    given = {}

    def fit(run, world, config, *, module, **more):
        given.update(more, module=module)
        return module

    for name in ("lower_frozen", "unround"):
        monkeypatch.setattr(stage, name, lambda *asked, name=name: given.__setitem__(name, asked))
    monkeypatch.setattr(
        stage, "new_learner", lambda config, world, data, seed: (given.update(seed=seed), linear()[0])[1]
    )
    monkeypatch.setattr(stage, "fit", fit)
    return given


def test_a_step_takes_comparisons_and_its_part_of_the_labels(fitted):
    items, labels = [item(k) for k in range(7)], [single(k) for k in range(5)]
    config = config_of(batch_size=3, epochs=1.5)
    learner = stage.train(None, ONE, config, data_of(items, labels), [item(0), item(1)], seed=8)
    assert fitted["seed"] == 8 and fitted["steps"] == 5 and fitted["module"] is learner
    assert fitted["size"](items[0]) == items[0].group.tokens == 5 and fitted["totals"] is stage.totals
    for step in (0, 2, 4):
        expected = [items[i] for i in batch_indices(step, 7, 3, 3)] + [labels[i] for i in batch_indices(step, 5, 2, 4)]
        assert fitted["batch_at"](step) == expected
    assert fitted["lower_frozen"] == ([learner.scorer], "auto", 0) and fitted["unround"] == (learner.scorer,)
    # the second reply has the higher score, and the first is the better one
    assert fitted["evaluate"]() == {"eval/accuracy": 0.0}
    whole = stage.totals(items)
    loss, metrics = fitted["loss"](items, whole)
    assert torch.equal(loss, stage.item_loss(learner, items, whole, config, CPU)[0]) and metrics["accuracy"] == 0.0


def test_without_comparisons_labels_are_the_epoch_and_nothing_is_measured(fitted):
    labels = [single(k) for k in range(5)]
    config = config_of(batch_size=2, epochs=2, data={}, unpaired_data="x")
    stage.train(None, ONE, config, data_of([], labels), [], seed=8)
    assert fitted["steps"] == 6 and fitted["evaluate"]() == {}
    assert fitted["batch_at"](1) == [labels[i] for i in batch_indices(1, 5, 2, 3)]


def test_what_is_only_built_is_not_trained(fitted):
    stage.train(None, ONE, config_of(), data_of([item(0)]), [], seed=8, only_built=True)
    assert fitted == {"seed": 8}


def test_a_new_learner_starts_from_the_model_with_the_heads_and_adapters_of_the_run(monkeypatch):
    asked = []
    monkeypatch.setattr(stage, "start_scalar", lambda *given, **more: asked.append((given, more)) or nn.Linear(1, 1))
    monkeypatch.setattr(stage, "add_adapters", lambda model, *given, **more: asked.append((given, more)) or model)
    monkeypatch.setattr(
        stage, "PreferenceLearner", lambda *given, **more: asked.append((given[1:], more)) or nn.Linear(1, 1)
    )
    data = data_of([item(0, 3, (1, 1, 2))])
    config = config_of(lm_weight=0.5)
    stage.new_learner(config, ONE, data, 8)
    assert asked == [
        (("start", ["helpful"]), {"role": "preference", "seed": 8}),
        ((config,), {"scalar": True, "seed": 3}),
        ((["helpful"], ["ann"]), {"tie_rate": pytest.approx(1 / 3), "start": "start"}),
    ]
    stage.new_learner(config_of(), ONE, data, 8)
    assert asked[-1][1]["start"] == ""


@pytest.mark.parametrize("lm_weight", [0.0, 0.5])
def test_the_machine_is_measured_on_the_largest_batch_of_each_kind(monkeypatch, lm_weight):
    """Of a batch of two comparisons and one label: the longest of either kind."""
    learner, _ = linear()
    learner.token_logprobs = lambda packing: -0.01 * packing.targets
    asked = []
    monkeypatch.setattr(stage, "new_learner", lambda config, world, data, seed: (asked.append(seed), learner)[1])
    monkeypatch.setattr(stage, "settle", lambda *given: given)
    items = [item(0), item(1, 4, (1, 2, 3, 4)), item(2, 3, (1, 2, 3)), item(3)]
    config = config_of(batch_size=2, lm_weight=lm_weight)
    settled, run, world, models, largest, compute = stage.settle_learner(
        config, "run", ONE, data_of(items, [single(4), item(5, 2, ()), single(6)])
    )
    assert (settled, run, world, models, asked) == (config, "run", ONE, [learner], [3])
    assert largest == [items[1].group, items[2].group, item(5).group, single(4).group]
    groups = [items[0].group]
    # last ids 7 and 8 of two replies by the first head, and the same less by the second; every id but the prompt's
    assert compute(groups, "f32").item() == pytest.approx(4.0 - (0.01 * (7 + 8 + 8) if lm_weight else 0.0))
