"""Whether a curriculum fits an environment: names, types, shapes, ranges, metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

import numpy as np

from sactory.curriculum.parse import refuse_reward
from sactory.curriculum.parse_measured import MEASURES
from sactory.curriculum.parse_values import form
from sactory.curriculum.plan import Curriculum
from sactory.curriculum.reader import Json, step
from sactory.curriculum.values import NUMERIC, Node, corners
from sactory.errors import UserError
from sactory.fields import nearest

SUCCESS = "success"
CONTRACT = ("parameter_specs", "set_parameters")


@dataclasses.dataclass(frozen=True)
class ParameterSpec:
    """What an environment says of one of its parameters.

    Attributes:
        default: Its value where nobody sets it; its type and shape are the parameter's.
        minimum: Smallest value allowed (of each element), or None.
        maximum: Largest value allowed, or None.
        affects_reward: Whether rewards of another value mean something else.
    """

    default: Any
    minimum: float | None = None
    maximum: float | None = None
    affects_reward: bool = False


def parameter_specs(env: Any) -> Mapping[str, ParameterSpec]:
    """What an environment says of its parameters.

    Raises:
        UserError: It has none.
    """
    has_both = all(callable(getattr(env, name, None)) for name in CONTRACT)
    specs = env.parameter_specs() if has_both else {}
    if not specs:
        raise UserError(
            "the environment has no parameters that a curriculum could set: it needs "
            f"{'() and '.join(CONTRACT)}() (docs/curriculum.md)"
        )
    return specs


def metrics(env: Any) -> tuple[str, ...]:
    """The scalars that an environment's `get_info` has at the end of an episode."""
    return tuple(getattr(env, "info_metrics", ()))


class Setter:
    """Sets the parameters of environments that are alike.

    What has no value at a state (the original form before its first entry) gets the environment's
    default, so that an environment's past has no part in it.

    Args:
        curriculum: What decides.
        env: One of the environments.

    Raises:
        UserError: They no longer have what the curriculum sets or is judged by.
    """

    def __init__(self, curriculum: Curriculum, env: Any):
        specs = parameter_specs(env)
        check_environment(curriculum, specs, metrics(env))
        self._defaults = {name: specs[name].default for name in curriculum.params}

    def set(self, env: Any, values: Mapping[str, Any]) -> None:
        """Sets what the environment's next reset applies."""
        env.set_parameters({**self._defaults, **values})


def check_environment(
    curriculum: Curriculum, specs: Mapping[str, ParameterSpec], metrics: Collection[str]
) -> None:
    """Checks that an environment has what a curriculum sets and is judged by.

    Args:
        curriculum: A curriculum.
        specs: The environment's parameters, by name.
        metrics: The scalars that its episodes report, `success` among them if they do.

    Raises:
        UserError: In one line: the JSON path, what is wrong, and what would be right.
    """
    for name, node in curriculum.params.items():
        path = f"{curriculum.path}{step(name)}"
        if name not in specs:
            known = nearest(name, specs) or f"; it has {', '.join(specs) or 'none'}"
            raise UserError(f"{path}: the environment has no such parameter{known}")
        _check_form(path, node, specs[name])
        _check_range(path, node, specs[name], curriculum)
        if specs[name].affects_reward and not curriculum.allow_reward_params:
            refuse_reward(path)
    for measure in curriculum.measures:
        wanted = SUCCESS if measure.name == "success_rate" else measure.name
        if wanted not in metrics and measure.name not in MEASURES[1:]:
            raise UserError(
                f'$.curriculum: "measure": "{measure.name}" needs episodes that report {wanted}; '
                f"the environment's report {', '.join(metrics) or 'nothing'}"
            )


def _check_form(path: str, node: Node, spec: ParameterSpec) -> None:
    kind, shape = form(Json(np.asarray(spec.default).tolist()))
    if node.kind != kind and not (kind == "float" and node.kind == "int"):
        hint = ' (add "dtype": "int", or draw from int_uniform)' if node.kind in NUMERIC else ""
        raise UserError(f"{path} is {node.kind}, but the environment's parameter is {kind}{hint}")
    if node.shape != shape:
        raise UserError(
            f"{path} has shape {list(node.shape)}, but the environment's has {list(shape)}"
        )


def _check_range(path: str, node: Node, spec: ParameterSpec, curriculum: Curriculum) -> None:
    spans = [node.span(state) for state in corners(node, curriculum.initial_state())]
    lowest = min((np.min(span[0]) for span in spans if span), default=np.inf)
    highest = max((np.max(span[1]) for span in spans if span), default=-np.inf)
    if spec.minimum is not None and lowest < spec.minimum:
        _refuse_range(path, lowest, f"at least {spec.minimum:g}")
    if spec.maximum is not None and highest > spec.maximum:
        _refuse_range(path, highest, f"at most {spec.maximum:g}")


def _refuse_range(path: str, value: float, right: str) -> NoReturn:
    hint = "" if np.isfinite(value) else '; a "clip" cuts a normal distribution'
    raise UserError(f"{path} reaches {value:g}, but the environment takes {right}{hint}")
