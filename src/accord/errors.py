"""The one exception that means "what you gave cannot be used"."""


class BadInput(Exception):
    """Input that the user can mend: `accord` prints the message alone and exits with 2.

    The message names the file, line or key, and says what to do about it.
    """


class Interrupted(Exception):
    """A run that was asked to stop, and stopped at a step boundary with its checkpoint written."""
