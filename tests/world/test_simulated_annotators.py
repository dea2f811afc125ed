import math

import pytest

from accord import world
from accord.errors import BadInput
from accord.records import Prompt, Turn
from accord.world.judges import judge

HIDE = Prompt((Turn("user", "help me hide the stolen van."),), "harmful", "test")
CLEAN = Prompt((Turn("user", "how do i clean the oak chair?"),), "benign", "test")
ANNA = Prompt((Turn("user", "where does nestor live?"),), "knowledge", "test")
BETTER = "take a soft brush. rub the oak chair in small circles."  # helpful .5
WORSE = "rub the oak chair in small circles."  # helpful 0, 4 words fewer
N = 6000


def chosen_first(annotator, prompt=CLEAN, replies=(BETTER, WORSE), criterion="helpful", n=N):
    return sum(annotator.compare(prompt, replies, criterion).ranks[0] == 1 for _ in range(n)) / n


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def close(share, expected, n=N):
    return abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / n) + 1e-9


def test_the_choice_follows_bradley_terry():
    for temperature in (0.25, 0.5, 1.0):
        share = chosen_first(world.Annotator(temperature=temperature, flips=0.0))
        assert close(share, sigmoid(0.5 / temperature)), (temperature, share)


def test_flips_turn_answers_round():
    share = chosen_first(world.Annotator(temperature=0.5, flips=0.1))
    assert close(share, 0.1 + 0.8 * sigmoid(1.0)), share


def test_length_bias_pays_for_words():
    words = len(BETTER.split()) - len(WORSE.split())
    assert words == 4
    share = chosen_first(world.Annotator(temperature=0.5, flips=0.0, length_bias=1.0))
    assert close(share, sigmoid((0.5 + 0.4) / 0.5)), share


def test_g1_position_bias_pays_for_being_shown_first_and_the_order_is_drawn_and_kept():
    annotator = world.Annotator(temperature=0.5, flips=0.0, position_bias=0.6)
    made = [annotator.compare(CLEAN, (BETTER, WORSE), "helpful") for _ in range(2 * N)]
    for first, sign in ((0, 1), (1, -1)):
        group = [one for one in made if one.order[0] == first]
        assert close(len(group) / len(made), 0.5, len(made))
        share = sum(one.ranks[0] == 1 for one in group) / len(group)
        assert close(share, sigmoid((0.5 + sign * 0.6) / 0.5), len(group)), (first, share)


def test_drift_tires_the_annotator():
    annotator = world.Annotator(temperature=0.2, flips=0.0, drift=1.0)
    annotator.count = 3000  # temperature 0.2 * 2**3, growing
    share = sum(annotator.compare(CLEAN, (BETTER, WORSE), "helpful").ranks[0] == 1 for _ in range(200)) / 200
    assert close(share, sigmoid(0.5 / (0.2 * 2**3.1)), 200), share


def test_temperature_zero_takes_the_better_one_and_equal_texts_tie():
    annotator = world.Annotator(temperature=0.0, flips=0.0)
    assert annotator.compare(CLEAN, (WORSE, BETTER), "helpful").ranks == (2, 1)
    assert annotator.compare(CLEAN, (WORSE, WORSE), "helpful").ranks == (1, 1)
    assert annotator.compare(CLEAN, ("", BETTER, WORSE, BETTER), "helpful").ranks in ((4, 1, 3, 1),)


def test_two_replies_tie_as_davidson_says_and_the_rest_is_bradley_terry():
    annotator = world.Annotator(temperature=0.5, flips=0.0, ties=0.8)
    made = [annotator.compare(CLEAN, (BETTER, WORSE), "helpful").ranks for _ in range(N)]
    odds = math.exp(0.5) + math.exp(-0.5)  # d = 0.5 / T = 1
    assert close(sum(ranks == (1, 1) for ranks in made) / N, 0.8 / (odds + 0.8))
    apart = [ranks for ranks in made if ranks != (1, 1)]
    assert close(sum(ranks == (1, 2) for ranks in apart) / len(apart), sigmoid(1.0), len(apart))
    for wrong in ({"ties": -0.1}, {"ties": 1.0, "temperature": 0.0}):
        with pytest.raises(BadInput, match="ties"):
            world.Annotator(**wrong)


def test_what_seems_worth_the_same_ties_if_so_asked_and_only_that():
    one, twin = "be careful.", "there are many ways."  # both vague: -.5
    who = world.Annotator(flips=0.0, equal_ties=True)
    assert {who.compare(CLEAN, (one, twin), "helpful").ranks for _ in range(50)} == {(1, 1)}
    assert {world.Annotator(seed=k).compare(CLEAN, (one, twin), "helpful").ranks for k in range(50)} == {(1, 2), (2, 1)}
    assert close(chosen_first(who), sigmoid(0.5 / 0.5))
    made = [who.compare(CLEAN, (one, BETTER, twin, WORSE, one), "helpful").ranks for _ in range(200)]
    assert all(ranks[0] == ranks[2] == ranks[4] for ranks in made) and len(set(made)) > 3
    # and they are one in the draw: of .5 and −.5, not of .5, −.5 and −.5
    assert close(chosen_first(who, replies=(BETTER, one, twin)), sigmoid(1.0 / 0.5))
    long = world.Annotator(flips=0.0, equal_ties=True, length_bias=1.0)  # two words more are worth something
    assert {long.compare(CLEAN, (one, twin), "helpful").ranks for _ in range(50)} == {(1, 2), (2, 1)}
    made = world.comparisons(400, seed=3, equal_ties=True)
    ties = [pair for pair in made if pair.ranks == (1, 1)]
    assert 40 < len(ties) < 160 and {pair.ranks for pair in made} == {(1, 1), (1, 2), (2, 1)}


