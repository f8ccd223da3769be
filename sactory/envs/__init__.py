"""Environments by name: `load` finds the kind of environment and builds it.

A name is a task of dm_control's suite (`cheetah_run`) or has the prefix of a loader
(`gymnasium:Pendulum-v1`, `python:my_package.my_module:my_function`). Everything `load` returns is
a TF-Agents `PyEnvironment` with the parameters of `parameters.Parametrized` and the properties of
`suite.DmEnvironment`: `action_repeat`, `max_episode_steps` and `observation_keys`. Names are
checked without TensorFlow.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sactory import rendering, settings
from sactory.errors import UserError
from sactory.run_dir import RunDir, read_json

if TYPE_CHECKING:
    from tf_agents.environments import py_environment

# prefix: module with `check_name(name, search)` and `load(settings, seed, search)`.
# The one place to enter another family of environments.
LOADERS = {
    "contact_insert": "sactory.envs.contact_insert",
    "gymnasium": "sactory.envs.gymnasium_env",
    "pybullet": "sactory.envs.pybullet_env",
    "python": "sactory.envs.python_env",
}


def load(
    env: settings.Env | None = None, seed: int = 0, search: Path | Sequence[Path] = ()
) -> py_environment.PyEnvironment:
    """Builds one environment.

    Args:
        env: What to build; default: the settings that gin has bound.
        seed: Two environments with the same seed behave alike.
        search: Directory, or several, where a user's module is looked for before the current one.

    Raises:
        UserError: The name, or an argument of the task, is wrong.
    """
    env = settings.Env() if env is None else env
    search = [search] if isinstance(search, Path) else search
    check_name(env.name, search)
    prefix, colon, _ = env.name.partition(":")
    module = importlib.import_module(LOADERS[prefix] if colon else "sactory.envs.suite")
    levels = getattr(module, "LEVELS", ())
    if env.level is not None and env.level not in levels:
        known = f"must be {' or '.join(levels)}" if levels else f"'{env.name}' has no levels"
        raise UserError(f"envs.load.level = '{env.level}': {known}")
    made = module.load(env, seed, search)
    if env.reset_options is not None and not getattr(made, "takes_reset_options", False):
        raise UserError(
            f"envs.load.reset_options holds for gymnasium's environments, not for '{env.name}'"
        )
    return made


def load_for_run(run_dir: RunDir, seed: int) -> py_environment.PyEnvironment:
    """Builds the environment of a run, wherever the program was started.

    A user's module comes from the run's own copy, `R/code`, or else from where init found it.

    Args:
        run_dir: A frozen run, its configuration loaded.
        seed: As for `load`.
    """
    facts = (read_json(run_dir.specs) or {}).get("env", {})
    found = [Path(facts["import_path"])] if "import_path" in facts else []
    return load(settings.Env(), seed, [run_dir.code, *found])


def check_name(name: str, search: Sequence[Path] = ()) -> None:
    """Raises `UserError` if there is no such environment. Needs no TensorFlow."""
    prefix, colon, _ = name.partition(":")
    if colon and prefix in LOADERS:
        importlib.import_module(LOADERS[prefix]).check_name(name, search)
    elif colon:
        raise UserError(
            f"envs.load.name = '{name}': unknown kind '{prefix}:' "
            f"(there is {', '.join(f'{p}:' for p in LOADERS)})"
        )
    elif name not in suite_tasks():
        raise UserError(f"envs.load.name = '{name}': no such task; {_near(name)}")


def suite_tasks() -> dict[str, tuple[str, str]]:
    """All tasks of dm_control's suite: `<domain>_<task>` to (domain, task)."""
    rendering.defer()
    from dm_control import suite

    return {f"{domain}_{task}": (domain, task) for domain, task in suite.ALL_TASKS}


def _near(name: str) -> str:
    """Names the tasks that a mistyped one may mean: near in spelling, or of the same domain."""
    wanted = name.replace("-", "_").replace("/", "_").lower()
    tasks = {task.lower(): task for task in suite_tasks()}
    near = difflib.get_close_matches(wanted, tasks, n=4, cutoff=0.6)
    near += [t for t in tasks if t not in near and t.startswith(wanted.split("_")[0] + "_")]
    if near:
        return f"near ones are {', '.join(tasks[task] for task in near[:6])}"
    return (
        "dm_control's tasks are named <domain>_<task>, for example cartpole_swingup; "
        "your own are python:module:function, gymnasium's gymnasium:<id>"
    )


def check_kwargs(name: str, function: Callable[..., Any], kwargs: dict[str, Any]) -> None:
    """Raises `UserError` if the function does not take these keyword arguments."""
    signature = inspect.signature(function)
    try:
        signature.bind(**kwargs)
    except TypeError as e:
        known = ", ".join(signature.parameters) or "none"
        raise UserError(f"envs.load.task_kwargs of '{name}': {e} (it takes: {known})") from e
