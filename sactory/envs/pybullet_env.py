"""PyBullet's environments: `pybullet:HalfCheetahBulletEnv-v0`, through their gymnasium port."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sactory import settings
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
    gym_id = _register(env.name)
    with _silent():
        made = gymnasium_env.make(env, gym_id, seed)
        made.reset()  # it opens its simulator now
    made.seed(seed)
    return made


def _register(name: str) -> str:
    """Makes gymnasium know the port's environments, and returns the name it knows this one by."""
    gymnasium_env.import_extra("gymnasium", "pybullet")
    gymnasium_env.import_extra("pybullet_envs_gymnasium", "pybullet")
    with _silent():
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


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps the greetings of PyBullet's C code off stdout."""
    sys.stdout.flush()
    console, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(console, 1)
        os.close(console)
        os.close(nowhere)