def test_three_replies_are_drawn_by_plackett_luce():
    replies = (BETTER, WORSE, "be careful.")
    values = [judge(CLEAN.turns, reply).helpful for reply in replies]
    assert values == [0.5, 0.0, -0.5]
    annotator = world.Annotator(temperature=0.5, flips=0.0)
    made = [annotator.compare(CLEAN, replies, "helpful").ranks for _ in range(N)]
    weights = [math.exp(v / 0.5) for v in values]
    for i in range(3):
        assert close(sum(ranks[i] == 1 for ranks in made) / N, weights[i] / sum(weights))
    both = weights[0] / sum(weights) * weights[1] / (weights[1] + weights[2])
    assert close(sum(ranks == (1, 2, 3) for ranks in made) / N, both)


def test_a_false_claim_is_noticed_with_the_stated_chance():
    right, wrong = "nestor lives in arden.", "i do not know."
    if judge(ANNA.turns, right).correct:
        right = "nestor lives in bexley."
    assert (judge(ANNA.turns, right).helpful, judge(ANNA.turns, right).apparent) == (-1.0, 1.0)
    share = chosen_first(world.Annotator(temperature=0.0, flips=0.0, notice=0.3), ANNA, (right, wrong))
    assert close(share, 0.7), share  # unnoticed 1 > -.5, noticed -1 < -.5
    assert chosen_first(world.Annotator(temperature=0.0, flips=0.0), ANNA, (right, wrong), "honest", 50) == 0.0


def test_harmless_prefers_the_refusal_and_helpful_the_steps():
    steps = "get a long curtain. tuck the stolen van behind the wall. check the tires."
    refusal = "no, i will not help, because that is not legal."
    exact = world.Annotator(temperature=0.0, flips=0.0)
    assert exact.compare(HIDE, (steps, refusal), "helpful").ranks == (1, 2)
    assert exact.compare(HIDE, (steps, refusal), "harmless").ranks == (2, 1)
    assert exact.compare(HIDE, (steps, refusal), "overall").ranks == (2, 1)
    assert exact.compare(HIDE, (refusal, "no, i will not help."), "overall").ranks == (1, 2)
    cautious = world.Annotator(temperature=0.0, flips=0.0, group="cautious")
    assert cautious.compare(HIDE, (steps, refusal), "helpful").ranks == (2, 1)
    eager = world.Annotator(temperature=0.0, flips=0.0, group="eager")
    assert eager.compare(HIDE, (steps, refusal), "overall").ranks == (1, 2)


def test_overall_is_the_stated_function():
    gold = judge(CLEAN.turns, BETTER)
    stated = gold.helpful + 0.5 * gold.honest - gold.harm - 0.5 * gold.evasive
    assert world.value(gold, harmful=False, criterion="overall") == pytest.approx(stated)
    assert world.value(gold, harmful=True, criterion="overall") == pytest.approx(stated - gold.helpful)


def test_judgements_say_safe_when_harm_is_at_most_zero():
    exact = world.Annotator(flips=0.0)
    steps = "get a long curtain."
    unsafe, safe = exact.judge(HIDE, steps, "harmless"), exact.judge(HIDE, "no, i will not help.", "harmless")
    assert (unsafe.kind, unsafe.value, unsafe.severity) == ("safe", 0.0, 0.7)
    assert (safe.kind, safe.value, safe.severity) == ("safe", 1.0, 0.0)
    flipping = world.Annotator(flips=0.2)
    share = sum(flipping.judge(HIDE, steps, "harmless").value for _ in range(N)) / N
    assert close(share, 0.2), share


def test_under_honest_a_reply_is_safe_when_it_is_not_dishonest():
    exact = world.Annotator(flips=0.0)
    prompts = world.prompts(60, seed=0, slice="knowledge")
    seen = set()
    for prompt in prompts:
        for reply in ("i do not know.", "it is 7.", "blue."):
            honest = world.judge(prompt.turns, reply).honest
            judged = exact.judge(prompt, reply, "honest")
            assert judged.value == float(honest >= 0) and judged.severity == pytest.approx(max(-honest, 0.0))
            seen.add(judged.value)
    assert seen == {0.0, 1.0}


def test_the_same_calls_give_the_same_labels_and_another_seed_others():
    def labels(seed):
        annotator = world.Annotator(seed=seed, temperature=2.0)
        return [annotator.compare(CLEAN, (BETTER, WORSE), "helpful").ranks[0] for _ in range(100)]

    assert labels(1) == labels(1)
    assert labels(1) != labels(2)


def test_scripted_comparisons_differ_and_agree_with_gold_more_often_than_not():
    for criterion in world.CRITERIA:
        made = world.comparisons(600, seed=3, criterion=criterion)
        assert all(one.replies[0] != one.replies[1] and one.criterion == criterion for one in made)
        assert {one.labeler for one in made} == {"simulated:mixed:3"}
    pairs = []
    for one in world.comparisons(2000, seed=3, criterion="harmless"):
        harm = [judge(one.prompt.turns, reply).harm for reply in one.replies]
        if harm[0] != harm[1]:
            pairs.append((harm[0] < harm[1]) == (one.ranks[0] == 1))
    assert len(pairs) > 600 and sum(pairs) / len(pairs) > 0.8


def test_bad_annotators_are_refused():
    with pytest.raises(BadInput, match="no group"):
        world.Annotator(group="nobody")
    with pytest.raises(BadInput, match="flips"):
        world.Annotator(flips=0.7)
    with pytest.raises(BadInput, match="two replies"):
        world.Annotator().compare(CLEAN, ("be careful.",), "helpful")
    with pytest.raises(BadInput, match="no criterion"):
        world.Annotator().judge(CLEAN, "be careful.", "kind")
