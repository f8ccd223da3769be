"""The policy's weights on their way from the trainer to the collectors.

One flat float32 vector with a version in a table of one item. The order of the variables is that
of the export's meta.json.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import reverb
from absl import logging

from sactory import client as client_lib
from sactory.tables import WEIGHTS


@dataclasses.dataclass(frozen=True)
class Version:
    """Which weights these are.

    Attributes:
        incarnation: Count of the trainer's starts in this run.
        train_step: Gradient steps the weights have seen.
    """

    incarnation: int
    train_step: int

    def supersedes(self, other: Version | None) -> bool:
        """Whether a collector that holds `other` should take these.

        Within one incarnation only newer weights count; a later incarnation always does, for a
        restarted trainer may have gone back to an older checkpoint.
        """
        if other is None or self.incarnation > other.incarnation:
            return True
        return self.incarnation == other.incarnation and self.train_step > other.train_step


def publish(client: reverb.Client, version: Version, vector: np.ndarray) -> None:
    """Makes `vector` (float32 `[W]`) the weights that collectors find."""
    header = np.array([version.incarnation, version.train_step], np.int64)
    client_lib.put(client, WEIGHTS, [header, vector])


def latest(
    client: reverb.Client, infos: dict[str, Any] | None
) -> tuple[Version, np.ndarray] | None:
    """The published weights, finite; None if the table is empty or holds something else."""
    items = client_lib.take(client, WEIGHTS, infos)
    if not items:
        return None
    forms = [(array.dtype, array.ndim) for array in items[-1]]
    if forms != [(np.int64, 1), (np.float32, 1)] or len(items[-1][0]) != 2:
        logging.warning("dropped weights that can't be read: arrays of %s", forms)
        return None
    header, vector = items[-1]
    if not np.isfinite(vector).all():
        logging.warning("dropped weights that are not finite")
        return None
    return Version(int(header[0]), int(header[1])), vector
