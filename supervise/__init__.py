"""Turns a run directory into a running daemontools tree, and ends it."""
