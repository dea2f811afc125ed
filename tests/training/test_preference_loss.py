"""The loss of a batch of every kind of label by hand: two heads, two labelers, unequal weights, a tie."""

import math

import pytest
import torch
from torch import nn, tensor

from accord.engine.packing import Group, pack, reply_group
from accord.models.learner import PreferenceLearner
from accord.records import Prompt, Turn
from accord.stages.preference.config import Preference
from accord.stages.preference.items import Label, PreferenceItem
from accord.stages.preference.loss import best_group, item_loss, labels_of, own_scores, pairs_of, starts, totals

CPU = torch.device("cpu")
TABLE = [[0.9, 9.0], [0.3, 9.0], [-0.7, 9.0], [9.0, 1.3], [9.0, -0.2], [9.0, 0.6], [9.0, -1.1], [9.0, 0.4]]
S = [0.9, 0.3, -0.7, 1.3, -0.2, 0.6, -1.1, 0.4]  # each by its own head, helpful first


def item(replies, ranks, head, labeler, **more):
    group = reply_group((5, 6), *(tuple(range(10 * k + 7, 10 * k + 8 + k)) for k in range(replies)))
    prompt = Prompt((Turn("user", "why"),), "", "by hand")
    return PreferenceItem(prompt, ("r",) * replies, group, ranks, head=head, labeler=labeler, **more)


def every_kind():
    """A ranking of three, a tie with a label and a rating, a rated reply, and a pair the other way round."""
    below, above = Label(2, "below", 0.0, 0.7), Label(0, "above", 0.0, 1.3)
    rated, alone = Label(1, "rating", 0.9, 0.5), Label(0, "rating", -0.4, 1.1)
    return [
        item(3, (2, 1, 3), "helpful", "ann", probability=0.8, margin=0.4, weight=1.5, labels=(below,)),
        item(2, (1, 1), "brief", "bob", weight=0.6, labels=(above, rated)),
        item(1, (), "brief", "nobody else", weight=1.7, labels=(alone,)),
        item(2, (2, 1), "brief", "bob", probability=0.9, margin=0.2, weight=2.0),
    ]


# (better, worse, weight, margin, probability, reliability) of every pair of them
PAIRS = [
    (0, 2, 0.5, 0.4, 0.8, 0.7),
    (1, 0, 0.5, 0.4, 0.8, 0.7),
    (1, 2, 0.5, 0.4, 0.8, 0.7),
    (7, 6, 2.0, 0.2, 0.9, 0.6),
]


def learner_of(table=TABLE):
    learner = PreferenceLearner(nn.Linear(1, 1), ["helpful", "brief"], ["bob", "ann"], tie_rate=0.1)
    learner.scores = lambda packing: tensor(table)
    learner.token_logprobs = lambda packing: -0.01 * packing.targets
    with torch.no_grad():
        learner._log_ties.copy_(tensor([0.5, -0.8]) / 30)
        learner._gain.copy_(tensor([1.4, 0.8]) / 30)
        learner._bias.copy_(tensor([0.3, -0.2]) / 30)
        learner._reliability.copy_(tensor([0.6, 0.7]).logit() / 30)
    return learner


def config_of(**changes):
    return Preference(model="m", data="d", out="o", score_weight=0.05, label_weight=0.4, **changes)


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


REGULARISER = 0.05 * sum(s * s for s in S) / 8
ORDERED = 1.5 + 2.0
SIGNED, RATED = 1.5 * 0.7 + 0.6 * 1.3, 0.6 * 0.5 + 1.7 * 1.1
SIGNS = -(1.5 * 0.7 * log_sigmoid(0.7) + 0.6 * 1.3 * log_sigmoid(1.3)) / SIGNED
RATINGS = (
    0.5
    * (0.6 * 0.5 * (0.9 - 0.8 * -0.2 + 0.2) ** 2 + 1.7 * 1.1 * (-0.4 - 0.8 * 0.6 + 0.2) ** 2)
    / RATED
)  # fmt: skip
ACCURACY = (0.5 + 0.0 + 0.5 + 2.0) / ORDERED
MARGIN = (0.5 * (1.6 - 0.6 + 1.0) + 2.0 * 1.5) / ORDERED


