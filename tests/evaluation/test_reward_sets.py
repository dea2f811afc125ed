"""Benchmarks of right and wrong replies: what counts as answered, by hand, and places that are kept."""

import json
import math

import pytest

from accord.data.parse import Reader
from accord.data.reward_sets import read_reward_set
from accord.data.sources import read_comparisons
from accord.errors import BadInput
from accord.evaluation.reward_boards import SECTIONS, board_rows, ties_score, weighted_mean
from accord.evaluation.reward_sets import RewardAnswer, credit, reward_numbers, style_accuracy
from accord.evaluation.statistics import Interval, share_interval


def answer(right, wrong, prompt="p", subset=""):
    return RewardAnswer(prompt, subset, tuple(right), tuple(wrong))


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ([2.0], [1.0], 1.0),
        ([1.0], [1.0], 0.5),
        ([1.0], [2.0], 0.0),
        ([3.0], [1.0, 2.0, 0.0], 1.0),  # the best of four
        ([2.0], [2.0, 2.0, 0.0], 1 / 3),
        ([0.0, 5.0], [1.0, 2.0], 1.0),  # any right reply will do
        ([2.0, 2.0], [2.0], 2 / 3),
    ],
)
def test_a_question_is_answered_by_the_best_score(right, wrong, expected):
    assert credit(answer(right, wrong)) == pytest.approx(expected)


def test_a_pair_is_hard_where_the_wrong_reply_is_the_more_elaborate():
    """Right 1, 5, 9 and wrong 2, 4, 9 from concise to elaborate.

    Hard: 1 < 4, 1 < 9, 5 < 9; normal: 1 < 2, 5 > 4, 9 = 9; easy: 5 > 2, 9 > 2, 9 > 4.
    """
    assert style_accuracy(answer([1, 5, 9], [2, 4, 9])) == {"hard": 0.0, "normal": 0.5, "easy": 1.0}
    # who looks at style alone knows all easy pairs and no hard one
    assert style_accuracy(answer([0, 1, 2], [0, 1, 2])) == {"hard": 0.0, "normal": 0.5, "easy": 1.0}


def test_numbers_by_subset_with_chance_and_intervals_over_prompts():
    answers = [answer([k % 4], [1.5, 0.5, 0.5], f"p{k}", "ab"[k % 2]) for k in range(40)]
    whole, a, b = reward_numbers(answers)
    assert (whole["subset"], whole["questions"], whole["chance"]) == ("all", 40, 0.25)
    assert whole["answered"] == share_interval([k % 4 >= 2 for k in range(40)]).json()
    assert a["answered"]["mean"] == 0.5 and b["answered"]["mean"] == 0.5 and "hard" not in whole
    (styled,) = reward_numbers([answer([1, 5, 9], [2, 4, 9], f"p{k}") for k in range(5)])
    assert styled["answered"]["mean"] == 0.5 and styled["hard"]["mean"] == 0 and styled["chance"] == 0.5


def test_a_row_is_of_its_own_subset_and_what_has_no_name_is_called_so():
    """Right are 1 of 3 questions without a subset and 2 of 2 of the other; chances 1/2, 1/4, 1/2 and 1/3, 1/2."""
    answers = [
        answer([1], [2], "p0"), answer([3], [0, 1, 2], "p1"), answer([0], [1], "p2"),
        answer([3], [1, 2], "p3", "math"), answer([3], [2], "p4", "math"),
    ]  # fmt: skip
    whole, unnamed, math_alone = reward_numbers(answers)
    assert [row["subset"] for row in (whole, unnamed, math_alone)] == ["all", "(unnamed)", "math"]
    assert [row["questions"] for row in (whole, unnamed, math_alone)] == [5, 3, 2]
    assert unnamed["answered"] == share_interval([0, 1, 0]).json()
    assert math_alone["answered"] == share_interval([1, 1]).json()
    assert unnamed["chance"] == pytest.approx(5 / 12) and math_alone["chance"] == pytest.approx(5 / 12)
    assert whole["chance"] == pytest.approx(5 / 12)
    assert [row["subset"] for row in reward_numbers(answers[3:])] == ["all"]


