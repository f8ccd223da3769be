"""What parts go into: a hole with chamfered edges, or a rack with three slots.

A fixture's origin is the middle of its mouth. Boxes only: their contacts are exact and fast.
"""

from __future__ import annotations

from sactory.envs.contact_insert.variants import (
    BLOCK_WIDTH,
    HOLE_DEPTH,
    PEG_HALF_WIDTH,
    SLOT_DEPTH,
)

_WALL = 0.030  # thickness of the hole's walls
_BASE = 0.020  # thickness below hole and slots
_RACK_HALF_DEPTH = 0.150
_THICK = 0.004  # half thickness of a chamfer at least: thin ones let the peg tunnel


def hole(clearance: float, chamfer: float, planar: bool) -> str:
    """A square hole, or the two walls of one that a planar peg meets.

    A wall ends one chamfer below the mouth; a shelf set back by the chamfer goes on up to it, and
    the top face of a thick box at 45 degrees, buried in both, joins their edges.

    Args:
        clearance: Between peg and wall on each side, m.
        chamfer: Its height and width, m.
        planar: Walls along x alone, without the two along y.

    Returns:
        The geoms as XML.
    """
    inner = PEG_HALF_WIDTH + clearance
    # A planar hole has no walls in front and behind; its edges reach beyond the peg's sides.
    length = 1.5 * PEG_HALF_WIDTH if planar else inner + _WALL
    geoms = [_box((0, 0, -HOLE_DEPTH - _BASE / 2), (inner + _WALL, length, _BASE / 2))]
    thick = max(chamfer, _THICK)
    for quarter in range(0, 4, 2 if planar else 1):
        geoms.append(_slab(quarter, inner, length, -HOLE_DEPTH, -chamfer))
        geoms.append(_slab(quarter, inner + chamfer, length, -HOLE_DEPTH, 0.0))
        # from the middle of the sloping face, half the thickness down into the wall
        shift = thick * 0.5**0.5
        geoms.append(
            _turned(
                quarter,
                (inner + chamfer / 2 + shift, -chamfer / 2 - shift),
                (chamfer * 0.5**0.5, length, thick),
            )
        )
    return "".join(geoms)


def _slab(quarter: int, inner: float, length: float, low: float, high: float) -> str:
    """An upright wall whose inner face is this far from the middle."""
    size = (_WALL / 2, length, (high - low) / 2)
    middle = inner + _WALL / 2
    x, y = [(middle, 0.0), (0.0, middle), (-middle, 0.0), (0.0, -middle)][quarter]
    if quarter % 2:
        size = (size[1], size[0], size[2])
    return _box((x, y, (low + high) / 2), size)


def _turned(quarter: int, place: tuple[float, float], size: tuple[float, float, float]) -> str:
    """A chamfer: a box turned down towards the middle by 45 degrees."""
    out, z = place
    x, y = [(out, 0.0), (0.0, out), (-out, 0.0), (0.0, -out)][quarter]
    # its own x axis points outwards and up
    across = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter]
    along = (-across[1], across[0])
    axes = f"{across[0]} {across[1]} 1 {along[0]} {along[1]} 0"
    return _box((x, y, z), size, f'xyaxes="{axes}"')


def rack(slot_gap: float) -> str:
    """A base with four blocks, side by side along y; plates stand in the slots between them.

    Args:
        slot_gap: Width of a slot, m.

    Returns:
        The geoms as XML.
    """
    pitch = slot_gap + BLOCK_WIDTH
    size = (_RACK_HALF_DEPTH, BLOCK_WIDTH / 2, SLOT_DEPTH / 2)
    blocks = [_box((0, (i - 1.5) * pitch, -SLOT_DEPTH / 2), size) for i in range(4)]
    half = 1.5 * pitch + BLOCK_WIDTH / 2
    base = _box((0, 0, -SLOT_DEPTH - _BASE / 2), (_RACK_HALF_DEPTH, half, _BASE / 2))
    return base + "".join(blocks)


def _box(position: tuple, size: tuple, more: str = "") -> str:
    numbers = [" ".join(f"{value:.9g}" for value in values) for values in (position, size)]
    return f'<geom class="fixture" type="box" pos="{numbers[0]}" size="{numbers[1]}" {more}/>'
