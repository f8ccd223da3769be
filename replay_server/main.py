"""`sactory replay-server`: flags and wiring of program 1."""

from __future__ import annotations

from replay_server.gate import open_gate
from sactory import config, cpus, settings, supervision
from sactory.errors import RetryError
from sactory.flags import Flags
from sactory.heartbeat import Heartbeat
from sactory.locks import hold_lock
from sactory.run_dir import RunDir


def main(argv: list[str]) -> int:
    """Serves the run's tables until the run ends or a signal comes."""
    flags = Flags(
        "replay-server", "Owns the Reverb tables of a run. It needs the run directory only."
    )
    flags.string("run_dir", None, "the run directory", required=True)
    flags.boolean("insecure_listen", False, "open Reverb's port to everybody, without login")
    args, _ = flags.parse(argv)
    run_dir = RunDir(args.run_dir).require()
    if run_dir.is_done:
        print(f"the run in {run_dir} is finished")
        return supervision.OK
    hold_lock(
        run_dir.lock("replay_server"),
        f"another replay server already serves {run_dir}: stop it with "
        f"`sactory stop --run_dir {run_dir}`",
    )
    config.load(run_dir)
    # Claims are names in the host's network, which the gate may leave; it needs a single thread.
    cpus.claim("replay_server", settings.ReplayServer().cpus)
    gate = open_gate(run_dir, args.insecure_listen)
    stop = supervision.start_signal_thread()
    heartbeat = Heartbeat(run_dir, "replay_server", access=gate.access)

    from replay_server.server import serve

    try:
        return serve(run_dir, stop, heartbeat, gate)
    except (RetryError, OSError) as e:
        heartbeat.update(error=str(e))
        heartbeat.close("stopped")
        raise
