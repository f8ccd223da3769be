"""Headless rendering: finds the OpenGL backend that really works, and only when a frame is wanted.

`defer` keeps OpenGL out of a program until something renders (an EGL display costs 60 MB of
memory and wakes the GPU's driver); the first frame then calls `choose_backend`. Nothing here
knows an environment's meaning or writes videos.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from sactory.errors import UserError

_BACKENDS = ("egl", "osmesa")
_OFF = ("off", "disable", "disabled", "false", "0")  # what MuJoCo takes for "no rendering"
_PROBE_SECONDS = 60.0  # a healthy probe takes one second; a broken GPU driver may hang for ever
# One small frame, start to end: a backend may import and yet fail to make a context or to draw.
_PROBE = """
import sys
sys.path[:1] = []  # the directory that `python -c` adds: the user's files must not shadow modules
import mujoco
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 3"/><geom size="1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 16, 16) as renderer:
    renderer.update_scene(data)
    sys.exit(0 if renderer.render().any() else 'it drew nothing')
"""


def choose_backend() -> str:
    """Makes rendering ready in this process and says on stderr which backend it uses.

    EGL is tried before OSMesa, each by drawing a frame in a process of its own; if the user has
    set MUJOCO_GL, only that is tried. The answers are kept for the life of the process, and the
    children inherit MUJOCO_GL.

    Returns:
        The value of MUJOCO_GL: "egl" or "osmesa" (or what the user has set).

    Raises:
        UserError: Nothing draws; the message tells why and what to install.
    """
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    if wanted in _OFF:
        raise UserError(f"MUJOCO_GL={wanted} forbids rendering: unset it to have a backend chosen")
    failures = []
    for backend in (wanted,) if wanted else _BACKENDS:
        failure = _probe(backend)
        if failure is None:
            os.environ["MUJOCO_GL"] = backend
            return backend
        failures.append(f"{backend}: {failure}")
    raise UserError(
        f"no headless OpenGL works here ({'; '.join(failures)}): "
        f"{'unset MUJOCO_GL, or ' if wanted else ''}"
        "install libegl1 with libgl1-mesa-dri, or libosmesa6"
    )


@functools.cache
def _probe(backend: str) -> str | None:
    """Draws one frame in another process; None if that worked, else the reason in one line."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env={**os.environ, "MUJOCO_GL": backend},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_PROBE_SECONDS:.0f} s"
    if done.returncode == 0:
        print(f"rendering with {backend.upper()}", file=sys.stderr, flush=True)
        return None
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    # how PyOpenGL says that it found no such library
    return "not installed" if "'NoneType' object has no attribute" in lines[-1] else lines[-1]


def defer() -> None:
    """Loads dm_control's and MuJoCo's rendering code without OpenGL.

    Call it before the first import of dm_control. The first use of a renderer, by whomever,
    chooses the backend. Does nothing for a module that is already imported.
    """
    before = set(sys.modules)  # looking for MuJoCo's module imports it
    with _mujoco_gl("off"):
        names = {"dm_control._render": "Renderer", _gl_context_module(): "GLContext"}
        for name in [name for name in names if name not in before]:
            _load_on_first_use(importlib.import_module(name), names[name])


def _gl_context_module() -> str:
    """Where this MuJoCo keeps its GLContext; the one for Python 3.9 is older."""
    if importlib.util.find_spec("mujoco.rendering") is None:
        return "mujoco.gl_context"
    return "mujoco.rendering.classic.gl_context"


def _load_on_first_use(module: ModuleType, attribute: str) -> None:
    """Replaces a renderer class by a function that first loads the module again with OpenGL."""

    def make(*args: Any, **kwargs: Any) -> Any:
        choose_backend()
        importlib.reload(module)  # reads MUJOCO_GL and puts the real class in the place of `make`
        return getattr(module, attribute)(*args, **kwargs)

    setattr(module, attribute, make)


@contextlib.contextmanager
def _mujoco_gl(value: str) -> Iterator[None]:
    """Sets MUJOCO_GL for a moment: children must not inherit what holds for this import only."""
    before = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ["MUJOCO_GL"]
        else:
            os.environ["MUJOCO_GL"] = before


def lighten(model: Any) -> None:
    """Drops shadows and multisampling, which make software rendering four times slower.

    Args:
        model: An `MjModel` (or dm_control's wrapper) of which no frame has been drawn yet:
            MuJoCo reads these fields when it makes the rendering context.
    """
    model.vis.quality.offsamples = 0
    model.vis.quality.shadowsize = 0


def fit_buffer(physics: Any, height: int, width: int) -> None:
    """Makes dm_control's off-screen buffer large enough for frames of this size [pixels]."""
    size = physics.model.vis.global_
    if height > size.offheight or width > size.offwidth:
        size.offheight = max(height, size.offheight)
        size.offwidth = max(width, size.offwidth)
        free(physics)  # it was made with the old size; the next frame makes a new one


def free(physics: Any) -> None:
    """Frees dm_control's rendering context, if one was made; OSMesa's can't be freed at exit."""
    if getattr(physics, "_contexts", None):
        physics._free_rendering_contexts()


def frame(env: Any, height: int, width: int) -> np.ndarray:
    """The current picture of any environment, for videos.

    Args:
        env: A `PyEnvironment`. One of Sactory's own draws in the size asked for, any other in
            its own.
        height: Pixels.
        width: Pixels.

    Returns:
        uint8 [height, width, 3].

    Raises:
        UserError: The environment has no `render`, or it returns something else.
    """
    render: Callable[..., Any] = env.render
    try:
        if getattr(env, "renders_any_size", False):
            image = render("rgb_array", height=height, width=width)
        else:
            image = render("rgb_array")
    except NotImplementedError as e:
        raise UserError(f"the environment can't be filmed ({e}): give it a `render` method") from e
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise UserError(
            f"the environment's `render` returned {image.dtype}{list(image.shape)}: "
            "videos need uint8[height, width, 3]"
        )
    return image
