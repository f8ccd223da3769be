"""What the tests of ContactInsert share: environments and simulations that stand still."""

from __future__ import annotations

import numpy as np

from sactory import envs, settings
from sactory.envs.contact_insert.environment import ContactInsert
from sactory.envs.contact_insert.models import Geometry
from sactory.envs.contact_insert.simulation import Simulation
from sactory.envs.contact_insert.variants import VARIANTS

NAMES = tuple(VARIANTS)
STILL = {"init_z_spread": 0.0, "init_xy_offset": 0.0, "init_tilt": 0.0, "goalreach_steps": 5}


def load(variant: str, level: str | None = "easy", seed: int = 0, parameters=(), **kwargs):
    task_kwargs = {"parameters": dict(parameters), **kwargs.pop("task_kwargs", {})}
    wanted = settings.Env(
        name=f"contact_insert:{variant}", level=level, task_kwargs=task_kwargs, **kwargs
    )
    return envs.load(wanted, seed=seed)


def simulate(variant: str, **geometry) -> Simulation:
    shapes = {"clearance": 0.0005, "chamfer": 0.001, "slot_gap": 0.06, "hole_shape": "box"}
    simulation = Simulation(VARIANTS[variant], Geometry(**{**shapes, **geometry}))
    simulation.configure(friction=0.3, mass_scale=1.0, grip_scale=1.0)
    return simulation


def place(simulation: Simulation, height: float, x: float = 0.0, y: float = 0.0) -> None:
    hinges = len(simulation.variant.hinges)
    simulation.reset(np.array([x, y]), 0.0, height, np.zeros(hinges))


def push(simulation: Simulation, steps: int, **speeds: float) -> float:
    """Moves the reference for some env steps; returns the deepest penetration, m."""
    variant = simulation.variant
    velocity = np.array([speeds.get(axis, 0.0) for axis in variant.slides + variant.hinges.upper()])
    deepest = 0.0
    for _ in range(steps):
        simulation.step(velocity, 0)
        deepest = max(deepest, *(-c.dist for c in simulation.data.contact), 0.0)
    return deepest


def contact_forces(simulation: Simulation) -> np.ndarray:
    """Of each contact: normal force, then friction [contacts, 6]."""
    import mujoco  # after Sactory, which keeps OpenGL out

    forces = np.zeros((simulation.data.ncon, 6))
    for i, force in enumerate(forces):
        mujoco.mj_contactForce(simulation.model, simulation.data, i, force)
    return forces


def play(env: ContactInsert, policy: str = "straight", seed: int = 0) -> dict:
    env.seed(seed)
    actor = env.baseline(policy, seed=seed)
    step = env.reset()
    while not step.is_last():
        step = env.step(actor.act(step.observation[None])[0])
    return env.get_info()
