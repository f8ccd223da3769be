"""MuJoCo models: a hand without a robot that holds a part above a fixture.

The fixture is a mocap body, so an episode may put it anywhere without compiling again; only the
shapes of `Geometry` need a new model.
"""

from __future__ import annotations

import dataclasses

import mujoco

from sactory import rendering
from sactory.envs.contact_insert import fixtures
from sactory.envs.contact_insert.variants import (
    PEG_HALF_WIDTH,
    PEG_LENGTH,
    PHYSICS_STEP,
    PLATE_HALF_THICKNESS,
    PLATE_RADIUS,
    Variant,
)

_AXES = {"x": "1 0 0", "y": "0 1 0", "z": "0 0 1"}
_HAND_ARMATURE = 2.0  # kg: with the hand's own 0.6 kg alone, contacts ring at 2 ms
_HAND_DAMPING = (2.0, 0.05)


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The shapes that a model is compiled for.

    Attributes:
        clearance: Between a peg and each wall of its hole, m.
        chamfer: Of the hole's edges, m.
        slot_gap: Width of the rack's slots, m.
        hole_shape: `box` or `cylinder`: what the peg is; the hole is always square.
    """

    clearance: float
    chamfer: float
    slot_gap: float
    hole_shape: str


def build(variant: Variant, geometry: Geometry) -> mujoco.MjModel:
    """Compiles a model.

    Joints are ordered hand first, slides before hinges, then the grip. The sensors `force` and
    `torque` tell what the hand puts on the part, in the part's frame; `touch` is the normal
    force at its lower end.
    """
    model = mujoco.MjModel.from_xml_string(_xml(variant, geometry))
    rendering.lighten(model)
    return model


def _xml(variant: Variant, geometry: Geometry) -> str:
    if variant.name == "plate":
        fixture = fixtures.rack(geometry.slot_gap)
    else:
        fixture = fixtures.hole(geometry.clearance, geometry.chamfer, variant.name == "planar")
    alpha = 0.4 if variant.name == "peg" else 1  # its front wall would hide the peg
    return f"""
<mujoco model="contact_insert_{variant.name}">
  <option timestep="{PHYSICS_STEP}" integrator="implicitfast" cone="elliptic" impratio="10"
    iterations="20" ls_iterations="20" gravity="0 0 {-9.81 if variant.gravity else 0}">
    <flag multiccd="enable"/>
  </option>
  <visual>
    <global offwidth="640" offheight="480"/>
    <headlight ambient=".5 .5 .5" diffuse=".6 .6 .6" specular=".1 .1 .1"/>
    <map force="{0.02 if variant.name == "plate" else 0.004}" znear="0.005"/>
    <scale forcewidth="0.02" contactwidth="0.05" contactheight="0.02"/>
  </visual>
  <default>
    <geom solref="0.004 1" solimp=".95 .99 .0005" condim="{4 if variant.name == "plate" else 3}"/>
    <default class="fixture">
      <geom contype="1" conaffinity="2" rgba=".55 .6 .68 {alpha}"/>
    </default>
    <default class="part">
      <geom contype="2" conaffinity="1" priority="1" rgba=".9 .5 .2 1"/>
    </default>
    <default class="hand"><geom contype="0" conaffinity="0" rgba=".3 .3 .35 1"/></default>
  </default>
  <asset>
    <texture type="skybox" builtin="gradient" rgb1=".95 .96 .98" rgb2=".7 .75 .8"
      width="64" height="64"/>
  </asset>
  <worldbody>
    <light pos="0.3 -0.5 1" dir="-.3 .5 -1" directional="true"/>
    <body name="fixture" mocap="true">{fixture}{_cameras(variant)}</body>
    {_hand(variant, geometry)}
  </worldbody>
  <actuator>{_actuators(variant)}</actuator>
  <sensor>
    <force site="grip"/><torque site="grip"/><touch name="touch" site="tip"/>
  </sensor>
