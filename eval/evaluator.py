"""Plays a greedy policy on fixed seeds, all episodes of an evaluation at once.

The same seeds every time: two policies of a run meet the same first states. What is scored when,
and where the numbers go, is `eval.service`'s and `eval.main`'s business.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from absl import logging
from tf_agents.environments import py_environment
from tf_agents.trajectories import time_step as ts

from eval.parameters import parameters_for_run
from eval.video import Film
from sactory import envs, settings
from sactory.curriculum.state import scalar_of
from sactory.run_dir import RunDir
from sactory.specs import Specs, check_env_matches
from sactory.supervision import Stop

_SEED_STREAM = 0x45564C  # keeps these seeds apart from the collectors'
_MAX_ROWS = 1_000_000  # an environment without a time limit may never end an episode


class Acts(Protocol):
    """What the evaluator asks of a policy (`sactory.actor.Actor` has it)."""

    def act(self, observation: Any) -> np.ndarray:
        """Actions `[B, A]` for a batch of observations."""
        ...


@dataclasses.dataclass(frozen=True)
class Score:
    """The outcome of one evaluation of N episodes.

    Attributes:
        returns: Undiscounted sums of rewards, `[N]`.
        lengths: Env steps, `[N]`.
        successes: Whether each was solved, `[N]`; None where the environment does not say.
        seconds: Wall-clock time of the evaluation.
        more: What else the row tells: of the curriculum.
    """

    returns: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray | None
    seconds: float
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The metrics of the evaluation by their registered names."""
        row: dict[str, Any] = {
            "episode_reward": float(self.returns.mean()),
            "episode_length": float(self.lengths.mean()),
            "episode_reward_std": float(self.returns.std()),
            "episode_reward_min": float(self.returns.min()),
            "episode_reward_max": float(self.returns.max()),
            "episodes": len(self.returns),
            "duration": self.seconds,
            **self.more,
        }
        if self.successes is not None:
            row["success"] = float(self.successes.mean())
        return row


class Evaluator:
    """The environments of an evaluation, built once and reset to their seeds each time.

    Args:
        run_dir: The run.
        num_episodes: Episodes N of one evaluation, one environment each.
        stop: Ends an evaluation early.
    """

    def __init__(self, run_dir: RunDir, num_episodes: int, stop: Stop | None = None):
        self._run_dir, self._stop = run_dir, stop
        self._specs = Specs.load(run_dir)
        # The first episodes of a longer evaluation are those of a shorter one.
        seeds = np.random.SeedSequence([settings.Run().seed, _SEED_STREAM])
        self._seeds = [int(seed) for seed in seeds.generate_state(num_episodes)]
        self._envs = [self._load(seed) for seed in self._seeds]
        self._fresh = True
        check_env_matches(self._specs, self._envs[0])
        self._parameters = parameters_for_run(run_dir, self._envs[0])
        self._batch = {
            name: np.zeros((num_episodes, *spec.shape), np.float32)
            for name, spec in self._specs.sensors.items()
        }

    @property
    def env(self) -> Any:
        """The environment of the first episode."""
        return self._envs[0]

    def score(
        self, actor: Acts, film: Film | None = None, meta: Mapping[str, Any] | None = None
    ) -> Score | None:
        """Plays all episodes.

        Args:
            actor: The policy.
            film: Records the first episode.
            meta: The policy's meta.json, which tells of the curriculum when it was exported.

        Returns:
            The outcome; None if a stop came first.

        Raises:
            UserError: The first episode can't be filmed.
        """
        began = time.monotonic()
        count = len(self._envs)
        returns, lengths = np.zeros(count), np.zeros(count)
        infos: list[Mapping[str, Any]] = [{}] * count
        self._parameters.follow(meta or {})
        self._reset()
        playing = list(range(count))
        for _ in range(_MAX_ROWS):
            if film is not None and 0 in playing:
                film.capture(self._envs[0], int(lengths[0]))
            actions = actor.act(self._observations())
            for i in tuple(playing):
                step = self._envs[i].step(actions[i])
                returns[i] += float(step.reward)
                lengths[i] += self._specs.env["action_repeat"]
                if not self._hold(i, step) or step.step_type == ts.StepType.LAST:
                    playing.remove(i)
                    infos[i] = self._info(i)
                    if film is not None and i == 0:
                        film.capture(self._envs[0], int(lengths[0]))
            if not playing:
                break
            if self._stop is not None and self._stop.is_set():
                if film is not None:
                    film.keep = False
                return None
        else:
            logging.warning("episodes cut at %d rows: the environment has no time limit", _MAX_ROWS)
        successes = [scalar_of(info, "success") for info in infos]
        solved = None if None in successes else np.array(successes)
        more = self._parameters.row(returns, lengths, infos)
        return Score(returns, lengths, solved, time.monotonic() - began, more)

    def close(self) -> None:
        """Frees the environments."""
        for env in self._envs:
            env.close()

    def _load(self, seed: int) -> py_environment.PyEnvironment:
        return envs.load_for_run(self._run_dir, seed)

    def _reset(self) -> None:
        """Starts every environment's episode from its seed."""
        for i, seed in enumerate(self._seeds):
            if not self._fresh:
                try:
                    self._envs[i].seed(seed)
                except NotImplementedError:  # its function takes the seed, if anything does
                    with contextlib.suppress(Exception):
                        self._envs[i].close()
                    self._envs[i] = self._load(seed)
            self._parameters.set(self._envs[i], seed)
            self._hold(i, self._envs[i].reset())
        self._fresh = False

    def _hold(self, i: int, step: ts.TimeStep) -> bool:
        """Takes over an environment's observation; False if the episode can't go on with it."""
        sensors: Any = step.observation
        if not isinstance(self._specs.observation, dict):
            sensors = {"observation": sensors}
        for name, batch in self._batch.items():
            value = np.asarray(sensors[name], np.float32)
            if not np.isfinite(value).all():
                logging.error("episode %d ends early: %s is not finite", i, name)
                return False
            batch[i] = value
        return True

    def _observations(self) -> Any:
        """The batch `[N, ...]` as the policy takes it."""
        if isinstance(self._specs.observation, dict):
            return self._batch
        return self._batch["observation"]

    def _info(self, i: int) -> Mapping[str, Any]:
        """What the environment tells of its episode."""
        try:
            info: Any = self._envs[i].get_info()
        except NotImplementedError:
            return {}
        return info if isinstance(info, Mapping) else {}
