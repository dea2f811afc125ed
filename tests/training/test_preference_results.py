"""What a preference run says of its models, by hand on scores that are functions of the ids."""

import contextlib
import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from accord.engine.packing import reply_group
from accord.evaluation.annotators import reliability_interval
from accord.evaluation.calibration import fit_temperature
from accord.models.learner import PreferenceLearner
from accord.models.scalar import Normalizer
from accord.records import Prompt, Turn
from accord.stages.preference import results
from accord.stages.preference.config import Preference
from accord.stages.preference.items import Label, PreferenceData, PreferenceItem
from accord.training.distributed import World

CPU = torch.device("cpu")
ONE = World(0, 1, CPU)
WORDS = ("why", "how", "what", "who", "when", "where")
PROMPTS = [Prompt((Turn("user", word),), word[0], "by hand") for word in WORDS]
HEADS = ("helpful", "brief")


def item(number, texts=("salt", "a dog"), ranks=(1, 2), head="helpful", labeler="ann", **more):
    group = reply_group((5, number), *((7 + 3 * k + number, 8) for k in range(len(texts))))
    return PreferenceItem(PROMPTS[number], texts, group, ranks, head=head, labeler=labeler, **more)


def single(number, kind="above", value=0.0, **more):
    return item(number, ("salt",), (), labels=(Label(0, kind, value, 1.0),), **more)


def config_of(**changes):
    return Preference(**{"model": "start", "data": "d", "out": "o", "micro_tokens": 12, "seed": 3} | changes)


def both_heads(groups):
    """Two scores of every reply, of which each depends on prompt and reply."""
    rows = [
        (0.1 * sum(reply) + group.prefix[1], 0.3 * group.prefix[1] ** 2 - 0.2 * reply[0])
        for group, reply in flat(groups)
    ]
    return torch.tensor(rows).reshape(-1, 2)


def flat(groups):
    return [(group, reply) for group in groups for reply in group.replies]


@pytest.fixture
def learner(monkeypatch):
    """A learner whose two heads are `both_heads`."""
    made = PreferenceLearner(nn.Linear(1, 1), HEADS, ["ann", "bob"], tie_rate=0.2)

    def scores(model, groups, device):
        assert model is made.scorer and device == CPU
        return both_heads(groups)

    monkeypatch.setattr(results, "head_scores", scores)
    return made


@pytest.fixture
def opened(monkeypatch):
    """Which saved models are opened, each read as `both_heads`."""
    seen = []

    class Opened:
        def __init__(self, where, *, role, device, head=""):
            seen.append((where, role, device, head))
            self.head = HEADS.index(head) if head else 0

        def raw_scores(self, groups, *, micro_tokens):
            assert micro_tokens == 12 and sum(group.tokens for group in groups) <= 12
            return both_heads(groups)[:, self.head]

    monkeypatch.setattr(results, "Scorer", Opened)
    return seen


# Normalisers


def kept_of(**more):
    items = [item(0), item(1, head="brief"), item(2, ("salt", "a", "dog"), (1, 2, 3)), item(3, head="brief")]
    return PreferenceData(
        items, [single(4), single(5, head="brief")], **{"demonstrations": [], "heads": list(HEADS)} | more
    )


def raw_of(kept, head):
    groups = [one.group for one in [*kept.items, *kept.labelled] if one.head == head]
    return both_heads(groups)[:, HEADS.index(head)].double()


@pytest.mark.parametrize("head", HEADS)
def test_a_heads_own_replies_have_mean_0_and_deviation_1(learner, head):
    raw = raw_of(kept_of(), head)
    found = results.fit_normalizer(config_of(), ONE, learner, kept_of(), head)
    assert found.kind == "standard" and len(raw) == (6 if head == "helpful" else 5)
    assert (found.shift, found.scale) == pytest.approx((raw.mean().item(), raw.std(correction=1).item()), rel=1e-5)


