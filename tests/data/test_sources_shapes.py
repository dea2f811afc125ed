"""Shapes: what one row of each says, and the traps of transcripts and pairs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.data.conversations import Dropped, parse_transcript, split_transcript
from accord.data.shapes import SHAPES, recognise
from accord.data.sources import read_comparisons, read_demonstrations, read_judgements, read_prompts
from accord.errors import BadInput
from accord.records import Turn
from tests.fixtures.rows import assistant, user, write_rows

# HH transcripts

# A turn's own text: no speaker mark, nothing to strip.
spoken = st.text(max_size=30).map(str.strip).filter(lambda t: "Human:" not in t and "Assistant:" not in t)


@given(st.lists(st.tuples(spoken, spoken), max_size=3), spoken, spoken)
def test_a5_a_transcript_of_turns_gives_the_turns_back(before, opening, reply):
    turns = [Turn("user", opening)]
    for said, asked in before:
        turns += [Turn("assistant", said), Turn("user", asked)]
    names = {"user": "Human", "assistant": "Assistant"}
    text = "".join(f"\n\n{names[t.role]}: {t.content}" for t in turns)
    assert split_transcript(f"{text}\n\nAssistant: {reply}") == (tuple(turns), reply)
    assert parse_transcript(f"{text}\n\nAssistant:") == tuple(turns)


def test_a5_replies_that_begin_alike_keep_every_word(tmp_path):
    row = {
        "chosen": "\n\nHuman: Is it so?\n\nAssistant: Yes, it is.",
        "rejected": "\n\nHuman: Is it so?\n\nAssistant: Yes",
    }
    (pair,) = read_comparisons(write_rows(tmp_path, row), "helpful").records
    assert pair.prompt.turns == (("user", "Is it so?"),) and pair.replies == ("Yes, it is.", "Yes")
    listed = {
        "chosen": [user("Is it so?"), assistant("Yes, it is.")],
        "rejected": [user("Is it so?"), assistant("Yes")],
    }
    assert read_comparisons(write_rows(tmp_path, listed), "helpful").records[0].id == pair.id


def test_a5_a_prompt_that_one_side_shares_only_in_part_is_dropped(tmp_path):
    longer = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d"
    good = {"chosen": longer, "rejected": longer + "!"}
    shorter = {"chosen": longer, "rejected": "\n\nHuman: a\n\nAssistant: b"}
    other = {"chosen": longer, "rejected": longer.replace("c", "e")}
    loaded = read_comparisons(write_rows(tmp_path, good, shorter, other), "helpful")
    assert (len(loaded.records), loaded.drops) == (1, {"prompts differ": 2})


def test_the_last_assistant_mark_begins_the_reply_whatever_follows():
    turns, reply = split_transcript("\n\nHuman: a\n\nAssistant: b\n\nAssistant: c\n\nHuman: d")
    assert turns == (("user", "a"), ("assistant", "b")) and reply == "c\n\nHuman: d"


def test_white_space_around_turns_is_no_difference(tmp_path):
    row = {"chosen": "\n\nHuman:  a \n\nAssistant: b ", "rejected": "Human: a\n\nAssistant:  c\n"}
    (pair,) = read_comparisons(write_rows(tmp_path, row), "helpful").records
    assert pair.prompt.turns == (("user", "a"),) and pair.replies == ("b", "c")


@pytest.mark.parametrize(
    "text", ["", "plain", "\n\nHuman: a", "system\n\nHuman: a\n\nAssistant: b", "\n\nAssistant: b"]
)
def test_malformed_transcripts_are_dropped_by_that_name(text):
    with pytest.raises(Dropped, match="malformed transcript"):
        split_transcript(text)


# Pairs


def test_a7_replies_that_are_equal_once_parsed_are_dropped_and_counted(tmp_path):
    rows = [
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant:  b \n"},
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    ]
    loaded = read_comparisons(write_rows(tmp_path, *rows), "helpful")
    assert (len(loaded.records), loaded.drops, loaded.rows) == (1, {"equal replies": 1}, 2)
    plain = [
        {"prompt": "a", "chosen": "b", "rejected": " b\n"},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
    ]
    assert read_comparisons(write_rows(tmp_path, *plain), "helpful").drops == {"equal replies": 1}


def test_a8_both_sides_are_looked_at(tmp_path):
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    rows = [good, {**good, "chosen": " "}, {**good, "rejected": ""}, {**good, "chosen": "", "rejected": ""}]
    loaded = read_comparisons(write_rows(tmp_path, *rows), "helpful")
    assert (len(loaded.records), loaded.drops) == (1, {"empty reply": 3})
    ranked = {"prompt": "p", "responses": ["a", "b", "c"], "ranks": [1, 2, 3]}
    rows = [
        ranked,
        *({**ranked, "responses": r} for r in (["", "b", "c"], ["a", "", "c"], ["a", "b", ""], ["a", "b", "b"])),
    ]
    loaded = read_comparisons(write_rows(tmp_path, *rows), "helpful")
    assert loaded.drops == {"empty reply": 3, "equal replies": 1}


def test_a8_a_prompt_taken_from_either_side_alone_would_differ(tmp_path):
    good = {"chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("c")]}
    bad = [{**good, "rejected": [user("x"), assistant("c")]}, {**good, "chosen": [user("x"), assistant("b")]}]
    for reader, args in ((read_comparisons, ["helpful"]), (read_prompts, []), (read_demonstrations, [])):
        assert reader(write_rows(tmp_path, good, *bad), *args).drops == {"prompts differ": 2}


def test_plain_and_conversational_preferences_are_the_same_record(tmp_path):
    forms = [
        {"prompt": "p", "chosen": "a", "rejected": "b", "margin": 2},
        {"prompt": [user("p")], "chosen": [assistant("a")], "rejected": [assistant("b")], "margin": 2.0},
        {
            "prompt": "p",
            "chosen": [user("p"), assistant("a")],
            "rejected": [user("p"), assistant("b")],
            "margin": 2,
        },
        {"chosen": [user("p"), assistant("a")], "rejected": [user("p"), assistant("b")], "margin": 2},
        {"chosen": "\n\nHuman: p\n\nAssistant: a", "rejected": "\n\nHuman: p\n\nAssistant: b", "margin": 2},
        {"prompt": "\n\nHuman: p\n\nAssistant:", "chosen": " a", "rejected": " b", "margin": 2},
        {
            "prompt": [{"from": "human", "value": "p"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
            "margin": 2,
        },
    ]
    records = [read_comparisons(write_rows(tmp_path, form), "helpful").records for form in forms]
    assert all(found == records[0] for found in records)
    (pair,) = records[0]
    assert (pair.replies, pair.ranks, pair.strength, pair.order) == (("a", "b"), (1, 2), 2.0, (0, 1))
    assert (pair.criterion, pair.labeler) == ("helpful", "human")


def test_plain_replies_keep_their_white_space(tmp_path):
    row = {"prompt": "def f():", "chosen": "    return 1\n", "rejected": "    return"}
    assert read_comparisons(write_rows(tmp_path, row), "helpful").records[0].replies[0] == "    return 1\n"


def test_a_side_that_ends_with_the_user_has_no_reply(tmp_path):
    good = {"prompt": "p", "chosen": [assistant("a")], "rejected": [assistant("b")]}
    loaded = read_comparisons(write_rows(tmp_path, good, {**good, "rejected": [user("b")]}), "helpful")
    assert loaded.drops == {"no reply": 1}


def test_a_prompt_ends_where_a_reply_is_due(tmp_path):
    good = {"prompt": [user("p")], "chosen": "a", "rejected": "b"}
    rows = [
        good,
        {**good, "prompt": [user("p"), assistant("so far")]},
        {**good, "prompt": []},
        {**good, "prompt": " "},
        {**good, "prompt": [user("p"), {"role": "tool", "content": "7"}]},
    ]
    loaded = read_prompts(write_rows(tmp_path, *rows))
    assert loaded.drops == {"two assistant turns at the end": 1, "empty prompt": 2} and len(loaded.records) == 2
    open_ended = read_prompts(write_rows(tmp_path, {"prompt": [user("p")]}, {"prompt": [user("p"), assistant("a")]}))
    assert open_ended.drops == {"prompt ends with the assistant": 1}


# Judgements, rankings, demonstrations

HHH = {  # as it is published
    "prompt": "\n\nConsider the following conversation between a human and an assistant:\n\nHuman: p\n\n\nPlease "
    "choose. Options:\n (A) [[[b]]]\n (B) [[[a]]]\n\nThe answer is:",
    "corrects": [" (B)"],
    "incorrects": [" (A)"],
    "text_correct": "\n\nHuman: p\n\nAssistant: a",
    "text_incorrect": "\n\nHuman: p\n\nAssistant: b",
}
SAFE_RLHF = {
    "prompt": "p",
    "response_0": "a",
    "response_1": "b",
    "better_response_id": 1,
    "safer_response_id": 0,
    "is_response_0_safe": True,
    "is_response_1_safe": False,
    "response_0_harm_category": {"Violence": False},
    "response_1_harm_category": {"Violence": True, "Theft": True, "Other": False},
    "response_0_severity_level": 0,
    "response_1_severity_level": 3,
}


def test_safe_rlhf_holds_two_comparisons_and_two_judgements(tmp_path):
    source = write_rows(tmp_path, SAFE_RLHF)
    assert read_comparisons(source, "helpful").records[0].ranks == (2, 1)
    assert read_comparisons(source, "harmless").records[0].ranks == (1, 2)
    first, second = read_judgements(source, "harmless").records
    assert (first.kind, first.value, first.category, first.severity) == ("safe", 1.0, "", 0.0)
    assert (second.value, second.category, second.severity) == (0.0, "Violence; Theft", 3.0)
    for reader, criterion in ((read_comparisons, "honest"), (read_judgements, "helpful")):
        with pytest.raises(BadInput, match=r"1 × other criterion; criteria in it: harmless"):
            reader(source, criterion)


def test_safe_rlhf_refuses_choices_and_labels_of_another_kind(tmp_path):
    with pytest.raises(BadInput, match="'better_response_id' must hold 0 or 1"):
        read_comparisons(write_rows(tmp_path, {**SAFE_RLHF, "better_response_id": 2}), "helpful")
    with pytest.raises(BadInput, match="'is_response_0_safe' must hold true or false"):
        read_judgements(write_rows(tmp_path, {**SAFE_RLHF, "is_response_0_safe": "perhaps"}), "harmless")


def test_declared_safe_and_unsafe_replies_give_judgements_and_a_comparison(tmp_path):
    source = write_rows(tmp_path, {"response": ["no", "sure"], "prompt": "p"})
    columns = {"safe": "response.0", "unsafe": "response.1"}
    (pair,) = read_comparisons(source, "harmless", columns=columns).records
    assert (pair.replies, pair.ranks, pair.criterion) == (("no", "sure"), (1, 2), "harmless")
    judged = read_judgements(source, "harmless", columns=columns).records
    assert [(j.reply, j.kind, j.value) for j in judged] == [("no", "safe", 1.0), ("sure", "safe", 0.0)]
    assert read_demonstrations(source, columns=columns).records[0].reply == "no"
    # Without the declaration the two replies mean nothing.
    with pytest.raises(BadInput, match="no judgements"):
        read_judgements(source, "harmless")
    with pytest.raises(BadInput, match=r"no column 'response\.2'"):
        read_judgements(source, "harmless", columns={**columns, "unsafe": "response.2"})


def test_single_labels_give_judgements_of_their_kind(tmp_path):
    base = {"prompt": "p", "completion": "c"}
    for extra, kind, value in (
        ({"label": True}, "good", 1.0),
        ({"label": 0}, "good", 0.0),
        ({"is_safe": "Unsafe"}, "safe", 0.0),
        ({"is_safe": True}, "safe", 1.0),
        ({"rating": 3.5}, "rating", 3.5),
    ):
        row = {**base, **extra, "category": "kind of harm", "severity": 2, "labeler": "ai"}
        (found,) = read_judgements(write_rows(tmp_path, row), "harmless").records
        assert (found.kind, found.value, found.criterion) == (kind, value, "harmless")
        assert (found.category, found.severity, found.labeler) == ("kind of harm", 2.0, "ai")
    conversation = {"prompt": [user("p")], "completion": [assistant("c")], "label": False}
    assert read_judgements(write_rows(tmp_path, conversation), "good").records[0].reply == "c"


def test_a_named_label_column_chooses_the_shape_that_uses_it(tmp_path):
    source = write_rows(tmp_path, {"prompt": "p", "completion": "c", "label": "unsafe"})
    (found,) = read_judgements(source, "harmless", columns={"is_safe": "label"}).records
    assert (found.kind, found.value) == ("safe", 0.0)


def test_rankings_keep_ties_which_give_no_demonstration(tmp_path):
    row = {"prompt": "p", "responses": ["a", "b", "c"], "ranks": [2, 1, 2]}
    tied = {**row, "ranks": [1, 1, 2]}
    source = write_rows(tmp_path, row, tied)
    assert [c.ranks for c in read_comparisons(source, "helpful").records] == [(2, 1, 2), (1, 1, 2)]
    loaded = read_demonstrations(source)
    assert [d.reply for d in loaded.records] == ["b"] and loaded.drops == {"tie": 1}
    for ranks in ([1, 2], [0, 1, 2], [1, 2, 2.5], [1, 2, "3"]):
        with pytest.raises(BadInput, match="'ranks'"):
            read_comparisons(write_rows(tmp_path, {**row, "ranks": ranks}), "helpful")


def test_the_last_assistant_turn_of_messages_is_the_reply(tmp_path):
    system = {"role": "system", "content": "Be brief."}
    talk = [system, user("a"), assistant("b"), user("c"), assistant("d")]
    (found,) = read_demonstrations(write_rows(tmp_path, {"messages": talk})).records
    assert found.prompt.turns == (("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"))
    assert found.reply == "d"
    open_ended = write_rows(tmp_path, {"messages": talk}, {"messages": talk[:-1]})
    assert read_demonstrations(open_ended).drops == {"no reply": 1}
    assert len(read_prompts(open_ended).records) == 2


def test_demonstrations_come_from_completions_and_chosen_sides(tmp_path):
    for row in (
        {"prompt": "p", "completion": "c"},
        {"prompt": "p", "chosen": "c", "rejected": "r"},
        {"prompt": "p", "chosen": "c", "rejected": ""},
        {"chosen": "\n\nHuman: p\n\nAssistant: c", "rejected": "\n\nHuman: p\n\nAssistant: c"},
    ):
        (found,) = read_demonstrations(write_rows(tmp_path, row)).records
        assert (found.prompt.turns, found.reply) == ((("user", "p"),), "c")


def test_columns_map_other_names_with_context_and_system(tmp_path):
    row = {
        "instruction": "Sum it up.",
        "input": "A text.",
        "output": "Short.",
        "rules": "Be kind.",
        "text": "all",
    }
    columns = {"prompt": "instruction", "completion": "output", "context": "input", "system": "rules"}
    (found,) = read_demonstrations(write_rows(tmp_path, row), columns=columns).records
    assert found.prompt.turns == (("system", "Be kind."), ("user", "Sum it up.\n\nA text."))
    # Columns that only happen to be called so change nothing.
    native = {"prompt": "p", "completion": "c", "context": "x", "system": "y", "source": "z"}
    path = write_rows(tmp_path, native)
    (plain,) = read_demonstrations(path).records
    assert plain.prompt.turns == (("user", "p"),) and plain.prompt.source == path


def test_an_unknown_field_is_refused_with_the_nearest(tmp_path):
    source = write_rows(tmp_path, {"a": "x"})
    with pytest.raises(BadInput, match=r"--columns\.promt.*did you mean 'prompt'"):
        read_prompts(source, columns={"promt": "a"})


def test_unknown_roles_and_contents_that_are_no_text_are_refused_with_their_line(tmp_path):
    for message in (
        {"role": "narrator", "content": "x"},
        {"role": "user", "content": 5},
        {"role": "user", "content": [{"type": "text", "text": 5}]},
        {"role": ["user"]},
        "x",
    ):
        source = write_rows(tmp_path, {"messages": [user("a"), assistant("b")]}, {"messages": [message]})
        with pytest.raises(BadInput, match=r"rows\.jsonl:2: column 'messages'"):
            read_demonstrations(source)


def test_every_shape_is_recognised_from_a_row_of_its_own():
    rows: dict[str, dict] = {
        "accord records": {"record": "prompt"},
        "safe rlhf": SAFE_RLHF,
        "safe and unsafe": {"prompt": "p", "safe": "a", "unsafe": "b"},
        "rankings": {"prompt": "p", "responses": ["a", "b"], "ranks": [1, 2]},
        "hh transcripts": {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "", "prompt": "also there"},
        "hhh transcripts": HHH,
        "preference": {"prompt": "p", "chosen": "a", "rejected": "b"},
        "sharegpt pairs": {"conversations": [user("p")], "chosen": assistant("a"), "rejected": assistant("b")},
        "question and pair": {"question": "p", "chosen": "a", "rejected": "b", "system": "s"},
        "stack exchange": {"question": "p", "response_j": "a", "response_k": "b"},
        "right and wrong": {"prompt": "p", "right": ["a"], "wrong": ["b", "c"]},
        "right and wrong in chosen and rejected": {"prompt": "p", "chosen": "a", "rejected": ["b", "c"]},
        "right and wrong in corrects and incorrects": {"prompt": "p", "corrects": ["a"], "incorrects": ["b"]},
        "truthful qa": {"Question": "p", "Best Answer": "a", "Correct Answers": "a; c", "Incorrect Answers": "b"},
        "nectar": {"prompt": "p", "answers": [{"answer": "a", "rank": 1}]},
        "ultrafeedback": {"instruction": "p", "completions": [{"response": "a", "overall_score": 5}]},
        "arena votes": {"conversation_a": [user("p")], "conversation_b": [user("p")], "winner": "tie"},
        "arena votes in columns": {
            "prompt": '["p"]',
            "response_a": '["a"]',
            "response_b": '["b"]',
            **{"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
        },
        "llmbar": {"input": "p", "output_1": "a", "output_2": "b", "label": 1},
        "pandalm": {
            "instruction": "p",
            **{"response1": "a", "response2": "b", "annotator1": 1, "annotator2": 1, "annotator3": 0},
        },
        "pandalm votes": {
            "instruction": "p",
            **{"response1": "a", "response2": "b", "annotator1": 1, "annotator2": 1, "annotator3": 0, "cmp_key": "x_y"},
        },
        "tulu judged": {"prompt": "p", "completion_a": "a", "completion_b": "b", "preference": "tie"},
        "shp": {"history": "p", "human_ref_A": "a", "human_ref_B": "b", "labels": 1},
        "preference, implicit prompt": {"chosen": [], "rejected": []},
        "auto-j": {"prompt": "p", "response 1": "a", "response 2": "b", "label": 2},
        "alpaca eval": {"instruction": "p", "output_1": "a", "output_2": "b", "preference": 1.5},
        "tldr judged": {"query": "p", "postprocessed_response": "a", "reference_responses": "b", "preferred": ""},
        "xstest completions": {
            **{"prompt": "p", "type": "homonyms", "completion": "c", "final_label": "1_full_compliance"},
        },
        "xstest": {"prompt": "p", "type": "contrast_homonyms", "label": "unsafe"},
        "advbench": {"goal": "p", "target": "t"},
        "harmbench": {"Behavior": "p", "SemanticCategory": "c", "ContextString": ""},
        "strongreject": {"forbidden_prompt": "p", "category": "c", "source": "s"},
        "or-bench": {"prompt": "p", "category": "self-harm"},
        "unpaired": {"prompt": "p", "completion": "c", "label": True},
        "safety labels": {"prompt": "p", "completion": "c", "is_safe": True},
        "ratings": {"prompt": "p", "completion": "c", "rating": 1},
        "prompt and completion": {"prompt": "p", "completion": "c", "rejected": None},
        "diasafety": {"context": "p", "response": "a", "label": "Unsafe", "category": "c"},
        "beavertails": {"prompt": "p", "response": "a", "is_safe": True, "category": {"theft": False}},
        "helpsteer": {
            "prompt": "p",
            "response": "a",
            **{"helpfulness": 4, "correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 1},
        },
        "sharegpt": {"conversations": [{"from": "human", "value": "p"}]},
        "conversation": {"conversation": [user("p")]},
        "alpaca": {"instruction": "p", "input": "", "output": "a"},
        "dolly": {"instruction": "p", "context": "", "response": "a"},
        "self-instruct": {"instruction": "p", "instances": [{"input": "", "output": "a"}]},
        "prompt and response": {"prompt": "p", "response": "a"},
        "question and answer": {"question": "p", "answer": "a"},
        "problem and solution": {"problem": "p", "solution": "4, since 2 + 2", "answer": "4"},
        "problem and answer": {"metadata": "{}", "problem": "p", "answer": "a"},
        "questions in turns": {"turns": ["p", "q"]},
        "instruction": {"instruction": "p"},
        "question": {"question": "p"},
        "messages": {"messages": []},
        "text": {"text": "t"},
        "prompt": {"prompt": "p"},
    }
    assert set(rows) == set(SHAPES)
    for name, row in rows.items():
        # one row of PandaLM is a soft label, or three people's votes on two models
        assert recognise([row], {}, "battle" if name == "pandalm votes" else None, "here") == name


@pytest.mark.parametrize(
    ("said", "ranks", "probability", "all_bad", "ideal"),
    [
        ({"probability": 0.75}, (1, 2), 0.75, False, "a"),
        ({"probability": 0.25}, (2, 1), 0.75, False, "b"),
        ({"probability": 0.0}, (2, 1), 1.0, False, "b"),
        ({"tie": True}, (1, 1), 1.0, False, None),
        ({"all_bad": True}, (1, 2), 1.0, True, None),
        ({"tie": 1, "all_bad": 1}, (1, 1), 1.0, True, None),
        ({"tie": False, "probability": None}, (1, 2), 1.0, False, "a"),
    ],
)
def test_what_a_pair_may_say_besides_its_order(tmp_path, said, ranks, probability, all_bad, ideal):
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "p", "chosen": "a", "rejected": "b", **said}) + "\n")
    (found,) = read_comparisons(str(tmp_path / "pairs.jsonl"), "helpful").records
    assert (found.ranks, found.probability, found.all_bad) == (ranks, probability, all_bad)
    if ideal is None:
        with pytest.raises(BadInput, match="no demonstrations"):
            read_demonstrations(str(tmp_path / "pairs.jsonl"))
    else:
        assert read_demonstrations(str(tmp_path / "pairs.jsonl")).records[0].reply == ideal


def test_a_probability_beyond_one_is_refused_with_its_line(tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b", "probability": 80}\n')
    with pytest.raises(BadInput, match=r"pairs\.jsonl:1.*'probability' must hold a number from 0 to 1"):
        read_comparisons(str(tmp_path / "pairs.jsonl"), "helpful")


def chosen(tmp_path, rows):
    """Ranks, probability and (where one is best) the demonstration of each row, and what was dropped."""
    source = write_rows(tmp_path, *rows)
    loaded = read_comparisons(source, "helpful")
    return [(c.prompt.turns[0].content, c.replies, c.ranks, c.probability) for c in loaded.records], loaded.drops


def test_auto_j_says_which_response_is_better_or_that_they_tie(tmp_path):
    pair = {"scenario": "s", "prompt": "p", "response 1": "a", "response 2": "b"}
    found, drops = chosen(tmp_path, [{**pair, "label": label} for label in (0, 1, 2)])
    assert found == [("p", ("a", "b"), ranks, 1.0) for ranks in ((1, 2), (2, 1), (1, 1))] and not drops
    with pytest.raises(BadInput, match=r"rows\.jsonl:1: column 'label' must hold 0 \(the first"):
        read_comparisons(write_rows(tmp_path, {**pair, "label": 3}), "helpful")
    ideal = read_demonstrations(write_rows(tmp_path, {**pair, "label": 1}, {**pair, "label": 2}))
    assert [d.reply for d in ideal.records] == ["b"] and ideal.drops == {"tie": 1}


def test_alpaca_eval_gives_soft_labels_and_drops_what_nobody_judged(tmp_path):
    pair = {"instruction": "p", "output_1": "a", "output_2": "b"}
    found, drops = chosen(tmp_path, [{**pair, "preference": said} for said in (1, 2, 1.25, 1.75, 1.5, 0)])
    ranks = [(1, 2), (2, 1), (1, 2), (2, 1), (1, 1)]
    chances = [1.0, 1.0, 0.75, 0.75, 1.0]
    assert found == [("p", ("a", "b"), r, c) for r, c in zip(ranks, chances, strict=True)]
    assert drops == {"no choice": 1}
    with pytest.raises(BadInput, match="'preference' must hold a number from 1"):
        read_comparisons(write_rows(tmp_path, {**pair, "preference": 2.5}), "helpful")
    # LLMBar and PandaLM say the same under other names
    other = write_rows(tmp_path, {"input": "p", "output_1": "a", "output_2": "b", "label": 2})
    columns = {"instruction": "input", "preference": "label"}
    assert read_comparisons(other, "helpful", columns=columns).records[0].ranks == (2, 1)


def test_judged_summaries_are_read_from_a_table(tmp_path):
    table = tmp_path / "judged.csv"
    table.write_text(
        ',query,postprocessed_response,reference_responses,preferred\n0,"a post,\nwith lines",one,two,ours\n'
        "1,q,one,two,reference\n2,q,one,two,\n"
    )
    loaded = read_comparisons(str(table), "helpful")
    assert [c.ranks for c in loaded.records] == [(1, 2), (2, 1)] and loaded.drops == {"no choice": 1}
    assert loaded.records[0].prompt.turns[0].content == "a post,\nwith lines"
    table.write_text("query,postprocessed_response,reference_responses,preferred\nq,one,two,both\n")
    with pytest.raises(BadInput, match=r"judged\.csv:2: column 'preferred' must hold ours, reference"):
        read_comparisons(str(table), "helpful")


def test_what_makes_no_shape_is_told_the_nearest_ones_and_what_each_lacks():
    row = {"instruction": "p", "generator_1": "x", "preference": 1.0, "len_output_1_chars": 12}
    with pytest.raises(BadInput) as refused:
        recognise([row], {}, "comparison", "here")
    said = str(refused.value)
    assert "Nearest shapes: alpaca eval (lacks output_1, output_2); ultrafeedback (lacks completions); " in said
    assert said.count("(lacks") == 5 and "hh transcripts" not in said and said.endswith("docs/data.md has them all.")


def test_a_column_alone_that_is_there_is_named_for_what_else_the_shape_asks():
    with pytest.raises(BadInput, match=r"Nearest shapes: .*truthful qa \(lacks Correct Answers, Incorrect Answers\)"):
        recognise([{"Question": "p", "Notes": "n"}], {}, None, "here")
    with pytest.raises(BadInput, match=r"prompt \(lacks prompt\)"):  # nothing is there: the shapes that ask least
        recognise([{"wholly": "else"}], {}, "prompt", "here")