def test_a_row_with_styles_has_the_questions_and_every_level():
    """Right 1, 5, 9 and wrong 2, 4, 9: none, a half and all; right 3, 2, 1 and wrong 1, 2, 3: a third each."""
    answers = [answer([1, 5, 9], [2, 4, 9], "p0"), answer([3, 2, 1], [1, 2, 3], "p1")]
    (row,) = reward_numbers(answers)
    assert row.keys() == {"subset", "questions", "chance", "hard", "normal", "easy", "answered"}
    assert (row["questions"], row["chance"]) == (2, 0.5)
    levels = [style_accuracy(one) for one in answers]
    assert [row[level] for level in ("hard", "normal", "easy")] == [
        share_interval([by[level] for by in levels]).json() for level in ("hard", "normal", "easy")
    ]
    assert row["answered"] == share_interval([sum(by.values()) / 3 for by in levels]).json()


def write(tmp_path, *rows):
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_replies_keep_their_places_even_where_they_are_equal(tmp_path):
    """In RM-Bench a concise reply may be the plain one too; as a comparison to learn from it is said once."""
    row = {"id": 1, "subset": "chat", "prompt": "p", "chosen": ["a", "b", "b"], "rejected": ["c", "d", "b"]}
    source = write(tmp_path, row)
    (found,), drops = read_reward_set(source, Reader())
    assert found.replies == ("a", "b", "b", "c", "d", "b") and found.ranks == (1, 1, 1, 2, 2, 2) and not drops
    assert found.prompt.slice == "chat"
    with pytest.raises(BadInput, match="equal replies"):
        read_comparisons(source, "helpful")
    (learned,) = read_comparisons(write(tmp_path, row | {"rejected": ["c", "d", "d"]}), "helpful").records
    assert learned.replies == ("a", "b", "c", "d") and learned.ranks == (1, 1, 2, 2)


def test_every_shape_that_ranks_is_a_benchmark(tmp_path):
    for row, right in (
        ({"prompt": "p", "chosen": "a", "rejected": "b", "subset": "refusals"}, ("a",)),
        ({"prompt": "p", "chosen": ["a"], "rejected": ["b", "c", "d"], "subset": "Ties"}, ("a",)),
        ({"input": "p", "output_1": "b", "output_2": "a", "label": 2}, ("a",)),
        ({"prompt": "p", "corrects": [" (A)"], "incorrects": [" (B)"]}, (" (A)",)),
        (
            {"prompt": "Which? (A) b (B) a", "corrects": [" (B)"], "incorrects": [" (A)"]}
            | {
                f"text_{of}": f"\n\nHuman: p\n\nAssistant: {said}"
                for of, said in (("correct", "a"), ("incorrect", "b"))
            },
            ("a",),
        ),
    ):
        (found,), _ = read_reward_set(write(tmp_path, row), Reader())
        assert tuple(r for r, rank in zip(found.replies, found.ranks, strict=True) if rank == 1) == right
        assert found.prompt.slice == row.get("subset", "")
    tie = {"prompt": "p", "response 1": "a", "response 2": "b", "label": 2}
    with pytest.raises(BadInput, match=r"no questions are left of 1 rows \(1 × tie"):
        read_reward_set(write(tmp_path, tie), Reader())


def test_sections_are_weighed_as_the_benchmark_does():
    """Safety: subsets at 1, 0, ½, 1, 0 weigh 100, 100, 250, 154, 136."""
    shares = {"refusals-dangerous": 1, "refusals-offensive": 0, "xstest-should-refuse": 0.5,
              "xstest-should-respond": 1, "donotanswer": 0}  # fmt: skip
    answers = [answer([1 if k < 4 * share else -1], [0], f"{name} {k}", name) for name, share in shares.items()
               for k in range(4)]  # fmt: skip
    (safety,) = board_rows(answers)
    assert safety["subset"] == "section Safety" and safety["missing"] == [] and safety["questions"] == 20
    assert safety["answered"]["mean"] == pytest.approx((100 + 125 + 154) / 740)
    more = [*answers, answer([1], [0], "m", "math-prm"), answer([0], [1], "c", "hep-go")]
    _, reasoning, whole = board_rows(more)
    assert reasoning["answered"]["mean"] == pytest.approx(984 / (984 + 164)) and "hep-js" in reasoning["missing"]
    assert whole["subset"] == "RewardBench" and whole["missing"] == ["Chat", "Chat Hard"]
    assert whole["answered"]["mean"] == pytest.approx((379 / 740 + 984 / 1148) / 2)
    assert board_rows([answer([1], [0], "x", "other")]) == []
    assert {name: sum(w.values()) for name, w in SECTIONS.items()} == {
        "Chat": 358, "Chat Hard": 456, "Safety": 740, "Reasoning": 1968,
    }  # fmt: skip


