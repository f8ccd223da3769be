"""Every number of every program, as frozen dataclasses that gin binds.

A program reads its numbers by constructing the class without arguments once `config.load` has
read the run's frozen configuration: `settings.Learner().batch_size`. A test passes them:
`settings.Learner(batch_size=8)`. To add a setting, add one field here and its line to
`configs/sac.gin`. Nothing here computes.

Env steps are simulator steps; rows are agent steps: env steps = rows x `envs.load.action_repeat`.
The hints are evaluated, so `Optional[X]` it is: Python 3.9 can't evaluate `X | None`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from sactory.errors import UserError
from sactory.fields import configurable, field


@configurable("run")
@dataclass(frozen=True)
class Run:
    """The run as a whole."""

    max_env_steps: int = field(100_000, low=1, unit="env steps")
    """The run ends here."""
    seed: int = field(1, low=0, high=2**31 - 1)
    """Seed of networks, environments and exploration; every worker derives its own from it."""
    num_collectors: int = field(1, low=1, high=4096, unit="processes")
    """Collectors that `sactory run` starts."""
    stop_at_return: Optional[float] = field(None)
    """End as soon as an evaluation's mean return reaches this; None: never."""
    max_hours: Optional[float] = field(None, above=0, unit="hours")
    """End after this much wall-clock time over all restarts; None: never."""
    name: str = field("sac_states", pattern=r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
    """Name of the configuration in the default run directory."""
    keep_exports: int = field(10, low=1, unit="exports")
    """The newest exported policies that are kept, of each kind."""
    keep_exports_every_env_steps: int = field(50_000, low=1, unit="env steps")
    """Of the older ones, one is kept for each stretch of this length."""
    keep_videos: int = field(20, low=1, unit="videos")
    """The newest videos that are kept."""
    max_disk_gb: Optional[float] = field(None, above=0, unit="GB")
    """Old checkpoints, exports, videos and logs go when R holds more; None: no limit."""


@configurable("envs.load")
@dataclass(frozen=True)
class Env:
    """The environment."""

    name: str = field("cartpole_swingup", pattern=r"\S+")
    """`<domain>_<task>` of dm_control's suite, or with a prefix such as `contact_insert:planar`."""
    action_repeat: int = field(1, low=1, high=1000, unit="env steps per row")
    """The simulator steps that each action is held for."""
    time_limit: Optional[float] = field(None, above=0, unit="simulated seconds")
    """Episode length of a dm_control task; None: the task's own."""
    task_kwargs: Optional[dict[str, Any]] = field(None)  # noqa: RUF009
    """Keyword arguments for the task, for `gymnasium.make` or for the user's function."""
    reset_options: Optional[dict[str, Any]] = field(None)  # noqa: RUF009
    """What a gymnasium environment's `reset` gets as `options`, at each episode."""
    level: Optional[str] = field(None)
    """How hard: easy, medium or hard, for an environment with levels; None: its own."""
    curriculum: Optional[str] = field(None, pattern=r".*\S.*")
    """Path of a JSON file that says what the environment's parameters are over the run."""


@configurable("replay")
@dataclass(frozen=True)
class Replay:
    """What rows are and how fast they are used: collectors, server and trainer must agree."""

    capacity: int = field(1_000_000, low=1, unit="rows")
    """The oldest rows are dropped beyond this many."""
    segment_length: int = field(1, low=1, high=1024, unit="rows")
    """Rows of one worker that are stored and sampled together; 1 is classic uniform replay."""
    n_step: int = field(1, low=1, high=100, unit="rows")
    """Rewards summed before bootstrapping."""
    gamma: float = field(0.99, low=0, high=1)
    """Discount of one row."""
    updates_per_row: Optional[float] = field(1.0, above=0, unit="updates per row")
    """Gradient steps per row after the random steps; None (only async): as many as it can."""
    mode: str = field("sync", choices=("sync", "async"))
    """sync: collectors and trainer wait for each other; async: collectors never wait."""
    checkpoint_seconds: float = field(600.0, low=1, unit="seconds")
    """Between two checkpoints of the replay; longer if one takes long."""
    keep_checkpoints: int = field(2, low=1, unit="checkpoints")
    """The newest checkpoints of the replay that are kept: what a damaged one falls back to."""
    seed_from: Optional[str] = field(None, pattern=r"/.*")
    """Rows to start with: absolute path of a run directory or of an .npz of transitions."""
    async_patience: float = field(60.0, above=0, unit="seconds")
    """In async mode collectors pause when the trainer has been silent for this long."""

    def __post_init__(self) -> None:
        if self.updates_per_row is None and self.mode == "sync":
            raise UserError(
                "replay.updates_per_row = None needs replay.mode = 'async': "
                "a synchronous run holds both sides to a number of updates per row"
            )


@configurable("replay_server")
@dataclass(frozen=True)
class ReplayServer:
    """The replay server's process."""

    listen: str = field("local", choices=("local", "network"))
    """Who may connect: programs of the same user and host, or others too, with a certificate."""
    port: int = field(0, low=0, high=65535)
    """TCP port to listen on where it needs one; 0: a free one."""
    cpus: Optional[int] = field(None, low=1, unit="cores")
    """Cores it may use; None: chosen from the machine's."""
    checkpoint_on_exit: bool = field(True)
    """Whether a stopped server saves its rows if the grace period allows."""


@configurable("train")
@dataclass(frozen=True)
class Train:
    """The trainer's process."""

    cpus: Optional[int] = field(None, low=1, unit="cores")
    """Cores it may use; None: chosen from the machine's."""
    intra_op_threads: Optional[int] = field(None, low=1, unit="threads")
    """TensorFlow's threads inside one operation; None: measured best for the cores."""
    inter_op_threads: Optional[int] = field(None, low=1, unit="threads")
    """TensorFlow's operations side by side; None: measured best for the cores."""
    device: str = field("cpu", choices=("cpu", "gpu"))
    """Where the updates run; 'gpu' is refused where there is none."""
    checkpoint_seconds: float = field(60.0, low=1, unit="seconds")
    """Between two checkpoints of the trainer: what a crash can cost."""
    keep_checkpoints: int = field(3, low=1, unit="checkpoints")
    """The newest checkpoints that are kept."""
    keep_checkpoints_every_env_steps: int = field(50_000, low=1, unit="env steps")
    """Of the older ones, one is kept for each stretch of this length."""
    publish_seconds: float = field(0.25, above=0, unit="seconds")
    """Between two publications of the weights to the collectors."""


@configurable("train.SacAgent")
@dataclass(frozen=True)
class SacAgent:
    """Soft Actor-Critic (arXiv 1812.05905)."""

    hidden_sizes: tuple[int, ...] = field((256, 256), low=1, unit="units")
    """Layers of the actor."""
    critic_hidden_sizes: Optional[tuple[int, ...]] = field(None, low=1, unit="units")
    """Layers of each critic; None: as the actor's."""
    num_critics: int = field(2, low=1, high=100)
    """Critics in the ensemble."""
    critic_subset: int = field(2, low=1, high=100)
    """Critics drawn at random for the minimum in each target."""
    actor_learning_rate: float = field(1e-3, above=0)
    """Adam's, for the actor."""
    critic_learning_rate: float = field(1e-3, above=0)
    """Adam's, for the critics."""
    alpha_learning_rate: float = field(3e-4, above=0)
    """Adam's, for the logarithm of the temperature."""
    initial_alpha: float = field(0.1, above=0)
    """The temperature at the start."""
    target_entropy: Optional[float] = field(None, unit="nats")
    """The entropy that the temperature is tuned for; None: minus the action's size, -|A|."""
    tau: float = field(0.005, above=0, high=1)
    """Share of the critics that moves into the target critics at each update (Polyak)."""
    reward_scale: float = field(1.0, above=0)
    """Factor of the rewards in the targets."""
    gradient_clip_norm: Optional[float] = field(None, above=0)
    """Largest global norm of each gradient; None: not clipped."""
    log_std_min: float = field(-5.0, low=-100, high=100)
    """Smallest logarithm of the policy's standard deviation, before the tanh."""
    log_std_max: float = field(2.0, low=-100, high=100)
    """Largest one."""

    def __post_init__(self) -> None:
        if self.critic_subset > self.num_critics:
            raise UserError(
                f"train.SacAgent.critic_subset = {self.critic_subset} must not exceed "
                f"train.SacAgent.num_critics = {self.num_critics}"
            )
        if self.log_std_min >= self.log_std_max:
            raise UserError(
                f"train.SacAgent.log_std_min = {self.log_std_min} must be below "
                f"train.SacAgent.log_std_max = {self.log_std_max}"
            )


@configurable("train.Learner")
@dataclass(frozen=True)
class Learner:
    """The loop that samples and updates."""

    batch_size: int = field(256, low=1, unit="rows")
    """Rows of one gradient step."""
    updates_per_call: int = field(16, low=1, high=10_000, unit="updates")
    """Gradient steps K of one compiled call."""
    xla: bool = field(False)
    """Whether XLA compiles the call; on CPUs the plain graph was measured faster."""
    max_in_flight: Optional[int] = field(None, low=1, unit="samples")
    """Samples asked for ahead from each Reverb stream; None: chosen from the pool's size."""


@configurable("collect")
@dataclass(frozen=True)
class Collect:
    """A collector's process."""

    cpus: Optional[int] = field(None, low=1, unit="cores")
    """Cores that each collector may use; None: chosen from the machine's."""
    refresh_seconds: Optional[float] = field(None, above=0, unit="seconds")
    """Between two looks for newer weights; None: 0.25, or longer for more than 32 collectors."""


@configurable("collect.Worker")
@dataclass(frozen=True)
class Worker:
    """How a collector acts."""

    num_envs: int = field(1, low=1, high=4096, unit="environments")
    """Environments of one collector, acted in as one batch."""
    random_steps: int = field(5_000, low=0, unit="rows")
    """Rows collected at random before learning starts, over the run and all collectors."""


@configurable("eval")
@dataclass(frozen=True)
class Eval:
    """The evaluator's process."""

    cpus: Optional[int] = field(None, low=1, unit="cores")
    """Cores it may use; None: chosen from the machine's."""


@configurable("eval.Evaluator")
@dataclass(frozen=True)
class Evaluator:
    """How policies are scored."""

    every_env_steps: int = field(10_000, low=1, unit="env steps")
    """Between two exports of the policy; each is evaluated."""
    num_eval_episodes: int = field(10, low=1, unit="episodes")
    """Episodes of one evaluation."""
    video: bool = field(True)
    """Whether the evaluator beside training records videos."""
    video_every_env_steps: int = field(50_000, low=1, unit="env steps")
    """Between two videos; the first and the last policy are always filmed."""
    video_height: int = field(240, low=16, high=4096, unit="pixels")
    """Height of a frame; even, as the video codec wants it."""
    video_width: int = field(320, low=16, high=4096, unit="pixels")
    """Width of a frame; even."""
    video_fps: int = field(25, low=1, high=240, unit="frames per simulated second")
    """Frames of the video per second of simulated time."""

    def __post_init__(self) -> None:
        for name in ("video_height", "video_width"):
            if getattr(self, name) % 2:
                raise UserError(
                    f"eval.Evaluator.{name} = {getattr(self, name)} must be even: "
                    "the video codec stores colours for blocks of 2 x 2 pixels"
                )
