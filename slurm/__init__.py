"""Turns a run, or a sweep of runs, into SLURM jobs."""
