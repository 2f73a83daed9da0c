"""The one exception a user is meant to read."""


class InputError(Exception):
    """Bad input: one line that says what is wrong and how to mend it.

    Commands print it without a traceback and exit with status 2.
    """
