"""What every test shares: a quiet TensorFlow and no settings left over from another test."""

import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from sactory import quiet

quiet.set_environment()


@pytest.fixture(autouse=True)
def same_signal_mask():
    """A program's main called in here blocks its stop signals; later tests' children need them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.fixture(autouse=True)
def no_settings_left_over():
    from sactory import config

    config.clear()
    yield
    config.clear()


@pytest.fixture
def public_place():
    """A directory in /tmp that others can look into; pytest's own are private."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="session")
def cluster():
    """A SLURM of three nodes, whose 8 CPUs each are more than the host may have."""
    from tests import slurm_site

    with slurm_site.running(nodes=3) as cluster:
        yield cluster
