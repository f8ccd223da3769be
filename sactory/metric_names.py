"""What is measured, under which names, with units.

`REGISTRY` is the one list; docs/metrics.md explains each with its formula and a test holds the two
together.
"""

from __future__ import annotations

import re

TRAIN = "train"
EVAL = "eval"
COLLECT = "collect"
CURRICULUM = "Curriculum"

STAMP = {"step": "env steps", "time": "unix seconds"}
_EPISODES = {
    "episode_reward": "reward",
    "episode_length": "env steps",
    "success": "fraction",
    "duration": "seconds",
}
# Names and units by kind of row. `<kind>/<name>` in TensorBoard; formulas in docs/metrics.md.
REGISTRY: dict[str, dict[str, str]] = {
    TRAIN: {
        **STAMP,
        **_EPISODES,
        "episode": "episodes",
        "train_step": "train steps",
        "batch_reward": "reward",
        "actor_loss": "reward",
        "critic_loss": "reward^2",
        "alpha_loss": "nats",
        "alpha": "reward per nat",
        "entropy": "nats",
        "q_mean": "reward",
        "ratio": "train steps per row",
        "curriculum_version": "changes",
        "replay_size": "rows",
        "env_steps_per_second": "env steps per second",
        "updates_per_second": "train steps per second",
    },
    EVAL: {
        **STAMP,
        **_EPISODES,
        "train_step": "train steps",
        "episodes": "episodes",
        "episode_reward_std": "reward",
        "episode_reward_min": "reward",
        "episode_reward_max": "reward",
        "difficulty": "fraction",
        "curriculum_version": "changes",
    },
    COLLECT: {
        **STAMP,
        **_EPISODES,
        "env_steps_per_second": "env steps per second",
        "policy_age": "train steps",
        "refused_steps": "rows",
        "env_us": "microseconds per row",
        "policy_us": "microseconds per row",
        "writer_us": "microseconds per row",
        "refresh_us": "microseconds per row",
    },
    CURRICULUM: {
        **STAMP,
        "version": "changes",
        "difficulty": "fraction",
        "<parameter>/low": "the parameter's",
        "<parameter>/high": "the parameter's",
        "<parameter>/mean": "the parameter's",
        "<measure>_window": "the measure's",
        "late_reports": "episodes",
    },
}
# Columns of a row that say what it is about; not measured, so not in TensorBoard.
LABELS = ("event", "export", "incarnation", "source", "lessons", "reports")
_GENERAL = (
    (re.compile(r".+/(low|high|mean)"), r"<parameter>/\1"),
    (re.compile(r".+_window"), "<measure>_window"),
)


def is_known(kind: str, name: str) -> bool:
    """Whether the registry has a name of one kind of row, or what stands there for such names."""
    general = [p.sub(stands, name) for p, stands in _GENERAL if p.fullmatch(name)]
    return name in LABELS or any(n in REGISTRY[kind] for n in (name, *general))
