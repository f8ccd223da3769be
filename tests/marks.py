"""Marks of tests that need what not every host has."""

import os

import pytest

from replay_server import isolation

isolated_only = pytest.mark.skipif(
    isolation.refusal() is not None, reason="this host refuses network namespaces"
)
root_only = pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
