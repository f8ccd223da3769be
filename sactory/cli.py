"""The command `sactory VERB …`: finds the verb's program and runs it.

The one module of the contract that knows the programs, and it imports only the one chosen.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import os
import sys
import traceback
from typing import NoReturn

from sactory import __version__, quiet
from sactory.errors import RetryError, UserError
from sactory.flags import print_error
from sactory.run_dir import is_unreadable
from sactory.supervision import RETRY, USER_ERROR

_FULL = (errno.ENOSPC, errno.EDQUOT)
# verb: (module with `main(argv) -> exit code`, one line of help)
VERBS = {
    "run": ("supervise.run", "init, all programs, live progress, final evaluation: the main job"),
    "stop": ("supervise.stop", "end a running run cleanly; `run` resumes it"),
    "init": ("sactory.init_run", "check a configuration and freeze it into a run directory"),
    "amend": ("sactory.amend", "change limits, intervals, cores or rate of a stopped run"),
    "clean": ("sactory.clean", "remove what the retention rules no longer keep"),
    "check-env": ("sactory.check_env", "say whether an environment is fit for a run"),
    "curriculum": ("sactory.curriculum.command", "check, show or plot a curriculum file"),
    "status": ("sactory.status", "what a run is doing and why it may be slow or stuck"),
    "replay-server": ("replay_server.main", "program 1: owns the replay tables"),
    "collect": ("collect.main", "program 2 (many): acts in environments and writes rows"),
    "train": ("train.main", "program 3: the SAC trainer"),
    "eval": ("eval.main", "program 4: scores exported policies, records videos"),
    "report": ("eval.report", "final scores over tasks and seeds, and their learning curves"),
    "submit": ("slurm.submit", "the same run, or a sweep of tasks and seeds, as SLURM jobs"),
    "step": ("supervise.step", "some of a run's programs on this host: one step of a SLURM job"),
    "tensorboard": ("eval.tensorboard", "show the curves of one or many runs"),
}


def usage() -> str:
    """The text of `sactory --help`."""
    lines = [
        f"Sactory {__version__}: distributed Soft Actor-Critic",
        "",
        "usage: sactory VERB [flags]",
        "",
    ]
    lines += [f"  {verb:<15}{text}" for verb, (_, text) in VERBS.items()]
    return "\n".join([*lines, "", "`sactory VERB --help` explains a verb."])


def main(argv: list[str] | None = None) -> int:
    """Runs one verb and returns its exit code.

    A user's mistake is one line and exit code 2; a disk that is full or can't be read now one line
    and 75.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else USER_ERROR
    if argv[0] == "--version":
        print(__version__)
        return 0
    verb, *rest = argv
    quiet.set_environment()
    try:
        if verb not in VERBS:
            near = difflib.get_close_matches(verb, VERBS, n=1)
            hint = f"did you mean `sactory {near[0]}`?" if near else "see `sactory --help`"
            raise UserError(f"unknown verb '{verb}': {hint}")
        return importlib.import_module(VERBS[verb][0]).main(rest)
    except UserError as e:
        print_error(str(e))
        return USER_ERROR
    except RetryError as e:
        print_error(str(e))
        return RETRY
    except Exception as e:
        if _means_full_disk(e):
            advice = "make room"
        elif isinstance(e, OSError) and is_unreadable(e):
            advice = "wait until that has passed, or mend it"
        else:
            raise
        print_error(f"{e}: {advice}, then run the same command again")
        return RETRY


def _means_full_disk(error: BaseException | None) -> bool:
    """Whether a full disk or quota is behind an error, whoever wrapped it.

    It may have room again: no failure, try later. TensorFlow's and Reverb's errors keep only the
    system's text.
    """
    while error is not None:
        text = str(error)
        if getattr(error, "errno", None) in _FULL or any(os.strerror(n) in text for n in _FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def command() -> NoReturn:
    """The console script: ends the process as soon as the verb has ended.

    Without Python's finalization, in which Reverb's and TensorFlow's threads abort now and then
    although all work is done and saved.
    """
    try:
        code = main()
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    end_process(code)


def end_process(code: int) -> NoReturn:
    """Ends the process now, with what it has printed, if anybody is left to read it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    command()
