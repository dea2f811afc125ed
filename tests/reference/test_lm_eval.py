"""`accord evaluate tasks` and lm-evaluation-harness call the same questions right, to the last one."""

import json
import random
import shutil

import pytest

pytest.importorskip("lm_eval")
from tests.conftest import WORDS, sentence
from tests.reference.lm_eval_tasks import compare

ROWS = 40


def rows_of(shape, generator):
    text, choices = sentence(generator, 4, 8), [sentence(generator, 1, 5) for _ in range(4)]
    gold = generator.randrange(4)
    number = str(generator.randrange(90))
    return {
        "choices": {"query": f"Question: {text}?\nAnswer:", "choices": choices, "gold": gold},
        "schema": {"context_options": [f"{text} {w}" for w in ("he", "she")], "continuation": text, "gold": gold % 2},
        "next": {"context": text, "continuation": generator.choice(WORDS[:4])},
        "pair": {"sentence_good": text + ".", "sentence_bad": " ".join(text.split()[::-1]) + ".", "UID": "order"},
        "subject": {**dict(zip("ABCD", choices, strict=True)), "question": text, "answer": "ABCD"[gold]}
        | {"subject": "small_words"},
        "worked": {"question": f"{text} {number}?", "answer": f"it is {number}.\n#### {number}"},
    }[shape]


@pytest.mark.slow
def test_every_question_is_right_in_both_or_wrong_in_both(snapshots, tmp_path):
    generator = random.Random(11)
    files = {}
    for shape in ("choices", "schema", "next", "pair", "subject", "worked"):
        path = tmp_path / f"{shape}.jsonl"
        path.write_text("".join(json.dumps(rows_of(shape, generator)) + "\n" for _ in range(ROWS)))
        files[shape] = (shape, str(path))
    # lm-eval takes the tokenizer's word for whether a text begins with BOS; here the template's counts too
    model = tmp_path / "model"
    shutil.copytree(snapshots / "policy", model)
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|bos|>", ""))
    found = compare(str(model), files, tmp_path)
    assert {one.task for one in found} == set(files)
    assert [one for one in found if one.alike < one.questions] == []
    # not all of them are right, nor wrong: an agreement that could have failed
    assert {one.task for one in found if 0 < one.right < 1} >= {"choices", "schema", "pair", "subject"}
