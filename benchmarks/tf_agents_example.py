"""TF-Agents' own ways to collect and to sample, as its SAC examples have them.

`examples/sac/haarnoja18/sac_train_eval.py` and `experimental/distributed/examples/sac`, with
`suite_dm_control`'s cheetah_run in flat observations and the Reverb server in a process of its own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import reverb
import tensorflow as tf
from tf_agents.agents.ddpg import critic_network
from tf_agents.agents.sac import sac_agent, tanh_normal_projection_network
from tf_agents.environments import suite_dm_control, wrappers
from tf_agents.experimental.distributed import reverb_variable_container
from tf_agents.networks import actor_distribution_network
from tf_agents.policies import policy_saver, py_tf_eager_policy
from tf_agents.replay_buffers import reverb_replay_buffer, reverb_utils
from tf_agents.train import actor
from tf_agents.train.utils import spec_utils, train_utils
from tf_agents.trajectories import trajectory

from benchmarks import worker

_TABLE = "uniform_table"
_BATCH = 256
_ROWS = 20_000


def make_agent(env: Any) -> Any:
    """The example's agent: 256x256, Adam with 3e-4."""
    observation, action, time_step = spec_utils.get_tensor_specs(env)
    project = tanh_normal_projection_network.TanhNormalProjectionNetwork
    agent = sac_agent.SacAgent(
        time_step,
        action,
        actor_network=actor_distribution_network.ActorDistributionNetwork(
            observation,
            action,
            fc_layer_params=(256, 256),
            continuous_projection_net=project,
        ),
        critic_network=critic_network.CriticNetwork(
            (observation, action), joint_fc_layer_params=(256, 256)
        ),
        actor_optimizer=tf.keras.optimizers.Adam(3e-4),
        critic_optimizer=tf.keras.optimizers.Adam(3e-4),
        alpha_optimizer=tf.keras.optimizers.Adam(3e-4),
        train_step_counter=train_utils.create_train_step(),
    )
    agent.initialize()
    return agent


def load_env() -> Any:
    """cheetah_run with one flat observation."""
    return suite_dm_control.load(
        "cheetah", "run", env_wrappers=[wrappers.FlattenObservationsWrapper]
    )


def variables_of(agent: Any) -> dict[str, Any]:
    """What the distributed example publishes."""
    return {
        reverb_variable_container.POLICY_KEY: agent.collect_policy.variables(),
        reverb_variable_container.TRAIN_STEP_KEY: agent.train_step_counter,
    }


def _serve(signature: Any, port: Connection) -> None:
    """The process of the Reverb server."""
    first_in_first_out = reverb.selectors.Fifo
    unlimited = reverb.rate_limiters.MinSize(1)
    tables = [
        reverb.Table(
            _TABLE,
            max_size=1_000_000,
            sampler=reverb.selectors.Uniform(),
            remover=first_in_first_out(),
            rate_limiter=unlimited,
        ),
        reverb.Table(
            reverb_variable_container.DEFAULT_TABLE,
            max_size=1,
            sampler=first_in_first_out(),
            remover=first_in_first_out(),
            rate_limiter=reverb.rate_limiters.MinSize(1),
            signature=signature,
        ),
    ]
    server = reverb.Server(tables)
    port.send(server.port)
    with contextlib.suppress(EOFError):
        port.recv()  # until the other side is gone
    os._exit(0)


def start_server(agent: Any) -> tuple[str, int, Connection]:
    """Starts it; its address, its process id and what keeps it alive."""
    signature = tf.nest.map_structure(
        lambda variable: tf.TensorSpec(variable.shape, variable.dtype), variables_of(agent)
    )
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(signature, theirs), daemon=True)
    process.start()
    theirs.close()
    assert process.pid is not None
    return f"localhost:{ours.recv()}", process.pid, ours


def collect(distributed: bool) -> None:
    """Collects step by step as the example does, for ever.

    Args:
        distributed: Whether an exported policy acts whose weights are fetched after each step.
    """
    env = load_env()
    agent = make_agent(env)
    address, pid, _alive = start_server(agent)
    container = reverb_variable_container.ReverbVariableContainer(address)
    container.push(variables_of(agent))
    place = tempfile.mkdtemp()
    if distributed:
        saver = policy_saver.PolicySaver(agent.collect_policy, batch_size=None)
        saver.save(place)
        policy = py_tf_eager_policy.SavedModelPyTFEagerPolicy(place, load_specs_from_pbtxt=True)
    else:
        policy = py_tf_eager_policy.PyTFEagerPolicy(agent.collect_policy, use_tf_function=True)
    variables = {
        reverb_variable_container.POLICY_KEY: policy.variables(),
        reverb_variable_container.TRAIN_STEP_KEY: agent.train_step_counter,
    }
    observer = reverb_utils.ReverbAddTrajectoryObserver(
        reverb.Client(address), _TABLE, sequence_length=2, stride_length=1
    )
    collector = actor.Actor(
        env,
        policy,
        agent.train_step_counter,
        steps_per_run=1,
        metrics=actor.collect_metrics(10),
        summary_dir=place,
        observers=[observer],
    )
    meter = worker.Meter(lambda: {"server": worker.cpu_seconds(pid)})
    while True:
        collector.run()
        if distributed:
            container.update(variables)
        meter.add()


def sample() -> None:
    """Fetches batches as the example does, for ever."""
    env = load_env()
    agent = make_agent(env)
    address, pid, _alive = start_server(agent)
    client = reverb.Client(address)
    observer = reverb_utils.ReverbAddTrajectoryObserver(
        client, _TABLE, sequence_length=2, stride_length=1
    )
    for row in _rows(agent):
        observer(row)
    observer.close()
    replay = reverb_replay_buffer.ReverbReplayBuffer(
        agent.collect_data_spec, sequence_length=2, table_name=_TABLE, server_address=address
    )
    batches = iter(replay.as_dataset(sample_batch_size=_BATCH, num_steps=2).prefetch(50))
    meter = worker.Meter(lambda: {"server": worker.cpu_seconds(pid)})
    while True:
        next(batches)
        meter.add()


def _rows(agent: Any) -> Any:
    """Steps of one long episode with made-up numbers."""
    rng = np.random.default_rng(0)
    spec = agent.collect_data_spec
    for _ in range(_ROWS):
        yield trajectory.Trajectory(
            step_type=np.int32(1),
            observation=rng.normal(size=spec.observation.shape).astype(np.float32),
            action=rng.uniform(-1, 1, spec.action.shape).astype(np.float32),
            policy_info=(),
            next_step_type=np.int32(1),
            reward=np.float32(rng.normal()),
            discount=np.float32(1.0),
        )
