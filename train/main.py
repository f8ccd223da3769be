"""`sactory train`: flags and wiring of program 3."""

from __future__ import annotations

from absl import logging

from sactory import config, cpus, settings, supervision
from sactory.errors import RetryError, UserError
from sactory.flags import Flags
from sactory.heartbeat import Heartbeat
from sactory.locks import hold_lock
from sactory.run_dir import RunDir, read_json


def main(argv: list[str]) -> int:
    """Trains until the run ends or a signal comes."""
    flags = Flags("train", "Samples rows, updates the SAC agent, publishes and saves it.")
    flags.string("run_dir", None, "the run directory", required=True)
    args, _ = flags.parse(argv)
    run_dir = RunDir(args.run_dir).require()
    if run_dir.is_done:
        print(f"the run in {run_dir} is finished")
        return supervision.OK
    hold_lock(
        run_dir.lock("train"),
        f"another trainer already works on {run_dir}: stop it with "
        f"`sactory stop --run_dir {run_dir}`",
    )
    stop = supervision.start_signal_thread()
    config.load(run_dir)
    plan = cpus.claim("train", settings.Train().cpus)
    last_beat = read_json(run_dir.status("train"))  # before ours replaces it
    last_book = last_beat.get("book") if isinstance(last_beat, dict) else None
    heartbeat = Heartbeat(run_dir, "train")

    from sactory.client import ServerGoneError
    from train.setup import make_learner

    try:
        learner = make_learner(run_dir, stop, heartbeat, plan, last_book)
        if learner is None:
            heartbeat.close("stopped")
            return supervision.RETRY
        return learner.run()
    except UserError as e:
        heartbeat.update(error=str(e))
        heartbeat.close("failed")
        raise
    except ServerGoneError as e:
        logging.error("%s", e)
        heartbeat.update(error=str(e))
        heartbeat.close("stopped")
        return supervision.RETRY
    except (RetryError, OSError) as e:
        heartbeat.update(error=str(e))
        heartbeat.close("stopped")
        raise
