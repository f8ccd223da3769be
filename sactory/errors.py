"""The exceptions that end a program with one line and no traceback."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user's that one line explains.

    The message names the wrong value, where it stands and what would be right. `sactory.cli`
    prints it and exits with code 2; a supervised program that raises it is not restarted.
    """


class RetryError(Exception):
    """What may pass by itself: a disk that can't be read now, say.

    `sactory.cli` prints it and exits with code 75; a supervised program is started again.
    """
