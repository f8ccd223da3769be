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
from sactory.rows import LIMIT, UNSOUND, all_sound
from sactory.run_dir import RunDir
from sactory.specs import Specs, check_env_matches
from sactory.supervision import Stop

_SEED_STREAM = 0x45564C  # keeps these seeds apart from the collectors'
_MAX_ROWS = 1_000_000  # an environment without a time limit may never end an episode
_RESETS = 3  # tries to begin an episode, as many as a collector has


class NoEpisodeError(Exception):
    """No environment could begin an episode."""


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


class _Tally:
    """What the episodes of an evaluation have come to.

    Attributes:
        returns: Sums of rewards so far, `[N]`.
        lengths: Env steps so far, `[N]`.
        infos: What the environments tell at the end, `[N]`; None of an episode that has not come
            to its end: it is under way, or it failed.
        playing: The episodes that are under way.
    """

    def __init__(self, count: int):
        self.returns, self.lengths = np.zeros(count), np.zeros(count)
        self.infos: list[Mapping[str, Any] | None] = [None] * count
        self.playing: list[int] = []

    def successes(self) -> np.ndarray | None:
        """Whether each was solved, `[N]`: one that failed was not; None if nobody tells."""
        told = [0.0 if info is None else scalar_of(info, "success") for info in self.infos]
        return None if None in told or not any(self.infos) else np.array(told)


class Evaluator:
    """The environments of an evaluation, built once and reset to their seeds each time.

    What an environment raises ends its episode, which counts with its return until then: a run
    must not end because one of its policies makes a simulation diverge.

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
        self._unused = set(range(num_episodes))  # since they were built
        self._failed: set[int] = set()
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
            NoEpisodeError: Every environment fails before its first step.
            UserError: The first episode can't be filmed.
        """
        began = time.monotonic()
        self._parameters.follow(meta or {})
        tally = _Tally(len(self._envs))
        tally.playing = [i for i in range(len(self._envs)) if self._begin(i)]
        if not tally.playing:
            raise NoEpisodeError("no environment can begin an episode: the log says why")
        for _ in range(_MAX_ROWS):
            if film is not None and 0 in tally.playing:
                film.capture(self._envs[0], int(tally.lengths[0]))
            actions = actor.act(self._observations())
            for i in tuple(tally.playing):
                self._step(i, actions[i], tally)
                if film is not None and i == 0 and tally.infos[0] is not None:
                    film.capture(self._envs[0], int(tally.lengths[0]))
            if not tally.playing:
                break
            if self._stop is not None and self._stop.is_set():
                if film is not None:
                    film.keep = False
                return None
        else:
            logging.warning("episodes cut at %d rows: the environment has no time limit", _MAX_ROWS)
        return self._result(tally, time.monotonic() - began)

    def _result(self, tally: _Tally, seconds: float) -> Score:
        """The outcome; only whole episodes judge a curriculum, as in a collector."""
        infos = {i: info for i, info in enumerate(tally.infos) if info is not None}
        whole = list(infos)
        more = self._parameters.row(
            tally.returns[whole], tally.lengths[whole], list(infos.values())
        )
        return Score(tally.returns, tally.lengths, tally.successes(), seconds, more)

    def close(self) -> None:
        """Frees the environments."""
        for env in self._envs:
            with contextlib.suppress(Exception):  # a user's code; all is scored
                env.close()

    def _load(self, seed: int) -> py_environment.PyEnvironment:
        return envs.load_for_run(self._run_dir, seed)

    def _begin(self, i: int) -> bool:
        """Begins an environment's episode from its seed; False if it can't."""
        for attempt in range(_RESETS):
            try:
                if attempt == 0:
                    self._rewind(i)
                self._parameters.set(self._envs[i], self._seeds[i])
                self._hold(i, self._envs[i].reset().observation)
                return True
            except Exception as e:  # a user's code
                logging.error("episode %d can't begin: %s: %s", i, type(e).__name__, e)
                self._failed.add(i)
        return False

    def _rewind(self, i: int) -> None:
        """Puts an environment back to its seed; one that has failed is built anew."""
        if i in self._unused:
            self._unused.remove(i)
            return
        if i not in self._failed:
            try:
                self._envs[i].seed(self._seeds[i])
                return
            except NotImplementedError:  # its function takes the seed, if anything does
                pass
        with contextlib.suppress(Exception):
            self._envs[i].close()
        self._envs[i] = self._load(self._seeds[i])
        self._failed.discard(i)

    def _step(self, i: int, action: np.ndarray, tally: _Tally) -> None:
        """One step of an environment; one that fails ends the episode without being counted."""
        try:
            step = self._envs[i].step(action)
            reward = float(step.reward)
            if not abs(reward) <= LIMIT:  # also false for NaN
                raise ValueError(f"the reward is {reward}")
            self._hold(i, step.observation)
            last = step.step_type == ts.StepType.LAST
        except Exception as e:  # a user's code, or a simulation that has diverged
            logging.error("episode %d ends early: %s: %s", i, type(e).__name__, e)
            self._failed.add(i)
            tally.playing.remove(i)
            return
        tally.returns[i] += reward
        tally.lengths[i] += self._specs.env["action_repeat"]
        if last:
            tally.playing.remove(i)
            tally.infos[i] = self._info(i)

    def _hold(self, i: int, observation: Any) -> None:
        """Takes over an environment's observation.

        Raises:
            ValueError: A collector would refuse it.
        """
        sensors: Any = observation
        if not isinstance(self._specs.observation, dict):
            sensors = {"observation": sensors}
        for name, batch in self._batch.items():
            value = np.asarray(sensors[name], np.float32)
            if value.shape != batch.shape[1:]:
                raise ValueError(f"{name} has shape {value.shape}, its spec says {batch.shape[1:]}")
            if not all_sound(value):
                raise ValueError(f"{name} holds {UNSOUND}")
            batch[i] = value

    def _observations(self) -> Any:
        """The batch `[N, ...]` as the policy takes it."""
        if isinstance(self._specs.observation, dict):
            return self._batch
        return self._batch["observation"]

    def _info(self, i: int) -> Mapping[str, Any]:
        """What the environment tells of its episode."""
        try:
            info: Any = self._envs[i].get_info()
        except Exception:  # there is none, or a user's code fails; no verdict is no mistake
            return {}
        return info if isinstance(info, Mapping) else {}
