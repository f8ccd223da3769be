"""The one exception that means "the user can mend this": one line, exit code 2, no traceback."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user's that one line explains.

    The message names the wrong value, where it stands and what would be right. `sactory.cli`
    prints it and exits with code 2; a supervised program that raises it is not restarted.
    """
