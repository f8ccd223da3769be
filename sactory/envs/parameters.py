"""Parameters of environments: what a curriculum sets, by name, from the next reset on.

Every environment that `sactory.envs.load` returns has the three methods of `Parametrized`.
Nothing here costs a step anything: values wait until an episode begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tf_agents.environments import py_environment
from tf_agents.trajectories import time_step as ts

from sactory.curriculum.environment import ParameterSpec
from sactory.errors import UserError
from sactory.fields import nearest

_KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float", "U": "str"}


class Parametrized(py_environment.PyEnvironment):
    """A `PyEnvironment` whose parameters can be set; it has none until `_declare` names them.

    A subclass says what becomes of values in `_apply_parameters`.

    Attributes:
        info_metrics: Scalars that `get_info` holds at an episode's end; a curriculum may be judged
            by them.
    """

    _env: Any  # what is adapted
    _parameter_specs: Mapping[str, ParameterSpec] = {}
    _parameters: Mapping[str, Any] = {}
    _pending_parameters: Mapping[str, Any] = {}
    info_metrics: Sequence[str] = ()

    def _declare_of(self, env: Any) -> None:
        """Takes over what a user's own environment says of itself: parameters and info_metrics."""
        self._declare(of_user(env))
        self.info_metrics = tuple(getattr(env, "info_metrics", ()))

    def _declare(self, specs: Any) -> None:
        """Takes over the specs of all parameters, which begin at their defaults.

        Raises:
            UserError: Specs of a user's own environment are not what they should be.
        """
        if not isinstance(specs, Mapping):
            raise UserError(
                f"parameter_specs() returned a {type(specs).__name__}: a dictionary of "
                "sactory.curriculum.environment.ParameterSpec by name is wanted"
            )
        for name, spec in specs.items():
            if not isinstance(name, str) or not isinstance(spec, ParameterSpec):
                raise UserError(
                    f"parameter_specs()[{name!r}] is a {type(spec).__name__}: a "
                    "sactory.curriculum.environment.ParameterSpec under a name is wanted"
                )
            _checked(name, spec.default, spec)
        self._parameter_specs = dict(specs)
        self._parameters = {name: spec.default for name, spec in specs.items()}

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """What can be set, by name; empty if the environment has no parameters."""
        return dict(self._parameter_specs)

    def get_parameters(self) -> dict[str, Any]:
        """The values that the running episode has; values set since then are not among them."""
        return dict(self._parameters)

    def set_parameters(self, values: Mapping[str, Any]) -> None:
        """Sets parameters from the next reset on; those not named keep their values.

        Raises:
            UserError: In one line: a wrong name or value, and what there is. Nothing is set then.
        """
        specs = self._parameter_specs
        for name in values:
            if name not in specs:
                known = nearest(str(name), specs) or f"; it has {', '.join(specs) or 'none'}"
                raise UserError(f"the environment has no parameter '{name}'{known}")
        checked = {name: _checked(name, value, specs[name]) for name, value in values.items()}
        self._pending_parameters = {**self._pending_parameters, **checked}
        # The adapted environment would begin the next episode by itself, past our `reset`. An
        # attribute of the instance costs nothing where no parameter is ever set.
        self.__dict__["should_reset"] = _is_last

    def reset(self) -> ts.TimeStep:
        """Begins an episode, with the parameters that were set before."""
        if self._pending_parameters:
            self._apply_parameters(self._pending_parameters)
            self._parameters = {**self._parameters, **self._pending_parameters}
            self._pending_parameters = {}
        self.__dict__.pop("should_reset", None)
        return super().reset()

    def _apply_parameters(self, changed: Mapping[str, Any]) -> None:
        """Called when an episode is about to begin, with the values set since the last one."""
        self._env.set_parameters(dict(changed))


def of_user(env: Any) -> Any:
    """The parameter specs of a user's own environment; none unless it has both methods."""
    if callable(getattr(env, "parameter_specs", None)) and callable(
        getattr(env, "set_parameters", None)
    ):
        return env.parameter_specs()
    return {}


def _is_last(current_time_step: ts.TimeStep) -> bool:
    return bool(current_time_step.step_type == ts.StepType.LAST)


def _checked(name: str, value: Any, spec: ParameterSpec) -> Any:
    """The value in the type of the parameter's default.

    Raises:
        UserError: It has another type or shape, or is out of bounds.
    """
    default = np.asarray(spec.default)
    kind = _KINDS.get(default.dtype.kind)
    if kind is None:
        raise UserError(f"parameter '{name}' has the default {spec.default!r}: numbers are wanted")
    try:
        given = np.asarray(value)
    except ValueError:  # rows of different lengths
        given = np.asarray(None)
    found = _KINDS.get(given.dtype.kind)
    if given.shape != default.shape or not (found == kind or (found, kind) == ("int", "float")):
        shape = f" {list(default.shape)}" if default.shape else ""
        raise UserError(f"parameter '{name}' = {value!r}: {kind}{shape} is wanted")
    if kind in ("int", "float"):
        low = -np.inf if spec.minimum is None else spec.minimum
        high = np.inf if spec.maximum is None else spec.maximum
        if not (np.isfinite(given) & (given >= low) & (given <= high)).all():
            raise UserError(f"parameter '{name}' = {value!r}: {_range(spec)} is wanted")
        given = given.astype(default.dtype)
    return given if isinstance(spec.default, np.ndarray) else given.tolist()


def _range(spec: ParameterSpec) -> str:
    if spec.minimum is None and spec.maximum is None:
        return "a finite number"
    if spec.maximum is None:
        return f"at least {spec.minimum:g}"
    if spec.minimum is None:
        return f"at most {spec.maximum:g}"
    return f"{spec.minimum:g} to {spec.maximum:g}"
