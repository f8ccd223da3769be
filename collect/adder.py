"""Turns the steps of E environments into self-contained n-step rows.

Follows the episodes only: it knows nothing of environments, policies or Reverb.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sactory.rows import LIMIT, RowFormat


class NStepAdder:
    """Builds the rows `[s, a, R, D, s', policy step]` of E environments that step together.

    For a window of m rows, `R = sum_{i<m} gamma^i (prod_{j<i} d_j) r_i` and
    `D = gamma^m prod_{j<m} d_j` (Sutton 1988; shorter windows at an episode's end, where m < n and
    the last state bootstraps unless it is terminal).

    Args:
        row: Layout of a row of N floats.
        n_step: Rows in a full window.
        gamma: Discount of one row.
        num_envs: E.
    """

    def __init__(self, row: RowFormat, n_step: int, gamma: float, num_envs: int):
        groups = ("observation", "action", "reward", "discount", "next_observation", "policy_step")
        self._spans = tuple(row.span(group) for group in groups)
        self._gamma = gamma
        # Windows by the step that opened them (step t in place t modulo n) and by environment.
        self._rows = np.zeros((n_step, num_envs, row.size), np.float32)
        self._rewards = np.zeros((n_step, num_envs))
        self._discounts = np.zeros((n_step, num_envs))
        self._open = np.zeros((n_step, num_envs), bool)
        # For each place: all of them, the oldest first, when this one is.
        self._by_age = (np.arange(n_step)[:, None] + np.arange(n_step)) % n_step
        self._place = 0

    def cut(self, env: int) -> None:
        """Drops an environment's rows that are not finished: its episode was cut."""
        self._open[:, env] = False

    def step(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        discounts: np.ndarray,
        last: np.ndarray,
        next_observations: np.ndarray,
        policy_step: int,
        taken: np.ndarray,
    ) -> np.ndarray:
        """Enters one agent step of every environment.

        Args:
            observations: Before it, `[E, O]`.
            actions: `[E, ...]`.
            rewards: `[E]`.
            discounts: d, `[E]`, 0 only at a true terminal.
            last: Whether the episode ends here, bool `[E]`.
            next_observations: After it, `[E, O]`.
            policy_step: Train step of the weights that chose the actions; -1 for random ones.
            taken: Which environments' steps count, bool `[E]`.

        Returns:
            The rows that are whole now, float32 `[M, N]`: environment by environment, of each the
            oldest first.
        """
        start, act, sum_of_rewards, bootstrap, end, step = self._spans
        place, rows = self._place, self._rows[self._place]
        rows[:, start] = observations
        rows[:, act] = actions.reshape(len(rows), -1)
        rows[:, step] = min(policy_step, LIMIT)  # a run's train steps may go beyond it
        self._open[place] = taken
        self._rewards[place], self._discounts[place] = 0.0, 1.0
        self._rewards += self._discounts * rewards
        self._discounts *= self._gamma * discounts
        self._place = oldest = (place + 1) % len(self._rows)
        window, env = self._whole(oldest, last)
        result = np.array(self._rows[window])
        result[:, sum_of_rewards.start] = self._rewards[window]
        result[:, bootstrap.start] = self._discounts[window]
        result[:, end] = next_observations[env]
        self._open[window] = False
        return result

    def _whole(self, oldest: int, last: np.ndarray) -> tuple[Any, Any]:
        """Which windows are whole, and the environment of each: indices of arrays."""
        if not last.any() and self._open[oldest].all():  # each has one, which is nearly always
            return oldest, slice(None)
        whole = self._open & last
        whole[oldest] |= self._open[oldest]
        by_age = self._by_age[oldest]
        env, age = whole[by_age].T.nonzero()
        return (by_age[age], env), env
