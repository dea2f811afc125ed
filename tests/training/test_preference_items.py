"""From records to the items that a preference or cost model learns from: what is read, what is kept, and refused."""

import json
import math

import pytest

from accord.engine.packing import reply_group
from accord.engine.texts import text_group
from accord.errors import BadInput
from accord.records import Comparison, Judgement, Prompt, Turn, is_held_out, unit_hash
from accord.run import RunFolder
from accord.stages.preference.config import Preference
from accord.stages.preference.items import (
    Label,
    PreferenceData,
    PreferenceItem,
    comparison_items,
    in_half,
    judgement_item,
    rating_scale,
    read_preference_data,
    refuse_one_sided,
    refuse_only_one_label,
    refuse_thin_heads,
)

ASKED = Prompt((Turn("user", "why"),), "", "by hand")


def config_of(**changes):
    return Preference(**{"model": "m", "data": "d", "out": "o"} | changes)


def said(ranks=(2, 1, 2), replies=("the cat", "a dog", "salt"), **more):
    order = tuple(range(len(replies)))
    return Comparison(ASKED, replies, ranks, "brief", "people:ann", 2.0, order, **more)


def item(head="helpful", labeler="ann", prompt=ASKED, replies=2, ranks=(1, 2), **more):
    group = reply_group((5,), *((7 + k,) for k in range(replies)))
    return PreferenceItem(prompt, ("r",) * replies, group, ranks, head=head, labeler=labeler, **more)


def labelled(*kinds):
    return [item(replies=1, ranks=(), labels=(Label(0, kind, 0.0, 1.0),)) for kind in kinds]


def test_an_item_of_a_comparison_has_all_that_was_said_of_it(renderer):
    config = config_of(criterion="helpful,brief", criterion_weights={"brief": 0.7}, strength_margin=0.3)
    (found,) = comparison_items(renderer, said(probability=0.8), config)
    group = text_group(renderer, ASKED, ("the cat", "a dog", "salt"))
    assert found == PreferenceItem(
        ASKED,
        ("the cat", "a dog", "salt"),
        group,
        (2, 1, 2),
        0.8,
        head="brief",
        labeler="people:ann",
        margin=0.6,
        strength=2.0,
        weight=0.7,
        labels=(),
    )


def test_of_a_cost_the_worst_reply_comes_first_and_the_head_may_be_the_labelers_group(renderer):
    (found,) = comparison_items(renderer, said((3, 1, 2)), config_of(role="cost", by_group=True))
    assert (found.ranks, found.head, found.weight) == ((1, 3, 2), "people", 1.0)
    (tied,) = comparison_items(renderer, said(), config_of(role="cost"))
    assert (tied.ranks, tied.head) == ((1, 2, 1), "brief")


@pytest.mark.parametrize(("role", "kind"), [("preference", "below"), ("cost", "above")])
def test_replies_that_are_all_bad_are_labelled_and_stay_ranked(renderer, role, kind):
    (found,) = comparison_items(renderer, said((1, 2), ("the cat", "a dog"), all_bad=True), config_of(role=role))
    assert found.labels == (Label(0, kind, 0.0, 1.0), Label(1, kind, 0.0, 1.0))
    assert found.ranks == ((2, 1) if role == "cost" else (1, 2))


def test_every_ranked_pair_is_binarised_and_a_bad_reply_is_then_no_label(renderer):
    found = comparison_items(renderer, said(all_bad=True), config_of(binarise=True))
    assert [one.texts for one in found] == [
        ("good: a dog", "bad: a dog"),
        ("bad: the cat", "good: the cat"),
        ("good: a dog", "bad: a dog"),
        ("bad: salt", "good: salt"),
    ]
    assert all(one.labels == () and one.ranks == (1, 2) for one in found)
    assert found[1].group == text_group(renderer, ASKED, ("bad: the cat", "good: the cat"))


