"""The trainer's loop: sample, update, publish, save, until the run ends.

Composes the parts; what an update does is the agent's business.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
from absl import logging

from sactory import policies, settings, status_files, supervision
from sactory.heartbeat import Heartbeat
from sactory.progress import Book
from sactory.run_dir import RunDir, write_json
from sactory.sealed import seal
from sactory.triggers import Every
from train import divergence
from train.agent import SacAgent
from train.checkpoint import Checkpoints
from train.divergence import DivergedError
from train.export import Exporter
from train.feeder import Feeder
from train.journal import Journal
from train.publisher import Publisher
from train.update import Update

_POLL_SECONDS = 0.2
_EXPORT_SECONDS = 120.0
_EXPORT_SECONDS_WHEN_STOPPED = 10.0  # well within the grace period
_LOST_SECONDS = 10.0
_SAVE_AGAIN_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a learner is composed of.

    Attributes:
        agent: What learns, already restored.
        update: K compiled gradient steps on one block.
        checkpoints: Where it saves.
        exporter: Where it exports policies.
        publisher: The link to the collectors.
        feeder: Where blocks of rows come from.
        journal: Where it logs.
    """

    agent: SacAgent
    update: Update
    checkpoints: Checkpoints
    exporter: Exporter
    publisher: Publisher
    feeder: Feeder
    journal: Journal


