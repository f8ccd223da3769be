"""TF-Agents' `SacAgent` at its best, in Sactory's own environment; only `learner`.

`fused` of its `train` calls in one `tf.function` on batches in memory, with or without XLA. Adam is
the one of `tf.keras.optimizers.legacy`, whose update is a single fused operation per variable.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from benchmarks import worker
from benchmarks.peers import job as job_lib
from benchmarks.peers.job import Job


def make_agent() -> Any:
    """The agent of its SAC examples, for cheetah_run's sizes."""
    import tensorflow as tf
    from tf_agents.agents.ddpg import critic_network
    from tf_agents.agents.sac import sac_agent, tanh_normal_projection_network
    from tf_agents.networks import actor_distribution_network
    from tf_agents.specs import tensor_spec
    from tf_agents.trajectories import time_step as ts

    observation = tf.TensorSpec([job_lib.OBSERVATIONS], tf.float32)
    action = tensor_spec.BoundedTensorSpec([job_lib.ACTIONS], tf.float32, -1.0, 1.0)
    hidden = (job_lib.HIDDEN, job_lib.HIDDEN)
    project = tanh_normal_projection_network.TanhNormalProjectionNetwork
    adam = tf.keras.optimizers.legacy.Adam
    agent = sac_agent.SacAgent(
        ts.time_step_spec(observation),
        action,
        critic_network=critic_network.CriticNetwork(
            (observation, action), joint_fc_layer_params=hidden
        ),
        actor_network=actor_distribution_network.ActorDistributionNetwork(
            observation, action, fc_layer_params=hidden, continuous_projection_net=project
        ),
        actor_optimizer=adam(job_lib.LEARNING_RATE),
        critic_optimizer=adam(job_lib.LEARNING_RATE),
        alpha_optimizer=adam(job_lib.ALPHA_LEARNING_RATE),
        target_update_tau=job_lib.TAU,
        gamma=job_lib.GAMMA,
    )
    agent.initialize()
    return agent


def build(job: Job) -> Callable[[], Any]:
    """What makes `fused` updates."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from tf_agents.trajectories import trajectory

    # Side by side as many operations as cores, one thread inside each, as for Sactory's own graph;
    # one compiled by XLA is a single operation and needs the threads inside.
    tf.config.threading.set_intra_op_parallelism_threads(job.cores if job.xla else 1)
    tf.config.threading.set_inter_op_parallelism_threads(1 if job.xla else job.cores)
    agent = make_agent()
    shape = (job.fused, job_lib.BATCH, 2)  # an item is two steps
    steps = tf.ones(shape, tf.int32)
    block = trajectory.Trajectory(
        step_type=steps,
        observation=tf.random.uniform((*shape, job_lib.OBSERVATIONS), -1, 1),
        action=tf.random.uniform((*shape, job_lib.ACTIONS), -1, 1),
        policy_info=(),
        next_step_type=steps,
        reward=tf.random.uniform(shape),
        discount=tf.ones(shape),
    )

    @tf.function(jit_compile=job.xla, autograph=False)
    def update(rows: Any) -> Any:
        def step(i: Any, _: Any) -> tuple[Any, Any]:
            return i + 1, agent.train(tf.nest.map_structure(lambda x: x[i], rows)).loss

        first = (tf.constant(0), tf.zeros([]))
        ways = {"parallel_iterations": 1, "maximum_iterations": job.fused}
        return tf.while_loop(lambda i, _: i < job.fused, step, first, **ways)[1]

    return lambda: update(block).numpy()


def main() -> None:
    """Does the job of the command line."""
    job = job_lib.from_command_line()
    worker.use_cores(job.cores)
    worker.serve(build(job), job.fused)


if __name__ == "__main__":
    main()
