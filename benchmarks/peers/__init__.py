"""Other projects' SAC, each measured in the best form that it offers.

All but `environment` run in an environment of their own and import of Sactory only what needs
nothing but Python: `benchmarks.worker` and `job`.
"""
