"""What observations and actions look like, as JSON, so that few programs need the environment.

Rows and networks are float32; fields that float32 can't hold exactly are refused here, once, at
init. Needs no TensorFlow except in `to_tf_agents`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Union

import numpy as np

from sactory import settings
from sactory.errors import UserError
from sactory.rows import RowFormat, flat_row_format
from sactory.run_dir import RunDir, read_json

FORMAT = 1
MAX_EXACT = 2**24  # float32 holds every integer up to here
UNBOUNDED = 1e37  # TF-Agents writes infinite bounds as the largest float


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """Shape, dtype and inclusive bounds of one array.

    Attributes:
        shape: Without batch dimensions.
        dtype: As the environment yields it; rows and networks see float32.
        minimum: A number, or nested lists of `shape`; None: unbounded.
        maximum: Likewise.
    """

    shape: tuple[int, ...]
    dtype: str
    minimum: Any = None
    maximum: Any = None

    def to_json(self) -> dict[str, Any]:
        """The spec as `specs.json` holds it."""
        return {**dataclasses.asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ArraySpec:
        """Reads `to_json`'s form."""
        return cls(tuple(value["shape"]), value["dtype"], value["minimum"], value["maximum"])

    def __str__(self) -> str:
        bounds = "" if self.minimum is None else f" in [{self.minimum}, {self.maximum}]"
        return f"{self.dtype} {list(self.shape)}{bounds}"


Observation = Union[ArraySpec, "dict[str, ArraySpec]"]


