"""Hurts running runs on purpose and checks that nothing is lost: the soak and the kill matrix."""
