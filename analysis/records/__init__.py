"""Finished trials, read from MLflow or from a CSV file."""
