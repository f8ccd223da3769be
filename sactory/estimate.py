"""What a run will need: memory, disk and time, worked out before anything is started.

Rough figures from measured constants, on the safe side. They only refuse what can't fit; the run
itself never reads them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
from pathlib import Path

from sactory import settings
from sactory.config import Config, max_rows
from sactory.errors import UserError
from sactory.specs import Specs

GB = 1e9
BYTES_PER_ITEM = 1700  # measured: what Reverb keeps beside an item's rows, in a chunk of its own
CHECKPOINT_BYTES_PER_ITEM = 60  # measured: what a checkpoint holds beside an item's rows
BYTES_PER_PROGRAM = 0.5 * GB  # measured: TensorFlow and Reverb imported, a policy loaded
FLOP_PER_CORE_SECOND = 50e9  # measured in whole updates of 256 x 256 networks
UPDATE_SECONDS = 0.5e-3  # of one update beside its arithmetic
ROW_SECONDS = 0.3e-3  # of one collected row: simulator, policy, insertion
EXPORT_BYTES = 0.5e6  # of a SavedModel beside its weights
VIDEO_BYTES = 2e6  # of one episode
LOG_BYTES = 50e6  # all logs of a long run


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Needs of a run.

    Attributes:
        replay_bytes: Memory of the replay at its largest.
        memory_bytes: Memory of all programs on one host, replay included.
        disk_bytes: Disk space of the run directory at its largest.
        update_flop: Floating-point operations of one gradient step.
        steps_per_second: Env steps in a second of the whole run.
        hours: Until the end.
    """

    replay_bytes: float
    memory_bytes: float
    disk_bytes: float
    update_flop: float
    steps_per_second: float
    hours: float


def estimate(config: Config, specs: Specs, cores: int | None = None) -> Estimate:
    """Works out the needs of a run.

    Args:
        config: Its checked settings.
        specs: Its rows.
        cores: Cores it may use; default: this process's.
    """
    run, env = config.get(settings.Run), config.get(settings.Env)
    replay, worker = config.get(settings.Replay), config.get(settings.Worker)
    train = config.get(settings.Train)
    cores = cores or len(os.sched_getaffinity(0))
    stored = min(replay.capacity, max_rows(run, env))  # rows
    replay_bytes = stored * (BYTES_PER_ITEM / replay.segment_length + 4.0 * specs.row.size)
    per_row = CHECKPOINT_BYTES_PER_ITEM / replay.segment_length + 4.0 * specs.row.size
    checkpoints = (replay.keep_checkpoints + 1) * stored * per_row  # one more is being written
    programs = 3 + run.num_collectors
    actor, critic = _parameters(config.get(settings.SacAgent), specs)
    flop = _update_flop(config, actor, critic)
    trainer_cores = min(train.cpus or cores, cores, 2)  # more than two hardly help these networks
    update_seconds = UPDATE_SECONDS + flop / (FLOP_PER_CORE_SECOND * trainer_cores)
    collectors = min(run.num_collectors, cores)
    row_seconds = ROW_SECONDS * env.action_repeat**0.5 / collectors
    if replay.mode == "sync" and replay.updates_per_row is not None:
        row_seconds = max(row_seconds, replay.updates_per_row * update_seconds)
    steps_per_second = env.action_repeat / row_seconds
    disk_bytes = checkpoints + _other_files(config, actor, critic)
    if run.max_disk_gb is not None:
        disk_bytes = min(disk_bytes, max(run.max_disk_gb * GB, 2 * replay_bytes))
    random_seconds = worker.random_steps * ROW_SECONDS
    hours = random_seconds / 3600 + run.max_env_steps / steps_per_second / 3600
    return Estimate(
        replay_bytes=replay_bytes,
        memory_bytes=replay_bytes + programs * BYTES_PER_PROGRAM + 60.0 * actor + 60.0 * critic,
        disk_bytes=disk_bytes,
        update_flop=flop,
        steps_per_second=steps_per_second,
        hours=min(hours, run.max_hours or math.inf),
    )


def _parameters(agent: settings.SacAgent, specs: Specs) -> tuple[int, int]:
    """Weights of the actor and of one critic."""
    observations = sum(math.prod(spec.shape) for spec in specs.sensors.values())
    actions = math.prod(specs.action.shape)
    critic_sizes = agent.critic_hidden_sizes
    critic_sizes = agent.hidden_sizes if critic_sizes is None else critic_sizes

    def mlp(*sizes: int) -> int:
        return sum((n + 1) * m for n, m in zip(sizes, sizes[1:]))

    actor = mlp(observations, *agent.hidden_sizes, 2 * actions)
    return actor, mlp(observations + actions, *critic_sizes, 1)


