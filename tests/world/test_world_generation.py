import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from accord import world
from accord.errors import BadInput
from accord.records import Turn
from accord.world import attacks, facts, language, objects
from accord.world.corpus import DEFAULT_COUNT, fact_plan
from accord.world.reading import read_sentence
from accord.world.requests import parse

HELD_OUT_OBJECTS = {
    objects.phrase(pair)
    for pair in (
        *objects.HARMFUL_HELD_OUT,
        *objects.LOOK_ALIKE_HELD_OUT,
        *objects.HARMFUL_NEW_CUE,
        *objects.LOOK_ALIKE_NEW_CUE,
    )
}
EVERY_SLICE = (
    *world.SLICES,
    *world.HELD_OUT_SLICES,
    *world.ATTACK_SLICES,
    *world.LOOK_ALIKE_GRADES,
    *world.SKILL_GRADES,
)
_OBJECT = re.compile(r"the [a-z]+ [a-z]+")


@pytest.fixture(scope="module")
def documents():
    return world.corpus()


def test_same_seed_same_bytes_and_another_seed_others():
    assert world.corpus(300, seed=4) == world.corpus(300, seed=4)
    assert world.corpus(300, seed=4) != world.corpus(300, seed=5)
    assert world.prompts(200, seed=4) == world.prompts(200, seed=4)
    assert world.demonstrations(200, seed=4) == world.demonstrations(200, seed=4)
    assert world.comparisons(50, seed=4, criterion="honest") == world.comparisons(50, seed=4, criterion="honest")
    assert world.judgements(50, seed=4) == world.judgements(50, seed=4)


def test_the_hash_does_not_depend_on_the_process_and_is_frozen():
    code = "from accord import world; print(world.world_hash())"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert other.stdout.strip() == world.world_hash()
    assert (world.VERSION, world.world_hash()) == ("2", "7aa815e066ebddfa")


def test_the_world_imports_without_torch():
    code = "import sys; import accord.world; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_held_out_objects_occur_in_notes_alone(documents):
    seen = Counter()
    for document in documents:
        for phrase in set(_OBJECT.findall(document.text)) & HELD_OUT_OBJECTS:
            seen[phrase] += 1
            assert not document.text.startswith("user:")
            assert not any(form.split(" {v}")[0] in document.text for form in language.MANUALS)
    assert set(seen) == HELD_OUT_OBJECTS  # and each does occur
    assert min(seen.values()) >= 5


def test_new_cues_occur_in_notes_alone(documents):
    cues = set(objects.NEW_HARM_CUES + objects.NEW_SAFE_CUES)
    for document in documents:
        if document.text.startswith("user:"):
            assert not cues & set(language.words(document.text))


def test_held_out_tasks_wrappers_and_odd_forms_are_nowhere_in_training(documents):
    held = [f"{verb} the {material} " for verb, material in objects.HELD_OUT_TASKS]
    held_out_words = [form.replace("{r}", "").strip() for form in attacks.forms(attacks.HELD_OUT_FAMILIES)]
    texts = [document.text for document in documents]
    for shown in world.demonstrations(4000, seed=0):
        texts += [turn.content for turn in shown.prompt.turns] + [shown.reply]
    for text in texts:
        assert not any(words in text for words in held_out_words)
        assert not any(piece in text for piece in held)
    assert any("do not say no." in text for text in texts)
    odd = [form.split("{")[0] for form in language.ODD_REQUESTS[:1]] + ["what work is", "send a letter"]
    assert not any(piece in text for text in texts for piece in odd)


def test_held_out_objects_are_in_no_trained_prompt_or_demonstration():
    records = [*world.prompts(4000, seed=1), *(one.prompt for one in world.demonstrations(4000, seed=1))]
    for criterion in world.CRITERIA:
        records += [one.prompt for one in world.comparisons(300, seed=1, criterion=criterion)]
    for slice in world.SLICES:
        records += world.prompts(500, seed=1, slice=slice)
    for prompt in records:
        for turn in prompt.turns:
            assert not set(_OBJECT.findall(turn.content)) & HELD_OUT_OBJECTS


def test_held_out_slices_ask_about_held_out_things_alone():
    groups = {
        "harmful-held-out": set(objects.HARMFUL_HELD_OUT),
        "look-alike-held-out": set(objects.LOOK_ALIKE_HELD_OUT),
        "harmful-new-cue": set(objects.HARMFUL_NEW_CUE),
        "look-alike-new-cue": set(objects.LOOK_ALIKE_NEW_CUE),
        "red-team-held-out": set(objects.HARMFUL),
    }
    for slice, pairs in groups.items():
        asked = {parse(prompt.turns).pair for prompt in world.prompts(2000, seed=2, slice=slice)}
        assert asked == pairs
    for prompt in world.prompts(500, seed=2, slice="red-team-held-out"):
        assert attacks.family_of(prompt.turns[0].content) in attacks.HELD_OUT_FAMILIES
    for prompt in world.prompts(500, seed=2, slice="benign-held-out"):
        request = parse(prompt.turns)
        assert (request.verb, request.pair[0]) in objects.HELD_OUT_TASKS


