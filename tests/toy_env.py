"""An environment as a user might write one; its arguments spoil it in one way or another."""

import numpy as np
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts


class Toy(py_environment.PyEnvironment):
    def __init__(
        self,
        dtype="float32",
        returned=None,
        low=None,
        high=None,
        action="float32",
        action_high=1.0,
        fail="",
        first=0.0,
        size=3,
    ):
        super().__init__()
        if fail:
            raise RuntimeError(fail)
        self.dtype, self.returned, self.size = dtype, returned or dtype, size
        self.low, self.high, self.first = low, high, float(first)  # gin can't write NaN, but 'nan'
        self.action, self.action_high = action, float(action_high)

    def observation_spec(self):
        if self.low is None:
            return array_spec.ArraySpec((self.size,), self.dtype)
        return array_spec.BoundedArraySpec((self.size,), self.dtype, self.low, self.high)

    def action_spec(self):
        low = 0 if self.action.startswith("int") else -1
        return array_spec.BoundedArraySpec((2,), self.action, low, self.action_high)

    def _reset(self):
        return ts.restart(np.full(3, self.first, self.returned))

    def _step(self, action):
        return ts.transition(np.zeros(3, self.dtype), np.float32(1))


def make(**kwargs):
    return Toy(**kwargs)
