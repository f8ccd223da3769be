"""`sactory tensorboard`: hands the curves of one or many runs to TensorBoard."""

from __future__ import annotations

import glob
import os
import sys
from pathlib import Path

from sactory.errors import UserError
from sactory.flags import Flags

_MODULE = "tensorboard.main"


def main(argv: list[str]) -> int:
    """Replaces this process by TensorBoard."""
    flags = Flags("tensorboard", "Shows the curves of one or many runs in the browser.")
    flags.string("run_dir", None, "a run directory, a folder of them, or a pattern", required=True)
    flags.integer("port", 6006, "TCP port; 0: a free one")
    args, _ = flags.parse(argv)
    source = logdir(args.run_dir)
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port={args.port} is no TCP port: it must be from 0 to 65535")
    # TensorBoard imports TensorFlow, whose start-up lines look like errors.
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", PYTHONWARNINGS="ignore")
    command = [sys.executable, "-m", _MODULE, *source, "--port", str(args.port)]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def logdir(run_dir: str) -> list[str]:
    """TensorBoard's arguments for the runs that a path or a pattern names.

    Raises:
        UserError: Nothing is there.
    """
    paths = sorted(glob.glob(run_dir)) if glob.has_magic(run_dir) else [run_dir]
    found = [Path(path) for path in paths if Path(path).is_dir()]
    if not found:
        raise UserError(f"--run_dir={run_dir}: there is no such directory")
    if len(found) == 1:
        inside = found[0] / "tb"
        return ["--logdir", str(inside if inside.is_dir() else found[0])]
    return ["--logdir_spec", ",".join(f"{_label(path)}:{path / 'tb'}" for path in found)]


def _label(path: Path) -> str:
    """A run's name among others; a colon or comma would end it for TensorBoard."""
    return "/".join(path.parts[-3:]).replace(":", "_").replace(",", "_")