</mujoco>"""


def _hand(variant: Variant, geometry: Geometry) -> str:
    joints = [
        f'<joint name="hand_{kind}_{axis}" type="{kind}" axis="{_AXES[axis]}" '
        f'armature="{armature}" damping="{damping}"/>'
        for kind, axes, armature, damping in (
            ("slide", variant.slides, _HAND_ARMATURE, _HAND_DAMPING[0]),
            ("hinge", variant.hinges, variant.hinge_armature, _HAND_DAMPING[1]),
        )
        for axis in axes
    ]
    grip = [
        f'<joint name="grip_{g.kind}_{g.axis}" type="{g.kind}" axis="{_AXES[g.axis]}" '
        f'stiffness="{g.stiffness}" armature="{g.armature}" damping="{g.damping}"/>'
        for g in variant.grip
    ]
    width = 0.35 * variant.point
    return f"""
<body name="hand" gravcomp="1">
  {"".join(joints)}
  <inertial pos="0 0 0" mass="0.6" diaginertia="1e-4 1e-4 1e-4"/>
  <geom class="hand" type="box" size="{width} {0.5 * width} {0.2 * width}" pos="0 0 {0.3 * width}"/>
  <site name="nominal" pos="0 0 {-variant.point}" size="0.001" rgba="0 0 0 0"/>
  <body name="part">
    {"".join(grip)}
    {_part(variant, geometry)}
    <site name="grip" size="0.001" rgba="0 0 0 0"/>
    <site name="point" pos="0 0 {-variant.point}" size="0.001" rgba="0 0 0 0"/>
  </body>
</body>"""


def _part(variant: Variant, geometry: Geometry) -> str:
    """The part's geom and the volume of its touch sensor."""
    if variant.name == "plate":
        place = f'pos="0 0 {-variant.point}" zaxis="0 1 0" type="cylinder"'
        size = f"{PLATE_RADIUS} {PLATE_HALF_THICKNESS}"
        volume = f"{PLATE_RADIUS + 0.01} {PLATE_HALF_THICKNESS + 0.01}"
        return f"""
<geom name="part" class="part" {place} size="{size}" mass="0.33" friction=".95 .3 .1"/>
<site name="tip" {place} size="{volume}" rgba="0 0 0 0"/>"""
    half = PEG_HALF_WIDTH
    shape = geometry.hole_shape if variant.name == "peg" else "box"
    size = f"{half} {half} {PEG_LENGTH / 2}" if shape == "box" else f"{half} {PEG_LENGTH / 2}"
    return f"""
<geom name="part" class="part" type="{shape}" pos="0 0 {-PEG_LENGTH / 2}" size="{size}" mass="0.1"/>
<site name="tip" type="box" pos="0 0 {-PEG_LENGTH}" size="{half + 0.005} {half + 0.005} 0.005"
  rgba="0 0 0 0"/>"""


def _actuators(variant: Variant) -> str:
    return "".join(
        f'<position joint="hand_{kind}_{axis}" kp="{stiffness}" dampratio="1" '
        f'forcerange="{-limit} {limit}"/>'
        for kind, axes, stiffness, limit in (
            ("slide", variant.slides, variant.stiffness[0], variant.force_limit[0]),
            ("hinge", variant.hinges, variant.stiffness[1], variant.force_limit[1]),
        )
        for axis in axes
    )


def _cameras(variant: Variant) -> str:
    """An overview, and a close-up that looks along the walls into the mouth."""
    if variant.name == "plate":
        places = {"overview": ("0.9 -0.9 0.7", 45), "closeup": ("0.8 0 0.1", 40)}
    else:
        places = {"overview": ("0.1 -0.24 0.14", 45), "closeup": ("0 -0.16 0.03", 35)}
    return "".join(
        f'<camera name="{name}" pos="{position}" fovy="{fovy}" mode="targetbody" target="fixture"/>'
        for name, (position, fovy) in places.items()
    )
