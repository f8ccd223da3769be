"""What the parameters of an evaluation's episodes are, by the `eval` of the run's curriculum.

A run without a curriculum has `Parameters`, too, which do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from sactory.curriculum import Curriculum, Report, State
from sactory.curriculum.binding import load_for_run
from sactory.curriculum.environment import Setter
from sactory.curriculum.evaluations import KEY
from sactory.curriculum.state import EVAL, Played, scalar_of
from sactory.errors import UserError
from sactory.run_dir import RunDir

_STREAM = 0x435552  # the environment itself may draw from the seed alone


class Parameters:
    """Of a run without a curriculum: nothing is set, nothing told."""

    def follow(self, meta: Mapping[str, Any]) -> None:
        """Takes over the state of the curriculum from an export's meta.json."""

    def set(self, env: Any, seed: int) -> None:
        """Sets the parameters of the episode that an environment begins next, from its seed."""

    def row(
        self, returns: np.ndarray, lengths: np.ndarray, infos: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """What the evaluation's row tells of the curriculum.

        Args:
            returns: Of the episodes, `[N]`.
            lengths: Env steps, `[N]`.
            infos: What the environments tell of the episodes.
        """
        return {}


class CurriculumParameters(Parameters):
    """Of a run with a curriculum.

    Args:
        curriculum: The run's.
        env: One of the environments.
    """

    def __init__(self, curriculum: Curriculum, env: Any):
        self._curriculum, self._setter = curriculum, Setter(curriculum, env)
        self._state = curriculum.initial_state()
        self._by_eval = any(measure.source == EVAL for measure in curriculum.measures)

    def follow(self, meta: Mapping[str, Any]) -> None:
        """Takes over an export's state; where it tells none, that of the start."""
        self._state = self._curriculum.initial_state()
        try:
            if "curriculum" in meta:
                state = State.from_json(meta["curriculum"])
                self._curriculum.check_state(state)
                self._state = state
        except (ValueError, UserError) as e:
            logging.error("the curriculum is taken as at its start, for an export's state %s", e)

    def set(self, env: Any, seed: int) -> None:
        """Draws by the file's `eval`: the same values for the same state and seed."""
        generator = np.random.default_rng([seed, _STREAM])
        self._setter.set(env, self._curriculum.eval_values(self._state, generator))

    def row(
        self, returns: np.ndarray, lengths: np.ndarray, infos: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The state that the policy was learning at, and the episodes where they decide."""
        state = self._state
        row: dict[str, Any] = {
            "curriculum_version": state.version,
            "difficulty": state.difficulty,
            "lessons": dict(state.lessons),
        }
        if self._by_eval:
            reports = map(self._report, returns.tolist(), lengths.tolist(), infos)
            row[KEY] = [report.to_json() for report in reports]
        return row

    def _report(self, episode_return: float, length: float, info: Mapping[str, Any]) -> Report:
        state, metrics = self._state, self._curriculum.metrics(info)
        played = Played(state.incarnation, state.version, None, metrics)
        return Report.of(played, episode_return, int(length), scalar_of(info, "success"), EVAL)


def parameters_for_run(run_dir: RunDir, env: Any) -> Parameters:
    """The parameters of a run whose configuration is loaded.

    Args:
        run_dir: The run.
        env: One of the evaluation's environments.
    """
    curriculum = load_for_run(run_dir)
    return Parameters() if curriculum is None else CurriculumParameters(curriculum, env)
