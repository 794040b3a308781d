"""Studies: a short script each. The machinery is in sweeps.engine."""
