"""The commands that run and list sweeps, one per module."""