@pytest.mark.parametrize(
    ("role", "kind", "value", "label"),
    [
        ("preference", "good", 1.0, ("above", 0.0, 1.0)),
        ("preference", "good", 0.0, ("below", 0.0, 1.75)),
        ("preference", "safe", 1.0, ("above", 0.0, 1.0)),
        ("preference", "rating", 4.0, ("rating", 0.75, 1.0)),
        ("preference", "rating", -1.0, ("rating", -1.75, 1.0)),
        ("cost", "safe", 1.0, ("below", 0.0, 1.0)),
        ("cost", "safe", 0.0, ("above", 0.0, 1.75)),
    ],
)
def test_a_judgement_is_a_reply_with_its_label(renderer, role, kind, value, label):
    """Above 0 is bad of a cost and good of anything else; what is bad weighs 1 + 0.5 · its severity of 1.5."""
    data = {"safety_data": "d"} if role == "cost" else {"unpaired_data": "d"}
    judged = Judgement(ASKED, "the cat", "brief", kind, value, "people:ann", "", 1.5)
    found = judgement_item(renderer, judged, config_of(role=role, severity_weight=0.5, **data), (2.5, 2.0))
    assert found == PreferenceItem(
        ASKED,
        ("the cat",),
        text_group(renderer, ASKED, ("the cat",)),
        head="brief",
        labeler="people:ann",
        labels=(Label(0, *label),),
    )


def test_a_judgement_has_the_weight_of_its_criterion_or_the_head_of_its_group(renderer):
    judged = Judgement(ASKED, "the cat", "brief", "good", 1.0, "people:ann", "", 0.0)
    config = config_of(criterion="helpful,brief", criterion_weights={"brief": 0.7})
    assert judgement_item(renderer, judged, config, (0.0, 1.0)).weight == 0.7
    found = judgement_item(renderer, judged, config_of(by_group=True), (0.0, 1.0))
    assert (found.head, found.weight) == ("people", 1.0)


def test_the_scale_of_ratings_by_hand():
    assert rating_scale([1.0, 2.0, 6.0]) == pytest.approx((3.0, math.sqrt(14 / 3)))
    assert rating_scale([5.0, 5.0]) == (5.0, 1.0) and rating_scale([]) == (0.0, 1.0)


def test_what_an_item_says_by_default():
    found = item()
    assert (found.margin, found.strength, found.weight, found.labels, found.probability) == (0.0, 0.0, 1.0, (), 1.0)
    assert PreferenceData([], [], [], []).rating_scale == (0.0, 1.0)


def test_a_part_of_the_data_is_that_of_its_prompts():
    other = Prompt((Turn("user", "how"),), "", "by hand")
    items = [item(labeler="bob"), item(prompt=other, labeler="ann"), item(labeler="ann")]
    single = [item(prompt=other, replies=1, ranks=()), item(replies=1, ranks=())]
    data = PreferenceData(items, single, ["shown"], ["helpful"], (1.5, 0.5))
    assert data.labelers == ["ann", "bob"]
    part = data.where(lambda prompt: prompt == other)
    assert part == PreferenceData(items[1:2], single[:1], ["shown"], ["helpful"], (1.5, 0.5))


def test_halves_are_told_apart_by_the_opening():
    words = [f"why {k}" for k in range(12)]
    prompts = [Prompt((Turn("user", word), Turn("assistant", "salt"), Turn("user", "so")), "", "") for word in words]
    train = [unit_hash(f"{word}half") < 0.5 for word in words]
    assert any(0.5 < unit_hash(f"{word}half") < 0.7 for word in words) and True in train
    assert [in_half(prompt, "train") for prompt in prompts] == train
    assert [in_half(prompt, "test") for prompt in prompts] == [not is_train for is_train in train]
    assert all(in_half(prompt, "") for prompt in prompts)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [((), "has none"), (("rating",), "has none"), (("above", "above"), "only unsafe"), (("below",), "only safe ones")],
)
def test_a_cost_model_needs_both_kinds_of_label(kinds, words):
    with pytest.raises(BadInput, match=words):
        refuse_one_sided(labelled(*kinds))
    refuse_one_sided(labelled(*kinds, "above", "below"))


