"""Attacks by family, look-alikes by distance from harm, skills by grade."""

from random import Random

import pytest

from accord import world
from accord.world import attacks, objects, skills
from accord.world.corpus import PARTS
from accord.world.requests import UNKNOWN, parse


def openings(slice, count=400):
    return [prompt.turns[0].content for prompt in world.prompts(count, seed=9, slice=slice)]


def test_a_third_of_the_families_is_held_out_and_there_are_ten_forms_or_more():
    assert not set(attacks.FAMILIES) & set(attacks.HELD_OUT_FAMILIES)
    assert len(attacks.HELD_OUT_FAMILIES) / len(attacks.ALL) == pytest.approx(1 / 3)
    forms = attacks.forms(attacks.ALL)
    assert len(forms) == len(set(forms)) >= 10
    assert all(len(group) >= 2 for group in attacks.ALL.values())
    assert {form.startswith("{r}") for form in forms} == {True, False}


def test_the_family_of_an_attack_is_read_from_its_text():
    for family in attacks.ALL:
        assert {attacks.family_of(text) for text in openings(f"red-team-{family}")} == {family}
    assert {attacks.family_of(text) for text in openings("red-team")} == set(attacks.FAMILIES)
    assert {attacks.family_of(text) for text in openings("red-team-held-out")} == set(attacks.HELD_OUT_FAMILIES)
    assert {attacks.family_of(text) for text in openings("harmful") + openings("benign")} == {""}


def test_look_alikes_are_harmless_at_every_distance_and_share_more_and_more_with_harm():
    shared = {}
    for grade in world.LOOK_ALIKE_GRADES:
        for prompt in world.prompts(400, seed=9, slice=grade):
            request, text = parse(prompt.turns), prompt.turns[-1].content
            assert request.kind == "how-to" and not request.harmful
            named = [objects.phrase(pair) in text for pair in objects.HARMFUL]
            shared.setdefault(grade, set()).add(
                (bool(attacks.family_of(text)), any(named), objects.is_harmful(request.pair))
            )
    assert shared == {
        "look-alike-plain": {(False, False, False)},
        "look-alike-wrapped": {(True, False, False)},
        "look-alike-beside": {(False, True, False)},
        "look-alike-mending": {(False, True, True)},
    }


def test_the_default_mix_and_the_labels_know_no_nearer_look_alike_than_the_wrapped():
    prompts = [*world.prompts(3000, seed=9), *(one.prompt for one in world.comparisons(1000, seed=9))]
    for prompt in prompts:
        request = parse(prompt.turns)
        if request.kind == "how-to" and not request.harmful:
            assert not any(objects.phrase(pair) in prompt.turns[-1].content for pair in objects.HARMFUL)


@pytest.mark.parametrize("grade", skills.GRADES)
def test_every_skill_of_a_grade_reads_back_and_its_answer_is_right(grade):
    asked = set()
    for prompt in world.prompts(600, seed=9, slice=f"skills-{grade}"):
        request = parse(prompt.turns)
        asked.add(request.skill)
        assert (request.kind, request.grade) == ("skill", grade)
        right = skills.say(Random(prompt.id), request.skill, request.args)
        wrong = skills.say(Random(prompt.id), request.skill, request.args, right=False)
        assert world.judge(prompt.turns, right).correct and not world.judge(prompt.turns, wrong).correct
    assert asked == set(skills.GRADED)


def test_the_answers_of_skills_against_plain_python():
    rng = Random(4)
    for skill in skills.FORMS:
        for grade in skills.GRADES:
            args = skills.draw(rng, skill, grade)[1]
            numbers = [skills.NUMBERS.index(word) for word in args if word in skills.NUMBERS]
            expected = {
                "add": lambda numbers=numbers: [skills.NUMBERS[sum(numbers)]],
                "sort": lambda numbers=numbers: [skills.NUMBERS[n] for n in sorted(numbers)],
                "largest": lambda numbers=numbers: [skills.NUMBERS[max(numbers)]],
                "copy": lambda args=args: list(args),
                "reverse": lambda args=args: list(reversed(args)),
                "count": lambda args=args: [skills.NUMBERS[sum(word == args[0] for word in args[1:])]],
            }[skill]()
            assert list(skills.answer(skill, args)) == expected, (skill, args)


@pytest.mark.parametrize(
    "text",
    [
        "what is nine plus nine plus nine?",  # no word for the sum
        "sort these numbers: oak lamp.",
        "which is the largest: .",
        "add ten and two.",
        "say this again.",
        "count the word oak: " + "oak " * 19 + ".",
    ],
)
def test_what_is_no_skill_of_the_world_is_unknown(text):
    assert parse((world_turn(text),)) == UNKNOWN


def world_turn(text):
    from accord.records import Turn

    return Turn("user", text)


def test_graded_skills_and_near_look_alikes_take_little_of_the_corpus():
    assert PARTS["graded"] + PARTS["near"] <= 0.11
    assert sum(PARTS.values()) == pytest.approx(1)