def test_demonstrations_give_the_shift_and_nothing_else(learner):
    shown = [reply_group((5, 1), (9,)), reply_group((5, 4), (3, 4, 6))]
    kept = kept_of(demonstrations=shown)
    mean = both_heads(shown)[:, 1].mean().item()
    found = results.fit_normalizer(config_of(demonstrations="x"), ONE, learner, kept, "brief")
    assert (found.shift, found.scale) == pytest.approx((mean, raw_of(kept, "brief").std().item()), rel=1e-5)
    found = results.fit_normalizer(config_of(demonstrations="x", normalizer="none"), ONE, learner, kept, "brief")
    assert (found.kind, found.shift, found.scale) == ("standard", pytest.approx(mean), 1.0)


def test_without_demonstrations_none_is_no_normaliser_and_a_cost_is_squashed(learner):
    assert results.fit_normalizer(config_of(normalizer="none"), ONE, learner, kept_of(), "brief") == Normalizer("none")
    for named in ("auto", "sign-probability"):
        config = config_of(role="cost", normalizer=named)
        assert results.fit_normalizer(config, ONE, learner, kept_of(), "helpful") == Normalizer("sign-probability")
    config = config_of(role="cost", normalizer="none")
    assert results.fit_normalizer(config, ONE, learner, kept_of(), "helpful") == Normalizer("none")


def test_scores_that_are_all_the_same_are_divided_by_a_millionth(learner, monkeypatch):
    monkeypatch.setattr(results, "head_scores", lambda model, groups, device: torch.full((len(flat(groups)), 2), 0.5))
    found = results.fit_normalizer(config_of(), ONE, learner, kept_of(), "helpful")
    assert (found.shift, found.scale) == (0.5, pytest.approx(1e-6))


def test_a_sample_is_at_most_512_and_a_function_of_the_seed():
    assert results.SAMPLED == 512
    assert results.sample_of(0, 1) == [] and results.sample_of(5, 1) == [0, 1, 2, 3, 4]
    found = results.sample_of(600, 1)
    assert len(set(found)) == 512 and found == sorted(found) and found[-1] < 600
    assert found == results.sample_of(600, 1) and found != results.sample_of(600, 2)


def test_a_sample_of_demonstrations_and_of_items_is_drawn_where_there_are_more(learner, monkeypatch):
    monkeypatch.setattr(results, "SAMPLED", 2)
    kept = kept_of(demonstrations=[reply_group((5, k), (9 + k,)) for k in range(4)])
    own = [one for one in [*kept.items, *kept.labelled] if one.head == "helpful"]
    some = [own[i].group for i in results.sample_of(3, 3)]
    assert len(some) == 2 and results.training_sample(own, 3) == some
    found = results.fit_normalizer(config_of(demonstrations="x"), ONE, learner, kept, "helpful")
    shown = both_heads([kept.demonstrations[i] for i in results.sample_of(4, 3)])[:, 0]
    assert len(shown) == 2 and found.shift == pytest.approx(shown.mean().item())
    assert found.scale == pytest.approx(both_heads(some)[:, 0].std().item())


# What is scored


def test_scores_come_in_micro_batches_with_progress_and_of_nothing_too(monkeypatch):
    told, asked = [], []

    class Told:
        def __init__(self, *given, **more):
            told.append((given, more))

        def update(self, *given):
            told.append(given)

    monkeypatch.setattr(results, "Progress", Told)
    groups = [one.group for one in kept_of().items]

    def score(part):
        assert not torch.is_grad_enabled()
        asked.append(len(part))
        return both_heads(part)

    found = results.scored(score, groups, config_of(), ONE)
    assert torch.equal(found, both_heads(groups)) and asked == [2, 1, 1]
    more = {"unit": "text", "quiet": False}
    assert told == [(("scores", 4), more), (2, {}), (3, {}), (4, {})]
    assert results.scored(score, [], config_of(), World(1, 2, CPU)).shape == (0, 2) and asked[-1] == 0
    assert told[4:] == [(("scores", 0), {"unit": "text", "quiet": True}), (0, {})]


