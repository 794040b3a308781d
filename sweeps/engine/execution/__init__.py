"""Running the trials of a sweep with Ray."""
