"""An episode as an mp4 file: frames go to ffmpeg as they are drawn.

Drawing is `sactory.rendering`'s business, which picks the backend; what is played, the
evaluator's.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any

from sactory import rendering, settings

_CODEC_OPTIONS = ["-preset", "veryfast", "-threads", "1"]  # training needs the other cores


class Film:
    """Records one environment; the file appears when the `with` block ends without an error.

    Args:
        path: The mp4 file.
        evaluator: Size and frame rate; default: the settings that gin has bound.

    Attributes:
        keep: Whether the file is to appear at all; set it to False for an episode cut short.
    """

    def __init__(self, path: Path, evaluator: settings.Evaluator | None = None):
        self.path = path
        self.keep = True
        self._settings = settings.Evaluator() if evaluator is None else evaluator
        self._writer: Generator[None, Any, None] | None = None
        self._temporary: Path | None = None
        self._frames = 0

    def __enter__(self) -> Film:
        return self

    def capture(self, env: Any, env_steps: int) -> None:
        """Draws the environment's state if a frame is due.

        Args:
            env: The environment. Without a `control_timestep` every call is a frame.
            env_steps: Simulator steps of the episode so far.

        Raises:
            UserError: The environment can't be drawn, or no backend works here.
        """
        timestep = getattr(env, "control_timestep", None)
        # A hair of tolerance: 4 steps of 0.01 s must reach a frame time of 0.04 s.
        if timestep and env_steps * timestep * self._settings.video_fps < self._frames - 1e-6:
            return
        frame = rendering.frame(env, self._settings.video_height, self._settings.video_width)
        if self._writer is None:
            self._writer = self._open(frame.shape[1], frame.shape[0])
        self._writer.send(frame.tobytes())
        self._frames += 1

    def _open(self, width: int, height: int) -> Generator[None, Any, None]:
        import imageio_ffmpeg

        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=".tmp-", suffix=".mp4", dir=self.path.parent)
        os.close(fd)
        self._temporary = Path(name)
        writer = imageio_ffmpeg.write_frames(
            name,
            (width, height),
            fps=self._settings.video_fps,
            codec="libx264",
            macro_block_size=2,
            output_params=_CODEC_OPTIONS,
        )
        writer.send(None)
        return writer

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is None or self._temporary is None:
            return
        try:
            self._writer.close()
            if kind is None and self.keep:
                os.replace(self._temporary, self.path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                self._temporary.unlink()
