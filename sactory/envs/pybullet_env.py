"""PyBullet's environments: `pybullet:HalfCheetahBulletEnv-v0`, through their gymnasium port."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sactory import quiet, settings
from sactory.envs import gymnasium_env
from sactory.errors import UserError
from sactory.fields import nearest

if TYPE_CHECKING:
    from sactory.envs.gymnasium_adapter import GymnasiumEnvironment


def check_name(name: str, search: Sequence[Path] = ()) -> None:
    """Raises `UserError` unless the port is installed and has the environment."""
    del search  # nothing of the user's
    _register(name)


def load(env: settings.Env, seed: int, search: Sequence[Path] = ()) -> GymnasiumEnvironment:
    """Builds one of the port's environments; `task_kwargs` go to `gymnasium.make`."""
    del search
    with quiet.hushed():
        return gymnasium_env.make(env, _register(env.name), seed)


def _register(name: str) -> str:
    """Makes gymnasium know the port's environments, and returns the name it knows this one by."""
    gymnasium_env.import_extra("gymnasium", "pybullet")
    gymnasium_env.import_extra("pybullet_envs_gymnasium", "pybullet")
    gymnasium_env.import_extra("pybullet", "pybullet")
    from gymnasium.envs.registration import registry

    gym_id = name.partition(":")[2]
    known = [i for i, spec in registry.items() if _is_of_port(spec.entry_point)]
    if gym_id not in known:
        hint = nearest(gym_id, known) or f"; there is {', '.join(known)}"
        raise UserError(f"envs.load.name = '{name}': PyBullet has no such environment{hint}")
    return gym_id


def _is_of_port(entry_point: object) -> bool:
    return isinstance(entry_point, str) and entry_point.startswith("pybullet_envs_gymnasium.")
