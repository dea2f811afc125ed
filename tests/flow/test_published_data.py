"""What commands do with data as people publish it: looked at, kept, compared with training data, refused in time."""

import json

import pytest

from accord.cli import main
from accord.data.sources import read_comparisons
from tests.conftest import read_rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refused(capsys, code):
    err = capsys.readouterr().err
    messages = [line for line in err.splitlines() if line.startswith("accord ")]
    assert code == 2 and len(messages) == 1 and "Traceback" not in err, err
    return messages[0]


def talk(*texts):
    return [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(texts)]


UNEVEN = [
    {"chosen": talk(f"ask {i}", "the cat is", "more", "a dog"), "rejected": talk(f"ask {i}", f"no {i}")}
    for i in range(40)
]


def test_data_keeps_what_is_of_use_and_says_what_is_not(commands, tmp_path, capsys):
    rows = [json.loads(line) for line in (commands.files / "comparisons.jsonl").read_text().splitlines()]
    rows[3]["rejected"] = rows[3]["chosen"]
    source = write(tmp_path / "pairs.jsonl", rows)
    assert main(["data", str(source), "--out", str(tmp_path / "kept.jsonl")]) == 0
    said = capsys.readouterr().out
    assert f"79 comparisons to {tmp_path / 'kept.jsonl'}; dropped 1 equal replies" in said
    assert len(read_comparisons(str(tmp_path / "kept.jsonl"), "helpful").records) == 79
    assert [row["where"] for row in read_rows(tmp_path / "kept.dropped.jsonl")] == [f"{source}:4"]
    assert "is there already" in refused(capsys, main(["data", str(source), "--out", str(tmp_path / "kept.jsonl")]))


