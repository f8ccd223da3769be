"""Pictures of a simulation: the whole scene on the left, the mouth from close by on the right."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

CAMERAS = ("overview", "closeup")


class Pictures:
    """Draws simulations; OpenGL is loaded with the first picture, and used by one thread."""

    def __init__(self) -> None:
        self._renderer: Any = None
        self._options = mujoco.MjvOption()
        self._options.flags[mujoco.mjtVisFlag.mjVIS_CONTACTFORCE] = True

    def draw(self, model: Any, data: Any, height: int, width: int, camera: str) -> np.ndarray:
        """A picture.

        Args:
            model: An `MjModel`.
            data: Its state.
            height: Pixels.
            width: Pixels.
            camera: `overview`, `closeup`, or `both` side by side.

        Returns:
            uint8 [height, width, 3].
        """
        if camera != "both":
            return self._one(model, data, height, width, camera)
        # both are drawn in full, and their middles stand side by side
        left = width // 2
        scene = self._one(model, data, height, width, "overview")
        mouth = self._one(model, data, height, width, "closeup")
        start = (width - left) // 2
        return np.concatenate(
            [scene[:, start : start + left], mouth[:, left // 2 : left // 2 + width - left]], 1
        )

    def _one(self, model: Any, data: Any, height: int, width: int, camera: str) -> np.ndarray:
        renderer = self._renderer
        fits = renderer and (renderer.model, renderer.height, renderer.width) == (
            model,
            height,
            width,
        )
        if not fits:
            self.close()
            model.vis.global_.offheight = max(height, model.vis.global_.offheight)
            model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
            renderer = self._renderer = mujoco.Renderer(model, height, width)
        renderer.update_scene(data, camera, self._options)
        return renderer.render().copy()

    def close(self) -> None:
        """Frees OpenGL's context, if there is one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
