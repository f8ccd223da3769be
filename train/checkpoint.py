"""Saves and restores all that learning depends on, whole or not at all.

How a checkpoint lies on disk is `sactory.trainer_checkpoints`'; what its state means is the
learner's business.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from sactory import policies, retention, sealed
from sactory import trainer_checkpoints as on_disk
from sactory.errors import RetryError, UserError
from sactory.heartbeat import counted
from sactory.quarantine import set_aside
from sactory.run_dir import RunDir, read_json, remove_leftovers, whole_directory, write_json


class Checkpoints:
    """Saves and restores the agent with the trainer's counters.

    Args:
        run_dir: The run.
        items: Trackables by name (`SacAgent.checkpoint_items()`).
        keep: The newest checkpoints that are kept.
        keep_every_env_steps: Of the older ones, one is kept for each stretch of this length.
    """

    def __init__(
        self, run_dir: RunDir, items: dict[str, Any], keep: int, keep_every_env_steps: int
    ):
        self._notes: list[str] = []
        self._run_dir = run_dir
        self._root = run_dir.trainer_checkpoints
        self._root.mkdir(parents=True, exist_ok=True)
        self._checkpoint = tf.train.Checkpoint(**items)
        self._variables = list(_variables(items))
        self._keep = (keep, keep_every_env_steps)
        remove_leftovers(self._root)

    def non_finite(self) -> str | None:
        """The name of a variable that holds NaN or infinity; None if all numbers are finite."""
        for name, variable in self._variables:
            if variable.dtype.is_floating and not np.isfinite(variable.numpy()).all():
                return name
        return None

    @property
    def recovered(self) -> list[str]:
        """What had to be set aside since the start, one line each."""
        return list(self._notes)

    def save(self, state: dict[str, Any]) -> bool:
        """Saves now.

        Args:
            state: JSON value with the trainer's counters; its `train_step` names the checkpoint.

        Returns:
            Whether it worked. A failure (a full disk) is logged; older checkpoints stay.
        """
        path = self._root / on_disk.directory_name(state["train_step"])
        try:
            if not self._moved_on(path, state):
                with whole_directory(path) as temporary:
                    self._checkpoint.write(str(temporary / "weights"))
                    on_disk.seal(temporary, state)
            for old in on_disk.surplus(self._root, *self._keep):
                retention.remove(old)
        except (OSError, tf.errors.OpError) as e:
            logging.error("the trainer's checkpoint failed, the previous one stays: %s", e)
            return False
        return True

    def _moved_on(self, path: Path, state: dict[str, Any]) -> bool:
        """Writes the state alone where the same weights are saved already."""
        if not path.exists():
            return False
        try:
            on_disk.seal(path, state, on_disk.read(path)["files"])
        except (sealed.DamagedError, UserError) as e:
            self._set_aside(path, str(e))
            return False
        return True

    def _set_aside(self, path: Path, why: str) -> None:
        where = set_aside(self._run_dir, path, f"damaged checkpoint: {why}")
        self._notes.append(f"trainer checkpoint {path.name}: {why} (now {where.name})")

    def restore(self) -> dict[str, Any] | None:
        """Restores the newest checkpoint that is whole; damaged newer ones go to quarantine.

        Returns:
            Its state, or None if there is no checkpoint.

        Raises:
            UserError: There are checkpoints, but none is whole, or another Sactory wrote them.
            RetryError: There are checkpoints, none is known to be whole, but some can't be read.
        """
        damaged: list[tuple[Path, str]] = []
        unreadable = None
        for path in reversed(on_disk.find(self._root)):
            try:
                state = on_disk.read(path)["state"]
                self._load(path)
            except sealed.DamagedError as e:
                logging.error("the checkpoint %s is damaged, trying an older one: %s", path, e)
                damaged.append((path, str(e)))
                if isinstance(e, sealed.UnreadableError):
                    unreadable = f"{path}: {e}"
                continue
            for bad, why in damaged:
                self._set_aside(bad, why)
            return state
        if unreadable:  # it may pass, and what is whole must not go to quarantine for it
            raise RetryError(f"no checkpoint in {self._root} can be used now ({unreadable})")
        if damaged:
            path, why = damaged[0]
            raise UserError(
                f"none of the {len(damaged)} checkpoints in {self._root} is whole (the newest, "
                f"{path.name}: {why}): put a good one there, or move them away to begin again "
                "from new weights"
            )
        return None

    def _load(self, path: Path) -> None:
        self._checkpoint.read(str(path / "weights")).assert_consumed()
        bad = self.non_finite()
        if bad is not None:
            raise sealed.DamagedError(f"its {bad} holds NaN or infinity")


def _variables(items: dict[str, Any]) -> Any:
    """Every variable with a name that says whose it is."""
    for owner, item in items.items():
        for part in tf.nest.flatten(item):
            for variable in part.variables if isinstance(part, tf.Module) else (part,):
                yield f"{owner} {variable.name.partition(':')[0]}", variable


def next_incarnation(run_dir: RunDir) -> int:
    """Counts this start of the trainer, from 1.

    Exports and the last heartbeat know earlier starts too: were the count to begin anew because
    its file is gone, collectors would take old weights for newer ones.
    """
    path = run_dir.trainer_checkpoints / "incarnation.json"
    known = [export.incarnation for export in policies.list_exports(run_dir)]
    for source, name in ((path, "count"), (run_dir.status("train"), "incarnation")):
        record = read_json(source)
        known.append(counted(record.get(name)) if isinstance(record, dict) else 0)
    count = max(known) + 1
    write_json(path, {"count": count})
    return count
