"""MLflow stores and SQL databases."""
