"""Keeps the libraries' start-up noise off the user's console without hiding real warnings.

Only environment variables, set before anything heavy is imported; children inherit them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "1",  # 1 drops INFO only: warnings and errors still come through
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "GRPC_VERBOSITY": "ERROR",
    "ABSL_MIN_LOG_LEVEL": "1",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
    "SDL_AUDIODRIVER": "dummy",  # pictures need no sound, and a server has no card
    "NO_AT_BRIDGE": "1",
}
# gRPC obeys these even for 127.0.0.1, so a cluster's proxy would cut the programs off.
_PROXIES = ("http_proxy", "https_proxy", "grpc_proxy")


def set_environment() -> None:
    """Sets what must be set before TensorFlow, Reverb or MuJoCo is imported."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in _PROXIES:
        os.environ.pop(name, None)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keeps what libraries print while they are imported off the console, unless they fail.

    TensorFlow's C++ writes to the descriptor itself, so that is what is turned aside.
    """
    sys.stderr.flush()
    console = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(console, said.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(console, 2)
            os.close(console)