@dataclasses.dataclass(frozen=True)
class Specs:
    """Everything that programs must agree on about the data.

    Attributes:
        observation: One spec, or one for each sensor in a fixed order.
        action: A bounded continuous action.
        row: The packed row.
        env: Facts of the environment: name, action_repeat, max_episode_steps (env steps, or None),
            and for a user's own its module, import_path, file, single_file and sha256.
    """

    observation: Observation
    action: ArraySpec
    row: RowFormat
    env: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def sensors(self) -> dict[str, ArraySpec]:
        """The observation's arrays by sensor; a lone array is called `observation`."""
        if isinstance(self.observation, dict):
            return self.observation
        return {"observation": self.observation}

    def to_json(self) -> dict[str, Any]:
        """The content of `specs.json`."""
        if isinstance(self.observation, dict):
            observation: Any = {"sensors": {k: s.to_json() for k, s in self.observation.items()}}
        else:
            observation = self.observation.to_json()
        return {
            "format": FORMAT,
            "observation": observation,
            "action": self.action.to_json(),
            "row": self.row.to_json(),
            "env": self.env,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Specs:
        """Reads `to_json`'s form.

        Raises:
            ValueError: Another version of Sactory wrote it in a form this one can't read.
        """
        if value.get("format") != FORMAT:
            raise ValueError(f"its format is {value.get('format')}, this Sactory reads {FORMAT}")
        observation: Any = value["observation"]
        if "sensors" in observation:
            sensors = observation["sensors"].items()
            observation = {key: ArraySpec.from_json(spec) for key, spec in sensors}
        else:
            observation = ArraySpec.from_json(observation)
        action, row = ArraySpec.from_json(value["action"]), RowFormat.from_json(value["row"])
        return cls(observation, action, row, value["env"])

    @classmethod
    def load(cls, run_dir: RunDir) -> Specs:
        """Reads the specs that init froze.

        Raises:
            UserError: The directory is no run, or the file is damaged or of another version.
        """
        value = read_json(run_dir.require().specs)
        try:
            if not isinstance(value, dict):
                raise ValueError("it is missing or is not JSON")
            return cls.from_json(value)
        except (ValueError, KeyError, TypeError) as e:
            raise UserError(f"{run_dir.specs} can't be used: {e}") from None

    @classmethod
    def of_env(
        cls, env: Any, env_settings: settings.Env, source: dict[str, Any] | None = None
    ) -> Specs:
        """Reads the specs of a TF-Agents `PyEnvironment`.

        Args:
            env: The environment.
            env_settings: What it was loaded with.
            source: Where a user's own environment comes from: further entries of `env`.

        Raises:
            UserError: Something SAC or a float32 row can't represent.
        """
        observation, action = _read(env, env_settings.name)
        facts = {
            "name": env_settings.name,
            "action_repeat": env_settings.action_repeat,
            "max_episode_steps": getattr(env, "max_episode_steps", None),
            **(source or {}),
        }
        return cls(observation, action, flat_row_format(observation, action), facts)


def _read(env: Any, name: str) -> tuple[Observation, ArraySpec]:
    """The observation and action specs of an environment, checked."""
    if getattr(env, "batched", False):
        raise UserError(f"environment {name} is batched: one that steps once a call is wanted")
    reward = env.reward_spec()
    if not hasattr(reward, "dtype") or _array(reward, f"{name}: reward").shape != ():
        raise UserError(f"environment {name}: reward is {_words(reward)}, one number is wanted")
    return _observation(env.observation_spec(), name), _action(env.action_spec(), name)


def _words(spec: Any) -> str:
    """A spec of any kind in a few words."""
    if hasattr(spec, "dtype"):
        return f"{np.dtype(spec.dtype).name} {list(spec.shape)}"
    return f"a {type(spec).__name__}"


def _observation(spec: Any, name: str) -> Observation:
    if hasattr(spec, "dtype"):
        return _array(spec, f"{name}: observation")
    where = f"environment {name}: observation"
    if not hasattr(spec, "items") or not spec:
        raise UserError(f"{where} is {_words(spec)}: an array or a dict of arrays is wanted")
    for key, part in spec.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise UserError(f"{where} has the key {key!r}: a string without '/' is wanted")
        if not hasattr(part, "dtype"):
            raise UserError(f"{where} {key!r} is {_words(part)}: an array is wanted, not a nest")
    return {key: _array(part, f"{name}: observation {key!r}") for key, part in spec.items()}


def _array(spec: Any, where: str) -> ArraySpec:
    """Checks that float32 holds every value of the array exactly."""
    dtype, shape = np.dtype(spec.dtype), tuple(int(n) for n in spec.shape)
    where = f"environment {where}"
    low, high = _bounds(spec, where)
    if math.prod(shape) == 0:
        raise UserError(f"{where} has shape {list(shape)}, which holds nothing")
    if dtype.kind == "f":
        if dtype.itemsize > 4:
            raise UserError(
                f"{where} is {dtype.name}, which a float32 row can't hold exactly: "
                "let the environment declare and return float32"
            )
    elif dtype.kind in "iu":
        if low is None:
            low, high = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
        if np.min(low) < -MAX_EXACT or np.max(high) > MAX_EXACT:
            raise UserError(
                f"{where} is {dtype.name} from {np.min(low):g} to {np.max(high):g}, which a "
                f"float32 row can't hold exactly: bound it by 2**24 = {MAX_EXACT} in its spec "
                "or return float32"
            )
    elif dtype.kind != "b":
        raise UserError(f"{where} is {dtype.name}: numbers are wanted")
    return ArraySpec(shape, dtype.name, low, high)


def _action(spec: Any, name: str) -> ArraySpec:
    where = f"environment {name}: action"
    if not hasattr(spec, "dtype"):
        raise UserError(f"{where} is {_words(spec)}: one array is wanted")
    if np.dtype(spec.dtype).kind != "f":
        raise UserError(
            f"{where} is discrete ({_words(spec)}): SAC here acts with continuous numbers"
        )
    low, high = _bounds(spec, where)
    if low is None or np.min(low) <= -UNBOUNDED or np.max(high) >= UNBOUNDED:
        raise UserError(f"{where} has no bounds: finite ones are wanted for each element")
    if math.prod(spec.shape) == 0 or not np.all(np.asarray(low) < np.asarray(high)):
        raise UserError(f"{where} is {_words(spec)} in [{low}, {high}]: room to move is wanted")
    return ArraySpec(tuple(int(n) for n in spec.shape), np.dtype(spec.dtype).name, low, high)


def _bounds(spec: Any, where: str) -> tuple[Any, Any]:
    """Bounds as numbers or nested lists; None where nothing is bounded."""
    if not hasattr(spec, "minimum"):
        return None, None
    low, high = np.asarray(spec.minimum, np.float64), np.asarray(spec.maximum, np.float64)
    if np.isnan(low).any() or np.isnan(high).any():
        raise UserError(f"{where} has NaN among its bounds")
    low, high = (np.clip(b, -UNBOUNDED * 10, UNBOUNDED * 10) for b in (low, high))
    if (low <= -UNBOUNDED).all() and (high >= UNBOUNDED).all():
        return None, None
    return _shortest(low), _shortest(high)


def _shortest(bound: np.ndarray) -> Any:
    """One number if all elements are equal, else nested lists."""
    equal = bound.size > 0 and bool((bound == bound.flat[0]).all())
    return bound.flat[0].item() if equal else bound.tolist()


def to_tf_agents(specs: Specs) -> tuple[Any, Any, Any]:
    """The specs as TF-Agents' agents want them: float32 throughout.

    Returns:
        Observation spec (or dict of them), bounded action spec, time step spec.
    """
    import tensorflow as tf
    from tf_agents.specs import tensor_spec
    from tf_agents.trajectories import time_step

    def tensor(spec: ArraySpec, name: str) -> Any:
        if spec.minimum is None:
            return tensor_spec.TensorSpec(spec.shape, tf.float32, name)
        low, high = np.float32(spec.minimum), np.float32(spec.maximum)  # [*shape] or scalar
        bounded: Any = tensor_spec.BoundedTensorSpec  # gin hides its signature from type checkers
        return bounded(spec.shape, tf.float32, low, high, name)

    observation: Any = {key: tensor(spec, key) for key, spec in specs.sensors.items()}
    if isinstance(specs.observation, ArraySpec):
        observation = observation["observation"]
    action = tensor(specs.action, "action")
    return observation, action, time_step.time_step_spec(observation)


def check_env_matches(specs: Specs, env: Any) -> None:
    """Checks that an environment still is what init saw.

    Raises:
        UserError: Its specs changed since init.
    """
    name = specs.env.get("name", "")
    before = _named(specs.observation, specs.action)
    after = _named(*_read(env, name))
    for field in {**before, **after}:
        was, is_now = before.get(field), after.get(field)
        if was != is_now:
            raise UserError(
                f"environment {name} changed since init: {field} was {was or 'absent'}, is now "
                f"{is_now or 'absent'}; start another run directory or restore the environment"
            )
    if list(before) != list(after):
        raise UserError(
            f"environment {name} changed since init: its fields came in the order "
            f"{list(before)}, now {list(after)}"
        )


def _named(observation: Observation, action: ArraySpec) -> dict[str, ArraySpec]:
    """Every field of an environment under the name that messages use."""
    if isinstance(observation, ArraySpec):
        return {"observation": observation, "action": action}
    sensors = {f"observation {key!r}": spec for key, spec in observation.items()}
    return {**sensors, "action": action}
