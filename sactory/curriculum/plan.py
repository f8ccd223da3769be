"""A whole curriculum: which values every parameter has at a published state.

Pure: the same state and a generator in the same place give the same values, in any process. Says
nothing of when lessons change (`coordinator`) or of files (`parse`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Union

import numpy as np

from sactory.curriculum import measured
from sactory.curriculum.measured import Adr, Measure, Stages, UpDown
from sactory.curriculum.state import Axis, State, scalar_of
from sactory.curriculum.values import UNSET, Node, axes
from sactory.errors import UserError

HARDEST = "hardest"
CURRENT = "current"
SIDES = ("low", "high")
TRAIN_STEPS_PER_ITERATION = 50
"""Gradient steps of one iteration of the original, unless a file says otherwise."""


@dataclasses.dataclass(frozen=True)
class Draw:
    """The parameters of one training episode.

    Attributes:
        values: By name, JSON values. The environment keeps its default of what isn't named.
        probe: The end of an automatic range that is tried, for the episode's report.
    """

    values: dict[str, Any]
    probe: tuple[str, str] | None


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """A checked curriculum file.

    Attributes:
        params: By name, in the file's order.
        path: JSON path of the parameters, for messages.
        difficulty: How the shared difficulty moves; None: there is none.
        evaluation: What the evaluator plays: `hardest`, `current`, or values of some parameters
            that stand in the place of the hardest ones.
        train_steps_per_iteration: How many train steps the clock `iterations` takes for one.
        allow_reward_params: Whether parameters of the reward may be among them.
    """

    params: Mapping[str, Node]
    path: str
    difficulty: UpDown | None = None
    evaluation: Union[str, Mapping[str, Node]] = HARDEST
    train_steps_per_iteration: int = TRAIN_STEPS_PER_ITERATION
    allow_reward_params: bool = False

    @property
    def stages(self) -> list[Stages]:
        """The staged parameters."""
        return [node for node in self.params.values() if isinstance(node, Stages)]

    @property
    def adrs(self) -> list[Adr]:
        """The parameters with automatic ranges."""
        return [node for node in self.params.values() if isinstance(node, Adr)]

    @property
    def measures(self) -> list[Measure]:
        """Everything that is averaged to decide something."""
        found = [self.difficulty.measure] if self.difficulty else []
        for lesson in (lesson for stages in self.stages for lesson in stages.lessons):
            found += measured.measures(lesson.until) + measured.measures(lesson.fallback)
        return found + [adr.measure for adr in self.adrs]

    def metrics(self, info: Mapping[str, Any]) -> dict[str, float]:
        """What the measures look at in what an environment tells of an episode."""
        told = {measure.name: scalar_of(info, measure.name) for measure in self.measures}
        return {name: value for name, value in told.items() if value is not None}

    def axes(self) -> dict[Axis, list[Any]]:
        """What the values depend on, with the points at which they bend, last hardest."""
        found: dict[Axis, list[Any]] = {}
        fixed_for_eval = {} if isinstance(self.evaluation, str) else self.evaluation
        for node in [*self.params.values(), *fixed_for_eval.values()]:
            for axis, points in axes(node).items():
                found[axis] = [*found.get(axis, []), *points]
        return {
            axis: sorted(set(points)) if _is_clock(axis) else list(dict.fromkeys(points))
            for axis, points in found.items()
        }

    def initial_state(self, incarnation: int = 0) -> State:
        """The state at the start of a run."""
        return State(
            incarnation=incarnation,
            difficulty=self.difficulty.init if self.difficulty else 0.0,
            lessons={stages.param: stages.names[0] for stages in self.stages},
            ranges={adr.param: adr.init for adr in self.adrs},
        )

    def hardest_state(self) -> State:
        """The end of every schedule, difficulty 1, last lessons, ranges at their limits."""
        state = self.initial_state()
        for axis, points in self.axes().items():
            state = state.moved(axis, points[-1])
        return state

    def values(self, state: State, generator: np.random.Generator) -> dict[str, Any]:
        """Every parameter's value at a state.

        Args:
            state: As published.
            generator: Where samplers take their randomness from.

        Returns:
            JSON values by name, without the parameters that still keep the environment's default.
        """
        return _drawn(self.params, state, generator)

    def draw(self, state: State, generator: np.random.Generator) -> Draw:
        """`values` for a training episode, which now and then tries an end of an automatic range.

        One parameter's turn comes at random; with its `boundary_p` it is at one of its ends, so
        what the episode shows is due to that end.
        """
        probe = None
        if self.adrs:
            adr = self.adrs[generator.integers(len(self.adrs))]
            side = SIDES[generator.integers(2)]
            if generator.random() < adr.boundary_p:
                probe = (adr.param, side)
        values = self.values(state, generator)
        if probe is not None:
            values[probe[0]] = state.ranges[probe[0]][SIDES.index(probe[1])]
        return Draw(values, probe)

    def eval_values(self, state: State, generator: np.random.Generator) -> dict[str, Any]:
        """Every parameter's value for an evaluation's episode, by the file's `eval`."""
        if self.evaluation == CURRENT:
            return self.values(state, generator)
        values = self.values(self.hardest_state(), generator)
        if not isinstance(self.evaluation, str):
            values.update(_drawn(self.evaluation, self.hardest_state(), generator))
        return values

    def ranges(self, state: State) -> dict[str, tuple[Any, Any]]:
        """Lowest and highest value of every numeric parameter at a state, for logs."""
        spans = {name: node.span(state, sigmas=2) for name, node in self.params.items()}
        return {n: (span[0].tolist(), span[1].tolist()) for n, span in spans.items() if span}

    def check_state(self, state: State) -> None:
        """Raises `UserError` unless a state (of a checkpoint, say) belongs to this curriculum."""
        lessons = {stages.param: stages.names for stages in self.stages}
        if set(state.lessons) != set(lessons) or set(state.ranges) != set(
            self.initial_state().ranges
        ):
            raise UserError(
                f"the saved curriculum state has lessons of {sorted(state.lessons)} and ranges of "
                f"{sorted(state.ranges)}: it is of another curriculum"
            )
        for param, name in state.lessons.items():
            if name not in lessons[param]:
                raise UserError(
                    f"the saved curriculum state has {param} at lesson {name!r}, which is none of "
                    f"{', '.join(lessons[param])}: it is of another curriculum"
                )


def _is_clock(axis: Axis) -> bool:
    return len(axis) == 1


def _drawn(
    params: Mapping[str, Node], state: State, generator: np.random.Generator
) -> dict[str, Any]:
    drawn = {name: node.draw(state, generator) for name, node in params.items()}
    return {name: value for name, value in drawn.items() if value is not UNSET}


def episode_generator(seed: int, worker: int, episode: int) -> np.random.Generator:
    """The generator of one episode's parameters: the same one wherever it is made.

    Args:
        seed: The run's.
        worker: The worker's id.
        episode: A number that no other episode of the worker has.
    """
    return np.random.default_rng([seed, worker, episode])
