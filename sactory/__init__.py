"""Sactory's shared contract: what every program may import, and no program logic."""

__version__ = "0.1.0"