def tie(kind, number, right, wrong):
    return RewardAnswer(f"{kind}{number}", "Ties", tuple(right), tuple(wrong), f"{kind}:{number}")


def test_ties_by_hand():
    """1: gap 3 over spread 1, its ref's gap ½; 2: gap 1 under spread 2; 3: a wrong reply above a right one."""
    answers = [
        tie("tied", 1, [5, 4], [1]), tie("ref", 1, [2], [1.5]),
        tie("tied", 2, [5, 3], [2]), tie("ref", 2, [2], [0]),
        tie("tied", 3, [5, 1], [2]), tie("ref", 3, [0], [1]),
    ]  # fmt: skip
    found = ties_score(answers, seed=0, resamples=100)
    margins = [math.tanh(0.5 - 1), math.tanh(0.5 - 1), math.tanh(-1 / 4 - 1)]
    assert found["parts"] == pytest.approx(
        {"tied": 2 / 3, "ref": 2 / 3, "preferred": 1 / 3, "preferred_hard": 0, "margin": sum(margins) / 3}
    )
    expected = 0.3 * 2 / 3 + 0.3 * 2 / 3 + 0.2 / 3 + 0.01 * sum(margins) / 3
    assert found["answered"]["mean"] == pytest.approx(expected)
    # equal right replies: any gap is wider, and no gap at all counts nothing
    even = ties_score([tie("tied", 1, [5, 5], [1]), tie("ref", 1, [2], [1])], seed=0, resamples=10)
    assert even["answered"]["mean"] == pytest.approx(1.01)
    assert ties_score([tie("tied", 1, [5], [1])], seed=0, resamples=10) is None
    others = [answer([1], [0], f"f{k}", "Factuality") for k in range(4)] + [answer([0], [1], "m", "Math")]
    ties, whole = board_rows([*answers, *others], resamples=50)
    assert ties["subset"] == "Ties, score" and whole["subset"] == "RewardBench 2"
    assert whole["answered"]["mean"] == pytest.approx((1 + 0 + expected) / 3)
    assert whole["missing"] == ["Focus", "Precise IF", "Safety"]


def test_the_name_of_a_question_is_its_id(tmp_path):
    row = {"id": "tied:7", "subset": "Ties", "prompt": "p", "chosen": ["a", "b"], "rejected": ["c"]}
    (found,), _ = read_reward_set(write(tmp_path, row), Reader())
    assert (found.prompt.source, found.prompt.slice) == ("tied:7", "Ties")


def test_errors_of_independent_parts_add_up_in_squares():
    """Weights 3 and 1: (3 · .6 + .2) / 4; below √((3 · .1)² + .1²) / 4, above √((3 · .2)² + .4²) / 4."""
    found = weighted_mean([Interval(0.6, 0.5, 0.8, 10), Interval(0.2, 0.1, 0.6, 5)], [3, 1])
    below, above = math.hypot(0.3, 0.1) / 4, math.hypot(0.6, 0.4) / 4
    assert found == Interval(pytest.approx(0.5), pytest.approx(0.5 - below), pytest.approx(0.5 + above), 15)


def test_parts_without_a_weight_are_refused():
    with pytest.raises(ValueError, match="zip"):
        weighted_mean([Interval(0.6, 0.5, 0.8, 10), Interval(0.2, 0.1, 0.6, 5)], [3])


