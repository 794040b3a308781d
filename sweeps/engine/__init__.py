"""What runs a study: Ray Tune, Optuna and MLflow around memmeta."""
