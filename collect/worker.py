"""The collector's loop: acts in E environments at once and writes rows.

Order of a worker's life: random actions while the run has too few rows, then the first exported
policy, then ever newer weights, until the run ends.
"""

from __future__ import annotations

import time

import numpy as np
import reverb
from absl import logging

from collect.adder import NStepAdder
from collect.draws import draws_for_run
from collect.refresher import Refresher, interval
from collect.slots import Slots
from collect.writer import SegmentWriter
from sactory import damaged_exports, policies, progress, settings, supervision, weights
from sactory.actor import Actor
from sactory.envs import load_for_run
from sactory.heartbeat import Heartbeat
from sactory.metrics import MetricsWriter
from sactory.rows import UNSOUND, all_sound, sound
from sactory.run_dir import RunDir
from sactory.specs import Specs, check_env_matches
from sactory.triggers import Every

_POLL_SECONDS = 0.1
_HOLD_SECONDS = 0.5
_DAMAGE_SECONDS = 2.0  # damaged exports that can't be moved are hashed anew at each try
_LAST_FLUSH_SECONDS = 5.0
_METRICS_SECONDS = 10.0
RANDOM_POLICY_STEP = -1
PIECES = ("env", "policy", "writer", "refresh")


class Worker:
    """One collector of a run.

    Args:
        run_dir: The run.
        worker: Its id, unique in the run.
        stop: Set by a signal.
        heartbeat: Where it reports its health.
        client: The replay server.
    """

    def __init__(
        self,
        run_dir: RunDir,
        worker: int,
        stop: supervision.Stop,
        heartbeat: Heartbeat,
        client: reverb.Client,
    ):
        self._run_dir, self._stop, self._heartbeat = run_dir, stop, heartbeat
        self._settings, replay = settings.Worker(), settings.Replay()
        self._replay = replay
        specs = Specs.load(run_dir)
        life = _life(run_dir, heartbeat.starts)
        seeds = np.random.SeedSequence([settings.Run().seed, worker, life])
        self._random = np.random.default_rng(seeds)
        self._actor_seed = int(self._random.integers(2**31))
        num_envs = self._settings.num_envs
        fields = dict(specs.row.fields)
        self._action_shape = (num_envs, *fields["action"])
        envs = [load_for_run(run_dir, int(seed)) for seed in seeds.generate_state(num_envs)]
        for env in envs:
            check_env_matches(specs, env)
        adder = NStepAdder(specs.row, replay.n_step, replay.gamma, num_envs)
        self._draws = draws_for_run(run_dir, envs[0], worker, life)
        self._slots = Slots(envs, specs, adder, self._draws)
        self._specs = specs
        self._writer = SegmentWriter(client, replay.segment_length, specs.row.size)
        self._refresher = Refresher(
            run_dir,
            client,
            stop.event,
            worker,
            interval(settings.Collect().refresh_seconds, settings.Run().num_collectors),
            replay.segment_length,
        )
        self._actor: Actor | None = None
        self._load_at = 0.0
        self._recovered: list[str] = []
        heartbeat.update(recovered=[])
        self._version = weights.Version(0, RANDOM_POLICY_STEP)
        self._episodes = self._refused = 0
        self._seconds = dict.fromkeys(PIECES, 0.0)
        self._batches = 0
        self._said = time.monotonic()
        self._metrics = MetricsWriter(tensorboard=run_dir.tensorboard(f"collect_{worker}"))
        self._metrics_due = Every(_METRICS_SECONDS, start=self._said)

    def run(self) -> int:
        """Collects until the run ends or a signal comes.

        Returns:
            The exit code.

        Raises:
            client_lib.ServerGoneError: The replay server was silent for too long.
        """
        self._refresher.start()
        while not self._over():
            actions = self._choose_actions()
            if actions is None:
                self._stop.wait(_POLL_SECONDS)
                continue
            self._send(self._step(actions))
            self._tell()
        return self._end()

    def _over(self) -> bool:
        if self._refresher.error is not None:
            raise self._refresher.error
        state = self._refresher.state
        return self._stop.is_set() or (state is not None and state.stop) or self._refresher.is_done

    def _choose_actions(self) -> np.ndarray | None:
        """Actions `[E, A]`, or None while there is nothing to act with."""
        state = self._refresher.state
        if state is None or not self._draws.follow(state):
            self._heartbeat.update(state="waiting for the trainer")
            return None
        self._slots.begin()
        if self._replay.mode == "async" and (
            self._refresher.trainer_silence > self._replay.async_patience
        ):
            self._heartbeat.update(state="paused: the trainer is silent")
            return None
        if self._actor is None and self._refresher.run_rows < self._settings.random_steps:
            return self._random.uniform(-1, 1, self._action_shape).astype(np.float32)
        began = time.perf_counter()
        if self._actor is None and began >= self._load_at:
            self._actor = self._load_actor()
        if self._actor is None:
            return None
        newer = self._refresher.take_weights()
        if newer is not None:
            self._take(self._actor, *newer)
        now = time.perf_counter()
        self._seconds["refresh"] += now - began
        actions = self._actor.act(self._sensors())
        self._seconds["policy"] += time.perf_counter() - now
        return actions

    def _take(self, actor: Actor, version: weights.Version, vector: np.ndarray) -> None:
        try:
            actor.assign(vector)
            self._version = version
        except ValueError as e:  # the next ones may be ours again
            logging.error("the published weights don't fit the policy: %s", e)

    def _sensors(self) -> np.ndarray | dict[str, np.ndarray]:
        """The batch of observations as the policy takes it."""
        if not isinstance(self._specs.observation, dict):
            return self._slots.observations
        parts, start = {}, 0
        for key, spec in self._specs.observation.items():
            size = int(np.prod(spec.shape))
            part = self._slots.observations[:, start : start + size]
            parts[key] = part.reshape((-1, *spec.shape))
            start += size
        return parts

    def _load_actor(self) -> Actor | None:
        """The newest whole export, whose own weights let it act at once; None if there is none."""
        for export in policies.newest_first(self._run_dir, policies.COLLECT):
            try:
                actor = Actor(export.path, self._actor_seed)
            except policies.CorruptExport as e:
                self._recovered += damaged_exports.set_aside(self._run_dir, export, e)
                self._heartbeat.update(recovered=list(self._recovered))
                self._load_at = time.perf_counter() + _DAMAGE_SECONDS
                continue
            self._version = weights.Version(export.incarnation, export.train_step)
            self._refresher.set_version(self._version)
            logging.info("acting with the policy %s", export.name)
            return actor
        self._heartbeat.update(state="waiting for an export")
        return None

    def _step(self, actions: np.ndarray) -> np.ndarray:
        """One step of every environment; the rows that are whole now `[M, N]`, time-major."""
        began = time.perf_counter()
        rows, episodes = self._slots.step(actions, self._version.train_step)
        for episode in episodes:
            self._refresher.add_episode(progress.Episode(sequence=self._episodes, **episode))
            self._episodes += 1
        self._batches += 1
        count = self._settings.num_envs
        self._refresher.count(count, count * self._specs.env["action_repeat"])
        self._seconds["env"] += time.perf_counter() - began
        return rows

    def _send(self, rows: np.ndarray) -> None:
        """Hands rows `[M, N]` to the writer, if they can be learned from."""
        began = time.perf_counter()
        self._wait_for_room()
        if not all_sound(rows):  # the policy's action, or a sum of rewards
            fit = sound(rows)
            for row in rows[~fit]:
                self._refused += 1
                logging.error("refused a row: it holds %s: %s", UNSOUND, row)
            rows = rows[fit]
        try:
            self._writer.add(rows)
        except RuntimeError as e:
            self._renew_writer(e)
        self._seconds["writer"] += time.perf_counter() - began

    def _wait_for_room(self) -> None:
        """Waits while the server holds inserts back or is away.

        It comes after the next step, whose time hides the answer's way, and before that step's rows
        are sent: a worker that dies has lost no more than one answer's worth of them.
        """
        while not self._over():
            try:
                if self._writer.flush(_HOLD_SECONDS):
                    return
                self._heartbeat.update(state="waiting for room in the replay")
            except RuntimeError as e:
                self._renew_writer(e)

    def _renew_writer(self, error: RuntimeError) -> None:
        """Opens a new writer, if the server is there: one that has failed never works again."""
        logging.warning("the writer failed: %s", error)
        self._stop.wait(_HOLD_SECONDS)
        try:
            self._writer.reopen()
        except RuntimeError as e:
            logging.warning("no new writer can be opened now: %s", e)

    def _tell(self) -> None:
        """Updates the heartbeat about once a second."""
        now = time.monotonic()
        if now - self._said < 1.0:
            return
        self._said = now
        steps = max(1, self._batches * self._settings.num_envs)
        state = self._refresher.state
        self._heartbeat.progress(steps * self._specs.env["action_repeat"])
        values = {
            "refused_steps": self._refused + self._slots.refused,
            "policy_age": state.train_step - self._version.train_step
            if state and self._actor
            else 0,
            **{f"{piece}_us": round(1e6 * s / steps, 2) for piece, s in self._seconds.items()},
        }
        phase = "random" if self._actor is None else "collecting"
        self._heartbeat.update(state=phase, episodes=self._episodes, **values)
        if state and self._metrics_due(now):
            self._metrics.scalars("collect", values, step=state.env_steps)

    def _end(self) -> int:
        """Sends what is whole, within a time limit, and says how it ended."""
        try:
            confirmed = self._writer.flush(_LAST_FLUSH_SECONDS)
        except RuntimeError:
            confirmed = False
        if not confirmed:
            logging.info("the server didn't take the last rows in time (it may hold inserts)")
        self._refresher.report_now()
        self._metrics.close(timeout=5.0)
        done = not self._stop.is_set()
        self._heartbeat.close("done" if done else "stopped")
        return supervision.OK if done else supervision.RETRY


def _life(run_dir: RunDir, starts: int) -> int:
    """Which of a worker's lives this is, for its random numbers: the count of its starts.

    A first start in a run that has begun may be a later one, whose heartbeat was lost in a power
    cut: it must not draw the first life's numbers again.
    """
    begun = starts == 1 and run_dir.train_log.exists() and run_dir.train_log.stat().st_size > 0
    return time.time_ns() if begun else starts
