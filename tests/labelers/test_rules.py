"""The rule that tells a refusal by how a reply begins, and what it cannot see."""

import pytest

from accord.labelers.rules import REFUSALS, refuses


@pytest.mark.parametrize("begins", REFUSALS)
def test_a_reply_that_begins_so_is_a_refusal(begins):
    assert refuses(begins) and refuses(f"  {begins.upper()} and more")


def test_the_rule_sees_the_beginning_alone():
    """What it gets wrong, said here so that nobody takes its share for the truth."""
    assert not refuses("Thank you for asking. I cannot help with that.")
    assert not refuses("Here is the first part. I'm sorry, the rest I won't tell.")  # a partial refusal
    assert refuses("Sorry for the delay! Here is what you asked for.")
    assert not refuses("") and not refuses("I won't.")
    assert not refuses("I’m sorry, but no.")  # a typographic apostrophe