def by_pairs(smoothing=0.0, *, reliable=False):
    total = 0.0
    for better, worse, weight, margin, said, reliability in PAIRS:
        chance = 1 / (1 + math.exp(margin - S[better] + S[worse]))
        chance = reliability * chance + (1 - reliability) * (1 - chance) if reliable else chance
        said = (1 - smoothing) * said + smoothing * (1 - said)
        total -= weight * (said * math.log(chance) + (1 - said) * math.log(1 - chance))
    return total / ORDERED


def by_davidson(smoothing):
    """The tie is another answer, so the prompts that are ranked are three, and the first has three answers."""
    asked = [
        *((i, j, weight, (1 - smoothing) * p + smoothing * (1 - p)) for i, j, weight, _, p, _ in PAIRS),
        (3, 4, 0.6, None),
    ]
    total = 0.0
    for i, j, weight, said in asked:
        nu = math.exp(0.5 if i < 3 else -0.8)
        first, second = math.exp((S[i] - S[j]) / 2), math.exp((S[j] - S[i]) / 2)
        chances = [first / (first + second + nu), second / (first + second + nu), nu / (first + second + nu)]
        if said is None:
            total -= weight * math.log(chances[2])
        else:
            total -= weight * (said * math.log(chances[0]) + (1 - said) * math.log(chances[1]))
    return total / (1.5 + 0.6 + 2.0)


def by_plackett_luce():
    """Of the ranking 1, 0, 2: first among three, then among two; a tie says nothing."""
    e = [math.exp(s) for s in S]
    first = -math.log(e[1] / (e[0] + e[1] + e[2])) - math.log(e[0] / (e[0] + e[2]))
    return (1.5 * first - 2.0 * math.log(e[7] / (e[6] + e[7]))) / (1.5 + 0.6 + 2.0)


@pytest.mark.parametrize(
    ("changes", "ranking"),
    [
        ({}, by_pairs()),
        ({"label_smoothing": 0.1}, by_pairs(0.1)),
        ({"label_smoothing": 0.1, "reliability": True}, by_pairs(0.1, reliable=True)),
        ({"label_smoothing": 0.1, "ties": "davidson"}, by_davidson(0.1)),
        ({"ranking": "plackett-luce"}, by_plackett_luce()),
    ],
)
def test_every_term_and_number_of_a_batch_by_hand(changes, ranking):
    items = every_kind()
    loss, metrics = item_loss(learner_of(), items, totals(items), config_of(**changes), CPU)
    expected = {
        "loss/ranking": ranking,
        "accuracy": ACCURACY,
        "margin": MARGIN,
        "loss/label": SIGNS,
        "accuracy_label": 1.0,
        "loss/rating": RATINGS,
        "loss": REGULARISER + ranking + 0.4 * SIGNS + 0.4 * RATINGS,
    }
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(expected, rel=1e-5)
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-5)
    assert not any(value.requires_grad for value in metrics.values())


def test_centring_and_the_likelihood_of_the_best_replies_have_their_weights():
    """The best of the three is its second; of the pair, its second too; a tie orders nothing."""
    items = every_kind()
    loss, metrics = item_loss(learner_of(), items, totals(items), config_of(centring_weight=0.3, lm_weight=0.7), CPU)
    centred = (0.5 * (0.2**2 + 1.2**2 + 0.4**2) + 2.0 * 0.7**2) / ORDERED
    spoken = 0.01 * 2 * (17 + 18) / 4
    assert metrics["loss/centring"].item() == pytest.approx(centred, rel=1e-5)
    assert metrics["loss/lm"].item() == pytest.approx(spoken, rel=1e-5)
    known = REGULARISER + by_pairs() + 0.4 * SIGNS + 0.4 * RATINGS
    assert loss.item() == pytest.approx(known + 0.3 * centred + 0.7 * spoken, rel=1e-5)
    assert not metrics["loss/lm"].requires_grad