@pytest.mark.parametrize(
    ("kinds", "words"),
    [(("above", "above"), r"all 2 labelled replies are good \(or safe\)"), (("below",), r"all 1 .* bad \(or unsafe\)")],
)
def test_labels_alone_must_not_be_all_the_same(kinds, words):
    with pytest.raises(BadInput, match=words):
        refuse_only_one_label(labelled(*kinds))
    for more in ("rating", "below" if "above" in kinds else "above"):
        refuse_only_one_label(labelled(*kinds, more))
    refuse_only_one_label(labelled("rating"))


def test_a_head_learns_from_two_replies_or_more():
    """Replies are counted, compared or labelled, and not items."""
    kept = PreferenceData([item()], labelled("above"), [], ["helpful"])
    refuse_thin_heads(config_of(), kept)
    refuse_thin_heads(config_of(), PreferenceData([], labelled("above", "above"), [], ["helpful"]))
    with pytest.raises(BadInput, match=r"--criterion: beside what is held out, helpful has 1 of the two replies"):
        refuse_thin_heads(config_of(), PreferenceData([], labelled("above"), [], ["helpful"]))
    with pytest.raises(BadInput, match=r"--by_group: beside what is held out, brief has 0 of"):
        refuse_thin_heads(config_of(by_group=True), PreferenceData(kept.items, [], [], ["helpful", "brief"]))


# What is read of files


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pair(prompt, **more):
    return {"prompt": prompt, "chosen": f"the cat {prompt}", "rejected": f"a dog {prompt}"} | more


@pytest.fixture
def read(tmp_path, renderer):
    """`read(**changes)`: what a run with these knobs reads; the folders are `run-0`, `run-1` and so on."""

    def of(**changes):
        out = tmp_path / f"run-{len(list(tmp_path.glob('run-*')))}"
        config = Preference(**{"model": "m", "out": str(out), "max_length": 64} | changes)
        with RunFolder("preference", config) as run:
            return read_preference_data(config, run, renderer)

    return of


def written(tmp_path):
    """What the first run wrote down of its data."""
    return {path.name for path in (tmp_path / "run-0" / "data").iterdir()} - {"parents.json"}


def asked(items):
    return [one.prompt.turns[0].content for one in items]


def test_sources_of_one_criterion_are_read_together_and_mixed_by_weight(read, tmp_path):
    few = write(tmp_path / "few.jsonl", pair("why"), pair("how"))
    many = write(tmp_path / "many.jsonl", *(pair(f"salt {k}") for k in range(4)))
    found = read(data={"few": few, "many": many}, weights={"few": 2, "many": 1}, unpaired_data=judged(tmp_path))
    assert len(found.items) == 6 and asked(found.items).count("why") == 2
    assert [one.prompt.slice for one in found.items] == ["few"] * 4 + ["many"] * 2
    assert asked(found.labelled) == ["red", "blue", "small"]
    assert found.heads == ["helpful"] and found.demonstrations == []
    assert written(tmp_path) == {"data.json", "unpaired_data.json"}


def judged(tmp_path, **more):
    values = [("red", 1.0), ("blue", 2.0), ("small", 6.0)]
    rows = [{"prompt": prompt, "completion": "the river", "rating": value, **more} for prompt, value in values]
    return write(tmp_path / "rated.jsonl", *rows)


def test_ratings_are_standardised_by_those_that_are_read(read, tmp_path):
    found = read(unpaired_data=judged(tmp_path))
    assert found.rating_scale == pytest.approx((3.0, math.sqrt(14 / 3)))
    values = [one.labels[0].value for one in found.labelled]
    assert values == pytest.approx([-2 / math.sqrt(14 / 3), -1 / math.sqrt(14 / 3), 3 / math.sqrt(14 / 3)])
    assert found.items == []


