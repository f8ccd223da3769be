"""Threads change how fast the update is, never what it computes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.timeout(240)

# Thread counts are set once a process, so each count has a process of its own.
UPDATES = """
import json, sys
import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from sactory import settings
from sactory.rows import flat_row_format
from train.agent import SacAgent
from train.update import make_update

intra, inter = map(int, sys.argv[1:])
tf.config.threading.set_intra_op_parallelism_threads(intra)
tf.config.threading.set_inter_op_parallelism_threads(inter)
observation = tf.TensorSpec([17], tf.float32)
action = tensor_spec.BoundedTensorSpec([6], tf.float32, -1.0, 1.0)
agent = SacAgent(ts.time_step_spec(observation), action, settings.SacAgent(hidden_sizes=(64, 64)))
agent.initialize()
row_format = flat_row_format(observation, action)
rng = np.random.default_rng(0)
update = make_update(agent, row_format, 1)
weights, losses = None, []
for _ in range(100):
    rows = rng.uniform(-1, 1, (1, 256, row_format.size)).astype(np.float32)
    losses.append(update(tf.constant(rows))["critic_loss"])
    if weights is None:
        weights = agent.policy_vector().tolist()
print(json.dumps([weights, losses]))
"""


def updates(intra: int, inter: int) -> tuple[np.ndarray, np.ndarray]:
    """The policy after one gradient step and the critics' losses of a hundred."""
    words = [sys.executable, "-c", UPDATES, str(intra), str(inter)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=True)
    weights, losses = json.loads(done.stdout.splitlines()[-1])
    return np.array(weights), np.array(losses)


def test_threads_do_not_change_the_mathematics():
    weights, losses = updates(1, 1)
    for threads in ((1, 2), (1, 4), (2, 2)):
        other_weights, other_losses = updates(*threads)
        scale = np.abs(weights).max()
        np.testing.assert_allclose(other_weights, weights, rtol=1e-5, atol=1e-5 * scale)
        np.testing.assert_allclose(other_losses, losses, rtol=0.01)
