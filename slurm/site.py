"""What a site's cluster wants: read from one small file with comments, `slurm/site.ini`."""

from __future__ import annotations

import configparser
import difflib
import os
import shlex
from dataclasses import dataclass, fields
from pathlib import Path

from sactory import launch
from sactory.errors import UserError

SITE_VARIABLE = "SACTORY_SITE"
_DEFAULT = Path(__file__).with_name("site.ini")


@dataclass(frozen=True)
class Site:
    """The settings of `slurm/site.ini`, where each is explained; "" where one is empty."""

    account: str = ""
    partition: str = ""
    qos: str = ""
    constraint: str = ""
    options: str = ""
    time: str = "24:00:00"
    warn_seconds: int = 180
    cpus: int = 0
    collectors_partition: str = ""
    gpu: str = "gpu:1"
    modules: str = ""
    script: str = ""
    scratch: str = ""
    container: str = ""
    sactory: str = ""

    def sbatch_options(self) -> list[str]:
        """Options that every job gets."""
        named = ("account", "partition", "qos", "constraint")
        options = [f"--{name}={getattr(self, name)}" for name in named if getattr(self, name)]
        return [*options, *shlex.split(self.options)]

    def setup_lines(self) -> list[str]:
        """Lines of shell that prepare a node for Sactory."""
        lines = []
        if self.modules:
            lines.append(f"module load {self.modules}")
        if self.script:
            lines.append(f"source {self.script}")
        if self.scratch:
            lines += [f"export TMPDIR={self.scratch}", 'mkdir -p "$TMPDIR"']
        if not self.sactory and launch.python_path():
            path = shlex.quote(launch.python_path())
            lines.append(f"export PYTHONSAFEPATH=1 PYTHONPATH={path}")
        return lines

    def command(self) -> list[str]:
        """The argv of `sactory` on a node."""
        inside = shlex.split(self.sactory) or launch.sactory_command()
        return [*shlex.split(self.container), *inside]


def read() -> Site:
    """The site's settings: of the file that $SACTORY_SITE names, else of `slurm/site.ini`.

    Raises:
        UserError: It can't be read, or holds an unknown setting or a wrong value.
    """
    path = Path(os.environ.get(SITE_VARIABLE) or _DEFAULT)
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError, configparser.Error) as e:
        raise UserError(
            f"the site's settings {path} can't be read: {' '.join(str(e).split())}"
        ) from e
    known = {f.name: f.default for f in fields(Site)}
    values: dict[str, str | int] = {}
    for section in parser.sections():
        for name, text in parser[section].items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f": did you mean `{near[0]}`?" if near else ""
                raise UserError(f"{path}: [{section}] has no setting `{name}`{hint}")
            if text.strip():
                values[name] = _value(path, name, text.strip(), known[name])
    return Site(**values)  # type: ignore[arg-type]


def _value(path: Path, name: str, text: str, default: object) -> str | int:
    if not isinstance(default, int):
        return text
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{path}: {name} = {text} must be a whole number above 0")
    return int(text)