def test_data_of_which_nothing_is_left_is_refused_with_the_reasons(tmp_path, capsys):
    pictured = [{"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}, *talk("", "b")[1:]]}] * 3
    message = refused(capsys, main(["data", str(write(tmp_path / "a.jsonl", pictured))]))
    assert "3 rows (3 × image part)" in message
    message = refused(capsys, main(["data", str(write(tmp_path / "b.jsonl", UNEVEN))]))
    assert "sides part before the last turn: --uneven cut" in message
    assert main(["data", str(tmp_path / "b.jsonl"), "--uneven", "cut"]) == 0


def test_data_shows_which_rows_stand_in_training_data_and_keeps_the_others(commands, tmp_path, capsys):
    trained = [json.loads(line) for line in (commands.files / "demonstrations.jsonl").read_text().splitlines()]
    passage = " ".join(f"word{i}" for i in range(20))
    asked = [
        {"prompt": trained[5]["prompt"].upper(), "chosen": "x", "rejected": "y"},
        {"prompt": "new one", "chosen": passage, "rejected": "y"},
        {"prompt": "new two", "chosen": f"{passage} " + "other " * 60, "rejected": "y"},
        {"prompt": "new three", "chosen": "x", "rejected": "y"},
    ]
    evaluation = write(tmp_path / "evaluation.jsonl", asked)
    training = write(tmp_path / "training.jsonl", [*trained, {"prompt": "p", "completion": f"so {passage} so"}])
    line = ["data", str(evaluation), "--against", str(training)]
    assert main([*line, "--out", str(tmp_path / "clean.jsonl")]) == 0
    said = capsys.readouterr().out
    assert f"2 of 4 rows stand in {training}: 1 by their prompt, 1 with 50%" in said
    assert "3 share anything" in said and f"the first prompt stands at {training}:6" in said
    assert [row["prompt"][0]["content"] for row in read_rows(tmp_path / "clean.jsonl")] == ["new two", "new three"]
    reasons = [row["reason"] for row in read_rows(tmp_path / "clean.dropped.jsonl")]
    assert reasons == [f"prompt stands in {training}", f"13-grams stand in {training}"]
    assert main([*line, "--overlap", "0.1"]) == 0
    assert "3 of 4 rows" in capsys.readouterr().out
    assert "--ngram has no effect" in refused(capsys, main(["data", str(evaluation), "--ngram", "5"]))


def test_chats_that_all_open_alike_are_refused_by_that_name(commands, tmp_path, capsys):
    greeted = [talk("Hello!", "the cat", f"ask {i}", "a dog is") for i in range(30)]
    shown = write(tmp_path / "chats.jsonl", [{"messages": chat} for chat in greeted])
    pairs = write(
        tmp_path / "pairs.jsonl",
        [{"chosen": chat, "rejected": [*chat[:-1], {"role": "assistant", "content": "no"}]} for chat in greeted],
    )
    assert main(["data", str(shown)]) == 0 and "1 different; all alike" in capsys.readouterr().out
    for name, data, changes in (
        ("sft", shown, {}),
        ("sft", shown, {"split": "policy"}),
        ("sft", shown, {"split": "preference"}),
        ("preference", pairs, {}),
        ("dpo", pairs, {}),
    ):
        code = commands.run(name, tmp_path / "run", data=data, **changes)
        if code == 2:
            assert "begin with the same first turn of the user" in refused(capsys, code)
        else:  # the split that they all fall into holds nothing out
            raise AssertionError(f"{name} {changes} was not refused")


@pytest.mark.parametrize("loss", ["kto", "bco"])
@pytest.mark.parametrize(("labels", "words"), [([True] * 20, "all 20 are good"), ([False] * 20, "all 20 are bad")])
def test_labels_of_one_side_are_refused_by_that_name(commands, tmp_path, capsys, loss, labels, words):
    rows = [{"prompt": f"ask {i}", "completion": "the cat", "label": good} for i, good in enumerate(labels)]
    data = write(tmp_path / "labels.jsonl", rows)
    line = ["dpo", "--model", str(commands.snapshots / "policy"), "--unpaired_data", str(data), "--loss", loss]
    message = refused(capsys, main([*line, "--kl_prompts", "0", "--out", str(tmp_path / "run")]))
    assert words in message and "add the other side" in message.lower()


def test_one_label_is_no_side_against_another(commands, tmp_path, capsys):
    data = write(tmp_path / "labels.jsonl", [{"prompt": "ask", "completion": "the cat", "label": True}])
    line = ["dpo", "--model", str(commands.snapshots / "policy"), "--unpaired_data", str(data), "--loss", "kto"]
    assert "there is 1" in refused(capsys, main([*line, "--out", str(tmp_path / "run")]))


def test_a_preference_model_of_good_replies_alone_is_refused(commands, tmp_path, capsys):
    rows = [{"prompt": f"ask {i}", "completion": "the cat", "label": True} for i in range(20)]
    data = write(tmp_path / "labels.jsonl", rows)
    line = ["preference", "--model", str(commands.snapshots / "policy"), "--unpaired_data", str(data)]
    message = refused(capsys, main([*line, "--out", str(tmp_path / "run")]))
    assert "all 20 labelled replies are good" in message


def test_uneven_pairs_are_trained_on_once_they_are_cut(commands, tmp_path, capsys):
    data = write(tmp_path / "pairs.jsonl", UNEVEN)
    assert "--uneven cut" in refused(capsys, commands.run("preference", tmp_path / "run", data=data))
    assert commands.run("preference", tmp_path / "run", data=data, uneven="cut", eval_share=0.3, epochs=0.5) == 0
    (report,) = json.loads((tmp_path / "run" / "data" / "data.json").read_text())
    assert report["notes"] == {"cut where the sides part": 40}


def test_an_endless_word_is_dropped_as_too_long(commands, tmp_path, capsys):
    rows = [json.loads(line) for line in (commands.files / "demonstrations.jsonl").read_text().splitlines()]
    rows[7]["completion"] = "ab" * 200_000
    data = write(tmp_path / "word.jsonl", rows)
    assert commands.run("sft", tmp_path / "run", data=data, epochs=0.5) == 0
    assert "dropped 1 of" in capsys.readouterr().out
