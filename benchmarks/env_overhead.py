"""What the environment adapter costs: microseconds a step, raw dm_control against Sactory's.

    python -m benchmarks.env_overhead cheetah_run,cartpole_swingup

Both run the same whole episodes, the automatic reset included, taking turns every few steps, so
that noise of the machine hits both. CPU time of the process; each figure is the median over the
episodes, the overhead the median of the differences.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from sactory import envs, quiet, settings
from sactory.flags import Flags, run_script

TASKS = "cartpole_swingup,cheetah_run,walker_walk,humanoid_run,quadruped_walk,finger_turn_easy"
SEED = 1
CHUNK = 20  # steps before the other side's turn


def measure(task: str, episodes: int) -> dict[str, Any]:
    """Times one task.

    Args:
        task: A task of dm_control's suite.
        episodes: Timed episodes of each side, after one to warm up.

    Returns:
        `raw_us`, `sactory_us` and `overhead_us`: CPU microseconds a step.
    """
    adapter = envs.load(settings.Env(name=task), seed=SEED)
    raw = envs.load(settings.Env(name=task), seed=SEED)._env
    steps = adapter.max_episode_steps or 1000
    generator = np.random.default_rng(SEED)
    shape = (steps + 1, *adapter.action_spec().shape)
    actions = generator.uniform(-1, 1, shape).astype(np.float32)
    # The very same numbers, or the two simulations would drift apart and differ in cost.
    raw_actions = actions.astype(np.float64) * adapter._scale + adapter._centre
    sides = [(raw.step, raw_actions), (adapter.step, actions)]
    seconds = np.array([_episode(sides) for _ in range(episodes + 1)])[1:]
    raw_us, sactory_us = seconds.T * 1e6 / (steps + 1)
    return {
        "task": task,
        "episodes": episodes,
        "raw_us": round(statistics.median(raw_us), 2),
        "sactory_us": round(statistics.median(sactory_us), 2),
        "overhead_us": round(statistics.median(sactory_us - raw_us), 2),
    }


def _episode(sides: list[tuple[Callable[[np.ndarray], Any], np.ndarray]]) -> list[float]:
    """CPU seconds of one episode of each side; its first call resets, the others step."""
    seconds = [0.0, 0.0]
    for start in range(0, len(sides[0][1]), CHUNK):
        for side in (0, 1) if start // CHUNK % 2 else (1, 0):
            step, actions = sides[side]
            began = time.process_time()
            for action in actions[start : start + CHUNK]:
                step(action)
            seconds[side] += time.process_time() - began
    return seconds


def main(argv: list[str]) -> int:
    """Prints one JSON line a task."""
    flags = Flags("env_overhead", "Costs of the environment adapter.", "TASK,TASK,...")
    flags.integer("episodes", 15, "timed episodes of each side")
    args, positional = flags.parse(argv)
    for task in (positional[0] if positional else TASKS).split(","):
        print(json.dumps(measure(task, args.episodes)), flush=True)
    return 0


if __name__ == "__main__":
    quiet.set_environment()
    run_script(main)
