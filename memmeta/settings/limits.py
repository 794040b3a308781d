"""Upper bounds of configs, far beyond what any machine can run."""

MOST = 10_000
"""Limit of steps, filters, ways and other counts. Far fewer fill any machine."""

MOST_TASKS = 1_000_000_000
"""Tasks or outer steps of a run: more than a year of work on any machine."""

MOST_PIXELS = 4096
"""Height and width of images in pixels."""
