"""Environments of the user's own: `python:pkg.module:function`.

The function is called with `envs.load.task_kwargs` (and with `seed`, if it has such a parameter)
and returns a `gymnasium.Env`, a TF-Agents `PyEnvironment` or a `dm_env.Environment`. Its module is
looked for in the run's own copy, then in the current directory, then where Python looks anyway.
Finding the source needs no TensorFlow.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sactory import envs, rendering, settings
from sactory.errors import UserError

if TYPE_CHECKING:
    from tf_agents.environments import py_environment

_FORM = "python:pkg.module:function"


@dataclass(frozen=True)
class Source:
    """Where a user's environment comes from.

    Attributes:
        target: `pkg.module:function`.
        path: The module's file.
        single_file: The module belongs to no package, so its file is all of it.
        sha256: Hash of the file, or of all Python files of the package with their names.
    """

    target: str
    path: Path
    single_file: bool
    sha256: str


def check_name(name: str, search: Sequence[Path] = ()) -> None:
    """Raises `UserError` unless the name is well formed and its module exists."""
    find_source(name, search)


def find_source(name: str, search: Sequence[Path] = ()) -> Source:
    """Finds the file behind a name without running it (only the packages it lies in)."""
    module_name, function_name = _parse(name)
    with _import_path(search) as searched:
        try:
            spec = importlib.util.find_spec(module_name)
        except ModuleNotFoundError as e:
            if e.name is None or not f"{module_name}.".startswith(f"{e.name}."):
                raise UserError(f"envs.load.name = '{name}': importing it fails: {e}") from e
            spec = None
        except ValueError:  # a module without a spec, such as __main__
            spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise UserError(
            f"envs.load.name = '{name}': no module '{module_name}' in {' or '.join(searched)}, "
            "nor among the installed packages"
        )
    path = Path(spec.origin).resolve()
    single_file = "." not in module_name and spec.submodule_search_locations is None
    top = path if single_file else path.parents[module_name.count(".") - (path.stem != "__init__")]
    return Source(f"{module_name}:{function_name}", path, single_file, _sha256(top))


def _parse(name: str) -> tuple[str, str]:
    """Splits `python:pkg.module:function` into module and function."""
    parts = name.split(":")
    if len(parts) != 3 or not all(p.isidentifier() for p in [*parts[1].split("."), parts[2]]):
        raise UserError(f"envs.load.name = '{name}': expected {_FORM}")
    return parts[1], parts[2]


def _sha256(path: Path) -> str:
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    total = hashlib.sha256()
    for file in sorted(path.rglob("*.py")):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{file.relative_to(path)} {content}\n".encode())
    return total.hexdigest()


@contextlib.contextmanager
def _import_path(search: Sequence[Path]) -> Iterator[list[str]]:
    """Lets the user's directories come first while their module is imported and called.

    Afterwards they stay at the end of the path, for what the module imports later; first, a
    user's `train.py` would stand before Sactory's `train`.
    """
    directories = [str(Path(d).absolute()) for d in [*search, Path.cwd()] if Path(d).is_dir()]
    before = sys.path[:]
    sys.path[:] = [*directories, *before]
    importlib.invalidate_caches()
    try:
        yield directories
    finally:
        added = [d for d in sys.path if d not in before and d not in directories]
        sys.path[:] = [*before, *added, *(d for d in directories if d not in before)]


def load(env: settings.Env, seed: int, search: Sequence[Path] = ()) -> py_environment.PyEnvironment:
    """Calls the user's function and adapts what it returns."""
    if env.time_limit is not None:
        raise UserError(
            f"envs.load.time_limit holds for dm_control's tasks; hand it to '{env.name}' through "
            "envs.load.task_kwargs"
        )
    rendering.defer()
    made = _call(env, seed, search)
    adapted = _adapt(made, env)
    with contextlib.suppress(NotImplementedError):  # then its function may take `seed`
        adapted.seed(seed)
    return adapted


def _adapt(made: Any, env: settings.Env) -> Any:
    """What the function returned as the environment that Sactory's programs expect."""
    import dm_env
    from dm_control.rl import control
    from tf_agents.environments import py_environment

    from sactory.envs import suite, suite_parameters, user_env

    has_own = callable(getattr(made, "parameter_specs", None))
    if isinstance(made, control.Environment) and not has_own:
        return suite_parameters.SuiteEnvironment(made, env.action_repeat)
    if isinstance(made, dm_env.Environment):
        return suite.DmEnvironment(made, env.action_repeat)
    if isinstance(made, py_environment.PyEnvironment):
        return user_env.UserEnvironment(made, env.action_repeat)
    gymnasium = sys.modules.get("gymnasium")  # whoever returns one of its has imported it
    if gymnasium is not None and isinstance(made, gymnasium.Env):
        from sactory.envs.gymnasium_adapter import GymnasiumEnvironment

        return GymnasiumEnvironment(made, env.name, env.action_repeat, env.reset_options)
    raise UserError(
        f"envs.load.name = '{env.name}' returned {_type_name(made)}: expected gymnasium.Env, "
        "tf_agents.environments.py_environment.PyEnvironment or dm_env.Environment"
    )


def _call(env: settings.Env, seed: int, search: Sequence[Path]) -> Any:
    """Imports the module and calls the function, in the import path of `find_source`."""
    module_name, function_name = _parse(env.name)
    with _import_path(search):
        module = _import(env.name, module_name)
        function = _function(env.name, module, function_name)
        kwargs = dict(env.task_kwargs or {})
        if "seed" in inspect.signature(function).parameters:
            kwargs.setdefault("seed", seed)
        envs.check_kwargs(env.name, function, kwargs)
        return function(**kwargs)


def import_users(name: str, module_name: str, search: Sequence[Path]) -> None:
    """Imports a user's module that only has to be imported, such as one that registers."""
    with _import_path(search):
        _import(name, module_name)


def _import(name: str, module_name: str) -> Any:
    """Imports a user's module; a failure is one line."""
    try:
        return importlib.import_module(module_name)
    except (ImportError, SyntaxError) as e:
        raise UserError(
            f"envs.load.name = '{name}': importing it fails: {type(e).__name__}: {e}"
        ) from e


def _function(name: str, module: Any, function_name: str) -> Callable[..., Any]:
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        near = difflib.get_close_matches(function_name, known, n=3) or known[:6]
        raise UserError(
            f"envs.load.name = '{name}': {module.__file__} has no function '{function_name}'"
            + (f"; near ones are {', '.join(near)}" if near else "")
        )
    return function


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
