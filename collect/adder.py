"""Turns the steps of one environment into self-contained n-step rows.

Follows the episode only: it knows nothing of environments, policies or Reverb.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from sactory.rows import LIMIT, RowFormat


class NStepAdder:
    """Builds the rows `[s, a, R, D, s', policy step]` of one environment.

    For a window of m rows, `R = sum_{i<m} gamma^i (prod_{j<i} d_j) r_i` and
    `D = gamma^m prod_{j<m} d_j` (Sutton 1988; shorter windows at an episode's end, where m < n and
    the last state bootstraps unless it is terminal).

    Args:
        row: Layout of a row of N floats.
        n_step: Rows in a full window.
        gamma: Discount of one row.
    """

    def __init__(self, row: RowFormat, n_step: int, gamma: float):
        self._size, self._n, self._gamma = row.size, n_step, gamma
        groups = ("observation", "action", "reward", "discount", "next_observation", "policy_step")
        self._spans = tuple(row.span(group) for group in groups)
        self._observation = np.zeros(0, np.float32)
        # Open windows, oldest first: [row, reward so far, discount so far].
        self._open: deque[list] = deque()

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
            The rows that are whole now, float32 `[N]` each, oldest first.
        """
        start, act, sum_of_rewards, bootstrap, end, step = self._spans
        row = np.empty(self._size, np.float32)
        row[start] = self._observation
        row[act] = np.ravel(action)
        row[step] = min(policy_step, LIMIT)  # a run's train steps may go beyond it
        self._observation = observation
        self._open.append([row, 0.0, 1.0])
        for window in self._open:
            window[1] += window[2] * reward
            window[2] *= self._gamma * discount
        whole = []
        while self._open and (last or len(self._open) == self._n):
            row, row_reward, row_discount = self._open.popleft()
            row[sum_of_rewards] = row_reward
            row[bootstrap] = row_discount
            row[end] = observation
            whole.append(row)
        return whole
