"""MLflow tracking of a sweep."""
