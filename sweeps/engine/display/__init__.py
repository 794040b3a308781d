"""The output of a sweep: plan, progress and summary."""