def test_saved_scores_are_each_of_its_own_head_in_the_order_of_the_items(opened):
    items = [item(1, head="brief"), item(0), item(2, ("a", "b", "c"), (1, 2, 3), head="brief")]
    found = results.saved_scores(config_of(role="cost"), ONE, "where", HEADS, items)
    expected = [both_heads([one.group])[:, HEADS.index(one.head)].tolist() for one in items]
    assert [pytest.approx(part) for part in expected] == found and [len(part) for part in found] == [2, 2, 3]
    assert opened == [("where", "cost", CPU, "helpful"), ("where", "cost", CPU, "brief")]


def test_a_cost_is_measured_on_what_was_learned_and_on_single_labels_that_were_not(opened, monkeypatch):
    asked = []

    def calibrated(*given, **more):
        asked.append((given, more))
        return SimpleNamespace(
            n=3, temperature=0.7, relative_error=0.1, ece_before=0.2, ece=0.1, json=lambda: {"temperature": 0.7}
        )

    monkeypatch.setattr(results, "calibrate_safety", calibrated)
    unseen = PreferenceData([], [single(1), item(2, labels=(Label(0, "above", 0.0, 1.0),)), single(3, "below")], [], [])
    config = config_of(role="cost", label_flips=0.1, safety_data="x")
    found = results.measure_cost(config, ONE, "where", kept_of(), unseen)
    learned = both_heads([one.group for one in [*kept_of().items, *kept_of().labelled]])[:, 0]
    assert found == {"deviation": pytest.approx(learned.std().item()), "calibration": {"temperature": 0.7}}
    ((costs, unsafe, prompts),) = [given for given, _ in asked]
    assert costs.tolist() == both_heads([single(1).group, single(3).group])[:, 0].tolist()
    assert unsafe == [1.0, 0.0] and prompts == [PROMPTS[1].id, PROMPTS[3].id] and asked[0][1] == {"flips": 0.1}
    assert opened == [("where", "cost", CPU, "")]
    monkeypatch.setattr(results, "calibrate_safety", lambda *_, **__: None)
    assert results.measure_cost(config, ONE, "where", kept_of(), unseen) == {"deviation": found["deviation"]}
    monkeypatch.setattr(results, "scored", lambda score, groups, *more: torch.full((len(flat(groups)),), 0.5))
    found = results.measure_cost(config, ONE, "where", kept_of(), unseen)
    assert found["deviation"] == pytest.approx(1e-6)


# What is said of the models


def test_the_description_of_a_model_names_its_heads_where_they_are_several(learner):
    normalizers = {head: results.fit_normalizer(config_of(), ONE, learner, kept_of(), head).as_json() for head in HEADS}
    config = config_of(criterion="helpful,brief")
    assert results.describe_member(config, ONE, learner, kept_of()) == {
        "role": "preference",
        "criterion": "helpful,brief",
        "heads": ["helpful", "brief"],
        "normalizer": normalizers,
    }
    only = kept_of(heads=["helpful"])
    assert results.describe_member(config_of(), ONE, learner, only) == {
        "role": "preference",
        "criterion": "helpful",
        "normalizer": normalizers["helpful"],
    }


def rule(name, weight, weights=None):
    return {"rule": name, "weight": weight, "weights": weights or {}}


def test_members_and_groups_are_combined_as_the_knobs_say():
    """Groups by the rule; then members by their mean."""
    worst = {"ensemble": 3, "combine": "variance", "variance_weight": 0.7}
    assert results.how_combined(config_of(), 1) == {}
    assert results.how_combined(config_of(**worst), 2)["ensemble"]["members"] == ["members/1"]
    assert results.how_combined(config_of(**worst), 3) == {
        "ensemble": {"members": ["members/1", "members/2"], "combine": rule("variance", 0.7)}
    }
    assert results.how_combined(config_of(**worst, by_group=True), 3) == {
        "ensemble": {"members": ["members/1", "members/2"], "combine": rule("mean", 0.0)},
        "groups": rule("variance", 0.7),
    }
    mean = config_of(by_group=True, ensemble=2, combine="weights", group_weights={"a": 2.0})
    assert results.how_combined(mean, 1) == {"groups": rule("mean", 0.5, {"a": 2.0})}


