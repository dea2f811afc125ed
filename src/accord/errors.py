"""The one exception that means "what you gave cannot be used", and the nearest spelling that it offers."""

from collections.abc import Iterable


class BadInput(Exception):
    """Input that the user can mend: `accord` prints the message alone and exits with 2.

    The message names the file, line or key, and says what to do about it.
    """


class Interrupted(Exception):
    """A run that was asked to stop, and stopped at a step boundary with its checkpoint written."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """(did you mean …?), where one of the known words is near."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""
