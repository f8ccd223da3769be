"""Verb `check-env`: what an environment promises and whether it keeps it, before a run needs it.

One line for each thing checked: ok, warn (a run works, but look at it) or fail (mend it).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from sactory import config as config_lib
from sactory import envs, quiet, settings
from sactory.errors import UserError
from sactory.flags import Flags
from sactory.supervision import OK

FAILED = 1


def main(argv: list[str]) -> int:
    """The command line of `sactory check-env`."""
    flags = Flags(
        "check-env",
        "Plays an environment and says whether it is fit for a run. The exit code is 0, or 1 if\n"
        "a line says `fail`.",
        "NAME_OR_CONFIG",
    )
    flags.multi_string("set", [], "one binding, such as 'envs.load.task_kwargs = {...}'")
    flags.integer("steps", 2_000, "steps to play with random actions")
    flags.integer("seed", 1, "seed of the environment and of the actions")
    args, words = flags.parse(argv)
    if not words:
        raise UserError("which environment? `sactory check-env gymnasium:Pendulum-v1`")
    if args.steps < 1:
        raise UserError(f"--steps={args.steps} must be at least 1")
    env = env_settings(words[0], args.set)
    envs.check_name(env.name)
    with quiet.hushed():  # TensorFlow, which no mistake before this line had to wait for
        importlib.import_module("tf_agents.environments.py_environment")
    from sactory.envs import checks

    failed = False
    for finding in checks.check(lambda seed: envs.load(env, seed), env, args.steps, args.seed):
        print(f"{finding.level:<5} {finding.topic:<12} {finding.text}", flush=True)
        failed |= finding.level == checks.FAIL
    return FAILED if failed else OK


def env_settings(word: str, overrides: Sequence[str] = ()) -> settings.Env:
    """What to build: of a configuration file, or an environment's name and the defaults."""
    if word.endswith(".gin") or Path(word).is_file():
        source = config_lib.resolve(word, overrides)
    else:
        source = config_lib.resolve("configs/sac.gin", [f"envs.load.name = {word!r}", *overrides])
    return config_lib.check(source).get(settings.Env)
