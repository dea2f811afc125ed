"""What of one source stands in another, against a slow oracle and on cases that are known."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.data.overlap import Stain, find_overlap
from accord.data.parse import Reader


def write(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def stains(folder: Path, a: list[dict], b: list[dict], ngram: int = 5) -> dict[int, Stain]:
    return find_overlap(write(folder / "a.jsonl", *a), write(folder / "b.jsonl", *b), Reader(), None, ngram)


LONG = "one two three four five six seven eight nine ten"


def test_a_prompt_is_found_whatever_its_case_marks_and_shape(tmp_path):
    a = [
        {"prompt": "How, exactly, IS it?", "chosen": "a", "rejected": "b"},
        {"prompt": "Something else?", "chosen": "a", "rejected": "b"},
    ]
    b = [{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "how exactly is it"}]}]
    assert stains(tmp_path, a, b) == {0: Stain(f"{tmp_path / 'b.jsonl'}:1", 0.0)}


def test_a_part_is_found_in_prompts_replies_and_documents(tmp_path):
    half = " ".join(LONG.split()[:5])
    a = [{"prompt": half, "completion": "x y z u v"}, {"text": "a b c"}][:1]
    for b in (
        [{"prompt": "other", "completion": f"so: {LONG}"}],
        [{"text": f"{LONG} more"}],
        [{"prompt": LONG, "chosen": "c", "rejected": "d"}],
    ):
        assert stains(tmp_path, a, b) == {0: Stain("", 0.5)}
    assert stains(tmp_path, a, [{"text": " ".join(LONG.split()[:4])}]) == {}


def test_no_passage_runs_over_the_end_of_a_turn(tmp_path):
    assert stains(tmp_path, [{"prompt": "a b c", "completion": "d e f"}], [{"text": "a b c d e f"}], 4) == {}


def test_rows_that_say_nothing_keep_their_numbers(tmp_path):
    a = [{"messages": [{"role": "user", "content": None}]}, {"messages": [{"role": "user", "content": LONG}]}]
    assert list(stains(tmp_path, a, [{"text": LONG}])) == [1]


words = st.lists(st.sampled_from("abc"), min_size=1, max_size=12).map(" ".join)


@given(words, words, st.integers(2, 4))
def test_the_share_is_that_of_words_in_a_common_passage(tmp_path_factory, a, b, n):
    said, known = a.split(), b.split()
    grams = {tuple(known[i : i + n]) for i in range(len(known) - n + 1)}
    covered = {k for i in range(len(said) - n + 1) if tuple(said[i : i + n]) in grams for k in range(i, i + n)}
    found = stains(tmp_path_factory.mktemp("s"), [{"text": a}], [{"text": b}], n).get(0, Stain("", 0.0))
    assert found.share == pytest.approx(len(covered) / len(said))
    assert bool(found.exact) == (said == known)


def test_a_planted_share_of_rows_is_found(tmp_path):
    """Of 200 rows, the 50 that were copied into the other source, and no other."""
    generator = random.Random(1)
    vocabulary = [f"w{i}" for i in range(500)]
    texts = [" ".join(generator.choices(vocabulary, k=30)) for _ in range(400)]
    a = [{"prompt": text.split(" ", 9)[0] + f" {i}", "completion": text} for i, text in enumerate(texts[:200])]
    b = [{"text": f"before {text} after"} for text in texts[:50] + texts[200:]]
    found = stains(tmp_path, a, b, 13)
    assert sorted(found) == list(range(50)) and all(stain.share > 0.9 for stain in found.values())
