"""Runs studies with Ray, Optuna and MLflow."""

import os

# Ray reads these when it is imported. The default timeouts are too short for slow machines.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")
