"""How often Reverb has crashed while it loaded a checkpoint.

Reverb aborts on some of what it reads, which leaves a traceback in a file. Whoever kills the
process from outside leaves none: that says nothing of the checkpoint. Signals don't tell the two
apart, for Reverb holds Python's lock while it loads: no thread of ours sees one.
"""

from __future__ import annotations

import contextlib
import faulthandler
from collections.abc import Iterator

from sactory.run_dir import RunDir

_STDERR = 2


class Crashes:
    """The crashes in a row, one file each, beside the copies of the checkpoints.

    Args:
        run_dir: The run.
    """

    def __init__(self, run_dir: RunDir):
        self._directory = run_dir.replay_history

    def count(self) -> int:
        """Crashes since a load went well."""
        return sum(path.stat().st_size > 0 for path in self._directory.glob(".crash-*"))

    def forget(self) -> None:
        """Starts to count anew."""
        for path in self._directory.glob(".crash-*"):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Counts a crash of what it surrounds; without one, all are forgotten."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with open(self._directory / f".crash-{self.count()}", "w") as f:
            faulthandler.enable(f)
            try:
                yield
            except Exception as e:
                f.write(f"{e!r}\n")
                raise
            finally:
                faulthandler.enable(_STDERR)
        with contextlib.suppress(OSError):  # the server is up: that matters more
            self.forget()
