import itertools

from accord import world
from accord.world import facts, language, objects
from accord.world.prompts import DRAW
from accord.world.steps import plan


def test_every_word_that_is_written_is_in_the_lexicon():
    known = {piece.strip() for piece in world.lexicon()}
    texts = [document.text for document in world.corpus(4000, seed=3)]
    texts += [
        turn.content for slice in DRAW for prompt in world.prompts(400, seed=3, slice=slice) for turn in prompt.turns
    ]
    texts += [shown.reply for shown in world.demonstrations(1000, seed=3)]
    unknown = {word for text in texts for word in language.words(text)} - known
    assert unknown == set()


def test_the_lexicon_holds_no_piece_twice_and_nothing_unspaced():
    pieces = world.lexicon()
    assert pieces == sorted(set(pieces))
    assert all(piece.startswith((" ", "\n")) or not piece.isalpha() for piece in pieces)
    assert 350 <= len(pieces) <= 800


def test_replies_and_prompts_are_short():
    shown = world.demonstrations(3000, seed=1)
    written = [
        one.reply for one in shown if one.prompt.slice != "revision"
    ]  # which may repeat a reply that is too long
    assert max(len(language.words(reply)) for reply in written) <= 32
    openings = [one.prompt.turns[0].content for one in shown if not one.prompt.slice.startswith("judge-")]
    assert max(len(language.words(opening)) for opening in openings) <= 34


def test_no_object_is_in_two_groups_and_groups_are_large():
    groups = {
        "harmful": objects.HARMFUL,
        "look-alike": objects.LOOK_ALIKE,
        "harmful held out": objects.HARMFUL_HELD_OUT,
        "look-alike held out": objects.LOOK_ALIKE_HELD_OUT,
        "harmful new cue": objects.HARMFUL_NEW_CUE,
        "look-alike new cue": objects.LOOK_ALIKE_NEW_CUE,
    }
    for (a, left), (b, right) in itertools.combinations(groups.items(), 2):
        assert not set(left) & set(right), (a, b)
    assert len(objects.HARMFUL) >= 30 and len(objects.LOOK_ALIKE) >= 30
    assert len(objects.HARMFUL_HELD_OUT) >= 20 and len(objects.LOOK_ALIKE_HELD_OUT) >= 20


def test_nouns_say_nothing_about_harm():
    for trained in (objects.HARMFUL, objects.LOOK_ALIKE):
        counts = {noun: sum(pair[1] == noun for pair in trained) for noun in objects.DUAL_NOUNS}
        assert max(counts.values()) - min(counts.values()) <= 1, counts
    harmful = [noun for _, noun in objects.HARMFUL]
    look_alike = [noun for _, noun in objects.LOOK_ALIKE]
    assert sorted(harmful) == sorted(look_alike)


def test_held_out_tasks_share_verb_and_material_with_trained_ones():
    for verb, material in objects.HELD_OUT_TASKS:
        assert (verb, material) not in objects.TRAINED_TASKS
        assert any(verb == other for other, _ in objects.TRAINED_TASKS)
        assert any(material == other for _, other in objects.TRAINED_TASKS)


def test_plans_compose():
    assert plan("clean", ("oak", "chair")).tool == ("soft", "brush")
    assert plan("clean", ("steel", "chair")).tool == ("rough", "brush")
    assert plan("paint", ("steel", "chair")).tool == ("rough", "roller")
    assert plan("hide", ("stolen", "van")) != plan("hide", ("office", "van"))  # the object is named
    assert plan("hide", ("stolen", "van")).tool == plan("hide", ("office", "van")).tool == ("long", "curtain")
    assert plan("hide", ("stolen", "van")).finish == plan("hide", ("office", "van")).finish


def test_people_and_answers_are_balanced():
    for level, names in facts.NAMES.items():
        for relation, answers in facts.RELATIONS.items():
            given = [facts.TRUTH[name, relation] for name in names]
            counts = [given.count(answer) for answer in answers]
            assert max(counts) - min(counts) <= 1, (level, relation)
    names = [name for group in facts.NAMES.values() for name in group]
    assert len(names) == len(set(names))
    assert set(facts.DEMONSTRATED_UNKNOWN) < set(facts.NAMES[0])
