"""What a peer is asked to do. Runs in the peers' environment: nothing but Python."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

HIDDEN, BATCH, GAMMA, TAU = 256, 256, 0.99, 0.005
LEARNING_RATE, ALPHA_LEARNING_RATE, INITIAL_ALPHA = 1e-3, 3e-4, 0.1
"""The numbers of SAC where whole systems are compared: configs/sac.gin's, for all alike."""

RANDOM_STEPS = 1_000
OBSERVATIONS, ACTIONS = 17, 6  # of cheetah_run


@dataclasses.dataclass(frozen=True)
class Job:
    """One measurement of one peer.

    Attributes:
        mode: `learner`: gradient steps on data in memory; units are updates. `train`: the peer's
            own training of `task` at one update per env step; units are env steps.
            `to_return`: the same until `target` is reached; one line of JSON at the end.
        cores: Cores the process may use.
        fused: Gradient steps of one call, where the peer knows such calls.
        xla: Whether XLA compiles the call, where that is a choice.
        task: `<domain>_<task>` of dm_control.
        seed: Of networks and environments.
        target: Mean return of an evaluation that ends `to_return`.
        every: Env steps between evaluations.
        episodes: Of one evaluation.
        max_env_steps: Where `to_return` gives up.
    """

    mode: str
    cores: int = 1
    fused: int = 1
    xla: bool = False
    task: str = "cheetah_run"
    seed: int = 1
    target: float = 700.0
    every: int = 5_000
    episodes: int = 10
    max_env_steps: int = 300_000

    def words(self, module: str) -> list[str]:
        """The command line after Python's name."""
        return ["-m", f"benchmarks.peers.{module}", json.dumps(self.to_json())]

    def to_json(self) -> dict[str, Any]:
        """JSON value."""
        return dataclasses.asdict(self)


def from_command_line() -> Job:
    """The job that this process was started for."""
    return Job(**json.loads(sys.argv[1]))
