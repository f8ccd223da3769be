"""ContactInsert: `contact_insert:planar`, `contact_insert:peg` and `contact_insert:plate`.

A part is put into a hole or a slot by touch: the hand knows its own pose, the wrench at its grip
and a noisy goal. `docs/contact_insert.md` describes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sactory import rendering, settings
from sactory.envs.contact_insert.parameters import DEFAULT_LEVEL, LEVELS
from sactory.envs.contact_insert.variants import VARIANTS
from sactory.errors import UserError

if TYPE_CHECKING:
    from sactory.envs.contact_insert.environment import ContactInsert

__all__ = ["LEVELS", "check_name", "load"]

rendering.defer()  # before the other modules import MuJoCo


def check_name(name: str, search: Sequence[Path] = ()) -> None:
    """Raises `UserError` if there is no such variant."""
    del search  # nothing of the user's
    variant = name.partition(":")[2]
    if variant not in VARIANTS:
        raise UserError(
            f"envs.load.name = '{name}': there is "
            f"{', '.join(f'contact_insert:{known}' for known in VARIANTS)}"
        )


def load(env: settings.Env, seed: int, search: Sequence[Path] = ()) -> ContactInsert:
    """Builds one environment."""
    del search
    from sactory.envs.contact_insert.environment import ContactInsert

    variant = VARIANTS[env.name.partition(":")[2]]
    kwargs = dict(env.task_kwargs or {})
    known = ("history", "velocity", "variable_impedance", "parameters")
    for name in kwargs:
        if name not in known:
            raise UserError(
                f"envs.load.task_kwargs of '{env.name}' has '{name}': it takes {', '.join(known)}"
            )
    steps = None
    if env.time_limit is not None:
        steps = max(1, round(env.time_limit / variant.control_timestep))
    try:
        return ContactInsert(
            variant.name,
            env.level or DEFAULT_LEVEL,
            seed,
            max_episode_steps=steps,
            action_repeat=env.action_repeat,
            **kwargs,
        )
    except (KeyError, ValueError, TypeError) as e:
        raise UserError(f"envs.load.task_kwargs of '{env.name}': {e.args[0]}") from e
