"""Gymnasium's environments: `gymnasium:Pendulum-v1`, or `gymnasium:my_module:MyEnv-v0`.

The adapter keeps `terminated` (discount 0) and `truncated` (discount 1: the critic goes on
bootstrapping) apart. What observations become stands in `sactory.envs.spaces`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sactory import settings
from sactory.envs import python_env
from sactory.errors import UserError

if TYPE_CHECKING:
    from sactory.envs.gymnasium_adapter import GymnasiumEnvironment


def check_name(name: str, search: Sequence[Path] = ()) -> None:
    """Raises `UserError` unless gymnasium is installed and knows the environment."""
    find_spec(name, name.partition(":")[2], search)


def find_spec(name: str, gym_id: str, search: Sequence[Path] = ()) -> Any:
    """Gymnasium's registration of an environment.

    Args:
        name: As the user gave it, for messages.
        gym_id: Gymnasium's part of it, with its own `module:` in front if there is one.
        search: Directories where such a module is looked for first.
    """
    gymnasium = import_extra("gymnasium", "gymnasium")
    module, colon, gym_id = gym_id.rpartition(":")
    if colon:
        python_env.import_users(name, module, search)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # hints at newer versions
            return gymnasium.spec(gym_id)
    except (gymnasium.error.Error, ValueError) as e:
        reason = " ".join(str(e).split())
        raise UserError(f"envs.load.name = '{name}': {reason}") from None


def import_extra(module: str, extra: str) -> Any:
    """Imports a module that one of Sactory's extras brings."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name != module:
            raise
        raise UserError(
            f"'{extra}:' environments need the extra {extra}, which is not installed: "
            f"`make setup EXTRAS={extra}`, or `pip install -e '.[{extra}]'`"
        ) from None


def load(env: settings.Env, seed: int, search: Sequence[Path] = ()) -> GymnasiumEnvironment:
    """Builds a registered environment; `task_kwargs` go to `gymnasium.make`."""
    return make(env, env.name.partition(":")[2], seed, search)


def make(
    env: settings.Env, gym_id: str, seed: int, search: Sequence[Path] = ()
) -> GymnasiumEnvironment:
    """Builds the environment that gymnasium knows as `gym_id`."""
    if env.time_limit is not None:
        raise UserError(
            f"envs.load.time_limit holds for dm_control's tasks; '{env.name}' takes "
            "envs.load.task_kwargs = {'max_episode_steps': N}"
        )
    spec = find_spec(env.name, gym_id, search)
    import gymnasium

    from sactory.envs.gymnasium_adapter import GymnasiumEnvironment

    kwargs = {"disable_env_checker": True, **_render_mode(spec), **(env.task_kwargs or {})}
    try:
        made = gymnasium.make(spec, **kwargs)
    except TypeError as e:  # an argument that it does not take
        raise UserError(f"envs.load.task_kwargs of '{env.name}': {e}") from e
    except gymnasium.error.DependencyNotInstalled as e:
        raise UserError(f"envs.load.name = '{env.name}': {' '.join(str(e).split())}") from e
    adapted = GymnasiumEnvironment(made, env.name, env.action_repeat, env.reset_options)
    adapted.seed(seed)
    return adapted


def _render_mode(spec: Any) -> dict[str, str]:
    """Asks for pictures, where the environment says that it can draw them."""
    from gymnasium.envs.registration import load_env_creator

    creator = spec.entry_point
    if isinstance(creator, str):
        creator = load_env_creator(creator)
    modes = getattr(creator, "metadata", {}).get("render_modes", ())
    return {"render_mode": "rgb_array"} if "rgb_array" in modes else {}
