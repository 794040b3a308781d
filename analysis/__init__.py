"""Analysis of finished sweeps. Reads trials from MLflow or CSV and does not depend on Ray."""