HELD_OUT = [item(0), item(1, labeler="bob", head="brief"), item(2, ("a", "b", "c"), (2, 1, 3)), single(3)]
SCORES = [[0.9, 0.2], [0.1, 0.6], [0.5, 0.7, -0.3], [0.4]]
MARGINS = [0.7, -0.5, 0.8, 0.2, 1.0]


def test_margins_are_those_of_every_pair_or_of_one_labelers():
    assert results.margins_of(HELD_OUT, SCORES) == pytest.approx(MARGINS)
    assert results.margins_of(HELD_OUT, SCORES, "bob") == pytest.approx([-0.5])
    assert results.margins_of(HELD_OUT, SCORES, "ann") == pytest.approx([0.7, 0.8, 0.2, 1.0])


def test_accuracy_counts_a_prompt_once_and_a_tie_one_half():
    scores = [[0.9, 0.2], [0.1, 0.6], [0.7, 0.7, -0.3], [0.4]]
    assert results.mean_accuracy(HELD_OUT, scores) == pytest.approx((1 + 0 + 2.5 / 3) / 3)
    assert math.isnan(results.mean_accuracy(HELD_OUT[3:], scores[3:]))


def test_what_was_learned_by_hand(learner):
    with torch.no_grad():
        learner._log_ties.copy_(torch.tensor([0.4, -0.3]) / 30)
        learner._gain.copy_(torch.tensor([1.4, 0.8]) / 30)
        learner._bias.copy_(torch.tensor([0.3, -0.2]) / 30)
        learner._reliability.copy_(torch.tensor([0.8, 0.6]).logit() / 30)
    kept = kept_of(rating_scale=(2.5, 1.5))
    found = results.what_was_learned(config_of(ties="davidson"), ONE, learner, kept, HELD_OUT, SCORES)
    assert found["ties"] == pytest.approx({"helpful": math.exp(0.4), "brief": math.exp(-0.3)})
    assert found["temperature"] == pytest.approx(fit_temperature(MARGINS, [1.0] * 5)) and len(found) == 2
    rated = PreferenceData(kept.items, [single(4), single(5, "rating", 0.5)], [], list(HEADS), (2.5, 1.5))
    found = results.what_was_learned(config_of(reliability=True), ONE, learner, rated, HELD_OUT[:1], SCORES[:1])
    scale = {"mean": 2.5, "deviation": 1.5}
    assert found["rating"]["helpful"] == pytest.approx({**scale, "gain": 1.4, "bias": 0.3})
    assert found["rating"]["brief"] == pytest.approx({**scale, "gain": 0.8, "bias": -0.2})
    assert found["reliability"] == {
        "ann": {"learned": pytest.approx(0.8), "held_out": reliability_interval([0.7]).json()},
        "bob": {"learned": pytest.approx(0.6), "held_out": None},
    }
    # a single margin above 0 is always right, and T is then 0
    assert found.keys() == {"reliability", "rating", "temperature"} and found["temperature"] == 0.0


def test_a_temperature_that_no_number_is_is_left_out(learner):
    """Margins that are wrong more often than right have none, and no margins either."""
    for held_out, scores in ((HELD_OUT[1:2], SCORES[1:2]), ([], [])):
        assert results.what_was_learned(config_of(), ONE, learner, kept_of(), held_out, scores) == {}


# The run's folder


