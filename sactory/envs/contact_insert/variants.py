"""The numbers that tell the three variants apart; what follows from them is the same code.

Lengths are metres, forces newtons, angles radians, times seconds unless a name says otherwise.
Heights are measured from the mouth of the hole or slot, upwards.
"""

from __future__ import annotations

import dataclasses

PHYSICS_STEP = 0.002  # 4 ms steps let parts sink 2 mm at an impact
PEG_HALF_WIDTH = 0.010
PEG_LENGTH = 0.060
HOLE_DEPTH = 0.040
PLATE_RADIUS = 0.1566
PLATE_HALF_THICKNESS = 0.01375
PLATE_GRIP = 0.130  # from the hand to the plate's centre
SLOT_DEPTH = 0.160
BLOCK_WIDTH = 0.060  # of the four blocks that make three slots


@dataclasses.dataclass(frozen=True)
class Grip:
    """One passive joint between hand and part: how much the grip gives.

    Attributes:
        kind: `slide` or `hinge`.
        axis: `x`, `y` or `z`.
        stiffness: N/m or Nm/rad.
        armature: Apparent inertia, kg or kg m^2.
        damping: Ns/m or Nms/rad.
    """

    kind: str
    axis: str
    stiffness: float
    armature: float
    damping: float


@dataclasses.dataclass(frozen=True)
class Variant:
    """One variant.

    Attributes:
        name: `planar`, `peg` or `plate`.
        slides: Axes in which the hand moves; z is the last.
        hinges: Axes about which it turns, outermost first.
        stiffness: Of the hand's impedance: N/m of slides, Nm/rad of hinges.
        force_limit: Of the hand's actuators: N, Nm.
        hinge_armature: Apparent inertia of the hand's hinges, kg m^2; of its slides 2 kg.
        step: How far the reference moves in an env step at action 1: m, rad.
        leash: How far the reference may be ahead of the hand: m, rad. It caps the force.
        reach: The hand's reference stays within: m sideways, rad.
        ceiling: The hand's reference stays below, above the hand's own first height.
        substeps: Physics steps of an env step.
        max_episode_steps: Env steps of an episode.
        gravity: Whether there is any; without, the payload is compensated.
        grip: The passive joints between hand and part, outermost first.
        point: From the hand down to the point of the part that is judged: a peg's tip, a
            plate's centre.
        tip: From that point down to the part's lowest point.
        goal: Height of the point at the goal.
        success: The point is inside at this height or below.
        offset_limits: And no farther than this from the fixture's middle, along its x (,y).
        slip_limit: The part is lost when a joint of the grip gives more: m, rad.
        noisy_hinges: Those whose goal is noisy.
        descent: Share of the base controller's speed that it goes down with.
        scales: What one unit of an observation is: m, rad, Nm.
        torque_noise: Noise of a torque for each newton of noise of a force, m.
        cost_scales: Distance at which a cost is whole: m sideways, m of height.
        costs: Of an env step at most: time, sideways distance, height.
    """

    name: str
    slides: str
    hinges: str
    stiffness: tuple[float, float]
    force_limit: tuple[float, float]
    hinge_armature: float
    step: tuple[float, float]
    leash: tuple[float, float]
    reach: tuple[float, float]
    ceiling: float
    substeps: int
    max_episode_steps: int
    gravity: bool
    grip: tuple[Grip, ...]
    point: float
    tip: float
    goal: float
    success: float
    offset_limits: tuple[float, ...]
    slip_limit: tuple[float, float]
    noisy_hinges: str
    descent: float
    scales: tuple[float, float, float]
    torque_noise: float
    cost_scales: tuple[float, float]
    costs: tuple[float, float, float]

    @property
    def control_timestep(self) -> float:
        """Simulated seconds of one env step."""
        return self.substeps * PHYSICS_STEP

    @property
    def num_slides(self) -> int:
        """How many of the hand's joints are slides; they come first."""
        return len(self.slides)

    @property
    def num_axes(self) -> int:
        """The hand's joints: 3 or 6."""
        return len(self.slides) + len(self.hinges)

    def per_axis(self, slide: float, hinge: float) -> list[float]:
        """One number for each of the hand's joints."""
        return [slide] * len(self.slides) + [hinge] * len(self.hinges)


_PLANAR = Variant(
    name="planar",
    slides="xz",
    hinges="y",
    stiffness=(1500.0, 10.0),
    force_limit=(40.0, 4.0),
    hinge_armature=0.02,
    step=(0.004, 0.04),
    leash=(0.015, 0.1),
    reach=(0.06, 0.5),
    ceiling=0.03,
    substeps=20,
    max_episode_steps=150,
    gravity=False,
    grip=(
        Grip("slide", "x", 4000.0, 0.5, 100.0),
        Grip("hinge", "y", 20.0, 0.01, 0.75),
    ),
    point=PEG_LENGTH,
    tip=0.0,
    goal=-HOLE_DEPTH,
    success=-0.9 * HOLE_DEPTH,
    offset_limits=(2 * PEG_HALF_WIDTH,),
    slip_limit=(0.015, 0.3),
    noisy_hinges="y",
    descent=0.55,
    scales=(0.03, 0.1, 0.1),
    torque_noise=0.04,
    cost_scales=(0.03, 0.08),
    costs=(0.02, 0.06, 0.06),
)

_PEG = dataclasses.replace(
    _PLANAR,
    name="peg",
    slides="xyz",
    hinges="zyx",
    noisy_hinges="zyx",
    max_episode_steps=200,
    grip=(
        Grip("slide", "x", 4000.0, 0.5, 100.0),
        Grip("slide", "y", 4000.0, 0.5, 100.0),
        Grip("hinge", "y", 20.0, 0.01, 0.75),
        Grip("hinge", "x", 20.0, 0.01, 0.75),
    ),
    offset_limits=(2 * PEG_HALF_WIDTH,) * 2,
)

_PLATE = Variant(
    name="plate",
    slides="xyz",
    hinges="zyx",
    stiffness=(600.0, 15.0),
    force_limit=(60.0, 6.0),
    hinge_armature=0.03,
    step=(0.0125, 0.125),
    leash=(0.06, 0.3),
    reach=(0.35, 0.8),
    ceiling=0.1,
    substeps=25,
    max_episode_steps=128,
    gravity=True,
    grip=(
        Grip("hinge", "z", 8.0, 0.01, 0.5),
        Grip("hinge", "y", 8.0, 0.01, 1.0),
        Grip("hinge", "x", 8.0, 0.01, 1.0),
        Grip("slide", "z", 3000.0, 0.25, 60.0),
    ),
    point=PLATE_GRIP,
    tip=PLATE_RADIUS,
    goal=PLATE_RADIUS - SLOT_DEPTH + 0.02,
    success=PLATE_RADIUS - SLOT_DEPTH + 0.04,
    offset_limits=(0.05, 0.24),
    slip_limit=(0.03, 0.8),
    noisy_hinges="z",
    descent=0.55,
    scales=(0.1, 0.1, 0.1),
    torque_noise=0.05,
    cost_scales=(0.3, 0.4),
    costs=(0.01, 0.04, 0.04),
)

VARIANTS = {variant.name: variant for variant in (_PLANAR, _PEG, _PLATE)}