class Learner:
    """Trains one run from where its last checkpoint left it.

    Args:
        run_dir: The run.
        stop: Set by a signal.
        heartbeat: Where it reports its health.
        parts: What it is composed of.
        incarnation: Count of the trainer's starts, this one included.
        state: What the restored checkpoint held beside the weights; empty if there was none.
    """

    def __init__(
        self,
        run_dir: RunDir,
        stop: supervision.Stop,
        heartbeat: Heartbeat,
        parts: Parts,
        incarnation: int,
        state: dict[str, Any],
    ):
        self._run_dir, self._stop, self._heartbeat = run_dir, stop, heartbeat
        self._agent, self._update = parts.agent, parts.update
        self._checkpoints, self._exporter = parts.checkpoints, parts.exporter
        self._publisher, self._feeder, self._journal = parts.publisher, parts.feeder, parts.journal
        self._incarnation = incarnation
        self._began = time.monotonic() - state.get("elapsed", 0.0)
        self._run, self._learner = settings.Run(), settings.Learner()
        self._random_steps = settings.Worker().random_steps
        self._train_step = int(parts.agent.train_step_counter.numpy())
        every = settings.Evaluator().every_env_steps
        # From the newest export on: one that a killed trainer owed is made up for.
        exports = policies.list_exports(run_dir)
        self._export_due = Every(every, start=exports[-1].env_steps if exports else 0)
        self._save_due = Every(settings.Train().checkpoint_seconds, start=time.monotonic())
        self._save_again_due = Every(_SAVE_AGAIN_SECONDS, start=time.monotonic())
        self._saved = True
        self._tell_due = Every(1.0, start=time.monotonic())
        self._look_due = Every(1.0, start=time.monotonic())
        self._lost_due = Every(_LOST_SECONDS, start=time.monotonic())
        # What the table came with at the run's beginning (a fork's, demonstrations) doesn't count.
        foreign = state.get("foreign_rows")
        others = max(0, self._publisher.inserted_rows - self.book.rows)
        self._foreign_rows: int = others if foreign is None else foreign

    @property
    def book(self) -> Book:
        """What the collectors have done."""
        return self._publisher.book

    @property
    def ratio(self) -> float:
        """Gradient steps per row after the random steps."""
        # The server's count is fresher than the reports; a restored server's may be behind them.
        rows = max(self.book.rows, self._publisher.inserted_rows - self._foreign_rows)
        return self._train_step / max(1, rows - self._random_steps)

    def run(self) -> int:
        """Trains until the end of the run or a signal.

        Returns:
            The exit code.

        Raises:
            ServerGoneError: The replay server was silent for too long.
            UserError: The agent's numbers are not finite, and going back did not help.
        """
        try:
            return self._finish(self._train())
        except DivergedError as e:
            return self._roll_back(e)

    def _train(self) -> str | None:
        """Trains until the end of the run, whose reason it returns, or a signal."""
        reason = None
        while reason is None and not self._stop.is_set():
            if self._publisher.error is not None:
                raise self._publisher.error
            block = self._feeder.get(_POLL_SECONDS)
            if block is None:
                self._heartbeat.update(state="waiting" if self.book.rows else "starting")
            else:
                self._learn(block)
            self._log_episodes()
            reason = self._end_reason()
            if reason is None:
                self._export_and_save()
        return reason

    def _learn(self, block: Any) -> None:
        metrics = self._update(block)
        self._train_step += self._learner.updates_per_call
        if not metrics.pop("finite"):
            bad = [name for name, value in metrics.items() if not np.isfinite(value)]
            name = bad[0] if bad else "the sum of the metrics"
            raise DivergedError(name, metrics.get(name, "not finite"), self._train_step)
        self._journal.update(metrics)
        self._publisher.count(self._train_step)
        if self._publisher.wants_weights:
            self._publisher.offer(self._train_step, self._policy_vector())
        self._heartbeat.progress(self._train_step)
        self._heartbeat.update(state="training")

    def _policy_vector(self) -> np.ndarray:
        """The policy's weights, float32 `[W]`, finite."""
        vector = self._agent.policy_vector()
        if not np.isfinite(vector).all():
            raise DivergedError("a weight of the policy", "not finite", self._train_step)
        return vector

    def _log_episodes(self) -> None:
        for _ in range(len(self._publisher.episodes)):  # those that come meanwhile can wait
            entry = self._publisher.episodes.popleft()
            self._journal.episode(entry, self.book, self._train_step, self.ratio)
        now = time.monotonic()
        if self._tell_due(now):
            self._heartbeat.update(**self._counters(), replay_size=self._publisher.replay_rows)
            if self._publisher.published_time is not None:
                self._heartbeat.update(weights_time=self._publisher.published_time)
        self._journal.rates(self.book, self._train_step, self._publisher.replay_rows)

    def _counters(self) -> dict[str, Any]:
        return {
            "env_steps": self.book.env_steps,
            "rows": self.book.rows,
            "train_steps": self._train_step,
            "ratio": self.ratio,
            "episodes": self.book.episodes,
            "last_train_return": self._journal.last_return,
            "incarnation": self._incarnation,
            "dropped_blocks": self._feeder.poison.dropped,
            "book": seal(self.book.to_json()),
        }

    def _export_and_save(self) -> None:
        now = time.monotonic()
        # Collectors that start with no export to act with make no env steps for the next one.
        lost = self._lost_due(now) and policies.has_no_export(self._run_dir)
        if self._export_due(self.book.env_steps) or lost:
            self.export()
        # A disk that was full for a moment must not cost a whole interval.
        if self._save_due(now) or (not self._saved and self._save_again_due(now)):
            self.save()

    def export(self) -> None:
        """Hands the policy as it is now to the exporter."""
        self._exporter.export(
            self._policy_vector(), self.book.env_steps, self._train_step, self._incarnation
        )

    def save(self) -> None:
        """Saves a checkpoint; one that failed is tried again soon.

        Raises:
            DivergedError: Something that is saved is not finite; nothing is written.
        """
        began = time.monotonic()
        bad = self._checkpoints.non_finite()
        if bad is not None:
            raise DivergedError(bad, "not finite", self._train_step)
        state = {
            "train_step": self._train_step,
            **self._publisher.to_json(),
            "journal": self._journal.to_json(),
            "foreign_rows": self._foreign_rows,
            "elapsed": began - self._began,
            "incarnation": self._incarnation,
        }
        self._saved = self._checkpoints.save(state)
        if self._saved:
            self._heartbeat.update(
                checkpoint_time=time.time(),
                checkpoint_seconds=time.monotonic() - began,
                recovered=self._checkpoints.recovered,
            )

    def _end_reason(self) -> str | None:
        if self.book.env_steps >= self._run.max_env_steps:
            return "max_env_steps"
        most = self._run.max_hours
        if most is not None and time.monotonic() - self._began >= most * 3600:
            return "max_hours"
        if self._run.stop_at_return is not None and self._look_due(time.monotonic()):
            score = status_files.read(self._run_dir.status("eval")).get("last_eval_return")
            if score is not None and score >= self._run.stop_at_return:
                return "stop_at_return"
        return None

    def _finish(self, reason: str | None) -> int:
        """Saves everything; marks the run as done if it has reached its end."""
        self._heartbeat.update(state="saving")
        self._publisher.last_round()
        self._log_episodes()
        self.save()
        if reason is None or not self._keep_the_end():
            self._heartbeat.update(**self._counters())
            self._journal.close()
            self._exporter.wait(_EXPORT_SECONDS_WHEN_STOPPED)
            self._heartbeat.close("stopped")
            return supervision.RETRY
        self._journal.close()
        counters = {k: v for k, v in self._counters().items() if k != "book"}
        self._heartbeat.update(**self._counters())
        write_json(self._run_dir.done, {"reason": reason, "time": time.time(), **counters})
        self._publisher.finish()
        self._heartbeat.close("done")
        logging.info("the run is done (%s): %s", reason, counters)
        return supervision.OK

    def _keep_the_end(self) -> bool:
        """Saves and exports what the run came to, until the disk takes it; False after a stop.

        The next start would only have an older checkpoint, and call the run done with that.
        """
        exported = False
        while True:
            if not exported:
                self.export()
                exported = self._exporter.wait(_EXPORT_SECONDS) and self._exporter.error is None
            if self._saved and exported:
                self._heartbeat.update(error=None)
                return True
            message = "the final checkpoint or export failed; it is tried again"
            logging.error(message)
            self._heartbeat.update(error=message)
            if self._stop.wait(_SAVE_AGAIN_SECONDS):
                return False
            if not self._saved:
                self.save()

    def _roll_back(self, error: DivergedError) -> int:
        """Ends this start, so that the next one goes on from the last good checkpoint."""
        logging.error("training diverged: %s", error)
        self._heartbeat.update(**self._counters(), error=f"diverged: {error}")
        self._journal.close()
        divergence.record(self._run_dir, error, self._incarnation)
        self._heartbeat.close("stopped")
        return supervision.RETRY
