"""An environment with parameters, as a user might write one; it notes what each reset applied."""

import json
import os
import time

import numpy as np
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from sactory.curriculum import ParameterSpec

LENGTH = 5


class Rack(py_environment.PyEnvironment):
    """Five steps; solved where the level is at most `skill`."""

    max_episode_steps = LENGTH
    info_metrics = ("success", "peak_force")

    def __init__(self, skill, notes, reward):
        super().__init__()
        self.skill, self.notes = skill, notes
        self.specs = {
            "level": ParameterSpec(0.0, 0.0, 10.0),
            "slots": ParameterSpec(3, 1, 20),
            "penalty_scale" if reward else "friction": ParameterSpec(0.5, affects_reward=reward),
        }
        self.given = self.values = {n: spec.default for n, spec in self.specs.items()}

    def parameter_specs(self):
        return self.specs

    def set_parameters(self, values):
        self.given = {**self.given, **values}

    def get_parameters(self):
        return self.values

    def seed(self, seed):
        self.random = np.random.default_rng(seed)

    def observation_spec(self):
        return array_spec.ArraySpec((2,), np.float32, "observation")

    def action_spec(self):
        return array_spec.BoundedArraySpec((1,), np.float32, -1.0, 1.0, "action")

    def _reset(self):
        self.values, self.count = self.given, 0
        if self.notes:
            note = {"time": time.time(), "pid": os.getpid(), **self.values}
            with open(self.notes, "a") as f:
                f.write(json.dumps(note) + "\n")
        return ts.restart(np.zeros(2, np.float32))

    def _step(self, action):
        self.count += 1
        observation = np.full(2, self.count / LENGTH, np.float32)
        if self.count == LENGTH:
            return ts.termination(observation, np.float32(1))
        return ts.transition(observation, np.float32(1))

    def get_info(self):
        level = self.values["level"]
        return {"success": float(level <= self.skill), "peak_force": 10 * level, "text": "x"}


def make(skill=10.0, notes=None, reward=False):
    return Rack(skill, notes, reward)