def _update_flop(config: Config, actor: int, critic: int) -> float:
    """Operations of one gradient step; a forward pass is 2 per weight and row, a backward one 4."""
    num_critics = config.get(settings.SacAgent).num_critics
    actor_passes = 2 + 6  # next actions; policy loss with its gradient
    critic_passes = 2 + 6 + 4  # targets; critic loss with its gradient; policy loss, inputs only
    per_row = actor_passes * actor + critic_passes * num_critics * critic
    return float(config.get(settings.Learner).batch_size * per_row)


def _other_files(config: Config, actor: int, critic: int) -> float:
    """Bytes of everything in a run directory but the replay's checkpoints."""
    run, evaluator = config.get(settings.Run), config.get(settings.Evaluator)
    train, num_critics = config.get(settings.Train), config.get(settings.SacAgent).num_critics
    # Of each kind; two more are under way, and older ones are thinned out.
    exports = run.keep_exports + 2 + run.max_env_steps // run.keep_exports_every_env_steps
    exports = min(exports, 2 + run.max_env_steps // evaluator.every_env_steps)
    checkpoints = train.keep_checkpoints + 1
    checkpoints += run.max_env_steps // train.keep_checkpoints_every_env_steps
    variables = 3 * actor + 4 * num_critics * critic  # with Adam's moments and the targets
    videos = 2 + run.max_env_steps // evaluator.video_every_env_steps if evaluator.video else 0
    return (
        2 * exports * (EXPORT_BYTES + 4.0 * actor)
        + checkpoints * 4.0 * variables
        + videos * VIDEO_BYTES
        + LOG_BYTES
    )


def check_fits(needs: Estimate, config: Config, directory: Path, held: float = 0.0) -> str:
    """Checks an estimate against this machine.

    Args:
        needs: The estimate.
        config: For the message: the setting that drives it.
        directory: Where the run directory will lie; it need not exist yet.
        held: Bytes of disk that the run has taken already.

    Returns:
        The estimate and what is available, as lines to print.

    Raises:
        UserError: The run can't fit the memory or the disk.
    """
    memory, disk = available_memory(), available_disk(directory) + held
    run, replay = config.get(settings.Run), config.get(settings.Replay)
    cause = (
        f"replay.capacity = {replay.capacity} rows and run.max_env_steps = {run.max_env_steps} "
        f"make a replay of {needs.replay_bytes / GB:.1f} GB, "
        f"run.num_collectors = {run.num_collectors}"
    )
    if needs.memory_bytes > memory:
        raise UserError(
            f"the run needs about {needs.memory_bytes / GB:.1f} GB of memory, "
            f"{memory / GB:.1f} GB are available: {cause}"
        )
    if run.max_disk_gb is not None and run.max_disk_gb * GB < 2 * needs.replay_bytes:
        raise UserError(
            f"run.max_disk_gb = {run.max_disk_gb:g} can't hold two checkpoints of the replay, "
            f"{2 * needs.replay_bytes / GB:.1f} GB: {cause}"
        )
    if needs.disk_bytes > disk:
        raise UserError(
            f"the run needs about {needs.disk_bytes / GB:.1f} GB of disk for "
            f"replay.keep_checkpoints = {replay.keep_checkpoints} of the replay, exports and logs, "
            f"{disk / GB:.1f} GB are free at {directory}: {cause}"
        )
    return (
        f"memory  {needs.memory_bytes / GB:.1f} GB of {memory / GB:.1f} GB available "
        f"(replay {needs.replay_bytes / GB:.2f} GB)\n"
        f"disk    {needs.disk_bytes / GB:.1f} GB of {disk / GB:.1f} GB free\n"
        f"time    about {needs.steps_per_second:.0f} env steps/s, {needs.hours:.1f} hours for "
        f"{run.max_env_steps} env steps (a guess: {needs.update_flop / 1e6:.0f} MFLOP an update)"
    )


def available_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that new programs may use: the machine's, or what a container's limit leaves."""
    import psutil

    free = float(psutil.virtual_memory().available)
    for folder, limit, used in (
        (cgroup, "memory.max", "memory.current"),
        (cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),  # version 1
    ):
        with contextlib.suppress(OSError, ValueError):  # absent, or the word "max"
            left = int((folder / limit).read_text()) - int((folder / used).read_text())
            free = min(free, left + _inactive_file(folder / "memory.stat"))
    return free


def _inactive_file(path: Path) -> int:
    """Bytes of cached files that the kernel gives back when asked for memory."""
    for line in path.read_text().splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0


def available_disk(directory: Path) -> float:
    """Bytes free where a directory lies or will lie."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return float(shutil.disk_usage(directory).free)
