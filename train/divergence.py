"""What happens when learning yields NaN or infinity: back to the last checkpoint, but only once.

    R/train/diverged.json   {metric, value, train_step, incarnation, time, restored_train_step}

Going back is a restart of the trainer, so that there is one way to restore. The record is written
by the trainer that diverged; the next one adds where it went back to and tells the log.
"""

from __future__ import annotations

import time

from absl import logging

from sactory import trainer_checkpoints
from sactory.errors import UserError
from sactory.progress import Book
from sactory.run_dir import RunDir, read_json, write_json
from train.journal import Journal


class DivergedError(Exception):
    """A number of the learner's is no longer finite.

    Args:
        metric: Its name.
        value: What it is now.
        train_step: Gradient steps made when it was found.
    """

    def __init__(self, metric: str, value: float | str, train_step: int):
        super().__init__(f"{metric} is {value} at train step {train_step}")
        self.metric, self.value, self.train_step = metric, str(value), train_step


def record(run_dir: RunDir, error: DivergedError, incarnation: int) -> None:
    """Allows the run's one rollback.

    Raises:
        UserError: The run has been rolled back before: the same again would not help.
        OSError: The record can't be written.
    """
    if run_dir.diverged.exists():
        before = read_json(run_dir.diverged)
        first = before if isinstance(before, dict) else {}
        saved = bool(trainer_checkpoints.find(run_dir.trainer_checkpoints))
        where = f"`sactory init --from {run_dir} --run_dir NEW --set …`" if saved else "a new run"
        raise UserError(
            f"training diverged again: {error}. It was rolled back once, after "
            f"{first.get('metric')} was {first.get('value')} at train step "
            f"{first.get('train_step')}, to train step {first.get('restored_train_step')}. "
            f"Go on in {where} with steadier settings: train.SacAgent.gradient_clip_norm = 1.0, or "
            "lower train.SacAgent.critic_learning_rate and train.SacAgent.actor_learning_rate"
        )
    fields = {"metric": error.metric, "value": error.value, "train_step": error.train_step}
    write_json(run_dir.diverged, {**fields, "incarnation": incarnation, "time": time.time()})


def tell_rollback(run_dir: RunDir, journal: Journal, book: Book, train_step: int) -> None:
    """Writes the `rollback` event, once, after the trainer before this one diverged.

    Args:
        run_dir: The run.
        journal: Where the event goes.
        book: The restored one.
        train_step: Of the restored weights; 0: the initial ones.
    """
    found = read_json(run_dir.diverged)
    if not isinstance(found, dict) or "restored_train_step" in found:
        return
    logging.warning(
        "%s was %s at train step %d: the run is rolled back to train step %d%s",
        found.get("metric"),
        found.get("value"),
        found.get("train_step"),
        train_step,
        "" if train_step else ", the initial weights, for there was no checkpoint yet",
    )
    journal.event(
        "rollback",
        book,
        train_step=train_step,
        metric=found.get("metric"),
        value=found.get("value"),
        diverged_train_step=found.get("train_step"),
    )
    write_json(run_dir.diverged, {**found, "restored_train_step": train_step})
