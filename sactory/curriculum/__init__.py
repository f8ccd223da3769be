"""Environment parameters over a run, from a JSON file: what each is, and when that changes.

    curriculum = load("configs/curricula/contact_insert.json")

    coordinator = Coordinator(curriculum, incarnation, saved)    # one, in the trainer
    state = coordinator.update(clock, reports)                   # published to everybody
    saved = coordinator.to_json()                                # in the trainer's checkpoint

    draw = curriculum.draw(state, episode_generator(seed, worker, episode))    # each collector
    values = curriculum.eval_values(state, generator)                          # the evaluator

Only JSON values travel: `State`, and `Report` for each episode. Nothing here does I/O but `load`,
and nothing imports TensorFlow.
"""

from sactory.curriculum.coordinator import Coordinator, changes
from sactory.curriculum.environment import ParameterSpec, check_environment
from sactory.curriculum.parse import load, parse
from sactory.curriculum.plan import Curriculum, Draw, episode_generator
from sactory.curriculum.state import Clock, Report, State

__all__ = [
    "Clock",
    "Coordinator",
    "Curriculum",
    "Draw",
    "ParameterSpec",
    "Report",
    "State",
    "changes",
    "check_environment",
    "episode_generator",
    "load",
    "parse",
]
