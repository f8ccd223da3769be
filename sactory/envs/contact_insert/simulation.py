"""The physics of an episode: an impedance hand follows a reference that stays on a leash.

MuJoCo's position actuators are the impedance, so one env step is one or two calls of `mj_step`.
"""

from __future__ import annotations

import mujoco
import numpy as np

from sactory.envs.contact_insert import models
from sactory.envs.contact_insert.variants import Variant

_BROKEN = (
    mujoco.mjtWarning.mjWARN_BADQPOS,
    mujoco.mjtWarning.mjWARN_BADQVEL,
    mujoco.mjtWarning.mjWARN_BADQACC,
)
_SETTLE_STEPS = 50  # physics steps in which a new episode comes to rest


class Simulation:
    """The model of one variant and its state.

    Args:
        variant: What to simulate.
        geometry: Its shapes.

    Attributes:
        variant: As given.
        model: MuJoCo's model.
        data: Its state.
        geometry: As given.
        reference: Where the hand is sent, one number for each of its joints.
    """

    def __init__(self, variant: Variant, geometry: models.Geometry):
        self.geometry = geometry
        self.model = models.build(variant, geometry)
        self.data = mujoco.MjData(self.model)
        self.variant = variant
        self._axes = variant.num_axes
        self._slides = variant.num_slides
        self.reference = np.zeros(self._axes)
        self._step = np.array(variant.per_axis(*variant.step))
        self._leash = np.array(variant.per_axis(*variant.leash))
        self._columns = ["xyz".index(axis) for axis in variant.slides]
        self._wrench_columns = self._columns + [3 + "xyz".index(axis) for axis in variant.hinges]
        self._nominal = self.model.site("nominal").id
        self._point = self.model.site("point").id
        self._part = self.model.body("part").id
        self._geom = self.model.geom("part").id
        m = self.model
        self._defaults = {
            "gain": m.actuator_gainprm[:, 0].copy(),
            "damping": m.actuator_biasprm[:, 2].copy(),
            "grip": m.jnt_stiffness.copy(),
            "mass": m.body_mass[self._part],
            "inertia": m.body_inertia[self._part].copy(),
        }

    def configure(self, friction: float, mass_scale: float, grip_scale: float) -> None:
        """Sets what needs no new model; call it before `reset`.

        Args:
            friction: Sliding friction of the part, which has priority over the fixture's.
            mass_scale: Factor of the part's mass and inertia.
            grip_scale: Factor of the stiffness of the grip.
        """
        m, defaults = self.model, self._defaults
        m.geom_friction[self._geom, 0] = friction
        m.jnt_stiffness[:] = defaults["grip"] * grip_scale
        if m.body_mass[self._part] != defaults["mass"] * mass_scale:
            m.body_mass[self._part] = defaults["mass"] * mass_scale
            m.body_inertia[self._part] = defaults["inertia"] * mass_scale
            mujoco.mj_setConst(m, self.data)

    def set_stiffness(self, scale: np.ndarray | float) -> None:
        """Scales the hand's stiffness, for all joints or each; damping stays critical."""
        m, gain = self.model, self._defaults["gain"] * scale
        m.actuator_gainprm[:, 0] = gain
        m.actuator_biasprm[:, 1] = -gain
        m.actuator_biasprm[:, 2] = self._defaults["damping"] * np.sqrt(scale)

    def reset(self, fixture: np.ndarray, yaw: float, height: float, angles: np.ndarray) -> None:
        """Starts an episode at rest.

        Args:
            fixture: Where the fixture's middle is, along x and y.
            yaw: Of the fixture.
            height: Of the part's lowest point above the mouth, were the hand upright.
            angles: Of the hand's hinges.
        """
        m, d, slides = self.model, self.data, self._slides
        mujoco.mj_resetData(m, d)
        d.mocap_pos[0] = [*fixture, 0.0]
        d.mocap_quat[0] = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        d.qpos[slides : self._axes] = angles
        mujoco.mj_kinematics(m, d)
        target = np.array([0.0, 0.0, height + self.variant.tip])
        d.qpos[:slides] = (target - d.site_xpos[self._nominal])[self._columns]
        self.reference[:] = d.qpos[: self._axes]
        d.ctrl[:] = self.reference
        if self.variant.gravity:  # what the weight would make the hand sink
            sag = m.body_mass[self._part] * 9.81 / m.actuator_gainprm[slides - 1, 0]
            d.ctrl[slides - 1] += sag
            self.reference[slides - 1] += sag
        self._ceiling = self.reference[slides - 1] + self.variant.ceiling
        mujoco.mj_step(m, d, _SETTLE_STEPS)
        mujoco.mj_rnePostConstraint(m, d)
        self._tare = d.sensordata[:6].copy()

    def step(self, velocity: np.ndarray, lag: int) -> None:
        """Moves the reference and simulates one env step.

        Args:
            velocity: Of the reference, 1 being the variant's `step` in an env step.
            lag: Physics steps for which the hand still follows the old reference.
        """
        m, d, variant = self.model, self.data, self.variant
        pose = d.qpos[: self._axes]
        moved = self.reference + np.clip(velocity, -1.0, 1.0) * self._step
        reference = np.clip(moved, pose - self._leash, pose + self._leash)
        slides = self._slides
        reach = variant.reach
        np.clip(reference[: slides - 1], -reach[0], reach[0], out=reference[: slides - 1])
        reference[slides - 1] = min(reference[slides - 1], self._ceiling)
        np.clip(reference[slides:], -reach[1], reach[1], out=reference[slides:])
        self.reference = reference
        lag = min(lag, variant.substeps)
        if lag:
            mujoco.mj_step(m, d, lag)
        d.ctrl[:] = reference
        if lag < variant.substeps:
            mujoco.mj_step(m, d, variant.substeps - lag)

    @property
    def wrench(self) -> np.ndarray:
        """What the hand puts on the part since the episode's first state: N then Nm.

        In the order of the hand's axes; the others are left out.
        """
        return (self.data.sensordata[:6] - self._tare)[self._wrench_columns]

    @property
    def touch(self) -> float:
        """Normal force at the part's lower end, N."""
        return float(self.data.sensordata[6])

    @property
    def pose(self) -> np.ndarray:
        """Where the hand's joints say that the judged point is: m along slides, then angles."""
        pose = self.data.qpos[: self._axes].copy()
        pose[: self._slides] = self.data.site_xpos[self._nominal][self._columns]
        return pose

    @property
    def velocity(self) -> np.ndarray:
        """Of the hand's joints: m/s, rad/s."""
        return self.data.qvel[: self._axes]

    @property
    def point(self) -> np.ndarray:
        """The true place of the judged point in the fixture's frame [3]."""
        relative = self.data.site_xpos[self._point] - self.data.mocap_pos[0]
        w, z = self.data.mocap_quat[0, 0], self.data.mocap_quat[0, 3]
        cos, sin = w * w - z * z, 2 * w * z
        x, y = relative[0], relative[1]
        return np.array([cos * x + sin * y, cos * y - sin * x, relative[2]])

    @property
    def slip(self) -> tuple[float, float]:
        """The largest deflection of the grip's slides, m, and hinges, rad."""
        slides, hinges = [0.0], [0.0]
        for joint, deflection in zip(self.variant.grip, self.data.qpos[self._axes :]):
            (slides if joint.kind == "slide" else hinges).append(abs(deflection))
        return max(slides), max(hinges)

    @property
    def broken(self) -> bool:
        """Whether MuJoCo met numbers that are not finite, or absurd; it starts anew by itself."""
        return any(self.data.warning[kind].number for kind in _BROKEN)
