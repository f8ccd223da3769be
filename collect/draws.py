"""What the parameters of a collector's episodes are: drawn from the newest state of the curriculum.

A run without a curriculum has `Draws`, too, which do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from sactory import settings, status_files
from sactory.curriculum import Curriculum, State, episode_generator
from sactory.curriculum.binding import load_for_run
from sactory.curriculum.environment import Setter
from sactory.curriculum.state import Played
from sactory.errors import UserError
from sactory.progress import RunState
from sactory.run_dir import RunDir

_EPISODES_PER_LIFE = 2**32


class Draws:
    """Of a run without a curriculum: nothing is set."""

    def follow(self, state: RunState) -> bool:
        """Takes over the newest state of the run; False while there is none to begin with."""
        return True

    def begin(self, number: int, env: Any) -> None:
        """Sets the parameters of the episode that environment `number` begins next."""

    def played(self, number: int, info: Mapping[str, Any]) -> Played | None:
        """What environment `number`'s finished episode was played at.

        Args:
            number: Of the environment.
            info: What the environment tells of the episode.
        """
        return None


class CurriculumDraws(Draws):
    """Of a run with a curriculum.

    Args:
        curriculum: The run's.
        env: One of the environments.
        seed: The run's.
        worker: The worker's id.
        life: Which of the worker's lives this is: no two draw the same.
        kept: R/curriculum_state.json, where the trainer keeps what it is about to publish.
    """

    def __init__(
        self, curriculum: Curriculum, env: Any, seed: int, worker: int, life: int, kept: Path
    ):
        self._curriculum, self._setter, self._kept = curriculum, Setter(curriculum, env), kept
        self._seed, self._worker = seed, worker
        self._episode = life * _EPISODES_PER_LIFE
        self._heard: State | None = None
        self._state: State | None = None
        self._played: dict[int, Played] = {}

    def follow(self, state: RunState) -> bool:
        """Takes over the newest state, if it fits the curriculum; what doesn't is logged."""
        told = state.curriculum
        if self._state is None and told is not None and told.version < self._kept_version():
            return False  # a restored server's; the trainer is about to publish a newer one
        if told is not self._heard:
            self._heard = told
            try:
                if told is not None:
                    self._curriculum.check_state(told)
                    self._state = told
            except UserError as e:
                logging.warning("dropped a state of the curriculum: %s", e)
        return self._state is not None

    def _kept_version(self) -> int:
        return (status_files.curriculum(self._kept) or {}).get("version", 0)

    def begin(self, number: int, env: Any) -> None:
        """Draws from the newest state."""
        state = self._state
        assert state is not None  # nothing begins before
        generator = episode_generator(self._seed, self._worker, self._episode)
        self._episode += 1
        draw = self._curriculum.draw(state, generator)
        self._played[number] = Played(state.incarnation, state.version, draw.probe)
        self._setter.set(env, draw.values)

    def played(self, number: int, info: Mapping[str, Any]) -> Played | None:
        """The state that the reset applied, with what the curriculum judges by."""
        at = self._played[number]
        metrics = self._curriculum.metrics(info)
        return Played(at.incarnation, at.version, at.probe, metrics)


def draws_for_run(run_dir: RunDir, env: Any, worker: int, life: int) -> Draws:
    """The draws of a run whose configuration is loaded.

    Args:
        run_dir: The run.
        env: One of the environments.
        worker: The worker's id.
        life: Which of the worker's lives this is.
    """
    curriculum = load_for_run(run_dir)
    if curriculum is None:
        return Draws()
    kept = run_dir.curriculum_state
    return CurriculumDraws(curriculum, env, settings.Run().seed, worker, life, kept)
