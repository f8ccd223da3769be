"""Stable-Baselines3's SAC.

`learner` is its own `train()` with the replay buffer's sampling replaced by one batch in memory,
which is kinder to it than its buffer. `train` and `to_return` are its own `learn()`.
"""

from __future__ import annotations

import torch
from stable_baselines3 import SAC
from stable_baselines3.common import logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from benchmarks import worker
from benchmarks.peers import job as job_lib
from benchmarks.peers import loops


def main() -> None:
    """Does the job of the command line."""
    job = job_lib.from_command_line()
    worker.use_cores(job.cores)
    torch.set_num_threads(job.cores)
    model = SAC("MlpPolicy", device="cpu", **loops.settings(job))
    if job.mode != "learner":
        loops.learn(model, job)
    model.set_logger(logger.configure(None, []))
    rows = {k: torch.from_numpy(v) for k, v in loops.random_batch(job_lib.BATCH).items()}
    batch = ReplayBufferSamples(**rows)
    model.replay_buffer.sample = lambda *_, **__: batch
    worker.serve(lambda: model.train(1, job_lib.BATCH), 1)


if __name__ == "__main__":
    main()
