"""How sure a measured share is."""

from __future__ import annotations

import math

_Z95 = 1.959964  # standard deviations that hold 95 % of a normal distribution


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a probability.

    Unlike the usual mean +- 2 standard errors it stays within 0 and 1 and is right at both ends.

    Args:
        successes: How often it happened.
        trials: How often it was tried; at least 1.

    Returns:
        Both ends.
    """
    share, weight = successes / trials, _Z95**2 / trials
    middle = (share + weight / 2) / (1 + weight)
    half = _Z95 / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / 4 / trials)
    return max(middle - half, 0.0), min(middle + half, 1.0)
