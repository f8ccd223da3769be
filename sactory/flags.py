"""Command line of one verb: absl flags on a private set, with short help and kind errors.

absl's own `--help` lists every flag of every imported library; a user wants the verb's five.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import flags as absl_flags

from sactory.errors import UserError
from sactory.supervision import USER_ERROR


class Flags:
    """The flags of one verb.

    Args:
        verb: The word after `sactory`.
        summary: One line: what the verb does.
        positional: Name of a positional argument for the help text, or None if there is none; with
            `...` at its end there may be several.
    """

    def __init__(self, verb: str, summary: str, positional: str | None = None):
        self._verb = verb
        self._summary = summary
        self._positional = positional
        self._values = absl_flags.FlagValues()
        self._required: list[str] = []
        self._shown: list[tuple[str, str]] = []

    def _add(self, define: Any, name: str, default: Any, text: str, *args: Any) -> None:
        define(name, default, *args, text, flag_values=self._values)
        self._shown.append((name, text if default in (None, [], False) else f"{text} ({default})"))

    def string(self, name: str, default: str | None, text: str, required: bool = False) -> None:
        """Adds a text flag."""
        self._add(absl_flags.DEFINE_string, name, default, text)
        if required:
            self._required.append(name)

    def multi_string(self, name: str, default: list[str], text: str) -> None:
        """Adds a text flag that may be given many times; each use adds one value."""
        self._add(absl_flags.DEFINE_multi_string, name, default, text)

    def boolean(self, name: str, default: bool, text: str) -> None:
        """Adds a switch: `--name` or `--noname`."""
        self._add(absl_flags.DEFINE_boolean, name, default, text)

    def integer(self, name: str, default: int | None, text: str) -> None:
        """Adds an integer flag."""
        self._add(absl_flags.DEFINE_integer, name, default, text)

    def float(self, name: str, default: float | None, text: str) -> None:
        """Adds a number flag."""
        self._add(absl_flags.DEFINE_float, name, default, text)

    def enum(self, name: str, default: str | None, choices: list[str], text: str) -> None:
        """Adds a flag that takes one of `choices`."""
        self._add(absl_flags.DEFINE_enum, name, default, text, choices)

    def parse(self, argv: list[str]) -> tuple[absl_flags.FlagValues, list[str]]:
        """Parses the words after the verb.

        Returns:
            The flag values (as attributes) and the positional words.

        Raises:
            UserError: An unknown flag, a wrong value, a missing flag or a surplus word.
            SystemExit: With 0, after `--help` was printed.
        """
        if any(word in ("--help", "-h", "-help", "--helpfull") for word in argv):
            print(self.help())
            raise SystemExit(0)
        try:
            positional = self._values([self._verb, *argv])[1:]
        except absl_flags.Error as e:
            text = " ".join(str(e).split())
            raise UserError(f"{text} (see `sactory {self._verb} --help`)") from e
        for name in self._required:
            if getattr(self._values, name) is None:
                raise UserError(
                    f"--{name} is missing: `sactory {self._verb} --{name} VALUE` "
                    f"(see `sactory {self._verb} --help`)"
                )
        allowed = self._positional is not None
        if len(positional) > allowed and not (self._positional or "").endswith("..."):
            surplus = positional[int(allowed)]
            raise UserError(
                f"'{surplus}' is one word too many for `sactory {self._verb}`"
                f" (see `sactory {self._verb} --help`)"
            )
        return self._values, positional

    def help(self) -> str:
        """The text that `--help` prints."""
        words = f" {self._positional}" if self._positional else ""
        lines = [f"usage: sactory {self._verb}{words} [flags]", "", self._summary, "", "flags:"]
        width = max((len(name) for name, _ in self._shown), default=0) + 4
        lines += [f"  {'--' + name:<{width}}{text}" for name, text in self._shown]
        return "\n".join(lines)


def print_error(message: str) -> None:
    """Prints a user's mistake; the lines of a difference keep their breaks."""
    print(f"sactory: error: {message.strip()}", file=sys.stderr)


def run_script(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Ends the process with what a script's `main` makes of the command line.

    A user's mistake is one line and exit code 2.
    """
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as e:
        print_error(str(e))
        sys.exit(USER_ERROR)
