"""Verb `init`: checks everything a run will rely on and freezes it into the run directory.

Afterwards every program reads the run directory alone. A failed init leaves nothing behind; the
same command again changes nothing. Nothing is started here.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sactory import config as config_lib
from sactory import estimate, fork, provenance, quiet, settings, tls
from sactory.curriculum import binding
from sactory.errors import UserError
from sactory.flags import Flags
from sactory.run_dir import RunDir, whole_directory, write_atomic, write_json
from sactory.specs import ArraySpec, Specs


def main(argv: list[str]) -> int:
    """The command line of `sactory init`."""
    flags = Flags("init", "Checks a configuration and freezes it into a run directory.")
    flags.string("config", None, "configuration file, for example configs/sac.gin")
    flags.string("run_dir", None, "run directory (runs/<task>/<run.name>/seed_<run.seed>)")
    flags.multi_string("set", [], "one binding, 'group.parameter = value'; may be repeated")
    flags.string("from", None, "run to start from; its configuration is the default of --config")
    flags.integer("step", None, "train step of the checkpoint to take --from there (the newest)")
    flags.string("with", None, "what to take: weights, replay or replay,weights (weights)")
    args, _ = flags.parse(argv)
    overrides: list[str] = args.set
    origin = _origin(args)
    config = args.config or str(origin.run_dir.config if origin else "")
    run_dir = RunDir(args.run_dir or default_run_dir(config, overrides))
    if init(run_dir, config, overrides, origin):
        words = ["sactory", "run", *([] if origin else [config]), "--run_dir", str(run_dir)]
        words += [w for override in overrides for w in ("--set", override) if not origin]
        print(f"{run_dir} is ready, start it with\n  {shlex.join(words)}")
    else:
        print(f"{run_dir} already holds this run: nothing to do, it resumes where it stopped")
        for warning in provenance.check_sources(run_dir):
            print(f"warning: {warning}")
    return 0


def _origin(args: Any) -> fork.Origin | None:
    """The run to start from, if the command line names one."""
    where = getattr(args, "from")
    if where is None:
        for name in ("step", "with"):
            if getattr(args, name) is not None:
                raise UserError(f"--{name} needs --from: the run to start from")
        if args.config is None:
            raise UserError("--config is missing: `sactory init --config CONFIG`, or --from RUN")
        return None
    if args.run_dir is None:
        raise UserError("--from needs --run_dir: the directory of the new run")
    origin = fork.Origin.parse(where, args.step, getattr(args, "with"))
    if RunDir(args.run_dir).root.resolve() == origin.run_dir.root.resolve():
        raise UserError(f"--run_dir and --from are the same run, {origin.run_dir}: name a new one")
    return origin


def default_run_dir(config: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Path:
    """`runs/<task>/<run.name>/seed_<run.seed>` below the working directory."""
    checked = config_lib.check(config_lib.resolve(config, overrides))
    run, env = checked.get(settings.Run), checked.get(settings.Env)
    return Path("runs") / config_lib.task_slug(env.name) / run.name / f"seed_{run.seed}"


def init(
    run_dir: RunDir,
    config: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    origin: fork.Origin | None = None,
) -> bool:
    """Freezes a configuration into a run directory, and prints what the run will need.

    Args:
        run_dir: The run.
        config: The configuration file.
        overrides: The `--set` bindings.
        origin: The run to start from; None: from new weights.

    Returns:
        True if the directory is new; False if it already holds a run with the same settings.

    Raises:
        UserError: Anything is wrong; nothing was written.
    """
    source = config_lib.resolve(config, overrides)
    checked = config_lib.check(source)
    curriculum = binding.find(checked)
    if _holds_run(run_dir):
        _compare(run_dir, checked, curriculum, origin)
        return False
    _check_writable(run_dir.root)
    seed = checked.get(settings.Replay).seed_from
    if seed is not None and not Path(seed).exists():
        raise UserError(f"replay.seed_from = '{seed}': there is no such file or directory")
    if origin is not None:
        origin.check_settings(checked)
        origin.make_importable()
    specs = _build_specs(checked, curriculum)
    if origin is not None:
        origin.check_specs(specs)
    needs = estimate.estimate(checked, specs)
    print(estimate.check_fits(needs, checked, run_dir.root))
    text = source.text + _unbound_defaults(checked) + curriculum.setting
    record = provenance.record(text, os.fspath(config), list(overrides))
    record.update(estimate=vars(needs), **curriculum.record)
    try:
        _freeze(run_dir, text, specs, record, curriculum, origin)
    except OSError as e:
        if _holds_run(run_dir):  # another init was faster
            _compare(run_dir, checked, curriculum, origin)
            return False
        raise UserError(f"{run_dir.root} can't be written: {e.strerror or e}") from e
    return True


def _holds_run(run_dir: RunDir) -> bool:
    """Whether a directory holds a run; refuses what is neither a run nor empty."""
    root = run_dir.root
    try:
        if run_dir.is_frozen:
            return True
        if not root.exists():
            return False
        if not root.is_dir():
            raise UserError(f"--run_dir {root} is a file: a directory is wanted")
        foreign = sorted(os.listdir(root))
    except OSError as e:
        raise UserError(f"--run_dir {root} can't be used: {e.strerror or e}") from e
    if foreign:
        raise UserError(
            f"--run_dir {root} holds other files ({', '.join(foreign[:4])}"
            f"{', ...' if len(foreign) > 4 else ''}) and no run: choose a new or empty directory"
        )
    return False


def _compare(
    run_dir: RunDir,
    asked: config_lib.Config,
    curriculum: binding.Binding,
    origin: fork.Origin | None = None,
) -> None:
    """Refuses settings that differ from the frozen ones; the message is their difference.

    An amended setting may be asked for as it was at first: the first command still resumes.
    """
    if origin is not None:
        origin.check_same(run_dir)
    at_first = provenance.before_amendments(run_dir)
    frozen = config_lib.check_text(run_dir.config.read_text("utf-8"), str(run_dir.config)).values
    changed = []
    for key in sorted({*frozen, *asked.values}):
        was, now = frozen.get(key, _ABSENT), asked.values.get(key, _ABSENT)
        if was != now and at_first.get(key, _ABSENT) != now:
            changed += [f"- {key} = {was!r}"] if was is not _ABSENT else []
            changed += [f"+ {key} = {now!r}"] if now is not _ABSENT else []
    changed += curriculum.differences(run_dir)
    if changed:
        listing = "\n".join(changed)
        raise UserError(
            f"{run_dir.root} is frozen with other settings (- frozen, + asked for):\n{listing}\n"
            "(ask for the frozen ones, or give another --run_dir)"
        )


_ABSENT: Any = object()


def _check_writable(root: Path) -> None:
    """Tries to write beside the future directory, before anything slow is done."""
    parent = root.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"--run_dir {root} can't be made: {parent} is a file")
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as e:
        raise UserError(f"--run_dir {root} can't be made in {parent}: {e.strerror or e}") from e


def _build_specs(checked: config_lib.Config, curriculum: binding.Binding) -> Specs:
    """Builds the environment once, reads its specs and looks at one observation."""
    from sactory import envs

    wanted, seed = checked.get(settings.Env), checked.get(settings.Run).seed
    envs.check_name(wanted.name)
    source = provenance.env_source(wanted.name)
    with quiet.hushed():
        importlib.import_module("tf_agents.environments.py_environment")
    with _blaming(f"environment {wanted.name} can't be built"):
        env = envs.load(wanted, seed)
    try:
        with _blaming(f"environment {wanted.name} has no usable specs"):
            specs = Specs.of_env(env, wanted, source)
        with _blaming(f"environment {wanted.name} has no usable parameters"):
            curriculum.check_environment(env)
        with _blaming(f"environment {wanted.name} can't be reset"):
            first = env.reset().observation
        _check_observation(specs, first)
    finally:
        with contextlib.suppress(Exception):  # what was read is good, however it closes
            env.close()
    return specs


@contextlib.contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Turns whatever a user's code raises into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"{what}: {type(e).__name__}: {' '.join(str(e).split())}") from e


def _check_observation(specs: Specs, observation: Any) -> None:
    """Checks that the first observation is what the specs promise."""
    lone = isinstance(specs.observation, ArraySpec)
    for key, spec in specs.sensors.items():
        where = f"environment {specs.env['name']}: observation" + ("" if lone else f" {key!r}")
        try:
            value = np.asarray(observation if lone else observation[key])
        except (KeyError, TypeError, IndexError, ValueError):
            raise UserError(f"{where} is missing after reset, its spec promises {spec}") from None
        if value.shape != spec.shape or value.dtype.name != spec.dtype:
            raise UserError(
                f"{where} is {value.dtype.name} {list(value.shape)} after reset, "
                f"its spec promises {spec.dtype} {list(spec.shape)}"
            )
        if not np.isfinite(value).all():
            raise UserError(f"{where} holds NaN or an infinite number after reset")


def _unbound_defaults(checked: config_lib.Config) -> str:
    """Bindings for what the config leaves open, so that another Sactory can't change the run."""
    unbound = [
        f"{key} = {value!r}" for key, value in checked.values.items() if key not in checked.places
    ]
    return "\n".join(["", "# Not bound above: defaults.", *unbound, ""]) if unbound else ""


def _freeze(
    run_dir: RunDir,
    text: str,
    specs: Specs,
    record: dict[str, Any],
    curriculum: binding.Binding,
    origin: fork.Origin | None,
) -> None:
    """Writes the run directory, whole or not at all; it is private to its user (0700)."""
    root = run_dir.root.resolve()  # a link to an empty directory stays a link
    missing = [parent for parent in root.parents if not parent.exists()]
    try:
        with whole_directory(root) as temporary:
            new = RunDir(temporary)
            write_atomic(new.config, text)
            write_json(new.specs, specs.to_json())
            if specs.env.get("single_file"):
                new.code.mkdir()
                shutil.copy2(specs.env["file"], new.code)
            tls.make_certificates(new.tls)
            curriculum.freeze(new)
            if origin is not None:
                record["forked_from"] = origin.take(new)
            write_json(new.provenance, record)
    except BaseException:
        for parent in missing:  # the nearest first; one that is no longer empty stays
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise
