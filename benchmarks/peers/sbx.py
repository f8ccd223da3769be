"""SBX's SAC: Stable-Baselines3's loop with JAX underneath; `fused` gradient steps of one call.

`learner` is the compiled update alone on rows in memory, without the replay buffer and the copies
of its own `train()`, which is kinder to it. `train` and `to_return` are its own `learn()`; fused,
it collects as many steps as it then takes gradient steps.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
from sbx import SAC
from sbx.common.type_aliases import ReplayBufferSamplesNp

from benchmarks import worker
from benchmarks.peers import job as job_lib
from benchmarks.peers import loops
from benchmarks.peers.job import Job


def make_model(job: Job) -> Any:
    """The agent with our numbers; the temperature has a learning rate of its own."""
    rate = job_lib.LEARNING_RATE
    model = SAC("MlpPolicy", qf_learning_rate=rate, **loops.settings(job))
    optimizer = optax.adam(job_lib.ALPHA_LEARNING_RATE)
    state = model.ent_coef_state
    model.ent_coef_state = state.replace(tx=optimizer, opt_state=optimizer.init(state.params))
    return model


class Updates:
    """The compiled update on one block of rows in memory."""

    def __init__(self, model: Any, fused: int):
        self._model, self._fused = model, fused
        rows = loops.random_batch(job_lib.BATCH * fused)
        discounts = np.full(len(rows["rewards"]), job_lib.GAMMA, np.float32)
        block = ReplayBufferSamplesNp(
            rows["observations"],
            rows["actions"],
            rows["next_observations"],
            rows["dones"].ravel(),
            rows["rewards"].ravel(),
            discounts,
        )
        self._block = jax.device_put(block)
        policy = model.policy
        self._state = (policy.qf_state, policy.actor_state, model.ent_coef_state, model.key)

    def __call__(self) -> None:
        """One call of `fused` gradient steps, waited for as the library's own loop does."""
        model = self._model
        numbers = (model.tau, model.target_entropy, self._fused, self._block, model.policy_delay)
        *state, _ = model._train(*numbers, 0, *self._state)
        self._state = tuple(jax.block_until_ready(state))


def main() -> None:
    """Does the job of the command line."""
    job = job_lib.from_command_line()
    worker.use_cores(job.cores)  # XLA makes as many threads as there are cores
    model = make_model(job)
    if job.mode != "learner":
        loops.learn(model, job)
    worker.serve(Updates(model, job.fused), job.fused)


if __name__ == "__main__":
    main()
