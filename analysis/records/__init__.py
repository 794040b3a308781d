"""Finished trials, read from MLflow or a CSV file."""
