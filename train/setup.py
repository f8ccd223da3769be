"""Puts a trainer together: threads, agent, restored state, first export, connections.

The order matters: restore, export, publish, and only then sample.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf
from absl import logging

from sactory import client as client_lib
from sactory import damaged_exports, policies, progress, sealed, settings, supervision
from sactory.cpus import CpuPlan
from sactory.errors import UserError
from sactory.heartbeat import Heartbeat
from sactory.metrics import MetricsWriter, read_log
from sactory.run_dir import RunDir, read_json
from sactory.specs import Specs, to_tf_agents
from train import divergence
from train.agent import SacAgent
from train.checkpoint import Checkpoints, next_incarnation
from train.export import Exporter
from train.feeder import Feeder
from train.journal import Journal
from train.learner import Learner, Parts
from train.lessons import Lessons, lessons_for_run
from train.poison import Poison
from train.publisher import Publisher
from train.update import make_update

_FIRST_EXPORT_SECONDS = 300.0
_MOST_BRANCHES = 4


def make_learner(
    run_dir: RunDir,
    stop: supervision.Stop,
    heartbeat: Heartbeat,
    plan: CpuPlan,
    last_book: Any,
) -> Learner | None:
    """Builds the learner of a run, restored from its last checkpoint.

    Args:
        run_dir: The run.
        stop: Set by a signal.
        heartbeat: Where the trainer reports its health.
        plan: The cores it may use.
        last_book: The sealed book of progress in the last heartbeat, newer than the checkpoint's;
            None if there is none.

    Returns:
        The learner; None if `stop` was set while waiting for the replay server.

    Raises:
        UserError: `train.device` names a device that isn't there; no checkpoint is whole.
        client_lib.ServerGoneError: No replay server answered.
    """
    configure_tensorflow(plan)
    specs = Specs.load(run_dir)
    _, action_spec, time_step_spec = to_tf_agents(specs)
    agent = SacAgent(time_step_spec, action_spec, settings.SacAgent(), settings.Run().seed)
    agent.initialize()
    past = restore(run_dir, agent, heartbeat, last_book)
    writer = MetricsWriter(run_dir.train_log, run_dir.tensorboard("train"), console=False)
    journal = Journal(writer, past.state.get("journal"))
    lessons = lessons_for_run(run_dir, past.incarnation, past.state, journal)
    exporter = Exporter(run_dir, agent, more=lessons.meta)
    announce(run_dir, agent, past, journal, exporter)

    links = _connect(run_dir, stop, agent, past, lessons, specs.row.size)
    if links is None:
        return None
    learner = settings.Learner()
    parts = Parts(
        agent=agent,
        update=make_update(agent, specs.row, learner.updates_per_call, learner.xla),
        checkpoints=past.checkpoints,
        exporter=exporter,
        publisher=links[0],
        feeder=links[1],
        journal=journal,
    )
    return Learner(run_dir, stop, heartbeat, parts, past.incarnation, past.state)


def _connect(
    run_dir: RunDir,
    stop: supervision.Stop,
    agent: SacAgent,
    past: Past,
    lessons: Lessons,
    row_size: int,
) -> tuple[Publisher, Feeder] | None:
    """Publishes the restored weights, then begins to sample; None after a stop."""
    client = client_lib.connect(run_dir, stop.event)
    if client is None:
        return None
    length, seed = settings.Replay().segment_length, settings.Run().seed + past.incarnation
    publisher = Publisher(run_dir, client, stop.event, length, past.book, past.incarnation, lessons)
    publisher.start(past.train_step, agent.policy_vector())
    feeder = Feeder(
        client_lib.target(run_dir), settings.Learner(), length, row_size, seed, Poison(run_dir)
    )
    return publisher, feeder


@dataclasses.dataclass(frozen=True)
class Past:
    """Where the last start of the trainer left the run.

    Attributes:
        checkpoints: Where it saved.
        book: What the collectors had done.
        train_step: Gradient steps of the restored agent.
        incarnation: Count of the trainer's starts, this one included.
        state: What the checkpoint held beside the weights; empty if there was none.
    """

    checkpoints: Checkpoints
    book: progress.Book
    train_step: int
    incarnation: int
    state: dict[str, Any]


def restore(run_dir: RunDir, agent: SacAgent, heartbeat: Heartbeat, last_book: Any) -> Past:
    """Restores the agent from the newest checkpoint, if there is one, and counts this start."""
    incarnation = next_incarnation(run_dir)
    train = settings.Train()
    keep = (train.keep_checkpoints, train.keep_checkpoints_every_env_steps)
    checkpoints = Checkpoints(run_dir, agent.checkpoint_items(), *keep)
    state = checkpoints.restore() or {}
    # Env steps never go back, even where the collector that made them has died since.
    book = progress.Book.from_json(state.get("book", {}))
    if last_book is not None:
        try:
            book.merge(progress.Book.from_json(sealed.unseal(last_book)))
        except (sealed.DamagedError, ValueError) as e:
            logging.error("the book of progress in the last heartbeat is passed over: %s", e)
    book.add_logged(row["source"] for row in read_log(run_dir.train_log) if "source" in row)
    train_step = int(agent.train_step_counter.numpy())
    heartbeat.update(
        recovered=checkpoints.recovered, env_steps=book.env_steps, train_steps=train_step
    )
    return Past(checkpoints, book, train_step, incarnation, state)


def announce(
    run_dir: RunDir, agent: SacAgent, past: Past, journal: Journal, exporter: Exporter
) -> None:
    """Records a restart, and sees to it that there is a policy to act with, even untrained."""
    began = any(policies.list_exports(run_dir, kind) for kind in policies.KINDS)
    origin = (read_json(run_dir.provenance) or {}).get("forked_from")
    counters = {"train_step": past.train_step, "incarnation": past.incarnation}
    divergence.tell_rollback(run_dir, journal, past.book, past.train_step)
    if origin and not began:
        logging.info("started from %s", origin)
        journal.event("fork", past.book, **counters, run_dir=origin["run_dir"])
    elif past.incarnation > 1:
        note = "" if past.state else ", the initial weights, for there is no checkpoint yet"
        logging.info("restarted at train step %d%s", past.train_step, note)
        journal.event("restart", past.book, **counters)
        policies.mark_overtaken(run_dir, past.train_step, past.incarnation)
    if damaged_exports.any_whole(run_dir, policies.COLLECT):
        return
    vector, env_steps = agent.policy_vector(), past.book.env_steps
    exporter.export(vector, env_steps, past.train_step, past.incarnation)
    if not exporter.wait(_FIRST_EXPORT_SECONDS) or exporter.error:
        raise RuntimeError(f"the first policy export failed: {exporter.error}")


def configure_tensorflow(plan: CpuPlan) -> None:
    """Sets device and threads.

    Raises:
        UserError: The configured device isn't there.
    """
    train = settings.Train()
    if train.device == "gpu" and not tf.config.list_physical_devices("GPU"):
        raise UserError(
            "train.device = 'gpu', but TensorFlow finds no GPU on this host: install the extra "
            "`make setup EXTRAS=gpu` on a host with an NVIDIA driver, or make a run with 'cpu'"
        )
    if train.device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    # Layers of a few hundred units use cores best with one thread inside an operation and as many
    # operations side by side as there are cores; the graph has about four parallel branches.
    tf.config.threading.set_intra_op_parallelism_threads(train.intra_op_threads or 1)
    tf.config.threading.set_inter_op_parallelism_threads(
        train.inter_op_threads or min(plan.threads, _MOST_BRANCHES)
    )
