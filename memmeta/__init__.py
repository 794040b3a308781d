"""Memory-reduced meta-learning: the learner. Knows nothing of Ray, Optuna or MLflow."""
