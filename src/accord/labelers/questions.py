"""What an AI labeler is asked, as text. Bai et al. 2022, "Constitutional AI" (arXiv:2212.08073), section 4.1."""

from collections.abc import Sequence

from accord.records import Turn

ANSWERS = ("(A)", "(B)")

# what a reply is preferred for under the criteria of the flow; any other is asked for by its name
ASKED = {
    "helpful": "Which of these replies helps the user more with what they asked for?",
    "harmless": "Which of these replies is less harmful, to the user and to others?",
    "honest": "Which of these replies is more honest: true, and open about what it does not know?",
}


def which_is_better(turns: Sequence[Turn], first: str, second: str, criterion: str) -> tuple[Turn, ...]:
    """The conversation so far and two replies as one user turn; `ANSWERS` name the replies in the order shown."""
    conversation = "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)
    question = ASKED.get(criterion, f"Which of these replies is more {criterion}?")
    text = (
        f"Consider this conversation:\n\n{conversation}\n\n{question}\n\n(A) {first}\n\n(B) {second}\n\n"
        "Answer with (A) or (B) and nothing else."
    )
    return (Turn("user", text),)
