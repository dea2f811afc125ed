"""What `accord` ends with beside success: input that cannot be used, a gate that stays shut, a wait for people."""

import errno
from collections.abc import Iterable


class BadInput(Exception):
    """Input that the user can mend: `accord` prints the message alone and exits with 2.

    The message names the file, line or key, and says what to do about it.
    """


class GateClosed(Exception):
    """A snapshot that was measured and did not pass its gate: `accord` prints the message alone and exits with 3."""


class WaitsForPeople(Exception):
    """A run that cannot go on before people have answered: `accord` prints the message alone and exits with 4.

    Everything up to there is written; the same command with --resume goes on once the answers are there.
    """


class Interrupted(Exception):
    """A run that was asked to stop, and stopped at a step boundary with its checkpoint written."""


class NotFinite(RuntimeError):
    """A loss or gradient that is no finite number: the run ends before it is learned from, its checkpoint intact."""


def is_disk_full(error: BaseException) -> bool:
    """Whether a file could not grow, by the disk or by a quota: of all errors of the system the one that room mends."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """(did you mean …?), where one of the known words is near."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""
