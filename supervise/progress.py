"""What `sactory run` shows while it runs: the field's lines, events, and how far it is.

On a terminal a live line stays at the bottom; elsewhere plain lines come now and then. Everything
is read from the run directory, so a stuck program can't hold the display.
"""

from __future__ import annotations

import collections
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from sactory import metrics, status
from sactory.diagnosis import duration
from sactory.run_dir import RunDir

_TRAIN_LINE_SECONDS = 3.0  # episodes of short tasks would flood the console
_PLAIN_SECONDS = 30.0
_RATE_WINDOW_SECONDS = 60.0


class Console:
    """Prints lines, and on a terminal keeps one live line below them.

    A console that goes away (a closed terminal, a broken pipe) silences it; the run goes on.

    Args:
        stream: Where to print; None: standard output.
    """

    def __init__(self, stream: TextIO | None = None):
        self._stream = sys.stdout if stream is None else stream
        self._gone = False
        self._live = None
        self.is_terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        if self.is_terminal:
            from rich.console import Console as RichConsole
            from rich.live import Live

            rich = RichConsole(file=self._stream, highlight=False, markup=False, emoji=False)
            self._live = Live(console=rich, auto_refresh=False, transient=True)

    def say(self, text: str) -> None:
        """Prints lines for good."""
        if self._gone:
            return
        try:
            if self._live is not None and self._live.is_started:
                self._live.console.print(text, soft_wrap=True)
            else:
                print(text, file=self._stream, flush=True)
        except (OSError, ValueError):  # closed, or of an encoding that lacks a character
            self._gone = True

    def show(self, text: str) -> None:
        """Replaces the live line; nothing without a terminal."""
        if self._gone or self._live is None:
            return
        from rich.text import Text

        try:
            if not self._live.is_started:
                self._live.start()
            line = Text(text, style="bold", no_wrap=True, overflow="ellipsis")
            self._live.update(line, refresh=True)
        except (OSError, ValueError):  # closed, or of an encoding that lacks a character
            self._gone = True

    def close(self) -> None:
        """Removes the live line and gives the cursor back."""
        if self._live is not None and self._live.is_started:
            try:
                self._live.stop()
            except (OSError, ValueError):
                self._gone = True


class Follower:
    """Reads the rows that are appended to a JSON-lines file from now on.

    Args:
        path: The file; it need not exist yet.
    """

    def __init__(self, path: Path):
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def rows(self) -> list[dict[str, Any]]:
        """Rows that are whole by now and were not returned yet."""
        try:
            if self._path.stat().st_size < self._offset:
                self._offset = 0  # cut or replaced: read it anew
            with open(self._path, "rb") as f:
                f.seek(self._offset)
                data = f.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        found: list[dict[str, Any]] = []
        for line in whole.splitlines():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                found.append(row)
        return found


class Progress:
    """Follows a run and prints what happens.

    Args:
        run_dir: The run directory.
        max_env_steps: Where the run ends, in env steps.
        console: Where to print.
    """

    def __init__(self, run_dir: RunDir, max_env_steps: int, console: Console):
        self._run_dir = run_dir
        self._max_env_steps = max_env_steps
        self._console = console
        self._train_log = Follower(run_dir.train_log)
        self._eval_log = Follower(run_dir.eval_log)
        self._restarts: dict[str, int] = {}
        self._points: collections.deque[tuple[float, int]] = collections.deque()
        self._train_line_at = self._plain_at = -1e9
        self._has_failed = False

    def update(self) -> None:
        """Prints what is new; call it about twice a second.

        Whatever goes wrong is said once: a display must not end the run that it shows.
        """
        try:
            self._update()
        except Exception as e:
            if not self._has_failed:
                what = f"{type(e).__name__}: {e}"
                self._console.say(f"sactory: warning: not all progress is shown: {what}")
            self._has_failed = True

    def _update(self) -> None:
        now = time.monotonic()
        for row in self._train_log.rows():
            if "episode_reward" in row and now - self._train_line_at >= _TRAIN_LINE_SECONDS:
                self._train_line_at = now
                self._console.say(metrics.train_line(row))
        for row in self._eval_log.rows():
            if "episode_reward" in row:
                self._console.say(metrics.eval_line(row))
        now_status = status.collect(self._run_dir)
        self._events(now_status["programs"])
        line = progress_line(now_status, self._max_env_steps, self._rate(now, now_status))
        self._console.show(line)
        if not self._console.is_terminal and now - self._plain_at >= _PLAIN_SECONDS:
            self._plain_at = now
            self._console.say(f"sactory: {line}")

    def _events(self, programs: list[dict[str, Any]]) -> None:
        for program in programs:
            name, restarts = status.full_name(program), program["restarts"]
            if restarts > self._restarts.get(name, 0):
                why = ": ".join(filter(None, (program["last_exit"], program["last_error"])))
                self._console.say(f"sactory: {name} was started again ({why or 'it had ended'})")
            self._restarts[name] = restarts

    def _rate(self, now: float, now_status: dict[str, Any]) -> float | None:
        """Env steps per second over the last minute."""
        if now_status["state"] != "running":
            self._points.clear()
            return None
        self._points.append((now, now_status["env_steps"]))
        while now - self._points[0][0] > _RATE_WINDOW_SECONDS:
            self._points.popleft()
        first_time, first_steps = self._points[0]
        if now - first_time < 2.0:
            return None
        return max(0.0, (now_status["env_steps"] - first_steps) / (now - first_time))


def progress_line(now_status: dict[str, Any], max_env_steps: int, rate: float | None) -> str:
    """`running | 12,000 / 80,000 env steps (15 %) | … | ETA 7 min`."""
    steps = now_status["env_steps"]
    state = now_status["state"]
    if now_status["done"] is not None and state == "running":
        state = "finishing: the last policies are scored"
    parts = [
        "starting" if state == "stopped" else state,  # the tree has not shown itself yet
        f"{steps:,} / {max_env_steps:,} env steps ({100 * steps // max_env_steps} %)",
        f"{now_status['train_steps']:,} updates",
    ]
    for label, key, form in (
        ("RATIO", "ratio", ".3f"),
        ("return", "last_train_return", ".1f"),
        ("eval", "last_eval_return", ".1f"),
    ):
        if now_status[key] is not None:
            parts.append(f"{label} {now_status[key]:{form}}")
    if rate and now_status["done"] is None:
        parts.append(f"{rate:,.0f} env steps/s")
        parts.append(f"ETA {duration(max(0, max_env_steps - steps) / rate)}")
    return " | ".join(parts)