def test_of_a_cost_the_two_signs_of_a_pair_weigh_as_much_as_its_order():
    """Safe RLHF, equation 7: twice the mean over labels; here times the weight of labels."""
    items = every_kind()
    loss, metrics = item_loss(learner_of(), items, totals(items), config_of(role="cost"), CPU)
    assert metrics["loss/sign"].item() == pytest.approx(SIGNS, rel=1e-5) and "loss/label" not in metrics
    assert loss.item() == pytest.approx(REGULARISER + by_pairs() + 2 * 0.4 * SIGNS + 0.4 * RATINGS, rel=1e-5)


@pytest.mark.parametrize("ties", ["drop", "davidson"])
def test_a_micro_batch_without_an_order_has_no_numbers_about_orders(ties):
    """Of a tie alone, whatever the rest of the batch was."""
    items = every_kind()[1:3]
    changes = {"centring_weight": 0.3, "lm_weight": 0.7, "reliability": ties == "drop"}
    loss, metrics = item_loss(learner_of(TABLE[3:6]), items, totals(every_kind()), config_of(ties=ties, **changes), CPU)
    assert math.isfinite(loss.item())
    numbers = {"loss", "loss/ranking", "loss/label", "accuracy_label", "loss/rating"}
    assert metrics.keys() == numbers | ({"accuracy", "margin"} if ties == "drop" else set())
    assert metrics["loss/ranking"].item() == (0.0 if ties == "drop" else pytest.approx(0.6 * tie_of_the_second() / 4.1))


def tie_of_the_second():
    nu = math.exp(-0.8)
    return -math.log(nu / (math.exp(0.75) + math.exp(-0.75) + nu))


def test_labels_alone_are_learned_from_without_a_ranking_term():
    items = every_kind()[2:3]
    _, metrics = item_loss(learner_of(TABLE[5:6]), items, totals(items), config_of(lm_weight=0.7), CPU)
    assert metrics.keys() == {"loss/rating", "loss"}


def test_totals_by_hand():
    found = totals(every_kind())
    assert found == pytest.approx((4.1, 3.5, SIGNED, RATED, 8, 4))
    assert (found.replies, found.tokens) == (8, 4)


def test_the_best_replies_are_those_of_the_first_rank_with_every_token_trained_on():
    assert best_group(item(3, (2, 1, 1), "helpful", "ann")) == Group(
        (5, 6), ((17, 18), (27, 28, 29)), ((True,) * 2, (True,) * 3)
    )


def test_scores_are_read_from_the_head_of_their_item_and_each_item_has_its_place():
    items = every_kind()
    assert own_scores(learner_of(), items, tensor(TABLE)).tolist() == tensor(S).tolist()
    assert starts(items) == [0, 3, 5, 6]


def test_every_pair_has_what_was_said_of_it():
    found = pairs_of(learner_of(), every_kind(), tensor(S))
    assert found.better.tolist() == tensor([S[pair[0]] for pair in PAIRS]).tolist()
    assert found.worse.tolist() == tensor([S[pair[1]] for pair in PAIRS]).tolist()
    for k, values in enumerate((found.weights, found.margin, found.probability)):
        assert values.tolist() == pytest.approx([pair[2 + k] for pair in PAIRS])
    assert found.labeler.tolist() == [1, 1, 1, 0] and found.labeler.dtype == torch.long


def test_labels_are_found_by_kind_with_the_scores_of_their_replies():
    items = every_kind()
    at, labels, weights, heads = labels_of(learner_of(), items, tensor(S), ("above", "below"))
    assert at.tolist() == tensor([-0.7, 1.3]).tolist() and [label.kind for label in labels] == ["below", "above"]
    assert weights.tolist() == pytest.approx([1.05, 0.78]) and heads.tolist() == [0, 1]
    assert labels_of(learner_of(), items[3:], tensor(S[6:]), ("rating",)) is None


def test_scores_are_of_the_last_token_of_every_reply():
    items, seen = every_kind(), []
    learner = learner_of()
    learner.scores = lambda packing: seen.append(packing) or tensor(TABLE)
    item_loss(learner, items, totals(items), config_of(), CPU)
    asked = pack([one.group for one in items], rows="last")
    assert seen[0].rows.tolist() == asked.rows.tolist() and len(seen[0].rows) == 8
