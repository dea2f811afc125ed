"""Benchmarks of right and wrong replies: what counts as answered, by hand, and places that are kept."""

import json

import pytest

from accord.data.parse import Reader
from accord.data.reward_sets import read_reward_set
from accord.data.sources import read_comparisons
from accord.errors import BadInput
from accord.evaluation.reward_sets import RewardAnswer, credit, reward_numbers, style_accuracy
from accord.evaluation.statistics import share_interval


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
    ):
        (found,), _ = read_reward_set(write(tmp_path, row), Reader())
        assert tuple(r for r, rank in zip(found.replies, found.ranks, strict=True) if rank == 1) == right
        assert found.prompt.slice == row.get("subset", "")
    tie = {"prompt": "p", "response 1": "a", "response 2": "b", "label": 2}
    with pytest.raises(BadInput, match=r"no questions are left of 1 rows \(1 × tie"):
        read_reward_set(write(tmp_path, tie), Reader())