def test_with_several_criteria_a_source_is_read_under_those_that_its_name_says(read, tmp_path):
    own = write(tmp_path / "own.jsonl", pair("why"))
    both = write(tmp_path / "both.jsonl", pair("how"))
    found = read(criterion="helpful,honest", data={"honest-own": own, "both": both})
    assert [(one.head, *asked([one])) for one in found.items] == [
        ("honest", "why"),
        ("helpful", "how"),
        ("honest", "how"),
    ]
    assert found.heads == ["helpful", "honest"]
    assert written(tmp_path) == {"data-honest-own-honest.json", "data-both-helpful.json", "data-both-honest.json"}


def test_a_source_without_a_name_is_called_all(read, tmp_path):
    found = read(criterion="helpful,honest", data=write(tmp_path / "both.jsonl", pair("how")))
    assert [one.head for one in found.items] == ["helpful", "honest"]
    assert written(tmp_path) == {"data-all-helpful.json", "data-all-honest.json"}


def test_of_safety_data_only_labels_of_safety_are_read(read, tmp_path):
    labels = [{"prompt": "red", "completion": f"salt {k}", "is_safe": k == 1} for k in range(2)]
    safety = {"labels": write(tmp_path / "labels.jsonl", *labels), "rated": judged(tmp_path)}
    found = read(role="cost", data=write(tmp_path / "pairs.jsonl", pair("why")), safety_data=safety)
    assert [one.labels[0].kind for one in found.labelled] == ["above", "below"]
    assert found.items[0].ranks == (2, 1)
    with pytest.raises(BadInput, match="--safety_data has only unsafe ones"):
        read(
            role="cost",
            data=write(tmp_path / "pairs.jsonl", pair("why")),
            safety_data=write(tmp_path / "unsafe.jsonl", labels[0]),
        )


def test_labels_alone_that_are_all_the_same_are_refused_and_beside_comparisons_taken(read, tmp_path):
    good = write(tmp_path / "good.jsonl", {"prompt": "red", "completion": "salt", "label": True})
    with pytest.raises(BadInput, match=r"all 1 labelled replies are good"):
        read(unpaired_data=good)
    found = read(unpaired_data=good, data=write(tmp_path / "pairs.jsonl", pair("why")))
    assert (len(found.items), len(found.labelled)) == (1, 1)


@pytest.mark.parametrize("ties", ["drop", "davidson"])
def test_ties_are_dropped_or_learned_from_and_what_is_all_bad_is_labels(read, tmp_path, capsys, ties):
    rows = [pair("why"), pair("how", tie=True), pair("red", tie=True, all_bad=True), pair("blue", all_bad=True)]
    rows.append(pair("big", tie=True))
    found = read(data=write(tmp_path / "pairs.jsonl", *rows), ties=ties)
    assert asked(found.items) == (["why", "blue"] if ties == "drop" else ["why", "how", "red", "blue", "big"])
    assert all(one.labels == () for one in found.items)
    assert asked(found.labelled) == ["red", "blue"] and all(one.ranks == () for one in found.labelled)
    assert [label.kind for label in found.labelled[0].labels] == ["below", "below"]
    told = capsys.readouterr().out
    assert ("dropped 2 of 4 comparisons as ties throughout; --ties davidson uses them" in told) == (ties == "drop")


def test_comparisons_of_equal_tokens_or_without_an_order_are_none(read, tmp_path):
    alike = pair("how", chosen="the cat", rejected="the cat")
    found = read(data=write(tmp_path / "pairs.jsonl", alike, pair("why")))
    assert asked(found.items) == ["why"]
    with pytest.raises(BadInput, match="no comparison under --criterion helpful says which reply is better"):
        read(data=write(tmp_path / "ties.jsonl", pair("how", tie=True)), unpaired_data=judged(tmp_path))


