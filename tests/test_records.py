"""What is held out is a function of two texts, and one place says which."""

from pathlib import Path

import pytest

import accord
from accord.records import Prompt, Turn, fold_of, is_held_out, is_in_slices, slice_names

STAGES = sorted((Path(accord.__file__).parent / "stages").rglob("*.py"))


def prompt(text):
    return Prompt((Turn("user", text),), "", "by hand")


@pytest.mark.parametrize(("purpose", "held_out"), [("preference", "ac"), ("sft", "df"), ("", "bcdef")])
def test_what_is_held_out_never_changes(purpose, held_out):
    """Snapshots of other days were measured on these: another rule would measure them on what they learned."""
    assert [key for key in "abcdefg" if is_held_out(key, purpose, 0.3)] == list(held_out)


def test_the_folds_never_change_and_case_and_space_do_not_matter():
    assert [fold_of(prompt(key), 4) for key in "abcdefg"] == [2, 0, 3, 1, 2, 2, 2]
    assert fold_of(prompt("Why is  it"), 1000) == fold_of(prompt("why is it "), 1000)


def test_a_larger_share_holds_out_more_and_never_other_ones():
    keys = [str(number) for number in range(300)]
    small, large = ({key for key in keys if is_held_out(key, "sft", share)} for share in (0.1, 0.4))
    assert small < large and 15 < len(small) < 45 and 90 < len(large) < 150


# what a hash decides there is not which prompts are held out, but which
DRAW_OTHERS = {
    "preference/noise.py",  # labels are turned round
    "constitution/steer.py",  # replies try to steer a judge
    "redteam/attacks.py",  # attacks a request comes in
    "redteam/prompts.py",  # requests a writer is shown
}


def test_the_rule_stands_once():
    for path in STAGES:
        if "/".join(path.parts[-2:]) not in DRAW_OTHERS:
            assert "unit_hash" not in path.read_text(encoding="utf-8"), path


def test_slices_are_named_with_commas_and_none_means_all():
    assert slice_names("a") == ("a",) and slice_names("a,b") == ("a", "b")
    inside = Prompt((), "b", "by hand")
    assert is_in_slices(inside, "") and is_in_slices(inside, "a,b") and not is_in_slices(inside, "bb,a")


def test_slices_are_split_in_one_place():
    for path in STAGES:
        if "preference" not in path.parts:  # whose models name criteria and not slices
            text = path.read_text(encoding="utf-8")
            for other in ('"criterion"]', "config.judge"):  # lists of something else
                text = text.replace(f'{other}.split(",")', "")
            assert '.split(",")' not in text, path
