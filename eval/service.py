"""The evaluator beside training: scores every greedy export in order, until the run is done.

What has been scored stands in eval.log, one row for each export, so that a restart scores nothing
twice and the trainer prunes nothing unseen.
"""

from __future__ import annotations

from pathlib import Path

from absl import logging

from eval.evaluator import Evaluator, Score
from eval.video import Film
from sactory import damaged_exports, policies, retention, settings, supervision
from sactory.actor import Actor
from sactory.errors import UserError
from sactory.heartbeat import Heartbeat
from sactory.metrics import MetricsWriter
from sactory.policies import Export
from sactory.run_dir import RunDir
from sactory.triggers import Every

_POLL_SECONDS = 1.0
_CLOSE_SECONDS = 10.0


def pending(run_dir: RunDir, scored: set[str]) -> list[Export]:
    """The greedy exports that have no score yet, oldest first."""
    return [e for e in policies.list_exports(run_dir) if e.name not in scored]


class Service:
    """Scores exports as they come.

    Args:
        run_dir: The run.
        stop: Set by a signal.
        heartbeat: Where it reports its health.
    """

    def __init__(self, run_dir: RunDir, stop: supervision.Stop, heartbeat: Heartbeat):
        self._run_dir, self._stop, self._heartbeat = run_dir, stop, heartbeat
        self._settings = settings.Evaluator()
        known = policies.scores(run_dir)
        self._scored = set(known)
        steps = [e.env_steps for e in map(policies.parse_name, map(Path, known)) if e]
        self._film_due = Every(self._settings.video_every_env_steps, start=max(steps, default=0))
        self._first = not known
        self._films = self._settings.video
        self._recovered: list[str] = []
        heartbeat.update(recovered=[])
        self._steps = 0.0
        self._actor: Actor | None = None
        self._evaluator = Evaluator(run_dir, self._settings.num_eval_episodes, stop)
        self._writer = MetricsWriter(run_dir.eval_log, run_dir.tensorboard("eval"), console=True)

    def run(self) -> int:
        """Scores until the run is done and nothing is left, or a signal comes.

        Returns:
            The exit code.
        """
        while not self._stop.is_set():
            done = self._run_dir.is_done  # before listing: the last export comes before done.json
            waiting = pending(self._run_dir, self._scored)
            self._heartbeat.update(exports_waiting=len(waiting))
            if waiting:
                self._heartbeat.update(state="scoring")
                self._score(waiting[0])
            elif done:
                self._film_last()
                break
            else:
                self._heartbeat.update(state="waiting")
                self._stop.wait(_POLL_SECONDS)
        self._writer.close(_CLOSE_SECONDS)
        self._evaluator.close()
        stopped = self._stop.is_set()
        self._heartbeat.close("stopped" if stopped else "done")
        return supervision.RETRY if stopped else supervision.OK

    def _score(self, export: Export) -> None:
        """Scores one export and enters it into the log."""
        try:
            actor = self._load(export)
        except policies.CorruptExport as e:
            logging.error("%s", e)
            self._scored.add(export.name)  # if it can't be moved, it is passed over
            self._recovered += damaged_exports.set_aside(self._run_dir, export, e)
            self._heartbeat.update(recovered=list(self._recovered))
            return
        due = self._film_due(export.env_steps) or self._first
        score = self._play(actor, export, due)
        if score is None:
            return
        self._first = False
        row = score.row()
        self._writer.write(
            "eval",
            {
                "train_step": export.train_step,
                **row,
                "export": export.name,
                "incarnation": export.incarnation,
            },
            step=export.env_steps,
        )
        self._scored.add(export.name)
        self._steps += float(score.lengths.sum())
        self._heartbeat.progress(self._steps)
        self._heartbeat.update(
            last_eval_return=row["episode_reward"], last_eval_env_steps=export.env_steps
        )

    def _load(self, export: Export) -> Actor:
        """An actor with the export's weights: always the same one."""
        if self._actor is None:
            self._actor = Actor(export.path)
        else:
            self._actor.load(export.path)
        return self._actor

    def _play(self, actor: Actor, export: Export, film: bool) -> Score | None:
        """Plays the episodes; where filming fails, it warns once and plays without."""
        if film and self._films:
            try:
                with Film(self._run_dir.video(export.env_steps), self._settings) as video:
                    score = self._evaluator.score(actor, video, actor.meta)
                logging.info("filmed %s", video.path)
                retention.apply(self._run_dir, settings.Run())
                return score
            except (UserError, RuntimeError, OSError) as e:
                logging.warning("no videos: %s", e)
                self._films = False
        return self._evaluator.score(actor, meta=actor.meta)

    def _film_last(self) -> None:
        """Films the run's last policy: only done.json says which one that was."""
        last = policies.latest_export(self._run_dir, policies.GREEDY)
        if last is None or not self._films or self._run_dir.video(last.env_steps).exists():
            return
        self._heartbeat.update(state="filming")
        try:
            self._play(self._load(last), last, film=True)
        except policies.CorruptExport as e:
            logging.warning("%s", e)