def test_what_is_too_long_is_dropped_and_written_down_by_what_it_is(read, tmp_path):
    long = "the river " * 40
    rows = [pair("why"), pair("how", chosen=long)]
    labels = [{"prompt": "red", "completion": text, "label": text == "salt"} for text in ("salt", "a", long)]
    shown = [{"prompt": "blue", "completion": text} for text in (long, "a stone")]
    found = read(
        data=write(tmp_path / "pairs.jsonl", *rows),
        unpaired_data=write(tmp_path / "labels.jsonl", *labels),
        demonstrations=write(tmp_path / "shown.jsonl", *shown),
    )
    assert (asked(found.items), len(found.labelled), len(found.demonstrations)) == (["why"], 2, 1)
    for what in ("data", "labels", "demonstrations"):
        assert json.loads((tmp_path / "run-0" / "data" / f"{what}-too-long.json").read_text())["dropped"] == 1


def test_demonstrations_are_groups_of_one_reply(read, tmp_path, renderer):
    shown = write(tmp_path / "shown.jsonl", {"prompt": "why", "completion": "a stone"})
    found = read(data=write(tmp_path / "pairs.jsonl", pair("why")), demonstrations=shown)
    assert found.demonstrations == [text_group(renderer, ASKED, ("a stone",))]


def test_groups_are_heads_in_the_order_of_their_names(read, tmp_path):
    rows = [pair("why", labeler="dogs:1"), pair("how", labeler="cats:1"), pair("red", labeler="cats:2")]
    changes = {"data": write(tmp_path / "pairs.jsonl", *rows), "by_group": True}
    found = read(**changes, group_weights={"cats": 2.0})
    assert found.heads == ["cats", "dogs"] and [one.head for one in found.items] == ["dogs", "cats", "cats"]
    with pytest.raises(BadInput, match=r"--group_weights\.fish: there is no such group; there are cats, dogs"):
        read(**changes, group_weights={"fish": 2.0})
    one = write(tmp_path / "one.jsonl", *rows[1:])
    with pytest.raises(BadInput, match="--by_group: all labelers are of one group, cats; leave it out"):
        read(data=one, by_group=True)
    beside = judged(tmp_path, labeler="birds:1")
    assert read(data=one, by_group=True, unpaired_data=beside).heads == ["birds", "cats"]


def test_a_half_has_its_comparisons_and_labels_alone(read, tmp_path):
    words = ["why", "how", "what", "who", "when", "where"]
    train = [word for word in words if is_held_out(word, "half", 0.5)]
    test = [word for word in words if word not in train]
    labels = [{"prompt": word, "completion": "salt", "label": True} for word in words]
    changes = {"data": write(tmp_path / "pairs.jsonl", *map(pair, words))}
    changes["unpaired_data"] = write(tmp_path / "labels.jsonl", *labels)
    for half, kept in (("train", train), ("test", test), ("", words)):
        found = read(**changes, half=half)
        assert asked(found.items) == kept and asked(found.labelled) == kept
    with pytest.raises(BadInput, match="--half train: no prompt is in it; give more data"):
        read(data=write(tmp_path / "test.jsonl", *map(pair, test)), half="train")


def test_only_prompts_of_the_split_are_read(read, tmp_path):
    words = ["why", "how", "what", "who", "when", "where"]
    kept = [word for word in words if Prompt((Turn("user", word),), "", "").split == "preference"]
    assert 0 < len(kept) < len(words)
    shown = write(tmp_path / "shown.jsonl", *({"prompt": word, "completion": "salt"} for word in words))
    found = read(data=write(tmp_path / "pairs.jsonl", *map(pair, words)), split="preference", demonstrations=shown)
    assert asked(found.items) == kept and len(found.demonstrations) == len(kept)
