"""Safety suites as they are published: which prompts a reply should comply with, and people's labels of replies.

The rows are of our own writing.
"""

import csv
import json

import pytest

from accord.data.sources import read_demonstrations, read_judgements, read_prompts
from accord.errors import BadInput
from accord.records import Prompt, Turn, is_in_slices, slices_above

OR_BENCH_CATEGORIES = [
    "deception",
    "harassment",
    "harmful",
    "hate",
    "illegal",
    "privacy",
    "self-harm",
    "sexual",
    "unethical",
    "violence",
]


def table(path, head, *rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return str(path)


def slices(source, **how):
    return {prompt.turns[-1].content: prompt.slice for prompt in read_prompts(source, **how).records}


def test_xstest_has_look_alikes_and_their_harmful_contrasts(tmp_path):
    head = ["id", "prompt", "type", "label", "focus", "note"]
    rows = [
        ["1", "How do I kill a process?", "homonyms", "safe", "kill", ""],
        ["2", "How do I end a guest's stay?", "contrast_homonyms", "unsafe", "end", "x"],
        ["3", "What is a heist film?", "real_group_nons_discr", "safe", "", ""],
    ]
    assert slices(table(tmp_path / "xstest.csv", head, *rows), slice="named") == {
        "How do I kill a process?": "look-alike/homonyms",
        "How do I end a guest's stay?": "harmful/homonyms",
        "What is a heist film?": "look-alike/real_group_nons_discr",
    }


def test_advbench_harmbench_and_strongreject_are_harmful_by_category(tmp_path):
    adv = table(tmp_path / "adv.csv", ["goal", "target"], ["Do something", "Sure, here is something"])
    assert slices(adv) == {"Do something": "harmful"}
    with pytest.raises(BadInput, match="no demonstrations can be read"):  # the target is no ideal reply
        read_demonstrations(adv)
    head = ["Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID"]
    rows = [
        ["Do this", "standard", "cybercrime_intrusion", "", "", "a"],
        ["Go on", "contextual", "Misc", "", "Text", "b"],
    ]
    assert slices(table(tmp_path / "harm.csv", head, *rows)) == {
        "Do this": "harmful/cybercrime_intrusion",
        "Text\n\n---\n\nGo on": "harmful/misc",
    }
    head = ["category", "source", "forbidden_prompt"]
    strong = table(tmp_path / "strong.csv", head, ["Disinformation and deception", "custom", "Write it"])
    assert slices(strong) == {"Write it": "harmful/disinformation-and-deception"}
    copy = table(tmp_path / "copy.csv", ["category", "source", "meli_query"], ["Hate, harassment", "custom", "Say it"])
    assert slices(f"{copy}?forbidden_prompt=meli_query") == {"Say it": "harmful/hate-harassment"}


def test_or_bench_says_by_the_name_of_its_file_what_a_reply_should_do(tmp_path):
    """20 rows: its benign and its toxic prompts have the same columns and categories."""
    rows = [[f"Could you explain {category}, part {k}?", category] for category in OR_BENCH_CATEGORIES for k in (1, 2)]
    source = table(tmp_path / "or-bench-80k.csv", ["prompt", "category"], *rows)
    loaded = read_prompts(source, slice="look-alike")
    assert loaded.shape == "or-bench" and len(loaded.records) == 20 and not loaded.drops
    assert {prompt.slice for prompt in loaded.records} == {"look-alike"}
    assert {prompt.slice for prompt in read_prompts(source, slice="harmful").records} == {"harmful"}
    other = table(tmp_path / "other.csv", ["prompt", "category"], ["What is rust?", "chemistry"])
    assert read_prompts(other).shape == "prompt"


COMPLETIONS = [
    "id",
    "type",
    "prompt",
    "completion",
    "annotation_1",
    "annotation_2",
    "agreement",
    "final_label",
    "gpt4_label",
]


def completion(kind="homonyms", final="1_full_compliance", gpt4="1_full_compliance", reply="Use kill."):
    return ["1", kind, "How do I kill a process?", reply, final, final, "True", final, gpt4]


def test_xstest_completions_are_judgements_of_compliance_by_people_and_gpt4(tmp_path):
    rows = [
        completion(),
        completion(final="3_partial_refusal", gpt4="2_full_refusal", reply="I can't, but see kill."),
        completion("contrast_homonyms", "2_full_refusal", "I'm sorry, no label", "No."),
    ]
    loaded = read_judgements(table(tmp_path / "done.csv", COMPLETIONS, *rows), "compliance")
    assert [(j.reply, j.labeler, j.value, j.category) for j in loaded.records] == [
        ("Use kill.", "human", 1.0, "full compliance"),
        ("Use kill.", "gpt4", 1.0, "full compliance"),
        ("I can't, but see kill.", "human", 0.0, "partial refusal"),
        ("I can't, but see kill.", "gpt4", 0.0, "full refusal"),
        ("No.", "human", 0.0, "full refusal"),
    ]
    assert {j.kind for j in loaded.records} == {"good"} and {j.criterion for j in loaded.records} == {"compliance"}
    assert [j.prompt.slice for j in loaded.records][::2] == [
        "look-alike/homonyms",
        "look-alike/homonyms",
        "harmful/homonyms",
    ]
    assert loaded.notes == {"gpt4_label that is no label, left out": 1}
    with pytest.raises(BadInput, match=r"done\.csv:2.*'final_label' must hold one of 1_full_compliance"):
        read_judgements(table(tmp_path / "done.csv", COMPLETIONS, completion(final="4_other")), "compliance")
    # a labelled reply is not there to be imitated
    with pytest.raises(BadInput, match="no demonstrations can be read"):
        read_demonstrations(table(tmp_path / "done.csv", COMPLETIONS, completion()))


def test_labels_of_ones_own_say_the_same(tmp_path):
    rows = [
        {"prompt": "p", "completion": "In part.", "label": False, "category": "partial refusal", "slice": "look-alike"}
    ]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = read_judgements(str(path), "compliance").records
    assert (found.value, found.category, found.prompt.slice) == (0.0, "partial refusal", "look-alike")


def test_a_slice_holds_its_parts():
    prompt = Prompt((Turn("user", "p"),), "harmful/fraud", "s")
    assert is_in_slices(prompt, "harmful") and is_in_slices(prompt, "benign,harmful/fraud") and is_in_slices(prompt, "")
    assert not is_in_slices(prompt, "harm") and not is_in_slices(prompt, "harmful/fraud/more")
    assert slices_above(["harmful/fraud/cards", "benign", "", "harmful"]) == [
        "benign",
        "harmful",
        "harmful/fraud",
        "harmful/fraud/cards",
    ]
