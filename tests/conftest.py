"""What every test shares: a quiet TensorFlow and no settings left over from another test."""

import pytest

from sactory import quiet

quiet.set_environment()


@pytest.fixture(autouse=True)
def no_settings_left_over():
    from sactory import config

    config.clear()
    yield
    config.clear()