SEEN = [item(0, ("a", "bbb")), item(1, ("cc", "d"), (2, 1), head="brief")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run that writes into `tmp_path`, and what it was told to save and to remember."""
    saved, remembered, written = [], [], {}

    @contextlib.contextmanager
    def new_snapshot():
        (tmp_path / "new").mkdir(exist_ok=True)
        (tmp_path / "new" / "config.json").write_text('{"accord": {}}')
        yield tmp_path / "new"

    run = SimpleNamespace(
        stage="preference",
        snapshot=tmp_path / "snapshot",
        new_snapshot=new_snapshot,
        write_json=written.__setitem__,
        path=tmp_path,
    )
    monkeypatch.setattr(results, "save_model", lambda *given: saved.append(given))
    monkeypatch.setattr(results, "remember_labelled", lambda *given: remembered.append(given))
    return SimpleNamespace(run=run, saved=saved, remembered=remembered, written=written, new=tmp_path / "new")


def write(folder, config, learners, kept=None, unseen=None):
    unseen = unseen or PreferenceData(SEEN, [], [], list(HEADS))
    tokens = SimpleNamespace(tokenizer="tokenizer")
    results.write_results(folder.run, ONE, config, tokens, learners, kept or kept_of(), unseen, PROMPTS[:2])
    return folder.written


def test_a_run_leaves_every_member_and_what_the_saved_one_says_of_what_was_held_out(folder, learner, opened):
    config = config_of(criterion="helpful,brief", ensemble=2, combine="worst")
    written = write(folder, config, [learner, learner])
    described = results.describe_member(config, ONE, learner, kept_of())
    first, second = folder.saved
    assert first[:4] == (learner.scorer, "tokenizer", folder.new, described | results.how_combined(config, 2))
    assert second[:4] == (learner.scorer, "tokenizer", folder.new / "members" / "1", described)
    for line in ('- role: "preference"', '- criterion: "helpful,brief"', '- data: {"": "d"}', '- parent: "start"'):
        assert line in first[4].splitlines(), line
    assert "accord preference" in first[4]
    assert folder.remembered == [(folder.run, folder.new, PROMPTS[:2], "start")]
    scores = results.saved_scores(config, ONE, str(folder.run.snapshot), HEADS, SEEN)
    words = results.words_margins("preference", kept_of().items, SEEN)
    summary = results.summarise(config, SEEN, scores, words)
    assert written["evaluation.json"] == {**summary, "cross_validated": False}
    assert {where for where, *_ in opened} == {str(folder.run.snapshot)}
    learned = results.what_was_learned(config, ONE, learner, kept_of(), SEEN, scores)
    assert written.keys() == ({"evaluation.json", "learned.json"} if learned else {"evaluation.json"})
    assert written.get("learned.json", {}) == learned


def test_folds_have_said_how_good_the_models_are(folder, learner, opened):
    written = write(folder, config_of(folds=2, ties="davidson"), [learner])
    assert written.keys() == {"learned.json"} and written["learned.json"]["ties"].keys() == set(HEADS)


def test_of_a_cost_what_was_measured_is_in_the_snapshot_and_its_calibration_in_the_evaluation(
    folder, learner, opened, monkeypatch
):
    kept = kept_of(heads=["helpful"])
    unseen = PreferenceData(SEEN[:1], [], [], ["helpful"])

    def measured(*given):
        assert given == (config_of(role="cost"), ONE, str(folder.new), kept, unseen)
        return {"deviation": 0.3, "calibration": given[2]}

    monkeypatch.setattr(results, "measure_cost", measured)
    written = write(folder, config_of(role="cost"), [learner], kept, unseen)
    config = json.loads((folder.new / "config.json").read_text())
    assert config["accord"] == {"deviation": 0.3, "calibration": str(folder.new)}
    assert written["evaluation.json"]["safety_calibration"] == str(folder.new)
    monkeypatch.setattr(results, "measure_cost", lambda *given: {"deviation": 0.3})
    written = write(folder, config_of(role="cost"), [learner], kept, unseen)
    assert "safety_calibration" not in written["evaluation.json"]


def test_labels_alone_leave_an_evaluation_without_rows(folder, learner, opened):
    kept = PreferenceData([], [single(1), single(2, "below")], [], ["helpful"])
    unseen = PreferenceData([], [], [], ["helpful"])
    written = write(folder, config_of(data={}, unpaired_data="x"), [learner], kept, unseen)
    assert written["evaluation.json"]["rows"] == [] and written.keys() == {"evaluation.json"}
