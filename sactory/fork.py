"""Starting a run from a checkpoint of another: what may be taken over, and what would not fit.

How files are copied is `sactory.takeover`'s. Nothing here is read by a program: afterwards the run
directory is like any other.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sactory import config as config_lib
from sactory import provenance, settings, takeover, trainer_checkpoints
from sactory.curriculum import binding
from sactory.errors import UserError
from sactory.run_dir import RunDir, read_json, write_json
from sactory.specs import Specs

WEIGHTS = "weights"
REPLAY = "replay"
PARTS = (WEIGHTS, REPLAY)
# What shapes the networks, beside the specs.
_NETWORKS = ("hidden_sizes", "critic_hidden_sizes", "num_critics")
# What a stored row depends on, beside its format.
_ROWS = (
    "envs.load.name",
    "envs.load.action_repeat",
    "envs.load.task_kwargs",
    "envs.load.level",
    "replay.segment_length",
    "replay.n_step",
    "replay.gamma",
)


@dataclasses.dataclass(frozen=True)
class Origin:
    """The run that another starts from.

    Attributes:
        run_dir: Its directory.
        step: Train step of the checkpoint to take; None: the newest.
        parts: Of `PARTS`.
    """

    run_dir: RunDir
    step: int | None = None
    parts: tuple[str, ...] = (WEIGHTS,)

    @classmethod
    def parse(cls, run_dir: str, step: int | None, parts: str | None) -> Origin:
        """Reads the command line's `--from`, `--step` and `--with`.

        Raises:
            UserError: There is no such run, or it can't be taken from.
        """
        wanted = tuple(part.strip() for part in (parts or WEIGHTS).split(","))
        if not set(wanted) <= set(PARTS):
            raise UserError(f"--with={parts} must be weights, replay or replay,weights")
        if step is not None and WEIGHTS not in wanted:
            raise UserError(f"--step={step} chooses the weights, but --with={parts} takes none")
        origin = cls(RunDir(run_dir).require(), step, tuple(p for p in PARTS if p in wanted))
        record = origin.record
        if record.get("format") != provenance.FORMAT:
            raise UserError(
                f"--from {run_dir}: its provenance.json has format {record.get('format')}, this "
                f"Sactory reads {provenance.FORMAT} (Sactory {record.get('sactory')} made it)"
            )
        return origin

    @property
    def record(self) -> dict[str, Any]:
        """Its provenance."""
        record = read_json(self.run_dir.provenance)
        return record if isinstance(record, dict) else {}

    @property
    def specs(self) -> Specs:
        """Its frozen specs."""
        return Specs.load(self.run_dir)

    def make_importable(self) -> None:
        """Lets a user's environment be found from wherever init is called."""
        path = self.specs.env.get("import_path")
        if path and path not in sys.path:
            sys.path.append(path)

    def checkpoints(self) -> list[Path]:
        """The trainer checkpoints that may be taken, the best choice first.

        Raises:
            UserError: There is none, or not the one asked for.
        """
        found = trainer_checkpoints.find(self.run_dir.trainer_checkpoints)
        if not found:
            raise UserError(
                f"--from {self.run_dir}: it has no checkpoint of the trainer yet (--with replay "
                "takes the replay alone)"
            )
        if self.step is None:
            return found[::-1]
        named = [path for path in found if int(path.name) == self.step]
        if not named:
            raise UserError(
                f"--step={self.step} is no checkpoint of {self.run_dir}: "
                f"{trainer_checkpoints.listing(found[0].parent)}"
            )
        return named

    def check_settings(self, checked: config_lib.Config) -> None:
        """Refuses settings that what is taken would not fit.

        Raises:
            UserError: It names what differs.
        """
        path = self.run_dir.config
        frozen = config_lib.check_text(path.read_text("utf-8"), str(path))
        differing = []
        if WEIGHTS in self.parts:
            self._check_end(checked.get(settings.Run))
            differing += _differing_networks(frozen, checked)
        if REPLAY in self.parts:
            differing += [
                f"{key} = {checked.values[key]!r} (there {frozen.values[key]!r})"
                for key in _ROWS
                if checked.values[key] != frozen.values[key]
            ]
        self._refuse(differing)

    def check_specs(self, specs: Specs) -> None:
        """Refuses an environment with other observations or actions.

        Raises:
            UserError: It names what differs.
        """
        old = self.specs
        before = {**old.sensors, "action": old.action}
        after = {**specs.sensors, "action": specs.action}
        differing = [
            f"{name} is {after.get(name) or 'absent'} (there {before.get(name) or 'absent'})"
            for name in {**before, **after}
            if before.get(name) != after.get(name)
        ]
        if not differing and (list(before) != list(after) or old.row != specs.row):
            differing = [f"a row is {specs.row.to_json()} (there {old.row.to_json()})"]
        self._refuse(differing)
        if old.env.get("sha256") != specs.env.get("sha256"):
            print(f"warning: the environment's source has changed since {self.run_dir} was made")

    def _refuse(self, differing: list[str]) -> None:
        if differing:
            what = f"--with {','.join(self.parts)} of {self.run_dir} does not fit"
            raise UserError(f"{what}: {'; '.join(differing)}")

    def _check_end(self, run: settings.Run) -> None:
        path = self.checkpoints()[0]
        done = trainer_checkpoints.env_steps(path)
        if done is not None and done >= run.max_env_steps:
            raise UserError(
                f"run.max_env_steps = {run.max_env_steps} leaves nothing to do, for the checkpoint "
                f"{path} has {done} env steps: raise it with --set, or choose an earlier --step"
            )

    def check_same(self, run_dir: RunDir) -> None:
        """Refuses a run that exists already and was not started from here.

        Raises:
            UserError: It says where the run comes from.
        """
        record = (read_json(run_dir.provenance) or {}).get("forked_from") or {}
        was = record.get("run_id"), record.get("with"), record.get("train_step")
        step = was[2] if self.step is None else self.step
        if was != (self.run_dir.run_id, list(self.parts), step):
            comes = f"a fork of {record['run_dir']} ({record})" if record else "no fork"
            raise UserError(f"{run_dir.root} holds a run already, {comes}: give another --run_dir")

    def take(self, new: RunDir) -> dict[str, Any]:
        """Copies what was asked for into a run directory that is being made.

        Returns:
            What `provenance.json` records as `forked_from`.

        Raises:
            UserError: It is damaged, or the other run has nothing of the kind.
            OSError: The new directory can't be written.
        """
        forked: dict[str, Any] = {
            "run_dir": str(self.run_dir),
            "run_id": self.run_dir.run_id,
            "with": list(self.parts),
        }
        # Exports and weights of the new run must pass for newer than what comes from the old one.
        counted = read_json(self.run_dir.trainer_checkpoints / "incarnation.json")
        count = int(counted["count"]) if isinstance(counted, dict) else 0
        if WEIGHTS in self.parts:
            state = takeover.take_weights(self.checkpoints, new, self._own(new))
            forked.update(train_step=state["train_step"], env_steps=state["env_steps"])
            count = max(count, state["incarnation"])
        if REPLAY in self.parts:
            forked["replay"] = takeover.take_replay(self.run_dir, new)
        write_json(new.trainer_checkpoints / "incarnation.json", {"count": count})
        if "forked_from" in self.record:
            forked["forked_from"] = self.record["forked_from"]
        return forked

    def _own(self, new: RunDir) -> dict[str, Any]:
        """What the new run's trainer begins anew, by its name in a checkpoint's state."""
        # Its hours are its own, and what its replay comes with is another matter.
        fresh: dict[str, Any] = {"elapsed": 0.0, "foreign_rows": None}
        # Another curriculum begins at its start; the same one goes on with its lesson.
        if not binding.same(self.run_dir, new):
            fresh["curriculum"] = None
        return fresh


def _differing_networks(old: config_lib.Config, new: config_lib.Config) -> Iterator[str]:
    was, now = old.get(settings.SacAgent), new.get(settings.SacAgent)
    for name in _NETWORKS:
        before, after = getattr(was, name), getattr(now, name)
        if name == "critic_hidden_sizes":  # None: as the actor's
            before = was.hidden_sizes if before is None else before
            after = now.hidden_sizes if after is None else after
        if before != after:
            yield f"train.SacAgent.{name} = {after!r} (there {before!r})"
