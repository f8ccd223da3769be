"""A tiny stand-in for Sactory's programs, with the real contract but without TensorFlow.

Usage: fake_program.py NAME RUN_DIR MODE [ARGUMENT]
"""

from __future__ import annotations

import os
import signal
import sys
import time

from sactory import supervision
from sactory.heartbeat import Heartbeat
from sactory.locks import hold_lock
from sactory.run_dir import RunDir, write_json


def main(name: str, root: str, mode: str, argument: str = "") -> int:
    if mode == "stubborn":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        while True:
            time.sleep(1)
    if mode == "crash":
        raise ValueError(f"cannot work {argument}")
    if mode == "user_error":
        print("sactory: error: mend this", file=sys.stderr)
        return supervision.USER_ERROR
    stop = supervision.start_signal_thread()
    program, _, worker = name.partition("_") if name.startswith("collect") else (name, "", "")
    if mode == "by_hand":
        hold_lock(RunDir(root).lock(name))
    beat = Heartbeat(RunDir(root), program, int(worker) if worker else None, interval=0.1)
    if mode == "crash_once" and beat.restarts == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "child" and os.fork() == 0:  # a grandchild in a session of its own
        os.setsid()
        time.sleep(1000)
    beat.update(state="training", env_steps=100, train_steps=90, ratio=0.9)
    print(f"working {os.environ.get('CUDA_VISIBLE_DEVICES')}", flush=True)
    return work(name, RunDir(root), mode, argument, stop, beat)


def work(name: str, run_dir: RunDir, mode: str, argument: str, stop, beat: Heartbeat) -> int:
    if mode == "finish":
        if name == "train":
            done = {"reason": "max_env_steps", "env_steps": 100, "train_steps": 90, "ratio": 0.9}
            write_json(run_dir.done, done)
        supervision.wait_for(lambda: run_dir.is_done, stop)
        beat.close("done")
        return supervision.OK
    stop.wait()
    time.sleep(float(argument or 0))
    (run_dir.root / f"saved_{name}").write_text(str(stop.reason))
    beat.close("stopped")
    return stop.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