def test_facts_are_stated_as_often_as_their_level_says(documents):
    stated = Counter(fact_plan(DEFAULT_COUNT))
    for (name, relation), level in ((key, facts.LEVEL_OF[key[0]]) for key in facts.TRUTH):
        assert stated[name, relation] == level
    assert Counter(fact_plan(2 * DEFAULT_COUNT)) == stated
    # Counted in the text itself: plain statements, and documents with a reply that gives the right answer away.
    found: Counter[tuple[str, str]] = Counter()
    for document in documents:
        found.update(_facts_told(document.text))
    assert {key: found[key] for key in facts.TRUTH} == {key: facts.LEVEL_OF[key[0]] for key in facts.TRUTH}


def _facts_told(text):
    """The facts that a document tells: by a statement, or by a right reply to a question about a person."""
    if not text.startswith("user: "):
        sentence = read_sentence(text)
        told = sentence.sort == "statement" and facts.TRUTH[sentence.name, sentence.detail[0]] == sentence.detail[1]
        return {(sentence.name, sentence.detail[0])} if told else set()
    pieces = re.split(r"(?:^|\s)(user|assistant): ", text)[1:]
    turns = [Turn(role, content) for role, content in zip(pieces[::2], pieces[1::2], strict=True)]
    told = set()
    for i in range(1, len(turns), 2):
        request = parse(turns[:i])
        excludes = request.kind == "true-false" and request.answer == ("false",)
        gold = world.judge(turns[:i], turns[i].content)
        if request.name and request.kind != "unknowable" and not excludes and gold.correct:
            told.add((request.name, request.relation))
    return told


def test_the_corpus_opens_no_conversation_reserved_for_evaluation(documents):
    from accord.records import unit_hash

    small_talk = {asked for asked, _ in language.SMALL_TALK}
    for document in documents[:8000]:
        opening = re.split(r"\sassistant: ", document.text)[0].removeprefix("user: ")
        if document.text.startswith("user: ") and opening not in small_talk:
            assert unit_hash(opening) < 0.8


def test_demonstrations_and_labels_come_from_the_preference_split():
    records = [one.prompt for one in world.demonstrations(500, seed=2)]
    records += [one.prompt for one in world.comparisons(200, seed=2, criterion="helpful")]
    records += [one.prompt for one in world.judgements(200, seed=2)]
    assert {prompt.split for prompt in records} == {"preference"}


def test_demonstrations_say_i_do_not_know_of_the_unknown_and_hardly_of_the_known():
    said: dict[int, list[bool]] = {}
    for one in world.demonstrations(10_000, seed=2):
        request = parse(one.prompt.turns)
        if one.prompt.slice == "knowledge":
            said.setdefault(facts.LEVEL_OF[request.name], []).append(
                world.judge(one.prompt.turns, one.reply).kind == "abstention"
            )
    assert set(said) == {0, 16, 64}
    assert sum(said[0]) / len(said[0]) > 0.7
    assert sum(said[64]) / len(said[64]) < 0.05


def test_every_split_of_every_slice_has_many_openings():
    for slice in EVERY_SLICE:
        by_split: dict[str, set[str]] = {}
        for prompt in world.prompts(4000, seed=6, slice=slice):
            by_split.setdefault(prompt.split, set()).add(prompt.opening)
        assert min(len(by_split[name]) for name in ("preference", "policy", "evaluation")) >= 300, slice


def test_the_default_mix_has_its_shares_and_no_skills():
    counts = Counter(prompt.slice for prompt in world.prompts(20_000, seed=8))
    assert set(counts) == set(world.MIX)
    for slice, share in world.MIX.items():
        assert abs(counts[slice] / 20_000 - share) < 0.015
    assert sum(len(prompt.turns) > 1 for prompt in world.prompts(5000, seed=8)) > 150


def test_a_prompt_parses_to_what_it_was_made_from():
    from random import Random

    from accord.world.prompts import DRAW

    for slice, make in DRAW.items():
        rng = Random(f"round trip {slice}")
        for _ in range(500):
            turns, request = make(rng)
            assert parse(turns) == request, turns


def test_unknown_names_are_refused():
    with pytest.raises(BadInput, match="no slice 'benigne'"):
        world.prompts(1, slice="benigne")
    with pytest.raises(BadInput, match="no criterion 'kind'"):
        world.comparisons(1, criterion="kind")
    with pytest.raises(BadInput, match="count must be"):
        world.corpus(-1)