def test_a_set_that_is_only_in_part_of_a_board_has_no_score_of_it():
    answers = [answer([1], [0], "m", "math-prm"), answer([0], [1], "c", "hep-go")]
    assert [row["subset"] for row in board_rows(answers)] == ["section Reasoning"]
    assert board_rows([*answers, answer([1], [0], "x", "other")]) == []


def test_ties_without_their_other_half_count_in_what_they_have():
    """Two of four names are pairs; a tied one and a ref alone count as such, and what is named otherwise not at all."""
    answers = [
        tie("tied", 1, [5, 4], [1]), tie("ref", 1, [2], [1.5]),  # wide, but its ref's gap is not
        tie("tied", 2, [5, 3], [2]), tie("tied", 3, [9, 8], [1]), tie("ref", 4, [0], [1]),
        tie("other", 1, [0], [9]), RewardAnswer("x", "Ties", (9.0,), (0.0,), "tied:"),
        RewardAnswer("y", "Ties", (0.0,), (9.0,), "5"),
    ]  # fmt: skip
    found = ties_score(answers, seed=0, resamples=100)
    assert found["parts"] == pytest.approx(
        {"tied": 1.0, "ref": 0.5, "preferred": 1.0, "preferred_hard": 0.0, "margin": math.tanh(-0.5)}
    )
    assert found["answered"]["mean"] == pytest.approx(0.3 + 0.15 + 0.2 + 0.01 * math.tanh(-0.5))
    assert found["answered"]["n"] == 5
    assert ties_score([tie("ref", 1, [2], [1])], seed=0, resamples=10) is None
    assert ties_score([tie("tied", 1, [5, 4], [1]), tie("ref", 2, [2], [1])], seed=0, resamples=10) is None


@pytest.mark.parametrize(
    ("gap_of_ref", "margin", "hard"), [(0.5, 1.0, 1.0), (0.0, 0.0, 0.0), (-0.5, -1.0, 0.0)], ids=str
)
def test_the_margin_of_equal_right_replies_is_the_sign_of_the_gap(gap_of_ref, margin, hard):
    answers = [tie("tied", 1, [5, 5], [1]), tie("ref", 1, [2 + gap_of_ref], [2])]
    parts = ties_score(answers, seed=0, resamples=10)["parts"]
    assert (parts["margin"], parts["preferred"], parts["preferred_hard"]) == (margin, 1.0, hard)


def test_the_score_of_the_second_board_is_of_its_subsets_alone_with_their_errors():
    answers = [
        tie("tied", 1, [5, 4], [1]), tie("ref", 1, [2], [1.5]), tie("tied", 2, [5, 3], [2]), tie("ref", 2, [2], [0]),
        tie("tied", 3, [5, 1], [2]), tie("ref", 3, [0], [1]),
    ]  # fmt: skip
    maths = [answer([k % 3], [0.5], f"m{k}", "Math") for k in range(7)]
    focus = [answer([k], [1.5], f"f{k}", "Focus") for k in range(4)]
    ties, whole = board_rows([*answers, *maths, *focus, answer([0], [1], "x", "Other")], resamples=50, seed=3)
    assert ties["questions"] == 6 and ties["answered"] == ties_score(answers, seed=3, resamples=50)["answered"]
    own, *parts = ties["answered"], share_interval([k % 3 > 0 for k in range(7)]), share_interval([0, 0, 1, 1])
    assert own["low"] < own["mean"] < own["high"]
    answered = whole["answered"]
    assert answered["mean"] == pytest.approx((own["mean"] + sum(part.mean for part in parts)) / 3)
    below = math.hypot(own["mean"] - own["low"], *(part.mean - part.low for part in parts)) / 3
    above = math.hypot(own["high"] - own["mean"], *(part.high - part.mean for part in parts)) / 3
    assert answered["low"] == pytest.approx(answered["mean"] - below)
    assert answered["high"] == pytest.approx(answered["mean"] + above)
    assert whole["questions"] == answered["n"] == 17
    assert whole["missing"] == ["Factuality", "Precise IF", "Safety"]
    only = board_rows([*answers, *maths, answer([0], [1], "x", "Other")], resamples=20)
    assert [row["subset"] for row in only] == ["Ties, score"], "two other subsets are the least"
