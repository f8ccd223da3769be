"""Turns the steps of one environment into self-contained n-step rows.

Follows the episode only: it knows nothing of environments, policies or Reverb.
"""

from __future__ import annotations

from collections import deque

import numpy as np


class NStepAdder:
    """Builds the rows `[s, a, R, D, s', policy step]` of one environment.

    For a window of m rows, `R = sum_{i<m} gamma^i (prod_{j<i} d_j) r_i` and
    `D = gamma^m prod_{j<m} d_j` (Sutton 1988; shorter windows at an episode's end, where m < n and
    the last state bootstraps unless it is terminal).

    Args:
        observation_size: Floats of a flat observation, O.
        action_size: Floats of an action, A.
        n_step: Rows in a full window.
        gamma: Discount of one row.
    """

    def __init__(self, observation_size: int, action_size: int, n_step: int, gamma: float):
        self._o, self._a = observation_size, action_size
        self._n, self._gamma = n_step, gamma
        self._observation = np.zeros(observation_size, np.float32)
        # Open windows, oldest first: [row, reward so far, discount so far].
        self._open: deque[list] = deque()

    @property
    def row_size(self) -> int:
        """Floats in a row."""
        return 2 * self._o + self._a + 3

    def start(self, observation: np.ndarray) -> None:
        """Begins an episode; rows of the last one that are not finished are dropped.

        Args:
            observation: The first observation, `[O]`.
        """
        self._open.clear()
        self._observation = observation

    def step(
        self,
        action: np.ndarray,
        reward: float,
        discount: float,
        last: bool,
        observation: np.ndarray,
        policy_step: int,
    ) -> list[np.ndarray]:
        """Enters one agent step.

        Args:
            action: `[A]`, taken in the observation before this one.
            reward: Of this step.
            discount: d, 0 only at a true terminal.
            last: Whether the episode ends here.
            observation: What followed, `[O]`.
            policy_step: Train step of the weights that chose the action; -1 for random actions.

        Returns:
            The rows that are whole now, float32 `[2 O + A + 3]` each, oldest first.
        """
        o, a = self._o, self._a
        row = np.empty(self.row_size, np.float32)
        row[:o] = self._observation
        row[o : o + a] = action
        row[-1] = policy_step
        self._observation = observation
        self._open.append([row, 0.0, 1.0])
        for window in self._open:
            window[1] += window[2] * reward
            window[2] *= self._gamma * discount
        whole = []
        while self._open and (last or len(self._open) == self._n):
            row, row_reward, row_discount = self._open.popleft()
            row[o + a] = row_reward
            row[o + a + 1] = row_discount
            row[o + a + 2 : -1] = observation
            whole.append(row)
        return whole
