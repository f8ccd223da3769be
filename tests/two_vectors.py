"""Two sensors of different sizes, as `python:tests.two_vectors:Reach`."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Reach(gymnasium.Env):
    """Move a point to where another is, within 20 steps."""

    max_episode_steps = 20
    action_space = spaces.Box(-1, 1, (2,), np.float32)
    observation_space = spaces.Dict(
        {"point": spaces.Box(-9, 9, (2,), np.float64), "way": spaces.Box(-9, 9, (3,), np.float32)}
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        self.point, self.goal = self.np_random.uniform(-1, 1, (2, 2))
        return self.observe(), {}

    def step(self, action):
        self.steps += 1
        self.point = np.clip(self.point + 0.2 * action, -3, 3)
        distance = float(np.linalg.norm(self.goal - self.point))
        info = {"success": distance < 0.3}
        return self.observe(), -distance, False, self.steps == self.max_episode_steps, info

    def observe(self):
        return {"point": self.point, "way": np.array([*(self.goal - self.point), 1], np.float32)}
