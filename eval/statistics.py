"""What few seeds say about a method: the interquartile mean and how sure it is.

After Agarwal et al., 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice":
the mean of the middle half of all runs, with a percentile interval from the stratified bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_DRAWS = 50_000


def iqm(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The interquartile mean over the last axis: a quarter, rounded down, is cut at each end.

    Args:
        scores: `[..., N]`, N at least 1.

    Returns:
        `[...]`.
    """
    cut = scores.shape[-1] // 4
    ordered = np.sort(scores, axis=-1)
    return ordered[..., cut : scores.shape[-1] - cut].mean(axis=-1)


def iqm_interval(tasks: Sequence[NDArray[np.float64]]) -> tuple[float, float] | None:
    """The 95 % interval of the interquartile mean over the runs of some tasks, taken together.

    As many runs of each task as there are drawn with replacement, many times; always the same.

    Args:
        tasks: The scores of each task's runs, `[N_i]`.

    Returns:
        Both ends; None if no task has two runs: nothing varies then.
    """
    if all(len(scores) < 2 for scores in tasks):
        return None
    random = np.random.default_rng(0)
    drawn = [scores[random.integers(len(scores), size=(_DRAWS, len(scores)))] for scores in tasks]
    low, high = np.percentile(iqm(np.concatenate(drawn, axis=1)), [2.5, 97.5])
    return float(low), float(high)
