"""Puts a trainer together: threads, agent, restored state, first export, connections.

The order matters: restore, export, publish, and only then sample.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from absl import logging

from sactory import client as client_lib
from sactory import policies, progress, settings, supervision
from sactory.cpus import CpuPlan
from sactory.errors import UserError
from sactory.heartbeat import Heartbeat
from sactory.metrics import MetricsWriter
from sactory.run_dir import RunDir
from sactory.specs import Specs, to_tf_agents
from train.agent import SacAgent
from train.checkpoint import Checkpoints, next_incarnation
from train.export import Exporter
from train.feeder import Feeder
from train.journal import Journal
from train.learner import Learner
from train.publisher import Publisher
from train.update import make_update

_FIRST_EXPORT_SECONDS = 300.0
_MOST_BRANCHES = 4


def make_learner(
    run_dir: RunDir,
    stop: supervision.Stop,
    heartbeat: Heartbeat,
    plan: CpuPlan,
    last_book: dict[str, Any],
) -> Learner | None:
    """Builds the learner of a run, restored from its last checkpoint.

    Args:
        run_dir: The run.
        stop: Set by a signal.
        heartbeat: Where the trainer reports its health.
        plan: The cores it may use.
        last_book: The book of progress in the last heartbeat: newer than the checkpoint's.

    Returns:
        The learner; None if `stop` was set while waiting for the replay server.

    Raises:
        UserError: `train.device` names a device that isn't there.
        client_lib.ServerGoneError: No replay server answered.
    """
    configure_tensorflow(plan)
    learner_settings, replay = settings.Learner(), settings.Replay()
    seed = settings.Run().seed
    specs = Specs.load(run_dir)
    _, action_spec, time_step_spec = to_tf_agents(specs)
    agent = SacAgent(time_step_spec, action_spec, settings.SacAgent(), seed)
    agent.initialize()

    incarnation = next_incarnation(run_dir)
    checkpoints = Checkpoints(run_dir, agent.checkpoint_items(), settings.Train().keep_checkpoints)
    state = checkpoints.restore()
    train_step = int(agent.train_step_counter.numpy())
    # Env steps never go back, even where the collector that made them has died since.
    book = progress.Book.from_json(state["book"] if state else {})
    book.merge(progress.Book.from_json(last_book))
    journal = Journal(MetricsWriter(run_dir.train_log, run_dir.tensorboard("train"), console=False))
    exporter = Exporter(run_dir, agent)
    if incarnation > 1:
        logging.info("restarted at train step %d, %d env steps", train_step, book.env_steps)
        journal.event("restart", book, train_step=train_step, incarnation=incarnation)
        policies.mark_overtaken(run_dir, train_step, incarnation)
    if not policies.list_exports(run_dir, "collect"):
        exporter.export(agent.policy_vector(), book.env_steps, train_step, incarnation)
        if not exporter.wait(_FIRST_EXPORT_SECONDS) or exporter.error:
            raise RuntimeError(f"the first policy export failed: {exporter.error}")

    client = client_lib.connect(run_dir, stop.event)
    if client is None:
        return None
    publisher = Publisher(
        run_dir,
        client,
        stop.event,
        settings.Train().publish_seconds,
        replay.segment_length,
        book,
        incarnation,
    )
    publisher.start(train_step, agent.policy_vector())
    address = client_lib.address_of(run_dir)
    assert address is not None  # connect() has just used it
    feeder = Feeder(
        address,
        learner_settings.updates_per_call,
        learner_settings.batch_size,
        replay.segment_length,
        specs.row.size,
        learner_settings.max_in_flight,
        seed + incarnation,
    )
    update = make_update(agent, specs.row, learner_settings.updates_per_call, learner_settings.xla)
    return Learner(
        run_dir,
        stop,
        heartbeat,
        agent,
        update,
        checkpoints,
        exporter,
        publisher,
        feeder,
        journal,
        incarnation,
        (state or {}).get("elapsed", 0.0),
    )


def configure_tensorflow(plan: CpuPlan) -> None:
    """Sets device and threads.

    Raises:
        UserError: The configured device isn't there.
    """
    train = settings.Train()
    if train.device == "gpu" and not tf.config.list_physical_devices("GPU"):
        raise UserError(
            "train.device = 'gpu', but TensorFlow finds no GPU on this host: install the extra "
            "`pip install -e '.[gpu]'` on a host with an NVIDIA driver, or set 'cpu'"
        )
    if train.device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    # Layers of a few hundred units use cores best with one thread inside an operation and as many
    # operations side by side as there are cores; the graph has about four parallel branches.
    tf.config.threading.set_intra_op_parallelism_threads(train.intra_op_threads or 1)
    tf.config.threading.set_inter_op_parallelism_threads(
        train.inter_op_threads or min(plan.threads, _MOST_BRANCHES)
    )
