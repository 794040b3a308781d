"""Opening MLflow and SQL stores."""
