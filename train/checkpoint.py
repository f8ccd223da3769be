"""The trainer's checkpoints: everything that learning depends on, whole or absent.

    R/train/<train_step>/weights.*     networks, targets, optimizers, temperature, train step
    R/train/<train_step>/state.json    counters, the book of progress, elapsed seconds

What the state means is the learner's business.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import logging

from sactory.run_dir import RunDir, read_json, remove_leftovers, whole_directory, write_json

_FORMAT = 1


class Checkpoints:
    """Saves and restores the agent with the trainer's counters.

    Args:
        run_dir: The run.
        items: Trackables by name (`SacAgent.checkpoint_items()`).
        keep: The newest checkpoints that are kept.
    """

    def __init__(self, run_dir: RunDir, items: dict[str, Any], keep: int):
        self._root = run_dir.trainer_checkpoints
        self._root.mkdir(parents=True, exist_ok=True)
        self._checkpoint = tf.train.Checkpoint(**items)
        self._keep = keep
        remove_leftovers(self._root)

    def existing(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        found = [p for p in self._root.iterdir() if p.name.isdigit()]
        return sorted(found, key=lambda p: int(p.name))

    def save(self, train_step: int, state: dict[str, Any]) -> bool:
        """Saves now.

        Args:
            train_step: Names the checkpoint.
            state: JSON value with the trainer's counters.

        Returns:
            Whether it worked. A failure (a full disk) is logged; older checkpoints stay.
        """
        path = self._root / f"{train_step:012d}"
        try:
            if path.exists():  # no update since: only the counters may have moved on
                write_json(path / "state.json", {"format": _FORMAT, **state})
                return True
            with whole_directory(path) as temporary:
                self._checkpoint.write(str(temporary / "weights"))
                write_json(temporary / "state.json", {"format": _FORMAT, **state})
        except (OSError, tf.errors.OpError) as e:
            logging.error("the trainer's checkpoint failed, the previous one stays: %s", e)
            return False
        for old in self.existing()[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)
        return True

    def restore(self) -> dict[str, Any] | None:
        """Restores the newest checkpoint that can be read.

        Returns:
            Its state, or None if there is no checkpoint.

        Raises:
            RuntimeError: There are checkpoints, but none can be read.
        """
        paths = self.existing()
        for path in reversed(paths):
            state = read_json(path / "state.json")
            try:
                if state is None or state.get("format") != _FORMAT:
                    raise ValueError("state.json is missing or of another format")
                self._checkpoint.read(str(path / "weights")).assert_consumed()
            except Exception as e:  # TensorFlow's reader raises nearly anything
                logging.error("checkpoint %s can't be read, trying an older one: %s", path, e)
                continue
            return state
        if paths:
            raise RuntimeError(f"none of the checkpoints in {self._root} can be read")
        return None


def next_incarnation(run_dir: RunDir) -> int:
    """Counts this start of the trainer, from 1."""
    path = run_dir.trainer_checkpoints / "incarnation.json"
    count = int((read_json(path) or {}).get("count", 0)) + 1
    write_json(path, {"count": count})
    return count
