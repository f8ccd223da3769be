"""A run's curriculum: found and checked at init, frozen into R, read from there ever after.

A run without one has a binding, too: one that does nothing.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from sactory import settings
from sactory.config import Config
from sactory.config_text import OVERRIDE, find_file
from sactory.curriculum import environment
from sactory.curriculum.parse import load
from sactory.curriculum.plan import Curriculum
from sactory.errors import UserError
from sactory.provenance import sha256
from sactory.run_dir import RunDir, read_json, write_atomic

SETTING = "envs.load.curriculum"
FROZEN = "curriculum.json"
"""What the setting says in a frozen configuration: the file beside it."""


@dataclasses.dataclass(frozen=True)
class Binding:
    """What init makes of `envs.load.curriculum`: nothing, where it is None."""

    @property
    def setting(self) -> str:
        """What the frozen configuration ends with."""
        return ""

    @property
    def record(self) -> dict[str, Any]:
        """What provenance.json says."""
        return {}

    def check_environment(self, env: Any) -> None:
        """Raises `UserError` unless the environment has what the curriculum needs."""

    def freeze(self, run_dir: RunDir) -> None:
        """Copies the file into a run directory."""

    def differences(self, run_dir: RunDir) -> list[str]:
        """How it differs from a run's frozen one, in lines for the user."""
        return []


@dataclasses.dataclass(frozen=True)
class FileBinding(Binding):
    """A curriculum's file.

    Attributes:
        named: Its name in the configuration.
        path: Where it lies.
        text: Its content.
        curriculum: What it says.
    """

    named: str
    path: Path
    text: str
    curriculum: Curriculum

    @property
    def setting(self) -> str:
        """The frozen configuration names the run's own copy."""
        return f"\n# The run's copy of {self.path}.\n{SETTING} = {FROZEN!r}\n"

    @property
    def record(self) -> dict[str, Any]:
        """Where the curriculum came from, and its hash."""
        return {"curriculum": str(self.path), "curriculum_sha256": sha256(self.text.encode())}

    def check_environment(self, env: Any) -> None:
        """Compares names, types, ranges and measures."""
        try:
            environment.Setter(self.curriculum, env)
        except UserError as e:
            raise UserError(f"{SETTING} = {self.named!r}: {e}") from None

    def freeze(self, run_dir: RunDir) -> None:
        """Copies the file as it is."""
        write_atomic(run_dir.curriculum, self.text)

    def differences(self, run_dir: RunDir) -> list[str]:
        """Compares the values; their spelling doesn't matter, their order does."""
        frozen = read_json(run_dir.curriculum)
        if frozen is None or json.dumps(frozen) == json.dumps(json.loads(self.text)):
            return []
        return [f"- {SETTING}: the content of {run_dir.curriculum}", f"+ {SETTING}: {self.path}"]


def find(checked: Config) -> Binding:
    """Reads the file that a configuration names, and lets the setting name the run's copy.

    It is looked for beside the configuration file that binds it, from here, and among the shipped
    ones.

    Raises:
        UserError: There is no such file, or it isn't sound.
    """
    named = checked.values[SETTING]
    if named is None:
        return Binding()
    place = checked.places[SETTING]
    beside = None if place == OVERRIDE else Path(place.rpartition(":")[0]).parent
    try:
        path = find_file(named, beside, ".json").absolute()
        text, curriculum = path.read_text("utf-8"), load(path)
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{place}: {SETTING} = {named!r} can't be read: {e}") from None
    except UserError as e:
        raise UserError(f"{place}: {SETTING}: {e}") from None
    checked.values[SETTING] = FROZEN
    return FileBinding(named, path, text, curriculum)


def load_for_run(run_dir: RunDir) -> Curriculum | None:
    """The curriculum of a run whose configuration is loaded; None if it has none."""
    return load(run_dir.curriculum) if settings.Env().curriculum is not None else None


def same(one: RunDir, other: RunDir) -> bool:
    """Whether two runs have the same curriculum, or both none."""
    contents = [json.dumps(read_json(run_dir.curriculum)) for run_dir in (one, other)]
    return contents[0] == contents[1]
